//! Device nodes. Nodes of the fabric manager and of the node's administration (nvswitch, nvlink, vgpu) are not for
//! containers and do not occur here; those of MIG are in `mig`.

use std::path::{Path, PathBuf};

use super::super::inventory::number_gpus;
use super::super::{Capabilities, Capability, Gpu, HostRoot};

pub(super) const CONTROL: &str = "/dev/nvidiactl";
pub(super) const UVM: &str = "/dev/nvidia-uvm";
const UVM_TOOLS: &str = "/dev/nvidia-uvm-tools";
const MODESET: &str = "/dev/nvidia-modeset";
/// Needed by everything, by CUDA, by profilers, and by what draws.
const CONTROL_NODES: [&str; 4] = [CONTROL, UVM, UVM_TOOLS, MODESET];
/// Those that containers never get, and why.
const OTHER_NODES: [(&str, &str); 2] = [
    ("/dev/nvidia-nvswitchctl", "it is the fabric manager's"),
    ("/dev/nvidia-vgpuctl", "it is for hosts of virtual machines"),
];

pub(super) fn read_control_nodes(root: &HostRoot) -> Vec<PathBuf> {
    CONTROL_NODES.iter().map(PathBuf::from).filter(|node| root.exists(node)).collect()
}

/// Why the driver's other nodes are not inside.
pub(super) fn explain_others(root: &HostRoot) -> impl Iterator<Item = String> {
    OTHER_NODES
        .into_iter()
        .filter(|(node, _)| root.exists(Path::new(node)))
        .map(|(node, why)| format!("{node} is not inside: {why}"))
}

/// Why a control node is inside, or `Err` why it is not.
pub(super) fn rule_of(node: &Path, capabilities: &Capabilities) -> Result<&'static str, &'static str> {
    if [UVM, UVM_TOOLS].iter().any(|uvm| node == Path::new(uvm)) {
        return match capabilities.include(Capability::Compute) {
            true => Ok("compute needs it"),
            false => Err("compute alone needs it, and is not asked for"),
        };
    }
    if node == Path::new(MODESET) {
        return match capabilities.include(Capability::Graphics) {
            true => Ok("graphics and display need it"),
            false => Err("graphics and display alone need it, and are not asked for"),
        };
    }
    Ok("every GPU needs it")
}

/// The GPUs by their nodes alone, for a host whose procfs shows none.
pub(super) fn read_gpus(root: &HostRoot) -> Vec<Gpu> {
    let mut gpus: Vec<Gpu> = root
        .list(Path::new("/dev"))
        .iter()
        .filter_map(|name| name.strip_prefix("nvidia")?.parse().ok())
        .map(|minor: u32| Gpu { minor, node: format!("/dev/nvidia{minor}").into(), ..Gpu::default() })
        .collect();
    number_gpus(&mut gpus);
    gpus
}
