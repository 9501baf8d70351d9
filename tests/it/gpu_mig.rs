//! Golden hosts on the whole way: `slipway gpus`, the plan, and a container that says what it has.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use slipway::gpu::{Hints, grant_mig_administration, granted, read_access, read_inventory};
use slipway::grants::{Grants, JobGpus};

use crate::gpu_cli::{stderr, stdout};
use crate::gpu_stage::Stage;
use crate::support::host::Host;

/// Prints what a container has: nodes, access files, variables.
const LOOK: &str = "cd /dev; ls -d nvidia[0-9]* nvidia-caps/*; cd /proc/driver/nvidia/capabilities; \
                    for f in gpu*/mig/gi*/access gpu*/mig/gi*/ci*/access mig/*; do [ -e $f ] && echo $f; done; \
                    echo cuda=$CUDA_VISIBLE_DEVICES nvidia=$NVIDIA_VISIBLE_DEVICES";

fn look(stage: &Stage, flags: &[&str], env: &[(&str, &str)]) -> Vec<String> {
    stage.look(LOOK, flags, env)
}

/// The lines of the plan that name what is NVIDIA's, but for its libraries.
fn plan(stage: &Stage, flags: &[&str], env: &[(&str, &str)]) -> String {
    let is_meant =
        |line: &&str| ["/dev/nvidia", "/proc/driver", "MIG", "GPU "].iter().any(|word| line.contains(word));
    let text = stage.plan(flags, env);
    text.lines().filter(is_meant).map(|line| format!("{}\n", line.trim())).collect()
}

const THREE_G: &str = "MIG-aaaa0000-0000-5000-8000-000000000003";
const ONE_G: &str = "MIG-cccc0000-0000-5000-8000-000000000001";

#[test]
fn dgx_a100_lists_its_instances() {
    need_launch!();
    let stage = Stage::new("dgx-a100");
    let env = [("SLURM_JOB_ID", "1"), ("CUDA_VISIBLE_DEVICES", ONE_G), ("SLURM_STEP_GPUS", "4")];
    let json = stage.gpus(&env);
    assert_eq!(json["findings"], serde_json::json!([]));
    let gpus = json["gpus"].as_array().unwrap();
    let modes: Vec<bool> = gpus.iter().map(|gpu| gpu["mig_enabled"].as_bool().unwrap()).collect();
    assert_eq!(modes, [false, false, true, false, false, true, false, false]);
    assert_eq!((&gpus[2]["minor"], &gpus[2]["owned"]), (&0.into(), &true.into()));
    let expected = serde_json::json!({
        "index": "2:2",
        "uuid": ONE_G,
        "profile": "1g.5gb",
        "memory_bytes": 4864_u64 << 20,
        "gpu_instance": 9,
        "compute_instance": 0,
        "nodes": ["/dev/nvidia-caps/nvidia-cap84", "/dev/nvidia-caps/nvidia-cap85"],
        "owned": true,
        "reason": format!("CUDA_VISIBLE_DEVICES={ONE_G}"),
    });
    assert_eq!(gpus[2]["mig_instances"][2], expected);
    assert_eq!(gpus[2]["mig_instances"][0]["owned"], false);
    // An older driver does not name profiles; they are worked out.
    let profiles: Vec<&str> = gpus[5]["mig_instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["profile"].as_str().unwrap())
        .collect();
    assert_eq!(profiles, ["1c.3g.20gb", "2c.3g.20gb"]);

    let table = stdout(&stage.slipway(&["gpus"], &env));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[4..8],
        [
            "2       NVIDIA A100-SXM4-40GB   40536 MiB   0000:47:00.0   0       yes     GPU-00000002-a100-4040-8080-000000000002",
            "2:0       MIG 3g.20gb           19968 MiB   -              -       no      MIG-aaaa0000-0000-5000-8000-000000000003",
            "2:1       MIG 2g.10gb           9856 MiB    -              -       no      MIG-bbbb0000-0000-5000-8000-000000000002",
            "2:2       MIG 1g.5gb            4864 MiB    -              -       yes     MIG-cccc0000-0000-5000-8000-000000000001",
        ]
    );
}

