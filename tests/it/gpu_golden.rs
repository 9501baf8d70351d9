//! Every golden scenario as `gpus --json`, as the plan, and from inside of a container: `tests/fixtures/golden/NAME.txt`.
//!
//! `SLIPWAY_WRITE_GOLDEN=1` writes what is found instead of comparing; the difference is then for a person to read.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::gpu_cli::{stderr, stdout};
use super::gpu_stage::Stage;

/// What only a host with real nodes and mounts shows, which `gpu_words` builds.
const OF_REAL_NODES: [&str; 6] =
    ["baked-libraries", "cgroup-denied", "excluded-gpu", "node-mode", "nodev", "stale-mps"];

/// Nodes, libraries and variables of GPUs, and whether the loader finds the main library.
const LOOK: &str = r#"
for place in /dev/nvidia* /dev/nvidia-caps/* /dev/nvidia-caps-imex-channels/* /dev/dri/* /dev/kfd /dev/accel/* /dev/dxg; do
    [ ! -c "$place" ] && [ ! -f "$place" ] || echo "node $place"
done
for place in /.slipway/run/lib/*; do
    [ ! -e "$place" ] || echo "library ${place##*/}"
done
for place in /proc/driver/nvidia/gpus/*; do
    [ ! -d "$place" ] || echo "procfs ${place##*/}"
done
for name in CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES ZE_AFFINITY_MASK HABANA_VISIBLE_DEVICES; do
    eval "value=\${$name-unset}"
    [ "$value" = unset ] || echo "variable $name=$value"
done
[ ! -e /.slipway/run/lib/libcuda.so.1 ] || LD_PRELOAD=libcuda.so.1 /bin/ls / >/dev/null && echo "loader well"
"#;

fn fixtures(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn scenarios() -> Vec<String> {
    let names = fs::read_dir(fixtures("scenarios")).unwrap().flatten();
    let mut names: Vec<String> =
        names.map(|entry| entry.path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    names.retain(|name| !OF_REAL_NODES.contains(&name.as_str()));
    names.sort();
    names
}

/// Without what NVML reads at the moment, which `gpu_nvml` and `gpu_topology` look at.
fn without_readings(mut listing: Value) -> Value {
    for gpu in listing["gpus"].as_array_mut().into_iter().flatten() {
        for key in ["readings", "numa_node", "cpu_affinity"] {
            gpu.as_object_mut().unwrap().remove(key);
        }
    }
    listing
}

/// One GPU on one line.
fn shown(listing: &Value) -> String {
    let mut rest = listing.as_object().unwrap().clone();
    let gpus = rest.remove("gpus").unwrap_or(json!([]));
    let lines: Vec<String> = gpus.as_array().unwrap().iter().map(|gpu| format!("{gpu}\n")).collect();
    format!("{}{}\n", lines.concat(), Value::Object(rest))
}

fn found(name: &str) -> String {
    let stage = Stage::new(name);
    let env = [("SLIPWAY_GPU_NVML_TIMEOUT_SECONDS", if name == "nvml-hang" { "1" } else { "30" })];
    let home = stage.home.path().display().to_string();
    let gpus = without_readings(stage.gpus(&env));
    let none: BTreeSet<String> = stage.plan(&["--gpus", "none"], &env).lines().map(own_line).collect();
    let plan = stage.plan(&[], &env);
    // Size of the image and number of variables are those of this machine.
    let is_of_gpus = |line: &String| {
        !none.contains(line) && !["image ", "exec "].iter().any(|start| line.starts_with(start))
    };
    let plan: Vec<String> = plan.lines().map(own_line).filter(is_of_gpus).collect();
    let args = ["run", stage.sif.to_str().unwrap(), "/bin/sh", "-c", LOOK];
    let output = stage.slipway(&args, &env);
    let text = format!(
        "== gpus --json\n{}== run --plan, beside --gpus none\n{}\n== inside (exit code {:?})\n{}{}",
        shown(&gpus),
        plan.join("\n"),
        output.status.code().unwrap(),
        stdout(&output),
        stderr(&output)
    );
    text.replace(&home, "[HOME]")
}

/// A line of a plan without its number.
fn own_line(line: &str) -> String {
    line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ' || c == '.').to_owned()
}

#[test]
fn every_golden_scenario_is_as_it_was() {
    need_launch!();
    let writes = std::env::var_os("SLIPWAY_WRITE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for name in scenarios() {
        let path = fixtures("golden").join(format!("{name}.txt"));
        let text = found(&name);
        if writes {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        if golden != text {
            wrong.push(format!("{name}: expected\n{golden}\nfound\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
