//! The variables by which a vendor's runtime is told which GPUs a program sees: what they name on the host, and what they
//! must say inside. Pure.
//!
//! They are left alone while the container has every GPU that the runtime sees on the host. With fewer, their numbers
//! would mean other GPUs, or none. What one variable leaves is numbered anew by those within it:
//!
//! ```text
//! nodes that can be used ── ROCR_VISIBLE_DEVICES ──▶ a list ── HIP_VISIBLE_DEVICES ──▶ what the program sees
//! ```

use crate::grants::{Grants, JobGpus};

use super::select::{Numbering, gpus_of};
use super::{Device, Inventory, Owned, nvidia, vendor_of};

/// The variables of one vendor's runtime.
#[derive(Debug)]
pub struct VisibleVariables {
    /// The one that chooses from all GPUs.
    pub outer: &'static str,
    /// Those that choose from what `outer` has left.
    pub inner: &'static [&'static str],
    /// How `outer` names GPUs inside.
    pub names: Names,
}

/// How a GPU is named inside a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// By UUIDs, which mean the same everywhere; by numbers where one is not known.
    Uuids,
    /// By its place among the GPUs of the container.
    Numbers,
    /// As on the host: the variable is no business of what runs inside.
    AsOnTheHost,
}

impl VisibleVariables {
    /// Their names, the outer one first.
    pub fn all(&self) -> impl Iterator<Item = &'static str> {
        [self.outer].into_iter().chain(self.inner.iter().copied())
    }
}

/// What a variable names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// Its name.
    pub variable: &'static str,
    /// In its order.
    pub items: Vec<VisibleItem>,
    /// Whether its numbers count tiles.
    pub counts_tiles: bool,
}

/// One item of such a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisibleItem {
    /// The GPU or MIG instance.
    pub device: Device,
    /// A part of it: Intel's tile.
    pub tile: Option<u32>,
}

/// The variables of the inventory's vendor.
pub(super) fn variables_of(inventory: &Inventory) -> &'static VisibleVariables {
    vendor_of(inventory).map_or(&nvidia::VISIBLE, |vendor| vendor.visible_variables())
}

/// What the variables of the job name. One that is unset, empty or unknown in a part is left out.
pub(super) fn resolve(job: &JobGpus, numbering: &Numbering<'_>) -> Vec<Visible> {
    let inventory = numbering.inventory;
    let variables = variables_of(inventory);
    let read = |variable: &'static str, numbering: &Numbering<'_>| {
        let items = items(job.variable(variable)?, job, numbering).ok()?;
        let is_empty = items.is_empty();
        (!is_empty).then_some(Visible { variable, items, counts_tiles: job.counts_tiles })
    };
    let Some(outer) = read(variables.outer, numbering) else {
        return variables.inner.iter().filter_map(|name| read(name, numbering)).collect();
    };
    let counted: Vec<usize> = outer.items.iter().map(|item| item.device.gpu).collect();
    let within = Numbering { inventory, minors: None, counted: &counted };
    let inner = variables.inner.iter().filter_map(|name| {
        // Slurm sets all variables to one list of node-wide numbers, by which the inner ones name nothing.
        let same = || job.variable(name) == job.variable(variables.outer);
        read(name, &within).or_else(|| same().then(|| Visible { variable: name, ..outer.clone() }))
    });
    [outer.clone()].into_iter().chain(inner).collect()
}

/// The devices of a variable's value, or the item that is none.
pub(super) fn devices(value: &str, job: &JobGpus, numbering: &Numbering<'_>) -> Result<Vec<Device>, String> {
    let mut found = Vec::new();
    for item in items(value, job, numbering)? {
        if !found.contains(&item.device) {
            found.push(item.device);
        }
    }
    Ok(found)
}