#[test]
fn container_has_exactly_the_instance_of_the_job() {
    need_launch!();
    let stage = Stage::new("dgx-a100");
    // No `gpus` before: the start itself asks NVML for the name, once.
    let job = [("SLURM_JOB_ID", "1"), ("CUDA_VISIBLE_DEVICES", ONE_G), ("SLURM_STEP_GPUS", "4")];
    let expected = [
        "nvidia-caps/nvidia-cap84",
        "nvidia-caps/nvidia-cap85",
        "nvidia0",
        "gpu0/mig/gi9/access",
        "gpu0/mig/gi9/ci0/access",
        &format!("cuda={ONE_G} nvidia=void"),
    ];
    assert_eq!(look(&stage, &[], &job), expected);
    // With process numbers of its own as well.
    let lines = look(&stage, &["--pid", "private"], &job);
    assert_eq!(lines, expected);
    // By place and by the old form, outside a job.
    let outside = [
        "nvidia-caps/nvidia-cap21",
        "nvidia-caps/nvidia-cap22",
        "nvidia0",
        "gpu0/mig/gi2/access",
        "gpu0/mig/gi2/ci0/access",
        "cuda= nvidia=void",
    ];
    for name in ["2:0", THREE_G, "MIG-GPU-00000002-a100-4040-8080-000000000002/2/0"] {
        assert_eq!(look(&stage, &["--gpus", &format!("device={name}")], &[]), outside, "{name}");
    }
    // Two instances and a whole GPU of what CUDA sees.
    let mixed = look(&stage, &["--gpus", "device=0,5"], &[("CUDA_VISIBLE_DEVICES", "5,0")]);
    let expected = [
        // The instances share the node of their GPU instance.
        "nvidia-caps/nvidia-cap957",
        "nvidia-caps/nvidia-cap958",
        "nvidia-caps/nvidia-cap959",
        "nvidia2",
        "nvidia7",
        "gpu7/mig/gi1/access",
        "gpu7/mig/gi1/ci0/access",
        "gpu7/mig/gi1/ci1/access",
        "cuda=MIG-dddd0000-0000-5000-8000-000000000001,MIG-eeee0000-0000-5000-8000-000000000002,\
         GPU-00000000-a100-4040-8080-000000000000 nvidia=void",
    ];
    assert_eq!(mixed, expected);
}

#[test]
fn plan_of_an_instance_says_why() {
    need_launch!();
    let stage = Stage::new("dgx-a100");
    let plan = plan(&stage, &["--gpus", "device=2:2"], &[]);
    for line in [
        "/proc/driver/nvidia/capabilities/gpu0/mig/gi9/ci0/access",
        "/dev/nvidia-caps/nvidia-cap85",
        "GPU 2 (/dev/nvidia0) is divided by MIG; what can be used of it is MIG 2:0, 2:1, 2:2",
        "MIG 2:0 (GPU instance 2, compute instance 0 of /dev/nvidia0) is not inside: --gpus device=2:2 leaves it out",
        "MIG 2:2 (GPU instance 9, compute instance 0 of /dev/nvidia0) is inside: --gpus device=2:2; not in a job, so \
         every GPU that can be used",
    ] {
        assert!(plan.contains(line), "{line}\n{plan}");
    }
    assert!(!plan.contains("nvidia-cap21") && !plan.contains("/dev/nvidia7\n"), "{plan}");
}

