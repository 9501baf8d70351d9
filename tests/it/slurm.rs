//! The example scripts under a real Slurm: four virtual nodes with two fake GPUs each.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::support::host::Host;
use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::sandbox::Sandbox;
use super::support::slurm::{JobEnd, Slurm};

/// A node with two GPUs whose minors are those of slurm-box's device nodes.
const SCENARIO: &str = r#"
driver_version = "550.54.15"
cuda_version = 12040

[[gpu]]
name = "NVIDIA A100-SXM4-80GB"
uuid = "GPU-00000000-0000-0000-0000-000000000000"
pci_address = "0000:07:00.0"
minor = 0

[[gpu]]
name = "NVIDIA A100-SXM4-80GB"
uuid = "GPU-00000001-0000-0000-0000-000000000001"
pci_address = "0000:0f:00.0"
minor = 1
"#;

/// Lays the built host ($TREE) over the mount namespace of the daemons. /dev has the GPUs already: they are Slurm's.
const DRESS_UP: &str = r#"
for place in proc/driver sys/module; do
    mount -t tmpfs none "/$place"
    cp -R "$TREE/$place/." "/$place/"
done
mount --bind "$TREE/proc/devices" /proc/devices
mknod -m 666 /dev/nvidiactl c 240 255
mknod -m 666 /dev/nvidia-uvm c 241 0
find "$TREE/usr" ! -type d -printf '%h
' | sort -u | while read -r place; do
    inside=${place#"$TREE"}
    mount -t overlay overlay -o "ro,lowerdir=$place:$inside" "$inside"
done
"#;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/examples");

/// An example where sbatch can read it as the ordinary user.
fn example(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.write(&format!("home/{name}"), std::fs::read(Path::new(EXAMPLES).join(name)).unwrap())
}

/// Stands for the training program: says what a task can see, and ends as `END_WITH` says.
const PYTHON: &str = r#"#!/bin/sh
for node in /dev/nvidia[0-9]*; do
    [ -e "$node" ] || continue
    # No driver answers for the fake GPUs, so an open that the device cgroup allows ends in ENXIO.
    case $( { : <"$node"; } 2>&1) in
    *"No such device"*) gpus="$gpus ${node#/dev/nvidia}" ;;
    *) denied="$denied ${node#/dev/nvidia}" ;;
    esac
done
[ ! -e /.slipway/run/lib/libcuda.so.1 ] || driver=", has the driver"
echo "task ${SLURM_PROCID:-none} on $SLURMD_NODENAME as $(id -u): $* sees${gpus:- none}${denied:+, denied$denied}$driver"
exit "${END_WITH:-0}"
"#;

/// A sandbox with the examples' `train.sif`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    image.layers.push(Tar::new().file("bin/python", 0o755, PYTHON).finish());
    image.convert(&sandbox, "train.sif");
    sandbox
}

/// A Slurm whose nodes have GPUs and a driver.
fn start(sandbox: &Sandbox) -> (Slurm, Host) {
    let host = Host::build_from(SCENARIO);
    (Slurm::start(Some(&dress_up(sandbox, &host))), host)
}

