//! The CDI specification of this host, with the fields that `nvidia-ctk cdi generate` gives.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cdi::{ContainerEdits, Device as CdiDevice, DeviceNode, Hook, Mount, Spec};

use super::super::{Device, HostRoot, Inventory};

/// The version that names with a leading digit need; podman 4.3 knows none later.
const VERSION: &str = "0.5.0";
const KIND: &str = "nvidia.com/gpu";
/// NVIDIA's program for hooks, and the one that had them before it, each with the words before a hook's name.
const HOOK_PROGRAMS: [(&str, &[&str]); 2] = [("nvidia-cdi-hook", &[]), ("nvidia-ctk", &["hook"])];
/// Nodes for all GPUs that a launch of ours leaves out, and other engines expect.
const MODESET: &str = "/dev/nvidia-modeset";
const FILE_OPTIONS: [&str; 5] = ["ro", "nosuid", "nodev", "rbind", "rprivate"];
const SOCKET_OPTIONS: [&str; 5] = ["nosuid", "nodev", "noexec", "rbind", "rprivate"];

pub(super) fn make(inventory: &Inventory, root: &HostRoot) -> Spec {
    let program = HookProgram::find(root);
    let mut devices = Vec::new();
    let mut all = ContainerEdits::default();
    for device in inventory.devices() {
        let edits = device_edits(inventory, device, root, program.as_ref());
        if edits.is_empty() {
            continue;
        }
        add_missing(&mut all.device_nodes, &edits.device_nodes);
        add_missing(&mut all.hooks, &edits.hooks);
        let names = [index_name(inventory, device), inventory.uuid_of(device)];
        // A name of an older driver has slashes, which no CDI name may have.
        for name in names.into_iter().flatten().filter(|name| !name.contains('/')) {
            devices.push(CdiDevice { name, container_edits: edits.clone(), ..CdiDevice::default() });
        }
    }
    if !all.is_empty() {
        devices.push(CdiDevice { name: "all".into(), container_edits: all, ..CdiDevice::default() });
    }
    Spec {
        cdi_version: VERSION.into(),
        kind: KIND.into(),
        devices,
        container_edits: common_edits(inventory, root, program.as_ref()),
        ..Spec::default()
    }
}

