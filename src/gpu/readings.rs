//! What a driver's library says of one GPU beyond its identity, reading by reading.
//!
//! Each [`Reading`] stands for itself: one that fails, that the GPU does not have or that an old library cannot give
//! hides no other. `slipway gpus` shows them, `slipway doctor` judges them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading<T> {
    /// Nobody asked: the GPU has no handle, or hung before its turn came.
    #[default]
    Unasked,
    /// The answer.
    Value(T),
    /// This GPU does not have it.
    Unsupported,
    /// Why there is no answer.
    Error(ReadingError),
}

impl<T> Reading<T> {
    /// The answer, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            _ => None,
        }
    }
}

/// Why a reading could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingError {
    /// NVML's reason, or what became of the process that asked.
    pub words: String,
    /// NVML's code, where it gave one.
    pub code: Option<u32>,
}

/// The readings of one GPU. A field's name is also its key in `slipway gpus --json` and in a recorded scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuReadings {
    /// CUDA's number of what the GPU can do (`9.0`).
    pub compute_capability: Reading<String>,
    /// Name of the generation (`hopper`).
    pub architecture: Reading<String>,
    /// Product line (`tesla`).
    pub brand: Reading<String>,
    /// Serial number of the board, which names one piece of hardware: not shown unless asked for.
    pub serial: Reading<String>,
    /// Version of the video BIOS.
    pub vbios: Reading<String>,
    /// Version of the firmware of the GPU's system processor.
    pub gsp_firmware: Reading<String>,
    /// Place of the module on its board, as the maker counts.
    pub module_id: Reading<u32>,
    /// CPUs near to the GPU (`0-31`), where sysfs does not say.
    pub cpu_affinity: Reading<String>,
    /// NUMA nodes of the host near to the GPU (`0`), where sysfs does not say.
    pub numa_affinity: Reading<String>,
    /// NUMA node that the GPU's own memory is, on machines with coherent memory.
    pub gpu_numa_node: Reading<u32>,
    /// Memory in use.
    pub memory: Reading<MemoryUse>,
    /// Share of the last sample period in which it worked.
    pub utilisation: Reading<Utilisation>,
    /// Electric power.
    pub power_draw_mw: Reading<u32>,
    /// The limit in force.
    pub power_limit_mw: Reading<u32>,
    /// The limit as delivered.
    pub power_limit_default_mw: Reading<u32>,
    /// Of the die.
    pub temperature_celsius: Reading<u32>,
    /// Where clocks are lowered.
    pub temperature_slowdown_celsius: Reading<u32>,
    /// Where it switches itself off.
    pub temperature_shutdown_celsius: Reading<u32>,
    /// How far the die is below its limit.
    pub temperature_margin_celsius: Reading<i32>,
    /// Why clocks are below their maximum (`sw-power-cap`); empty if nothing holds them down.
    pub throttle_reasons: Reading<Vec<String>>,
    /// Programs on the GPU.
    pub processes: Reading<Vec<GpuProcess>>,
    /// Present clocks.
    pub clocks: Reading<Clocks>,
    /// Highest clocks.
    pub clocks_max: Reading<Clocks>,
    /// Generation of the PCIe link now; an idle GPU lowers it.
    pub pcie_generation: Reading<u32>,
    /// The highest that GPU and slot can do.
    pub pcie_generation_max: Reading<u32>,
    /// Lanes now.
    pub pcie_width: Reading<u32>,
    /// Lanes that GPU and slot have.
    pub pcie_width_max: Reading<u32>,
    /// Packets that had to be sent again.
    pub pcie_replays: Reading<u32>,
    /// The NVLinks that the GPU has.
    pub nvlink: Reading<Vec<NvLink>>,
    /// The GPU's place in the NVLink fabric.
    pub fabric: Reading<Fabric>,
    /// Whether the driver keeps the GPU ready while nobody uses it.
    pub persistence: Reading<bool>,
    /// Who may use it at a time (`default`, `exclusive-process`, `prohibited`).
    pub compute_mode: Reading<String>,
    /// MIG.
    pub mig_mode: Reading<Mode>,
    /// Correction of memory errors.
    pub ecc_mode: Reading<Mode>,
    /// Errors that were corrected since the driver was loaded.
    pub ecc_corrected: Reading<u64>,
    /// Errors that were not, since then.
    pub ecc_uncorrected: Reading<u64>,
    /// Errors that were corrected in the GPU's life.
    pub ecc_corrected_total: Reading<u64>,
    /// Errors that were not, in its life.
    pub ecc_uncorrected_total: Reading<u64>,
    /// Memory rows replaced by spare ones.
    pub remapped_rows: Reading<RemappedRows>,
    /// Pages taken out of use after corrected errors (before Ampere).
    pub retired_pages_corrected: Reading<u32>,
    /// Pages taken out of use after an uncorrected error (before Ampere).
    pub retired_pages_uncorrected: Reading<u32>,
    /// Whether pages wait for a reboot to be taken out of use.
    pub retired_pages_pending: Reading<bool>,
    /// How it reaches each other GPU.
    pub peers: Reading<Vec<Peer>>,
}

