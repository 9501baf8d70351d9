//! One loop over the steps of a plan. It chooses nothing: each step is done as written or fails by its number.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::bundle::HOST_DIRECTORY;
use crate::plan::{LaunchPlan, Op, Upper};
use crate::sys::ns::{IdMap, Isolation, SingleThreaded};
use crate::sys::{self, Errno, fuse_dev, mount, privileges, process, pty, to_errno};

use super::keeper::{self, Joined, Sharing};
use super::server::{self, FileServer};
use super::stop_for_test;
use super::{LaunchError, control, exec, outside, unpacked, words};

/// Directories on which the image may be mounted for the moment before it becomes the root. Any will do that exists:
/// after the pivot the mount is gone from it.
pub(super) const STAGING: [&str; 5] = ["/tmp", "/mnt", "/var/tmp", "/run", "/usr"];

/// What applying needs beside the plan.
#[derive(Debug)]
pub struct Context<'a> {
    /// The image as the user named it, for messages.
    pub image_name: &'a str,
    /// How the file server is to serve.
    pub serve: server::Settings,
    /// The opened image.
    pub image: &'a crate::image::Image,
    /// Holds the unpacked tree that the plan has as its root, until the mount does.
    pub lease: Option<std::os::fd::BorrowedFd<'a>>,
    /// Tells the user what could not be had and was left out.
    pub warn: fn(&str),
    /// Whether user namespace and mount of the image may be shared, and with whom.
    pub sharing: Sharing,
    /// Where the workload's terminal goes, for a plan that makes one.
    pub console: Option<&'a OwnedFd>,
}

impl Context<'_> {
    /// The same, with a place for the workload's terminal.
    #[must_use]
    pub fn with_console<'b>(&'b self, console: Option<&'b OwnedFd>) -> Context<'b> {
        Context {
            image_name: self.image_name,
            serve: self.serve.clone(),
            image: self.image,
            lease: self.lease,
            warn: self.warn,
            console,
            sharing: self.sharing.clone(),
        }
    }
}

/// Applies the plan and becomes the workload: returns only the error.
pub fn apply(plan: &LaunchPlan, context: &Context<'_>) -> LaunchError {
    match run(plan, context) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Applies every step but the last: this process stays what it is, inside.
pub fn visit(plan: &LaunchPlan, context: &Context<'_>) -> Result<(), LaunchError> {
    run_steps(plan, context).map(drop)
}

fn run(plan: &LaunchPlan, context: &Context<'_>) -> Result<Infallible, LaunchError> {
    let mut done = run_steps(plan, context)?;
    if done.state.init {
        outside::stay_before_workload(&done.state.witness, done.state.report.take())
            .map_err(|errno| LaunchError::Init { errno })?;
        stop_for_test("init");
    }
    Err(exec::become_workload(done.argv, done.env))
}

/// Everything is done but the last step.
struct Done<'a> {
    argv: &'a [OsString],
    env: &'a [OsString],
    state: State,
}

/// Does the steps, and gives what is to be executed.
fn run_steps<'a>(plan: &'a LaunchPlan, context: &Context<'_>) -> Result<Done<'a>, LaunchError> {
    let witness = SingleThreaded::witness().ok_or(LaunchError::Threads)?;
    // The one thing that is decided here: who is there to share with is known only now. The steps are the same.
    let joined = keeper::enter(&witness, plan, context);
    let mut state = State {
        witness,
        joined,
        server: None,
        staging: None,
        init: false,
        report: None,
        // Modes are the plan's; the workload gets the caller's mask back, or the plan's.
        umask: process::set_umask(0),
    };
    let steps = plan.ops.len();
    let mut error = None;
    for (index, op) in plan.ops.iter().enumerate() {
        stop_for_test(index);
        if let Op::Exec { argv, env } = op {
            process::set_umask(state.umask);
            return Ok(Done { argv, env, state });
        }
        if let Err(errno) = state.step(op, plan, context) {
            error = Some((index, op, errno));
            break;
        }
    }
    let Some((index, op, errno)) = error else {
        unreachable!("plan::check saw that a plan ends with exec");
    };
    // A step before the image is looked into fails for a reason of its own.
    let needs_server = !matches!(op, Op::NewNamespaces { .. } | Op::SlavePropagation | Op::MountImage { .. });
    if let Some(text) = state.server.as_ref().filter(|_| needs_server).and_then(FileServer::complaint) {
        return Err(LaunchError::Server { image: context.image_name.to_owned(), text });
    }
    Err(LaunchError::Step {
        image: context.image_name.to_owned(),
        step: index + 1,
        steps,
        title: op.title(),
        words: words::explain(op, errno),
        hint: words::hint(op, errno),
        errno,
    })
}

