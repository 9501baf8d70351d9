//! What a node's GPUs are, as a scenario: the TOML file from which tests build a host of the same kind
//! (`tests/fake-nvml/README.md` lists its keys). It is the one door to `toml` of this module.

use serde::Serialize;
use serde_json::{Map, Value};

use super::scrub::{Scrub, without_host};
use crate::gpu::topology::{Device, Topology};
use crate::gpu::{Access, Gpu, GpuReadings, Inventory, MigInstance, NodeAccess, NvmlReport};

/// What is recorded, as it was read.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The GPUs and the driver's files.
    pub inventory: &'a Inventory,
    /// The kernel's answers for their nodes.
    pub access: &'a Access,
    /// Readings of the inventory's GPUs, in its order.
    pub readings: &'a [Option<GpuReadings>],
    /// What NVML said the GPUs are, where it answered.
    pub report: Option<&'a NvmlReport>,
    /// The tree of devices.
    pub topology: &'a Topology,
    /// Whether there are nodes of NVSwitches.
    pub nvswitch: bool,
    /// The name of the host, which must not be in the record.
    pub host_name: &'a str,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A fact that TOML has no form for.
    #[error("cannot write the record of this node: {source}")]
    Form {
        /// The cause.
        source: toml::ser::Error,
    },
}

impl crate::base::Hint for RecordError {
    fn hint(&self) -> Option<String> {
        Some("send the output of `slipway gpus --json` instead".into())
    }
}

#[derive(Debug, Serialize)]
struct Scenario {
    driver_version: Option<String>,
    library_version: Option<String>,
    cuda_version: Option<u32>,
    nvswitch: bool,
    numa: Vec<Numa>,
    nic: Vec<Adapter>,
    gpu: Vec<RecordedGpu>,
    inject: Vec<Inject>,
}

#[derive(Debug, Serialize)]
struct Numa {
    node: u32,
    cpus: String,
}

#[derive(Debug, Serialize)]
struct Adapter {
    name: Option<String>,
    pci_path: Option<String>,
    numa_node: Option<u32>,
    local_cpus: Option<String>,
}

