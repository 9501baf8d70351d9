//! What the host has: GPUs, their nodes, and the driver's files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::elf::versions::GlibcVersion;

use super::nvidia::wsl::NODE as WSL_NODE;
use super::{
    Device, GpuReadings, HostRoot, MigInstance, NodeAccess, NvmlGpu, NvmlReadings, NvmlReport, Reading,
    VENDORS, mig, vendor_of,
};

/// The GPUs of a host and the driver's files, without any choice made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// Whose driver it is (`nvidia`, `amd`, `intel`, `gaudi`); `None` on a host without one.
    pub vendor: Option<String>,
    /// Version of the loaded kernel module.
    pub driver_version: Option<String>,
    /// Newest CUDA that the driver serves (`13.0`); only NVML knows it.
    pub cuda_version: Option<String>,
    /// The GPUs, in the order of their PCI addresses; AMD's in the order of their driver, by which ROCm counts.
    pub gpus: Vec<Gpu>,
    /// Nodes that every GPU needs (`/dev/nvidiactl`), those that exist.
    pub control_nodes: Vec<PathBuf>,
    /// The directory of the host that has the nodes' `dev`, where it is not `/`.
    pub device_root: Option<PathBuf>,
    /// Libraries and programs of the driver.
    pub files: DriverFiles,
    /// What is wrong or strange, one sentence each.
    pub findings: Vec<String>,
}

/// One GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// Its place in the inventory, which is NVML's order and that of the other vendors' runtimes.
    pub index: u32,
    /// Model (`NVIDIA H100 80GB HBM3`).
    pub name: Option<String>,
    /// `GPU-…`; unknown to NVIDIA's procfs until the GPU has been used once since the driver was loaded.
    pub uuid: Option<String>,
    /// `0000:1b:00.0`; unknown where the host shows only nodes, as sandboxes do.
    pub pci_address: Option<String>,
    /// Number of its device node: `/dev/nvidia0`, `/dev/dri/renderD128`, `/dev/accel/accel0`.
    pub minor: u32,
    /// Memory; only NVML knows it.
    pub memory_bytes: Option<u64>,
    /// Its device node.
    pub node: PathBuf,
    /// Whether MIG is enabled; without instances only NVML knows it.
    pub mig_enabled: Option<bool>,
    /// How many tiles it has, where the vendor's runtime can count them as devices (Intel).
    pub tiles: Option<u32>,
    /// Its MIG instances, which then are what can be used, and not the GPU.
    pub instances: Vec<MigInstance>,
}

/// The driver's files on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriverFiles {
    /// Version of the libraries, by their names.
    pub version: Option<String>,
    /// The directory that holds the main library, links resolved.
    pub directory: Option<PathBuf>,
    /// How that was found, as a fragment (`the loader's cache`).
    pub found_by: Option<String>,
    /// The libraries.
    pub libraries: Vec<DriverLibrary>,
    /// Programs such as `nvidia-smi`, links resolved, and what each is for.
    pub programs: Vec<(PathBuf, Capability)>,
    /// Sockets of the driver's daemons.
    pub sockets: Vec<PathBuf>,
    /// Directories that the libraries read at the host's place.
    pub whole_directories: Vec<PathBuf>,
    /// Where alone they were looked for, as a fragment (`in gpu.library_path`), if a site says so.
    pub searched: Option<String>,
    /// Libraries for 32-bit programs.
    pub libraries_32: Vec<DriverLibrary>,
    /// By library, the glibc without which the loader refuses it.
    pub glibc_needs: BTreeMap<String, GlibcVersion>,
    /// Files by which OpenCL, Vulkan, EGL and OptiX find the driver.
    pub configs: Vec<DriverConfig>,
}

/// One such file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverConfig {
    /// Absolute path on the host, links resolved.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// What it is for.
    pub capability: Capability,
}

/// One library of the driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverLibrary {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// File name (`libcuda.so.550.54.15`).
    pub name: String,
    /// Other names by which programs ask for it (`libcuda.so.1`, `libcuda.so`).
    pub links: Vec<String>,
    /// What it is for.
    pub capability: Capability,
}

