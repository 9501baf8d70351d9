//! From what devices need to what a container gets.

use std::path::{Component, Path, PathBuf};

use crate::base::RelPath;
use crate::grants::{BindGrant, FileGrant, Grants, LIBRARY_DIRECTORY, LibraryGrant, NodeGrant};

use super::hooks::{self, Wanted};
use super::{CdiError, ContainerEdits, DeviceNode, Mount, Part};

/// What NVIDIA's driver says of how its nodes are made.
pub const DRIVER_PARAMS: &str = "/proc/driver/nvidia/params";
/// Where the driver's OpenGL and Vulkan read which GPUs they may use.
const PROFILE: &str = "/etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf";
/// The variable by which NVIDIA's tools find the injected libcuda.
const LIBCUDA_DIRECTORY: &str = "NVIDIA_CTK_LIBCUDA_DIR";
/// Options of mounts that hold anyway, or that are no matter in a mount namespace of one's own.
const SILENT_OPTIONS: [&str; 14] = [
    "bind", "rbind", "rw", "ro", "nosuid", "nodev", "private", "rprivate", "slave", "rslave", "relatime",
    "noatime", "exec", "",
];

/// What the caller knows of the host.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Says what a path is; `None` where there is nothing.
    pub look: &'a dyn Fn(&Path) -> Option<HostFile>,
    /// The driver's `/proc/driver/nvidia/params`.
    pub params: Option<&'a str>,
    /// The groups of the caller.
    pub groups: &'a [u32],
    /// Programs of hooks that are left out.
    pub ignored_hooks: &'a [String],
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("groups", &self.groups).finish_non_exhaustive()
    }
}

/// One path of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFile {
    /// It is a directory.
    pub is_directory: bool,
    /// It is a shared library for this machine; by its own name if it has one.
    pub library: Option<Option<String>>,
}

/// The device nodes of one part, as paths of the host.
pub fn nodes_of<'a>(part: &'a Part<'_>) -> impl Iterator<Item = &'a Path> {
    part.edits.device_nodes.iter().map(node_source)
}

fn node_source(node: &DeviceNode) -> &Path {
    Path::new(node.host_path.as_deref().filter(|path| !path.is_empty()).unwrap_or(&node.path))
}

/// What a container gets for the parts. Libraries in a directory for which the loader's cache is to be renewed become
/// [`LibraryGrant`]s; the caller makes the cache.
pub fn grants(parts: &[Part<'_>], host: &Host<'_>) -> Result<Grants, CdiError> {
    let mut made = Maker { host, grants: Grants::default(), wanted: Wanted::default() };
    for part in parts {
        made.read_hooks(part)?;
    }
    for part in parts {
        made.add(part)?;
    }
    made.links();
    made.hook_files();
    let Maker { mut grants, wanted, .. } = made;
    grants.notes.extend(wanted.notes);
    Ok(grants)
}

struct Maker<'a> {
    host: &'a Host<'a>,
    grants: Grants,
    wanted: Wanted,
}

impl Part<'_> {
    /// The device, as a message names it.
    fn name(&self) -> String {
        self.device
            .as_ref()
            .map_or_else(|| "file's part for all devices".into(), |device| format!("`{device}`"))
    }

    fn why(&self) -> String {
        let file = self.file.display();
        match &self.device {
            Some(device) => format!("--device {device}, `{file}`"),
            None => format!("every device of `{file}`"),
        }
    }

    fn stale(&self, what: &'static str, path: &Path) -> CdiError {
        CdiError::Stale { device: self.name(), what, path: path.into(), file: self.file.into() }
    }

    fn unsupported(&self, what: String, why: &'static str) -> CdiError {
        CdiError::Unsupported { device: self.name(), what, why, file: self.file.into() }
    }
}

