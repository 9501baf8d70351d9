//! Which GPUs are the job's, and which of them a container gets. Pure.
//!
//! The rule (ARCHITECTURE.md, D19): where the kernel denies some nodes, the job owns those that it allows. Where it
//! denies none, the scheduler does not fence the devices, and its variables say what is the job's, as node-wide
//! indices. Outside a job, everything that can be used.

use crate::grants::JobGpus;

use super::{Access, Capabilities, GpuError, GpuRequest, Inventory, NodeAccess, Selection, VENDORS};

/// The GPUs that this process may use and should use, as places in [`Inventory::gpus`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// The GPUs, in order.
    pub gpus: Vec<usize>,
    /// Which rule decided.
    pub reason: String,
    /// The other GPUs, each with why it is not ours.
    pub others: Vec<(usize, String)>,
    /// All whose nodes can be used: what CUDA would see on the host.
    pub usable: Vec<usize>,
    /// The GPUs of CUDA_VISIBLE_DEVICES in its order; `None` if it is unset or names something unknown.
    pub visible: Option<Vec<usize>>,
}

/// The GPUs that a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Places in [`Inventory::gpus`], in order.
    pub gpus: Vec<usize>,
    /// Parts of the driver.
    pub capabilities: Capabilities,
    /// What CUDA_VISIBLE_DEVICES must be inside; `None` to leave it as it is.
    pub visible_devices: Option<String>,
    /// Why each GPU is, or is not, inside.
    pub notes: Vec<String>,
}

/// Decides which GPUs are the job's.
#[must_use]
pub fn granted(inventory: &Inventory, job: &JobGpus, access: &Access) -> Owned {
    let answer = |place: usize| {
        inventory
            .gpus
            .get(place)
            .and_then(|gpu| access.get(&gpu.node))
            .copied()
            .unwrap_or(NodeAccess::Missing)
    };
    let all = 0..inventory.gpus.len();
    let usable: Vec<usize> = all.clone().filter(|place| answer(*place) == NodeAccess::Open).collect();
    let is_fenced = all.clone().any(|place| answer(place).is_denied());
    let numbering = Numbering {
        inventory,
        minors: job.minors.as_deref().filter(|_| !is_fenced),
        // In a fence CUDA counts what is inside it; the scheduler's own variables are never read there.
        counted: if is_fenced { &usable } else { &all.clone().collect::<Vec<_>>() },
    };
    let (named, reason) = if inventory.gpus.is_empty() {
        (Vec::new(), "there is no GPU".to_owned())
    } else if is_fenced {
        let reason =
            if usable.is_empty() { "the kernel denies every GPU" } else { "the kernel denies the others" };
        (usable.clone(), format!("{reason}: {}", denials(inventory, access)))
    } else {
        named_by_job(job, &numbering, &all.clone().collect::<Vec<_>>())
    };
    let gpus: Vec<usize> = usable.iter().copied().filter(|place| named.contains(place)).collect();
    let others = all
        .filter(|place| !gpus.contains(place))
        .map(|place| {
            let why = match answer(place) {
                NodeAccess::Open => reason.clone(),
                denied => denied.reason().to_owned(),
            };
            (place, why)
        })
        .collect();
    let visible = job.visible.as_deref().and_then(|list| numbering.resolve(list).ok());
    Owned { gpus, reason, others, usable, visible }
}

fn named_by_job(job: &JobGpus, numbering: &Numbering<'_>, all: &[usize]) -> (Vec<usize>, String) {
    if !job.in_job {
        return (all.to_vec(), "not in a job, so every GPU that can be used".into());
    }
    let sources = [
        ("SLURM_STEP_GPUS", &job.step),
        ("SLURM_JOB_GPUS", &job.job),
        ("CUDA_VISIBLE_DEVICES", &job.visible),
    ];
    for (name, value) in sources {
        let Some(value) = value else { continue };
        return match numbering.resolve(value) {
            Ok(named) => (named, format!("{name}={value}")),
            Err(unknown) => (Vec::new(), format!("{name}={value}, where `{unknown}` is no GPU of this node")),
        };
    }
    let reason = "the job was given none: SLURM_STEP_GPUS, SLURM_JOB_GPUS and CUDA_VISIBLE_DEVICES are unset";
    (Vec::new(), reason.into())
}

