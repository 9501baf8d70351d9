//! The file server as a process of its own: started before the namespaces, fed with the device fds after the mount.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use crate::fuse::{Server, ServerSpec, Synthetic, SyntheticKind, Tuning};
use crate::host::{self, LaunchFacts};
use crate::plan::{LaunchPlan, MountPoint, Op, PathKind};
use crate::sys::landlock::{self, Fence};
use crate::sys::ns::{IdMap, SingleThreaded};
use crate::sys::{Errno, Result, process, socket};

use super::Context;

/// Longest message of a server that cannot serve, in bytes.
const COMPLAINT_BYTES: usize = 4096;

/// How to serve.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Server threads, each with a device fd of its own, at most [`socket::MAX_FDS`]; 0 means one for each CPU that the
    /// server may use, up to [`MAX_THREADS`].
    pub threads: usize,
    /// Memory for decompressed blocks, in bytes.
    pub cache_bytes: usize,
    /// Answer OPEN with ENOSYS; nothing said means where the kernel is known good.
    pub no_open: Option<bool>,
    /// Hot list, standby, report.
    pub tuning: Tuning,
}

/// Most threads of a server where nobody says: more only take turns on the image's file.
const MAX_THREADS: usize = 16;

/// What a server needs to know of the machine. A start that joins does without, and does not look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled {
    pub(super) threads: usize,
    /// The number of threads follows the number of CPUs.
    pub(super) follows_cpus: bool,
    no_open: bool,
}

impl Settings {
    /// Looks at the machine for what the settings leave open.
    pub(super) fn settle(&self) -> Settled {
        let facts = LaunchFacts::read(Path::new("/"));
        let threads = match self.threads {
            0 => usize::try_from(facts.cpus.allowed()).unwrap_or(1).min(MAX_THREADS),
            threads => threads,
        };
        let no_open = self.no_open.unwrap_or_else(|| host::no_open_is_safe(&facts.kernel));
        Settled { threads: threads.clamp(1, socket::MAX_FDS), follows_cpus: self.threads == 0, no_open }
    }
}

impl Settled {
    /// As many threads as this process has CPUs now, where they follow them.
    pub(super) fn threads_now(&self) -> usize {
        if self.follows_cpus {
            process::cpu_count().clamp(self.threads, MAX_THREADS.max(self.threads))
        } else {
            self.threads
        }
    }
}

/// Our end of the line to the server.
#[derive(Debug)]
pub(super) struct FileServer {
    socket: OwnedFd,
    /// How many devices it can use.
    pub(super) threads: usize,
}

/// What the plan says of the file system to serve.
#[derive(Debug)]
pub(super) struct View<'a> {
    mount_points: &'a [MountPoint],
    /// User and group id as the namespace of the mount has them.
    owner: (u32, u32),
}

impl<'a> View<'a> {
    /// The view of a plan.
    pub(super) fn of(plan: &'a LaunchPlan) -> Self {
        let mut view = View { mount_points: &[], owner: process::own_ids() };
        for op in &plan.ops {
            match op {
                Op::MountImage { mount_points, .. } => view.mount_points = mount_points,
                Op::NewNamespaces { uid_inside, gid_inside, .. } => view.owner = (*uid_inside, *gid_inside),
                _ => {}
            }
        }
        view
    }

    /// Its mount points, as the server takes them.
    pub(super) fn points(&self) -> Vec<Synthetic> {
        self.mount_points.iter().map(to_synthetic).collect()
    }
}

/// A mount point of a plan as the server takes it.
fn to_synthetic(point: &MountPoint) -> Synthetic {
    Synthetic {
        path: point.path.clone(),
        kind: match point.kind {
            PathKind::Directory => SyntheticKind::Directory,
            PathKind::File => SyntheticKind::File,
        },
    }
}

/// The id map that a step writes, if it is the one that does.
pub(super) fn id_map(op: &Op) -> Option<IdMap> {
    match op {
        Op::NewNamespaces { uid, gid, uid_inside, gid_inside, .. } => Some(IdMap {
            uid_outside: *uid,
            uid_inside: *uid_inside,
            gid_outside: *gid,
            gid_inside: *gid_inside,
        }),
        _ => None,
    }
}

/// Whom a server gets its devices from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// A container that starts alone, and says nothing more.
    Container,
    /// A keeper, which may have mount points added.
    Keeper,
}

/// Starts the server process. It opens the image at once and then waits for the device fds; if this process ends before
/// it sends them, the server ends too.
pub(super) fn start(
    witness: &SingleThreaded,
    plan: &LaunchPlan,
    context: &Context<'_>,
) -> Result<FileServer> {
    let (ours, theirs) = socket::pair()?;
    let view = View::of(plan);
    let settled = context.serve.settle();
    process::spawn_detached(witness, || serve(&theirs, &view, context, settled, Client::Container))?;
    Ok(FileServer { socket: ours, threads: settled.threads })
}

/// Gives a server its device fds. Two processes hold them until the caller drops its own.
pub(super) fn hand_over(line: &OwnedFd, devices: &[OwnedFd]) -> Result<()> {
    match socket::send(line, b"devices", devices) {
        // The server is gone already; the next look into the image fails, and then its complaint is read.
        Err(Errno::EPIPE) => Ok(()),
        other => other,
    }
}

impl FileServer {
    /// The line that devices are handed over on.
    pub(super) fn line(&self) -> &OwnedFd {
        &self.socket
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
pub(super) fn serve(
    socket: &OwnedFd,
    view: &View<'_>,
    context: &Context<'_>,
    settled: Settled,
    client: Client,
) -> i32 {
    process::forget_command_line();
    process::set_name(c"slipway-fuse");
    process::ignore_signals();
    process::hold_report_signal();
    process::share_allocator_arenas();
    let complain = |text: String| {
        // The launcher may be gone, and then nobody wants to know.
        let _ = socket::send(socket, text.as_bytes(), &[]);
    };
    let ready = process::keep_only_fds(&[socket.as_fd(), context.image.file.fd()])
        .and_then(|()| process::change_directory(Path::new("/")));
    if let Err(errno) = ready {
        complain(format!("the file server cannot leave its caller: {}", errno.desc()));
        return 1;
    }
    let (uid, gid) = view.owner;
    let report = context.serve.tuning.report.clone();
    let report = report.unwrap_or_else(|| format!("/tmp/slipway-fuse-{}.stats", std::process::id()).into());
    let tuning = Tuning { report: Some(report), ..context.serve.tuning.clone() };
    if let Err(errno) = enclose(&tuning) {
        complain(format!("the file server cannot give up its rights on files: {}", errno.desc()));
        return 1;
    }
    let server = Server::load(ServerSpec {
        image: context.image.partition(),
        synthetic: view.points(),
        uid,
        gid,
        cache_bytes: context.serve.cache_bytes,
        no_open: settled.no_open,
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
        Ok(Some((_, devices))) if !devices.is_empty() => {
            let control = (client == Client::Keeper).then_some(socket);
            i32::from(server.run(devices, control).is_err())
        }
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
