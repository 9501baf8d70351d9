//! MIG: GPUs that are divided into instances, each of which is a device of its own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Inventory, NvmlGpu};

/// One MIG device: a compute instance in a GPU instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MigInstance {
    /// Its place on the GPU: the second number of `--gpus device=0:1`.
    pub index: u32,
    /// `MIG-…`; only NVML knows it.
    pub uuid: Option<String>,
    /// Its size in NVIDIA's words (`3g.20gb`); only NVML knows it.
    pub profile: Option<String>,
    /// Memory; only NVML knows it.
    pub memory_bytes: Option<u64>,
    /// Number of the GPU instance on the GPU.
    pub gpu_instance: u32,
    /// Number of the compute instance in the GPU instance.
    pub compute_instance: u32,
    /// Number of the GPU instance's capability node.
    pub gpu_instance_minor: Option<u32>,
    /// Number of the compute instance's capability node.
    pub compute_instance_minor: Option<u32>,
}

impl MigInstance {
    fn ids(&self) -> (u32, u32) {
        (self.gpu_instance, self.compute_instance)
    }

    /// The nodes that it needs beside its GPU's, as far as their numbers are known: they are two.
    pub fn capability_nodes(&self) -> impl Iterator<Item = PathBuf> {
        let minors = [self.gpu_instance_minor, self.compute_instance_minor];
        minors.into_iter().flatten().map(capability_node)
    }
}

/// The capability node of a number.
pub(super) fn capability_node(minor: u32) -> PathBuf {
    format!("/dev/nvidia-caps/nvidia-cap{minor}").into()
}

/// What a program can use by itself: a whole GPU, or one instance of a divided one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Place in [`Inventory::gpus`].
    pub gpu: usize,
    /// Place in the GPU's instances.
    pub instance: Option<usize>,
}

impl Device {
    /// A GPU that is not divided.
    #[must_use]
    pub fn whole(gpu: usize) -> Self {
        Self { gpu, instance: None }
    }
}

/// Why a GPU is no device, as a fragment.
pub(super) const WITHOUT_INSTANCES: &str =
    "MIG is enabled on it and it has no instances, without which nothing can use it";

impl Inventory {
    /// All devices in order: the instances of a divided GPU, else the GPU.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        (0..self.gpus.len()).flat_map(|gpu| self.devices_of(gpu)).collect()
    }

    /// The devices of one GPU.
    #[must_use]
    pub fn devices_of(&self, gpu: usize) -> Vec<Device> {
        let count = self.gpus.get(gpu).map_or(0, |gpu| gpu.instances.len());
        match count {
            0 => vec![Device::whole(gpu)],
            _ => (0..count).map(|instance| Device { gpu, instance: Some(instance) }).collect(),
        }
    }

    /// The instance that a device is.
    #[must_use]
    pub fn instance(&self, device: Device) -> Option<&MigInstance> {
        self.gpus.get(device.gpu)?.instances.get(device.instance?)
    }

    /// True if MIG is enabled on the GPU and nobody has made instances, so that nothing can use it.
    pub(super) fn is_without_instances(&self, device: Device) -> bool {
        let gpu = self.gpus.get(device.gpu);
        gpu.is_some_and(|gpu| gpu.mig_enabled == Some(true) && gpu.instances.is_empty())
    }

    /// The name by which CUDA knows a device on every host and in every container.
    pub(super) fn uuid_of(&self, device: Device) -> Option<String> {
        let gpu = self.gpus.get(device.gpu)?;
        let Some(instance) = self.instance(device) else { return gpu.uuid.clone() };
        instance.uuid.clone().or_else(|| {
            let uuid = gpu.uuid.as_ref()?;
            Some(format!("MIG-{uuid}/{}/{}", instance.gpu_instance, instance.compute_instance))
        })
    }

    /// `GPU 0 (/dev/nvidia0)`, `MIG 0:1 (GPU instance 2, compute instance 0 of /dev/nvidia0)`.
    pub(super) fn name_of(&self, device: Device) -> String {
        let Some(gpu) = self.gpus.get(device.gpu) else { return String::new() };
        let node = gpu.node.display();
        match self.instance(device) {
            None => format!("GPU {} ({node})", gpu.index),
            Some(instance) => {
                let (outer, inner) = instance.ids();
                format!(
                    "MIG {}:{} (GPU instance {outer}, compute instance {inner} of {node})",
                    gpu.index, instance.index
                )
            }
        }
    }

    /// `GPU 0, 2 and MIG 1:0, 1:1`.
    pub(super) fn words_of(&self, devices: &[Device]) -> String {
        let (mut whole, mut parts) = (Vec::new(), Vec::new());
        for device in devices {
            let Some(gpu) = self.gpus.get(device.gpu) else { continue };
            match self.instance(*device) {
                None => whole.push(gpu.index.to_string()),
                Some(instance) => parts.push(format!("{}:{}", gpu.index, instance.index)),
            }
        }
        let list = [("GPU", whole), ("MIG", parts)];
        let list = list.iter().filter(|(_, items)| !items.is_empty());
        let list: Vec<String> = list.map(|(kind, items)| format!("{kind} {}", items.join(", "))).collect();
        if list.is_empty() { "no GPU".into() } else { list.join(" and ") }
    }

    /// The one instance that `MIG-3f…` (a UUID or its beginning), `MIG-GPU-…/1/0` or `0:1` names.
    pub(super) fn find_instance(&self, text: &str) -> Option<Device> {
        let text = text.to_ascii_lowercase();
        let all = self.devices().into_iter().filter(|device| device.instance.is_some());
        let mut found = all.filter(|device| {
            let (Some(gpu), Some(instance)) = (self.gpus.get(device.gpu), self.instance(*device)) else {
                return false;
            };
            if let Some((outer, inner)) = text.split_once(':') {
                return outer.parse() == Ok(gpu.index) && inner.parse() == Ok(instance.index);
            }
            let Some(name) = text.strip_prefix("mig-").filter(|name| !name.is_empty()) else { return false };
            if let Some((uuid, ids)) = name.split_once('/') {
                let is_gpu = gpu.uuid.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(uuid));
                return is_gpu && ids == format!("{}/{}", instance.gpu_instance, instance.compute_instance);
            }
            instance.uuid.as_ref().is_some_and(|uuid| uuid.to_ascii_lowercase().starts_with(&text))
        });
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }
}

