//! Devices, capabilities, groups and the filter of system calls.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::bundle::{CapabilityChoice, CapabilitySet, Device, Seccomp};
use crate::cdi::DeviceName;
use crate::config::Profile;
use crate::sys::{access, process};

use super::Ground;
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;

/// Deepest directory below `/dev` that `--privileged` looks into.
const MAX_DEPTH: u32 = 3;
/// Most nodes that it gives.
const MAX_NODES: usize = 1024;

/// What the flags come to.
#[derive(Debug)]
pub(super) struct Privileges {
    pub(super) devices: Vec<Device>,
    pub(super) capabilities: CapabilityChoice,
    pub(super) seccomp: Seccomp,
}

pub(super) fn choose(
    args: &RunArgs,
    ground: &Ground<'_>,
    warnings: &mut Vec<String>,
) -> Result<Privileges, Failure> {
    let isolation = &args.isolation;
    let mut capabilities = CapabilitySet::of_flags(&isolation.cap_add, &isolation.cap_drop)?;
    let mut devices = Vec::new();
    if isolation.privileged {
        capabilities = CapabilityChoice { keep: CapabilitySet::ALL, added: CapabilitySet::ALL };
        devices = all_devices();
        warnings.push(
            "`--privileged` gives every capability inside and every device that you may open; outside you have no more \
             rights than before"
                .into(),
        );
    } else if !isolation.cap_add.is_empty() {
        warnings.push(format!(
            "`--cap-add {}`: capabilities hold inside the container only, over what is yours",
            isolation.cap_add.join(",")
        ));
    }
    // Those of CDI are grants.
    for text in isolation.device.iter().filter(|text| !DeviceName::is_meant(text)) {
        devices.push(device(text, warnings)?);
    }
    add_groups(&isolation.group_add, warnings);
    let default = match ground.profile {
        Profile::Docker if !isolation.privileged => Seccomp::Docker,
        Profile::Docker | Profile::Hpc => Seccomp::Unconfined,
    };
    let seccomp = seccomp(&isolation.security_opt, default, warnings)?;
    Ok(Privileges { devices, capabilities, seccomp })
}

/// `--security-opt`: NAME, NAME=VALUE or, as docker once had it, NAME:VALUE.
fn seccomp(options: &[String], default: Seccomp, warnings: &mut Vec<String>) -> Result<Seccomp, Failure> {
    let mut chosen = default;
    for option in options {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("seccomp", "unconfined") => chosen = Seccomp::Unconfined,
            ("seccomp", "builtin") => chosen = Seccomp::Docker,
            ("seccomp", file) if !file.is_empty() => {
                let text = fs::read_to_string(file).map_err(|error| {
                    Failure::new(
                        format!("cannot read the seccomp profile `{file}`: {error}"),
                        "check the path; `seccomp=unconfined` is none at all",
                    )
                })?;
                chosen = Seccomp::Profile { file: file.into(), text };
            }
            // Already so: nothing gains privileges, and no label is set.
            ("no-new-privileges", "" | "true")
            | ("label", "disable")
            | ("apparmor" | "systempaths", "unconfined") => {}
            ("no-new-privileges", "false") => {
                warnings.push(
                    "`no-new-privileges=false` has no effect: without root nothing gains privileges".into(),
                );
            }
            ("label", label) => {
                warnings.push(format!("`--security-opt label={label}` has no effect: labels are not set"));
            }
            ("apparmor", profile) if !profile.is_empty() => {
                return Err(Failure::new(
                    format!("cannot have `--security-opt {option}`: AppArmor profiles are not set"),
                    "leave it out; the profile of the host holds inside too",
                ));
            }
            _ => {
                return Err(Failure::new(
                    format!("`--security-opt {option}` is not known"),
                    "the options are seccomp=unconfined, seccomp=FILE, no-new-privileges, label=disable and apparmor=unconfined",
                ));
            }
        }
    }
    Ok(chosen)
}

