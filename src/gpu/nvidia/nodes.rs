//! Device nodes. Nodes of the fabric manager and of the node's administration (nvswitch, nvlink, vgpu) are not for
//! containers and do not occur here; those of MIG are in `mig`.

use std::path::{Path, PathBuf};

use super::super::inventory::number_gpus;
use super::super::{Gpu, HostRoot, Inventory};

const CONTROL: &str = "/dev/nvidiactl";
pub(super) const UVM: &str = "/dev/nvidia-uvm";
/// Needed by everything, by CUDA, and by profilers.
const CONTROL_NODES: [&str; 3] = [CONTROL, UVM, "/dev/nvidia-uvm-tools"];

pub(super) fn read_control_nodes(root: &HostRoot) -> Vec<PathBuf> {
    CONTROL_NODES.iter().map(PathBuf::from).filter(|node| root.exists(node)).collect()
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

/// Missing nodes without which no program can use a GPU.
pub(super) fn find_faults(root: &HostRoot, inventory: &Inventory) -> Vec<String> {
    let missing = |node: &str| !inventory.control_nodes.iter().any(|have| have == Path::new(node));
    let mut findings = Vec::new();
    if missing(CONTROL) {
        findings.push(format!(
            "{CONTROL} does not exist, so no program can use a GPU (root runs `nvidia-modprobe`)"
        ));
    }
    if missing(UVM) {
        // Majors are looked up by name: only the kernel knows them.
        let is_loaded = root.read("/proc/devices").is_some_and(|text| {
            text.lines().any(|line| line.split_whitespace().nth(1) == Some("nvidia-uvm"))
        });
        findings.push(if is_loaded {
            format!("{UVM} does not exist though its module is loaded (root runs `nvidia-modprobe -u`)")
        } else {
            "the nvidia-uvm module is not loaded, so CUDA cannot start (root runs `nvidia-modprobe -u`)"
                .into()
        });
    }
    findings
}
