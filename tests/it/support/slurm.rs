//! A real Slurm for a test: `scripts/slurm-box`, started with the test and stopped at its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::sandbox::{Run, Sandbox, wait_until};

/// Virtual nodes share the machine's cgroup names, so there is one Slurm at a time, whatever the test runner does.
const LOCK: &str = "/var/tmp/slipway-slurm-box.lock";

/// A running Slurm.
#[derive(Debug)]
pub(crate) struct Slurm {
    directory: tempfile::TempDir,
    _lock: Flock<File>,
}

/// How a job ended, by `scontrol show job`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobEnd {
    /// `COMPLETED`, `FAILED`, …
    pub(crate) state: String,
    /// `code:signal`.
    pub(crate) exit_code: String,
}

impl Slurm {
    /// Starts it; `host` is a script that dresses the nodes up.
    pub(crate) fn start(host: Option<&Path>) -> Self {
        Self::start_with(host, &[])
    }

    /// Starts it with further flags of `scripts/slurm-box`.
    pub(crate) fn start_with(host: Option<&Path>, flags: &[&str]) -> Self {
        let file = File::options().create(true).truncate(false).write(true).open(LOCK).unwrap();
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
        let directory = tempfile::Builder::new().prefix("slipway-slurm.").tempdir_in("/tmp").unwrap();
        let slurm = Self { directory, _lock: lock };
        let mut start = slurm.script("start");
        start.args(flags);
        if let Some(host) = host {
            start.arg("--host").arg(host);
        }
        let output = start.output().unwrap();
        assert!(output.status.success(), "slurm-box: {}", String::from_utf8_lossy(&output.stderr));
        slurm
    }

    fn script(&self, verb: &str) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/slurm-box"));
        command.arg(verb).arg(self.directory.path());
        command
    }

    fn conf(&self) -> PathBuf {
        self.directory.path().join("slurm.conf")
    }

    /// Submits a script as the sandbox's user from its home, and waits for the end of the job.
    pub(crate) fn run_job(&self, sandbox: &Sandbox, script: &Path, env: &[(&str, &str)]) -> JobEnd {
        let id = self.submit(sandbox, script, env);
        self.wait(&id)
    }

    /// Submits a script as the sandbox's user from its home; gives the job's id.
    pub(crate) fn submit(&self, sandbox: &Sandbox, script: &Path, env: &[(&str, &str)]) -> String {
        let mut run = sandbox
            .command("sbatch", ["--parsable"])
            .args([script])
            .env("SLURM_CONF", self.conf())
            .env("PATH", format!("{}:{}", sandbox.path("bin").display(), super::sandbox::PATH));
        for (name, value) in env {
            run = run.env(name, value);
        }
        run.succeed().trim().to_owned()
    }

    /// A command of Slurm (`srun` with its words) as the sandbox's user from its home.
    pub(crate) fn command<'a>(&self, sandbox: &'a Sandbox, words: &[&str]) -> Run<'a> {
        let (program, words) = words.split_first().unwrap();
        sandbox
            .command(program, words)
            .env("SLURM_CONF", self.conf())
            .env("PATH", format!("{}:{}", sandbox.path("bin").display(), super::sandbox::PATH))
    }

    /// Cancels a job, and says how it ended.
    pub(crate) fn cancel(&self, id: &str) -> JobEnd {
        let status = Command::new("scancel").arg(id).env("SLURM_CONF", self.conf()).status().unwrap();
        assert!(status.success());
        self.wait(id)
    }

    fn wait(&self, id: &str) -> JobEnd {
        let mut end = None;
        wait_until("the job ends", || {
            end = self.job_end(id);
            end.is_some()
        });
        end.unwrap()
    }

    fn job_end(&self, id: &str) -> Option<JobEnd> {
        let output = Command::new("scontrol")
            .args(["--oneliner", "show", "job", id])
            .env("SLURM_CONF", self.conf())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let field = |name: &str| {
            text.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap_or_default().to_owned()
        };
        let state = field("JobState=");
        let ended =
            !["", "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED"].contains(&state.as_str());
        ended.then(|| JobEnd { state, exit_code: field("ExitCode=") })
    }

    /// Where jobs see the freezer hierarchy.
    pub(crate) fn cgroups(&self) -> PathBuf {
        self.directory.path().join("cgroup/freezer")
    }

    /// What the daemons said, for messages.
    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        for name in ["slurmctld.log", "slurmd.n1.log", "slurmd.n2.log"] {
            let log =
                std::fs::read_to_string(self.directory.path().join("log").join(name)).unwrap_or_default();
            text.push_str(&log);
        }
        text
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        let output = self.script("stop").output().unwrap();
        if !output.status.success() && !std::thread::panicking() {
            panic!("slurm-box stop: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