struct State {
    witness: SingleThreaded,
    /// What a keeper has handed out; without it this process makes its own.
    joined: Option<Joined>,
    server: Option<FileServer>,
    /// Where the new root is mounted until the pivot.
    staging: Option<PathBuf>,
    /// What the workload gets.
    umask: u32,
    /// A process stays before the workload.
    init: bool,
    /// This is the first process of a pid namespace, and somebody outside waits for its words.
    report: Option<outside::Report>,
}

impl State {
    fn step(&mut self, op: &Op, plan: &LaunchPlan, context: &Context<'_>) -> sys::Result<()> {
        match op {
            Op::NewNamespaces { uid, gid, uid_inside, gid_inside, network, host_name, ipc, pid } => {
                let more = Isolation { network: *network, host_name: *host_name, ipc: *ipc, pid: *pid };
                if let Some(joined) = &self.joined {
                    sys::ns::join_user_and_unshare_mount(&self.witness, &joined.user, more)?;
                } else {
                    // Before the namespaces: the server lives in the host's.
                    if plan.ops.iter().any(|op| matches!(op, Op::MountImage { .. })) {
                        self.server = Some(server::start(&self.witness, plan, context)?);
                    }
                    sys::ns::unshare_user_and_mount(&self.witness, more)?;
                    sys::ns::write_id_maps(&IdMap {
                        uid_outside: *uid,
                        uid_inside: *uid_inside,
                        gid_outside: *gid,
                        gid_inside: *gid_inside,
                    })?;
                }
                if *pid {
                    self.report = Some(outside::enter_pid_namespace(&self.witness)?);
                }
                Ok(())
            }
            Op::HostName { name, domain } => {
                sys::ns::set_host_name(name)?;
                domain.as_ref().map_or(Ok(()), |domain| sys::ns::set_domain_name(domain))
            }
            Op::LoopbackUp => sys::ns::bring_loopback_up(),
            Op::Limit { name, soft, hard } => process::set_limit(name, *soft, *hard),
            Op::SlavePropagation => mount::make_all_slave(),
            Op::MountImage { upper, .. } => self.mount_image(upper.as_ref()),
            Op::MountDirectory { directory, mount_points, upper } => {
                let root = unpacked::mount(directory, mount_points, upper.as_ref())?;
                self.staging = Some(root);
                Ok(())
            }
            Op::ControlGroup { parent, limits } => control::enter_group(parent, limits),
            Op::PivotRoot => {
                let old = Path::new(HOST_DIRECTORY.trim_start_matches('/'));
                let staging = self.staging.as_deref().ok_or(Errno::EINVAL)?;
                mount::pivot(staging, old)?;
                // The scratch directory of a writable root would cover the host's; the root keeps what it needs of it.
                match staging
                    .strip_prefix("/")
                    .ok()
                    .filter(|place| place.ends_with(MERGED))
                    .and_then(Path::parent)
                {
                    Some(scratch) => mount::detach(&Path::new(HOST_DIRECTORY).join(scratch)),
                    None => Ok(()),
                }
            }
            Op::Tmpfs { target, mode, size_bytes } => mount::tmpfs(target, *mode, *size_bytes),
            Op::Terminals { target } => mount::terminals(target),
            Op::MessageQueues { target } => mount::message_queues(target),
            Op::ProcessFiles { target } => mount::process_files(target),
            Op::Init => {
                self.init = true;
                Ok(())
            }
            Op::LimitCapabilities { keep, add } => privileges::limit_capabilities(keep.bits(), add.bits()),
            Op::Umask { mask } => {
                self.umask = *mask;
                Ok(())
            }
            Op::OomScore { score } => process::set_oom_score(*score),
            Op::FilterCalls { filter } => sys::seccomp::load(filter),
            Op::MakeDirectory { target } => make_directory(target),
            Op::MakeFile { target, mode, content } => make_file(target, *mode, content),
            Op::MakeLink { target, to } => std::os::unix::fs::symlink(to, target).map_err(to_errno),
            Op::Bind { source, target, read_only, from_run, optional, .. } => {
                match bind(source, target, *read_only, *from_run) {
                    Err(errno) if *optional => {
                        let place = target.display();
                        (context.warn)(&format!("`{place}` is not inside: {}", words::explain(op, errno)));
                        Ok(())
                    }
                    other => other,
                }
            }
            Op::DetachHost => mount::detach(Path::new(HOST_DIRECTORY)),
            Op::Console => make_console(context.console.ok_or(Errno::EINVAL)?),
            Op::NoNewPrivileges => privileges::set_no_new_privileges(),
            Op::ChangeDirectory { path, asked } => match process::change_directory(path) {
                Err(errno) if !asked => {
                    let reason = words::explain(op, errno);
                    (context.warn)(&format!(
                        "the current directory `{}` cannot be entered inside: {reason}; the command starts in `/`",
                        path.display()
                    ));
                    process::change_directory(Path::new("/"))
                }
                other => other,
            },
            Op::Exec { .. } => Ok(()),
        }
    }

