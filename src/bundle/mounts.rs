//! The mounts of a container, and its working directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use crate::base::is_below;
use crate::config::Profile;
use crate::grants::Grants;
use crate::oci::RunConfig;

use super::explain::{Reason, Source};
use super::{BundleError, Caller, Ipc, OWN_DIRECTORY, RUN_DIRECTORY, Request, Why};

/// Device nodes that every container has, if the host has them (runtime-spec, "Default Devices", and `/dev/fuse` so that
/// a container may start containers).
const DEVICES: [&str; 7] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/fuse"];
/// The one of them that docker does not give.
const FUSE: &str = "/dev/fuse";
/// Memory that processes share by name.
const SHARED_MEMORY: &str = "/dev/shm";
/// Message queues by name.
const MESSAGE_QUEUES: &str = "/dev/mqueue";
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
    /// Why each is there, in words.
    reasons: BTreeMap<PathBuf, Reason>,
    /// The words that asked for a mount among Slipway's own files.
    refused: Option<String>,
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// The mounts in order, why each is there as far as planning goes, and why in words.
pub(super) type Finished = (Vec<Mount>, BTreeMap<PathBuf, Why>, BTreeMap<PathBuf, Reason>);

impl Table {
    /// Nothing comes among Slipway's own files, whoever wants it: a home or a current directory may be called so, too.
    fn add(&mut self, mount: Mount, why: Why, reason: Reason) {
        if is_below(mount.destination(), Path::new(OWN_DIRECTORY)) {
            match why {
                Why::Asked(words) => drop(self.refused.get_or_insert(words)),
                Why::Default | Why::Granted => self.notes.push(format!(
                    "left out: `{}`, since Slipway's own files lie in `{OWN_DIRECTORY}`",
                    mount.destination().display()
                )),
            }
            return;
        }
        if let Some(place) =
            self.rows.iter().position(|(other, _)| other.destination() == mount.destination())
        {
            self.rows.remove(place);
        }
        self.reasons.insert(mount.destination().clone(), reason);
        self.rows.push((mount, why));
    }

    fn bind(&mut self, source: &Path, target: &Path, read_only: bool, why: Why, reason: Reason) {
        let options = if read_only { vec!["rbind", "ro"] } else { vec!["rbind", "rw"] };
        let mount = MountBuilder::default()
            .destination(target)
            .typ("bind")
            .source(source)
            .options(options.into_iter().map(String::from).collect::<Vec<_>>())
            .build()
            .expect("a mount has no required field that is missing");
        self.add(mount, why, reason);
    }

    fn default_bind(&mut self, path: &Path, read_only: bool, why: &'static str) {
        self.bind(path, path, read_only, Why::Default, Reason::new(Source::Host, why));
    }

    fn memory(&mut self, kind: &str, target: &Path, options: Vec<String>, why: Why, reason: Reason) {
        self.add(memory(kind, target, options), why, reason);
    }

    fn default_memory(&mut self, kind: &str, target: &str, options: Vec<String>, why: &'static str) {
        let reason = Reason::new(Source::Default, why);
        self.memory(kind, Path::new(target), options, Why::Default, reason);
    }

    /// True if `path` is, or lies below, a bind.
    fn binds(&self, path: &Path) -> bool {
        self.rows
            .iter()
            .any(|(mount, _)| mount.typ().as_deref() == Some("bind") && is_below(path, mount.destination()))
    }

    /// Parents before children, so that no mount hides one made before it; otherwise in the order of asking.
    pub(super) fn finish(mut self) -> Result<Finished, BundleError> {
        if let Some(asked) = self.refused {
            return Err(BundleError::OwnPlace { asked });
        }
        let own = memory("tmpfs", Path::new(RUN_DIRECTORY), vec!["mode=0755".into()]);
        self.reasons.insert(RUN_DIRECTORY.into(), Reason::new(Source::Default, "Slipway's own files"));
        self.rows.insert(0, (own, Why::Default));
        self.rows.sort_by_key(|(mount, _)| mount.destination().components().count());
        let why = self.rows.iter().map(|(mount, why)| (mount.destination().clone(), why.clone())).collect();
        Ok((self.rows.into_iter().map(|(mount, _)| mount).collect(), why, self.reasons))
    }
}

fn memory(kind: &str, target: &Path, options: Vec<String>) -> Mount {
    MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(kind)
        .options(options)
        .build()
        .expect("a mount has no required field that is missing")
}

pub(super) fn add_defaults(table: &mut Table, request: &Request, caller: &Caller) {
    let is_docker = request.profile == Profile::Docker;
    let has = |path: &Path| caller.host_has.iter().any(|has| has == path);
    let dev = vec!["mode=0755".into(), format!("size={DEV_BYTES}")];
    table.default_memory("tmpfs", "/dev", dev, "devices are chosen one by one");
    let terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    let why = "terminals of the container's own";
    table.default_memory("devpts", "/dev/pts", terminals.map(String::from).into(), why);
    if request.private_pids {
        let options = ["nosuid", "noexec", "nodev"].map(String::from).into();
        table.default_memory("proc", "/proc", options, "the processes of the container");
    } else {
        table.default_bind(Path::new("/proc"), false, "the processes of the host");
    }
    let is_sys_closed = is_docker && !request.privileged;
    table.default_bind(Path::new("/sys"), is_sys_closed, "the devices and topology of the host");
    let nodes = DEVICES.iter().filter(|node| !is_docker || **node != FUSE);
    for node in nodes.map(Path::new).filter(|node| has(node)) {
        table.default_bind(node, false, "every container has it");
    }
    add_ipc(table, request.ipc, &has);
    // Read-only: root inside is root of these files.
    for path in NETWORK_FILES.map(Path::new) {
        if has(path) && request.files.iter().all(|file| file.target != path) {
            table.default_bind(path, true, "the network is the host's");
        }
    }
    if !is_docker {
        add_callers(table, request, caller);
    }
    table.rows.retain(|(mount, _)| !request.no_mount.iter().any(|out| mount.destination().starts_with(out)));
    table
        .notes
        .extend(request.no_mount.iter().map(|out| format!("left out: `{}`, by --no-mount", out.display())));
}

