//! MIG on a node of three GPUs: one divided, one to be divided, one whole.

use super::super::{
    Access, Chosen, Gpu, GpuError, GpuRequest, Inventory, NodeAccess, granted, needs_nvml, read_access,
    select,
};
use super::*;
use crate::grants::JobGpus;

fn node() -> Inventory {
    let instance = |index: u32, gi: u32, ci: u32| MigInstance {
        index,
        uuid: Some(format!("MIG-{index}{index}{index}-x")),
        gpu_instance: gi,
        compute_instance: ci,
        gpu_instance_minor: Some(3 + gi * 9),
        compute_instance_minor: Some(4 + gi * 9 + ci),
        ..MigInstance::default()
    };
    let gpu = |index: u32, mig_enabled: bool, instances: Vec<MigInstance>| Gpu {
        index,
        minor: index,
        uuid: Some(format!("GPU-{index}{index}{index}-x")),
        node: format!("/dev/nvidia{index}").into(),
        mig_enabled: Some(mig_enabled),
        instances,
        ..Gpu::default()
    };
    let gpus = vec![
        gpu(0, true, vec![instance(0, 1, 0), instance(1, 2, 0), instance(2, 2, 1)]),
        gpu(1, true, Vec::new()),
        gpu(2, false, Vec::new()),
    ];
    Inventory { vendor: Some("nvidia".into()), gpus, ..Inventory::default() }
}

/// Every node is open but those that are named.
fn access(denied: &[&str]) -> Access {
    let root = super::super::HostRoot::new("/nonexistent");
    let nodes = read_access(&root, &node()).into_keys();
    nodes
        .map(|path| {
            let is_denied = denied.iter().any(|name| path.ends_with(name));
            (path, if is_denied { NodeAccess::DeniedByCgroup } else { NodeAccess::Open })
        })
        .collect()
}

fn job(step: Option<&str>, visible: Option<&str>) -> JobGpus {
    let own = |text: Option<&str>| text.map(str::to_owned);
    JobGpus { in_job: true, step: own(step), visible: own(visible), ..JobGpus::default() }
}

fn choose(denied: &[&str], job: &JobGpus, request: &str) -> Result<Chosen, GpuError> {
    let node = node();
    select(&node, &granted(&node, job, &access(denied)), &GpuRequest::parse(request).unwrap())
}

fn words(chosen: &Chosen) -> String {
    node().words_of(&chosen.devices)
}

/// What CUDA_VISIBLE_DEVICES becomes.
fn told(chosen: &Chosen) -> Option<&str> {
    chosen.visible_devices.first().map(|(_, value)| value.as_str())
}

#[test]
fn instances_are_chosen_by_every_name() {
    let check = |job: &JobGpus, request: &str, expected: &str| {
        let shown = choose(&[], job, request).map_or_else(|error| error.to_string(), |chosen| words(&chosen));
        assert_eq!(shown, expected, "{request}");
    };
    let free = JobGpus::default();
    check(&free, "job", "GPU 2 and MIG 0:0, 0:1, 0:2");
    check(&free, "2", "MIG 0:0, 0:1");
    check(&free, "device=0:1", "MIG 0:1");
    check(&free, "device=MIG-111-x", "MIG 0:1");
    check(&free, "device=mig-11", "MIG 0:1");
    check(&free, "device=MIG-GPU-000-x/2/1", "MIG 0:2");
    check(&free, "device=0:0,2", "GPU 2 and MIG 0:0");
    check(&free, "device=0", "MIG 0:0, 0:1, 0:2");
    check(&free, "device=GPU-000-x", "MIG 0:0, 0:1, 0:2");
    let present = "on this node, which has GPU 1, 2 and MIG 0:0, 0:1, 0:2";
    for device in ["0:3", "2:0", "MIG-9", "MIG-", "MIG-GPU-000-x/2/2", "0:0:0"] {
        check(
            &free,
            &format!("device={device}"),
            &format!("--gpus device={device}: there is no GPU `{device}` {present}"),
        );
    }
    check(
        &free,
        "device=1",
        "--gpus device=1: GPU 1 cannot be used: MIG is enabled on it and it has no instances, without which nothing can \
         use it",
    );
    // The numbers of Slurm count instances as well, so that its UUIDs decide.
    let step = job(Some("0,3"), Some("MIG-111-x"));
    check(&step, "job", "MIG 0:1");
    check(
        &step,
        "device=0",
        "--gpus device=0: asked for MIG 0:0, 0:1, 0:2, but the job owns MIG 0:1 (CUDA_VISIBLE_DEVICES=MIG-111-x)",
    );
    check(
        &step,
        "device=0:0,2",
        "--gpus device=0:0,2: asked for GPU 2 and MIG 0:0, but the job owns MIG 0:1 (CUDA_VISIBLE_DEVICES=MIG-111-x)",
    );
    check(
        &job(Some("1"), None),
        "all",
        "--gpus all: no GPU of this node is yours: SLURM_STEP_GPUS=1; GPU 1 (/dev/nvidia1): MIG is enabled on it and it \
         has no instances, without which nothing can use it",
    );
}

