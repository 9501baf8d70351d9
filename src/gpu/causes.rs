//! Why a job has no GPU though it may expect one, and what to do about it.
//!
//! All of this is asked only where nothing can be given, or not all: a start that has its GPUs pays for none of it.

use std::path::{Path, PathBuf};

use crate::grants::{Trouble, Weight};

use super::inventory::device_access;
use super::{Access, Device, HostRoot, Inventory, NodeAccess, Owned, why_no_vendor, without_gpus};

/// Files by which a container or sandbox gives itself away, and whose they are.
const SANDBOXES: [(&str, &str); 5] = [
    ("/.dockerenv", "docker"),
    ("/run/.containerenv", "podman"),
    ("/.singularity.d", "Apptainer"),
    ("/.slipway", "slipway"),
    ("/run/systemd/container", "systemd"),
];

/// Words of `/proc/version` in gVisor.
const GVISOR: &str = "gvisor";

/// How GPUs were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Those of the job, if there are any: a command is the same on every node.
    Softly,
    /// In the user's own words: none is an error.
    InWords,
}

/// Puts the cause into [`Owned::reason`] where nothing is owned, with a remedy, and lists as troubles what the job was given
/// and cannot use. Without a promise nothing is missed by who asks softly.
pub fn explain_lack(
    owned: &mut Owned,
    inventory: &Inventory,
    access: &Access,
    root: &HostRoot,
    asked: Asked,
) {
    let answer = |device: &Device| device_access(inventory, access, *device);
    for device in &owned.broken {
        let (what, remedy) = of_node(&first_closed(inventory, access, *device), answer(device), root);
        let what = format!("{} is not inside: {what}", inventory.name_of(*device));
        owned.troubles.push(Trouble { what, remedy, weight: Weight::Possible });
    }
    let is_missed = asked == Asked::InWords || owned.promise.is_some() || !owned.broken.is_empty();
    if !owned.devices.is_empty() || !is_missed {
        return;
    }
    owned.troubles.clear();
    let closed = inventory.devices().into_iter().find(|device| answer(device) != NodeAccess::Open);
    let (cause, remedy) = match (&inventory.vendor, closed) {
        (None, _) => no_driver(root, owned.promise.as_deref()),
        (Some(vendor), None) if inventory.gpus.is_empty() => no_gpu(vendor, inventory),
        (Some(_), Some(device)) => of_node(&first_closed(inventory, access, device), answer(&device), root),
        // Every node is open: it was the scheduler's word that left none.
        (Some(_), None) => return promise_trouble(owned),
    };
    owned.reason = match &owned.promise {
        Some(promise) => format!("{promise} gives it some, but {cause}"),
        None => cause,
    };
    owned.remedy = Some(remedy);
    promise_trouble(owned);
}

/// Nobody else tells a job without GPUs that it should have some.
fn promise_trouble(owned: &mut Owned) {
    if owned.promise.is_some() || !owned.broken.is_empty() {
        let remedy = owned.remedy.clone();
        owned.troubles.push(Trouble {
            what: format!("no GPU is inside: {}", owned.reason),
            remedy: remedy.unwrap_or_else(|| "`slipway gpus` shows what this node has".into()),
            weight: Weight::Possible,
        });
    }
}

/// Containers show the host's `/sys/module`; only a sandbox with a kernel of its own hides a driver.
fn no_driver(root: &HostRoot, promise: Option<&str>) -> (String, String) {
    let absent = why_no_vendor();
    if is_in_gvisor(root) {
        return (format!("{absent}, and {}", within("gVisor")), outer_remedy("gVisor"));
    }
    let remedy = if promise.is_some() { LOAD_REMEDY } else { NO_DRIVER_REMEDY };
    (absent, remedy.into())
}

/// Where the scheduler counts on GPUs.
const LOAD_REMEDY: &str =
    "ask an administrator to load the driver (`modprobe nvidia`), or start it on another node";
/// Where nobody does.
pub(super) const NO_DRIVER_REMEDY: &str = "leave out --gpus to run the same command on nodes with and without GPUs, or start it on a GPU \
                                node";

