//! The child's side of the readings: asks one after the other and writes each answer at once, so that a call that never
//! returns costs no answer that came before it.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    Clock, ComputeMode, EccCounter, MemoryError, P2pCapabilitiesIndex, P2pStatus, RetirementCause,
    TemperatureSensor, TemperatureThreshold, TopologyLevel,
};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError as Code;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::idset::write_ids;
use crate::sys::nvml as raw;

use super::super::super::inventory::canonical_address;
use super::super::super::readings::{
    Clocks, Fabric, GpuProcess, MemoryUse, Mode, NvLink, Peer, Reading, ReadingError, RemappedRows,
    Utilisation,
};
use super::collect::Scope;
use super::{NvmlGpu, cuda_words, failed_gpu, gpu, words};

/// Most NVLinks that a GPU is asked for.
const MOST_LINKS: u32 = 18;
/// Words of the bit sets of CPUs and NUMA nodes: 8192 CPUs, as the kernel has at most.
const CPU_WORDS: usize = 128;
const NODE_WORDS: usize = 16;

/// One line of the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// NVML answers; how many GPUs it has.
    Start { driver_version: Option<String>, cuda_version: Option<String>, gpus: u32 },
    /// NVML itself refuses.
    Refused(String),
    /// What is asked next.
    Asking(Place),
    /// What the GPU is.
    Gpu(NvmlGpu),
    /// The answer.
    Answer(Place, Reading<Value>),
    /// All of it has been asked.
    End,
}

/// A GPU's index and a step: 0 is what the GPU is, others are one more than an index of [`READINGS`].
pub(super) type Place = (u32, usize);

/// What a child is told, as JSON in its third argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Orders {
    /// Where to begin. Step 0 is asked of all GPUs before any other.
    pub(super) from: Place,
    /// GPUs to leave out.
    pub(super) without_gpus: Vec<u32>,
    /// Steps to leave out.
    pub(super) without: Vec<usize>,
    /// How much to ask.
    pub(super) scope: Scope,
}

/// What a reading is taken from.
pub(super) struct At<'a, 'nvml> {
    nvml: &'nvml Nvml,
    device: &'a Device<'nvml>,
    index: u32,
    count: u32,
    /// GPUs that let no call return.
    without: &'a [u32],
}

pub(super) type Ask = fn(&At<'_, '_>) -> Result<Value, Code>;

