//! What will keep CUDA or NVML from working, by files alone: no node is opened, and NVML is not asked.

use std::path::Path;

use crate::grants::{Trouble, Weight};

use super::super::{Capabilities, Capability, Chosen, HostRoot, ImageLibc, Inventory, NodeAccess, causes};
use super::nodes::{CONTROL, UVM};

/// The first NVSwitch. `/proc/devices` lists their major on every host.
const SWITCH: &str = "/dev/nvidia-nvswitch0";
const FABRIC_MANAGER: [&str; 2] =
    ["/run/nvidia-fabricmanager/nv-fabricmanager.pid", "/run/nvidia-fabricmanager/socket"];

/// What holds for the whole node, for programs that want these parts of the driver.
pub(super) fn of_node(root: &HostRoot, inventory: &Inventory, wanted: &Capabilities) -> Vec<Trouble> {
    let certain = |what: String, remedy: String| Trouble { what, remedy, weight: Weight::Certain };
    // WSL has another node, and all that there is through it.
    if inventory.is_undivided() {
        return Vec::new();
    }
    let missing = |node: &str| !inventory.control_nodes.iter().any(|have| have == Path::new(node));
    let mut found = Vec::new();
    if missing(CONTROL) {
        let what = format!("{CONTROL} does not exist, so no program can use a GPU");
        found.push(certain(what, causes::modprobe(root, "-c 0")));
    }
    let is_for_cuda = wanted.include(Capability::Compute);
    if is_for_cuda && missing(UVM) {
        // Majors are looked up by name: only the kernel knows them.
        let is_loaded = root.read("/proc/devices").is_some_and(|text| {
            text.lines().any(|line| line.split_whitespace().nth(1) == Some("nvidia-uvm"))
        });
        let what = if is_loaded {
            format!("{UVM} does not exist though its module is loaded, so CUDA cannot start")
        } else {
            "the nvidia-uvm module is not loaded, so CUDA cannot start".into()
        };
        found.push(certain(what, causes::modprobe(root, "-u -c 0")));
    }
    found.extend(of_versions(inventory));
    found.extend(is_for_cuda.then(|| of_fabric(root)).flatten());
    found
}

fn of_versions(inventory: &Inventory) -> Option<Trouble> {
    let (what, remedy, weight) = match (&inventory.driver_version, &inventory.files.version) {
        (_, None) => (
            format!(
                "the driver's libraries were not found: there is no libcuda.so.1 for this machine{}",
                inventory.files.searched.as_ref().map(|place| format!(" {place}")).unwrap_or_default()
            ),
            match inventory.files.searched {
                Some(_) => "correct the setting, or leave it out",
                None => "install those of the driver's version, or name their directory in LD_LIBRARY_PATH",
            },
            Weight::Certain,
        ),
        (Some(module), Some(libraries)) if module != libraries => (
            format!(
                "driver/library version mismatch: kernel module {module}, libraries {libraries}; CUDA fails until the \
                 module is loaded again"
            ),
            "reboot the node",
            Weight::Certain,
        ),
        _ if !has_library(inventory, "libnvidia-ml.so.") => (
            "libnvidia-ml.so.1 is missing among the driver's libraries, so `nvidia-smi` and NVML fail".into(),
            "install the driver's libraries whole",
            Weight::Possible,
        ),
        _ => return None,
    };
    Some(Trouble { what, remedy: remedy.into(), weight })
}

fn has_library(inventory: &Inventory, start: &str) -> bool {
    inventory.files.libraries.iter().any(|library| library.name.starts_with(start))
}

/// Without a fabric manager GPUs behind NVSwitches answer CUDA with 802. Where it keeps its files elsewhere it is not seen.
fn of_fabric(root: &HostRoot) -> Option<Trouble> {
    let is_absent =
        root.exists(Path::new(SWITCH)) && !FABRIC_MANAGER.iter().any(|file| root.exists(Path::new(file)));
    is_absent.then(|| Trouble {
        what: "this node has NVSwitches and no sign of a fabric manager (neither its pid file nor its socket in \
               /run/nvidia-fabricmanager): CUDA may fail with error 802, system not yet initialized"
            .into(),
        remedy: "ask an administrator for `systemctl start nvidia-fabricmanager`".into(),
        weight: Weight::Possible,
    })
}

/// What holds for the container that gets `chosen`, beside what holds for the node.
pub(super) fn of_container(
    root: &HostRoot,
    inventory: &Inventory,
    chosen: &Chosen,
    image: &ImageLibc,
) -> Vec<Trouble> {
    let is_for_cuda = chosen.capabilities.include(Capability::Compute);
    let mut found = of_node(root, inventory, &chosen.capabilities);
    let needed = [Some(CONTROL), is_for_cuda.then_some(UVM)];
    for (node, answer) in inventory.control_nodes.iter().map(|node| (node, root.node_access(node))) {
        // Profilers alone want the third.
        if answer == NodeAccess::Open || !needed.iter().flatten().any(|name| Path::new(name) == node) {
            continue;
        }
        let (what, remedy) = causes::of_node(node, answer, root);
        found.push(Trouble { what, remedy, weight: Weight::Certain });
    }
    if matches!(image, ImageLibc::Musl { .. }) {
        found.push(Trouble {
            what: "the image has musl, which cannot load the driver's libraries: they are made for glibc"
                .into(),
            remedy: "use an image with glibc, such as one of Debian, Ubuntu or Rocky Linux".into(),
            weight: Weight::Slight,
        });
    }
    found
}
