//! The plugin in a real Slurm: `srun --slipway-image=…`, and pyxis's own options.

use std::path::Path;

use super::support::image::TestImage;
use super::support::sandbox::{Output, Sandbox};
use super::support::slurm::{JobEnd, Slurm};

/// The plugin, built beside the program.
fn plugin() -> String {
    let place = Path::new(env!("CARGO_BIN_EXE_slipway")).with_file_name("libslipway_spank.so");
    assert!(place.exists(), "`cargo build --workspace` makes {}", place.display());
    place.display().to_string()
}

struct Box {
    sandbox: Sandbox,
    slurm: Slurm,
}

impl Box {
    /// `more` is put behind the plugin's line.
    fn new(more: &str) -> Self {
        let sandbox = Sandbox::new();
        TestImage::busybox().convert(&sandbox, "train.sif");
        let slipway = sandbox.program();
        let line = format!("required {} slipway={} {more}", plugin(), slipway.display());
        let slurm = Slurm::start_with(None, &["--no-cgroup", "--spank", &line]);
        Self { sandbox, slurm }
    }

    fn srun(&self, words: &[&str]) -> Output {
        let all: Vec<&str> = ["srun", "-n1"].iter().chain(words).copied().collect();
        self.slurm.command(&self.sandbox, &all).run()
    }

    /// What the command printed.
    fn prints(&self, words: &[&str]) -> String {
        let output = self.srun(words);
        assert_eq!(output.code, Some(0), "{output}{}", self.slurm.log());
        output.stdout
    }

    /// Slurm works as before, and nothing of ours is left.
    fn is_well(&self) {
        assert_eq!(self.prints(&["echo", "well"]), "well\n");
        self.sandbox.assert_nothing_left();
    }
}

