//! Functions of NVML for which `nvml-wrapper` has no method.

use std::ffi::c_uint;

use nvml_wrapper::Device;

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
