//! Which GPUs are the job's, and which of them a container gets. Pure.
//!
//! The rule (ARCHITECTURE.md, D19): where the kernel denies some nodes, the job owns those that it allows. Where it
//! denies none, the scheduler does not fence the devices, and its variables say what is the job's, as node-wide
//! indices. Outside a job, everything that can be used.

use crate::grants::{JobGpus, Trouble};

use super::inventory::{canonical_address, device_access};
use super::mig::WITHOUT_INSTANCES;
use super::visible::{self, Visible, variables_of};
use super::{Access, Capabilities, Device, GpuError, GpuRequest, Inventory, NodeAccess, Selection};
use super::{why_no_vendor, without_gpus};

/// The GPUs that this process may use and should use, as places in [`Inventory::gpus`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    /// Whole GPUs and MIG instances, in order.
    pub devices: Vec<Device>,
    /// Which rule decided.
    pub reason: String,
    /// The other devices, each with why it is not ours.
    pub others: Vec<(Device, String)>,
    /// All whose nodes can be used: what CUDA would see on the host.
    pub usable: Vec<Device>,
    /// What the job was given by name, and whose nodes cannot be used though nobody denies them.
    pub broken: Vec<Device>,
    /// The variable by which the scheduler gives the job GPUs (`SLURM_STEP_GPUS=0`).
    pub promise: Option<String>,
    /// What to do where nothing is owned; see [`super::explain_lack`].
    pub remedy: Option<String>,
    /// What is wrong with the job's devices; see [`super::explain_lack`].
    pub troubles: Vec<Trouble>,
    /// What the variables of the vendor's runtime name; those that are unset or name something unknown are left out.
    pub visible: Vec<Visible>,
}

/// The GPUs that a container gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Whole GPUs and MIG instances, in order.
    pub devices: Vec<Device>,
    /// Parts of the driver.
    pub capabilities: Capabilities,
    /// What the variables of the vendor's runtime must be inside; none to leave them as they are.
    pub visible_devices: Vec<(&'static str, String)>,
    /// Why each GPU is, or is not, inside.
    pub notes: Vec<String>,
    /// What is wrong with the job's devices.
    pub troubles: Vec<Trouble>,
}

impl Chosen {
    /// True if nothing was chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// All GPUs that are inside, whole or in part, in order.
    #[must_use]
    pub fn all_gpus(&self) -> Vec<usize> {
        gpus_of(&self.devices)
    }
}

/// The GPUs of devices that are in order, each once.
pub(super) fn gpus_of(devices: &[Device]) -> Vec<usize> {
    let mut all: Vec<usize> = devices.iter().map(|device| device.gpu).collect();
    all.dedup();
    all
}

/// Decides which GPUs are the job's.
#[must_use]
pub fn granted(inventory: &Inventory, job: &JobGpus, access: &Access) -> Owned {
    let answer = |device: Device| device_access(inventory, access, device);
    let all = inventory.devices();
    let is_usable =
        |device: &Device| answer(*device) == NodeAccess::Open && !inventory.is_without_instances(*device);
    let usable: Vec<Device> = all.iter().copied().filter(is_usable).collect();
    let is_fenced = all.iter().any(|device| answer(*device).is_denied());
    let counted = gpus_of(if is_fenced { &usable } else { &all });
    let numbering = Numbering {
        inventory,
        minors: job.minors.as_deref().filter(|_| !is_fenced),
        // In a fence CUDA counts what is inside it; the scheduler's own variables are never read there.
        counted: &counted,
    };
    // A runtime does not see a GPU without a node, as in a container: the scheduler's indices count it all the same.
    let present: Vec<Device> =
        all.iter().copied().filter(|device| answer(*device) != NodeAccess::Missing).collect();
    let present = if is_fenced { counted.clone() } else { gpus_of(&present) };
    let runtime = Numbering { counted: &present, ..numbering };
    let (named, mut reason) = if inventory.gpus.is_empty() {
        (Vec::new(), "there is no GPU".to_owned())
    } else if inventory.is_undivided() {
        (all.clone(), "WSL has one device for all GPUs of Windows".to_owned())
    } else if is_fenced {
        let reason =
            if usable.is_empty() { "the kernel denies every GPU" } else { "the kernel denies the others" };
        (usable.clone(), format!("{reason}: {}", denials(&all, answer)))
    } else {
        named_by_job(job, &numbering, &runtime, &all)
    };
    let devices: Vec<Device> = usable.iter().copied().filter(|device| named.contains(device)).collect();
    if devices.is_empty()
        && let Some(device) = named.iter().find(|device| inventory.is_without_instances(**device))
    {
        reason = format!("{reason}; {}: {WITHOUT_INSTANCES}", inventory.name_of(*device));
    }
    let others = all
        .iter()
        .filter(|device| !devices.contains(device))
        .map(|device| {
            let why = match answer(*device) {
                NodeAccess::Open if inventory.is_without_instances(*device) => WITHOUT_INSTANCES.to_owned(),
                NodeAccess::Open => reason.clone(),
                denied => denied.reason().to_owned(),
            };
            (*device, why)
        })
        .collect();
    let visible = if inventory.is_undivided() { Vec::new() } else { visible::resolve(job, &runtime) };
    let is_broken =
        |device: &Device| !matches!(answer(*device), NodeAccess::Open) && !answer(*device).is_denied();
    let broken = named.iter().copied().filter(is_broken).collect();
    Owned {
        devices,
        reason,
        others,
        usable,
        broken,
        promise: promise(job),
        remedy: None,
        troubles: Vec::new(),
        visible,
    }
}

