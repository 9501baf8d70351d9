//! What a container sees of `/proc/driver/nvidia`: its own GPUs.
//!
//! Where all GPUs of the node are inside there is nothing to hide, and the host's is left: a mount over a part of `/proc`
//! has a price (ARCHITECTURE.md), and what it would keep the driver's libraries from doing, the kernel refuses anyway.

use std::path::{Path, PathBuf};

use crate::cdi::{DRIVER_PARAMS, params_without_making_nodes};
use crate::grants::{BindGrant, FileGrant, Grants};

use super::super::{Chosen, HostRoot, Inventory};
use super::procfs::GPUS;

/// Has the driver's libraries make nodes that are missing; a container has those that it is meant to have.
const MAKES_NODES: &str = "ModifyDeviceFiles: 1";

pub(super) fn reduce(grants: &mut Grants, inventory: &Inventory, chosen: &Chosen, root: &HostRoot) {
    let inside = chosen.all_gpus();
    if !root.exists(Path::new(GPUS)) {
        return;
    }
    if inside.len() == inventory.gpus.len() {
        grants.notes.push("`/proc/driver/nvidia` is the host's: all GPUs of the node are inside".into());
        return;
    }
    let why = "only the GPUs that are inside";
    grants.reasons.insert(GPUS.into(), why.into());
    grants.hidden.push(GPUS.into());
    for address in inside.iter().filter_map(|place| inventory.gpus.get(*place)?.pci_address.as_deref()) {
        let target = PathBuf::from(format!("{GPUS}/{address}"));
        if root.exists(&target) {
            grants.reasons.insert(target.to_string_lossy().into_owned(), "a GPU that is inside".into());
            let source = root.place(&target);
            grants.binds.push(BindGrant { source, target, read_only: true, directory: true });
        }
    }
    grants.notes.push(format!("`{GPUS}` shows only the GPUs that are inside"));
    let Some(parameters) = root.read(DRIVER_PARAMS).filter(|text| text.contains(MAKES_NODES)) else { return };
    let content = params_without_making_nodes(&parameters).into_bytes();
    let why = "the driver's libraries must not try to make nodes (ModifyDeviceFiles: 0)";
    grants.reasons.insert(DRIVER_PARAMS.into(), why.into());
    grants.notes.push(format!("`{DRIVER_PARAMS}` is a copy: {why}"));
    grants.files.push(FileGrant { target: DRIVER_PARAMS.into(), content, mode: 0o444 });
}
