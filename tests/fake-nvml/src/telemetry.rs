//! NVML's functions for the readings of a GPU.

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_ulonglong};
use std::slice;

use super::readings::{Clocks, Mode, bits, number_of};
use super::scenario::Gpu;
use super::{
    Handle, INSUFFICIENT_SIZE, INVALID_ARGUMENT, PciInfo, Return, UNKNOWN, ask, pci_info, place_of, write,
    write_text,
};

/// A function that writes one number.
macro_rules! numbers {
    ($($name:ident: $type:ty = $gpu:ident => $value:expr;)*) => {$(
        /// # Safety
        /// See [`super::nvmlInit_v2`].
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: Handle, target: *mut $type) -> Return {
            ask(stringify!($name), device, |$gpu| {
                let value = $value;
                // SAFETY: the caller keeps to nvml.h.
                unsafe { write(target, value) }
            })
        }
    )*};
}

macro_rules! get {
    ($gpu:ident.$key:ident) => {
        $gpu.readings.get(stringify!($key), &$gpu.readings.$key)?
    };
}

const ARCHITECTURES: [(&str, u32); 9] = [
    ("kepler", 2),
    ("maxwell", 3),
    ("pascal", 4),
    ("volta", 5),
    ("turing", 6),
    ("ampere", 7),
    ("ada", 8),
    ("hopper", 9),
    ("blackwell", 10),
];
const BRANDS: [(&str, u32); 9] = [
    ("unknown", 0),
    ("quadro", 1),
    ("tesla", 2),
    ("geforce", 5),
    ("titan", 6),
    ("quadrortx", 12),
    ("nvidiartx", 13),
    ("nvidia", 14),
    ("geforcertx", 15),
];
const COMPUTE_MODES: [(&str, u32); 3] = [("default", 0), ("prohibited", 2), ("exclusive-process", 3)];
const THROTTLES: [(&str, u32); 9] = [
    ("gpu-idle", 1),
    ("applications-clocks-setting", 2),
    ("sw-power-cap", 4),
    ("hw-slowdown", 8),
    ("sync-boost", 16),
    ("sw-thermal-slowdown", 32),
    ("hw-thermal-slowdown", 64),
    ("hw-power-brake-slowdown", 128),
    ("display-clock-setting", 256),
];
const PATHS: [(&str, u32); 5] = [("PIX", 10), ("PXB", 20), ("PHB", 30), ("NODE", 40), ("SYS", 50)];
const P2P: [(&str, u32); 7] = [
    ("ok", 0),
    ("chipset-not-supported", 1),
    ("gpu-not-supported", 2),
    ("topology-not-supported", 3),
    ("disabled-by-registry-key", 4),
    ("not-supported", 5),
    ("unknown", 6),
];
const REMOTES: [(&str, u32); 4] = [("gpu", 0), ("cpu", 1), ("switch", 2), ("unknown", 255)];
const STATES: [(&str, u32); 4] =
    [("not-supported", 0), ("not-started", 1), ("in-progress", 2), ("completed", 3)];

numbers! {
    nvmlDeviceGetArchitecture: c_uint = gpu => number_of(&ARCHITECTURES, get!(gpu.architecture))?;
    nvmlDeviceGetBrand: c_uint = gpu => number_of(&BRANDS, get!(gpu.brand))?;
    nvmlDeviceGetModuleId: c_uint = gpu => *get!(gpu.module_id);
    nvmlDeviceGetNumaNodeId: c_uint = gpu => *get!(gpu.gpu_numa_node);
    nvmlDeviceGetPowerUsage: c_uint = gpu => *get!(gpu.power_draw_mw);
    nvmlDeviceGetEnforcedPowerLimit: c_uint = gpu => *get!(gpu.power_limit_mw);
    nvmlDeviceGetPowerManagementDefaultLimit: c_uint = gpu => *get!(gpu.power_limit_default_mw);
    nvmlDeviceGetCurrPcieLinkGeneration: c_uint = gpu => *get!(gpu.pcie_generation);
    nvmlDeviceGetMaxPcieLinkGeneration: c_uint = gpu => *get!(gpu.pcie_generation_max);
    nvmlDeviceGetCurrPcieLinkWidth: c_uint = gpu => *get!(gpu.pcie_width);
    nvmlDeviceGetMaxPcieLinkWidth: c_uint = gpu => *get!(gpu.pcie_width_max);
    nvmlDeviceGetPcieReplayCounter: c_uint = gpu => *get!(gpu.pcie_replays);
    nvmlDeviceGetPersistenceMode: c_uint = gpu => c_uint::from(*get!(gpu.persistence));
    nvmlDeviceGetComputeMode: c_uint = gpu => number_of(&COMPUTE_MODES, get!(gpu.compute_mode))?;
    nvmlDeviceGetRetiredPagesPendingStatus: c_uint = gpu => c_uint::from(*get!(gpu.retired_pages_pending));
    nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong = gpu => {
        let mut bits = 0;
        for word in get!(gpu.throttle_reasons) {
            bits |= c_ulonglong::from(number_of(&THROTTLES, word)?);
        }
        bits
    };
    nvmlDeviceGetUtilizationRates: [c_uint; 2] = gpu => {
        let share = get!(gpu.utilisation);
        [share.gpu_percent, share.memory_percent]
    };
}

