//! Words about GPUs: what a job was given, what is asked for, and what an image needs.

use slipway::gpu::{
    self, Access, Chosen, Device, Gpu, GpuRequest, Inventory, MigInstance, NodeAccess, granted, select,
};
use slipway::grants::JobGpus;

/// Longest text that is looked at: of a longer requirement only the head counts.
const MAX_BYTES: usize = 4096;

/// Twelve GPUs, the last of which is divided; minors run against the indices.
fn inventory() -> Inventory {
    let mig = |index| MigInstance {
        index,
        uuid: Some(format!("MIG-{index}0000000-0000-0000-0000-000000000000")),
        gpu_instance: index + 1,
        gpu_instance_minor: Some(100 + index),
        compute_instance_minor: Some(200 + index),
        ..MigInstance::default()
    };
    let gpu = |index: u32| Gpu {
        index,
        name: Some("NVIDIA A100-SXM4-40GB".into()),
        uuid: Some(format!("GPU-{index:08x}-0000-0000-0000-000000000000")),
        minor: 11 - index,
        node: format!("/dev/nvidia{}", 11 - index).into(),
        instances: if index == 11 { vec![mig(0), mig(1)] } else { Vec::new() },
        ..Gpu::default()
    };
    Inventory {
        vendor: Some("nvidia".into()),
        driver_version: Some("550.54.15".into()),
        cuda_version: Some("12.4".into()),
        gpus: (0..12).map(gpu).collect(),
        ..Inventory::default()
    }
}

/// Three lines are the step's GPUs, CUDA_VISIBLE_DEVICES and `--gpus`. What is owned can be used, each device once and in
/// order; what is chosen is owned; what is said of CUDA's devices inside names none that is not there.
pub(crate) fn job(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n').map(str::to_owned);
    let (step, visible, asked) = (lines.next(), lines.next(), lines.next().unwrap_or_default());
    let inventory = inventory();
    let fence = data.first().copied().unwrap_or_default();
    let mut access = Access::new();
    for (gpu, bit) in inventory.gpus.iter().zip(0_u32..) {
        // One node in a few is another job's, if the first byte is no digit.
        let is_denied = !fence.is_ascii_digit() && (u32::from(fence) >> (bit % 8)) & 1 == 0;
        let answer = if is_denied { NodeAccess::DeniedByCgroup } else { NodeAccess::Open };
        access.insert(gpu.node.clone(), answer);
        let nodes = gpu.instances.iter().flat_map(MigInstance::capability_nodes);
        access.extend(nodes.map(|node| (node, NodeAccess::Open)));
    }
    let job = JobGpus { in_job: true, step, visible, ..JobGpus::default() };
    let owned = granted(&inventory, &job, &access);
    assert!(owned.devices.is_sorted_by(|a, b| a < b), "{owned:?}");
    assert!(owned.devices.iter().all(|device| owned.usable.contains(device)), "{owned:?}");
    assert_eq!(owned.devices.len() + owned.others.len(), inventory.devices().len());
    let Ok(request) = GpuRequest::parse(&asked) else { return };
    match select(&inventory, &owned, &request) {
        Ok(chosen) => {
            assert!(chosen.devices.iter().all(|device| owned.devices.contains(device)), "{chosen:?}");
            for (name, list) in &chosen.visible_devices {
                assert!(list.split(',').count() <= chosen.devices.len(), "{name}: {chosen:?}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Any value is a requirement that holds, or an error that names it. With an alternative that holds it does hold, and a
/// host that nothing is known of meets all.
pub(crate) fn require(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data.get(..MAX_BYTES).unwrap_or(data)) else { return };
    let inventory = inventory();
    let chosen = Chosen { devices: vec![Device::whole(0), Device::whole(1)], ..Chosen::default() };
    let check = |inventory: &Inventory, value: &str| {
        gpu::check_image(inventory, &chosen, &[format!("NVIDIA_REQUIRE_CUDA={value}")])
    };
    if let Err(error) = check(&inventory, value) {
        let text = error.to_string();
        assert!(text.contains("NVIDIA_REQUIRE_CUDA") && text.contains("CUDA 12.4"), "{text}");
    }
    assert_eq!(check(&inventory, &format!("{value} cuda>=1.0")), Ok(()));
    let unknown =
        Inventory { vendor: inventory.vendor.clone(), gpus: vec![Gpu::default(); 2], ..Inventory::default() };
    assert_eq!(check(&unknown, value), Ok(()));
}
