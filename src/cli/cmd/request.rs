//! The flags of `run` as a request.

mod network;
mod places;
mod privileges;
mod resources;

use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::bundle::{
    EnvRequest, Home, Identity, Ipc, Limit, MemoryMount, Request, WritableRoot, parse_env_file,
};
use crate::config::Profile;
use crate::host;
use crate::oci::RunConfig;
use crate::sys::process;

use super::Session;
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;

pub(super) use places::{Kept, keep_again, keep_volumes};

/// Size of a `/dev/shm` of the container's own, as docker has it.
const SHM_BYTES: u64 = 64 << 20;
/// The mask of Apptainer's `--no-umask`, and docker's.
const USUAL_UMASK: u32 = 0o022;

/// What decides beside the flags.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    /// Settings and environment.
    pub(super) session: &'a Session,
    /// Which set of defaults.
    pub(super) profile: Profile,
    /// The caller's directory.
    pub(super) cwd: Option<&'a Path>,
    /// The image's configuration.
    pub(super) image: &'a RunConfig,
    /// The container's id, where it has one.
    pub(super) id: Option<&'a str>,
}

/// Which set of defaults holds: a flag's, else the settings'.
pub(super) fn profile(args: &RunArgs, session: &Session) -> Profile {
    let isolation = &args.isolation;
    let by_flag = isolation.compat.then_some(Profile::Docker).or(isolation.profile);
    by_flag.unwrap_or(session.settings.run.profile.value)
}

/// Whether the hpc profile shows the host's `/tmp`.
pub(super) fn shows_tmp(args: &RunArgs, session: &Session) -> Result<bool, Failure> {
    let no_mount = NoMount::parse(&args.files.no_mount)?;
    Ok(session.settings.run.mount_tmp.value && !args.contain && !no_mount.tmp)
}

/// Everything that the flags of `run` and the settings ask for.
pub(super) fn request(args: &RunArgs, command: &[OsString], ground: &Ground<'_>) -> Result<Request, Failure> {
    let settings = &ground.session.settings.run;
    let is_docker = ground.profile == Profile::Docker;
    let judged = args.leftovers.judge();
    if let Some((message, hint)) = judged.refused {
        return Err(Failure::new(message, hint));
    }
    let mut warnings = judged.told;
    let (resources, control_group) = resources::choose(&args.resources, &mut warnings)?;
    let (volumes, memory_mounts) = places::mounts(args, ground)?;
    let network = network::choose(args, ground, &mut warnings)?;
    let privileges = privileges::choose(args, ground, &mut warnings)?;
    let no_mount = NoMount::parse(&args.files.no_mount)?;
    Ok(Request {
        profile: ground.profile,
        entrypoint: args.entrypoint.clone(),
        args: command.to_vec(),
        env: env_requests(args)?,
        clean_env: args.cleanenv,
        workdir: args.workdir.clone(),
        volumes,
        memory_mounts,
        mount_home: settings.mount_home.value && !args.no_home && !args.contain && !no_mount.home,
        mount_tmp: shows_tmp(args, ground.session)?,
        hide_cwd: args.contain || no_mount.cwd,
        identity: identity(args, ground),
        writable: writable(args, ground)?,
        host_name: network.host_name,
        domain_name: args.isolation.domainname.clone(),
        private_network: network.is_private,
        private_pids: is_private_pid(args.keep.process.pid.as_deref(), is_docker, &mut warnings)?,
        init: args.keep.process.init,
        limits: limits(&args.ulimit, &mut warnings)?,
        resources,
        control_group,
        ipc: ipc(args, is_docker, &mut warnings)?,
        devices: privileges.devices,
        capabilities: privileges.capabilities,
        privileged: args.isolation.privileged,
        seccomp: privileges.seccomp,
        files: network.files,
        home: home(args, ground)?,
        no_mount: no_mount.paths,
        umask: (is_docker || args.files.no_umask).then_some(USUAL_UMASK),
        oom_score: args.resources.oom_score_adj,
        tty: args.tty,
        proxies: if is_docker { network::proxies(ground.session) } else { Vec::new() },
        warnings,
    })
}