/// The items of `0,2`, `GPU-3f…`, `0.1` (the second tile of the first GPU), or of tiles that are counted through.
fn items(value: &str, job: &JobGpus, numbering: &Numbering<'_>) -> Result<Vec<VisibleItem>, String> {
    if value == "all" && variables_of(numbering.inventory).names == Names::AsOnTheHost {
        let devices = numbering.counted.iter().map(|gpu| Device::whole(*gpu));
        return Ok(devices.map(|device| VisibleItem { device, tile: None }).collect());
    }
    let tiles = tiles(numbering.inventory, numbering.counted);
    let mut found = Vec::new();
    for item in value.split(',').map(str::trim) {
        let whole = |devices: Vec<Device>| {
            let devices = devices.into_iter();
            devices.map(|device| VisibleItem { device, tile: None }).collect::<Vec<_>>()
        };
        let items = match (item.parse::<usize>(), split_tile(item)) {
            (Ok(number), _) if job.counts_tiles && !tiles.is_empty() => {
                tiles.get(number).map(|item| vec![*item])
            }
            (_, Some((gpu, tile))) => numbering.resolve(gpu).ok().map(|devices| {
                let devices = devices.into_iter();
                devices.map(|device| VisibleItem { device, tile: Some(tile) }).collect()
            }),
            _ => numbering.resolve(item).ok().map(whole),
        };
        let items = items.ok_or_else(|| item.to_owned())?;
        found.extend(items.into_iter().filter(|item| !found.contains(item)).collect::<Vec<_>>());
    }
    Ok(found)
}

fn split_tile(item: &str) -> Option<(&str, u32)> {
    let (gpu, tile) = item.split_once('.')?;
    gpu.parse::<u32>().ok()?;
    Some((gpu, tile.parse().ok()?))
}

/// The tiles of GPUs, counted through; none where no GPU has tiles.
fn tiles(inventory: &Inventory, gpus: &[usize]) -> Vec<VisibleItem> {
    let all = gpus.iter().filter_map(|place| Some((*place, inventory.gpus.get(*place)?.tiles?)));
    let all = all.flat_map(|(gpu, count)| (0..count).map(move |tile| (Device::whole(gpu), tile)));
    all.map(|(device, tile)| VisibleItem { device, tile: Some(tile) }).collect()
}

/// What the variables must say in a container where the runtime sees the devices `inside`, to name those of them that are
/// `chosen`; none to leave them alone.
pub(super) fn inside(
    inventory: &Inventory,
    owned: &Owned,
    chosen: &[Device],
    inside: &[Device],
) -> Vec<(&'static str, String)> {
    let variables = variables_of(inventory);
    if owned.usable == inside || variables.names == Names::AsOnTheHost {
        return Vec::new();
    }
    let mut within = inside.to_vec();
    let mut values = Vec::new();
    for visible in &owned.visible {
        let is_outer = visible.variable == variables.outer;
        let is_kept = |item: &&VisibleItem| chosen.contains(&item.device);
        let mut kept: Vec<VisibleItem> = visible.items.iter().filter(is_kept).copied().collect();
        if kept.is_empty() {
            let left = within.iter().filter(|device| chosen.contains(device));
            kept = left.map(|device| VisibleItem { device: *device, tile: None }).collect();
        }
        let uuids = || kept.iter().map(|item| inventory.uuid_of(item.device)).collect::<Option<Vec<_>>>();
        let uuids = (is_outer && variables.names == Names::Uuids).then(uuids).flatten();
        let value = uuids.unwrap_or_else(|| numbers(inventory, &kept, &within, visible.counts_tiles));
        values.push((visible.variable, value.join(",")));
        if is_outer {
            within = kept.iter().map(|item| item.device).collect();
            within.dedup();
        }
    }
    values
}

/// Has the variables say inside what [`inside`] found.
pub(super) fn grant(grants: &mut Grants, variables: &[(&'static str, String)]) {
    for (name, value) in variables {
        grants.reasons.insert((*name).into(), "the step's choice, in numbers of the inside".into());
        grants.env.push(((*name).into(), value.clone()));
    }
}

/// The places of devices in a list of all.
fn numbers(
    inventory: &Inventory,
    items: &[VisibleItem],
    within: &[Device],
    counts_tiles: bool,
) -> Vec<String> {
    let tiles = if counts_tiles { tiles(inventory, &gpus_of(within)) } else { Vec::new() };
    let mut numbers = Vec::new();
    for item in items {
        if tiles.is_empty() {
            let place = within.iter().position(|device| *device == item.device);
            let tile = item.tile.map_or_else(String::new, |tile| format!(".{tile}"));
            numbers.extend(place.map(|place| format!("{place}{tile}")));
        } else {
            let is_meant =
                |tile: &VisibleItem| tile == item || (item.tile.is_none() && tile.device == item.device);
            let places = tiles.iter().enumerate().filter(|(_, tile)| is_meant(tile));
            numbers.extend(places.map(|(place, _)| place.to_string()));
        }
    }
    numbers
}

#[cfg(test)]
#[path = "visible_tests.rs"]
mod tests;