/// The script by which the nodes of a Slurm become a built host.
pub(crate) fn dress_up(sandbox: &Sandbox, host: &Host) -> PathBuf {
    // The tree's stand-in for a library of the distribution would break the daemons, which use the real one.
    for stand_in in
        std::fs::read_dir(host.path(&host.library_directory().to_string_lossy()[1..])).unwrap().flatten()
    {
        if stand_in.file_name().to_string_lossy().starts_with("libz.") {
            std::fs::remove_file(stand_in.path()).unwrap();
        }
    }
    let tree = host.path("").display().to_string();
    let script = sandbox
        .write("dress-up", format!("#!/bin/sh\nset -eu\nTREE={}\n{DRESS_UP}", tree.trim_end_matches('/')));
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

/// The lines of a job's output file, sorted.
fn output(sandbox: &Sandbox, job: u32) -> Vec<String> {
    let text = std::fs::read_to_string(sandbox.path(&format!("home/train-{job}.out"))).unwrap();
    let mut lines: Vec<_> = sandbox.normalise(&text).lines().map(String::from).collect();
    lines.sort_unstable();
    lines
}

fn completed() -> JobEnd {
    JobEnd { state: "COMPLETED".into(), exit_code: "0:0".into() }
}

#[test]
fn the_example_jobs_see_exactly_their_gpus() {
    need!(root, slurm, cgroup, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let (slurm, _host) = start(&sandbox);
    let uid = sandbox.user.uid;

    let one = example(&sandbox, "one-gpu.sbatch");
    let end = slurm.run_job(&sandbox, &one, &[]);
    assert_eq!(end, completed(), "{:?}\n{}", output(&sandbox, 1), slurm.log());
    assert_eq!(output(&sandbox, 1), [format!("task 0 on n1 as {uid}: train.py sees 0, has the driver")]);
    sandbox.assert_nothing_left();

    let two = example(&sandbox, "two-nodes.sbatch");
    let end = slurm.run_job(&sandbox, &two, &[]);
    assert_eq!(end, completed(), "{:?}\n{}", output(&sandbox, 2), slurm.log());
    let expected: Vec<_> = [("n1", 0), ("n1", 1), ("n2", 0), ("n2", 1)]
        .iter()
        .enumerate()
        .map(|(task, (node, gpu))| {
            format!("{task}: task {task} on {node} as {uid}: train.py sees {gpu}, has the driver")
        })
        .collect();
    assert_eq!(output(&sandbox, 2), expected);
    sandbox.assert_nothing_left();
}

#[test]
fn exit_codes_reach_slurm() {
    need!(root, slurm, cgroup, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let (slurm, _host) = start(&sandbox);
    for (script, code) in [("one-gpu.sbatch", "7:0"), ("two-nodes.sbatch", "7:0")] {
        let end = slurm.run_job(&sandbox, &example(&sandbox, script), &[("END_WITH", "7")]);
        assert_eq!(end, JobEnd { state: "FAILED".into(), exit_code: code.into() }, "{script}");
    }
    // Our own failures are no success either: there is no such image.
    let script = sandbox.write("home/absent.sbatch", "#!/bin/sh\nslipway run absent.sif true\n");
    let end = slurm.run_job(&sandbox, &script, &[]);
    assert_eq!(end, JobEnd { state: "FAILED".into(), exit_code: "125:0".into() });
    sandbox.assert_nothing_left();
}

/// What proctrack/cgroup knows of a step is the truth about it: a server that lived on would be listed there, also if it
/// had changed its session and its parent.
const LIST_STEP: &str = r#"#!/bin/bash
#SBATCH --output=%x-%j.out
#SBATCH --job-name=train
left() {
    group=$SLURM_BOX_CGROUPS$(sed -n 's/^[0-9]*:freezer://p' /proc/self/cgroup)
    for pid in $(cat "$group/cgroup.procs"); do
        [ "$(readlink "/proc/$pid/exe")" != "$(command -v slipway)" ] || cat "/proc/$pid/comm"
    done
}
slipway run --no-join train.sif sh -c 'echo ran'
# The server ends by itself a moment after the container.
for try in $(seq 1000); do
    [ -n "$(left)" ] || break
    sleep 0.01
done
echo "left in the step: $(left)"
"#;

#[test]
fn nothing_of_ours_outlives_the_container_in_its_step() {
    need!(root, slurm, cgroup, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let (slurm, _host) = start(&sandbox);
    let script = sandbox.write("home/list.sbatch", LIST_STEP);
    let cgroups = slurm.cgroups();
    let end = slurm.run_job(&sandbox, &script, &[("SLURM_BOX_CGROUPS", cgroups.to_str().unwrap())]);
    assert_eq!(end, completed(), "{:?}", output(&sandbox, 1));
    assert_eq!(output(&sandbox, 1), ["left in the step: ", "ran"]);
    sandbox.assert_nothing_left();
}
