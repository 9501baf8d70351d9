//! AMD's GPUs on the whole way: `slipway gpus`, the plan, and a container that says what it has.

use std::fs;

use crate::gpu_stage::Stage;
use crate::support::host::Host;

/// Prints what a container has: nodes, and the variables of the job.
const LOOK: &str = "cd /dev; ls -d kfd dri/* nvidia* accel/* 2>/dev/null; \
                    echo rocr=$ROCR_VISIBLE_DEVICES hip=$HIP_VISIBLE_DEVICES ordinal=$GPU_DEVICE_ORDINAL";

#[test]
fn mi300_lists_gpus_and_partitions() {
    need_launch!();
    let stage = Stage::new("mi300");
    let env = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "0,3"), ("ROCR_VISIBLE_DEVICES", "0,3")];
    let json = stage.gpus(&env);
    assert_eq!((&json["vendor"], &json["driver_version"]), (&"amd".into(), &"6.12.12".into()));
    assert_eq!(
        (&json["cuda_version"], &json["findings"]),
        (&serde_json::Value::Null, &serde_json::json!([]))
    );
    let gpus = json["gpus"].as_array().unwrap();
    let expected = serde_json::json!({
        "index": 0,
        "name": "AMD Instinct MI300X OAM",
        "uuid": "GPU-7a3c90b1f2d40000",
        "pci_address": "0000:1b:00.0",
        "minor": 128,
        "memory_bytes": 206_141_652_992_u64,
        "node": "/dev/dri/renderD128",
        "owned": true,
        "reason": "SLURM_STEP_GPUS=0,3",
        "mig_enabled": null,
        "mig_instances": [],
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&gpus[0][key], value, "{key}");
    }
    // Partitions share the PCI address and the UUID, which so names none of them.
    let part = |index: usize| {
        let gpu = &gpus[index];
        (gpu["name"].as_str().unwrap(), gpu["uuid"].as_str(), gpu["node"].as_str().unwrap(), &gpu["owned"])
    };
    assert_eq!(
        part(3),
        ("AMD Instinct MI300X OAM, partition 1 of 4", None, "/dev/dri/renderD131", &true.into())
    );
    assert_eq!(gpus[3]["pci_address"], "0000:4e:00.0");
    assert_eq!(gpus[3]["memory_bytes"], 206_141_652_992_u64 / 4);
    assert_eq!((gpus.len(), part(10).2), (11, "/dev/dri/renderD138"));

    let table = stage.table(&env);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "amd driver 6.12.12",
            "INDEX   NAME                                        MEMORY       PCI ADDRESS    MINOR   OWNED   UUID",
            "0       AMD Instinct MI300X OAM                     196592 MiB   0000:1b:00.0   128     yes     GPU-7a3c90b1f2d40000",
            "1       AMD Instinct MI300X OAM                     196592 MiB   0000:3d:00.0   129     no      GPU-7a3c90b1f2d40001",
        ]
    );
}

#[test]
fn container_has_exactly_the_amd_gpus_of_the_job() {
    need_launch!();
    let stage = Stage::new("mi300");
    let look = |flags: &[&str], env: &[(&str, &str)]| {
        stage.look(LOOK, flags, &[&[("SLURM_JOB_ID", "1")], env].concat()).join(" ")
    };
    let job = [("SLURM_STEP_GPUS", "1,3"), ("ROCR_VISIBLE_DEVICES", "1,3"), ("HIP_VISIBLE_DEVICES", "1")];
    assert_eq!(
        look(&[], &job),
        "dri/card2 dri/card4 dri/renderD129 dri/renderD131 kfd rocr=0,1 hip=1 ordinal="
    );
    // Every way of asking is one.
    for flags in [&["--rocm"][..], &["--gpus", "all"], &["--runtime", "amd"], &["--gpus", "device=1,3"]] {
        assert_eq!(look(flags, &job), look(&[], &job), "{flags:?}");
    }
    assert_eq!(look(&["--gpus", "none"], &job), "rocr=1,3 hip=1 ordinal=");
    assert_eq!(look(&["--gpus", "device=3"], &job), "dri/card4 dri/renderD131 kfd rocr=0 hip=0 ordinal=");
    let by_uuid = ["--gpus", "device=GPU-7a3c90b1f2d40001"];
    assert_eq!(look(&by_uuid, &job), "dri/card2 dri/renderD129 kfd rocr=0 hip=0 ordinal=");
    // Slurm's one list for all, and render nodes by gres.conf.
    let all = [("SLURM_STEP_GPUS", "9,10"), ("ROCR_VISIBLE_DEVICES", "9,10"), ("GPU_DEVICE_ORDINAL", "9,10")];
    assert_eq!(
        look(&[], &all),
        "dri/card10 dri/card11 dri/renderD137 dri/renderD138 kfd rocr=0,1 hip= ordinal=0,1"
    );
    let conf = stage.home.path().join("conf");
    fs::create_dir(&conf).unwrap();
    fs::write(conf.join("gres.conf"), "Name=gpu File=/dev/dri/renderD[138,128-137]\n").unwrap();
    let conf = conf.join("slurm.conf");
    let by_gres =
        [("SLURM_CONF", conf.to_str().unwrap()), ("SLURM_STEP_GPUS", "0"), ("ROCR_VISIBLE_DEVICES", "0")];
    assert_eq!(look(&[], &by_gres), "dri/card11 dri/renderD138 kfd rocr=0 hip= ordinal=");
}

