//! Intel's GPUs and Gaudi on the whole way: `slipway gpus`, the plan, and a container that says what it has.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;

use crate::gpu_stage::Stage;
use crate::support::host::Host;

const LOOK: &str = "cd /dev; ls -d dri/* accel/* kfd 2>/dev/null; echo mask=$ZE_AFFINITY_MASK habana=$HABANA_VISIBLE_DEVICES";

fn rows(json: &serde_json::Value) -> Vec<(u64, &str, &str, bool)> {
    let gpus = json["gpus"].as_array().unwrap();
    let row = |gpu: &'_ serde_json::Value| (gpu["index"].as_u64().unwrap(), gpu["owned"] == true);
    gpus.iter()
        .map(|gpu| (row(gpu).0, gpu["name"].as_str().unwrap(), gpu["node"].as_str().unwrap(), row(gpu).1))
        .collect()
}

#[test]
fn pvc_lists_and_gives_the_gpus_of_the_job() {
    need_launch!();
    let stage = Stage::new("pvc");
    let job = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "1,3"), ("ZE_AFFINITY_MASK", "1,3")];
    let json = stage.gpus(&job);
    assert_eq!((&json["vendor"], &json["driver_version"]), (&"intel".into(), &"1.6.30".into()));
    // The one that is built into the CPU, minor 128, is not among them.
    assert_eq!(
        rows(&json),
        [
            (0, "Intel GPU 0bd5", "/dev/dri/renderD129", false),
            (1, "Intel GPU 0bd5", "/dev/dri/renderD130", true),
            (2, "Intel GPU 0bd5", "/dev/dri/renderD131", false),
            (3, "Intel GPU 0bd5", "/dev/dri/renderD132", true),
        ]
    );
    let look = |flags: &[&str], env: &[(&str, &str)]| stage.look(LOOK, flags, env).join(" ");
    let both = "dri/card3 dri/card5 dri/renderD130 dri/renderD132 mask=0,1 habana=";
    assert_eq!(look(&[], &job), both);
    assert_eq!(look(&["--gpus", "all"], &job), both);
    assert_eq!(look(&["--gpus", "device=3"], &job), "dri/card5 dri/renderD132 mask=0 habana=");
    let tiles = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "1,3"), ("ZE_AFFINITY_MASK", "1.1,3.0")];
    assert_eq!(look(&[], &tiles), both.replace("0,1", "0.1,1.0"));
    let flat = [tiles[0], tiles[1], ("ZE_AFFINITY_MASK", "3,6,7"), ("ZE_FLAT_DEVICE_HIERARCHY", "FLAT")];
    assert_eq!(look(&[], &flat), both.replace("0,1", "1,2,3"));
    assert_eq!(look(&["--gpus", "none"], &job), "mask=1,3 habana=");
    assert!(stage.refusal(&["--gpus", "device=0"], &job).starts_with(
        "error: --gpus device=0: asked for GPU 0, but the job owns GPU 1, 3 (SLURM_STEP_GPUS=1,3)\n"
    ));
    let plan = stage.plan(&[], &job);
    for line in [
        "GPU 1 (/dev/dri/renderD130) is inside: SLURM_STEP_GPUS=1,3",
        "GPU 2 (/dev/dri/renderD131) is not inside: SLURM_STEP_GPUS=1,3",
        "ZE_AFFINITY_MASK becomes `0,1`",
    ] {
        assert!(plan.contains(line), "{line}\n{plan}");
    }
}

#[test]
fn gaudi_gives_accelerators_with_their_control_nodes() {
    need_launch!();
    let stage = Stage::new("gaudi");
    let job = [("SLURM_JOB_ID", "1"), ("HABANA_VISIBLE_DEVICES", "0,3")];
    let json = stage.gpus(&job);
    assert_eq!((&json["vendor"], &json["driver_version"]), (&"gaudi".into(), &"1.21.0-ca59b5a".into()));
    assert_eq!(
        rows(&json),
        [
            (0, "Gaudi 1020", "/dev/accel/accel2", true),
            (1, "Gaudi 1020", "/dev/accel/accel0", false),
            (2, "Gaudi 1020", "/dev/accel/accel3", false),
            (3, "Gaudi 1020", "/dev/accel/accel1", true),
        ]
    );
    assert_eq!(
        stage.look(LOOK, &[], &job).join(" "),
        "accel/accel1 accel/accel2 accel/accel_controlD1 accel/accel_controlD2 mask= habana=0,3"
    );
    assert_eq!(
        stage.look(LOOK, &["--gpus", "1"], &job).join(" "),
        "accel/accel2 accel/accel_controlD2 mask= habana=0,3"
    );
}

/// Who only has the GPU of a CPU has none, and nothing is said of it.
#[test]
fn built_in_gpu_is_no_surprise() {
    need_launch!();
    let text = "[[device]]\ndriver = \"i915\"\npci_id = \"8086:4680\"\npci_address = \"0000:00:02.0\"\nminor = 128\n";
    let stage = Stage::of(Host::build_from(text));
    assert_eq!(stage.table(&[]), "no GPU driver is loaded on this node\n");
    assert_eq!(stage.look(LOOK, &[], &[]).join(" "), "mask= habana=");
    let refusal = stage.refusal(&["--gpus", "all"], &[]);
    assert!(refusal.contains("no discrete Intel GPU"), "{refusal}");

    let text = text.to_owned()
        + &fs::read_to_string("tests/fixtures/scenarios/mi300.toml")
            .unwrap()
            .replace("[modules]\namdgpu = \"6.12.12\"\n", "");
    assert_eq!(Stage::of(Host::build_from(&text)).gpus(&[])["vendor"], "amd");
}