/// Bytes of a GPU's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// All of it.
    pub total_bytes: u64,
    /// What programs have.
    pub used_bytes: u64,
    /// What can still be had.
    pub free_bytes: u64,
}

/// Percent of the last sample period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utilisation {
    /// In which a kernel ran.
    pub gpu_percent: u32,
    /// In which memory was read or written.
    pub memory_percent: u32,
}

/// Frequencies; `None` where the GPU has no such clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Graphics.
    pub graphics_mhz: Option<u32>,
    /// Streaming multiprocessors.
    pub sm_mhz: Option<u32>,
    /// Memory.
    pub memory_mhz: Option<u32>,
    /// Video.
    pub video_mhz: Option<u32>,
}

/// A switch that takes effect at the next reset or reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// What holds.
    pub current: bool,
    /// What will hold.
    pub pending: bool,
}

/// One NVLink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvLink {
    /// Its number on this GPU.
    pub link: u32,
    /// Whether it is up.
    pub active: bool,
    /// NVLink's generation, in NVML's count.
    pub version: Option<u32>,
    /// What is at the other end (`gpu`, `switch`, `cpu`), of a link that is up.
    pub remote: Option<String>,
    /// PCI address of the other end, in the form of procfs.
    pub remote_pci: Option<String>,
}

/// The GPU's place in the fabric of NVSwitches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fabric {
    /// `not-supported`, `not-started`, `in-progress` or `completed`.
    pub state: String,
    /// NVML's code of how joining the fabric ended; 0 is well.
    pub status: u32,
    /// Which fabric; the same on every node of it.
    pub cluster_uuid: String,
    /// Which part of it; GPUs of one clique reach each other.
    pub clique: u32,
    /// Bits of NVML's health mask; `None` from a driver that has none.
    pub health_mask: Option<u32>,
}

/// Memory rows that are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemappedRows {
    /// After corrected errors.
    pub corrected: u32,
    /// After uncorrected errors.
    pub uncorrected: u32,
    /// Some wait for a reset.
    pub pending: bool,
    /// A replacement failed: the GPU needs service.
    pub failed: bool,
}

/// A program on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProcess {
    /// Its number outside of containers.
    pub pid: u32,
    /// `compute` or `graphics`.
    pub kind: String,
    /// Its memory; `None` where the driver does not say.
    pub memory_bytes: Option<u64>,
}

/// Another GPU of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The library's index of it.
    pub index: u32,
    /// What both hang below, in the words of [`super::topology::Relation`] (`PIX`, `SYS`).
    pub path: Option<String>,
    /// Whether its memory can be read directly: `ok`, or why not.
    pub p2p: Option<String>,
}

impl GpuReadings {
    /// A JSON object with plain values: what is not known is `null`, and why not stands below `errors`.
    #[must_use]
    pub fn to_json(&self, with_serial: bool) -> Value {
        let Ok(Value::Object(tagged)) = serde_json::to_value(self) else { return Value::Null };
        let (mut plain, mut errors) = (Map::new(), Map::new());
        for (name, reading) in tagged.into_iter().filter(|(name, _)| with_serial || name != "serial") {
            let value = reading.get("value").cloned().unwrap_or_default();
            if let Some(words) = reading.get("error").and_then(|error| error.get("words")) {
                errors.insert(name.clone(), words.clone());
            }
            plain.insert(name, value);
        }
        plain.insert("errors".into(), Value::Object(errors));
        Value::Object(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_plain_values_and_words_apart() {
        let error = ReadingError { words: "the GPU must be reset (code 16)".into(), code: Some(16) };
        let readings = GpuReadings {
            compute_capability: Reading::Value("9.0".into()),
            serial: Reading::Value("1650".into()),
            power_draw_mw: Reading::Error(error),
            brand: Reading::Unsupported,
            ..GpuReadings::default()
        };
        let json = readings.to_json(false);
        assert_eq!(json["compute_capability"], "9.0");
        assert_eq!(
            (&json["brand"], &json["power_draw_mw"], &json["vbios"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        assert_eq!(json["errors"], serde_json::json!({"power_draw_mw": "the GPU must be reset (code 16)"}));
        assert_eq!(json.get("serial"), None);
        assert_eq!(readings.to_json(true)["serial"], "1650");
        let text = serde_json::to_string(&readings).unwrap();
        assert_eq!(serde_json::from_str::<GpuReadings>(&text).unwrap(), readings);
    }
}
