//! Gaudi: accelerators of the driver habanalabs. Synapse is the image's; HABANA_VISIBLE_MODULES counts modules of the
//! board, which are the same inside.

use std::path::PathBuf;

use crate::grants::Grants;

use super::super::inventory::number_gpus;
use super::super::visible::{Names, VisibleVariables};
use super::super::{Chosen, Gpu, Hints, HostRoot, ImageLibc, Inventory, Vendor, by_nodes, uevent};

const PCI_VENDOR: u32 = 0x1da3;

/// A word to container runtimes: programs do not read it.
static VISIBLE: VisibleVariables =
    VisibleVariables { outer: "HABANA_VISIBLE_DEVICES", inner: &[], names: Names::AsOnTheHost };

/// The vendor.
#[derive(Debug)]
pub(in super::super) struct Gaudi;

impl Vendor for Gaudi {
    fn name(&self) -> &'static str {
        "gaudi"
    }

    fn read_inventory(&self, root: &HostRoot, _hints: &Hints) -> Option<Inventory> {
        let mut gpus = Vec::new();
        // The class has the NPUs of CPUs as well.
        for (minor, device) in uevent::nodes(root, "accel", "accel") {
            let Some((PCI_VENDOR, id)) = device.pci_id else { continue };
            gpus.push(Gpu {
                name: Some(format!("Gaudi {id:04x}")),
                pci_address: device.pci_address,
                minor,
                node: format!("/dev/accel/accel{minor}").into(),
                ..Gpu::default()
            });
        }
        if gpus.is_empty() {
            return None;
        }
        number_gpus(&mut gpus);
        let driver_version = uevent::module_version(root, "habanalabs");
        Some(Inventory { vendor: Some(self.name().into()), driver_version, gpus, ..Inventory::default() })
    }

    fn why_absent(&self) -> &'static str {
        "no Gaudi"
    }

    fn visible_variables(&self) -> &'static VisibleVariables {
        &VISIBLE
    }

    fn grants(&self, inventory: &Inventory, chosen: &Chosen, _image: &ImageLibc, root: &HostRoot) -> Grants {
        let control = |gpu: &Gpu| Some(PathBuf::from(format!("/dev/accel/accel_controlD{}", gpu.minor)));
        by_nodes::grants(inventory, chosen, root, control)
    }
}