fn no_gpu(vendor: &str, inventory: &Inventory) -> (String, String) {
    let mut what = without_gpus(vendor);
    for finding in &inventory.findings {
        what.push_str("; ");
        what.push_str(finding);
    }
    (what, "ask an administrator: `dmesg` says what the driver did with the GPUs".into())
}

/// The node of a device that cannot be used.
fn first_closed(inventory: &Inventory, access: &Access, device: Device) -> PathBuf {
    let Some(gpu) = inventory.gpus.get(device.gpu) else { return PathBuf::new() };
    let instance = inventory.instance(device);
    let mut nodes = std::iter::once(gpu.node.clone())
        .chain(instance.into_iter().flat_map(super::MigInstance::capability_nodes));
    let is_closed = |node: &PathBuf| access.get(node).is_none_or(|answer| *answer != NodeAccess::Open);
    nodes.find(is_closed).unwrap_or_else(|| gpu.node.clone())
}

/// Why a node cannot be used, and what to do.
pub(super) fn of_node(node: &Path, answer: NodeAccess, root: &HostRoot) -> (String, String) {
    let name = node.display();
    match answer {
        NodeAccess::DeniedByCgroup => (
            format!("the device cgroup of this session denies `{name}` (EPERM)"),
            "start it inside the step that was given the GPUs: `srun --gpus=1 …`".into(),
        ),
        NodeAccess::DeniedByMode => {
            let (owners, group) = root.owners(node).unwrap_or_default();
            let remedy = match group {
                Some(group) => format!("ask an administrator to put you into the group `{group}`"),
                None => {
                    format!("ask an administrator for `chmod 0666 {name}`, the mode that the driver gives it")
                }
            };
            (format!("`{name}` may not be opened (EACCES): {owners}"), remedy)
        }
        NodeAccess::OnNodev => {
            let parent = node.parent().unwrap_or(Path::new("/dev"));
            let mount = if root.forbids_devices(parent) { parent } else { node }.display();
            (
                format!("`{mount}` is mounted with nodev, so that every open of `{name}` fails (EACCES)"),
                format!("ask an administrator to mount `{mount}` without nodev"),
            )
        }
        NodeAccess::Missing => match sandbox(root) {
            Some(whose) => (format!("`{name}` does not exist, and {}", within(whose)), outer_remedy(whose)),
            None => (format!("`{name}` does not exist"), modprobe(root, "-c 0")),
        },
        NodeAccess::Open | NodeAccess::Unusable => (
            format!("`{name}` cannot be used"),
            "ask an administrator: `dmesg` says what the driver did with the GPU".into(),
        ),
    }
}

/// How missing nodes and modules come to be: where the driver's helper is setuid, anybody can have them.
pub(super) fn modprobe(root: &HostRoot, flags: &str) -> String {
    if root.is_setuid_root(Path::new("/usr/bin/nvidia-modprobe")) {
        format!("run `nvidia-modprobe {flags}`, which is setuid here")
    } else {
        format!("ask an administrator to run `nvidia-modprobe {flags}`")
    }
}

/// Whose container or sandbox this process is in.
fn sandbox(root: &HostRoot) -> Option<&'static str> {
    if is_in_gvisor(root) {
        return Some("gVisor");
    }
    SANDBOXES.into_iter().find(|(sign, _)| root.exists(Path::new(sign))).map(|(_, whose)| whose)
}

fn is_in_gvisor(root: &HostRoot) -> bool {
    root.read("/proc/version").is_some_and(|text| text.to_ascii_lowercase().contains(GVISOR))
}

fn within(whose: &str) -> String {
    format!("this is inside of a container ({whose}) that may hide it")
}

fn outer_remedy(whose: &str) -> String {
    match whose {
        "docker" | "podman" => format!("start the outer container with the GPUs: `{whose} run --gpus all …`"),
        "Apptainer" => "start the outer container with `--nv`".into(),
        "gVisor" => "start the sandbox with `--nvproxy` and with the GPUs".into(),
        _ => "start the outer container with the GPUs".into(),
    }
}