#[test]
fn more_instances_than_the_job_owns_are_refused() {
    need_launch!();
    let stage = Stage::new("dgx-a100");
    let job = [("SLURM_JOB_ID", "1"), ("CUDA_VISIBLE_DEVICES", ONE_G)];
    let error = format!(
        "error: --gpus device=2: asked for MIG 2:0, 2:1, 2:2, but the job owns MIG 2:2 (CUDA_VISIBLE_DEVICES={ONE_G})\n  \
         hint: `slipway gpus` shows which GPUs are the job's\n"
    );
    assert_eq!(stage.refusal(&["--gpus", "device=2"], &job), error);
    let unknown = [("SLURM_JOB_ID", "1"), ("CUDA_VISIBLE_DEVICES", "MIG-9999")];
    let error = stage.refusal(&["--gpus", "all"], &unknown);
    let expected = "no GPU of this node is yours: CUDA_VISIBLE_DEVICES=MIG-9999, where `MIG-9999` is no GPU of this node";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_fenced_job_has_the_instance_that_the_kernel_allows() {
    need_launch!();
    let text = fs::read_to_string("tests/fixtures/scenarios/dgx-a100.toml").unwrap();
    // All instances but one.
    let (mut count, mut fenced) = (0, String::new());
    for line in text.lines() {
        fenced.push_str(line);
        if line.starts_with("compute_instance") {
            count += 1;
            if count != 2 {
                fenced.push_str("\ndenied = true");
            }
        }
        if line.starts_with("minor") && line != "minor = 0" {
            fenced.push_str("\ndenied = true");
        }
        fenced.push('\n');
    }
    let stage = Stage::of(Host::build_from(&fenced));
    let job = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "0")];
    let expected = [
        "nvidia-caps/nvidia-cap30",
        "nvidia-caps/nvidia-cap31",
        "nvidia0",
        "gpu0/mig/gi3/access",
        "gpu0/mig/gi3/ci0/access",
        "cuda= nvidia=void",
    ];
    assert_eq!(look(&stage, &[], &job), expected);
}

#[test]
fn administration_of_mig_is_given_only_where_the_node_is_open() {
    need_launch!();
    let stage = Stage::new("dgx-a100");
    let ask = ["--gpus", "device=2:2", "-e", "NVIDIA_MIG_MONITOR_DEVICES=all"];
    let error = "error: NVIDIA_MIG_MONITOR_DEVICES=all cannot be met: `/dev/nvidia-caps/nvidia-cap2`: mode or group of its node \
                 deny it (EACCES)\n  hint: leave out NVIDIA_MIG_MONITOR_DEVICES, which no program needs that only computes; its \
                 nodes are root's unless a site opens them\n";
    assert_eq!(stage.refusal(&ask, &[]), error);
    let error = stage.refusal(&["-e", "NVIDIA_MIG_CONFIG_DEVICES=0"], &[]);
    assert!(error.contains("NVIDIA_MIG_CONFIG_DEVICES=0 cannot be met: the only value is `all`"), "{error}");
    let node = stage.host.path("dev/nvidia-caps/nvidia-cap2");
    fs::set_permissions(node, fs::Permissions::from_mode(0o444)).unwrap();
    let inside = look(&stage, &ask, &[]);
    for line in ["nvidia-caps/nvidia-cap2", "mig/monitor"] {
        assert!(inside.iter().any(|found| found == line), "{line}: {inside:?}");
    }
    assert!(!inside.iter().any(|found| found.contains("config")), "{inside:?}");
}

#[test]
fn a_start_asks_nvml_for_names_once() {
    need_launch!();
    let stage = Stage::new("dgx-a100");
    let job = [("SLURM_JOB_ID", "1"), ("CUDA_VISIBLE_DEVICES", ONE_G)];
    let run = |env: &[(&str, &str)]| {
        let args =
            ["run", "--gpus", "all", stage.sif.to_str().unwrap(), "/bin/sh", "-c", "ls -d /dev/nvidia0"];
        stage.slipway(&args, env)
    };
    let output = run(&job);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // From here on NVML answers nothing; what was kept does.
    let scenario = format!("{}/libnvidia-ml.scenario.toml", stage.host.library_directory().display());
    let text = fs::read_to_string(stage.host.path(&scenario[1..])).unwrap();
    fs::write(
        stage.host.path(&scenario[1..]),
        format!("{text}\n[[fault]]\nfunction = \"nvmlInit_v2\"\nabort = true\n"),
    )
    .unwrap();
    let output = run(&job);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let other = run(&[("SLURM_JOB_ID", "1"), ("CUDA_VISIBLE_DEVICES", "MIG-9999")]);
    assert_eq!(other.status.code(), Some(125), "{}", stdout(&other));
}