/// What a part of the driver is for, in NVIDIA's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// CUDA and OpenCL; also everything whose purpose is not known.
    Compute,
    /// NVML and `nvidia-smi`.
    Utility,
    /// Encoding and decoding.
    Video,
    /// OpenGL, Vulkan and OptiX.
    Graphics,
    /// Deep-learning graphics.
    Ngx,
    /// Screens.
    Display,
    /// Programs of 32 bits.
    Compat32,
}

impl Capability {
    /// NVIDIA's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Utility => "utility",
            Self::Video => "video",
            Self::Graphics => "graphics",
            Self::Ngx => "ngx",
            Self::Display => "display",
            Self::Compat32 => "compat32",
        }
    }
}

/// What the caller knows that may help to find the driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Directories that a site names as those of the driver (`gpu.library_path`); no other is then looked at.
    pub search: Vec<PathBuf>,
    /// The tree in which the driver is installed (`gpu.driver_root`); no other is then looked at.
    pub driver_root: Option<PathBuf>,
    /// Directories of the caller's `LD_LIBRARY_PATH`.
    pub library_path: Vec<PathBuf>,
    /// Where facts that are slow to get are kept for this boot. The directory must exist and be the caller's own.
    pub cache_file: Option<PathBuf>,
}

impl Inventory {
    /// True where one node stands for all GPUs, so that none can be chosen (WSL).
    #[must_use]
    pub fn is_undivided(&self) -> bool {
        self.gpus.iter().any(|gpu| gpu.node == Path::new(WSL_NODE))
    }
}

/// The kernel's answer for each node of an inventory.
pub type Access = BTreeMap<PathBuf, NodeAccess>;

/// Reads what the host has, by its file systems alone: fast, and without waking a GPU.
#[must_use]
pub fn read_inventory(root: &HostRoot, hints: &Hints) -> Inventory {
    let mut first = None;
    for vendor in VENDORS {
        match vendor.read_inventory(root, hints) {
            Some(found) if !found.gpus.is_empty() => return found,
            found => first = first.or(found),
        }
    }
    // A driver without a GPU says more than none.
    first.unwrap_or_default()
}

/// Keeps the slow facts of an inventory (the driver's files, and what NVML said) in the hints' cache file.
///
/// A cache that cannot be written costs time at the next start and nothing else, so there is no error.
pub fn remember(root: &HostRoot, hints: &Hints, inventory: &Inventory) {
    if let Some(vendor) = vendor_of(inventory) {
        vendor.remember(root, hints, inventory);
    }
}

/// Asks the kernel about every node of the inventory.
#[must_use]
pub fn read_access(root: &HostRoot, inventory: &Inventory) -> Access {
    let nodes = inventory.gpus.iter().map(|gpu| &gpu.node).chain(&inventory.control_nodes);
    let capabilities =
        inventory.gpus.iter().flat_map(|gpu| &gpu.instances).flat_map(MigInstance::capability_nodes);
    nodes
        .map(|node| (node.clone(), root.node_access(node)))
        .chain(capabilities.map(|node| (node.clone(), root.node_readable(&node))))
        .collect()
}

/// The kernel's answer for a device: the worst of its nodes.
pub(super) fn device_access(inventory: &Inventory, access: &Access, device: Device) -> NodeAccess {
    let Some(gpu) = inventory.gpus.get(device.gpu) else { return NodeAccess::Missing };
    let answer = |node: &PathBuf| access.get(node).copied().unwrap_or(NodeAccess::Missing);
    let mut answers = vec![answer(&gpu.node)];
    if let Some(instance) = inventory.instance(device) {
        answers.extend(instance.capability_nodes().map(|node| answer(&node)));
        if answers.len() < 3 {
            answers.push(NodeAccess::Missing);
        }
    }
    answers.into_iter().find(|answer| *answer != NodeAccess::Open).unwrap_or(NodeAccess::Open)
}

/// `00000000:1B:00.0` (NVML) and `0000:1b:00.0` (procfs) are one address: the domain has at least 4 digits, all lower case.
pub(super) fn canonical_address(text: &str) -> Option<String> {
    let (domain, rest) = text.trim().split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    let (bus, device) = rest.split_once(':')?;
    let (device, function) = device.split_once('.')?;
    let byte = |text: &str| u8::from_str_radix(text, 16).ok();
    Some(format!("{domain:04x}:{:02x}:{:02x}.{:x}", byte(bus)?, byte(device)?, byte(function)?))
}

