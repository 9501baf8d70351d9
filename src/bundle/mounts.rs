//! The mounts of a container, and its working directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use crate::base::is_below;
use crate::grants::Grants;

use super::volume::Volume;
use super::{BundleError, Caller, MemoryMount, RUN_DIRECTORY, Request, Why};

/// Device nodes that every container has, if the host has them (runtime-spec, "Default Devices", and `/dev/fuse` so that
/// a container may start containers).
const DEVICES: [&str; 7] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/fuse"];
/// Directories below `/dev` that are the host's.
const DEVICE_DIRECTORIES: [&str; 2] = ["/dev/shm", "/dev/mqueue"];
/// Files of the host that name its network.
const NETWORK_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// A current directory at or below these is not bound by itself: they are the image's own.
const IMAGE_OWN: [&str; 12] =
    ["/etc", "/bin", "/sbin", "/lib", "/lib64", "/usr", "/opt", "/var", "/boot", "/dev", "/proc", "/sys"];
/// Memory that the tmpfs of `/dev` may take: it holds empty files and links.
const DEV_BYTES: u64 = 1 << 20;

/// Mounts by destination, in order; a later one of the same place replaces an earlier one.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<(Mount, Why)>,
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Table {
    fn add(&mut self, mount: Mount, why: Why) {
        if let Some(place) =
            self.rows.iter().position(|(other, _)| other.destination() == mount.destination())
        {
            self.rows.remove(place);
        }
        self.rows.push((mount, why));
    }

    fn bind(&mut self, source: &Path, target: &Path, read_only: bool, why: Why) {
        let options = if read_only { vec!["rbind", "ro"] } else { vec!["rbind", "rw"] };
        let mount = MountBuilder::default()
            .destination(target)
            .typ("bind")
            .source(source)
            .options(options.into_iter().map(String::from).collect::<Vec<_>>())
            .build()
            .expect("a mount has no required field that is missing");
        self.add(mount, why);
    }

    fn memory(&mut self, kind: &str, target: &str, options: Vec<String>) {
        let mount = MountBuilder::default()
            .destination(target)
            .typ(kind)
            .source(kind)
            .options(options)
            .build()
            .expect("a mount has no required field that is missing");
        self.add(mount, Why::Default);
    }

    /// True if `path` is, or lies below, a bind.
    fn binds(&self, path: &Path) -> bool {
        self.rows
            .iter()
            .any(|(mount, _)| mount.typ().as_deref() == Some("bind") && is_below(path, mount.destination()))
    }

    /// Parents before children, so that no mount hides one made before it; otherwise in the order of asking.
    pub(super) fn finish(mut self) -> (Vec<Mount>, BTreeMap<PathBuf, Why>) {
        self.rows.sort_by_key(|(mount, _)| mount.destination().components().count());
        let why = self.rows.iter().map(|(mount, why)| (mount.destination().clone(), why.clone())).collect();
        (self.rows.into_iter().map(|(mount, _)| mount).collect(), why)
    }
}

pub(super) fn add_defaults(table: &mut Table, request: &Request, caller: &Caller) {
    table.memory("tmpfs", RUN_DIRECTORY, vec!["mode=0755".into()]);
    table.memory("tmpfs", "/dev", vec!["mode=0755".into(), format!("size={DEV_BYTES}")]);
    let terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    table.memory("devpts", "/dev/pts", terminals.map(String::from).into());
    if request.private_pids {
        table.memory("proc", "/proc", ["nosuid", "noexec", "nodev"].map(String::from).into());
    } else {
        table.bind(Path::new("/proc"), Path::new("/proc"), false, Why::Default);
    }
    table.bind(Path::new("/sys"), Path::new("/sys"), false, Why::Default);
    let has = |path: &&Path| caller.host_has.iter().any(|has| has == path);
    for path in DEVICES.iter().chain(&DEVICE_DIRECTORIES).map(Path::new).filter(has) {
        table.bind(path, path, false, Why::Default);
    }
    // Read-only: root inside is root of these files.
    for path in NETWORK_FILES.map(Path::new).iter().copied().filter(has) {
        table.bind(path, path, true, Why::Default);
    }
    if request.mount_tmp {
        for path in ["/tmp", "/var/tmp"].map(Path::new) {
            if caller.host_has.iter().any(|has| has == path) {
                table.bind(path, path, false, Why::Default);
            }
        }
    }
    if request.mount_home {
        match &caller.home {
            Some(home) if home == Path::new("/") || is_images_own(home) => {
                table.notes.push(format!("home is not bound: `{}` is the image's own place", home.display()));
            }
            Some(home) => table.bind(home, home, false, Why::Default),
            None => table.notes.push("home is not bound: the caller has no home directory here".into()),
        }
    }
}

/// All host paths that [`add_defaults`] binds only where they exist: the caller's `host_has` is picked from these.
pub fn optional_host_paths() -> impl Iterator<Item = &'static Path> {
    DEVICES
        .iter()
        .chain(&DEVICE_DIRECTORIES)
        .chain(&NETWORK_FILES)
        .chain(&["/tmp", "/var/tmp"])
        .map(|path| Path::new(*path))
}

pub(super) fn add_grants(table: &mut Table, grants: &Grants) {
    for node in &grants.nodes {
        table.bind(&node.source, &node.target, false, Why::Granted);
    }
    for bind in &grants.binds {
        table.bind(&bind.source, &bind.target, bind.read_only, Why::Granted);
    }
}

pub(super) fn add_volumes(table: &mut Table, volumes: &[Volume]) {
    for volume in volumes {
        table.bind(&volume.source, &volume.target, volume.read_only, Why::Asked(volume.asked.clone()));
    }
}

pub(super) fn add_memory(table: &mut Table, mounts: &[MemoryMount]) {
    for mount in mounts {
        let mut options = vec![format!("mode={:o}", mount.mode)];
        options.extend(mount.size_bytes.map(|size| format!("size={size}")));
        let target = mount.target.to_string_lossy();
        table.memory("tmpfs", &target, options);
        if let Some((_, why)) = table.rows.last_mut() {
            *why = Why::Asked(mount.asked.clone());
        }
    }
}

/// `-w`, else the caller's directory, which is bound if nothing else shows it, else `/`.
pub(super) fn choose_cwd(
    table: &mut Table,
    request: &Request,
    caller: &Caller,
) -> Result<PathBuf, BundleError> {
    if let Some(path) = &request.workdir {
        if !path.is_absolute() {
            return Err(BundleError::RelativeWorkdir { path: path.clone() });
        }
        return Ok(path.clone());
    }
    let Some(cwd) = caller.cwd.clone().filter(|cwd| cwd != Path::new("/")) else {
        return Ok("/".into());
    };
    if table.binds(&cwd) {
        return Ok(cwd);
    }
    if is_images_own(&cwd) {
        table.warnings.push(format!(
            "the current directory `{}` is not inside, since that is the image's own place; the command starts in `/`",
            cwd.display()
        ));
        return Ok("/".into());
    }
    if request.hide_cwd {
        return Ok("/".into());
    }
    table.bind(&cwd.clone(), &cwd, false, Why::Default);
    Ok(cwd)
}

fn is_images_own(path: &Path) -> bool {
    IMAGE_OWN.iter().any(|own| is_below(path, Path::new(own)))
}

/// The links that `/dev` has on every Linux.
pub(super) fn device_links() -> Vec<(PathBuf, PathBuf)> {
    [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
        ("/dev/core", "/proc/kcore"),
    ]
    .map(|(place, to)| (place.into(), to.into()))
    .into()
}