#[test]
fn a_start_goes_on_where_nvml_does_not_answer() {
    need_launch!();
    let text = fs::read_to_string("tests/fixtures/scenarios/dgx-a100.toml").unwrap();
    let fault = "\n[[fault]]\nfunction = \"nvmlDeviceGetMigMode\"\ndevice = 2\nhang = true\n";
    let stage = Stage::of(Host::build_from(&(text + fault)));
    let patience = ("SLIPWAY_GPU_NVML_TIMEOUT_SECONDS", "1");
    let place = ["run", "--gpus", "device=2:2", stage.sif.to_str().unwrap(), "/bin/ls", "/dev/nvidia-caps"];
    let output = stage.slipway(&place, &[patience]);
    assert_eq!(stdout(&output), "nvidia-cap84\nnvidia-cap85\n");
    let warning = "warning: MIG is known by the driver's files alone: NVML hung: no answer after 1 s\n";
    assert_eq!(stderr(&output), warning);
    let error = stage
        .refusal(&["--gpus", "all"], &[patience, ("SLURM_JOB_ID", "1"), ("CUDA_VISIBLE_DEVICES", ONE_G)]);
    assert!(error.starts_with(warning) && error.contains("is no GPU of this node"), "{error}");
}

#[test]
fn capability_nodes_that_are_missing_are_found() {
    let host = Host::build("dgx-a100");
    fs::remove_file(host.path("dev/nvidia-caps/nvidia-cap85")).unwrap();
    let minors = host.path("proc/driver/nvidia-caps/mig-minors");
    let text = fs::read_to_string(&minors).unwrap().replace("gpu0/gi3/ci0/", "gpu0/gi3/ci9/");
    fs::write(&minors, text).unwrap();
    let root = host.root();
    let inventory = read_inventory(&root, &Hints::default());
    assert_eq!(
        inventory.findings,
        [
            "MIG 2:1 of /dev/nvidia0 cannot be used: /proc/driver/nvidia-caps/mig-minors does not list it",
            "MIG 2:2 of /dev/nvidia0 cannot be used: /dev/nvidia-caps/nvidia-cap85 does not exist (root runs \
             `nvidia-modprobe -f` on its access files)",
        ]
    );
    let owned = granted(&inventory, &JobGpus::default(), &read_access(&root, &inventory));
    let others: Vec<&str> = owned.others.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(others, ["it has no device node"; 2]);
    fs::remove_file(minors).unwrap();
    let ask = [("NVIDIA_MIG_CONFIG_DEVICES".to_owned(), "all".to_owned())];
    let error = grant_mig_administration(&mut Grants::default(), &ask, &root).unwrap_err().to_string();
    assert_eq!(
        error,
        "NVIDIA_MIG_CONFIG_DEVICES=all cannot be met: the driver has no such node (/proc/driver/nvidia-caps/mig-minors does \
         not list it)"
    );
}