/// Puts GPUs in PCI order (those without an address by minor, behind) and numbers them.
pub(super) fn number_gpus(gpus: &mut [Gpu]) {
    // By numbers, not by text: a domain of 5 digits sorts behind one of 4.
    let key = |gpu: &Gpu| {
        let address = gpu.pci_address.clone();
        (address.is_none(), address.map(|text| (text.len(), text)), gpu.minor)
    };
    gpus.sort_by_key(key);
    for (index, gpu) in (0..).zip(gpus) {
        gpu.index = index;
    }
}

pub(super) fn merge_nvml(inventory: &mut Inventory, report: &NvmlReport, access: &Access) {
    if inventory.vendor.is_none() && !report.gpus.is_empty() {
        inventory.vendor = Some("nvidia".into());
    }
    if inventory.driver_version.is_none() {
        inventory.driver_version = report.driver_version.clone().filter(|version| !version.is_empty());
    }
    take(&mut inventory.cuda_version, &report.cuda_version);
    if inventory.is_undivided() {
        // One node stands for all that NVML lists.
        let names: Vec<&str> = report.gpus.iter().filter_map(|gpu| gpu.name.as_deref()).collect();
        if let (Some(gpu), false) = (inventory.gpus.first_mut(), names.is_empty()) {
            gpu.name = Some(names.join(", "));
        }
        return;
    }
    let mut left: Vec<&NvmlGpu> = report.gpus.iter().collect();
    let mut findings = Vec::new();
    for gpu in &mut inventory.gpus {
        if let Some(place) = left.iter().position(|found| is_same(gpu, found)) {
            let found = left.remove(place);
            take(&mut gpu.name, &found.name);
            take(&mut gpu.uuid, &found.uuid);
            take(&mut gpu.pci_address, &found.pci_address);
            gpu.memory_bytes = found.memory_bytes.or(gpu.memory_bytes);
            mig::merge_instances(gpu, found, &mut findings);
        } else if access.get(&gpu.node) == Some(&NodeAccess::Open) {
            // A GPU that cannot be asked has no address; both sides number in PCI order.
            let error =
                left.iter().find(|found| found.index == gpu.index).and_then(|found| found.error.as_deref());
            let name = gpu.pci_address.clone().unwrap_or_else(|| gpu.node.display().to_string());
            findings.push(match error {
                Some(error) => format!("NVML cannot ask GPU {name}: {error}"),
                None => format!("NVML does not show GPU {name}: it may be lost"),
            });
        }
    }
    let is_listed = !inventory.gpus.is_empty();
    for (found, minor) in left.iter().filter_map(|found| Some((found, found.minor?))) {
        if is_listed {
            findings.push(format!("NVML shows GPU minor {minor}, which the driver's procfs does not"));
        }
        inventory.gpus.push(Gpu {
            index: 0,
            name: found.name.clone(),
            uuid: found.uuid.clone(),
            pci_address: found.pci_address.clone(),
            minor,
            memory_bytes: found.memory_bytes,
            node: format!("/dev/nvidia{minor}").into(),
            ..Gpu::default()
        });
    }
    inventory.findings.append(&mut findings);
    number_gpus(&mut inventory.gpus);
}

pub(super) fn readings_of(inventory: &Inventory, nvml: &NvmlReadings) -> Vec<Option<GpuReadings>> {
    let found =
        |gpu: &Gpu| nvml.report.gpus.iter().position(|found| found.error.is_none() && is_same(gpu, found));
    let index_of = |nvml_index: u32| {
        let found = nvml.report.gpus.iter().find(|found| found.index == nvml_index)?;
        inventory.gpus.iter().find(|gpu| is_same(gpu, found)).map(|gpu| gpu.index)
    };
    let of_gpu = |gpu: &Gpu| {
        let mut readings = nvml.gpus.get(found(gpu)?)?.clone();
        if let Reading::Value(peers) = &mut readings.peers {
            peers.retain_mut(|peer| index_of(peer.index).map(|index| peer.index = index).is_some());
        }
        Some(readings)
    };
    inventory.gpus.iter().map(of_gpu).collect()
}

fn take(place: &mut Option<String>, better: &Option<String>) {
    if better.is_some() {
        place.clone_from(better);
    }
}

