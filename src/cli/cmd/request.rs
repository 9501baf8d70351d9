//! The flags of `run` as a request.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::bundle::{
    Asked, EnvRequest, Identity, Limit, MemoryMount, Request, Volume, WritableRoot, parse_apptainer_binds,
    parse_docker_mount, parse_docker_tmpfs, parse_docker_volume, parse_env_file,
};
use crate::config::Profile;

use super::Session;
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;

/// Everything that the flags of `run` and the settings ask for.
pub(super) fn request(
    args: &RunArgs,
    command: &[OsString],
    session: &Session,
    cwd: Option<&Path>,
) -> Result<Request, Failure> {
    let settings = &session.settings.run;
    if settings.profile.value == Profile::Docker {
        return Err(Failure::new(
            format!("the profile `docker` does not exist yet; it is set by {}", settings.profile.origin),
            "use the profile `hpc`, which is the default",
        ));
    }
    let (mut volumes, mut memory_mounts) = (Vec::new(), Vec::new());
    for text in &settings.binds.value {
        let binds = parse_apptainer_binds(text, Path::new("/"))?;
        let with_origin = |bind: Volume| {
            let asked =
                format!("{} (run.binds, {})", bind.asked.trim_start_matches("-B "), settings.binds.origin);
            Volume { asked, ..bind }
        };
        volumes.extend(binds.into_iter().map(with_origin));
    }
    for text in &args.bind {
        volumes.extend(parse_apptainer_binds(as_text("-B", text)?, Path::new(""))?);
    }
    for text in &args.volume {
        volumes.push(parse_docker_volume(as_text("-v", text)?, Path::new(""))?);
    }
    for text in &args.mount {
        match parse_docker_mount(text)? {
            Asked::Volume(volume) => volumes.push(volume),
            Asked::Memory(mount) => memory_mounts.push(mount),
        }
    }
    for text in &args.tmpfs {
        memory_mounts.push(parse_docker_tmpfs(text)?);
    }
    if args.contain {
        let private = |target: &str| MemoryMount {
            target: target.into(),
            mode: 0o1777,
            size_bytes: None,
            asked: "--contain".into(),
        };
        let is_free = |target: &&str| {
            let places = volumes.iter().map(|volume: &Volume| &volume.target);
            !places
                .chain(memory_mounts.iter().map(|mount| &mount.target))
                .any(|place| place == Path::new(target))
        };
        let private: Vec<_> = ["/tmp", "/var/tmp"].into_iter().filter(is_free).map(private).collect();
        memory_mounts.extend(private);
    }
    for volume in volumes.iter_mut().filter(|volume| volume.source.is_relative()) {
        // The directory may be gone, and then no other place may be taken for it.
        let cwd = cwd.ok_or_else(|| {
            Failure::new(
                format!("cannot bind `{}`: the current directory does not exist any more", volume.asked),
                "change to another directory, or give an absolute path",
            )
        })?;
        volume.source = cwd.join(&volume.source);
    }
    Ok(Request {
        entrypoint: args.entrypoint.clone(),
        args: command.to_vec(),
        env: env_requests(args)?,
        clean_env: args.cleanenv,
        workdir: args.workdir.clone(),
        volumes,
        memory_mounts,
        mount_home: settings.mount_home.value && !args.no_home && !args.contain,
        mount_tmp: settings.mount_tmp.value && !args.contain,
        hide_cwd: args.contain,
        identity: identity(args)?,
        writable: writable(args, cwd)?,
        host_name: args.hostname.clone(),
        private_network: is_private_network(args.network.as_deref())?,
        limits: args.ulimit.iter().map(|text| Limit::parse(text)).collect::<Result<_, _>>()?,
        resources: args.resources.resources(),
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

fn identity(args: &RunArgs) -> Result<Identity, Failure> {
    let Some(user) = &args.user else {
        return Ok(if args.fakeroot { Identity::Root } else { Identity::Caller });
    };
    let (uid, gid) = crate::sys::process::own_ids();
    let own = [uid.to_string(), format!("{uid}:{gid}")];
    match user.as_str() {
        "0" | "root" | "0:0" | "root:root" => Ok(Identity::Root),
        user if own.iter().any(|own| own == user) => Ok(Identity::Caller),
        user => Err(Failure::new(
            format!("cannot be user `{user}` inside: without root, one user can be mapped, yourself or root"),
            "use `--user 0`, or leave it out to be yourself",
        )),
    }
}

fn writable(args: &RunArgs, cwd: Option<&Path>) -> Result<Option<WritableRoot>, Failure> {
    let Some(directory) = &args.overlay else {
        return Ok(args.writable_tmpfs.then_some(WritableRoot::Memory { size_bytes: None }));
    };
    let path = cwd.unwrap_or(Path::new("/")).join(directory);
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

fn is_private_network(network: Option<&str>) -> Result<bool, Failure> {
    match network {
        None | Some("host") => Ok(false),
        Some("none") => Ok(true),
        Some(other) => Err(Failure::new(
            format!("there is no network `{other}`: without root there are `host` and `none`"),
            "leave `--network` out to use the host's",
        )),
    }
}

/// A bind as text: its parts are separated by characters, and the plan shows it.
fn as_text<'a>(flag: &str, text: &'a OsStr) -> Result<&'a str, Failure> {
    text.to_str().ok_or_else(|| {
        Failure::new(
            format!("`{flag} {}` is not UTF-8", text.to_string_lossy()),
            "bind a directory above it whose name is UTF-8",
        )
    })
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
}
