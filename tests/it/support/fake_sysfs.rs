//! The part of sysfs that shows where devices are: the PCIe tree, network adapters and NUMA nodes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde::Deserialize;

/// A NUMA node.
#[derive(Debug, Deserialize)]
pub(crate) struct Numa {
    node: u32,
    cpus: String,
}

/// A network adapter with verbs.
#[derive(Debug, Deserialize)]
pub(crate) struct Adapter {
    name: String,
    #[serde(flatten)]
    place: Place,
}

/// Where a device is.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Place {
    /// Its directory below `/sys/devices`: the host bridge, the bridges, itself.
    pci_path: Option<String>,
    /// Without it the firmware does not say.
    numa_node: Option<u32>,
    /// CPUs near to it.
    local_cpus: Option<String>,
}

impl Place {
    pub(crate) fn is_known(&self) -> bool {
        self.pci_path.is_some()
    }
}

/// Writes all of it below `root`, the host's tree.
pub(crate) fn write(root: &Path, numa: &[Numa], adapters: &[Adapter], gpus: &[&Place]) {
    let sys = root.join("sys");
    for directory in ["bus/pci/devices", "class", "fs", "kernel", "devices/system/cpu", "devices/system/node"]
    {
        fs::create_dir_all(sys.join(directory)).unwrap();
    }
    for one in numa {
        let directory = sys.join(format!("devices/system/node/node{}", one.node));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cpulist"), format!("{}\n", one.cpus)).unwrap();
    }
    gpus.iter().for_each(|place| write_device(&sys, place));
    for adapter in adapters {
        write_device(&sys, &adapter.place);
        let Some(path) = &adapter.place.pci_path else { continue };
        // As the kernel has it: the class's entry lies below the device, and a link leads to it.
        let entry = sys.join("devices").join(path).join("infiniband").join(&adapter.name);
        fs::create_dir_all(&entry).unwrap();
        symlink("../..", entry.join("device")).unwrap();
        fs::create_dir_all(sys.join("class/infiniband")).unwrap();
        symlink(
            format!("../../devices/{path}/infiniband/{}", adapter.name),
            sys.join("class/infiniband").join(&adapter.name),
        )
        .unwrap();
    }
}

fn write_device(sys: &Path, place: &Place) {
    let Some(path) = &place.pci_path else { return };
    let directory = sys.join("devices").join(path);
    fs::create_dir_all(&directory).unwrap();
    let node = place.numa_node.map_or_else(|| "-1".to_owned(), |node| node.to_string());
    fs::write(directory.join("numa_node"), format!("{node}\n")).unwrap();
    fs::write(directory.join("local_cpulist"), format!("{}\n", place.local_cpus.as_deref().unwrap_or("")))
        .unwrap();
    let address = directory.file_name().unwrap();
    let link = sys.join("bus/pci/devices").join(address);
    symlink(format!("../../../devices/{path}"), link).unwrap();
}
