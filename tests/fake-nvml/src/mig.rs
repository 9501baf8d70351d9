//! MIG: the MIG devices of a GPU, and what is asked of them.

use super::scenario::Mig;
use super::{Handle, INVALID_ARGUMENT, NOT_FOUND, Return, ask, handle_of, mig_of, place_of, write};
use std::ffi::{c_uint, c_ulonglong};
use std::ptr;

/// `nvmlDeviceAttributes_t`.
#[repr(C)]
pub struct Attributes {
    multiprocessors: c_uint,
    copy_engines: c_uint,
    decoders: c_uint,
    encoders: c_uint,
    jpegs: c_uint,
    ofas: c_uint,
    gpu_slices: c_uint,
    compute_slices: c_uint,
    memory_mib: c_ulonglong,
}

/// As many as any GPU can have: NVML counts the possible ones, not those that there are.
const MOST: c_uint = 7;

/// Asks one fact of one MIG device.
fn ask_mig(function: &str, handle: Handle, work: impl FnOnce(&Mig) -> Result<(), Return>) -> Return {
    ask(function, handle, |_| work(mig_of(handle)?.ok_or(INVALID_ARGUMENT)?))
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, count: *mut c_uint) -> Return {
    ask("nvmlDeviceGetMaxMigDeviceCount", device, |gpu| {
        let most = if gpu.mig_enabled.is_some() { MOST } else { 0 };
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(count, most) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Handle,
    index: c_uint,
    mig: *mut Handle,
) -> Return {
    ask("nvmlDeviceGetMigDeviceHandleByIndex", device, |gpu| {
        let place = index as usize;
        gpu.mig.get(place).ok_or(NOT_FOUND)?;
        let handle = handle_of(place_of(device)).addr() | (place + 1) << 16;
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(mig, ptr::without_provenance_mut(handle)) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    mig: Handle,
    device: *mut Handle,
) -> Return {
    ask_mig("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", mig, |_| {
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(device, handle_of(place_of(mig))) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceIsMigDeviceHandle(device: Handle, is_mig: *mut c_uint) -> Return {
    ask("nvmlDeviceIsMigDeviceHandle", device, |_| {
        let answer = c_uint::from(mig_of(device)?.is_some());
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(is_mig, answer) }
    })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: Handle, id: *mut c_uint) -> Return {
    // SAFETY: the caller keeps to nvml.h.
    ask_mig("nvmlDeviceGetGpuInstanceId", device, |mig| unsafe { write(id, mig.gpu_instance) })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeInstanceId(device: Handle, id: *mut c_uint) -> Return {
    // SAFETY: the caller keeps to nvml.h.
    ask_mig("nvmlDeviceGetComputeInstanceId", device, |mig| unsafe { write(id, mig.compute_instance) })
}

/// # Safety
/// See [`super::nvmlInit_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetAttributes_v2(device: Handle, attributes: *mut Attributes) -> Return {
    ask_mig("nvmlDeviceGetAttributes_v2", device, |mig| {
        let all = Attributes {
            multiprocessors: 14 * mig.gpu_slices,
            copy_engines: mig.gpu_slices,
            decoders: 0,
            encoders: 0,
            jpegs: 0,
            ofas: 0,
            gpu_slices: mig.gpu_slices,
            compute_slices: mig.compute_slices,
            memory_mib: mig.memory_mib,
        };
        // SAFETY: the caller keeps to nvml.h.
        unsafe { write(attributes, all) }
    })
}
