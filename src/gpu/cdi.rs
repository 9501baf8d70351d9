//! CDI devices that are GPUs: whose they are, and how the loader finds what comes with them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cdi::{self, HostFile, Spec};
use crate::grants::Grants;

use super::nvidia::{inside, libs, mig};
use super::{
    Chosen, Device, GpuError, HostRoot, ImageLibc, Inventory, NodeAccess, Owned, vendor_of, visible,
};

/// One CDI device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The words that asked for it.
    pub words: String,
    /// It stands for all devices of its kind, and so for all that are the job's.
    pub is_all: bool,
    /// Its device nodes.
    pub nodes: Vec<PathBuf>,
}

/// What a path of the host is.
#[must_use]
pub fn look(root: &HostRoot, path: &Path) -> Option<HostFile> {
    if !root.exists(path) {
        return None;
    }
    let is_directory = root.is_directory(path);
    let may_be_library = path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
    let library = if may_be_library && !is_directory { libs::shared_object(root, path) } else { None };
    Some(HostFile { is_directory, library: library.map(|object| object.soname) })
}

/// What the driver says of how its nodes are made.
#[must_use]
pub fn read_params(root: &HostRoot) -> Option<String> {
    root.read(cdi::DRIVER_PARAMS)
}

/// The GPUs among CDI devices: fails where one is not the job's, and takes out of `grants` those of others that a device
/// for all has brought.
pub fn choose(
    inventory: &Inventory,
    owned: &Owned,
    asked: &[Asked],
    root: &HostRoot,
    grants: &mut Grants,
) -> Result<Chosen, GpuError> {
    let is_owned = |device: &Device| {
        let parts = owned.devices.iter();
        owned.devices.contains(device)
            || (device.instance.is_none() && parts.clone().any(|own| own.gpu == device.gpu))
    };
    let mut chosen = BTreeSet::new();
    for one in asked {
        let devices = devices_of(inventory, &one.nodes);
        let has_any = devices.iter().any(is_owned);
        if devices.iter().any(|device| !is_owned(device)) && !(one.is_all && has_any) {
            return Err(GpuError::DeviceNotOwned {
                asked: one.words.clone(),
                wanted: inventory.words_of(&devices),
                owned: inventory.words_of(&owned.devices),
                reason: owned.reason.clone(),
            });
        }
        chosen.extend(devices.into_iter().filter(is_owned));
    }
    let foreign = if chosen.is_empty() { BTreeSet::new() } else { foreign_nodes(inventory, &chosen) };
    grants.nodes.retain(|node| !foreign.contains(&node.source));
    note_unusable(grants, root);
    let devices: Vec<Device> = chosen.into_iter().collect();
    if devices.is_empty() {
        return Ok(Chosen::default());
    }
    let others = owned.others.iter().filter(|_| asked.iter().any(|one| one.is_all));
    grants
        .notes
        .extend(others.map(|(device, why)| format!("{} is not inside: {why}", inventory.name_of(*device))));
    if devices.iter().any(|device| device.instance.is_some()) {
        mig::hide_others(grants);
    }
    for device in &devices {
        if let (Some(gpu), Some(instance)) = (inventory.gpus.get(device.gpu), inventory.instance(*device)) {
            mig::add_instance(grants, gpu, instance, root);
        }
    }
    let visible_devices = visible::inside(inventory, owned, &devices, &devices);
    for (name, value) in &visible_devices {
        grants
            .notes
            .push(format!("{name} becomes `{value}`: the container has fewer GPUs than the host shows"));
    }
    visible::grant(grants, &visible_devices);
    Ok(Chosen { devices, visible_devices, ..Chosen::default() })
}

/// The GPUs and instances that nodes of the host are of.
fn devices_of(inventory: &Inventory, nodes: &[PathBuf]) -> Vec<Device> {
    let mut found = Vec::new();
    for (place, _) in inventory.gpus.iter().enumerate().filter(|(_, gpu)| nodes.contains(&gpu.node)) {
        let is_inside = |device: &Device| {
            inventory.instance(*device).is_some_and(|instance| {
                let own: Vec<PathBuf> = instance.capability_nodes().collect();
                own.len() == 2 && own.iter().all(|node| nodes.contains(node))
            })
        };
        let parts: Vec<Device> = inventory.devices_of(place).into_iter().filter(is_inside).collect();
        if parts.is_empty() { found.push(Device::whole(place)) } else { found.extend(parts) }
    }
    found
}

/// Tells of nodes that are inside and of no use. Capability nodes are only read.
fn note_unusable(grants: &mut Grants, root: &HostRoot) {
    for node in &grants.nodes {
        let is_capability = node.source.starts_with("/dev/nvidia-caps");
        let answer =
            if is_capability { root.node_readable(&node.source) } else { root.node_access(&node.source) };
        if answer != NodeAccess::Open {
            let place = node.target.display();
            grants.notes.push(format!("`{place}` is inside, but cannot be used: {}", answer.reason()));
        }
    }
}

/// Nodes of GPUs and instances that were not chosen.
fn foreign_nodes(inventory: &Inventory, chosen: &BTreeSet<Device>) -> BTreeSet<PathBuf> {
    let nodes = |device: Device| {
        let gpu = inventory.gpus.get(device.gpu).map(|gpu| gpu.node.clone());
        let instance = inventory.instance(device).into_iter();
        gpu.into_iter().chain(instance.flat_map(|instance| instance.capability_nodes().collect::<Vec<_>>()))
    };
    let own: BTreeSet<PathBuf> = chosen.iter().copied().flat_map(nodes).collect();
    inventory.devices().into_iter().flat_map(nodes).filter(|node| !own.contains(node)).collect()
}

/// Has the image's loader find the libraries of `grants`, however many providers they come from.
pub fn add_loader_facts(grants: &mut Grants, image: &ImageLibc) {
    grants.files.retain(|file| file.target != Path::new(libs::LOADER_CACHE));
    grants.env.retain(|(name, _)| name != "LD_LIBRARY_PATH");
    inside::add_loader_facts(grants, image);
}

/// All devices of the host as a specification; `None` without a vendor for whose devices there is one.
#[must_use]
pub fn spec(inventory: &Inventory, root: &HostRoot) -> Option<Spec> {
    vendor_of(inventory)?.cdi_spec(inventory, root)
}