/// A function that writes a text.
macro_rules! texts {
    ($($name:ident = $gpu:ident => $value:expr;)*) => {$(
        /// # Safety
        /// See [`super::nvmlInit_v2`].
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: Handle, text: *mut c_char, length: c_uint) -> Return {
            ask(stringify!($name), device, |$gpu| {
                let value = $value;
                // SAFETY: the caller keeps to nvml.h.
                unsafe { write_text(text, length, value) }
            })
        }
    )*};
}

texts! {
    nvmlDeviceGetSerial = gpu => get!(gpu.serial);
    nvmlDeviceGetVbiosVersion = gpu => get!(gpu.vbios);
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: Handle,
    major: *mut c_int,
    minor: *mut c_int,
) -> Return {
    ask("nvmlDeviceGetCudaComputeCapability", device, |gpu| {
        let (high, low) = get!(gpu.compute_capability).split_once('.').ok_or(UNKNOWN)?;
        let [high, low] = [high, low].map(|text| text.parse().map_err(|_| UNKNOWN));
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(major, high?).and_then(|()| write(minor, low?)) }
    })
}

/// # Safety
/// `target` is null or valid for `length` writes.
unsafe fn write_bits(target: *mut c_ulong, length: c_uint, list: &str) -> Result<(), Return> {
    if target.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller vouches for it; `unsigned long` has 64 bits on the machines that have these GPUs.
    let words = unsafe { slice::from_raw_parts_mut(target.cast::<u64>(), length as usize) };
    bits(list, words)
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCpuAffinity(
    device: Handle,
    length: c_uint,
    set: *mut c_ulong,
) -> Return {
    ask("nvmlDeviceGetCpuAffinity", device, |gpu| {
        let list = get!(gpu.cpu_affinity);
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write_bits(set, length, list) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryAffinity(
    device: Handle,
    length: c_uint,
    set: *mut c_ulong,
    _scope: c_uint,
) -> Return {
    ask("nvmlDeviceGetMemoryAffinity", device, |gpu| {
        let list = get!(gpu.numa_affinity);
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write_bits(set, length, list) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: Handle,
    _sensor: c_uint,
    target: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetTemperature", device, |gpu| {
        let degrees = *get!(gpu.temperature_celsius);
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(target, degrees) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: Handle,
    which: c_uint,
    target: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetTemperatureThreshold", device, |gpu| {
        let degrees = match which {
            0 => *get!(gpu.temperature_shutdown_celsius),
            1 => *get!(gpu.temperature_slowdown_celsius),
            _ => return Err(super::NOT_SUPPORTED),
        };
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(target, degrees) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`]. The second number of the struct is the margin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMarginTemperature(device: Handle, target: *mut [c_int; 2]) -> Return {
    ask("nvmlDeviceGetMarginTemperature", device, |gpu| {
        let degrees = *get!(gpu.temperature_margin_celsius);
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(target, [8 | 1 << 24, degrees]) }
    })
}

fn clock(clocks: &Clocks, which: c_uint) -> Result<c_uint, Return> {
    let clock = match which {
        0 => clocks.graphics_mhz,
        1 => clocks.sm_mhz,
        2 => clocks.memory_mhz,
        _ => clocks.video_mhz,
    };
    clock.ok_or(super::NOT_SUPPORTED)
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(
    device: Handle,
    which: c_uint,
    target: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetClockInfo", device, |gpu| {
        let value = clock(get!(gpu.clocks), which)?;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(target, value) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(
    device: Handle,
    which: c_uint,
    target: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetMaxClockInfo", device, |gpu| {
        let value = clock(get!(gpu.clocks_max), which)?;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(target, value) }
    })
}

/// `nvmlProcessInfo_t`.
#[repr(C)]
pub struct ProcessInfo {
    pid: c_uint,
    memory_bytes: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// # Safety
/// As nvml.h has it: `count` says how many `rows` has room for.
unsafe fn write_processes(
    gpu: &Gpu,
    kind: &str,
    count: *mut c_uint,
    rows: *mut ProcessInfo,
) -> Result<(), Return> {
    let found: Vec<_> = get!(gpu.processes).iter().filter(|process| process.kind == kind).collect();
    if count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller keeps to nvml.h.
    let room = unsafe { count.replace(found.len() as c_uint) } as usize;
    if room < found.len() {
        return Err(INSUFFICIENT_SIZE);
    }
    for (place, process) in found.into_iter().enumerate() {
        let row = ProcessInfo {
            pid: process.pid,
            memory_bytes: process.memory_bytes.unwrap_or(c_ulonglong::MAX),
            gpu_instance: c_uint::MAX,
            compute_instance: c_uint::MAX,
        };
        // SAFETY: there is room for as many.
        unsafe { rows.add(place).write(row) };
    }
    Ok(())
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    rows: *mut ProcessInfo,
) -> Return {
    // SAFETY: the caller keeps to nvml.h.
    ask("nvmlDeviceGetComputeRunningProcesses_v3", device, |gpu| unsafe {
        write_processes(gpu, "compute", count, rows)
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    rows: *mut ProcessInfo,
) -> Return {
    // SAFETY: the caller keeps to nvml.h.
    ask("nvmlDeviceGetGraphicsRunningProcesses_v3", device, |gpu| unsafe {
        write_processes(gpu, "graphics", count, rows)
    })
}

/// A function of one link that writes one thing.
macro_rules! link_facts {
    ($($name:ident: $type:ty = $link:ident => $value:expr;)*) => {$(
        /// # Safety
        /// See [`super::nvmlInit_v2`].
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: Handle, number: c_uint, target: *mut $type) -> Return {
            ask(stringify!($name), device, |gpu| {
                let $link = get!(gpu.nvlink).iter().find(|link| link.link == number).ok_or(INVALID_ARGUMENT)?;
                let value = $value;
                // SAFETY: the caller keeps to nvml.h.
                unsafe { write(target, value) }
            })
        }
    )*};
}

link_facts! {
    nvmlDeviceGetNvLinkState: c_uint = link => c_uint::from(link.active);
    nvmlDeviceGetNvLinkVersion: c_uint = link => link.version.ok_or(super::NOT_SUPPORTED)?;
    nvmlDeviceGetNvLinkRemoteDeviceType: c_uint = link => {
        number_of(&REMOTES, link.remote.as_deref().ok_or(super::NOT_SUPPORTED)?)?
    };
    nvmlDeviceGetNvLinkRemotePciInfo_v2: PciInfo = link => {
        pci_info(link.remote_pci.as_deref().ok_or(super::NOT_SUPPORTED)?)?
    };
}

/// `nvmlGpuFabricInfo_v3_t`.
#[repr(C)]
pub struct FabricInfo {
    version: c_uint,
    cluster_uuid: [u8; 16],
    status: c_uint,
    clique: c_uint,
    state: u8,
    health_mask: c_uint,
    health_summary: u8,
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(device: Handle, target: *mut FabricInfo) -> Return {
    ask("nvmlDeviceGetGpuFabricInfoV", device, |gpu| {
        let fabric = get!(gpu.fabric);
        let digits = fabric.cluster_uuid.replace('-', "");
        let mut cluster_uuid = [0; 16];
        for (place, byte) in cluster_uuid.iter_mut().enumerate() {
            let pair = digits.get(2 * place..2 * place + 2).ok_or(UNKNOWN)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| UNKNOWN)?;
        }
        let info = FabricInfo {
            version: (size_of::<FabricInfo>() | 3 << 24) as c_uint,
            cluster_uuid,
            status: fabric.status,
            clique: fabric.clique,
            state: number_of(&STATES, &fabric.state)? as u8,
            health_mask: fabric.health_mask,
            health_summary: 0,
        };
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(target, info) }
    })
}

/// # Safety
/// `current` and `pending` are null or valid for a write.
unsafe fn write_mode(mode: Mode, current: *mut c_uint, pending: *mut c_uint) -> Result<(), Return> {
    // SAFETY: the caller vouches for it.
    unsafe { write(current, mode.current.into()).and_then(|()| write(pending, mode.pending.into())) }
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEccMode(
    device: Handle,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetEccMode", device, |gpu| {
        let mode = *get!(gpu.ecc_mode);
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write_mode(mode, current, pending) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: Handle,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetMigMode", device, |gpu| {
        let plain = gpu.mig_enabled.map(|enabled| Mode { current: enabled, pending: enabled });
        let mode = gpu.readings.get("mig_mode", &gpu.readings.mig_mode).copied();
        let mode =
            mode.or_else(|code| if code == super::NOT_SUPPORTED { plain.ok_or(code) } else { Err(code) })?;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write_mode(mode, current, pending) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: Handle,
    kind: c_uint,
    counter: c_uint,
    target: *mut c_ulonglong,
) -> Return {
    ask("nvmlDeviceGetTotalEccErrors", device, |gpu| {
        let count = match (kind, counter) {
            (0, 0) => *get!(gpu.ecc_corrected),
            (1, 0) => *get!(gpu.ecc_uncorrected),
            (0, _) => *get!(gpu.ecc_corrected_total),
            (_, _) => *get!(gpu.ecc_uncorrected_total),
        };
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(target, count) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: Handle,
    corrected: *mut c_uint,
    uncorrected: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetRemappedRows", device, |gpu| {
        let rows = get!(gpu.remapped_rows);
        let values = [rows.corrected, rows.uncorrected, rows.pending.into(), rows.failed.into()];
        for (target, value) in [corrected, uncorrected, pending, failed].into_iter().zip(values) {
            // SAFETY: the caller keeps to nvml.h.
            unsafe { write(target, value)? };
        }
        Ok(())
    })
}

/// # Safety
/// `count` and the lists are null or valid as nvml.h has it.
unsafe fn write_pages(
    gpu: &Gpu,
    cause: c_uint,
    count: *mut c_uint,
    lists: &[*mut c_ulonglong],
) -> Result<(), Return> {
    let pages = match cause {
        0 => *get!(gpu.retired_pages_corrected),
        _ => *get!(gpu.retired_pages_uncorrected),
    };
    if count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller keeps to nvml.h.
    if unsafe { count.replace(pages) } < pages {
        return Err(INSUFFICIENT_SIZE);
    }
    for list in lists {
        for page in 0..pages as usize {
            // SAFETY: there is room for as many.
            unsafe { list.add(page).write(0x1000 * page as c_ulonglong) };
        }
    }
    Ok(())
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRetiredPages(
    device: Handle,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
) -> Return {
    // SAFETY: the caller keeps to nvml.h.
    ask("nvmlDeviceGetRetiredPages", device, |gpu| unsafe { write_pages(gpu, cause, count, &[addresses]) })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRetiredPages_v2(
    device: Handle,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
    times: *mut c_ulonglong,
) -> Return {
    ask("nvmlDeviceGetRetiredPages_v2", device, |gpu| {
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write_pages(gpu, cause, count, &[addresses, times]) }
    })
}

/// What a GPU says of another one.
fn peer(gpu: &Gpu, other: Handle) -> Result<&super::readings::Peer, Return> {
    let index = place_of(other) as u32;
    get!(gpu.peers).iter().find(|peer| peer.index == index).ok_or(super::NOT_SUPPORTED)
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    device: Handle,
    other: Handle,
    target: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetTopologyCommonAncestor", device, |gpu| {
        let level = number_of(&PATHS, peer(gpu, other)?.path.as_deref().ok_or(super::NOT_SUPPORTED)?)?;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(target, level) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetP2PStatus(
    device: Handle,
    other: Handle,
    _capability: c_uint,
    target: *mut c_uint,
) -> Return {
    ask("nvmlDeviceGetP2PStatus", device, |gpu| {
        let status = number_of(&P2P, peer(gpu, other)?.p2p.as_deref().ok_or(super::NOT_SUPPORTED)?)?;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(target, status) }
    })
}