/// Shared memory and message queues.
fn add_ipc(table: &mut Table, ipc: Ipc, has: &dyn Fn(&Path) -> bool) {
    let (shm, queues) = (Path::new(SHARED_MEMORY), Path::new(MESSAGE_QUEUES));
    match ipc {
        Ipc::Host => {
            for path in [shm, queues].into_iter().filter(|path| has(path)) {
                table.default_bind(path, false, "the IPC namespace is the host's");
            }
        }
        Ipc::Private { shm_bytes } => {
            let options = vec!["mode=1777".into(), format!("size={shm_bytes}")];
            table.default_memory("tmpfs", SHARED_MEMORY, options, "the IPC namespace is the container's own");
        }
        Ipc::None => {}
    }
    // A kernel without message queues shows none on the host either.
    if ipc != Ipc::Host && has(queues) {
        table.default_memory(
            "mqueue",
            MESSAGE_QUEUES,
            Vec::new(),
            "the IPC namespace is the container's own",
        );
    }
}

/// What the hpc profile shows of the caller's: home and temporary directories.
fn add_callers(table: &mut Table, request: &Request, caller: &Caller) {
    if request.mount_tmp {
        for path in ["/tmp", "/var/tmp"].map(Path::new) {
            if caller.host_has.iter().any(|has| has == path) {
                table.default_bind(path, false, "run.mount_tmp");
            }
        }
    }
    if request.mount_home && request.home.is_none() {
        match &caller.home {
            Some(home) if home == Path::new("/") || is_images_own(home) => {
                table.notes.push(format!("home is not bound: `{}` is the image's own place", home.display()));
            }
            Some(home) => table.default_bind(home, false, "run.mount_home"),
            None => table.notes.push("home is not bound: the caller has no home directory here".into()),
        }
    }
}

/// All host paths that [`add_defaults`] binds only where they exist: the caller's `host_has` is picked from these.
pub fn optional_host_paths() -> impl Iterator<Item = &'static Path> {
    DEVICES
        .iter()
        .chain(&[SHARED_MEMORY, MESSAGE_QUEUES])
        .chain(&NETWORK_FILES)
        .chain(&["/tmp", "/var/tmp"])
        .map(|path| Path::new(*path))
}

pub(super) fn add_grants(table: &mut Table, grants: &Grants) {
    for place in &grants.hidden {
        let reason = Reason::new(Source::Granted, grants.reason(&place.to_string_lossy()));
        let options = vec!["mode=0755".into(), format!("size={DEV_BYTES}")];
        table.memory("tmpfs", place, options, Why::Granted, reason);
    }
    let mut bind = |source: &Path, target: &Path, read_only| {
        let reason = Reason::new(Source::Granted, grants.reason(&target.to_string_lossy()));
        table.bind(source, target, read_only, Why::Granted, reason);
    };
    for node in &grants.nodes {
        bind(&node.source, &node.target, false);
    }
    for grant in &grants.binds {
        bind(&grant.source, &grant.target, grant.read_only);
    }
}

/// What the user and the site ask for: devices, a home, volumes, memory.
pub(super) fn add_asked(table: &mut Table, request: &Request) {
    let mut bind = |source: &Path, target: &Path, read_only, asked: &str| {
        let reason = Reason::new(Source::Asked, asked.to_owned());
        table.bind(source, target, read_only, Why::Asked(asked.to_owned()), reason);
    };
    for device in &request.devices {
        bind(&device.source, &device.target, false, &device.asked);
    }
    if let Some(home) = &request.home {
        bind(&home.source, &home.target, false, &home.asked);
    }
    for volume in &request.volumes {
        bind(&volume.source, &volume.target, volume.read_only, &volume.asked);
    }
    for mount in &request.memory_mounts {
        let mut options = vec![format!("mode={:o}", mount.mode)];
        options.extend(mount.size_bytes.map(|size| format!("size={size}")));
        let reason = Reason::new(Source::Asked, mount.asked.clone());
        table.memory("tmpfs", &mount.target, options, Why::Asked(mount.asked.clone()), reason);
    }
}

/// `-w`, else the image's in the docker profile, else the caller's directory, which is bound if nothing else shows it,
/// else `/`.
pub(super) fn choose_cwd(
    table: &mut Table,
    config: &RunConfig,
    request: &Request,
    caller: &Caller,
) -> Result<PathBuf, BundleError> {
    if let Some(path) = &request.workdir {
        if !path.is_absolute() {
            return Err(BundleError::RelativeWorkdir { path: path.clone() });
        }
        return Ok(path.clone());
    }
    if request.profile == Profile::Docker {
        // Old images have it without the slash.
        return Ok(Path::new("/").join(&config.working_dir));
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
    table.default_bind(&cwd, false, "the current directory");
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