#[test]
fn mixed_minors_are_told_apart() {
    need_launch!();
    let stage = Stage::new("mixed-minors");
    let json = stage.gpus(&[]);
    let minors: Vec<u64> =
        json["gpus"].as_array().unwrap().iter().map(|gpu| gpu["minor"].as_u64().unwrap()).collect();
    assert_eq!(minors, [3, 8, 1, 6, 11, 4, 9, 2, 7, 0, 5, 10]);
    // Ten comes behind two, and both sets are by PCI order.
    let job = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "2,10"), ("CUDA_VISIBLE_DEVICES", "10,2")];
    let uuid = |index: u32| format!("GPU-{index:08x}-a100-4040-8080-{index:012x}");
    let expected =
        ["nvidia1".to_owned(), "nvidia5".into(), format!("cuda={},{} nvidia=void", uuid(10), uuid(2))];
    let seen = |flags: &[&str], env: &[(&str, &str)]| {
        let lines = look(&stage, flags, env);
        lines
            .into_iter()
            .filter(|line| line.starts_with("nvidia") || line.starts_with("cuda"))
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(&[], &job), expected);
    // By gres.conf the same numbers are the minors of its order.
    let conf = stage.home.path().join("gres.conf");
    let lines: Vec<String> = (0..12).map(|minor| format!("Name=gpu File=/dev/nvidia{minor}")).collect();
    fs::write(&conf, lines.join("\n")).unwrap();
    let slurm = stage.home.path().join("slurm.conf");
    let by_gres =
        [job.as_slice(), &[("SLURM_CONF", slurm.to_str().unwrap()), ("SLURMD_NODENAME", "n1")]].concat();
    assert_eq!(
        seen(&[], &by_gres),
        ["nvidia10".to_owned(), "nvidia2".into(), format!("cuda={},{} nvidia=void", uuid(11), uuid(7))]
    );
    let plan = plan(&stage, &[], &job);
    assert!(plan.contains("GPU 10 (/dev/nvidia5) is inside: SLURM_STEP_GPUS=2,10"), "{plan}");
    assert!(plan.contains("GPU 1 (/dev/nvidia8) is not inside: SLURM_STEP_GPUS=2,10"), "{plan}");
}

#[test]
fn mig_without_instances_is_said_in_words() {
    need_launch!();
    let stage = Stage::new("mig-no-instances");
    // Without NVML nobody knows; `gpus` asks it.
    let json = stage.gpus(&[]);
    let why = "MIG is enabled on it and it has no instances, without which nothing can use it";
    let gpus = &json["gpus"];
    assert_eq!((&gpus[0]["owned"], &gpus[0]["reason"]), (&false.into(), &why.into()));
    assert_eq!((&gpus[0]["mig_enabled"], &gpus[1]["owned"]), (&true.into(), &true.into()));
    let table = stdout(&stage.slipway(&["gpus"], &[]));
    assert!(table.ends_with(&format!("GPU 0: {why}\n")), "{table}");

    let error = format!(
        "error: --gpus device=0: GPU 0 cannot be used: {why}\n  hint: ask an administrator to make instances \
         (`nvidia-smi mig -cgi PROFILE -C`) or to disable MIG on it\n"
    );
    assert_eq!(stage.refusal(&["--gpus", "device=0"], &[]), error);
    let error = stage.refusal(&["--gpus", "all"], &[("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "0")]);
    assert!(
        error.contains(&format!(
            "no GPU of this node is yours: SLURM_STEP_GPUS=0; GPU 0 (/dev/nvidia0): {why}"
        )),
        "{error}"
    );
    let inside = look(&stage, &[], &[]);
    assert!(inside.contains(&"nvidia1".to_owned()) && !inside.contains(&"nvidia0".to_owned()), "{inside:?}");
    let plan = plan(&stage, &[], &[]);
    assert!(plan.contains(&format!("GPU 0 (/dev/nvidia0) is not inside: {why}")), "{plan}");
}

#[test]
fn a_lost_gpu_is_told_and_the_others_work() {
    need_launch!();
    let stage = Stage::new("gpu-lost");
    let json = stage.gpus(&[]);
    assert_eq!(json["gpus"].as_array().unwrap().len(), 3);
    assert_eq!(json["gpus"][1]["memory_bytes"], Value::Null);
    assert_eq!(json["gpus"][2]["memory_bytes"], 40_536_u64 << 20);
    let findings = json["findings"].to_string();
    assert!(findings.contains("NVML cannot ask GPU 0000:0f:00.0: "), "{findings}");
    let job = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "0,2")];
    let inside = look(&stage, &[], &job);
    assert_eq!(inside[..2], ["nvidia0", "nvidia2"]);
    let plan = plan(&stage, &[], &job);
    assert!(plan.contains("GPU 1 (/dev/nvidia1) is not inside: SLURM_STEP_GPUS=0,2"), "{plan}");
}