fn denials(inventory: &Inventory, access: &Access) -> String {
    let mut reasons: Vec<&str> = inventory
        .gpus
        .iter()
        .filter_map(|gpu| access.get(&gpu.node))
        .filter(|answer| answer.is_denied())
        .map(|answer| answer.reason())
        .collect();
    reasons.dedup();
    reasons.join("; ")
}

/// How the numbers of a list of GPUs are meant.
struct Numbering<'a> {
    inventory: &'a Inventory,
    /// The minor of each number, by the scheduler's configuration.
    minors: Option<&'a [u32]>,
    /// The GPU of each number otherwise.
    counted: &'a [usize],
}

impl Numbering<'_> {
    /// The GPUs of `0,2`, `0-3` or `GPU-3f…`, or the item that is none. Slurm's words for no device give an empty list.
    fn resolve(&self, list: &str) -> Result<Vec<usize>, String> {
        let mut found = Vec::new();
        for item in list.split(',').map(str::trim).filter(|item| !matches!(*item, "" | "-1" | "NoDevFiles")) {
            let numbers =
                match item.split_once('-').map(|(low, high)| (low.parse::<u32>(), high.parse::<u32>())) {
                    Some((Ok(low), Ok(high))) if low <= high && high - low < 4096 => (low..=high).collect(),
                    _ => item.parse::<u32>().map(|number| vec![number]).unwrap_or_default(),
                };
            let places: Option<Vec<usize>> = if numbers.is_empty() {
                by_uuid(self.inventory, item).map(|place| vec![place])
            } else {
                numbers.into_iter().map(|number| self.by_number(number)).collect()
            };
            for place in places.ok_or_else(|| item.to_owned())? {
                if !found.contains(&place) {
                    found.push(place);
                }
            }
        }
        Ok(found)
    }

    fn by_number(&self, number: u32) -> Option<usize> {
        let number = usize::try_from(number).ok()?;
        match self.minors {
            Some(minors) => {
                let minor = minors.get(number)?;
                self.inventory.gpus.iter().position(|gpu| gpu.minor == *minor)
            }
            None => self.counted.get(number).copied(),
        }
    }
}

/// The one GPU whose UUID begins with `text`; CUDA takes the beginning of a UUID too.
fn by_uuid(inventory: &Inventory, text: &str) -> Option<usize> {
    let text = text.to_ascii_lowercase();
    if text.len() <= 4 || !text.starts_with("gpu-") {
        return None;
    }
    let matches = |uuid: &String| uuid.to_ascii_lowercase().starts_with(&text);
    let mut found = (0..).zip(&inventory.gpus).filter(|(_, gpu)| gpu.uuid.as_ref().is_some_and(matches));
    let (place, _) = found.next()?;
    found.next().is_none().then_some(place)
}