/// Key, whether it changes from second to second, and how it is asked.
pub(super) const READINGS: &[(&str, bool, Ask)] = &[
    ("compute_capability", false, |at| {
        plain(at.device.cuda_compute_capability().map(|number| format!("{}.{}", number.major, number.minor)))
    }),
    ("architecture", false, |at| {
        plain(at.device.architecture().map(|one| format!("{one:?}").to_lowercase()))
    }),
    ("brand", false, |at| plain(at.device.brand().map(|one| format!("{one:?}").to_lowercase()))),
    ("serial", false, |at| plain(at.device.serial())),
    ("vbios", false, |at| plain(at.device.vbios_version())),
    ("gsp_firmware", false, |at| plain(at.device.gsp_firmware_version())),
    ("module_id", false, |at| plain(raw::module_id(at.device))),
    ("cpu_affinity", false, |at| plain(at.device.cpu_affinity(CPU_WORDS).map(|bits| ids(&bits)))),
    ("numa_affinity", false, |at| plain(at.device.memory_affinity(NODE_WORDS, 0).map(|bits| ids(&bits)))),
    ("gpu_numa_node", false, |at| plain(at.device.numa_node_id())),
    ("memory", true, |at| {
        plain(at.device.memory_info().map(|memory| MemoryUse {
            total_bytes: memory.total,
            used_bytes: memory.used,
            free_bytes: memory.free,
        }))
    }),
    ("utilisation", true, |at| {
        let share = at.device.utilization_rates();
        plain(share.map(|share| Utilisation { gpu_percent: share.gpu, memory_percent: share.memory }))
    }),
    ("power_draw_mw", true, |at| plain(at.device.power_usage())),
    ("power_limit_mw", true, |at| plain(at.device.enforced_power_limit())),
    ("power_limit_default_mw", false, |at| plain(at.device.power_management_limit_default())),
    ("temperature_celsius", true, |at| plain(at.device.temperature(TemperatureSensor::Gpu))),
    ("temperature_slowdown_celsius", false, |at| {
        plain(at.device.temperature_threshold(TemperatureThreshold::Slowdown))
    }),
    ("temperature_shutdown_celsius", false, |at| {
        plain(at.device.temperature_threshold(TemperatureThreshold::Shutdown))
    }),
    ("temperature_margin_celsius", false, |at| plain(raw::temperature_margin(at.device))),
    ("throttle_reasons", true, |at| plain(at.device.current_throttle_reasons().map(throttle_words))),
    ("processes", true, |at| plain(processes(at.device))),
    ("clocks", true, |at| plain(clocks(|which| at.device.clock_info(which)))),
    ("clocks_max", false, |at| plain(clocks(|which| at.device.max_clock_info(which)))),
    ("pcie_generation", false, |at| plain(at.device.current_pcie_link_gen())),
    ("pcie_generation_max", false, |at| plain(at.device.max_pcie_link_gen())),
    ("pcie_width", false, |at| plain(at.device.current_pcie_link_width())),
    ("pcie_width_max", false, |at| plain(at.device.max_pcie_link_width())),
    ("pcie_replays", false, |at| plain(at.device.pcie_replay_counter())),
    ("nvlink", false, |at| plain(links(at.device))),
    ("fabric", false, |at| plain(raw::fabric(at.device).map(fabric))),
    ("persistence", false, |at| plain(at.device.is_in_persistent_mode())),
    ("compute_mode", false, |at| plain(at.device.compute_mode().map(compute_mode_words))),
    ("mig_mode", false, |at| {
        let mode = at.device.mig_mode();
        plain(mode.map(|mode| Mode { current: mode.current == 1, pending: mode.pending == 1 }))
    }),
    ("ecc_mode", false, |at| {
        let mode = at.device.is_ecc_enabled();
        plain(mode.map(|mode| Mode { current: mode.currently_enabled, pending: mode.pending_enabled }))
    }),
    ("ecc_corrected", false, |at| plain(ecc(at, MemoryError::Corrected, EccCounter::Volatile))),
    ("ecc_uncorrected", false, |at| plain(ecc(at, MemoryError::Uncorrected, EccCounter::Volatile))),
    ("ecc_corrected_total", false, |at| plain(ecc(at, MemoryError::Corrected, EccCounter::Aggregate))),
    ("ecc_uncorrected_total", false, |at| plain(ecc(at, MemoryError::Uncorrected, EccCounter::Aggregate))),
    ("remapped_rows", false, |at| {
        plain(raw::remapped_rows(at.device).map(|rows| RemappedRows {
            corrected: rows.corrected,
            uncorrected: rows.uncorrected,
            pending: rows.pending,
            failed: rows.failed,
        }))
    }),
    ("retired_pages_corrected", false, |at| {
        plain(at.device.retired_pages(RetirementCause::MultipleSingleBitEccErrors).map(|pages| pages.len()))
    }),
    ("retired_pages_uncorrected", false, |at| {
        plain(at.device.retired_pages(RetirementCause::DoubleBitEccError).map(|pages| pages.len()))
    }),
    ("retired_pages_pending", false, |at| plain(at.device.are_pages_pending_retired())),
    ("peers", false, |at| plain(peers(at))),
];

/// The whole life of the child: a round of readings, and another for each line that comes in. Returns the exit status.
#[must_use]
pub fn readings_child_main(arguments: &[OsString]) -> u8 {
    let orders = arguments.get(1).and_then(|text| serde_json::from_str::<Orders>(text.to_str()?).ok());
    let Some(orders) = orders else { return 1 };
    let mut builder = Nvml::builder();
    if let Some(library) = arguments.first().filter(|library| !library.is_empty()) {
        builder.lib_path(library);
    }
    u8::from(converse(&builder.init(), orders).is_err())
}

fn converse(nvml: &Result<Nvml, Code>, mut orders: Orders) -> io::Result<()> {
    let count = match nvml.as_ref().map(Nvml::device_count) {
        Ok(Ok(count)) => count,
        Ok(Err(code)) => return say(&Line::Refused(words(&code))),
        Err(code) => return say(&Line::Refused(words(code))),
    };
    let Ok(nvml) = nvml else { return Ok(()) };
    let is_left = |index: &u32, orders: &Orders| !orders.without_gpus.contains(index);
    loop {
        say(&Line::Start {
            driver_version: nvml.sys_driver_version().ok(),
            cuda_version: nvml.sys_cuda_driver_version().ok().map(cuda_words),
            gpus: count,
        })?;
        // First what each is: readings of one GPU ask for the others, and one of these may let no call return.
        if orders.from.1 == 0 {
            for index in (orders.from.0..count).filter(|index| is_left(index, &orders)) {
                say(&Line::Asking((index, 0)))?;
                let answer = nvml.device_by_index(index).map(|device| gpu(index, &device));
                say(&Line::Gpu(answer.unwrap_or_else(|code| failed_gpu(index, code))))?;
            }
            orders.from = (0, 1);
        }
        if orders.scope != Scope::Identity {
            for index in (orders.from.0..count).filter(|index| is_left(index, &orders)) {
                let first = if index == orders.from.0 { orders.from.1 } else { 1 };
                ask_gpu(nvml, index, count, first, &orders)?;
            }
        }
        say(&Line::End)?;
        if io::stdin().read(&mut [0])? == 0 {
            return Ok(());
        }
        orders.from = (0, 0);
    }
}