/// `--env-file` below `-e`, as Docker weighs them.
fn env_requests(args: &RunArgs) -> Result<Vec<EnvRequest>, Failure> {
    let mut requests = Vec::new();
    for path in &args.env_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("cannot read `--env-file {}`: {error}", path.display()), "check the path")
        })?;
        requests.extend(parse_env_file(&path.to_string_lossy(), &text)?);
    }
    requests.extend(args.env.iter().map(|text| env_request(text)));
    Ok(requests)
}

/// `--user`, else root with `--fakeroot`, else who the profile says.
fn identity(args: &RunArgs, ground: &Ground<'_>) -> Identity {
    let (uid, gid) = process::own_ids();
    let own = [uid.to_string(), format!("{uid}:{gid}")];
    match args.user.as_deref() {
        None | Some("") if args.fakeroot => Identity::Root,
        None | Some("") if ground.profile == Profile::Docker => Identity::Image,
        None | Some("") => Identity::Caller,
        Some("0" | "root" | "0:0" | "root:root") => Identity::Root,
        // In the hpc profile the caller's own number is the caller, with name and home.
        Some(user) if ground.profile == Profile::Hpc && own.iter().any(|own| own == user) => Identity::Caller,
        Some(user) => Identity::Named(user.to_owned()),
    }
}

fn writable(args: &RunArgs, ground: &Ground<'_>) -> Result<Option<WritableRoot>, Failure> {
    let Some(directory) = &args.overlay else {
        if args.writable_tmpfs {
            return Ok(Some(WritableRoot::Memory { size_bytes: None }));
        }
        let is_open = ground.profile == Profile::Docker && !args.read_only;
        // What others can find keeps them in its own directory.
        return Ok(is_open.then_some(WritableRoot::Memory { size_bytes: None }));
    };
    let path = ground.cwd.unwrap_or(Path::new("/")).join(directory);
    match std::fs::canonicalize(&path) {
        Ok(path) if path.is_dir() => Ok(Some(WritableRoot::Directory(path))),
        Ok(path) => Err(Failure::new(
            format!("cannot use `--overlay {}`: it is not a directory", path.display()),
            "name a directory; overlay images come later",
        )),
        Err(error) => Err(Failure::new(
            format!("cannot use `--overlay {}`: {error}", directory.display()),
            "create it with `mkdir -p`",
        )),
    }
}

/// `--ulimit`. Without root a hard limit can only be lowered: what is above it becomes it, as much as can be had.
fn limits(texts: &[String], warnings: &mut Vec<String>) -> Result<Vec<Limit>, Failure> {
    let mut limits = Vec::with_capacity(texts.len());
    for text in texts {
        let mut limit = Limit::parse(text)?;
        if let Some(hard) = process::hard_limit(&limit.name).filter(|hard| *hard < limit.hard) {
            // Only a soft limit that is lower than asked changes what the workload gets.
            if hard < limit.soft {
                warnings.push(format!(
                    "`--ulimit {text}`: the hard limit of this session, {hard}, is what it gets"
                ));
            }
            (limit.soft, limit.hard) = (limit.soft.min(hard), hard);
        }
        limits.push(limit);
    }
    Ok(limits)
}

/// `--ipc` and `--shm-size`. The host's `/dev/shm` has the size that it has.
fn ipc(args: &RunArgs, is_docker: bool, warnings: &mut Vec<String>) -> Result<Ipc, Failure> {
    let asked = args.isolation.shm_size;
    let private = Ipc::Private { shm_bytes: asked.unwrap_or(SHM_BYTES) };
    let chosen = match args.isolation.ipc.as_deref() {
        None | Some("") if is_docker => private,
        None | Some("" | "host") => Ipc::Host,
        Some("private" | "shareable") => private,
        Some("none") => Ipc::None,
        Some(other) => {
            return Err(Failure::new(
                format!("cannot have `--ipc {other}`: there are `host`, `private` and `none`"),
                "containers with `--ipc host` share the host's",
            ));
        }
    };
    let has =
        asked.filter(|_| chosen == Ipc::Host).zip(crate::sys::file::capacity(Path::new("/dev/shm")).ok());
    if let Some((asked, has)) = has.filter(|(asked, has)| asked > has) {
        let size = crate::base::sizes::human_size;
        warnings.push(format!(
            "`--shm-size` asks for {}, but the host's `/dev/shm`, which is used, has {}; `--ipc private` gives one of \
             that size",
            size(asked),
            size(has)
        ));
    }
    Ok(chosen)
}

