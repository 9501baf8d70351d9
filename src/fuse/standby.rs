//! A second process that takes over when the server is killed: by the OOM killer, by mistake, by a bug of ours.
//!
//! ```text
//! slipway-fuse ── first requests ── fork ──▶ slipway-spare   holds the same FUSE fds and one end of a socket; sleeps
//!      │                                         ▲
//!      ├── a keeper's words, as they come ──────▶┤ adds the same mount points
//!      ├── ENODEV: "end" over the socket ────────┤ ends, too
//!      └── killed: the socket closes ────────────┘ FUSE_NOTIFY_RESEND, then serves, with a spare of its own
//! ```
//!
//! As long as the server lives, the spare reads no request. It exists only where the kernel can hand out again what was
//! read and not answered (6.9): elsewhere a process that holds the fds would turn the server's death into a hang.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::control::{self, GRAFT, MAX_MESSAGE_BYTES};
use super::wire;
use super::{Lines, Server};
use crate::sys::ns::SingleThreaded;
use crate::sys::{Errno, fuse_dev, process, socket};

/// Servers of one mount that may be killed before it is left without a spare: a request that kills each server that
/// takes it must end in an error.
const MAX_DEATHS: u32 = 3;

/// The server's end of the line.
#[derive(Debug)]
pub(super) struct Standby {
    line: OwnedFd,
}

/// Starts the spare. `None` where it would be of no use or cannot be made; then the server's death is an error for
/// everyone inside.
pub(super) fn start(server: &Server, lines: &Lines<'_>, deaths: u32) -> Option<Standby> {
    if deaths >= MAX_DEATHS || !server.shared.kernel_resends.load(Ordering::Acquire) {
        return None;
    }
    // A fork of a process with threads would have their locks.
    let witness = SingleThreaded::witness()?;
    let (ours, theirs) = socket::pair().ok()?;
    let mut ends = Some((ours, theirs));
    process::fork_child(&witness, || {
        let line = ends.take().map(|(_, theirs)| theirs);
        line.map_or(1, |line| wait(server, lines, deaths, &line))
    })
    .ok()?;
    ends.map(|(line, _)| Standby { line })
}

/// The spare's whole life.
fn wait(server: &Server, lines: &Lines<'_>, deaths: u32, line: &OwnedFd) -> i32 {
    process::set_name(c"slipway-spare");
    loop {
        match socket::receive(line, MAX_MESSAGE_BYTES) {
            Ok(Some((message, _))) => match message.strip_prefix(GRAFT) {
                // The kernel has been told; what could not be added there cannot be added here either.
                Some(points) => drop(control::add(&server.shared, points)),
                None => return 0,
            },
            Ok(None) => break,
            Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
    }
    process::set_name(c"slipway-fuse");
    let Some(first) = lines.devices.first() else { return 1 };
    let notice = wire::resend_notice();
    // ENODEV is the end of the mount, which the next read tells. Any other failure would leave callers waiting for
    // answers that never come; by the end of this process the kernel gives them an error.
    match fuse_dev::write_answer(first, &[std::io::IoSlice::new(&notice)]) {
        Ok(()) | Err(Errno::ENODEV | Errno::ENOENT) => {}
        Err(_) => return 1,
    }
    let result = server.serve(lines, deaths + 1);
    server.finish();
    i32::from(result.is_err())
}

impl Standby {
    /// A keeper's message, before it is acted upon.
    pub(super) fn tell(&self, message: &[u8]) {
        // A spare that is gone takes nothing over.
        let _ = socket::send(&self.line, message, &[]);
    }

    /// The line by whose end the spare knows of the server's.
    pub(super) fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// The mount has ended.
    pub(super) fn dismiss(self) {
        // A spare that is gone already needs no word.
        let _ = socket::send(&self.line, b"end", &[]);
    }
}