/// The step's own variables count: a step that was given none still has SLURM_JOB_GPUS.
fn promise(job: &JobGpus) -> Option<String> {
    let is_some = |list: &&str| list.split(',').any(|item| !matches!(item.trim(), "" | "-1" | "NoDevFiles"));
    let sources = [("SLURM_STEP_GPUS", &job.step), ("CUDA_VISIBLE_DEVICES", &job.visible)];
    let mut given =
        sources.iter().filter_map(|(name, value)| Some((name, value.as_deref().filter(is_some)?)));
    given.next().filter(|_| job.in_job).map(|(name, value)| format!("{name}={value}"))
}

/// Whether a start must ask NVML, which alone knows the names and the order of MIG instances. Never so on a node without
/// MIG, nor where an earlier start on this boot has kept the answer.
#[must_use]
pub fn needs_nvml(inventory: &Inventory, job: &JobGpus, request: &GpuRequest) -> bool {
    let devices = match &request.selection {
        Selection::None => return false,
        Selection::Devices(devices) => devices.join(","),
        _ => String::new(),
    };
    let instances = || inventory.gpus.iter().flat_map(|gpu| &gpu.instances);
    // What was kept of a GPU without instances may have changed since.
    let is_doubtful = (0..inventory.gpus.len()).any(|gpu| inventory.is_without_instances(Device::whole(gpu)));
    if instances().next().is_none() {
        return is_doubtful;
    }
    let visible = job.visible.as_deref().unwrap_or_default();
    let names_some = !devices.is_empty() || !visible.is_empty();
    let is_unknown = |word: &str| is_mig(word) && inventory.find_instance(word).is_none();
    is_doubtful
        || (names_some && instances().any(|instance| instance.uuid.is_none()))
        || [devices.as_str(), visible].iter().any(|list| list.split(',').map(str::trim).any(is_unknown))
}

fn is_mig(word: &str) -> bool {
    word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("mig-"))
}

fn named_by_job(
    job: &JobGpus,
    numbering: &Numbering<'_>,
    runtime: &Numbering<'_>,
    all: &[Device],
) -> (Vec<Device>, String) {
    if !job.in_job {
        return (all.to_vec(), "not in a job, so every GPU that can be used".into());
    }
    let mut sources = vec![("SLURM_STEP_GPUS", job.step.as_deref()), ("SLURM_JOB_GPUS", job.job.as_deref())];
    let variables = variables_of(numbering.inventory);
    sources.extend(variables.all().map(|name| (name, job.variable(name))));
    // Slurm counts instances and GPUs together in its numbers, in an order of its own; their UUIDs say what is meant.
    if job.visible.as_deref().is_some_and(|list| list.split(',').any(|word| is_mig(word.trim()))) {
        sources.swap(0, 2);
    }
    for (name, value) in sources {
        let Some(value) = value else { continue };
        let named = match name {
            "SLURM_STEP_GPUS" | "SLURM_JOB_GPUS" => numbering.resolve(value),
            _ => visible::devices(value, job, runtime),
        };
        return match named {
            Ok(named) => (named, format!("{name}={value}")),
            Err(unknown) => (Vec::new(), format!("{name}={value}, where `{unknown}` is no GPU of this node")),
        };
    }
    let mut names: Vec<&str> =
        ["SLURM_STEP_GPUS", "SLURM_JOB_GPUS"].into_iter().chain(variables.all()).collect();
    let last = names.pop().unwrap_or_default();
    let reason = format!("the job was given none: {} and {last} are unset", names.join(", "));
    (Vec::new(), reason)
}

