//! What `slipway gpus` shows: a JSON object, and a table for people.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::mig::WITHOUT_INSTANCES;
use super::topology::Topology;
use super::{Device, GpuReadings, Inventory, Owned};

/// `slipway gpus --json`: always one object, also on a node without GPUs.
///
/// Fields that are not known are `null`, none is left out; new ones may be added.
///
/// ```json
/// {
///   "vendor": "nvidia",
///   "driver_version": "550.54.15",
///   "cuda_version": "12.4",
///   "gpus": [
///     {
///       "index": 0,
///       "name": "NVIDIA H100 80GB HBM3",
///       "uuid": "GPU-6f1c…",
///       "pci_address": "0000:1b:00.0",
///       "minor": 0,
///       "memory_bytes": 85520809984,
///       "node": "/dev/nvidia0",
///       "owned": true,
///       "reason": "SLURM_STEP_GPUS=0",
///       "mig_enabled": false,
///       "mig_instances": [],
///       "numa_node": 0,
///       "cpu_affinity": "0-47",
///       "readings": {"compute_capability": "9.0", "power_draw_mw": 112004, …, "errors": {}}
///     }
///   ],
///   "library_directory": "/usr/lib/x86_64-linux-gnu",
///   "library_found_by": "the loader's cache",
///   "device_root": null,
///   "findings": []
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuListing {
    /// Whose driver is loaded (`nvidia`, `amd`, `intel`, `gaudi`); `null` on a node without one.
    pub vendor: Option<String>,
    /// Version of the loaded kernel module.
    pub driver_version: Option<String>,
    /// Newest CUDA that the driver serves; `null` if NVML did not answer, and with other vendors.
    pub cuda_version: Option<String>,
    /// The GPUs in PCI order; AMD's in the order of their driver, by which ROCm counts.
    pub gpus: Vec<GpuRow>,
    /// The directory of the driver's main library, links resolved.
    #[serde(default)]
    pub library_directory: Option<String>,
    /// How that was found, as a fragment.
    #[serde(default)]
    pub library_found_by: Option<String>,
    /// The directory that has the nodes' `dev`, where it is not `/`.
    #[serde(default)]
    pub device_root: Option<String>,
    /// What is wrong or strange, one sentence each.
    pub findings: Vec<String>,
}

/// One GPU of a [`GpuListing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuRow {
    /// Place in the list; `--gpus device=` takes it.
    pub index: u32,
    /// Model.
    pub name: Option<String>,
    /// `GPU-…`; `--gpus device=` takes it.
    pub uuid: Option<String>,
    /// `domain:bus:device.function` in lower-case hexadecimal, the domain with at least 4 digits.
    pub pci_address: Option<String>,
    /// Number of the device node, which is neither the index nor CUDA's ordinal.
    pub minor: u32,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The device node.
    pub node: String,
    /// True if the GPU is the job's, so that `run` gives it to a container by default.
    pub owned: bool,
    /// Which rule decided that.
    pub reason: String,
    /// Whether MIG is enabled; `null` where the GPU has no MIG, or nobody could say.
    #[serde(default)]
    pub mig_enabled: Option<bool>,
    /// The MIG instances of a divided GPU. What is owned is then an instance, and `owned` of the GPU says that one is.
    #[serde(default)]
    pub mig_instances: Vec<MigRow>,
    /// The NUMA node that the GPU is near to.
    #[serde(default)]
    pub numa_node: Option<u32>,
    /// The CPUs that it is near to (`0-47`).
    #[serde(default)]
    pub cpu_affinity: Option<String>,
    /// What NVML reads of it, by the names of [`GpuReadings`]: plain values, `null` where the GPU has none, and the words
    /// of errors below `errors`. `null` where NVML does not show the GPU.
    #[serde(default)]
    pub readings: serde_json::Value,
}

/// One MIG instance of a [`GpuRow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigRow {
    /// `GPU:INSTANCE`; `--gpus device=` takes it.
    pub index: String,
    /// `MIG-…`; `--gpus device=` takes it.
    pub uuid: Option<String>,
    /// Size in NVIDIA's words (`3g.20gb`).
    pub profile: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Number of the GPU instance.
    pub gpu_instance: u32,
    /// Number of the compute instance in it.
    pub compute_instance: u32,
    /// Its capability nodes, which it needs beside the GPU's node.
    pub nodes: Vec<String>,
    /// True if the instance is the job's.
    pub owned: bool,
    /// Which rule decided that.
    pub reason: String,
}