fn add_missing<T: Clone + PartialEq>(all: &mut Vec<T>, new: &[T]) {
    for one in new {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
}

/// `0`, or `0:1` for an instance.
fn index_name(inventory: &Inventory, device: Device) -> Option<String> {
    let gpu = inventory.gpus.get(device.gpu)?;
    Some(match inventory.instance(device) {
        Some(instance) => format!("{}:{}", gpu.index, instance.index),
        None => gpu.index.to_string(),
    })
}

/// Nodes and links of one GPU or instance; nothing for a divided GPU without instances.
fn device_edits(
    inventory: &Inventory,
    device: Device,
    root: &HostRoot,
    program: Option<&HookProgram>,
) -> ContainerEdits {
    let Some(gpu) = inventory.gpus.get(device.gpu).filter(|_| !inventory.is_without_instances(device)) else {
        return ContainerEdits::default();
    };
    let mut nodes = vec![node(&gpu.node)];
    let mut links = Vec::new();
    match inventory.instance(device) {
        Some(instance) => nodes.extend(instance.capability_nodes().map(|path| node(&path))),
        None => {
            let address = gpu.pci_address.as_deref().unwrap_or("none");
            let directory = PathBuf::from(format!("/sys/bus/pci/devices/{address}/drm"));
            for name in root.list(&directory) {
                let path = Path::new("/dev/dri").join(&name);
                let kind = if name.starts_with("renderD") { "render" } else { "card" };
                if name.starts_with(kind) && root.exists(&path) {
                    nodes.push(node(&path));
                    links.push(format!("../{name}::/dev/dri/by-path/pci-{address}-{kind}"));
                }
            }
        }
    }
    let mut hooks = Vec::new();
    if let Some(program) = program.filter(|_| !links.is_empty()) {
        hooks.push(program.hook("create-symlinks", "--link", &links));
        hooks.push(program.hook("chmod", "--path", &["/dev/dri".into()]).with_words(&["--mode", "755"]));
    }
    ContainerEdits { device_nodes: nodes, hooks, ..ContainerEdits::default() }
}

fn node(path: &Path) -> DeviceNode {
    DeviceNode { path: path.to_string_lossy().into_owned(), ..DeviceNode::default() }
}

/// What every GPU needs: control nodes, libraries, programs, sockets.
fn common_edits(inventory: &Inventory, root: &HostRoot, program: Option<&HookProgram>) -> ContainerEdits {
    let mut device_nodes: Vec<DeviceNode> = inventory.control_nodes.iter().map(|path| node(path)).collect();
    if root.exists(Path::new(MODESET)) {
        device_nodes.push(node(Path::new(MODESET)));
    }
    let mut mounts = Vec::new();
    let mut links = Vec::new();
    let mut folders = BTreeSet::new();
    for library in &inventory.files.libraries {
        let Some(directory) = library.source.parent() else { continue };
        folders.insert(directory.to_string_lossy().into_owned());
        mounts.push(mount(&library.source, &library.source, &FILE_OPTIONS));
        let mut leads_to = &library.name;
        for link in &library.links {
            links.push(format!("{leads_to}::{}", directory.join(link).display()));
            if program.is_none() {
                mounts.push(mount(&library.source, &directory.join(link), &FILE_OPTIONS));
            }
            leads_to = link;
        }
    }
    for (path, _) in &inventory.files.programs {
        let Some(name) = path.file_name() else { continue };
        mounts.push(mount(path, &Path::new("/usr/bin").join(name), &FILE_OPTIONS));
    }
    for socket in &inventory.files.sockets {
        mounts.push(mount(socket, socket, &SOCKET_OPTIONS));
    }
    let mut env = vec!["NVIDIA_VISIBLE_DEVICES=void".to_owned()];
    if let Some(directory) = &inventory.files.directory {
        env.push(format!("NVIDIA_CTK_LIBCUDA_DIR={}", directory.display()));
    }
    let mut hooks = Vec::new();
    if let Some(program) = program {
        let folders: Vec<String> = folders.into_iter().collect();
        let version: Vec<String> = inventory.files.version.iter().cloned().collect();
        hooks.push(program.hook("create-symlinks", "--link", &links));
        hooks.push(program.hook("enable-cuda-compat", "--host-driver-version", &version));
        hooks.push(program.hook("update-ldcache", "--folder", &folders));
        hooks.push(program.hook("disable-device-node-modification", "", &[]));
    }
    ContainerEdits { env, device_nodes, mounts, hooks, ..ContainerEdits::default() }
}

fn mount(source: &Path, target: &Path, options: &[&str]) -> Mount {
    Mount {
        host_path: source.to_string_lossy().into_owned(),
        container_path: target.to_string_lossy().into_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        kind: None,
    }
}

/// The program that other engines run for the links and the loader's cache.
struct HookProgram {
    path: String,
    words: &'static [&'static str],
}

impl HookProgram {
    fn find(root: &HostRoot) -> Option<Self> {
        HOOK_PROGRAMS.into_iter().find_map(|(name, words)| {
            let path = Path::new("/usr/bin").join(name);
            root.exists(&path).then(|| Self { path: path.to_string_lossy().into_owned(), words })
        })
    }

    /// A hook whose flag has these values.
    fn hook(&self, name: &str, flag: &str, values: &[String]) -> Hook {
        let program = self.path.rsplit('/').next().unwrap_or_default();
        let words = [program].into_iter().chain(self.words.iter().copied()).chain([name]).map(str::to_owned);
        let flags = values.iter().flat_map(|value| [flag.to_owned(), value.clone()]);
        Hook {
            hook_name: "createContainer".into(),
            path: self.path.clone(),
            args: words.chain(flags).collect(),
            ..Hook::default()
        }
    }
}

impl Hook {
    fn with_words(mut self, words: &[&str]) -> Self {
        self.args.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }
}
