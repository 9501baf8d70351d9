//! Functions of NVML for which `nvml-wrapper` has no method.

use std::ffi::{c_int, c_uint};

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError as Code, nvml_sym, nvml_try};

/// Where a GPU is in the fabric of NVSwitches, as NVML writes it.
#[derive(Debug, Clone, Copy)]
pub struct FabricInfo {
    /// Which fabric.
    pub cluster_uuid: [u8; 16],
    /// Code of how joining it ended.
    pub status: u32,
    /// Which part of it.
    pub clique: u32,
    /// 0 not supported, 1 not started, 2 in progress, 3 completed.
    pub state: u32,
    /// Bits of health; `None` from a driver that has none.
    pub health_mask: Option<u32>,
}

/// Rows of memory that are replaced.
#[derive(Debug, Clone, Copy)]
pub struct RowRemaps {
    /// After corrected errors.
    pub corrected: u32,
    /// After uncorrected errors.
    pub uncorrected: u32,
    /// Some wait for a reset.
    pub pending: bool,
    /// A replacement failed.
    pub failed: bool,
}

/// The numbers of the GPU instance and the compute instance that a MIG device is; `None` for any other device, and
/// where the driver is too old to say.
#[must_use]
pub fn mig_ids(device: &Device<'_>) -> Option<(u32, u32)> {
    let library = device.nvml().lib();
    let outer = library.nvmlDeviceGetGpuInstanceId.as_ref().ok()?;
    let inner = library.nvmlDeviceGetComputeInstanceId.as_ref().ok()?;
    let (mut gpu_instance, mut compute_instance): (c_uint, c_uint) = (0, 0);
    // SAFETY: the handle is NVML's own and its library stays loaded as long as `device` borrows it; both functions write
    // one `unsigned int` to a place that is ours.
    let codes = unsafe {
        let handle = device.handle();
        [outer(handle, &raw mut gpu_instance), inner(handle, &raw mut compute_instance)]
    };
    (codes == [0, 0]).then_some((gpu_instance, compute_instance))
}

/// NVML's size and version of a struct in its first field: the second version of `nvmlGpuFabricInfoV_t` has 36 bytes,
/// and the third only more behind them.
const FABRIC_VERSIONS: [c_uint; 2] = [40 | 3 << 24, 36 | 2 << 24];
/// NVML's code for a struct that is newer than the driver.
const ARGUMENT_VERSION: u32 = 25;

/// The GPU's place in the fabric, by the newest function that the driver has.
pub fn fabric(device: &Device<'_>) -> Result<FabricInfo, Code> {
    let library = device.nvml().lib();
    let Ok(function) = library.nvmlDeviceGetGpuFabricInfoV.as_ref() else { return old_fabric(device) };
    let mut refused = Code::NotSupported;
    for version in FABRIC_VERSIONS {
        // SAFETY: the struct has only numbers, for which zero is a value.
        let mut info = unsafe { zeroed_for(*function) };
        info.version = version;
        // SAFETY: the handle is NVML's own and its library stays loaded as long as `device` borrows it; the struct is as
        // large as its newest version, and NVML writes as much as the version says.
        match nvml_try(unsafe { function(device.handle(), &raw mut info) }) {
            Ok(()) => {
                return Ok(FabricInfo {
                    cluster_uuid: info.clusterUuid,
                    status: info.status,
                    clique: info.cliqueId,
                    state: u32::from(info.state),
                    health_mask: Some(info.healthMask),
                });
            }
            Err(Code::UnexpectedVariant(ARGUMENT_VERSION)) => {
                refused = Code::UnexpectedVariant(ARGUMENT_VERSION)
            }
            Err(code) => return Err(code),
        }
    }
    Err(refused)
}

fn old_fabric(device: &Device<'_>) -> Result<FabricInfo, Code> {
    let function = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuFabricInfo.as_ref())?;
    // SAFETY: the struct has only numbers, for which zero is a value.
    let mut info = unsafe { zeroed_for(*function) };
    // SAFETY: as above; this struct has one version.
    nvml_try(unsafe { function(device.handle(), &raw mut info) })?;
    Ok(FabricInfo {
        cluster_uuid: info.clusterUuid,
        status: info.status,
        clique: info.cliqueId,
        state: u32::from(info.state),
        health_mask: None,
    })
}

/// A struct of zeros of the type that an NVML function fills, which has no name outside of the bindings.
///
/// # Safety
/// Zeros must be a value of the struct.
unsafe fn zeroed_for<H, T>(_function: unsafe extern "C" fn(H, *mut T) -> c_uint) -> T {
    // SAFETY: the caller vouches for it.
    unsafe { std::mem::zeroed() }
}

/// Rows of memory that are replaced by spare ones.
pub fn remapped_rows(device: &Device<'_>) -> Result<RowRemaps, Code> {
    let function = nvml_sym(device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let [mut corrected, mut uncorrected, mut pending, mut failed]: [c_uint; 4] = [0; 4];
    // SAFETY: the handle is NVML's own, see above; the function writes four numbers to places that are ours.
    nvml_try(unsafe {
        let counts = (&raw mut corrected, &raw mut uncorrected);
        function(device.handle(), counts.0, counts.1, &raw mut pending, &raw mut failed)
    })?;
    Ok(RowRemaps { corrected, uncorrected, pending: pending != 0, failed: failed != 0 })
}

/// What is at the other end of an NVLink: 0 a GPU, 1 a CPU, 2 a switch. `nvml-wrapper` 0.13.0 has a method for it, which
/// drops what NVML writes and answers "unknown" always.
pub fn link_remote(device: &Device<'_>, link: u32) -> Result<u32, Code> {
    let function = nvml_sym(device.nvml().lib().nvmlDeviceGetNvLinkRemoteDeviceType.as_ref())?;
    let mut kind: c_uint = 0;
    // SAFETY: the handle is NVML's own, see above; the function writes one number to a place that is ours.
    nvml_try(unsafe { function(device.handle(), link, &raw mut kind) })?;
    Ok(kind)
}

/// Place of the module on its board.
pub fn module_id(device: &Device<'_>) -> Result<u32, Code> {
    let function = nvml_sym(device.nvml().lib().nvmlDeviceGetModuleId.as_ref())?;
    let mut id: c_uint = 0;
    // SAFETY: the handle is NVML's own, see above; the function writes one number to a place that is ours.
    nvml_try(unsafe { function(device.handle(), &raw mut id) })?;
    Ok(id)
}

/// Degrees that the die is below its limit.
pub fn temperature_margin(device: &Device<'_>) -> Result<i32, Code> {
    /// Size and version of the struct.
    const VERSION: c_uint = 8 | 1 << 24;
    let function = nvml_sym(device.nvml().lib().nvmlDeviceGetMarginTemperature.as_ref())?;
    // SAFETY: the struct has only numbers, for which zero is a value.
    let mut margin = unsafe { zeroed_for(*function) };
    margin.version = VERSION;
    // SAFETY: the handle is NVML's own, see above; the struct is as large as its version says.
    nvml_try(unsafe { function(device.handle(), &raw mut margin) })?;
    let degrees: c_int = margin.marginTemperature;
    Ok(degrees)
}
