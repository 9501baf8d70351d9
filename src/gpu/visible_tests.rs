//! The rule of ROCm's and Level Zero's variables as tables.

use super::super::{Access, Chosen, Gpu, GpuRequest, NodeAccess, granted, select};
use super::*;

use NodeAccess::{DeniedByCgroup as Denied, Open};

/// Four GPUs of a vendor, with tiles of that number.
fn node(vendor: &str, tiles: Option<u32>) -> Inventory {
    let gpus = (0..4).map(|index| Gpu {
        index,
        minor: 128 + index,
        node: format!("/dev/dri/renderD{}", 128 + index).into(),
        tiles,
        ..Gpu::default()
    });
    Inventory { vendor: Some(vendor.into()), gpus: gpus.collect(), ..Inventory::default() }
}

fn job(in_job: bool, pairs: &[(&str, &str)]) -> JobGpus {
    let mut job = JobGpus { in_job, ..JobGpus::default() };
    for (name, value) in pairs {
        let value = (*value).to_owned();
        match *name {
            "STEP" => job.step = Some(value),
            "CUDA_VISIBLE_DEVICES" => job.visible = Some(value),
            "ZE_FLAT_DEVICE_HIERARCHY" => job.counts_tiles = true,
            _ => drop(job.others.insert((*name).to_owned(), value)),
        }
    }
    job
}

fn choose(inventory: &Inventory, nodes: [NodeAccess; 4], job: &JobGpus, request: &str) -> Chosen {
    let access: Access =
        inventory.gpus.iter().zip(nodes).map(|(gpu, answer)| (gpu.node.clone(), answer)).collect();
    let owned = granted(inventory, job, &access);
    select(inventory, &owned, &GpuRequest::parse(request).unwrap()).unwrap()
}

/// GPUs that are chosen, and what the variables become (`ROCR=0,1 HIP=1`).
fn check(inventory: &Inventory, nodes: [NodeAccess; 4], job: &JobGpus, request: &str, expected: &str) {
    let chosen = choose(inventory, nodes, job, request);
    let gpus: Vec<String> = chosen.all_gpus().iter().map(usize::to_string).collect();
    let mut words = vec![gpus.join(",")];
    words.extend(chosen.visible_devices.iter().map(|(name, value)| {
        let name = name.replace("_VISIBLE_DEVICES", "").replace("_DEVICE_ORDINAL", "");
        format!("{name}={value}")
    }));
    assert_eq!(words.join(" "), expected, "{job:?} {request}");
}

#[test]
fn rocm_counts_within_what_the_outer_variable_leaves() {
    let amd = node("amd", None);
    let free = [Open; 4];
    let check = |nodes: [NodeAccess; 4], pairs: &[(&str, &str)], request: &str, expected: &str| {
        check(&amd, nodes, &job(true, pairs), request, expected);
    };
    // A fence: numbers are those of the inside already.
    let fence = [Denied, Open, Denied, Open];
    check(fence, &[("ROCR_VISIBLE_DEVICES", "0,1"), ("HIP_VISIBLE_DEVICES", "1")], "job", "1,3");
    check(fence, &[("ROCR_VISIBLE_DEVICES", "0,1")], "device=3", "3 ROCR=0");
    // None: numbers are the node's, and become those of the inside.
    check(free, &[("ROCR_VISIBLE_DEVICES", "2,3")], "job", "2,3 ROCR=0,1");
    check(free, &[("ROCR_VISIBLE_DEVICES", "3,1")], "job", "1,3 ROCR=1,0");
    check(
        free,
        &[("STEP", "1,2,3"), ("ROCR_VISIBLE_DEVICES", "3,1"), ("HIP_VISIBLE_DEVICES", "0")],
        "job",
        "1,2,3 ROCR=2,0 HIP=0",
    );
    // What is left out moves the inner numbers.
    check(
        free,
        &[("ROCR_VISIBLE_DEVICES", "1,2,3"), ("HIP_VISIBLE_DEVICES", "2,0")],
        "device=2,3",
        "2,3 ROCR=0,1 HIP=1",
    );
    check(
        free,
        &[("ROCR_VISIBLE_DEVICES", "1,2"), ("HIP_VISIBLE_DEVICES", "0")],
        "device=2",
        "2 ROCR=0 HIP=0",
    );
    // The inner one alone, and CUDA's name for it.
    check(free, &[("HIP_VISIBLE_DEVICES", "2,3")], "job", "2,3 HIP=0,1");
    check(free, &[("CUDA_VISIBLE_DEVICES", "2")], "job", "2 CUDA=0");
    // Slurm tells all one list.
    check(
        free,
        &[("STEP", "2,3"), ("ROCR_VISIBLE_DEVICES", "2,3"), ("GPU_DEVICE_ORDINAL", "2,3")],
        "job",
        "2,3 ROCR=0,1 GPU=0,1",
    );
    // A container in a container: the nodes of the others are missing, and the numbers are those of the outer one.
    let nested = [NodeAccess::Missing, Open, NodeAccess::Missing, Open];
    check(nested, &[("ROCR_VISIBLE_DEVICES", "0,1")], "job", "1,3");
    check(nested, &[("STEP", "1,3"), ("ROCR_VISIBLE_DEVICES", "0,1")], "device=3", "3 ROCR=0");
    // All that the runtime sees, or a list that cannot be read: nothing changes.
    check(free, &[("STEP", "0-3"), ("ROCR_VISIBLE_DEVICES", "2")], "job", "0,1,2,3");
    check(free, &[("STEP", "2"), ("ROCR_VISIBLE_DEVICES", "9")], "job", "2");
    check(free, &[("STEP", "2"), ("ROCR_VISIBLE_DEVICES", "")], "job", "2");
}