#[test]
fn a_step_runs_in_an_image() {
    need!(root, slurm, userns, fuse, tool "busybox");
    let here = Box::new("");
    // Words are kept as they are, and the task's process becomes the command.
    let script =
        "echo \"$0|$1|$2|$FROM_IMAGE|$SLURM_PROCID|${SLIPWAY_TASK-none}\"; ls /home >/dev/null; exit 3";
    let output = here.srun(&["--slipway-image=train.sif", "sh", "-c", script, "a b", "", "-l"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(3), "a b||-l|image|0|none\n"), "{output}");
    let own = "[ $$ = $SLURM_TASK_PID ] && echo same";
    assert_eq!(here.prints(&["--slipway-image=train.sif", "sh", "-c", own]), "same\n");
    // Without the option nothing changes.
    assert_eq!(here.prints(&["sh", "-c", "echo ${FROM_IMAGE-host}"]), "host\n");
    // TaskProlog runs on the host, and what it exports arrives.
    let prolog = here
        .sandbox
        .write("home/prolog", "#!/bin/sh\necho export SAID=\"$(hostname >/dev/null && echo host)\"\n");
    std::fs::set_permissions(&prolog, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let prolog = format!("--task-prolog={}", prolog.display());
    assert_eq!(here.prints(&[&prolog, "--slipway-image=train.sif", "sh", "-c", "echo $SAID"]), "host\n");
    here.is_well();
}

#[test]
fn every_option_has_its_effect() {
    need!(root, slurm, userns, fuse, tool "busybox");
    let here = Box::new("pyxis=1");
    here.sandbox.make_directory("home/data");
    here.sandbox.write("home/data/file", "content");
    let data = here.sandbox.path("home/data").display().to_string();
    let inside = |options: &[&str], script: &str| {
        let words: Vec<&str> = options.iter().copied().chain(["sh", "-c", script]).collect();
        here.prints(&words).trim().to_owned()
    };
    let image = "--slipway-image=train.sif";
    let mounts = format!("--slipway-mounts={data}:/in:ro,{data}:/again");
    assert_eq!(
        inside(&[image, &mounts], "cat /in/file /again/file; touch /in/x 2>/dev/null || echo ' ro'"),
        "contentcontent ro"
    );
    assert_eq!(inside(&[image, "--slipway-workdir=/tmp"], "pwd"), "/tmp");
    assert_eq!(inside(&[image, "--slipway-writable"], "touch /new && ls /new"), "/new");
    assert_eq!(inside(&[image, "--slipway-root"], "id -u"), "0");
    assert_eq!(inside(&[image, "--slipway-env=A=1,FROM_IMAGE=no"], "echo $A $FROM_IMAGE"), "1 no");
    assert_eq!(inside(&[image, "--slipway-profile=docker"], "echo ${SLURM_PROCID-none}"), "none");
    assert_eq!(inside(&[image, "--slipway-flags=--hostname box --init"], "hostname"), "box");

    // Lines in pyxis's own words (its README).
    let image = "--container-image=./train.sif";
    let mounts = format!("--container-mounts={data}:/mnt:ro");
    assert_eq!(inside(&[image, &mounts], "cat /mnt/file"), "content");
    assert_eq!(inside(&[image, "--container-remap-root", "--container-writable"], "id -u; touch /x"), "0");
    assert_eq!(inside(&[image, "--container-workdir=/etc", "--no-container-mount-home"], "pwd"), "/etc");
    assert_eq!(inside(&[image, "--container-readonly"], "touch /x 2>/dev/null || echo ro"), "ro");
    here.is_well();
}

#[test]
fn what_is_wrong_is_said_and_slurm_lives_on() {
    need!(root, slurm, userns, fuse, tool "busybox");
    let here = Box::new("pyxis=1");
    let fails = |words: &[&str]| {
        let output = here.srun(words);
        assert_ne!(output.code, Some(0), "{output}");
        output.stderr
    };
    let text = fails(&["--slipway-gpus=1", "true"]);
    assert!(text.contains("error: slipway: no image was named: add --slipway-image=IMAGE"), "{text}");
    let text = fails(&["--slipway-image=train.sif", "--slipway-mounts=/a:/b:rx", "true"]);
    assert!(text.contains("slipway: the flag `rx` of the mount `/a:/b:rx` is not known"), "{text}");
    let text = fails(&["--container-image=train.sif", "--container-name=x", "true"]);
    assert!(text.contains("slipway: containers that outlive a step are not made here"), "{text}");
    let text = fails(&["--slipway-image=absent.sif", "true"]);
    assert!(text.contains("absent.sif"), "{text}");
    let text = fails(&["--slipway-image=train.sif", "no-such-program"]);
    assert!(text.contains("no-such-program"), "{text}");
    here.is_well();
}

#[test]
fn a_missing_slipway_is_said() {
    need!(root, slurm, userns, fuse, tool "busybox");
    // The later word wins.
    let here = Box::new("slipway=/no/such/slipway");
    let output = here.srun(&["--slipway-image=train.sif", "true"]);
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("slipway: `/no/such/slipway` is not on this node"), "{output}");
    here.is_well();
}

#[test]
fn a_panic_ends_nothing_but_the_request() {
    need!(root, slurm, userns, fuse, tool "busybox");
    for (callback, is_said) in
        [("init", true), ("option", true), ("init_post_opt", true), ("task_init", true)]
    {
        let here = Box::new(&format!("panic_in={callback}"));
        let output = here.srun(&["--slipway-image=train.sif", "true"]);
        assert_ne!(output.code, Some(0), "{callback}: {output}");
        let said = output.stderr.contains(&format!("slipway: the plugin has a bug ({callback})"));
        assert_eq!(said, is_said, "{callback}: {output}");
        if callback == "init" || callback == "option" {
            here.is_well();
        }
    }
}

#[test]
fn a_batch_script_runs_in_an_image() {
    need!(root, slurm, userns, fuse, tool "busybox");
    let here = Box::new("");
    let script = here.sandbox.write(
        "home/job.sh",
        "#!/bin/sh\n#SBATCH --output=job.out\n#SBATCH --slipway-image=train.sif\necho $FROM_IMAGE $SLURM_JOB_ID\n",
    );
    let end = here.slurm.run_job(&here.sandbox, &script, &[]);
    let text = std::fs::read_to_string(here.sandbox.path("home/job.out")).unwrap_or_default();
    assert_eq!(
        end,
        JobEnd { state: "COMPLETED".into(), exit_code: "0:0".into() },
        "{text}{}",
        here.slurm.log()
    );
    assert_eq!(text, "image 1\n");
    here.is_well();
}