    /// Mounts the image on a staging directory; with `upper`, a tmpfs comes there first, with the image and the
    /// writable view of it side by side.
    fn mount_image(&mut self, upper: Option<&Upper>) -> sys::Result<()> {
        // A copy can be attached once, so it must not be lost on a directory that will not do.
        let device = match self.joined {
            Some(_) => None,
            None => Some(fuse_dev::open_device()?),
        };
        let mount_on = |place: &Path| match (&self.joined, &device) {
            (Some(joined), _) => mount::attach(&joined.image, place),
            (None, Some(device)) => {
                let (uid, gid) = process::own_ids();
                fuse_dev::mount_read_only(device, place, uid, gid)
            }
            (None, None) => Err(Errno::EINVAL),
        };
        // Mounting over the directory that holds the changes would hide it.
        let hides =
            |place: &Path| matches!(upper, Some(Upper::Directory { path }) if path.starts_with(place));
        let place = on_staging(|place| match upper {
            _ if hides(place) => Err(Errno::ENOENT),
            None => mount_on(place),
            Some(upper) => stage_writable(place, upper, &mount_on),
        })?;
        self.staging = Some(if upper.is_some() { place.join(MERGED) } else { place.to_path_buf() });
        if let (Some(device), Some(server)) = (device, &self.server) {
            serve_by(server.line(), device, server.threads)?;
        }
        match (upper, &self.staging) {
            (Some(upper), Some(merged)) => mount_overlay(merged, upper),
            _ => Ok(()),
        }
    }
}

/// Mounts on the first staging directory that will do.
fn on_staging(mount_on: impl Fn(&Path) -> sys::Result<()>) -> sys::Result<&'static Path> {
    let mut result = Err(Errno::ENOENT);
    for place in STAGING.map(Path::new) {
        result = mount_on(place).map(|()| place);
        if !matches!(result, Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES)) {
            break;
        }
    }
    result
}