/// Apptainer's `--home SOURCE[:TARGET]`.
fn home(args: &RunArgs, ground: &Ground<'_>) -> Result<Option<Home>, Failure> {
    let Some(text) = &args.files.home else { return Ok(None) };
    let (source, target) = text.split_once(':').unwrap_or((text, text));
    let asked = format!("--home {text}");
    let bad = |what: &str| Failure::new(format!("`{asked}`: {what}"), "write `--home /scratch/me:/home/me`");
    let source = places::absolute(source, ground.cwd).ok_or_else(|| bad("the current directory is gone"))?;
    let target = if text.contains(':') { target.into() } else { source.clone() };
    let clean = crate::base::RelPath::parse(target.as_os_str().as_encoded_bytes());
    match clean {
        Ok(clean) if target.is_absolute() && !clean.is_root() => {
            Ok(Some(Home { source, target: clean.to_absolute(), asked }))
        }
        _ => Err(bad("the path inside is not absolute")),
    }
}

/// What `--no-mount` leaves out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NoMount {
    home: bool,
    tmp: bool,
    cwd: bool,
    binds: bool,
    paths: Vec<PathBuf>,
}

impl NoMount {
    /// Apptainer's words, or paths inside.
    fn parse(words: &[String]) -> Result<Self, Failure> {
        let mut found = Self::default();
        for word in words {
            match word.as_str() {
                "home" => found.home = true,
                "tmp" => found.tmp = true,
                "cwd" => found.cwd = true,
                "bind-paths" => found.binds = true,
                // There is no such default here.
                "hostfs" | "" => {}
                "proc" | "sys" | "dev" => found.paths.push(Path::new("/").join(word)),
                "devpts" => found.paths.push("/dev/pts".into()),
                path if path.starts_with('/') && path != "/" => found.paths.push(path.into()),
                other => {
                    return Err(Failure::new(
                        format!("`--no-mount {other}`: there is no such default"),
                        "the words are proc, sys, dev, devpts, home, tmp, cwd and bind-paths; or give a path inside",
                    ));
                }
            }
        }
        Ok(found)
    }
}

/// Memory mounts of `--scratch` and of `--contain`.
fn memory(target: impl Into<PathBuf>, mode: u32, asked: &str) -> MemoryMount {
    MemoryMount { target: target.into(), mode, size_bytes: None, asked: asked.to_owned() }
}

/// Whether the container has process numbers of its own: docker's have. Without a `/proc` of its own it would see the host's
/// numbers beside its own ones, so that it then goes on without both.
fn is_private_pid(pid: Option<&str>, is_docker: bool, warnings: &mut Vec<String>) -> Result<bool, Failure> {
    let is_wanted = match pid {
        None => is_docker,
        Some("host") => false,
        Some("private") => true,
        Some(other) => {
            return Err(Failure::new(
                format!("cannot take `--pid {other}`: there are `host` and `private`"),
                "to look at another container's processes, use `slipway exec` in it",
            ));
        }
    };
    if is_wanted && !host::may_mount_proc(Path::new("/")) {
        let asked = if pid.is_some() { "`--pid private` has no effect: " } else { "" };
        warnings.push(format!(
            "{asked}parts of `/proc` are hidden here, so that the container sees the host's processes"
        ));
        return Ok(false);
    }
    Ok(is_wanted)
}

pub(super) fn env_request(text: &OsStr) -> EnvRequest {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = text.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => EnvRequest::Set(
            OsStr::from_bytes(&bytes[..at]).to_os_string(),
            OsStr::from_bytes(&bytes[at + 1..]).to_os_string(),
        ),
        None => EnvRequest::Inherit(text.to_os_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_variables() {
        assert_eq!(env_request(OsStr::new("A=b=c")), EnvRequest::Set("A".into(), "b=c".into()));
        assert_eq!(env_request(OsStr::new("A=")), EnvRequest::Set("A".into(), "".into()));
        assert_eq!(env_request(OsStr::new("A")), EnvRequest::Inherit("A".into()));
    }

    #[test]
    fn reads_what_is_left_out() {
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let found = NoMount::parse(&words(&["home", "sys", "/etc/hosts", "hostfs"])).unwrap();
        assert!(found.home && !found.tmp && !found.cwd);
        assert_eq!(found.paths, [Path::new("/sys"), Path::new("/etc/hosts")]);
        assert!(NoMount::parse(&words(&["everything"])).is_err());
    }
}