fn ask_gpu(nvml: &Nvml, index: u32, count: u32, first: usize, orders: &Orders) -> io::Result<()> {
    // Why there is no handle has been told.
    let Ok(device) = nvml.device_by_index(index) else { return Ok(()) };
    let at = At { nvml, device: &device, index, count, without: &orders.without_gpus };
    for (step, (_, is_live, ask)) in (1..).zip(READINGS) {
        let is_meant = orders.scope == Scope::All || *is_live;
        if step < first || orders.without.contains(&step) || !is_meant {
            continue;
        }
        say(&Line::Asking((index, step)))?;
        let answer = match ask(&at) {
            Ok(value) => Reading::Value(value),
            Err(Code::NotSupported) => Reading::Unsupported,
            Err(code) => Reading::Error(reading_error(code)),
        };
        say(&Line::Answer((index, step), answer))?;
    }
    Ok(())
}

fn say(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

fn reading_error(code: Code) -> ReadingError {
    let of_nvml = match code {
        // The loader's words name the file, which the reader knows, and the function, which he may look up.
        Code::FailedToLoadSymbol(text) => {
            let function =
                text.rsplit(' ').find(|word| word.starts_with("nvml")).unwrap_or("such a function");
            return ReadingError { words: format!("this driver has no {function}"), code: None };
        }
        ref other => words(other),
    };
    ReadingError { words: of_nvml, code: Some(code.into()) }
}

/// A value as JSON; strings and numbers always can be.
fn plain<T: Serialize>(answer: Result<T, Code>) -> Result<Value, Code> {
    serde_json::to_value(answer?).map_err(|_| Code::Unknown)
}

/// The numbers of the bits that are set, as the kernel writes them (`0-3,8`).
fn ids(words: &[std::ffi::c_ulong]) -> String {
    let bits = words.iter().zip((0_u32..).step_by(64));
    let set = bits.flat_map(|(word, first)| {
        (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
    });
    write_ids(&set.collect::<Vec<_>>())
}

fn ecc(at: &At<'_, '_>, kind: MemoryError, counter: EccCounter) -> Result<u64, Code> {
    at.device.total_ecc_errors(kind, counter)
}

/// Not each GPU has each clock; an error is one only if there is none at all.
fn clocks(ask: impl Fn(Clock) -> Result<u32, Code>) -> Result<Clocks, Code> {
    let graphics = ask(Clock::Graphics);
    let others = [Clock::SM, Clock::Memory, Clock::Video].map(|which| ask(which).ok());
    if others.iter().all(Option::is_none) {
        graphics.as_ref().map_err(|code| Code::from(code_number(code)))?;
    }
    let [sm_mhz, memory_mhz, video_mhz] = others;
    Ok(Clocks { graphics_mhz: graphics.ok(), sm_mhz, memory_mhz, video_mhz })
}

/// The codes of NVML have no copy.
fn code_number(code: &Code) -> u32 {
    match code {
        Code::NotSupported => 3,
        Code::GpuLost => 15,
        Code::ResetRequired => 16,
        Code::UnexpectedVariant(number) => *number,
        _ => 999,
    }
}

fn throttle_words(reasons: ThrottleReasons) -> Vec<String> {
    let names = reasons.iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-"));
    // An old name of the second.
    names.filter(|name| name != "user-defined-clocks").collect()
}

fn compute_mode_words(mode: ComputeMode) -> &'static str {
    match mode {
        ComputeMode::Default => "default",
        ComputeMode::ExclusiveThread => "exclusive-thread",
        ComputeMode::Prohibited => "prohibited",
        ComputeMode::ExclusiveProcess => "exclusive-process",
    }
}

fn processes(device: &Device<'_>) -> Result<Vec<GpuProcess>, Code> {
    let row = |kind: &'static str| {
        move |process: ProcessInfo| GpuProcess {
            pid: process.pid,
            kind: kind.into(),
            memory_bytes: match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            },
        }
    };
    let mut found: Vec<_> = device.running_compute_processes()?.into_iter().map(row("compute")).collect();
    // A GPU without a display engine need not have the second list.
    let drawing = device.running_graphics_processes().unwrap_or_default();
    found.extend(drawing.into_iter().map(row("graphics")));
    Ok(found)
}