#[test]
fn more_than_the_job_owns_is_refused() {
    need_launch!();
    let stage = Stage::new("mi300");
    let job = [("SLURM_JOB_ID", "1"), ("ROCR_VISIBLE_DEVICES", "1,3")];
    let refused = |asked: &str| stage.refusal(&["--gpus", asked], &job);
    let hint = "\n  hint: `slipway gpus` shows which GPUs are the job's\n";
    assert_eq!(
        refused("3"),
        format!(
            "error: --gpus 3: asked for 3 GPUs, but the job owns GPU 1, 3 (ROCR_VISIBLE_DEVICES=1,3){hint}"
        )
    );
    assert_eq!(
        refused("device=0,1"),
        format!(
            "error: --gpus device=0,1: asked for GPU 0, 1, but the job owns GPU 1, 3 (ROCR_VISIBLE_DEVICES=1,3){hint}"
        )
    );
}

/// The line of AMD's own documents, in a job without a fence: it names all nodes, and the numbers of the job stay those of
/// the node.
#[test]
fn amds_idiom_keeps_the_numbers_of_the_host() {
    need_launch!();
    let stage = Stage::new("mi300");
    let job = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "1,3"), ("ROCR_VISIBLE_DEVICES", "1,3")];
    let line = "--device=/dev/kfd --device=/dev/dri --group-add video --ipc=host --shm-size 16G --cap-add=SYS_PTRACE \
                --security-opt seccomp=unconfined";
    let flags: Vec<&str> = line.split_whitespace().collect();
    let inside = stage.look(LOOK, &flags, &job);
    assert_eq!(inside.iter().filter(|line| line.starts_with("dri/renderD")).count(), 11, "{inside:?}");
    assert_eq!(inside.last().unwrap(), "rocr=1,3 hip= ordinal=");
    let inside = stage.look(LOOK, &["--device=/dev/kfd", "--device=/dev/dri/renderD128"], &job);
    assert_eq!(
        inside.join(" "),
        "dri/card2 dri/card4 dri/renderD128 dri/renderD129 dri/renderD131 kfd rocr=1,2 hip= ordinal="
    );
    let inside = stage.look(LOOK, &["--privileged"], &job);
    assert_eq!(inside.last().unwrap(), "rocr=1,3 hip= ordinal=");
}

/// The kernel shows nothing of a GPU that the device cgroup denies; it keeps its index all the same.
#[test]
fn fence_keeps_indices_and_numbers() {
    need_launch!();
    let text = fs::read_to_string("tests/fixtures/scenarios/mi300.toml").unwrap();
    let denied = ["minor = 128\n", "minor = 130\n", "minor = 138\n"];
    let text = denied.iter().fold(text, |text, line| text.replace(line, &format!("{line}denied = true\n")));
    let stage = Stage::of(Host::build_from(&text));
    let env = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "0,1"), ("ROCR_VISIBLE_DEVICES", "0,1")];
    let json = stage.gpus(&env);
    let owned: Vec<_> = json["gpus"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|gpu| gpu["owned"] == true)
        .map(|gpu| (gpu["index"].as_u64().unwrap(), gpu["minor"].as_u64().unwrap()))
        .collect();
    assert_eq!(owned, [(1, 129), (6, 134), (7, 135), (8, 136), (9, 137)]);
    assert_eq!(json["gpus"].as_array().unwrap().len(), 11);
    assert_eq!((&json["gpus"][10]["minor"], &json["gpus"][0]["minor"]), (&138.into(), &128.into()));
    let inside = stage.look(LOOK, &[], &env);
    assert_eq!(inside.last().unwrap(), "rocr=0,1 hip= ordinal=");
    assert!(inside.contains(&"dri/renderD134".to_owned()) && !inside.contains(&"dri/renderD130".to_owned()));
}

