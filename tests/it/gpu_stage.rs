//! A built host, and an image of a shell to start on it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::gpu_cli::{home, sif_of, slipway, stderr, stdout};
use crate::support::host::Host;

pub(crate) struct Stage {
    pub(crate) host: Host,
    pub(crate) home: tempfile::TempDir,
    pub(crate) sif: PathBuf,
}

impl Stage {
    pub(crate) fn new(scenario: &str) -> Self {
        Self::of(Host::build(scenario))
    }

    pub(crate) fn of(host: Host) -> Self {
        let home = home();
        let sif = sif_of(&["/bin/sh", "/bin/ls"], home.path());
        let runtime = home.path().join("runtime");
        fs::create_dir(&runtime).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&runtime, Some(65_534), Some(65_534)).unwrap();
        }
        Self { host, home, sif }
    }

    pub(crate) fn slipway(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = slipway(&self.host, self.home.path(), args);
        // What is kept of NVML's answers is of this host alone, though all have one boot id.
        command.env("XDG_RUNTIME_DIR", self.home.path().join("runtime"));
        command.env("SLIPWAY_LAUNCH_LINGER", "0").envs(env.iter().copied()).output().unwrap()
    }

    pub(crate) fn gpus(&self, env: &[(&str, &str)]) -> Value {
        let output = self.slipway(&["gpus", "--json"], env);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What `slipway gpus` prints.
    pub(crate) fn table(&self, env: &[(&str, &str)]) -> String {
        stdout(&self.slipway(&["gpus"], env))
    }

    /// The lines that a script of the shell prints in a container.
    pub(crate) fn look(&self, script: &str, flags: &[&str], env: &[(&str, &str)]) -> Vec<String> {
        let args = [&["run"], flags, &[self.sif.to_str().unwrap(), "/bin/sh", "-c", script]].concat();
        let output = self.slipway(&args, env);
        let lines: Vec<String> = stdout(&output).lines().map(str::to_owned).collect();
        assert_eq!(output.status.code(), Some(0), "{lines:?} {}", stderr(&output));
        lines
    }

    /// The whole plan.
    pub(crate) fn plan(&self, flags: &[&str], env: &[(&str, &str)]) -> String {
        let args = [&["run", "--plan"], flags, &[self.sif.to_str().unwrap(), "true"]].concat();
        let output = self.slipway(&args, env);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    }

    pub(crate) fn refusal(&self, flags: &[&str], env: &[(&str, &str)]) -> String {
        let args = [&["run"], flags, &[self.sif.to_str().unwrap(), "true"]].concat();
        let output = self.slipway(&args, env);
        assert_eq!(output.status.code(), Some(125), "{}", stdout(&output));
        stderr(&output)
    }
}