/// The listing of an inventory, with what is the job's.
#[must_use]
pub fn listing(inventory: &Inventory, owned: &Owned) -> GpuListing {
    let rows = inventory.gpus.iter().enumerate().map(|(place, gpu)| {
        let instances = mig_rows(inventory, owned, place);
        let (is_owned, reason) = match instances.iter().find(|row| row.owned).or(instances.first()) {
            Some(row) => (row.owned, row.reason.clone()),
            None => verdict(owned, Device::whole(place)),
        };
        GpuRow {
            index: gpu.index,
            name: gpu.name.clone(),
            uuid: gpu.uuid.clone(),
            pci_address: gpu.pci_address.clone(),
            minor: gpu.minor,
            memory_bytes: gpu.memory_bytes,
            node: gpu.node.display().to_string(),
            owned: is_owned,
            reason,
            mig_enabled: gpu.mig_enabled,
            mig_instances: instances,
            numa_node: None,
            cpu_affinity: None,
            readings: serde_json::Value::Null,
        }
    });
    GpuListing {
        vendor: inventory.vendor.clone(),
        driver_version: inventory.driver_version.clone(),
        cuda_version: inventory.cuda_version.clone(),
        gpus: rows.collect(),
        library_directory: inventory.files.directory.as_deref().map(words),
        library_found_by: inventory.files.found_by.clone(),
        device_root: inventory.device_root.as_deref().map(words),
        findings: inventory.findings.clone(),
    }
}

fn words(path: &Path) -> String {
    path.display().to_string()
}

fn verdict(owned: &Owned, device: Device) -> (bool, String) {
    let other = owned.others.iter().find(|(other, _)| *other == device);
    (other.is_none(), other.map_or_else(|| owned.reason.clone(), |(_, why)| why.clone()))
}

fn mig_rows(inventory: &Inventory, owned: &Owned, place: usize) -> Vec<MigRow> {
    let Some(gpu) = inventory.gpus.get(place) else { return Vec::new() };
    let rows = gpu.instances.iter().enumerate().map(|(number, instance)| {
        let (owned, reason) = verdict(owned, Device { gpu: place, instance: Some(number) });
        MigRow {
            index: format!("{}:{}", gpu.index, instance.index),
            uuid: instance.uuid.clone(),
            profile: instance.profile.clone(),
            memory_bytes: instance.memory_bytes,
            gpu_instance: instance.gpu_instance,
            compute_instance: instance.compute_instance,
            nodes: instance.capability_nodes().map(|node| node.display().to_string()).collect(),
            owned,
            reason,
        }
    });
    rows.collect()
}

impl GpuListing {
    /// Adds where the GPUs are and what they read: both of the listing's GPUs, in its order.
    pub fn add_readings(&mut self, topology: &Topology, readings: &[Option<GpuReadings>], with_serial: bool) {
        for (place, row) in self.gpus.iter_mut().enumerate() {
            if let Some(device) = topology.devices.get(place).filter(|_| place < topology.gpus) {
                row.numa_node = device.numa_node;
                row.cpu_affinity.clone_from(&device.cpus);
            }
            let said = readings.get(place).and_then(Option::as_ref);
            row.readings = said.map(|readings| readings.to_json(with_serial)).unwrap_or_default();
        }
    }

    /// The JSON text, indented, with a final newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a listing has only strings and numbers");
        text.push('\n');
        text
    }

    /// The table, with versions above and findings below.
    #[must_use]
    pub fn to_table(&self) -> String {
        let unknown = || "-".to_owned();
        let mut lines = Vec::new();
        match (&self.vendor, self.gpus.is_empty()) {
            (None, _) => lines.push("no GPU driver is loaded on this node".to_owned()),
            (Some(vendor), _) => {
                let version = self.driver_version.as_deref().unwrap_or("of unknown version");
                let is_cuda = vendor == "nvidia";
                let cuda = is_cuda.then(|| self.cuda_version.clone().unwrap_or_else(unknown));
                let cuda = cuda.map(|version| format!(", CUDA {version}")).unwrap_or_default();
                lines.push(format!("{vendor} driver {version}{cuda}"));
            }
        }
        if !self.gpus.is_empty() {
            let mut rows =
                vec![["INDEX", "NAME", "MEMORY", "PCI ADDRESS", "MINOR", "OWNED", "UUID"].map(str::to_owned)];
            let memory =
                |bytes: Option<u64>| bytes.map_or_else(unknown, |bytes| format!("{} MiB", bytes >> 20));
            let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
            for gpu in &self.gpus {
                rows.push([
                    gpu.index.to_string(),
                    gpu.name.clone().unwrap_or_else(unknown),
                    memory(gpu.memory_bytes),
                    gpu.pci_address.clone().unwrap_or_else(unknown),
                    gpu.minor.to_string(),
                    yes(gpu.owned),
                    gpu.uuid.clone().unwrap_or_else(unknown),
                ]);
                rows.extend(gpu.mig_instances.iter().map(|part| {
                    let profile = part.profile.clone().unwrap_or_else(|| "instance".into());
                    [
                        part.index.clone(),
                        format!("  MIG {profile}"),
                        memory(part.memory_bytes),
                        unknown(),
                        unknown(),
                        yes(part.owned),
                        part.uuid.clone().unwrap_or_else(unknown),
                    ]
                }));
            }
            lines.extend(align(&rows));
            let undivided = |gpu: &&GpuRow| gpu.mig_enabled == Some(true) && gpu.mig_instances.is_empty();
            lines.extend(
                self.gpus
                    .iter()
                    .filter(undivided)
                    .map(|gpu| format!("GPU {}: {WITHOUT_INSTANCES}", gpu.index)),
            );
        }
        // Told where it is not the usual: a site that has set it up wants to see it.
        if let (Some(place), Some(how)) = (&self.library_directory, &self.library_found_by)
            && !["the loader's cache", "a usual place"].contains(&how.as_str())
        {
            lines.push(format!("libraries of {place}, found by {how}"));
        }
        lines.extend(self.device_root.iter().map(|root| format!("device nodes of {root}/dev")));
        lines.extend(self.findings.iter().map(|finding| format!("finding: {finding}")));
        lines.push(String::new());
        lines.join("\n")
    }
}

