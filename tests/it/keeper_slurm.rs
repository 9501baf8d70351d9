//! What the containers of a real Slurm job share, and what is left when it has ended.

use super::support::image::TestImage;
use super::support::sandbox::{Sandbox, wait_until};
use super::support::slurm::{JobEnd, Slurm};

const HEAD: &str = "#!/bin/bash
#SBATCH --output=%x-%j.out
#SBATCH --job-name=train
say() { slipway run train.sif readlink /proc/self/ns/user; }
ours() {
    group=$SLURM_BOX_CGROUPS$(sed -n 's/^[0-9]*:freezer://p' /proc/self/cgroup)
    for pid in $(cat \"$group/cgroup.procs\"); do
        [ \"$(readlink \"/proc/$pid/exe\")\" != \"$(command -v slipway)\" ] || cat \"/proc/$pid/comm\"
    done
}
";

struct Yard {
    sandbox: Sandbox,
    slurm: Slurm,
}

impl Yard {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        TestImage::busybox().convert(&sandbox, "train.sif");
        sandbox.make_directory("state");
        let state = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(sandbox.path("state"), state).unwrap();
        Self { sandbox, slurm: Slurm::start(None) }
    }

    /// Runs a script to the end of its job, and gives what it printed.
    fn job(&self, body: &str) -> String {
        let script = self.sandbox.write("home/job.sbatch", format!("{HEAD}{body}"));
        let (state, cgroups) = (self.sandbox.path("state"), self.slurm.cgroups());
        let env = [
            ("SLIPWAY_RUNTIME_DIR", state.to_str().unwrap()),
            ("SLURM_BOX_CGROUPS", cgroups.to_str().unwrap()),
        ];
        let end = self.slurm.run_job(&self.sandbox, &script, &env);
        let outputs =
            self.sandbox.files().into_iter().filter(|file| file.extension().is_some_and(|end| end == "out"));
        let path = self.sandbox.path("home").join(outputs.last().unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(
            end,
            JobEnd { state: "COMPLETED".into(), exit_code: "0:0".into() },
            "{text}{}",
            self.slurm.log()
        );
        text
    }

    /// Neither processes nor mounts nor places.
    fn assert_nothing_left(&self) {
        self.sandbox.assert_nothing_left();
        self.sandbox.slipway(["ps"]).env("SLIPWAY_RUNTIME_DIR", self.sandbox.path("state")).succeed();
        let places = std::fs::read_dir(self.sandbox.path("state/keepers")).map_or(0, Iterator::count);
        assert_eq!(places, 0);
    }
}

#[test]
fn starts_of_a_batch_script_and_its_steps_join() {
    need!(root, slurm, cgroup, userns, fuse, tool "busybox");
    let yard = Yard::new();
    let body =
        "one=$(say); two=$(say); step=$(srun --ntasks=1 slipway run train.sif readlink /proc/self/ns/user)
[ \"$one\" = \"$two\" ] && echo second start joined
[ \"$one\" = \"$step\" ] && echo step joined
ours | grep -c keeper
# The host's end is what ends it, long before it would by itself.
ours | sort -u
";
    let said = yard.job(body);
    assert_eq!(said, "second start joined\nstep joined\n1\nslipway-fuse\nslipway-keeper\nslipway-spare\n");
    yard.assert_nothing_left();
}

#[test]
fn a_step_of_srun_never_lingers() {
    need!(root, slurm, cgroup, userns, fuse, tool "busybox");
    let yard = Yard::new();
    // Both tasks are there before either says its namespace.
    let body = "export SLIPWAY_LAUNCH_LINGER=600
srun --overcommit --ntasks=2 --nodes=1 slipway run train.sif sh -c '
    echo >$HOME/here.$SLURM_PROCID
    while [ ! -e $HOME/here.0 ] || [ ! -e $HOME/here.1 ]; do sleep 0.01; done
    readlink /proc/self/ns/user' | sort -u | wc -l
echo left: $(ours)
";
    assert_eq!(yard.job(body), "1\nleft:\n");
    yard.assert_nothing_left();
}

#[test]
fn a_cancelled_job_leaves_nothing() {
    need!(root, slurm, cgroup, userns, fuse, tool "busybox");
    let yard = Yard::new();
    let script = yard.sandbox.write("home/long.sbatch", format!("{HEAD}say; sleep 600\n"));
    let id = yard.slurm.submit(
        &yard.sandbox,
        &script,
        &[
            ("SLIPWAY_RUNTIME_DIR", yard.sandbox.path("state").to_str().unwrap()),
            ("SLIPWAY_LAUNCH_LINGER", "6000"),
        ],
    );
    let has_keeper = || yard.sandbox.processes().iter().any(|(_, name)| name == "slipway-keeper");
    wait_until("the job has a keeper", has_keeper);
    assert_eq!(yard.slurm.cancel(&id).state, "CANCELLED");
    yard.assert_nothing_left();
}
