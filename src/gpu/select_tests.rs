//! The rule of D19 as tables.

use super::super::{Gpu, Inventory};
use super::*;

/// Four GPUs whose minors are not in PCI order.
fn node() -> Inventory {
    let gpus = [(0, 2), (1, 3), (2, 0), (3, 1)].map(|(index, minor)| Gpu {
        index,
        minor,
        uuid: Some(format!("GPU-{index}{index}{index}-x")),
        pci_address: Some(format!("0000:{}0:00.0", index + 1)),
        node: format!("/dev/nvidia{minor}").into(),
        ..Gpu::default()
    });
    Inventory { vendor: Some("nvidia".into()), gpus: gpus.into(), ..Inventory::default() }
}

fn access(by_index: [NodeAccess; 4]) -> Access {
    node().gpus.iter().zip(by_index).map(|(gpu, answer)| (gpu.node.clone(), answer)).collect()
}

use NodeAccess::{DeniedByCgroup as Cgroup, DeniedByMode as Mode, Missing, OnNodev, Open};

fn job(step: Option<&str>, job: Option<&str>, visible: Option<&str>) -> JobGpus {
    let own = |text: Option<&str>| text.map(str::to_owned);
    JobGpus { in_job: true, step: own(step), job: own(job), visible: own(visible), ..JobGpus::default() }
}

fn whole(gpus: &[usize]) -> Vec<Device> {
    gpus.iter().copied().map(Device::whole).collect()
}

#[test]
fn job_owns_what_the_kernel_allows_else_what_the_scheduler_says() {
    let check = |nodes: [NodeAccess; 4], job: &JobGpus, expected: &[usize], reason: &str| {
        let owned = granted(&node(), job, &access(nodes));
        assert_eq!((owned.devices.as_slice(), owned.reason.as_str()), (whole(expected).as_slice(), reason));
        assert_eq!(owned.devices.len() + owned.others.len(), 4);
    };
    let free = [Open; 4];
    let outside = JobGpus { visible: Some("1".into()), ..JobGpus::default() };
    check(free, &outside, &[0, 1, 2, 3], "not in a job, so every GPU that can be used");
    check([Open, Missing, OnNodev, Open], &outside, &[0, 3], "not in a job, so every GPU that can be used");

    check(free, &job(Some("1,2"), Some("0,1,2"), Some("0")), &[1, 2], "SLURM_STEP_GPUS=1,2");
    check(free, &job(None, Some("0-2"), Some("0")), &[0, 1, 2], "SLURM_JOB_GPUS=0-2");
    check(free, &job(None, None, Some("3")), &[3], "CUDA_VISIBLE_DEVICES=3");
    check(free, &job(None, None, Some("gpu-222")), &[2], "CUDA_VISIBLE_DEVICES=gpu-222");
    check(free, &job(None, None, Some("NoDevFiles")), &[], "CUDA_VISIBLE_DEVICES=NoDevFiles");
    check(free, &job(Some(""), None, None), &[], "SLURM_STEP_GPUS=");
    check(free, &job(Some("9"), None, None), &[], "SLURM_STEP_GPUS=9, where `9` is no GPU of this node");
    check(
        free,
        &job(None, None, None),
        &[],
        "the job was given none: SLURM_STEP_GPUS, SLURM_JOB_GPUS and CUDA_VISIBLE_DEVICES are unset",
    );

    // Slurm 22.05 tells every task STEP_GPUS=0 while their cgroups differ.
    let cgroup = "the kernel denies the others: the device cgroup denies its node (EPERM)";
    check([Cgroup, Cgroup, Open, Cgroup], &job(Some("0"), None, Some("0")), &[2], cgroup);
    check([Open, Cgroup, Open, Missing], &outside, &[0, 2], cgroup);
    check(
        [Mode; 4],
        &outside,
        &[],
        "the kernel denies every GPU: mode or group of its node deny it (EACCES)",
    );

    let by_gres = JobGpus { minors: Some(vec![0, 1, 2, 3]), ..job(Some("0,3"), None, None) };
    check(free, &by_gres, &[1, 2], "SLURM_STEP_GPUS=0,3");
}

fn choose(nodes: [NodeAccess; 4], job: &JobGpus, request: &str) -> Result<Chosen, GpuError> {
    select(&node(), &granted(&node(), job, &access(nodes)), &GpuRequest::parse(request).unwrap())
}