fn links(device: &Device<'_>) -> Result<Vec<NvLink>, Code> {
    let mut found = Vec::new();
    for link in 0..MOST_LINKS {
        let asked = device.link_wrapper_for(link);
        let active = match asked.is_active() {
            Ok(active) => active,
            // A GPU with fewer links has no more of them.
            Err(_) if link > 0 => break,
            Err(code) => return Err(code),
        };
        let remote_pci = || canonical_address(&asked.remote_pci_info().ok()?.bus_id);
        let remote = || {
            Some(match raw::link_remote(device, link).ok()? {
                0 => "gpu",
                1 => "cpu",
                2 => "switch",
                _ => return None,
            })
        };
        found.push(NvLink {
            link,
            active,
            version: asked.version().ok(),
            remote: active.then(remote).flatten().map(str::to_owned),
            remote_pci: active.then(remote_pci).flatten(),
        });
    }
    Ok(found)
}

fn fabric(info: raw::FabricInfo) -> Fabric {
    let state = match info.state {
        0 => "not-supported".to_owned(),
        1 => "not-started".to_owned(),
        2 => "in-progress".to_owned(),
        3 => "completed".to_owned(),
        other => format!("state {other}"),
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let [a, b, c, d] =
        [0..4, 4..6, 6..8, 8..10].map(|part| hex(info.cluster_uuid.get(part).unwrap_or_default()));
    let rest = hex(info.cluster_uuid.get(10..).unwrap_or_default());
    Fabric {
        state,
        status: info.status,
        cluster_uuid: format!("{a}-{b}-{c}-{d}-{rest}"),
        clique: info.clique,
        health_mask: info.health_mask,
    }
}

fn peers(at: &At<'_, '_>) -> Result<Vec<Peer>, Code> {
    let mut found = Vec::new();
    let mut refused = None;
    for index in (0..at.count).filter(|index| *index != at.index && !at.without.contains(index)) {
        // A GPU without a handle is told of where it stands itself.
        let Ok(other) = at.nvml.device_by_index(index) else { continue };
        let p2p = at.device.p2p_status(&other, P2pCapabilitiesIndex::Read);
        let path = at.device.topology_common_ancestor(other);
        let words = (
            path.as_ref().ok().map(|level| level_words(*level)),
            p2p.as_ref().ok().map(|status| p2p_words(*status)),
        );
        if words == (None, None) {
            refused = path.err();
            continue;
        }
        let [path, p2p] = [words.0, words.1].map(|word| word.map(str::to_owned));
        found.push(Peer { index, path, p2p });
    }
    match refused {
        Some(code) if found.is_empty() => Err(code),
        _ => Ok(found),
    }
}

fn level_words(level: TopologyLevel) -> &'static str {
    match level {
        TopologyLevel::Internal | TopologyLevel::Single => "PIX",
        TopologyLevel::Multiple => "PXB",
        TopologyLevel::HostBridge => "PHB",
        TopologyLevel::Node => "NODE",
        TopologyLevel::System => "SYS",
    }
}

fn p2p_words(status: P2pStatus) -> &'static str {
    match status {
        P2pStatus::Ok => "ok",
        P2pStatus::ChipsetNotSupported => "chipset-not-supported",
        P2pStatus::GpuNotSupported => "gpu-not-supported",
        P2pStatus::IohTopologyNotSupported => "topology-not-supported",
        P2pStatus::DisabledByRegkey => "disabled-by-registry-key",
        P2pStatus::NotSupported => "not-supported",
        P2pStatus::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::super::readings::GpuReadings;
    use super::*;

    #[test]
    fn each_reading_has_its_field() {
        let Ok(Value::Object(fields)) = serde_json::to_value(GpuReadings::default()) else {
            panic!("no object")
        };
        let mut asked: Vec<&str> = READINGS.iter().map(|(name, ..)| *name).collect();
        asked.sort_unstable();
        let mut fields: Vec<&str> = fields.keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(asked, fields);
    }

    #[test]
    fn bits_are_numbers() {
        let check = |words: &[std::ffi::c_ulong], expected: &str| assert_eq!(ids(words), expected);
        check(&[], "");
        check(&[0b1111], "0-3");
        check(&[1 << 63, 0b101], "63-64,66");
    }
}