#[test]
fn plan_says_why_each_amd_gpu_is_inside() {
    need_launch!();
    let stage = Stage::new("mi300");
    let env = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "9,10"), ("ROCR_VISIBLE_DEVICES", "9,10")];
    let plan = stage.plan(&["--gpus", "1"], &env);
    for line in [
        "GPU 9 (/dev/dri/renderD137) is inside: --gpus 1; SLURM_STEP_GPUS=9,10",
        "GPU 10 (/dev/dri/renderD138) is not inside: --gpus 1 leaves it out",
        "GPU 0 (/dev/dri/renderD128) is not inside: SLURM_STEP_GPUS=9,10",
        "ROCR_VISIBLE_DEVICES becomes `0`: the container has fewer GPUs than the host shows",
        "/dev/kfd is inside: every GPU needs it",
    ] {
        assert!(plan.contains(line), "{line}\n{plan}");
    }
    let card = stage.host.path("dev/dri/card10");
    fs::set_permissions(card, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let told = "/dev/dri/card10 is not inside: mode or group of its node deny it (EACCES); it is not needed to compute";
    let without = stage.plan(&["--gpus", "1"], &env);
    assert!(without.contains(told) && without.contains("/dev/dri/renderD137 <- host file"), "{without}");
    assert!(!plan.contains("libcuda") && !plan.contains("NVIDIA"), "{plan}");
}

#[test]
fn compute_driver_that_cannot_be_used_is_told() {
    need_launch!();
    let host = Host::build("mi300");
    fs::remove_file(host.path("dev/kfd")).unwrap();
    let findings = Stage::of(host).gpus(&[])["findings"].clone();
    assert_eq!(findings, serde_json::json!(["/dev/kfd does not exist, so ROCm cannot start"]));
    let host = Host::build("mi300");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(host.path("dev/kfd"), mode).unwrap();
    let text = Stage::of(host).gpus(&[])["findings"].to_string();
    let expected = "ROCm cannot start, as /dev/kfd cannot be used: mode or group of its node deny it (EACCES); its group \
                    (`render` or `video`) must be one of yours";
    assert_eq!(text, format!("[\"{expected}\"]"));
}

/// The GPU that a CPU has built in, or that draws the console, does not take the place of those that compute.
#[test]
fn host_with_nvidia_gpus_is_nvidias() {
    need_launch!();
    let text = fs::read_to_string("tests/fixtures/scenarios/dgx-h100.toml").unwrap();
    let built_in = "\n[[device]]\ndriver = \"amdgpu\"\npci_id = \"1002:164E\"\npci_address = \"0000:c6:00.0\"\n\
                    minor = 128\ngfx_target_version = 100306\n";
    let stage = Stage::of(Host::build_from(&format!("{text}{built_in}")));
    let json = stage.gpus(&[]);
    assert_eq!((&json["vendor"], json["gpus"].as_array().unwrap().len()), (&"nvidia".into(), 8));
    assert_eq!(json["findings"], serde_json::json!([]));
    let inside = stage.look(LOOK, &["--gpus", "1"], &[]);
    assert!(inside.contains(&"nvidia2".to_owned()) || inside.contains(&"nvidia0".to_owned()), "{inside:?}");
    assert!(!inside.contains(&"kfd".to_owned()) && !inside.iter().any(|line| line.starts_with("dri/")));

    // A driver of NVIDIA without a GPU leaves the place to those that there are.
    let text = "driver_version = \"550.54.15\"\n".to_owned()
        + &fs::read_to_string("tests/fixtures/scenarios/mi300.toml").unwrap();
    let json = Stage::of(Host::build_from(&text)).gpus(&[]);
    assert_eq!((&json["vendor"], json["gpus"].as_array().unwrap().len()), (&"amd".into(), 11));
}
