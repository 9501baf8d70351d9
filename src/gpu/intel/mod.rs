//! Intel: discrete GPUs with a render node (drivers i915 and xe), and Gaudi. The compute runtimes are the image's.

mod gaudi;

use std::path::Path;

use crate::grants::Grants;

use super::inventory::number_gpus;
use super::visible::{Names, VisibleVariables};
use super::{Chosen, Gpu, Hints, HostRoot, ImageLibc, Inventory, Vendor, by_nodes, uevent};

pub(super) use gaudi::Gaudi;

const PCI_VENDOR: u32 = 0x8086;
/// Where the GPU that is built into a CPU always is. It draws the console; who wants to compute with it names its node
/// with `--device`.
const INTEGRATED: &str = "0000:00:02.0";

static VISIBLE: VisibleVariables =
    VisibleVariables { outer: "ZE_AFFINITY_MASK", inner: &[], names: Names::Numbers };

/// The vendor.
#[derive(Debug)]
pub(super) struct Intel;

impl Vendor for Intel {
    fn name(&self) -> &'static str {
        "intel"
    }

    fn read_inventory(&self, root: &HostRoot, _hints: &Hints) -> Option<Inventory> {
        let mut drivers = Vec::new();
        let mut gpus = Vec::new();
        for (minor, device) in uevent::nodes(root, "drm", "renderD") {
            let (Some((PCI_VENDOR, id)), Some(driver)) = (device.pci_id, device.driver) else { continue };
            if !matches!(driver.as_str(), "i915" | "xe") || device.pci_address.as_deref() == Some(INTEGRATED)
            {
                continue;
            }
            gpus.push(Gpu {
                name: Some(format!("Intel GPU {id:04x}")),
                pci_address: device.pci_address,
                minor,
                node: uevent::render_node(minor),
                tiles: Some(count_tiles(root, minor)),
                ..Gpu::default()
            });
            drivers.push(driver);
        }
        if gpus.is_empty() {
            return None;
        }
        number_gpus(&mut gpus);
        let driver_version = drivers.first().and_then(|driver| uevent::module_version(root, driver));
        Some(Inventory { vendor: Some(self.name().into()), driver_version, gpus, ..Inventory::default() })
    }

    fn why_absent(&self) -> &'static str {
        "no discrete Intel GPU"
    }

    fn visible_variables(&self) -> &'static VisibleVariables {
        &VISIBLE
    }

    fn grants(&self, inventory: &Inventory, chosen: &Chosen, _image: &ImageLibc, root: &HostRoot) -> Grants {
        by_nodes::grants(inventory, chosen, root, |gpu| uevent::card_node(root, gpu.minor))
    }
}

/// Tiles by the directories `tile0`, `tile1`, … of xe. With i915 a GPU has one or more `gt` per tile, so it says nothing:
/// 1.
fn count_tiles(root: &HostRoot, minor: u32) -> u32 {
    let names = root.list(Path::new(&format!("/sys/class/drm/renderD{minor}/device")));
    let is_tile =
        |name: &&String| name.strip_prefix("tile").is_some_and(|number| number.parse::<u32>().is_ok());
    u32::try_from(names.iter().filter(is_tile).count()).unwrap_or(1).max(1)
}