#[test]
fn nodes_that_other_flags_give_are_counted() {
    let amd = node("amd", None);
    let access = amd.gpus.iter().map(|gpu| (gpu.node.clone(), Open)).collect();
    let check = |other: &str, expected: Option<&str>| {
        let owned = granted(&amd, &job(true, &[("ROCR_VISIBLE_DEVICES", "1,3")]), &access);
        let request = GpuRequest { other_nodes: vec![other.into()], ..GpuRequest::default() };
        let chosen = select(&amd, &owned, &request).unwrap();
        let told = chosen.visible_devices.first().map(|(_, value)| value.as_str());
        assert_eq!((chosen.all_gpus(), told), (vec![1, 3], expected), "{other}");
    };
    check("/dev/dri", None);
    check("/dev", None);
    check("/dev/dri/renderD128", Some("1,2"));
    check("/dev/dri/renderD12", Some("0,1"));
}

#[test]
fn gpus_of_another_vendor_are_not_what_was_asked_for() {
    let amd = node("amd", None);
    let access = amd.gpus.iter().map(|gpu| (gpu.node.clone(), Open)).collect();
    let owned = granted(&amd, &JobGpus::default(), &access);
    let select = |text: &str| select(&amd, &owned, &GpuRequest::parse(text).unwrap());
    assert_eq!(select("driver=amd,count=1").unwrap().all_gpus(), [0]);
    assert_eq!(
        select("driver=nvidia,count=1").unwrap_err().to_string(),
        "--gpus 1: this node has no GPU that can be used: its GPUs are of the amd driver"
    );
}

#[test]
fn level_zero_counts_gpus_or_tiles() {
    let intel = node("intel", Some(2));
    let check = |pairs: &[(&str, &str)], request: &str, expected: &str| {
        check(&intel, [Open; 4], &job(true, pairs), request, &expected.replace("ZE", "ZE_AFFINITY_MASK"));
    };
    check(&[("ZE_AFFINITY_MASK", "2")], "job", "2 ZE=0");
    check(&[("ZE_AFFINITY_MASK", "1.1,3.0")], "job", "1,3 ZE=0.1,1.0");
    check(&[("STEP", "1,2,3"), ("ZE_AFFINITY_MASK", "1.1,3")], "device=2,3", "2,3 ZE=1");
    check(&[("ZE_AFFINITY_MASK", "0,1,2,3")], "job", "0,1,2,3");
    let flat = ("ZE_FLAT_DEVICE_HIERARCHY", "FLAT");
    check(&[flat, ("ZE_AFFINITY_MASK", "5,6,7")], "job", "2,3 ZE=1,2,3");
    check(&[flat, ("ZE_AFFINITY_MASK", "5,7")], "device=3", "3 ZE=1");
    check(&[flat, ("STEP", "1,2"), ("ZE_AFFINITY_MASK", "2,3,4")], "device=2", "2 ZE=0");
    check(&[flat, ("STEP", "1"), ("ZE_AFFINITY_MASK", "6")], "job", "1 ZE=0,1");
    check(&[flat, ("STEP", "1"), ("ZE_AFFINITY_MASK", "8")], "job", "1");
}

#[test]
fn gaudi_keeps_the_numbers_of_the_host() {
    let gaudi = node("gaudi", None);
    check(&gaudi, [Open; 4], &job(true, &[("HABANA_VISIBLE_DEVICES", "1,2")]), "job", "1,2");
    check(&gaudi, [Open; 4], &job(true, &[("HABANA_VISIBLE_DEVICES", "all")]), "job", "0,1,2,3");
}

#[test]
fn a_job_without_gpus_is_told_in_the_vendors_words() {
    let amd = node("amd", None);
    let access = amd.gpus.iter().map(|gpu| (gpu.node.clone(), Open)).collect();
    assert_eq!(
        granted(&amd, &job(true, &[]), &access).reason,
        "the job was given none: SLURM_STEP_GPUS, SLURM_JOB_GPUS, ROCR_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES, \
         GPU_DEVICE_ORDINAL and CUDA_VISIBLE_DEVICES are unset"
    );
}
