//! A sandbox whose containers end with it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::image::TestImage;
use super::sandbox::{Output, Run, Sandbox};
use super::terminal::Terminal;

/// A sandbox with `box.sif` in its home and a directory of its own for the state.
pub(crate) struct Yard {
    pub(crate) sandbox: Sandbox,
    pub(crate) state: PathBuf,
}

impl Yard {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new();
        TestImage::busybox().convert(&sandbox, "box.sif");
        let state = sandbox.path("state");
        Self { sandbox, state }
    }

    /// A command about to be started.
    pub(crate) fn run(&self, words: &[&str]) -> Run<'_> {
        self.sandbox.slipway(words).env("SLIPWAY_RUNTIME_DIR", &self.state)
    }

    pub(crate) fn slipway(&self, words: &[&str]) -> Output {
        self.run(words).run()
    }

    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.slipway(words);
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{words:?}: {output}");
        output.stdout
    }

    #[track_caller]
    pub(crate) fn fails(&self, words: &[&str], code: i32, message: &str) {
        let output = self.slipway(words);
        assert_eq!(output.code, Some(code), "{words:?}: {output}");
        assert!(output.stderr.contains(message), "{words:?}: {output}");
    }

    /// Starts a container in the background and gives its id.
    #[track_caller]
    pub(crate) fn start(&self, words: &[&str]) -> String {
        let mut line = vec!["run", "-d"];
        line.extend(words);
        let id = self.ok(&line).trim().to_owned();
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        id
    }

    /// A command on a terminal of its own.
    pub(crate) fn terminal(&self, words: &[&str]) -> Terminal {
        let mut command = Command::new(self.sandbox.program());
        command
            .args(words)
            .env("HOME", self.sandbox.path("home"))
            .env("SLIPWAY_RUNTIME_DIR", &self.state)
            .current_dir(self.sandbox.path("home"));
        Terminal::start(&command)
    }

    pub(crate) fn inspect(&self, word: &str, pointer: &str) -> Value {
        let text = self.ok(&["container", "inspect", word]);
        let value: Value = serde_json::from_str(&text).unwrap();
        value.pointer(&format!("/0{pointer}")).cloned().unwrap_or_else(|| panic!("{pointer}: {text}"))
    }

    pub(crate) fn pid(&self, word: &str, pointer: &str) -> i32 {
        self.inspect(word, pointer).as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap()
    }

    pub(crate) fn status(&self, word: &str) -> (String, i64) {
        let word_of = self.inspect(word, "/State/Status").as_str().unwrap().to_owned();
        (word_of, self.inspect(word, "/State/ExitCode").as_i64().unwrap())
    }

    pub(crate) fn state_files(&self) -> Vec<PathBuf> {
        let below = |name: &str| {
            let entries = std::fs::read_dir(self.state.join(name));
            entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
        };
        [below("containers"), below("names")].concat()
    }

    /// Nothing runs and nothing is kept.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        self.sandbox.assert_nothing_left();
        assert_eq!(self.state_files(), Vec::<PathBuf>::new());
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        let ids = self.slipway(&["ps", "-aq"]).stdout;
        for id in ids.split_whitespace() {
            self.slipway(&["rm", "-f", id]);
        }
    }
}

/// Whether a process runs: what is left of one does not.
pub(crate) fn is_running(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}
