//! One loop over the steps of a plan. It chooses nothing: each step is done as written or fails by its number.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::bundle::HOST_DIRECTORY;
use crate::plan::{LaunchPlan, Op};
use crate::sys::ns::{IdMap, SingleThreaded};
use crate::sys::{self, Errno, fuse_dev, mount, process};

use super::server::{self, FileServer};
use super::{LaunchError, exec, words};

/// Directories on which the image may be mounted for the moment before it becomes the root. Any will do that exists:
/// after the pivot the mount is gone from it.
const STAGING: [&str; 5] = ["/tmp", "/mnt", "/var/tmp", "/run", "/usr"];

/// What applying needs beside the plan.
#[derive(Debug)]
pub struct Context<'a> {
    /// The image as the user named it, for messages.
    pub image_name: &'a str,
    /// How the file server is to serve.
    pub serve: server::Settings,
    /// The opened image.
    pub image: &'a crate::image::Image,
    /// Tells the user what could not be had and was left out.
    pub warn: fn(&str),
}

/// Applies the plan and becomes the workload: returns only the error.
pub fn apply(plan: &LaunchPlan, context: &Context<'_>) -> LaunchError {
    match run(plan, context) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn run(plan: &LaunchPlan, context: &Context<'_>) -> Result<Infallible, LaunchError> {
    let mut state = State {
        witness: SingleThreaded::witness().ok_or(LaunchError::Threads)?,
        server: None,
        staging: None,
    };
    let steps = plan.ops.len();
    let mut error = None;
    // Modes are the plan's; the workload gets the caller's mask back.
    let umask = process::set_umask(0);
    for (index, op) in plan.ops.iter().enumerate() {
        if let Op::Exec { argv, env } = op {
            process::set_umask(umask);
            return Err(exec::become_workload(argv, env));
        }
        if let Err(errno) = state.step(op, plan, context) {
            error = Some((index, op, errno));
            break;
        }
    }
    let Some((index, op, errno)) = error else {
        unreachable!("plan::check saw that a plan ends with exec");
    };
    if let Some(text) = state.server.as_ref().and_then(FileServer::complaint) {
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
    server: Option<FileServer>,
    staging: Option<&'static Path>,
}

impl State {
    fn step(&mut self, op: &Op, plan: &LaunchPlan, context: &Context<'_>) -> sys::Result<()> {
        match op {
            Op::NewNamespaces { uid, gid } => {
                // Before the namespaces: the server lives in the host's.
                self.server = Some(server::start(&self.witness, plan, context)?);
                let map = IdMap { uid_outside: *uid, uid_inside: *uid, gid_outside: *gid, gid_inside: *gid };
                sys::ns::unshare_user_and_mount(&self.witness)?;
                sys::ns::write_id_maps(&map)
            }
            Op::SlavePropagation => mount::make_all_slave(),
            Op::MountImage { .. } => self.mount_image(context),
            Op::PivotRoot => {
                let old = Path::new(HOST_DIRECTORY.trim_start_matches('/'));
                mount::pivot(self.staging.ok_or(Errno::EINVAL)?, old)
            }
            Op::Tmpfs { target, mode, size_bytes } => mount::tmpfs(target, *mode, *size_bytes),
            Op::Terminals { target } => mount::terminals(target),
            Op::LimitCapabilities => process::limit_capabilities(),
            Op::MakeDirectory { target } => match fs::DirBuilder::new().mode(0o755).create(target) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other.map_err(|error| to_errno(&error)),
            },
            Op::MakeFile { target, mode, content } => make_file(target, *mode, content),
            Op::MakeLink { target, to } => {
                std::os::unix::fs::symlink(to, target).map_err(|error| to_errno(&error))
            }
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
            Op::NoNewPrivileges => process::set_no_new_privileges(),
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

    fn mount_image(&mut self, context: &Context<'_>) -> sys::Result<()> {
        let (uid, gid) = process::own_ids();
        let device = fuse_dev::open_device()?;
        let mut result = Err(Errno::ENOENT);
        for place in STAGING.map(Path::new) {
            result = fuse_dev::mount_read_only(&device, place, uid, gid);
            self.staging = Some(place);
            if !matches!(result, Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES)) {
                break;
            }
        }
        result?;
        let mut devices: Vec<OwnedFd> = Vec::with_capacity(context.serve.threads);
        for _ in 1..context.serve.threads {
            devices.push(fuse_dev::clone_device(&device)?);
        }
        devices.insert(0, device);
        self.server.as_ref().ok_or(Errno::EINVAL)?.hand_over(&devices)
        // The fds drop here: from now on only the server holds the connection.
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

fn make_file(target: &Path, mode: u32, content: &[u8]) -> sys::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(target)
        .map_err(|error| to_errno(&error))?;
    file.write_all(content).map_err(|error| to_errno(&error))
}

fn to_errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