impl Maker<'_> {
    fn read_hooks(&mut self, part: &Part<'_>) -> Result<(), CdiError> {
        for hook in &part.edits.hooks {
            if self.host.ignored_hooks.contains(&hook.path) {
                self.grants.notes.push(format!("the hook `{}` is left out: cdi.ignore_hooks", hook.path));
                continue;
            }
            hooks::read(hook, &mut self.wanted).map_err(|hook| CdiError::Hook {
                device: part.name(),
                hook,
                file: part.file.into(),
            })?;
        }
        Ok(())
    }

    fn add(&mut self, part: &Part<'_>) -> Result<(), CdiError> {
        let why = part.why();
        let ContainerEdits { env, device_nodes, mounts, .. } = part.edits;
        for line in env {
            let Some((name, value)) = line.split_once('=') else { continue };
            let is_moved =
                name == LIBCUDA_DIRECTORY && self.wanted.folders.iter().any(|folder| folder == value);
            let value = if is_moved { LIBRARY_DIRECTORY } else { value };
            self.grants.env.retain(|(other, _)| other != name);
            self.grants.env.push((name.into(), value.into()));
            self.grants.reasons.insert(name.into(), why.clone());
        }
        for node in device_nodes {
            self.node(part, node, &why)?;
        }
        for mount in mounts {
            self.mount(part, mount, &why)?;
        }
        self.rest(part)?;
        self.grants.notes.push(format!("CDI: {why}"));
        Ok(())
    }

    fn node(&mut self, part: &Part<'_>, node: &DeviceNode, why: &str) -> Result<(), CdiError> {
        let source = node_source(node);
        if (self.host.look)(source).is_none() {
            return Err(part.stale("device node", source));
        }
        let target = place(&node.path).ok_or_else(|| {
            part.unsupported(format!("a node at `{}`", node.path), "it is no place in a container")
        })?;
        let mut left = Vec::new();
        if node.uid.is_some() || node.gid.is_some() || node.file_mode.is_some() {
            left.push("owner and mode are the host's");
        }
        if node
            .permissions
            .as_deref()
            .is_some_and(|text| !text.is_empty() && ['r', 'w'].iter().any(|letter| !text.contains(*letter)))
        {
            left.push("what may be done with it is what you may do with it");
        }
        if !left.is_empty() {
            self.grants.notes.push(format!("`{}`: {}", node.path, left.join("; ")));
        }
        if self.grants.nodes.iter().all(|other| other.target != target) {
            self.grants.reasons.insert(target.to_string_lossy().into_owned(), why.to_owned());
            self.grants.nodes.push(NodeGrant { source: source.into(), target });
        }
        Ok(())
    }

    fn mount(&mut self, part: &Part<'_>, mount: &Mount, why: &str) -> Result<(), CdiError> {
        let source = Path::new(&mount.host_path);
        if let Some(kind) = mount.kind.as_deref().filter(|kind| !["", "bind", "none"].contains(kind)) {
            let what = format!("a file system `{kind}` at `{}`", mount.container_path);
            return Err(part.unsupported(what, "only paths of the host are mounted"));
        }
        let target = place(&mount.container_path).ok_or_else(|| {
            part.unsupported(
                format!("a mount at `{}`", mount.container_path),
                "it is no place in a container",
            )
        })?;
        let found = (self.host.look)(source).ok_or_else(|| part.stale("file", source))?;
        for option in mount.options.iter().filter(|option| !SILENT_OPTIONS.contains(&option.as_str())) {
            // `noexec` on a library would keep the loader from it, and is on sockets alone.
            if option != "noexec" {
                let target = target.display();
                self.grants.notes.push(format!("the option `{option}` of `{target}` has no effect"));
            }
        }
        self.grants.reasons.insert(target.to_string_lossy().into_owned(), why.to_owned());
        if self.add_library(source, &target, &found) {
            return Ok(());
        }
        self.grants.binds.retain(|other| other.target != target);
        let read_only = mount.options.iter().any(|option| option == "ro");
        let directory = found.is_directory;
        self.grants.binds.push(BindGrant { source: source.into(), target, read_only, directory });
        Ok(())
    }

    /// Takes a file into the library directory, if that is where the loader is to find it.
    fn add_library(&mut self, source: &Path, target: &Path, found: &HostFile) -> bool {
        let (Some(soname), Some(name)) = (&found.library, target.file_name().and_then(|name| name.to_str()))
        else {
            return false;
        };
        let is_loaded = self.wanted.folders.iter().any(|folder| target.parent() == Some(Path::new(folder)));
        let twin = self.grants.libraries.iter().find(|library| library.name == name);
        match twin {
            _ if !is_loaded => return false,
            Some(twin) => return twin.source == source,
            None => {}
        }
        let links =
            soname.iter().filter(|soname| *soname != name && !soname.contains('/')).cloned().collect();
        self.grants.libraries.push(LibraryGrant { source: source.into(), name: name.into(), links });
        true
    }

    /// Groups, interfaces and caches.
    fn rest(&mut self, part: &Part<'_>) -> Result<(), CdiError> {
        for group in &part.edits.additional_gids {
            self.grants.notes.push(if self.host.groups.contains(group) {
                format!("group {group}: you are in it, inside as well")
            } else {
                format!(
                    "warning: group {group}, which {} wants, has no effect: you are not in it",
                    part.name()
                )
            });
        }
        for device in &part.edits.net_devices {
            if device.name != device.host_interface_name {
                let what = format!("the network interface `{}`", device.host_interface_name);
                return Err(part.unsupported(what, "without root no interface can be moved or renamed"));
            }
            self.grants.notes.push(format!(
                "the network interface `{}` is inside as long as the network is the host's",
                device.name
            ));
        }
        if part.edits.intel_rdt.is_some() {
            self.grants.notes.push(format!(
                "warning: intelRdt, which {} wants, has no effect: without root no class of caches can be chosen",
                part.name()
            ));
        }
        Ok(())
    }

    /// Links of `create-symlinks`. Beside a library they are its further names; elsewhere what they lead to is bound in
    /// their place, since the root of an image is not written to.
    fn links(&mut self) {
        let mut left = std::mem::take(&mut self.wanted.links);
        // A link may lead to one that comes later.
        loop {
            let before = left.len();
            left.retain(|(target, link)| !self.link(target, link));
            if left.is_empty() || left.len() == before {
                break;
            }
        }
        for (target, link) in left {
            self.grants.notes.push(format!("left out: the link `{link}`, since `{target}` is not inside"));
        }
    }

    fn link(&mut self, target: &str, link: &str) -> bool {
        let Some(link) = place(link) else { return false };
        let directory = link.parent().unwrap_or(Path::new("/"));
        let leads_to = lexical(&directory.join(target));
        let name_of = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let is_loaded =
            |path: &Path| self.wanted.folders.iter().any(|folder| path.parent() == Some(Path::new(folder)));
        let (Some(name), Some(to)) = (name_of(&link), name_of(&leads_to)) else { return false };
        if is_loaded(&leads_to) {
            let library =
                self.grants.libraries.iter_mut().find(|one| one.name == to || one.links.contains(&to));
            if let Some(library) = library {
                if is_loaded(&link) {
                    if library.name != name && !library.links.contains(&name) {
                        library.links.push(name);
                    }
                    return true;
                }
                let source = library.source.clone();
                self.grants.binds.push(BindGrant { source, target: link, read_only: true, directory: false });
                return true;
            }
        }
        if let Some(bind) = self.grants.binds.iter().find(|bind| bind.target == leads_to) {
            let bind = BindGrant { target: link, ..bind.clone() };
            self.grants.binds.push(bind);
            return true;
        }
        if let Some(node) = self.grants.nodes.iter().find(|node| node.target == leads_to) {
            let node = NodeGrant { source: node.source.clone(), target: link };
            self.grants.nodes.push(node);
            return true;
        }
        false
    }

    /// Small files that hooks would write.
    fn hook_files(&mut self) {
        if self.wanted.masks_params
            && let Some(params) = self.host.params
        {
            let content = params_without_making_nodes(params).into_bytes();
            self.grants.files.push(FileGrant { target: DRIVER_PARAMS.into(), content, mode: 0o444 });
            self.grants
                .notes
                .push(format!("`{DRIVER_PARAMS}` says that no nodes are made: the driver would try"));
        }
        if self.wanted.makes_profile {
            let minor = |node: &NodeGrant| {
                let name = node.target.to_str()?.strip_prefix("/dev/nvidia")?;
                name.parse::<u32>().ok().filter(|minor| *minor < u64::BITS)
            };
            let mask =
                self.grants.nodes.iter().filter_map(minor).fold(0_u64, |mask, minor| mask | 1 << minor);
            if mask != 0 {
                let content = format!(
                    "{{\"rules\":[{{\"pattern\":[],\"profile\":\"slipway\"}}],\"profiles\":[{{\"name\":\"slipway\",\
                     \"settings\":[\"EGLVisibleDGPUDevices\",{mask:#x}]}}]}}\n"
                );
                let content = content.into_bytes();
                self.grants.files.push(FileGrant { target: PROFILE.into(), content, mode: 0o444 });
                self.grants.notes.push(format!("`{PROFILE}` has graphics use the GPUs that are inside"));
            }
        }
    }
}

