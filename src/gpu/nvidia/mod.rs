//! NVIDIA: what the kernel driver shows in procfs, where its libraries are, and what a container needs of both.

mod cache;
mod cdi_spec;
pub(super) mod compat;
mod graphics;
pub(super) mod inside;
pub(super) mod libs;
pub(super) mod mig;
pub(super) mod modprobe;
pub(super) mod mps;
mod nodes;
pub(super) mod nvml;
mod procfs;
mod require;
pub(super) mod troubles;
mod view;
pub(super) mod wsl;

use std::path::Path;

use crate::cdi::Spec;
use crate::grants::Grants;

use super::visible::{Names, VisibleVariables};
use super::{Capabilities, Chosen, GpuError, Hints, HostRoot, ImageLibc, Inventory, Vendor};

pub(super) static VISIBLE: VisibleVariables =
    VisibleVariables { outer: "CUDA_VISIBLE_DEVICES", inner: &[], names: Names::Uuids };

/// The vendor.
#[derive(Debug)]
pub(super) struct Nvidia;

impl Vendor for Nvidia {
    fn name(&self) -> &'static str {
        "nvidia"
    }

    fn read_inventory(&self, root: &HostRoot, hints: &Hints) -> Option<Inventory> {
        let Some(driver) = procfs::read_driver(root) else { return wsl::read_inventory(root) };
        let mut inventory = Inventory {
            vendor: Some(self.name().into()),
            driver_version: driver.version,
            gpus: driver.gpus,
            findings: driver.findings,
            device_root: root.device_root().map(Path::to_path_buf),
            ..Inventory::default()
        };
        // A node of a GPU that the driver leaves out is no GPU.
        if inventory.gpus.is_empty() && inventory.findings.is_empty() {
            inventory.gpus = nodes::read_gpus(root);
        }
        mig::read_instances(root, &mut inventory.gpus);
        inventory.control_nodes = nodes::read_control_nodes(root);
        match cache::load(root, hints, inventory.driver_version.as_deref()) {
            Some(remembered) => take_remembered(&mut inventory, remembered),
            None => {
                inventory.files = libs::find_files(root, hints, inventory.driver_version.as_deref());
                if inventory.files.directory.is_some() {
                    cache::save(root, hints, &inventory);
                }
            }
        }
        inventory.files.sockets = libs::find_sockets(root);
        let troubles = troubles::of_node(root, &inventory, &Capabilities::default());
        inventory.findings.extend(troubles.iter().map(ToString::to_string));
        inventory.findings.extend(mig::find_faults(root, &inventory.gpus));
        Some(inventory)
    }

    fn remember(&self, root: &HostRoot, hints: &Hints, inventory: &Inventory) {
        cache::save(root, hints, inventory);
    }

    fn why_absent(&self) -> &'static str {
        "no NVIDIA driver is loaded (neither /sys/module/nvidia nor /proc/driver/nvidia nor /dev/nvidiactl exists)"
    }

    fn visible_variables(&self) -> &'static VisibleVariables {
        &VISIBLE
    }

    fn check_image(
        &self,
        inventory: &Inventory,
        chosen: &Chosen,
        image_env: &[String],
    ) -> Result<(), GpuError> {
        let driver = inventory.driver_version.as_deref();
        let gpus = chosen.all_gpus().into_iter().filter_map(|place| inventory.gpus.get(place));
        let host = require::HostCuda {
            // NVML's word is at hand once something has asked it on this boot; the driver's branch says it as well.
            cuda: inventory
                .cuda_version
                .clone()
                .or_else(|| driver.and_then(require::cuda_of_driver).map(str::to_owned)),
            driver: driver.map(str::to_owned),
            gpus: gpus.map(|gpu| (None, gpu.name.clone())).collect(),
        };
        for (variable, value) in require::requirements(image_env) {
            require::check(&value, &host).map_err(|unmet| GpuError::Requirement {
                variable,
                wanted: unmet.wanted,
                others: unmet.others,
                has: unmet.has,
            })?;
        }
        Ok(())
    }

    fn is_essential(&self, library: &str) -> bool {
        libs::stem_of(library) == "libcuda"
    }

    fn grants(&self, inventory: &Inventory, chosen: &Chosen, image: &ImageLibc, root: &HostRoot) -> Grants {
        inside::grants(inventory, chosen, image, root)
    }

    fn cdi_spec(&self, inventory: &Inventory, root: &HostRoot) -> Option<Spec> {
        Some(cdi_spec::make(inventory, root))
    }
}

/// The files as they were, and what only NVML knows of GPUs that are still there.
fn take_remembered(inventory: &mut Inventory, remembered: Inventory) {
    inventory.files = remembered.files;
    inventory.cuda_version = remembered.cuda_version;
    for gpu in &mut inventory.gpus {
        let same = |old: &&super::Gpu| old.minor == gpu.minor && old.pci_address == gpu.pci_address;
        if let Some(old) = remembered.gpus.iter().find(same) {
            gpu.memory_bytes = old.memory_bytes;
            gpu.uuid = gpu.uuid.take().or_else(|| old.uuid.clone());
            gpu.name = gpu.name.take().or_else(|| old.name.clone());
            super::mig::keep_names(gpu, old);
        }
    }
}