/// Columns three spaces apart, as docker prints them.
fn align<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    align_rows(&rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>())
}

/// Columns three spaces apart, of rows whose number of cells is known only when they are made.
#[must_use]
pub fn align_rows(rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("   ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{DriverFiles, Gpu, NodeAccess, granted};
    use super::*;
    use crate::grants::JobGpus;

    fn example() -> GpuListing {
        let gpu = |index: u32, minor: u32| Gpu {
            index,
            name: Some("NVIDIA H100 80GB HBM3".into()),
            uuid: (index == 0).then(|| "GPU-6f1c".into()),
            pci_address: Some(format!("0000:{:02x}:00.0", 0x1b + index)),
            minor,
            memory_bytes: (index == 0).then_some(81_559 << 20),
            node: format!("/dev/nvidia{minor}").into(),
            ..Gpu::default()
        };
        let inventory = Inventory {
            vendor: Some("nvidia".into()),
            driver_version: Some("550.54.15".into()),
            cuda_version: Some("12.4".into()),
            gpus: vec![gpu(0, 1), gpu(1, 0)],
            device_root: Some("/run/nvidia/driver".into()),
            files: DriverFiles {
                directory: Some("/run/nvidia/driver/usr/lib64".into()),
                found_by: Some("the driver container `/run/nvidia/driver`".into()),
                ..DriverFiles::default()
            },
            findings: vec!["the uvm module is not loaded".into()],
            ..Inventory::default()
        };
        let job = JobGpus { in_job: true, step: Some("0".into()), ..JobGpus::default() };
        let access = inventory.gpus.iter().map(|gpu| (gpu.node.clone(), NodeAccess::Open)).collect();
        listing(&inventory, &granted(&inventory, &job, &access))
    }

    #[test]
    fn json_has_every_field() {
        let expected = r#"{
  "vendor": "nvidia",
  "driver_version": "550.54.15",
  "cuda_version": "12.4",
  "gpus": [
    {
      "index": 0,
      "name": "NVIDIA H100 80GB HBM3",
      "uuid": "GPU-6f1c",
      "pci_address": "0000:1b:00.0",
      "minor": 1,
      "memory_bytes": 85520809984,
      "node": "/dev/nvidia1",
      "owned": true,
      "reason": "SLURM_STEP_GPUS=0",
      "mig_enabled": null,
      "mig_instances": [],
      "numa_node": null,
      "cpu_affinity": null,
      "readings": null
    },
    {
      "index": 1,
      "name": "NVIDIA H100 80GB HBM3",
      "uuid": null,
      "pci_address": "0000:1c:00.0",
      "minor": 0,
      "memory_bytes": null,
      "node": "/dev/nvidia0",
      "owned": false,
      "reason": "SLURM_STEP_GPUS=0",
      "mig_enabled": null,
      "mig_instances": [],
      "numa_node": null,
      "cpu_affinity": null,
      "readings": null
    }
  ],
  "library_directory": "/run/nvidia/driver/usr/lib64",
  "library_found_by": "the driver container `/run/nvidia/driver`",
  "device_root": "/run/nvidia/driver",
  "findings": [
    "the uvm module is not loaded"
  ]
}
"#;
        assert_eq!(example().to_json(), expected);
        assert_eq!(serde_json::from_str::<GpuListing>(expected).unwrap(), example());
    }

    #[test]
    fn table_is_for_people() {
        let expected = "\
nvidia driver 550.54.15, CUDA 12.4
INDEX   NAME                    MEMORY      PCI ADDRESS    MINOR   OWNED   UUID
0       NVIDIA H100 80GB HBM3   81559 MiB   0000:1b:00.0   1       yes     GPU-6f1c
1       NVIDIA H100 80GB HBM3   -           0000:1c:00.0   0       no      -
libraries of /run/nvidia/driver/usr/lib64, found by the driver container `/run/nvidia/driver`
device nodes of /run/nvidia/driver/dev
finding: the uvm module is not loaded
";
        assert_eq!(example().to_table(), expected);
    }

    #[test]
    fn node_without_driver_is_an_empty_listing() {
        let bare = listing(&Inventory::default(), &Owned::default());
        let expected = r#"{
  "vendor": null,
  "driver_version": null,
  "cuda_version": null,
  "gpus": [],
  "library_directory": null,
  "library_found_by": null,
  "device_root": null,
  "findings": []
}
"#;
        assert_eq!(bare.to_json(), expected);
        assert_eq!(bare.to_table(), "no GPU driver is loaded on this node\n");
    }
}
