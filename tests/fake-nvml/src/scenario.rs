//! The scenario file, as far as NVML shows it.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

use super::readings::Readings;

/// The scenario of this process; `None` if there is none that can be read.
pub(crate) static SCENARIO: LazyLock<Option<Scenario>> = LazyLock::new(|| {
    let path =
        std::env::var_os("SLIPWAY_FAKE_NVML_SCENARIO").map(PathBuf::from).or_else(beside_this_library)?;
    let mut scenario: Scenario = toml::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    for gpu in &mut scenario.gpu {
        // What the GPU has of its own hides what all have.
        let mut readings = scenario.readings.clone();
        readings.extend(std::mem::take(&mut gpu.own_readings));
        gpu.readings = readings.try_into().ok()?;
    }
    Some(scenario)
});

#[derive(Debug, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) driver_version: Option<String>,
    #[serde(default)]
    pub(crate) cuda_version: i32,
    #[serde(default)]
    pub(crate) gpu: Vec<Gpu>,
    /// Readings of every GPU, see [`Readings`].
    #[serde(default)]
    readings: toml::Table,
    #[serde(default, alias = "fault")]
    inject: Vec<Inject>,
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
    #[serde(default, rename = "readings")]
    own_readings: toml::Table,
    #[serde(skip)]
    pub(crate) readings: Readings,
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
struct Inject {
    function: String,
    #[serde(alias = "device")]
    gpu: Option<usize>,
    #[serde(alias = "code")]
    error: Option<u32>,
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
            |fault: &&Inject| fault.function == function && (fault.gpu.is_none() || fault.gpu == device);
        let fault = self.inject.iter().find(is_meant)?;
        std::thread::sleep(Duration::from_millis(fault.delay_ms));
        if fault.hang {
            loop {
                std::thread::park();
            }
        }
        if fault.abort {
            std::process::abort();
        }
        fault.error
    }
}

/// The loader's list of mapped files says where this library was loaded from.
fn beside_this_library() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.contains("/libnvidia-ml.so"))?;
    let library = PathBuf::from(&line[line.find('/')?..]);
    Some(library.parent()?.join("libnvidia-ml.scenario.toml"))
}