/// Hands a mounted device, and one more for each further thread, to the server at the other end of `line`. From there on
/// only the server holds the connection.
fn serve_by(line: &OwnedFd, device: OwnedFd, threads: usize) -> sys::Result<()> {
    let mut devices: Vec<OwnedFd> = Vec::with_capacity(threads);
    for _ in 1..threads {
        devices.push(fuse_dev::clone_device(&device)?);
    }
    devices.insert(0, device);
    server::hand_over(line, &devices)
}

/// Mounts the image that the server at the other end of `line` serves, for a keeper. Says where.
pub(super) fn mount_served(threads: usize, line: &OwnedFd) -> sys::Result<&'static Path> {
    let device = fuse_dev::open_device()?;
    let (uid, gid) = process::own_ids();
    let place = on_staging(|place| fuse_dev::mount_read_only(&device, place, uid, gid))?;
    serve_by(line, device, threads)?;
    Ok(place)
}

/// A terminal of the container's own set of them; its other side goes to who looks after it.
fn make_console(whose: &OwnedFd) -> sys::Result<()> {
    let (master, terminal) = pty::open_terminal(Path::new("/dev/ptmx"))?;
    sys::socket::send(whose, b"t", &[master])?;
    pty::take_terminal(&terminal)
}

/// Names in the scratch directory of a writable root.
pub(super) const LOWER: &str = "lower";
/// The directory, below the one of a writable root, that holds the changes.
pub const UPPER: &str = "upper";
const WORK: &str = "work";
pub(super) const MERGED: &str = "merged";
/// Size of the scratch directory where it holds nothing but mount points.
const SCRATCH_BYTES: u64 = 1 << 20;

/// A tmpfs with places for the layers, and room for the changes where they are kept in memory.
pub(super) fn make_scratch(place: &Path, upper: Option<&Upper>) -> sys::Result<()> {
    let size_bytes = match upper {
        Some(Upper::Memory { size_bytes }) => *size_bytes,
        Some(Upper::Directory { .. }) | None => Some(SCRATCH_BYTES),
    };
    mount::tmpfs(place, 0o755, size_bytes)?;
    [LOWER, UPPER, WORK, MERGED].into_iter().try_for_each(|name| make_directory(&place.join(name)))
}

/// The same with the image mounted in it.
fn stage_writable(
    place: &Path,
    upper: &Upper,
    mount_image: &impl Fn(&Path) -> sys::Result<()>,
) -> sys::Result<()> {
    make_scratch(place, Some(upper))?;
    mount_image(&place.join(LOWER))
}

fn mount_overlay(merged: &Path, upper: &Upper) -> sys::Result<()> {
    let scratch = merged.parent().ok_or(Errno::EINVAL)?;
    let (changes, work) = upper_directories(scratch, upper)?;
    mount::overlay(&[&scratch.join(LOWER)], Some((&changes, &work)), merged)
}

/// Where the changes go and the kernel's scratch directory beside them, for the scratch directory of a launch.
pub(super) fn upper_directories(scratch: &Path, upper: &Upper) -> sys::Result<(PathBuf, PathBuf)> {
    let changes = match upper {
        Upper::Memory { .. } => scratch,
        Upper::Directory { path } => {
            for name in [UPPER, WORK] {
                make_directory(&path.join(name))?;
            }
            path
        }
    };
    Ok((changes.join(UPPER), changes.join(WORK)))
}

pub(super) fn make_directory(target: &Path) -> sys::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(to_errno),
    }
}

fn bind(source: &Path, target: &Path, read_only: bool, from_run: bool) -> sys::Result<()> {
    let source: PathBuf = if from_run {
        source.to_path_buf()
    } else {
        Path::new(HOST_DIRECTORY).join(source.strip_prefix("/").unwrap_or(source))
    };
    mount::bind(&source, target, true)?;
    if read_only { mount::make_read_only(target) } else { Ok(()) }
}

pub(super) fn make_file(target: &Path, mode: u32, content: &[u8]) -> sys::Result<()> {
    use std::io::Write as _;
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(target).map_err(to_errno)?;
    file.write_all(content).map_err(to_errno)
}
