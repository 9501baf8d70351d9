//! The scenario file, as far as NVML shows it.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

/// The scenario of this process; `None` if there is none that can be read.
pub(crate) static SCENARIO: LazyLock<Option<Scenario>> = LazyLock::new(|| {
    let path =
        std::env::var_os("SLIPWAY_FAKE_NVML_SCENARIO").map(PathBuf::from).or_else(beside_this_library)?;
    toml::from_str(&std::fs::read_to_string(path).ok()?).ok()
});

#[derive(Debug, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) driver_version: Option<String>,
    #[serde(default)]
    pub(crate) cuda_version: i32,
    #[serde(default)]
    pub(crate) gpu: Vec<Gpu>,
    #[serde(default)]
    fault: Vec<Fault>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) pci_address: String,
    pub(crate) minor: u32,
    pub(crate) memory_mib: u64,
    /// Whether MIG is enabled; a GPU without this has no MIG.
    pub(crate) mig_enabled: Option<bool>,
    #[serde(default)]
    pub(crate) mig: Vec<Mig>,
}

/// A MIG device.
#[derive(Debug, Deserialize)]
pub(crate) struct Mig {
    pub(crate) uuid: String,
    /// What its name ends with; an old driver has no such end.
    pub(crate) profile: Option<String>,
    pub(crate) memory_mib: u64,
    pub(crate) gpu_slices: u32,
    pub(crate) compute_slices: u32,
    pub(crate) gpu_instance: u32,
    pub(crate) compute_instance: u32,
}

/// What goes wrong in one function, on one GPU or on all: an error's code, time that it takes, an answer that never comes,
/// the end of the process.
#[derive(Debug, Deserialize)]
struct Fault {
    function: String,
    device: Option<usize>,
    code: Option<u32>,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    hang: bool,
    #[serde(default)]
    abort: bool,
}

impl Scenario {
    /// Waits as the scenario says, and gives the code with which the function must fail.
    pub(crate) fn fault(&self, function: &str, device: Option<usize>) -> Option<u32> {
        let is_meant =
            |fault: &&Fault| fault.function == function && (fault.device.is_none() || fault.device == device);
        let fault = self.fault.iter().find(is_meant)?;
        std::thread::sleep(Duration::from_millis(fault.delay_ms));
        if fault.hang {
            loop {
                std::thread::park();
            }
        }
        if fault.abort {
            std::process::abort();
        }
        fault.code
    }
}

/// The loader's list of mapped files says where this library was loaded from.
fn beside_this_library() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.contains("/libnvidia-ml.so"))?;
    let library = PathBuf::from(&line[line.find('/')?..]);
    Some(library.parent()?.join("libnvidia-ml.scenario.toml"))
}
