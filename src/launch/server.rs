//! The file server as a process of its own: started before the namespaces, fed with the device fds after the mount.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use crate::fuse::{Server, ServerSpec, Synthetic, SyntheticKind, Tuning};
use crate::plan::{LaunchPlan, MountPoint, Op, PathKind};
use crate::sys::landlock::{self, Fence};
use crate::sys::ns::SingleThreaded;
use crate::sys::{Errno, Result, process, socket};

use super::Context;

/// Longest message of a server that cannot serve, in bytes.
const COMPLAINT_BYTES: usize = 4096;

/// How to serve.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Server threads, each with a device fd of its own; at least 1, at most [`socket::MAX_FDS`].
    pub threads: usize,
    /// Memory for decompressed blocks, in bytes.
    pub cache_bytes: usize,
    /// Answer OPEN with ENOSYS, where the kernel is known good.
    pub no_open: bool,
    /// Hot list, standby, report.
    pub tuning: Tuning,
}

/// Our end of the line to the server.
#[derive(Debug)]
pub(super) struct FileServer {
    socket: OwnedFd,
}

/// What the plan says of the file system to serve.
struct View<'a> {
    mount_points: &'a [MountPoint],
    /// User and group id as the namespace of the mount has them.
    owner: (u32, u32),
}

/// Starts the server process. It opens the image at once and then waits for the device fds; if this process ends before
/// it sends them, the server ends too.
pub(super) fn start(
    witness: &SingleThreaded,
    plan: &LaunchPlan,
    context: &Context<'_>,
) -> Result<FileServer> {
    let (ours, theirs) = socket::pair()?;
    let mut view = View { mount_points: &[], owner: process::own_ids() };
    for op in &plan.ops {
        match op {
            Op::MountImage { mount_points, .. } => view.mount_points = mount_points,
            Op::NewNamespaces { uid_inside, gid_inside, .. } => view.owner = (*uid_inside, *gid_inside),
            _ => {}
        }
    }
    process::spawn_detached(witness, || serve(&theirs, &view, context))?;
    Ok(FileServer { socket: ours })
}

impl FileServer {
    /// Gives the server its device fds. Two processes hold them until the caller drops its own.
    pub(super) fn hand_over(&self, devices: &[OwnedFd]) -> Result<()> {
        match socket::send(&self.socket, b"devices", devices) {
            // The server is gone already; the next look into the image fails, and then its complaint is read.
            Err(Errno::EPIPE) => Ok(()),
            other => other,
        }
    }

    /// What a server that could not serve has said. Waits only if the server is still there and silent, which cannot
    /// be when a step has failed for its sake; so the socket is asked without waiting.
    pub(super) fn complaint(&self) -> Option<String> {
        let receive = || socket::try_receive(&self.socket, COMPLAINT_BYTES);
        // A server that ended with our fds unread makes the first look ECONNRESET; its words come with the second.
        let (text, _) = receive().or_else(|_| receive()).ok()??;
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The server's whole life. Runs in its own process; the exit status is for nobody.
fn serve(socket: &OwnedFd, view: &View<'_>, context: &Context<'_>) -> i32 {
    process::forget_command_line();
    process::set_name(c"slipway-fuse");
    process::ignore_signals();
    process::hold_report_signal();
    process::share_allocator_arenas();
    let complain = |text: String| {
        // The launcher may be gone, and then nobody wants to know.
        let _ = socket::send(socket, text.as_bytes(), &[]);
    };
    let settled = process::keep_only_fds(&[socket.as_fd(), context.image.file.fd()])
        .and_then(|()| process::change_directory(std::path::Path::new("/")));
    if let Err(errno) = settled {
        complain(format!("the file server cannot leave its caller: {}", errno.desc()));
        return 1;
    }
    let (uid, gid) = view.owner;
    let synthetic = view
        .mount_points
        .iter()
        .map(|point| Synthetic {
            path: point.path.clone(),
            kind: match point.kind {
                PathKind::Directory => SyntheticKind::Directory,
                PathKind::File => SyntheticKind::File,
            },
        })
        .collect();
    let report = context.serve.tuning.report.clone();
    let report = report.unwrap_or_else(|| format!("/tmp/slipway-fuse-{}.stats", std::process::id()).into());
    let tuning = Tuning { report: Some(report), ..context.serve.tuning.clone() };
    if let Err(errno) = enclose(&tuning) {
        complain(format!("the file server cannot give up its rights on files: {}", errno.desc()));
        return 1;
    }
    let server = Server::load(ServerSpec {
        image: context.image.partition(),
        synthetic,
        uid,
        gid,
        cache_bytes: context.serve.cache_bytes,
        no_open: context.serve.no_open,
        tuning,
    });
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            complain(error.to_string());
            return 1;
        }
    };
    match socket::receive(socket, COMPLAINT_BYTES) {
        Ok(Some((_, devices))) if !devices.is_empty() => i32::from(server.run(devices).is_err()),
        _ => 1,
    }
}

/// Leaves the server nothing of the file system but what it has open and the places of its report and its hot list:
/// it reads images that strangers have made.
fn enclose(tuning: &Tuning) -> Result<()> {
    let list = tuning.hot_list.as_deref().and_then(Path::parent);
    // The directory of the lists is made with the first one.
    let list = list.map(|place| if place.exists() { place } else { place.parent().unwrap_or(place) });
    let report = tuning.report.as_deref().and_then(Path::parent);
    // More device fds come from there.
    let places: Vec<&Path> = list.into_iter().chain(report).chain([Path::new("/dev/fuse")]).collect();
    landlock::enclose(&Fence { reads_all: false, writes: &places }).map(drop)
}