fn is_same(gpu: &Gpu, found: &NvmlGpu) -> bool {
    match (&gpu.pci_address, &found.pci_address) {
        (Some(ours), Some(theirs)) => return ours == theirs,
        _ if gpu.uuid.is_some() && gpu.uuid == found.uuid => return true,
        _ => {}
    }
    found.minor == Some(gpu.minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_form() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(canonical_address(text).as_deref(), expected, "{text}");
        };
        check("00000000:1B:00.0", Some("0000:1b:00.0"));
        check("0000:1b:00.0", Some("0000:1b:00.0"));
        check("00010001:E1:1F.7", Some("10001:e1:1f.7"));
        check("0000:1b:00", None);
        check("zz:1b:00.0", None);
        check("", None);
    }

    fn gpu(pci: Option<&str>, uuid: Option<&str>, minor: u32) -> Gpu {
        Gpu {
            pci_address: pci.map(str::to_owned),
            uuid: uuid.map(str::to_owned),
            minor,
            node: format!("/dev/nvidia{minor}").into(),
            ..Gpu::default()
        }
    }

    fn found(index: u32, pci: &str, minor: u32) -> NvmlGpu {
        NvmlGpu {
            index,
            name: Some("H100".into()),
            uuid: Some(format!("GPU-{minor}")),
            pci_address: canonical_address(pci),
            minor: Some(minor),
            memory_bytes: Some(80),
            ..NvmlGpu::default()
        }
    }

    #[test]
    fn merges_by_address_and_tells_what_only_one_side_knows() {
        let mut gpus = vec![
            gpu(Some("0000:1b:00.0"), None, 2),
            gpu(Some("0000:43:00.0"), Some("GPU-0"), 0),
            gpu(Some("0000:61:00.0"), None, 1),
            gpu(Some("0000:62:00.0"), None, 3),
        ];
        number_gpus(&mut gpus);
        let denied = |gpu: &Gpu| if gpu.minor == 3 { NodeAccess::DeniedByCgroup } else { NodeAccess::Open };
        let access = gpus.iter().map(|gpu| (gpu.node.clone(), denied(gpu))).collect();
        let mut inventory = Inventory { vendor: Some("nvidia".into()), gpus, ..Inventory::default() };
        let failed = |index| NvmlGpu { index, error: Some("lost".into()), ..NvmlGpu::default() };
        let report = NvmlReport {
            driver_version: Some("1.2".into()),
            cuda_version: Some("13.0".into()),
            gpus: vec![
                found(0, "00000000:1B:00.0", 2),
                failed(1),
                found(9, "00000000:52:00.0", 5),
                failed(3),
            ],
        };
        merge_nvml(&mut inventory, &report, &access);
        let rows: Vec<_> =
            inventory.gpus.iter().map(|gpu| (gpu.index, gpu.minor, gpu.memory_bytes)).collect();
        assert_eq!(rows, [(0, 2, Some(80)), (1, 0, None), (2, 5, Some(80)), (3, 1, None), (4, 3, None)]);
        assert_eq!(inventory.gpus[0].uuid.as_deref(), Some("GPU-2"));
        assert_eq!(
            inventory.findings,
            [
                "NVML cannot ask GPU 0000:43:00.0: lost",
                "NVML does not show GPU 0000:61:00.0: it may be lost",
                "NVML shows GPU minor 5, which the driver's procfs does not",
            ]
        );
    }

    #[test]
    fn nvml_alone_makes_an_inventory() {
        let mut inventory = Inventory::default();
        let report = NvmlReport { gpus: vec![found(0, "0:1b:00.0", 3)], ..NvmlReport::default() };
        merge_nvml(&mut inventory, &report, &Access::new());
        assert_eq!(inventory.gpus[0].node, PathBuf::from("/dev/nvidia3"));
        assert_eq!(inventory.findings, Vec::<String>::new());
    }

    #[test]
    fn sandboxes_show_only_nodes_until_nvml_answers() {
        let mut inventory = Inventory {
            vendor: Some("nvidia".into()),
            gpus: vec![gpu(None, None, 3)],
            ..Inventory::default()
        };
        let report = NvmlReport { gpus: vec![found(0, "0:1b:00.0", 3)], ..NvmlReport::default() };
        merge_nvml(&mut inventory, &report, &Access::new());
        assert_eq!(inventory.gpus.len(), 1);
        assert_eq!(inventory.gpus[0].pci_address.as_deref(), Some("0000:1b:00.0"));
    }
}