#[test]
fn request_takes_from_what_is_owned() {
    let check = |job: &JobGpus, request: &str, expected: &[usize]| {
        assert_eq!(choose([Open; 4], job, request).unwrap().devices, whole(expected), "{request}");
    };
    let step = job(Some("1,2"), None, None);
    check(&step, "job", &[1, 2]);
    check(&step, "all", &[1, 2]);
    check(&step, "none", &[]);
    check(&step, "1", &[1]);
    check(&step, "device=2", &[2]);
    check(&step, "device=GPU-111,2,2", &[1, 2]);
    check(&step, "device=0000:20:00.0,00000000:30:00.0", &[1, 2]);
    check(&job(Some(""), None, None), "job", &[]);

    let refuse = |job: &JobGpus, request: &str, expected: &str| {
        assert_eq!(choose([Open; 4], job, request).unwrap_err().to_string(), expected);
    };
    refuse(&step, "3", "--gpus 3: asked for 3 GPUs, but the job owns GPU 1, 2 (SLURM_STEP_GPUS=1,2)");
    refuse(
        &step,
        "device=0,1",
        "--gpus device=0,1: asked for GPU 0, 1, but the job owns GPU 1, 2 (SLURM_STEP_GPUS=1,2)",
    );
    refuse(&step, "device=4", "--gpus device=4: there is no GPU `4` on this node, which has GPU 0, 1, 2, 3");
    refuse(
        &step,
        "device=GPU-9",
        "--gpus device=GPU-9: there is no GPU `GPU-9` on this node, which has GPU 0, 1, 2, 3",
    );
    refuse(&job(Some(""), None, None), "all", "--gpus all: no GPU of this node is yours: SLURM_STEP_GPUS=");
}

#[test]
fn node_without_driver_fails_only_where_gpus_were_asked_for() {
    let bare = Inventory::default();
    let owned = granted(&bare, &JobGpus::default(), &Access::new());
    let request = |text: &str| select(&bare, &owned, &GpuRequest::parse(text).unwrap());
    for soft in ["job", "none"] {
        assert_eq!(request(soft).unwrap().devices, []);
    }
    for hard in ["all", "1", "device=0"] {
        assert_eq!(
            request(hard).unwrap_err().to_string(),
            format!(
                "--gpus {hard}: this node has no GPU that can be used: no NVIDIA driver is loaded (neither \
                 /sys/module/nvidia nor /proc/driver/nvidia nor /dev/nvidiactl exists); no AMD GPU \
                 (/sys/class/kfd); no discrete Intel GPU; no Gaudi"
            )
        );
    }
}

/// What CUDA_VISIBLE_DEVICES becomes.
fn told(chosen: &Chosen) -> Option<&str> {
    chosen.visible_devices.first().map(|(_, value)| value.as_str())
}

#[test]
fn visible_devices_change_only_when_fewer_gpus_are_inside() {
    let check = |nodes: [NodeAccess; 4], job: &JobGpus, request: &str, expected: Option<&str>| {
        let chosen = choose(nodes, job, request).unwrap();
        assert_eq!(told(&chosen), expected, "{job:?} {request}");
    };
    let free = [Open; 4];
    check(free, &job(Some("0,1,2,3"), None, Some("2")), "job", None);
    check(free, &job(Some("1,2"), None, Some("2,1")), "job", Some("GPU-222-x,GPU-111-x"));
    check(free, &job(Some("1,2"), None, Some("2,1")), "device=1", Some("GPU-111-x"));
    check(free, &job(Some("1,2"), None, Some("2")), "device=1", Some("GPU-111-x"));
    check(free, &job(Some("1,2"), None, None), "job", None);
    check(free, &job(Some("1,2"), None, Some("")), "job", None);
    check(free, &job(Some("1,2"), None, Some("MIG-7")), "job", None);
    // Fenced: numbers count what is inside the fence, and stay.
    check([Cgroup, Open, Cgroup, Open], &job(Some("0,1"), None, Some("0,1")), "job", None);
    check([Cgroup, Open, Cgroup, Open], &job(Some("0,1"), None, Some("1")), "1", Some("GPU-111-x"));

    let mut unnamed = node();
    unnamed.gpus.iter_mut().for_each(|gpu| gpu.uuid = None);
    let owned = granted(&unnamed, &job(Some("1,2"), None, Some("2")), &access(free));
    let chosen = select(&unnamed, &owned, &GpuRequest::default()).unwrap();
    assert_eq!(told(&chosen), Some("1"));
}

#[test]
fn every_gpu_is_explained() {
    let chosen = choose([Open, Open, Missing, Open], &job(Some("0,1,2"), None, None), "1").unwrap();
    assert_eq!(
        chosen.notes,
        [
            "GPU 0 (/dev/nvidia2) is inside: --gpus 1; SLURM_STEP_GPUS=0,1,2",
            "GPU 1 (/dev/nvidia3) is not inside: --gpus 1 leaves it out",
            "GPU 2 (/dev/nvidia0) is not inside: it has no device node",
            "GPU 3 (/dev/nvidia1) is not inside: SLURM_STEP_GPUS=0,1,2",
        ]
    );
}