/// Decides which of the job's GPUs the container gets, or says why the request cannot be met.
pub fn select(inventory: &Inventory, owned: &Owned, request: &GpuRequest) -> Result<Chosen, GpuError> {
    let asked = request.selection.to_string();
    let empty = |note: String| Ok(Chosen { notes: vec![note], ..Chosen::default() });
    let is_soft = matches!(request.selection, Selection::Job | Selection::None);
    if inventory.gpus.is_empty() {
        let reason = match &inventory.vendor {
            Some(vendor) => format!("the {vendor} driver is loaded and shows no GPU"),
            None => VENDORS.iter().map(|vendor| vendor.why_absent()).collect::<Vec<_>>().join("; "),
        };
        return if is_soft {
            empty(format!("no GPU: {reason}"))
        } else {
            Err(GpuError::NoDriver { asked, reason })
        };
    }
    if request.selection == Selection::None {
        return empty("no GPU: --gpus none".into());
    }
    if owned.gpus.is_empty() {
        let reason = owned.reason.clone();
        return if is_soft {
            empty(format!("no GPU: {reason}"))
        } else {
            Err(GpuError::NoneOwned { asked, reason })
        };
    }
    let not_owned = |wanted: String| GpuError::NotOwned {
        asked: asked.clone(),
        wanted,
        owned: words(inventory, &owned.gpus),
        reason: owned.reason.clone(),
    };
    let gpus = match &request.selection {
        Selection::Job | Selection::None | Selection::All => owned.gpus.clone(),
        Selection::Count(count) => {
            let wanted = usize::try_from(*count).ok().and_then(|count| owned.gpus.get(..count));
            wanted.ok_or_else(|| not_owned(format!("{count} GPUs")))?.to_vec()
        }
        Selection::Devices(devices) => {
            let wanted = find_devices(inventory, devices, &asked)?;
            if wanted.iter().any(|place| !owned.gpus.contains(place)) {
                return Err(not_owned(words(inventory, &wanted)));
            }
            wanted
        }
    };
    let (visible_devices, note) = visible_inside(inventory, owned, &gpus);
    let mut notes: Vec<String> = Vec::new();
    for (place, gpu) in (0..).zip(&inventory.gpus) {
        let name = format!("GPU {} ({})", gpu.index, gpu.node.display());
        notes.push(match owned.others.iter().find(|(other, _)| *other == place) {
            _ if gpus.contains(&place) => format!("{name} is inside: {}", inside_because(owned, &asked)),
            Some((_, why)) => format!("{name} is not inside: {why}"),
            None => format!("{name} is not inside: --gpus {asked} leaves it out"),
        });
    }
    notes.extend(note);
    Ok(Chosen { gpus, capabilities: request.capabilities.clone(), visible_devices, notes })
}

fn inside_because(owned: &Owned, asked: &str) -> String {
    if asked == "job" { owned.reason.clone() } else { format!("--gpus {asked}; {}", owned.reason) }
}

/// Devices are named by the indices of `slipway gpus`, which are node-wide, or by UUID.
fn find_devices(inventory: &Inventory, devices: &[String], asked: &str) -> Result<Vec<usize>, GpuError> {
    let all: Vec<usize> = (0..inventory.gpus.len()).collect();
    let numbering = Numbering { inventory, minors: None, counted: &all };
    let mut found = Vec::new();
    for device in devices {
        match numbering.resolve(device) {
            Ok(places) if !places.is_empty() => found.extend(places),
            _ => {
                return Err(GpuError::NoSuchGpu {
                    asked: asked.to_owned(),
                    device: device.clone(),
                    present: words(inventory, &all),
                });
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// What CUDA_VISIBLE_DEVICES must say inside. It is left alone while the container has every GPU that CUDA sees on the
/// host; with fewer its numbers would mean other GPUs, or none, so it becomes UUIDs, which mean the same everywhere.
fn visible_inside(
    inventory: &Inventory,
    owned: &Owned,
    chosen: &[usize],
) -> (Option<String>, Option<String>) {
    let Some(visible) = owned.visible.as_deref().filter(|visible| !visible.is_empty()) else {
        return (None, None);
    };
    if owned.usable == chosen {
        return (None, None);
    }
    let kept: Vec<usize> = visible.iter().copied().filter(|place| chosen.contains(place)).collect();
    let kept = if kept.is_empty() { chosen.to_vec() } else { kept };
    let uuids: Option<Vec<String>> =
        kept.iter().map(|place| inventory.gpus.get(*place)?.uuid.clone()).collect();
    let value = uuids.unwrap_or_else(|| {
        let inside = kept.iter().filter_map(|place| chosen.iter().position(|other| other == place));
        inside.map(|place| place.to_string()).collect()
    });
    let value = value.join(",");
    let note =
        format!("CUDA_VISIBLE_DEVICES becomes `{value}`: the container has fewer GPUs than the host shows");
    (Some(value), Some(note))
}

/// `GPU 0, 2`, by index.
fn words(inventory: &Inventory, places: &[usize]) -> String {
    let numbers: Vec<String> = places
        .iter()
        .filter_map(|place| inventory.gpus.get(*place))
        .map(|gpu| gpu.index.to_string())
        .collect();
    if numbers.is_empty() { "no GPU".into() } else { format!("GPU {}", numbers.join(", ")) }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