fn denials(all: &[Device], answer: impl Fn(Device) -> NodeAccess) -> String {
    let answers = all.iter().map(|device| answer(*device));
    let mut reasons: Vec<&str> =
        answers.filter(|answer| answer.is_denied()).map(NodeAccess::reason).collect();
    reasons.dedup();
    reasons.join("; ")
}

/// How the numbers of a list of GPUs are meant.
pub(super) struct Numbering<'a> {
    pub(super) inventory: &'a Inventory,
    /// The minor of each number, by the scheduler's configuration.
    pub(super) minors: Option<&'a [u32]>,
    /// The GPU of each number otherwise.
    pub(super) counted: &'a [usize],
}

impl Numbering<'_> {
    /// The devices of `0,2`, `0-3`, `GPU-3f…`, `0000:1b:00.0`, `MIG-3f…` or `0:1`, or the item that is none. A divided GPU is all its
    /// instances. Slurm's words for no device give an empty list.
    pub(super) fn resolve(&self, list: &str) -> Result<Vec<Device>, String> {
        let mut found = Vec::new();
        for item in list.split(',').map(str::trim).filter(|item| !matches!(*item, "" | "-1" | "NoDevFiles")) {
            let numbers =
                match item.split_once('-').map(|(low, high)| (low.parse::<u32>(), high.parse::<u32>())) {
                    Some((Ok(low), Ok(high))) if low <= high && high - low < 4096 => (low..=high).collect(),
                    _ => item.parse::<u32>().map(|number| vec![number]).unwrap_or_default(),
                };
            let places: Option<Vec<usize>> = if numbers.is_empty() {
                by_uuid(self.inventory, item)
                    .map(|place| vec![place])
                    .or_else(|| by_address(self.inventory, item))
            } else {
                numbers.into_iter().map(|number| self.by_number(number)).collect()
            };
            let instance = || self.inventory.find_instance(item).map(|device| vec![device]);
            let devices = places
                .map(|places| places.into_iter().flat_map(|gpu| self.inventory.devices_of(gpu)).collect())
                .or_else(instance);
            for device in devices.ok_or_else(|| item.to_owned())? {
                if !found.contains(&device) {
                    found.push(device);
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

/// The GPUs at a PCI address, which partitions share.
fn by_address(inventory: &Inventory, text: &str) -> Option<Vec<usize>> {
    let address = canonical_address(text)?;
    let places = inventory.gpus.iter().enumerate();
    let found: Vec<usize> = places
        .filter(|(_, gpu)| gpu.pci_address.as_ref() == Some(&address))
        .map(|(place, _)| place)
        .collect();
    (!found.is_empty()).then_some(found)
}

/// Decides which of the job's GPUs the container gets, or says why the request cannot be met.
pub fn select(inventory: &Inventory, owned: &Owned, request: &GpuRequest) -> Result<Chosen, GpuError> {
    let asked = request.selection.to_string();
    let empty = |note: String| {
        let troubles = match request.selection {
            Selection::None => Vec::new(),
            _ => owned.troubles.clone(),
        };
        Ok(Chosen { notes: vec![note], troubles, ..Chosen::default() })
    };
    let is_soft = matches!(request.selection, Selection::Job | Selection::None);
    let other = request.vendor.as_ref().filter(|wanted| Some(*wanted) != inventory.vendor.as_ref());
    if inventory.gpus.is_empty() || other.is_some() {
        let reason = match &inventory.vendor {
            Some(vendor) if other.is_some() => format!("its GPUs are of the {vendor} driver"),
            _ if owned.remedy.is_some() => owned.reason.clone(),
            Some(vendor) => without_gpus(vendor),
            None => why_no_vendor(),
        };
        return if is_soft {
            empty(format!("no GPU: {reason}"))
        } else {
            Err(GpuError::NoDriver { asked, reason, remedy: owned.remedy.clone() })
        };
    }
    if request.selection == Selection::None {
        return empty("no GPU: --gpus none".into());
    }
    if owned.devices.is_empty() {
        let reason = owned.reason.clone();
        return if is_soft {
            empty(format!("no GPU: {reason}"))
        } else {
            Err(GpuError::NoneOwned { asked, reason, remedy: owned.remedy.clone() })
        };
    }
    if inventory.is_undivided() && matches!(request.selection, Selection::Devices(_)) {
        return Err(GpuError::Undivided { asked });
    }
    let not_owned = |wanted: String| GpuError::NotOwned {
        asked: asked.clone(),
        wanted,
        owned: inventory.words_of(&owned.devices),
        reason: owned.reason.clone(),
    };
    let devices = match &request.selection {
        Selection::Job | Selection::None | Selection::All => owned.devices.clone(),
        Selection::Count(count) => {
            let wanted = usize::try_from(*count).ok().and_then(|count| owned.devices.get(..count));
            wanted.ok_or_else(|| not_owned(format!("{count} GPUs")))?.to_vec()
        }
        Selection::Devices(devices) => {
            let wanted = find_devices(inventory, devices, &asked)?;
            if let Some(device) = wanted.iter().find(|device| inventory.is_without_instances(**device)) {
                let index = inventory.gpus.get(device.gpu).map_or(0, |gpu| gpu.index);
                return Err(GpuError::WithoutInstances { asked, index });
            }
            if wanted.iter().any(|device| !owned.devices.contains(device)) {
                let mut error = not_owned(inventory.words_of(&wanted));
                let broken = owned
                    .others
                    .iter()
                    .find(|(device, _)| wanted.contains(device) && owned.broken.contains(device));
                if let (Some((device, why)), GpuError::NotOwned { reason, .. }) = (broken, &mut error) {
                    *reason = format!("{}: {why}", inventory.name_of(*device));
                }
                return Err(error);
            }
            wanted
        }
    };
    let is_inside = |device: &&Device| {
        let node = inventory.gpus.get(device.gpu).map(|gpu| &gpu.node);
        devices.contains(device)
            || request.other_nodes.iter().any(|other| node.is_some_and(|node| node.starts_with(other)))
    };
    let inside: Vec<Device> = owned.usable.iter().filter(is_inside).copied().collect();
    let visible_devices = visible::inside(inventory, owned, &devices, &inside);
    let mut notes = explain(inventory, owned, &devices, &asked);
    notes.extend(visible_devices.iter().map(|(name, value)| {
        format!("{name} becomes `{value}`: the container has fewer GPUs than the host shows")
    }));
    let troubles = owned.troubles.clone();
    Ok(Chosen { devices, capabilities: request.capabilities.clone(), visible_devices, notes, troubles })
}

/// Why each device is, or is not, inside.
fn explain(inventory: &Inventory, owned: &Owned, devices: &[Device], asked: &str) -> Vec<String> {
    let mut notes = Vec::new();
    for device in inventory.devices() {
        if device.instance == Some(0) {
            let parts = inventory.devices_of(device.gpu);
            notes.push(format!(
                "{} is divided by MIG; what can be used of it is {}",
                inventory.name_of(Device::whole(device.gpu)),
                inventory.words_of(&parts)
            ));
        }
        let name = inventory.name_of(device);
        notes.push(match owned.others.iter().find(|(other, _)| *other == device) {
            _ if devices.contains(&device) => format!("{name} is inside: {}", inside_because(owned, asked)),
            Some((_, why)) => format!("{name} is not inside: {why}"),
            None => format!("{name} is not inside: --gpus {asked} leaves it out"),
        });
    }
    if devices.iter().filter(|device| device.instance.is_some()).count() > 1 {
        notes.push("CUDA uses one MIG instance in a process: the others are for further processes".into());
    }
    notes
}

fn inside_because(owned: &Owned, asked: &str) -> String {
    if asked == "job" { owned.reason.clone() } else { format!("--gpus {asked}; {}", owned.reason) }
}

/// Devices are named by the indices of `slipway gpus`, which are node-wide, or by UUID.
fn find_devices(inventory: &Inventory, devices: &[String], asked: &str) -> Result<Vec<Device>, GpuError> {
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
                    present: inventory.words_of(&inventory.devices()),
                });
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