/// The driver's parameters, saying that its libraries make no nodes that are missing: a container has those that it is
/// meant to have.
#[must_use]
pub fn params_without_making_nodes(params: &str) -> String {
    let lines = params.lines().map(|line| match line.split_once(':') {
        Some(("ModifyDeviceFiles", _)) => "ModifyDeviceFiles: 0\n".to_owned(),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// A clean absolute path inside, which is not the root.
fn place(path: &str) -> Option<PathBuf> {
    let clean = RelPath::parse(path.as_bytes()).ok().filter(|clean| !clean.is_root())?;
    path.starts_with('/').then(|| clean.to_absolute())
}

/// The path without `.` and `..`, by its text alone.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::super::{DeviceName, Index};
    use super::*;

    fn of(edits: &str) -> Result<Grants, CdiError> {
        let text = format!(
            "{{\"cdiVersion\":\"1.1.0\",\"kind\":\"v/c\",\"devices\":[{{\"name\":\"x\",\"containerEdits\":{{{edits}}}}}]}}"
        );
        let mut index = Index::default();
        index.add("/etc/cdi/v.json".into(), 0, text.as_bytes());
        assert_eq!(index.broken, []);
        let parts = index.resolve(&[DeviceName::parse("v/c=x").unwrap()]).unwrap();
        let look = |path: &Path| {
            let text = path.to_str().unwrap();
            let soname =
                text.contains(".so").then(|| text.contains("libcuda").then(|| "libcuda.so.1".to_owned()));
            (!text.contains("gone"))
                .then(|| HostFile { is_directory: text.ends_with("dir"), library: soname })
        };
        let host = Host {
            look: &look,
            params: Some("A: 1\nModifyDeviceFiles: 1\n"),
            groups: &[5],
            ignored_hooks: &["/usr/bin/ignored".into()],
        };
        grants(&parts, &host)
    }

    fn hook(words: &str) -> String {
        let args: Vec<String> = format!("x {words}").split(' ').map(|word| format!("\"{word}\"")).collect();
        format!(
            "{{\"hookName\":\"createContainer\",\"path\":\"/usr/bin/nvidia-cdi-hook\",\"args\":[{}]}}",
            args.join(",")
        )
    }

    #[test]
    fn libraries_go_by_the_loaders_cache() {
        let mounts: Vec<String> = ["/usr/lib64/libcuda.so.5", "/usr/lib64/libx.so.5", "/usr/bin/smi"]
            .map(|path| format!("{{\"hostPath\":\"/host{path}\",\"containerPath\":\"{path}\",\"options\":[\"ro\",\"odd\"]}}"))
            .into();
        let hooks = [
            hook(
                "create-symlinks --link libcuda.so::/usr/lib64/libcuda2.so --link libcuda.so.1::/usr/lib64/libcuda.so --link ../libx.so.5::/usr/lib64/gbm/y.so --link nothing::/usr/lib64/z.so",
            ),
            hook("update-ldcache --folder /usr/lib64"),
            hook("disable-device-node-modification"),
        ];
        let made = of(&format!(
            "\"env\":[\"NVIDIA_CTK_LIBCUDA_DIR=/usr/lib64\"],\"mounts\":[{}],\"hooks\":[{}]",
            mounts.join(","),
            hooks.join(",")
        ))
        .unwrap();
        let libraries: Vec<String> =
            made.libraries.iter().map(|one| format!("{} {}", one.name, one.links.join(" "))).collect();
        assert_eq!(libraries, ["libcuda.so.5 libcuda.so.1 libcuda.so libcuda2.so", "libx.so.5 "]);
        let binds: Vec<_> =
            made.binds.iter().map(|bind| (bind.target.to_str().unwrap(), bind.read_only)).collect();
        assert_eq!(binds, [("/usr/bin/smi", true), ("/usr/lib64/gbm/y.so", true)]);
        assert_eq!(made.env, [("NVIDIA_CTK_LIBCUDA_DIR".to_owned(), LIBRARY_DIRECTORY.to_owned())]);
        assert_eq!(made.files[0].content, b"A: 1\nModifyDeviceFiles: 0\n");
        for note in [
            "left out: the link `/usr/lib64/z.so`, since `nothing` is not inside",
            "the option `odd` of `/usr/bin/smi` has no effect",
        ] {
            assert!(made.notes.iter().any(|one| one == note), "{:?}", made.notes);
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_or_told() {
        let check = |edits: &str, expected: &str| assert_eq!(of(edits).unwrap_err().to_string(), expected);
        check(
            "\"deviceNodes\":[{\"path\":\"/dev/x\",\"hostPath\":\"/dev/gone\"}]",
            "the CDI device `v/c=x` wants the device node `/dev/gone`, which this node does not have: `/etc/cdi/v.json` is \
             out of date",
        );
        check(
            "\"mounts\":[{\"hostPath\":\"/gone\",\"containerPath\":\"/x\"}]",
            "the CDI device `v/c=x` wants the file `/gone`, which this node does not have: `/etc/cdi/v.json` is out of date",
        );
        check(
            "\"mounts\":[{\"hostPath\":\"/x\",\"containerPath\":\"/x\",\"type\":\"tmpfs\"}]",
            "the CDI device `v/c=x` wants a file system `tmpfs` at `/x`: only paths of the host are mounted (`/etc/cdi/v.json`)",
        );
        check(
            "\"hooks\":[{\"hookName\":\"prestart\",\"path\":\"/bin/h\",\"args\":[\"h\",\"go\"]}]",
            "the CDI device `v/c=x` wants the hook `/bin/h go` to be run, and hooks are not: `/etc/cdi/v.json`",
        );
        check(
            "\"netDevices\":[{\"hostInterfaceName\":\"ib0\",\"name\":\"eth1\"}]",
            "the CDI device `v/c=x` wants the network interface `ib0`: without root no interface can be moved or renamed \
             (`/etc/cdi/v.json`)",
        );
        let made = of(
            "\"additionalGids\":[5,6],\"intelRdt\":{\"closID\":\"a\"},\"netDevices\":[{\"hostInterfaceName\":\"ib0\",\"name\":\"ib0\"}],\
             \"hooks\":[{\"hookName\":\"prestart\",\"path\":\"/usr/bin/ignored\"}],\
             \"deviceNodes\":[{\"path\":\"/dev/x\",\"permissions\":\"r\",\"gid\":3}]",
        );
        assert_eq!(
            made.unwrap().notes,
            [
                "the hook `/usr/bin/ignored` is left out: cdi.ignore_hooks",
                "`/dev/x`: owner and mode are the host's; what may be done with it is what you may do with it",
                "group 5: you are in it, inside as well",
                "warning: group 6, which `v/c=x` wants, has no effect: you are not in it",
                "the network interface `ib0` is inside as long as the network is the host's",
                "warning: intelRdt, which `v/c=x` wants, has no effect: without root no class of caches can be chosen",
                "CDI: --device v/c=x, `/etc/cdi/v.json`",
            ]
        );
    }
}
