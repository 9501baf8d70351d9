//! A `libnvidia-ml.so.1` for tests: NVML's functions answered from a scenario file.
//!
//! The scenario (`tests/fixtures/scenarios/*.toml`) is named by `SLIPWAY_FAKE_NVML_SCENARIO`, else it lies beside this
//! library as `libnvidia-ml.scenario.toml`, so that a child without an environment finds it too. An `[[inject]]` makes a
//! function answer with a code, wait, never return, or end the process (README.md beside this crate). Functions that are not here are missing for a caller, as they
//! are in an old driver. Signatures and structs are those of NVIDIA's `nvml.h`.

#![expect(unsafe_code, reason = "these are the C functions of NVML")]
#![expect(clippy::disallowed_methods, reason = "a test's library finds its scenario by itself")]

mod mig;
mod readings;
mod scenario;
mod telemetry;

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr;

use scenario::{Gpu, Mig, SCENARIO};

/// `nvmlReturn_t`.
type Return = c_uint;

const SUCCESS: Return = 0;
const INVALID_ARGUMENT: Return = 2;
const NOT_SUPPORTED: Return = 3;
const NOT_FOUND: Return = 6;
const INSUFFICIENT_SIZE: Return = 7;
const UNKNOWN: Return = 999;

/// `nvmlDevice_t`: the GPU's place plus one, so that it is never null; of a MIG device, its place plus one 16 bits higher
/// as well.
type Handle = *mut c_void;

/// `nvmlPciInfo_t`.
#[repr(C)]
pub struct PciInfo {
    bus_id_legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device_id: c_uint,
    pci_sub_system_id: c_uint,
    bus_id: [c_char; 32],
}

/// `nvmlMemory_t`.
#[repr(C)]
pub struct Memory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct MemoryV2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// Lets a fault of the scenario act; then answers.
fn answer(function: &str, device: Option<usize>, work: impl FnOnce() -> Result<(), Return>) -> Return {
    let Some(scenario) = SCENARIO.as_ref() else { return UNKNOWN };
    match scenario.fault(function, device) {
        Some(code) => code,
        None => work().err().unwrap_or(SUCCESS),
    }
}

fn place_of(handle: Handle) -> usize {
    (handle.addr() & 0xffff).wrapping_sub(1)
}

/// The MIG device that a handle is one of.
fn mig_of(handle: Handle) -> Result<Option<&'static Mig>, Return> {
    match handle.addr() >> 16 {
        0 => Ok(None),
        place => gpu_of(handle)?.mig.get(place - 1).map(Some).ok_or(INVALID_ARGUMENT),
    }
}

fn handle_of(place: usize) -> Handle {
    ptr::without_provenance_mut(place + 1)
}

fn gpu_of(handle: Handle) -> Result<&'static Gpu, Return> {
    SCENARIO.as_ref().and_then(|scenario| scenario.gpu.get(place_of(handle))).ok_or(INVALID_ARGUMENT)
}

/// Asks one fact of one GPU.
fn ask(function: &str, handle: Handle, work: impl FnOnce(&'static Gpu) -> Result<(), Return>) -> Return {
    answer(function, Some(place_of(handle)), || work(gpu_of(handle)?))
}

/// # Safety
/// `target` is null or valid for a write of `T`.
unsafe fn write<T>(target: *mut T, value: T) -> Result<(), Return> {
    if target.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller vouches for the pointer, and it is not null.
    unsafe { target.write(value) };
    Ok(())
}

/// # Safety
/// `target` is null or valid for writes of `length` bytes.
unsafe fn write_text(target: *mut c_char, length: c_uint, text: &str) -> Result<(), Return> {
    if target.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller vouches for `length` bytes, and text with its NUL is not longer.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast(), target, text.len());
        target.add(text.len()).write(0);
    }
    Ok(())
}

fn fill<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (place, byte) in field.iter_mut().take(N - 1).zip(text.bytes()) {
        *place = byte.cast_signed() as c_char;
    }
    field
}

/// All, free and used bytes.
fn memory_of(gpu: &Gpu) -> Result<(u64, u64, u64), Return> {
    match gpu.readings.get("memory", &gpu.readings.memory) {
        Ok(memory) => Ok((memory.total_bytes, memory.free_bytes, memory.used_bytes)),
        Err(NOT_SUPPORTED) => Ok((gpu.memory_mib << 20, gpu.memory_mib << 20, 0)),
        Err(code) => Err(code),
    }
}

fn find(matches: impl Fn(&Gpu) -> bool) -> Result<usize, Return> {
    SCENARIO.as_ref().and_then(|scenario| scenario.gpu.iter().position(matches)).ok_or(NOT_FOUND)
}