#[test]
fn a_fence_around_capability_nodes_decides() {
    // The job has the instance 2/1: its siblings' nodes and the other GPUs are denied.
    let denied = ["nvidia-cap12", "nvidia-cap13", "nvidia-cap22", "nvidia1", "nvidia2"];
    let chosen = choose(&denied, &job(Some("0"), Some("MIG-222-x")), "job").unwrap();
    assert_eq!((words(&chosen).as_str(), told(&chosen)), ("MIG 0:2", None));
    assert_eq!(
        chosen.notes,
        [
            "GPU 0 (/dev/nvidia0) is divided by MIG; what can be used of it is MIG 0:0, 0:1, 0:2",
            "MIG 0:0 (GPU instance 1, compute instance 0 of /dev/nvidia0) is not inside: the device cgroup denies its node \
             (EPERM)",
            "MIG 0:1 (GPU instance 2, compute instance 0 of /dev/nvidia0) is not inside: the device cgroup denies its node \
             (EPERM)",
            "MIG 0:2 (GPU instance 2, compute instance 1 of /dev/nvidia0) is inside: the kernel denies the others: the \
             device cgroup denies its node (EPERM)",
            "GPU 1 (/dev/nvidia1) is not inside: the device cgroup denies its node (EPERM)",
            "GPU 2 (/dev/nvidia2) is not inside: the device cgroup denies its node (EPERM)",
        ]
    );
}

#[test]
fn visible_devices_become_uuids_where_fewer_are_inside() {
    let check = |request: &str, visible: &str, expected: Option<&str>| {
        let chosen = choose(&[], &JobGpus { visible: Some(visible.into()), ..JobGpus::default() }, request);
        assert_eq!(told(&chosen.unwrap()), expected, "{request} {visible}");
    };
    check("all", "MIG-111-x", None);
    check("device=0:1,2", "MIG-111-x", Some("MIG-111-x"));
    check("device=0:1,2", "2,0", Some("GPU-222-x,MIG-111-x"));
    let mut unnamed = node();
    unnamed.gpus[0].instances.iter_mut().for_each(|instance| instance.uuid = None);
    assert_eq!(unnamed.uuid_of(Device { gpu: 0, instance: Some(2) }).as_deref(), Some("MIG-GPU-000-x/2/1"));
}

#[test]
fn nvml_is_asked_only_for_what_it_alone_knows() {
    let mut node = node();
    node.gpus[1].mig_enabled = None;
    let check = |node: &Inventory, visible: Option<&str>, request: &str, expected: bool| {
        let request = GpuRequest::parse(request).unwrap();
        assert_eq!(needs_nvml(node, &job(None, visible), &request), expected, "{visible:?} {request:?}");
    };
    check(&node, None, "job", false);
    check(&node, Some("MIG-111-x"), "device=0:1", false);
    check(&node, Some("MIG-9"), "job", true);
    check(&node, Some("MIG-9"), "none", false);
    let mut unnamed = node.clone();
    unnamed.gpus[0].instances[1].uuid = None;
    check(&unnamed, None, "job", false);
    check(&unnamed, Some("0"), "job", true);
    check(&unnamed, None, "device=0:1", true);
    unnamed.gpus[0].instances.clear();
    check(&unnamed, Some("MIG-9"), "device=MIG-9", true);
    unnamed.gpus[0].mig_enabled = Some(false);
    check(&unnamed, Some("MIG-9"), "device=MIG-9", false);
}

#[test]
fn names_are_kept_for_the_same_division_alone() {
    let old = node().gpus.remove(0);
    let fresh = |ids: &[(u32, u32)]| {
        let instance = |(index, (gpu_instance, compute_instance))| MigInstance {
            index,
            gpu_instance,
            compute_instance,
            ..MigInstance::default()
        };
        let instances = (0..).zip(ids.iter().copied()).map(instance).collect();
        let mut gpu = Gpu { instances, ..Gpu::default() };
        keep_names(&mut gpu, &old);
        gpu.instances.into_iter().map(|instance| instance.uuid.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(fresh(&[(1, 0), (2, 0), (2, 1)]), [true; 3]);
    assert_eq!(fresh(&[(1, 0), (2, 0)]), [false; 2]);
}

#[test]
fn nvml_gives_names_and_order() {
    let mut gpu = node().gpus.remove(0);
    let instance = |index, gpu_instance, compute_instance| MigInstance {
        index,
        uuid: Some(format!("MIG-new{index}")),
        profile: Some("1g.5gb".into()),
        gpu_instance,
        compute_instance,
        ..MigInstance::default()
    };
    let found = NvmlGpu {
        mig_enabled: Some(true),
        instances: vec![instance(0, 2, 1), instance(1, 2, 0), instance(2, 1, 0), instance(3, 9, 0)],
        ..NvmlGpu::default()
    };
    let mut findings = Vec::new();
    merge_instances(&mut gpu, &found, &mut findings);
    let rows: Vec<_> =
        gpu.instances.iter().map(|one| (one.index, one.ids(), one.compute_instance_minor)).collect();
    assert_eq!(rows, [(0, (2, 1), Some(23)), (1, (2, 0), Some(22)), (2, (1, 0), Some(13))]);
    assert_eq!(
        findings,
        ["NVML shows GPU instance 9, compute instance 0 of /dev/nvidia0, which the driver's procfs does not"]
    );
}

#[test]
fn profiles_are_called_as_nvidia_calls_them() {
    let check = |slices: (u32, u32), mib: u64, whole_mib: u64, expected: Option<&str>| {
        assert_eq!(profile_words(slices.0, slices.1, mib, whole_mib << 20).as_deref(), expected);
    };
    check((1, 1), 4864, 40536, Some("1g.5gb"));
    check((2, 2), 9856, 40536, Some("2g.10gb"));
    check((3, 3), 19968, 40536, Some("3g.20gb"));
    check((3, 1), 19968, 40536, Some("1c.3g.20gb"));
    check((7, 7), 40192, 40536, Some("7g.40gb"));
    check((1, 1), 9856, 81559, Some("1g.10gb"));
    check((3, 3), 40448, 81559, Some("3g.40gb"));
    check((1, 1), 4864, 0, None);
}
