//! What a scenario says of a GPU beyond its identity: the keys of `slipway gpus --json`, below `[gpu.readings]`, or below
//! `[readings]` for all GPUs alike.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{NOT_SUPPORTED, Return};

/// One GPU's readings. What is missing is not supported, unless `errors` has a code for it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Readings {
    pub(crate) compute_capability: Option<String>,
    pub(crate) architecture: Option<String>,
    pub(crate) brand: Option<String>,
    pub(crate) serial: Option<String>,
    pub(crate) vbios: Option<String>,
    pub(crate) module_id: Option<u32>,
    pub(crate) cpu_affinity: Option<String>,
    pub(crate) numa_affinity: Option<String>,
    pub(crate) gpu_numa_node: Option<u32>,
    pub(crate) memory: Option<Memory>,
    pub(crate) utilisation: Option<Utilisation>,
    pub(crate) power_draw_mw: Option<u32>,
    pub(crate) power_limit_mw: Option<u32>,
    pub(crate) power_limit_default_mw: Option<u32>,
    pub(crate) temperature_celsius: Option<u32>,
    pub(crate) temperature_slowdown_celsius: Option<u32>,
    pub(crate) temperature_shutdown_celsius: Option<u32>,
    pub(crate) temperature_margin_celsius: Option<i32>,
    pub(crate) throttle_reasons: Option<Vec<String>>,
    pub(crate) processes: Option<Vec<Process>>,
    pub(crate) clocks: Option<Clocks>,
    pub(crate) clocks_max: Option<Clocks>,
    pub(crate) pcie_generation: Option<u32>,
    pub(crate) pcie_generation_max: Option<u32>,
    pub(crate) pcie_width: Option<u32>,
    pub(crate) pcie_width_max: Option<u32>,
    pub(crate) pcie_replays: Option<u32>,
    pub(crate) nvlink: Option<Vec<NvLink>>,
    pub(crate) fabric: Option<Fabric>,
    pub(crate) persistence: Option<bool>,
    pub(crate) compute_mode: Option<String>,
    pub(crate) mig_mode: Option<Mode>,
    pub(crate) ecc_mode: Option<Mode>,
    pub(crate) ecc_corrected: Option<u64>,
    pub(crate) ecc_uncorrected: Option<u64>,
    pub(crate) ecc_corrected_total: Option<u64>,
    pub(crate) ecc_uncorrected_total: Option<u64>,
    pub(crate) remapped_rows: Option<RemappedRows>,
    pub(crate) retired_pages_corrected: Option<u32>,
    pub(crate) retired_pages_uncorrected: Option<u32>,
    pub(crate) retired_pages_pending: Option<bool>,
    pub(crate) peers: Option<Vec<Peer>>,
    /// NVML's codes of readings that fail.
    pub(crate) errors: BTreeMap<String, u32>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Memory {
    pub(crate) total_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) free_bytes: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Utilisation {
    pub(crate) gpu_percent: u32,
    pub(crate) memory_percent: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) kind: String,
    pub(crate) memory_bytes: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Clocks {
    pub(crate) graphics_mhz: Option<u32>,
    pub(crate) sm_mhz: Option<u32>,
    pub(crate) memory_mhz: Option<u32>,
    pub(crate) video_mhz: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NvLink {
    pub(crate) link: u32,
    pub(crate) active: bool,
    pub(crate) version: Option<u32>,
    pub(crate) remote: Option<String>,
    pub(crate) remote_pci: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Fabric {
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) status: u32,
    pub(crate) cluster_uuid: String,
    pub(crate) clique: u32,
    #[serde(default)]
    pub(crate) health_mask: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Mode {
    pub(crate) current: bool,
    pub(crate) pending: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RemappedRows {
    pub(crate) corrected: u32,
    pub(crate) uncorrected: u32,
    pub(crate) pending: bool,
    pub(crate) failed: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Peer {
    pub(crate) index: u32,
    pub(crate) path: Option<String>,
    pub(crate) p2p: Option<String>,
}

impl Readings {
    /// The value of a key, or the code with which it fails.
    pub(crate) fn get<'a, T>(&'a self, key: &str, value: &'a Option<T>) -> Result<&'a T, Return> {
        match self.errors.get(key) {
            Some(code) => Err(*code),
            None => value.as_ref().ok_or(NOT_SUPPORTED),
        }
    }
}

/// The place of a word among NVML's own, each of which has a number.
pub(crate) fn number_of(words: &[(&str, u32)], word: &str) -> Result<u32, Return> {
    words.iter().find(|(known, _)| *known == word).map(|(_, number)| *number).ok_or(super::UNKNOWN)
}

/// The bits of a list of numbers (`0-3,8`), as many words of them as there is room for.
pub(crate) fn bits(list: &str, words: &mut [u64]) -> Result<(), Return> {
    words.fill(0);
    for item in list.split(',').filter(|item| !item.is_empty()) {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        let [low, high] = [low, high].map(|text| text.parse::<usize>().map_err(|_| super::UNKNOWN));
        for bit in low?..=high? {
            *words.get_mut(bit / 64).ok_or(super::INSUFFICIENT_SIZE)? |= 1 << (bit % 64);
        }
    }
    Ok(())
}
