//! A node with twelve GPUs under a real Slurm: its numbers, the minors and the order of `gres.conf` are three numberings.
//!
//! With ConstrainDevices=yes Slurm's own device cgroup says which nodes a number means, and a container must have those.
//! What was learnt there holds for ConstrainDevices=no, where nothing but the numbers says it.

use std::collections::BTreeMap;

use super::slurm::dress_up;
use super::support::host::Host;
use super::support::image::TestImage;
use super::support::sandbox::Sandbox;
use super::support::slurm::{JobEnd, Slurm};

/// The minors in the order of `gres.conf`: neither their own order nor that of the GPUs' PCI addresses.
const GRES: [u32; 12] = [10, 2, 0, 7, 11, 3, 8, 1, 6, 4, 9, 5];

/// Says which nodes there are that may be opened, on the host and in a container. No driver answers for the fake GPUs, so an
/// open that the device cgroup allows ends in ENXIO.
const LOOK: &str = r#"
look() {
    for node in /dev/nvidia[0-9]*; do
        case $( { : <"$node"; } 2>&1) in
        *"No such device"*) printf '%s,' "${node#/dev/nvidia}" ;;
        *) printf '' ;;
        esac
    done
}
"#;

/// All GPUs to the batch script, then steps that hold theirs until all have looked, and a few with numbers of two digits.
const JOB: &str = r#"#!/bin/bash
#SBATCH --output=%x-%j.out
#SBATCH --job-name=gpus
#SBATCH --nodelist=n1
#SBATCH --ntasks=4
#SBATCH --gres=gpu:12
./probe
mkdir here
for count in 2 1 4 5; do
    srun --exact --ntasks=1 --gres=gpu:$count ./probe 4 &
done
wait
srun --ntasks=1 --gres=gpu:11 ./probe
srun --ntasks=1 --gres=gpu:3 ./probe
"#;

const PROBE: &str = r#"#!/bin/bash
inside=$(slipway run --no-join gpu.sif sh -c "$LOOK"'printf "%s %s" "$(look)" "$CUDA_VISIBLE_DEVICES"')
eval "$LOOK"
echo "numbers ${SLURM_STEP_GPUS:-$SLURM_JOB_GPUS} visible $CUDA_VISIBLE_DEVICES host $(look) inside $inside"
[ -z "$1" ] || {
    touch "here/$SLURM_STEP_ID"
    for try in $(seq 600); do
        [ "$(ls here | wc -l)" -lt "$1" ] || break
        sleep 0.1
    done
}
"#;

/// What one probe saw.
#[derive(Debug)]
struct Seen {
    numbers: Vec<usize>,
    visible: Vec<String>,
    host: Vec<u32>,
    inside: Vec<u32>,
    visible_inside: Vec<String>,
}

fn list<T: std::str::FromStr>(words: &str) -> Vec<T> {
    words.split(',').filter_map(|word| word.parse().ok()).collect()
}

fn run(flags: &[&str]) -> Vec<Seen> {
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "gpu.sif");
    let host = Host::build("mixed-minors");
    let gres = GRES.map(|minor| minor.to_string()).join(",");
    let flags = [&["--gpus", gres.as_str()], flags].concat();
    let slurm = Slurm::start_with(Some(&dress_up(&sandbox, &host)), &flags);
    let probe = sandbox.write("home/probe", PROBE);
    std::fs::set_permissions(&probe, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = sandbox.write("home/gpus.sbatch", JOB);
    let end = slurm.run_job(&sandbox, &script, &[("LOOK", LOOK)]);
    let text = std::fs::read_to_string(sandbox.path("home/gpus-1.out")).unwrap();
    assert_eq!(end, JobEnd { state: "COMPLETED".into(), exit_code: "0:0".into() }, "{text}{}", slurm.log());
    sandbox.assert_nothing_left();
    println!("{text}");
    let seen: Vec<Seen> = text
        .lines()
        // srun says so where a step has to wait.
        .filter(|line| !line.starts_with("srun: "))
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, numbers, _, visible, _, host, _, inside, visible_inside] = words[..] else {
                panic!("{text}")
            };
            Seen {
                numbers: list(numbers),
                visible: list(visible),
                host: list(host),
                inside: list(inside),
                visible_inside: list(visible_inside),
            }
        })
        .collect();
    assert_eq!(seen.len(), 7, "{text}");
    seen
}

fn sorted(mut minors: Vec<u32>) -> Vec<u32> {
    minors.sort_unstable();
    minors
}

#[test]
fn slurms_numbers_mean_the_same_gpus_with_and_without_a_fence() {
    need!(root, slurm, cgroup, userns, fuse, tool "busybox");
    // Each set of numbers, and the nodes that Slurm's cgroup then allows.
    let mut meant = BTreeMap::new();
    for seen in run(&[]) {
        assert_eq!(sorted(seen.inside.clone()), sorted(seen.host.clone()), "{seen:?}");
        assert_eq!(seen.inside.len(), seen.numbers.len(), "{seen:?}");
        // In a fence Slurm numbers from 0, and so does CUDA inside.
        let local: Vec<String> = (0..seen.numbers.len()).map(|number| number.to_string()).collect();
        assert_eq!((&seen.visible, &seen.visible_inside), (&local, &local), "{seen:?}");
        meant.insert(seen.numbers, sorted(seen.host));
    }
    let of_number = |number: usize| GRES[number];
    for (numbers, minors) in &meant {
        assert_eq!(&sorted(numbers.iter().copied().map(of_number).collect()), minors, "{meant:?}");
    }

    let host = Host::build("mixed-minors");
    let uuid = |minor: u32| host.scenario.gpu.iter().find(|gpu| gpu.minor == minor).unwrap().uuid.clone();
    for seen in run(&["--no-fence"]) {
        assert_eq!(seen.host.len(), 12, "{seen:?}");
        let minors: Vec<u32> = seen.numbers.iter().copied().map(of_number).collect();
        assert_eq!(sorted(seen.inside.clone()), sorted(minors.clone()), "{seen:?}");
        // Without one its numbers are the node's; inside they would mean other GPUs, unless all are there.
        let expected: Vec<String> = match seen.numbers.len() {
            12 => seen.visible.clone(),
            _ => minors.iter().map(|minor| uuid(*minor)).collect(),
        };
        assert_eq!(seen.visible_inside, expected, "10 stands behind 2: {seen:?}");
    }
}
