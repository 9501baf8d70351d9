//! The node's tree out of sysfs, and what NVML adds.

use std::path::{Path, PathBuf};

use super::super::readings::{GpuReadings, NvLink};
use super::super::{Gpu, HostRoot, Inventory};
use super::{Device, NumaNode, Relation, Topology};
use crate::base::idset::parse_ids;

const PCI_DEVICES: &str = "/sys/bus/pci/devices";
const INFINIBAND: &str = "/sys/class/infiniband";
const NODES: &str = "/sys/devices/system/node";
/// A bound for what a directory can make us hold.
const MOST_ADAPTERS: usize = 256;

/// The topology of a host. `readings` are those of the inventory's GPUs, in its order, where NVML was asked.
#[must_use]
pub fn read_topology(root: &HostRoot, inventory: &Inventory, readings: &[Option<GpuReadings>]) -> Topology {
    let unread = GpuReadings::default();
    let mut devices = Vec::new();
    for (place, gpu) in inventory.gpus.iter().enumerate() {
        let said = readings.get(place).and_then(Option::as_ref).unwrap_or(&unread);
        devices.push(read_gpu(root, inventory, gpu, said));
    }
    let gpus = devices.len();
    devices.extend(read_adapters(root));
    Topology { numa_nodes: read_numa_nodes(root), devices, gpus }
}

fn read_gpu(root: &HostRoot, inventory: &Inventory, gpu: &Gpu, said: &GpuReadings) -> Device {
    let directory = gpu.pci_address.as_ref().map(|address| Path::new(PCI_DEVICES).join(address));
    let mut device = directory.map_or_else(Device::default, |directory| read_device(root, &directory));
    device.label = format!("GPU{}", gpu.index);
    device.name.clone_from(&gpu.name);
    device.pci_address.clone_from(&gpu.pci_address);
    device.cpus = device.cpus.or_else(|| said.cpu_affinity.value().cloned());
    let near = || parse_ids(said.numa_affinity.value()?)?.first().copied();
    device.numa_node = device.numa_node.or_else(near);
    device.own_numa_node = said.gpu_numa_node.value().copied();
    let place_of = |link: &NvLink| {
        let address = link.remote_pci.as_ref()?;
        inventory.gpus.iter().position(|other| other.pci_address.as_ref() == Some(address))
    };
    for link in said.nvlink.value().into_iter().flatten().filter(|link| link.active) {
        match (place_of(link), link.remote.as_deref()) {
            (Some(place), _) => match device.direct_links.iter_mut().find(|(known, _)| *known == place) {
                Some((_, count)) => *count += 1,
                None => device.direct_links.push((place, 1)),
            },
            (None, Some("cpu")) => {}
            // Some drivers do not name a switch; another GPU of this node would have been found by its address.
            (None, _) => device.switch_links += 1,
        }
    }
    for peer in said.peers.value().into_iter().flatten() {
        let place = inventory.gpus.iter().position(|other| other.index == peer.index);
        if let (Some(place), Some(path)) = (place, &peer.path) {
            device.told.push((place, Relation::parse(path)));
        }
    }
    device
}

fn read_adapters(root: &HostRoot) -> Vec<Device> {
    let mut names = root.list(Path::new(INFINIBAND));
    // By number, not by text: mlx5_10 comes behind mlx5_9.
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.truncate(MOST_ADAPTERS);
    let adapter = |(number, name): (usize, String)| {
        let mut device = read_device(root, &Path::new(INFINIBAND).join(&name).join("device"));
        device.label = format!("NIC{number}");
        device.name = Some(name);
        device
    };
    names.into_iter().enumerate().map(adapter).collect()
}

/// What sysfs says of a device of the PCI bus. `directory` may be a link to it.
fn read_device(root: &HostRoot, directory: &Path) -> Device {
    let Some(real) = root.real(directory) else { return Device::default() };
    let mut device = Device::default();
    let names: Vec<&str> = real.iter().filter_map(|name| name.to_str()).collect();
    if let Some(at) = names.iter().rposition(|name| name.starts_with("pci") && name.contains(':')) {
        let mut below: Vec<String> = names.iter().skip(at + 1).map(|name| (*name).to_owned()).collect();
        device.root = names.get(at).map(|name| (*name).to_owned());
        device.pci_address = below.pop();
        device.bridges = below;
    }
    let text = |name: &str| root.read(real.join(name).to_str()?).map(|text| text.trim().to_owned());
    // -1 where the firmware does not say.
    device.numa_node = text("numa_node").and_then(|number| number.parse().ok());
    device.cpus = text("local_cpulist").filter(|list| !list.is_empty());
    device
}

fn read_numa_nodes(root: &HostRoot) -> Vec<NumaNode> {
    let names = root.list(Path::new(NODES));
    let mut nodes: Vec<NumaNode> = names
        .iter()
        .filter_map(|name| {
            let id = name.strip_prefix("node")?.parse().ok()?;
            let file = PathBuf::from(NODES).join(name).join("cpulist");
            let cpus = root.read(file.to_str()?)?.trim().to_owned();
            // The memory of a GPU can be a node, too, and has no CPU.
            (!cpus.is_empty()).then_some(NumaNode { id, cpus })
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}
