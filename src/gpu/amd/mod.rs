//! AMD: the GPUs of the kernel's compute driver (KFD), which are what ROCm can use. ROCm itself is the image's.
//!
//! A container needs `/dev/kfd`, and of each GPU its render node; ROCm's runtime leaves out those GPUs of sysfs whose
//! render node is missing, and counts the others, so that exactly the granted ones are seen.

mod topology;

use std::path::Path;

use crate::grants::Grants;

use super::visible::{Names, VisibleVariables};
use super::{Chosen, Gpu, Hints, HostRoot, ImageLibc, Inventory, NodeAccess, Vendor, by_nodes, uevent};

const KFD: &str = "/dev/kfd";

/// HIP has CUDA's variable as a second name of its own; OpenCL has GPU_DEVICE_ORDINAL.
static VISIBLE: VisibleVariables = VisibleVariables {
    outer: "ROCR_VISIBLE_DEVICES",
    inner: &["HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "CUDA_VISIBLE_DEVICES"],
    // Frameworks read numbers out of them, and the partitions of a GPU may share its UUID.
    names: Names::Numbers,
};

/// The vendor.
#[derive(Debug)]
pub(super) struct Amd;

impl Vendor for Amd {
    fn name(&self) -> &'static str {
        "amd"
    }

    fn read_inventory(&self, root: &HostRoot, _hints: &Hints) -> Option<Inventory> {
        let topology = topology::read(root);
        if topology.gpus.is_empty() && topology.findings.is_empty() {
            return None;
        }
        let mut gpus: Vec<Gpu> = topology.gpus.iter().map(gpu).collect();
        name_once(&mut gpus);
        // In the order of the topology, by which ROCm counts, and not in that of PCI.
        for (index, gpu) in (0..).zip(&mut gpus) {
            gpu.index = index;
        }
        let mut inventory = Inventory {
            vendor: Some(self.name().into()),
            driver_version: uevent::module_version(root, "amdgpu"),
            gpus,
            findings: topology.findings,
            ..Inventory::default()
        };
        match root.node_access(Path::new(KFD)) {
            NodeAccess::Open => inventory.control_nodes.push(KFD.into()),
            NodeAccess::Missing => {
                inventory.findings.push(format!("{KFD} does not exist, so ROCm cannot start"));
            }
            answer => {
                inventory.control_nodes.push(KFD.into());
                inventory.findings.push(format!(
                    "ROCm cannot start, as {KFD} cannot be used: {}; its group (`render` or `video`) must be one of yours",
                    answer.reason()
                ));
            }
        }
        Some(inventory)
    }

    fn add_details(&self, root: &HostRoot, inventory: &mut Inventory) {
        for found in topology::read(root).gpus {
            let same = |gpu: &&mut Gpu| gpu.minor == found.render_minor;
            if let Some(gpu) = inventory.gpus.iter_mut().find(same) {
                gpu.memory_bytes = topology::memory_bytes(root, found.node);
            }
        }
        // The kernel's name of a product lies beside the first of its partitions.
        let facts: Vec<_> = inventory
            .gpus
            .iter()
            .map(|gpu| (gpu.pci_address.clone(), product_name(root, gpu.minor)))
            .collect();
        for (place, gpu) in inventory.gpus.iter_mut().enumerate() {
            let same = |(address, _): &&(Option<String>, _)| address.is_some() && *address == gpu.pci_address;
            let product = facts.iter().filter(same).find_map(|(_, name)| name.clone());
            gpu.name = product.or_else(|| gpu.name.take());
            let before = facts.iter().take(place).filter(same).count();
            if let (Some(name), all @ 2..) = (&mut gpu.name, facts.iter().filter(same).count()) {
                *name = format!("{name}, partition {before} of {all}");
            }
        }
    }

    fn why_absent(&self) -> &'static str {
        "no AMD GPU (/sys/class/kfd)"
    }

    fn visible_variables(&self) -> &'static VisibleVariables {
        &VISIBLE
    }

    fn grants(&self, inventory: &Inventory, chosen: &Chosen, _image: &ImageLibc, root: &HostRoot) -> Grants {
        by_nodes::grants(inventory, chosen, root, |gpu| uevent::card_node(root, gpu.minor))
    }
}

fn gpu(found: &topology::KfdGpu) -> Gpu {
    Gpu {
        name: found.target.as_ref().map(|target| format!("AMD {target}")),
        // As ROCm writes it; 0 is what a GPU without a number of its own says.
        uuid: found.unique_id.filter(|id| *id != 0).map(|id| format!("GPU-{id:016x}")),
        pci_address: found.pci_address.clone(),
        minor: found.render_minor,
        node: uevent::render_node(found.render_minor),
        ..Gpu::default()
    }
}

/// A UUID that several partitions share names none of them.
fn name_once(gpus: &mut [Gpu]) {
    let all: Vec<_> = gpus.iter().filter_map(|gpu| gpu.uuid.clone()).collect();
    for gpu in gpus {
        gpu.uuid = gpu.uuid.take().filter(|uuid| all.iter().filter(|other| *other == uuid).count() == 1);
    }
}

fn product_name(root: &HostRoot, minor: u32) -> Option<String> {
    let text = root.read(&format!("/sys/class/drm/renderD{minor}/device/product_name"))?;
    let name = text.trim();
    (!name.is_empty()).then(|| name.to_owned())
}
