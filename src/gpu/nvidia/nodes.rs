//! Device nodes. Nodes of the fabric manager and of the node's administration (nvswitch, nvlink, vgpu) are not for
//! containers and do not occur here; those of MIG are in `mig`.

use std::path::{Path, PathBuf};

use super::super::inventory::number_gpus;
use super::super::{Gpu, HostRoot};

/// Needed by everything, by CUDA, and by profilers.
const CONTROL_NODES: [&str; 3] = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"];
/// Those that containers never get, and why.
const OTHER_NODES: [(&str, &str); 3] = [
    ("/dev/nvidia-modeset", "it drives displays"),
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