/// Adds what NVML says of the instances of one GPU, and tells those that procfs does not show.
pub(super) fn merge_instances(gpu: &mut super::Gpu, found: &NvmlGpu, findings: &mut Vec<String>) {
    gpu.mig_enabled = found.mig_enabled.or(gpu.mig_enabled);
    for theirs in &found.instances {
        match gpu.instances.iter_mut().find(|ours| ours.ids() == theirs.ids()) {
            Some(ours) => take_names(ours, theirs),
            None => {
                let (outer, inner) = theirs.ids();
                findings.push(format!(
                    "NVML shows GPU instance {outer}, compute instance {inner} of {}, which the driver's procfs does not",
                    gpu.node.display()
                ));
            }
        }
    }
    gpu.instances.sort_by_key(|instance| instance.index);
}

/// Takes over what was known of instances that are still there.
pub(super) fn keep_names(gpu: &mut super::Gpu, old: &super::Gpu) {
    gpu.mig_enabled = gpu.mig_enabled.or(old.mig_enabled);
    // A division that is not the one of then may number its instances otherwise.
    let ids = |gpu: &super::Gpu| {
        let mut ids: Vec<_> = gpu.instances.iter().map(MigInstance::ids).collect();
        ids.sort_unstable();
        ids
    };
    if ids(gpu) != ids(old) {
        return;
    }
    for ours in &mut gpu.instances {
        if let Some(theirs) = old.instances.iter().find(|theirs| theirs.ids() == ours.ids()) {
            take_names(ours, theirs);
        }
    }
    gpu.instances.sort_by_key(|instance| instance.index);
}

fn take_names(ours: &mut MigInstance, theirs: &MigInstance) {
    ours.index = theirs.index;
    ours.uuid.clone_from(&theirs.uuid);
    ours.profile.clone_from(&theirs.profile);
    ours.memory_bytes = theirs.memory_bytes;
}

/// NVIDIA's name of an instance's size: its slices, and its share of the memory in eighths of the GPU's whole.
#[must_use]
pub(super) fn profile_words(
    gpu_slices: u32,
    compute_slices: u32,
    memory_mib: u64,
    gpu_bytes: u64,
) -> Option<String> {
    const GIB: u128 = 1 << 30;
    let (bytes, whole) = (u128::from(memory_mib) << 20, u128::from(gpu_bytes));
    let eighths = (bytes * 8).checked_div(whole).map(|down| down + u128::from(bytes * 8 % whole != 0))?;
    let gigabytes = (eighths * whole.div_ceil(GIB) + 4) / 8;
    let compute = if compute_slices == gpu_slices { String::new() } else { format!("{compute_slices}c.") };
    Some(format!("{compute}{gpu_slices}g.{gigabytes}gb"))
}

#[cfg(test)]
#[path = "mig_tests.rs"]
mod tests;