/// # Safety
/// As `nvml.h` says: every pointer argument of every function is null or valid for what the function writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> Return {
    answer("nvmlInit_v2", None, || Ok(()))
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Return {
    answer("nvmlInitWithFlags", None, || Ok(()))
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> Return {
    answer("nvmlShutdown", None, || Ok(()))
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlErrorString(_code: Return) -> *const c_char {
    c"an error of the fake NVML".as_ptr()
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Return {
    let text = SCENARIO.as_ref().and_then(|scenario| scenario.driver_version.as_deref()).unwrap_or_default();
    // SAFETY: the caller keeps to nvml.h.
    answer("nvmlSystemGetDriverVersion", None, || unsafe { write_text(version, length, text) })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Return {
    let number = SCENARIO.as_ref().map_or(0, |scenario| scenario.cuda_version);
    // SAFETY: the caller keeps to nvml.h.
    answer("nvmlSystemGetCudaDriverVersion_v2", None, || unsafe { write(version, number) })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Return {
    let number = SCENARIO.as_ref().map_or(0, |scenario| scenario.gpu.len() as c_uint);
    // SAFETY: the caller keeps to nvml.h.
    answer("nvmlDeviceGetCount_v2", None, || unsafe { write(count, number) })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut Handle) -> Return {
    let place = index as usize;
    answer("nvmlDeviceGetHandleByIndex_v2", Some(place), || {
        gpu_of(handle_of(place))?;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(device, handle_of(place)) }
    })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(id: *const c_char, device: *mut Handle) -> Return {
    answer("nvmlDeviceGetHandleByPciBusId_v2", None, || {
        if id.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: by nvml.h it is a text with a NUL.
        let id = unsafe { CStr::from_ptr(id) }.to_string_lossy();
        let place = find(|gpu| id.to_lowercase().ends_with(&gpu.pci_address.to_lowercase()))?;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(device, handle_of(place)) }
    })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut Handle) -> Return {
    answer("nvmlDeviceGetHandleByUUID", None, || {
        if uuid.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: by nvml.h it is a text with a NUL.
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
        let place = find(|gpu| gpu.uuid == uuid)?;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(device, handle_of(place)) }
    })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: Handle, name: *mut c_char, length: c_uint) -> Return {
    ask("nvmlDeviceGetName", device, |gpu| {
        let profile = mig_of(device)?.and_then(|mig| mig.profile.as_ref());
        let text = profile.map_or_else(|| gpu.name.clone(), |profile| format!("{} MIG {profile}", gpu.name));
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write_text(name, length, &text) }
    })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: Handle, uuid: *mut c_char, length: c_uint) -> Return {
    ask("nvmlDeviceGetUUID", device, |gpu| {
        let text = mig_of(device)?.map_or(&gpu.uuid, |mig| &mig.uuid);
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write_text(uuid, length, text) }
    })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMinorNumber(device: Handle, minor: *mut c_uint) -> Return {
    // SAFETY: the caller keeps to nvml.h.
    ask("nvmlDeviceGetMinorNumber", device, |gpu| unsafe { write(minor, gpu.minor) })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(device: Handle, index: *mut c_uint) -> Return {
    // SAFETY: the caller keeps to nvml.h.
    ask("nvmlDeviceGetIndex", device, |_| unsafe { write(index, place_of(device) as c_uint) })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: Handle, pci: *mut PciInfo) -> Return {
    ask("nvmlDeviceGetPciInfo_v3", device, |gpu| {
        let info = pci_info(&gpu.pci_address)?;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(pci, info) }
    })
}

fn pci_info(address: &str) -> Result<PciInfo, Return> {
    let numbers: Vec<c_uint> = address
        .split([':', '.'])
        .map(|part| c_uint::from_str_radix(part, 16).map_err(|_| UNKNOWN))
        .collect::<Result<_, _>>()?;
    let [domain, bus, number, function] = numbers[..] else { return Err(UNKNOWN) };
    Ok(PciInfo {
        bus_id_legacy: fill(address),
        domain,
        bus,
        device: number,
        pci_device_id: 0x2330_10de,
        pci_sub_system_id: 0x16c1_10de,
        // NVML writes 8 digits of domain, in upper case; procfs 4, in lower.
        bus_id: fill(&format!("{domain:08X}:{bus:02X}:{number:02X}.{function:X}")),
    })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: Handle, memory: *mut Memory) -> Return {
    ask("nvmlDeviceGetMemoryInfo", device, |gpu| {
        let (total, free, used) = memory_of(gpu)?;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(memory, Memory { total, free, used }) }
    })
}

/// # Safety
/// See [`nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Handle, memory: *mut MemoryV2) -> Return {
    ask("nvmlDeviceGetMemoryInfo_v2", device, |gpu| {
        let (total, free, used) = memory_of(gpu)?;
        let version = (size_of::<MemoryV2>() | 2 << 24) as c_uint;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(memory, MemoryV2 { version, total, reserved: 0, free, used }) }
    })
}
