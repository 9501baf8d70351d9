//! Processes that stand before the workload: the one outside of a new pid namespace, and the first one in it.
//!
//! ```text
//! P, which the scheduler started ─┬─ fork ─▶ the first process inside: builds the root, then ─┬─ fork ─▶ the workload
//!   passes signals on, and ends   │            reaps orphans, passes signals on               │
//!   as the workload has ended     ◀─ how it ended, through a pipe ────────────────────────────┘
//! ```
//!
//! The first process of a pid namespace cannot end by a signal of its own, and so says in words how the workload ended. It
//! dies with P, and with it everything in the namespace.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::sys::ns::SingleThreaded;
use crate::sys::process::{self, End};
use crate::sys::signals::SignalWatch;
use crate::sys::{Errno, Result, access, to_errno};

use super::supervise::supervise;

/// The first process's way to say how the workload has ended.
#[derive(Debug)]
pub(super) struct Report {
    to_parent: PipeWriter,
}

/// Forks into the pid namespace that this process has just made. Returns in the child alone; the parent stands outside,
/// and ends as the workload does.
pub(super) fn enter_pid_namespace(witness: &SingleThreaded) -> Result<Report> {
    let watch = SignalWatch::new()?;
    let (from_child, to_parent) = std::io::pipe().map_err(to_errno)?;
    // Held open by the parent alone: its end is the parent's.
    let (parent_there, parent_here) = std::io::pipe().map_err(to_errno)?;
    let Some(child) = process::fork_here(witness)? else {
        drop((from_child, parent_here));
        process::die_with_any_parent()?;
        // The parent may have been killed before that held.
        if access::wait_readable(parent_there.as_fd(), std::time::Duration::ZERO)? {
            return Err(Errno::ECHILD);
        }
        watch.release()?;
        return Ok(Report { to_parent });
    };
    drop(to_parent);
    process::set_name(c"slipway-outside");
    // What the workload closes must be closed, and a directory that it leaves must be free. If it cannot be, nothing is lost.
    let _ = process::keep_only_fds(&[watch.as_fd(), from_child.as_fd(), parent_here.as_fd()]);
    let _ = process::change_directory(Path::new("/"));
    let end = supervise(&watch, child);
    said(from_child).unwrap_or(end).follow()
}

/// Forks the workload off; returns in the workload alone. This process looks after it, and ends as it does.
pub(super) fn stay_before_workload(witness: &SingleThreaded, report: Option<Report>) -> Result<()> {
    if report.is_none() {
        // Without a pid namespace of its own this is nobody's first process, unless it says so.
        process::adopt_orphans()?;
    }
    let watch = SignalWatch::new()?;
    let parent = process::own_number();
    let Some(child) = process::fork_here(witness)? else {
        drop(report);
        if !process::die_with_parent(parent)? {
            return Err(Errno::ECHILD);
        }
        return watch.release();
    };
    process::set_name(c"slipway-init");
    let mut kept = vec![watch.as_fd()];
    kept.extend(report.as_ref().map(|report| report.to_parent.as_fd()));
    // See above.
    let _ = process::keep_only_fds(&kept);
    let _ = process::change_directory(Path::new("/"));
    let end = supervise(&watch, child);
    if let Some(mut report) = report {
        // The parent may be gone, and then this process is about to be.
        let _ = report.to_parent.write_all(&to_bytes(end));
    }
    end.follow()
}

fn to_bytes(end: End) -> [u8; 5] {
    let (kind, number) = match end {
        End::Exited(status) => (b'e', status),
        End::Killed(number) => (b'k', number),
    };
    let [a, b, c, d] = number.to_le_bytes();
    [kind, a, b, c, d]
}

fn said(mut pipe: PipeReader) -> Option<End> {
    let mut bytes = [0; 5];
    pipe.read_exact(&mut bytes).ok()?;
    let [kind, a, b, c, d] = bytes;
    let number = i32::from_le_bytes([a, b, c, d]);
    match kind {
        b'e' => Some(End::Exited(number)),
        b'k' => Some(End::Killed(number)),
        _ => None,
    }
}