/// The kernel keeps the caller's groups; no other can be had without root.
fn add_groups(groups: &[String], warnings: &mut Vec<String>) {
    let own = process::own_groups();
    for group in groups.iter().filter(|group| *group != "keep-groups") {
        let number = group.parse().ok().or_else(|| number_of_group(group));
        if !number.is_some_and(|number: u32| own.contains(&number)) {
            warnings.push(format!("`--group-add {group}` has no effect: you are not in that group"));
        }
    }
}

/// The host's number of a group: device nodes belong to the host's groups.
fn number_of_group(name: &str) -> Option<u32> {
    let text = fs::read_to_string("/etc/group").ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

/// `--device HOST[:INSIDE[:rwm]]`.
fn device(text: &str, warnings: &mut Vec<String>) -> Result<Device, Failure> {
    let asked = format!("--device {text}");
    let words: Vec<&str> = text.split(':').collect();
    let is_mode = |word: &str| !word.is_empty() && word.chars().all(|letter| "rwm".contains(letter));
    let (source, target, mode) = match words.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, mode] if is_mode(mode) => (*source, *source, *mode),
        [source, target] => (*source, *target, "rwm"),
        [source, target, mode] if is_mode(mode) => (*source, *target, *mode),
        _ => {
            return Err(Failure::new(
                format!("`{asked}` is not of the form HOST[:INSIDE[:rwm]]"),
                "write for example `--device /dev/infiniband`",
            ));
        }
    };
    if !source.starts_with('/') {
        return Err(Failure::new(
            format!("`{asked}`: `{source}` is not the path of a device"),
            "give a path below `/dev`, or a CDI device as vendor/class=name; GPUs are chosen with `--gpus`",
        ));
    }
    let place = crate::base::RelPath::parse(target.as_bytes()).ok().filter(|place| !place.is_root());
    let place = place.filter(|_| target.starts_with('/')).ok_or_else(|| {
        Failure::new(format!("`{asked}`: `{target}` cannot be a place inside"), "give a path below `/dev`")
    })?;
    let facts = fs::metadata(source).map_err(|error| {
        Failure::new(
            format!("cannot give the device `{source}`: {error}"),
            "leave it out, or start this on a node that has it",
        )
    })?;
    let kind = facts.file_type();
    if !(kind.is_dir() || kind.is_char_device() || kind.is_block_device()) {
        return Err(Failure::new(
            format!("cannot give `{source}` as a device: it is none"),
            "bind a file with `-v`",
        ));
    }
    if !kind.is_dir()
        && let Err(errno) = access::may_read_and_write(Path::new(source))
    {
        warnings.push(format!(
            "`{source}` is inside, but you may not use it ({}): it belongs to {}",
            errno.desc(),
            owner(&facts)
        ));
    }
    if mode != "rwm" && mode != "rw" {
        warnings.push(format!("`{asked}`: what may be done with the device is what you may do with it"));
    }
    Ok(Device { source: source.into(), target: place.to_absolute(), asked })
}

fn owner(facts: &fs::Metadata) -> String {
    format!("user {}, group {}", facts.uid(), facts.gid())
}

/// Every node below `/dev` that the caller may read and write, and that a container does not have anyway.
fn all_devices() -> Vec<Device> {
    let mut found = Vec::new();
    let mut open: Vec<(PathBuf, u32)> = vec![("/dev".into(), 0)];
    while let Some((directory, depth)) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
            if kind.is_dir() {
                let is_own = ["/dev/pts", "/dev/shm", "/dev/mqueue"].iter().any(|own| path == Path::new(own));
                if depth < MAX_DEPTH && !is_own {
                    open.push((path, depth + 1));
                }
            } else if (kind.is_char_device() || kind.is_block_device())
                && !is_given_anyway(&path)
                && access::may_read_and_write(&path).is_ok()
                && found.len() < MAX_NODES
            {
                found.push(Device { source: path.clone(), target: path, asked: "--privileged".into() });
            }
        }
    }
    found
}

fn is_given_anyway(path: &Path) -> bool {
    ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"]
        .iter()
        .any(|name| path == Path::new("/dev").join(name))
}