#[derive(Debug, Serialize)]
struct RecordedGpu {
    name: String,
    uuid: String,
    pci_address: String,
    minor: u32,
    memory_mib: u64,
    denied: bool,
    mig_enabled: Option<bool>,
    pci_path: Option<String>,
    numa_node: Option<u32>,
    local_cpus: Option<String>,
    mig: Vec<RecordedInstance>,
    readings: Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct RecordedInstance {
    uuid: String,
    profile: Option<String>,
    memory_mib: u64,
    gpu_slices: u32,
    compute_slices: u32,
    gpu_instance: u32,
    compute_instance: u32,
}

#[derive(Debug, Serialize)]
struct Inject {
    function: &'static str,
    gpu: usize,
    error: Option<u32>,
    hang: bool,
}

/// The scenario as text.
///
/// Serial numbers, UUIDs and the host's name are replaced. Models, versions, addresses on the PCI bus, numbers of
/// processes and every reading are kept: they are what a report is about.
pub fn record(facts: &Facts<'_>) -> Result<String, RecordError> {
    let inventory = facts.inventory;
    let mut scrub = Scrub::default();
    let gpus = inventory.gpus.iter().enumerate();
    let gpu: Vec<_> = gpus.map(|(place, gpu)| recorded_gpu(facts, place, gpu, &mut scrub)).collect();
    let adapters = facts.topology.devices.get(facts.topology.gpus..).unwrap_or_default();
    let scenario = Scenario {
        driver_version: inventory.driver_version.clone(),
        library_version: inventory
            .files
            .version
            .clone()
            .filter(|it| Some(it) != inventory.driver_version.as_ref()),
        cuda_version: inventory.cuda_version.as_deref().and_then(cuda_number),
        nvswitch: facts.nvswitch,
        numa: facts
            .topology
            .numa_nodes
            .iter()
            .map(|one| Numa { node: one.id, cpus: one.cpus.clone() })
            .collect(),
        nic: adapters.iter().map(adapter).collect(),
        gpu,
        inject: injections(facts),
    };
    let text = toml::to_string(&scenario).map_err(|source| RecordError::Form { source })?;
    let head =
        "# Recorded by `slipway doctor --record`. Serial numbers, UUIDs and the host's name are replaced.\n";
    Ok(without_host(&format!("{head}{text}"), facts.host_name))
}

/// NVML counts 1000 for a major and 10 for a minor version.
fn cuda_number(version: &str) -> Option<u32> {
    let (major, minor) = version.split_once('.')?;
    let [major, minor]: [u32; 2] = [major.parse().ok()?, minor.parse().ok()?];
    major.checked_mul(1000)?.checked_add(minor.checked_mul(10)?)
}

fn adapter(device: &Device) -> Adapter {
    Adapter {
        name: device.name.clone(),
        pci_path: pci_path(device),
        numa_node: device.numa_node,
        local_cpus: device.cpus.clone(),
    }
}

/// Where the device is below `/sys/devices`.
fn pci_path(device: &Device) -> Option<String> {
    let mut parts = vec![device.root.as_deref()?];
    parts.extend(device.bridges.iter().map(String::as_str));
    parts.push(device.pci_address.as_deref()?);
    Some(parts.join("/"))
}

fn recorded_gpu(facts: &Facts<'_>, place: usize, gpu: &Gpu, scrub: &mut Scrub) -> RecordedGpu {
    let device = facts.topology.devices.get(place);
    let readings = facts.readings.get(place).and_then(Option::as_ref);
    RecordedGpu {
        name: gpu.name.clone().unwrap_or_default(),
        uuid: gpu.uuid.as_deref().map(|uuid| scrub.uuid(uuid)).unwrap_or_default(),
        pci_address: gpu.pci_address.clone().unwrap_or_default(),
        minor: gpu.minor,
        memory_mib: gpu.memory_bytes.unwrap_or_default() >> 20,
        denied: facts.access.get(&gpu.node).is_some_and(|answer| *answer != NodeAccess::Open),
        mig_enabled: gpu.mig_enabled,
        pci_path: device.and_then(pci_path),
        numa_node: device.and_then(|device| device.numa_node),
        local_cpus: device.and_then(|device| device.cpus.clone()),
        mig: gpu.instances.iter().map(|instance| recorded_instance(instance, scrub)).collect(),
        readings: readings.map(|readings| recorded_readings(readings, scrub)).unwrap_or_default(),
    }
}

fn recorded_instance(instance: &MigInstance, scrub: &mut Scrub) -> RecordedInstance {
    let (gpu_slices, compute_slices) = instance.profile.as_deref().map(slices).unwrap_or_default();
    RecordedInstance {
        uuid: instance.uuid.as_deref().map(|uuid| scrub.uuid(uuid)).unwrap_or_default(),
        profile: instance.profile.clone(),
        memory_mib: instance.memory_bytes.unwrap_or_default() >> 20,
        gpu_slices,
        compute_slices,
        gpu_instance: instance.gpu_instance,
        compute_instance: instance.compute_instance,
    }
}

/// Slices of `3g.20gb`: 3 and as many for computing; of `1c.3g.20gb`: 3, and 1 for computing.
fn slices(profile: &str) -> (u32, u32) {
    let number = |unit: char| profile.split('.').find_map(|part| part.strip_suffix(unit)?.parse().ok());
    let gpu = number('g').unwrap_or_default();
    (gpu, number('c').unwrap_or(gpu))
}

/// The values, and below `errors` the codes of those that failed.
fn recorded_readings(readings: &GpuReadings, scrub: &mut Scrub) -> Map<String, Value> {
    let Ok(Value::Object(tagged)) = serde_json::to_value(readings) else { return Map::new() };
    let (mut plain, mut errors) = (Map::new(), Map::new());
    for (name, reading) in tagged {
        if let Some(value) = reading.get("value") {
            plain.insert(name, without_nulls(value));
        } else if let Some(code) = reading.get("error").and_then(|error| error.get("code")?.as_u64()) {
            errors.insert(name, code.into());
        }
    }
    if let Some(Value::String(serial)) = plain.get_mut("serial") {
        *serial = scrub.serial(serial);
    }
    if let Some(Value::String(uuid)) =
        plain.get_mut("fabric").and_then(|fabric| fabric.get_mut("cluster_uuid"))
    {
        *uuid = scrub.uuid(uuid);
    }
    if !errors.is_empty() {
        plain.insert("errors".into(), Value::Object(errors));
    }
    plain
}

/// TOML has no null: what is not known is left out.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let known = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(known.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// What went wrong with GPUs as a whole. A GPU without a handle has no address, and both sides number in PCI order.
fn injections(facts: &Facts<'_>) -> Vec<Inject> {
    let failed = facts.report.into_iter().flat_map(|report| &report.gpus).filter(|gpu| gpu.error.is_some());
    failed
        .filter_map(|gpu| {
            Some(Inject {
                function: "nvmlDeviceGetHandleByIndex_v2",
                gpu: usize::try_from(gpu.index).ok()?,
                error: gpu.error_code,
                hang: gpu.error_code.is_none(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_versions_and_profiles() {
        assert_eq!(
            [cuda_number("12.4"), cuda_number("13.0"), cuda_number("x")],
            [Some(12_040), Some(13_000), None]
        );
        assert_eq!([slices("3g.20gb"), slices("1c.3g.20gb"), slices("1g.10gb+me")], [(3, 3), (3, 1), (1, 1)]);
    }

    #[test]
    fn node_without_gpus_has_a_record() {
        let (inventory, access, topology) = (Inventory::default(), Access::new(), Topology::default());
        let facts = Facts {
            inventory: &inventory,
            access: &access,
            readings: &[],
            report: None,
            topology: &topology,
            nvswitch: false,
            host_name: "node1",
        };
        let text = record(&facts).unwrap();
        assert!(text.ends_with("nvswitch = false\nnuma = []\nnic = []\ngpu = []\ninject = []\n"), "{text}");
    }
}
