//! Job scripts that `slipway sbatch` makes.

use super::support::image::{Shape, TestImage};
use super::support::sandbox::{Sandbox, wait_until};
use super::support::slurm::Slurm;

#[test]
fn a_name_becomes_the_images_id() {
    need!(tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().save(&sandbox, "box.tar", Shape::Oci);
    let id = sandbox.slipway(["load", "-q", "-i", "box.tar"]).run();
    assert_eq!(id.code, Some(0), "{id}");
    let id = sandbox.slipway(["images", "-q", "--no-trunc"]).succeed();
    let script = sandbox.slipway(["sbatch", "boxtest", "ls", "-l"]).succeed();
    assert_eq!(
        script,
        format!(
            "#!/bin/bash\n#SBATCH --job-name=ls\n#SBATCH --output=%x-%j.out\n\n# The image is boxtest, as it is now.\n\
             slipway run {} ls -l\n",
            id.trim()
        )
    );
    // Not there yet: the job may find it.
    let output = sandbox.slipway(["sbatch", "ubuntu:24.04", "ls"]).run();
    assert!(output.stdout.ends_with("\nslipway run ubuntu:24.04 ls\n"), "{output}");
    assert_eq!(
        output.stderr,
        "warning: `ubuntu:24.04` is not in the store: the job downloads it, or run `slipway pull ubuntu:24.04` before it starts\n"
    );
    let output = sandbox.slipway(["sbatch", "./absent.sif", "ls"]).run();
    assert_eq!(output.code, Some(1), "{output}");
    assert!(
        output.stderr.starts_with("error: cannot use the image `./absent.sif`: No such file"),
        "{output}"
    );
    // No Slurm here.
    let output = sandbox.slipway(["sbatch", "--submit", "boxtest", "ls"]).env("PATH", "/nowhere").run();
    assert!(output.stderr.starts_with("error: cannot run Slurm's `sbatch`: "), "{output}");
    assert!(output.stderr.contains("hint: leave out --submit to see the script"), "{output}");
}

#[test]
fn a_submitted_job_runs() {
    need!(root, slurm, userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "train.sif");
    let slurm = Slurm::start_with(None, &["--no-cgroup"]);
    let program = sandbox.program().display().to_string();
    let words = [program.as_str(), "sbatch", "--submit", "-n2", "-Jtwo words", "train.sif"];
    let command = ["sh", "-c", "echo rank $SLURM_PROCID \"$0\"", "it's"];
    let output = slurm.command(&sandbox, &[&words[..], &command].concat()).succeed();
    assert_eq!(output, "Submitted batch job 1\n");
    let log = sandbox.path("home/two words-1.out");
    let lines = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    wait_until("both ranks have spoken", || lines().len() >= 2);
    assert_eq!(lines(), ["rank 0 it's", "rank 1 it's"], "{}", slurm.log());
}
