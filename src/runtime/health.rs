//! Health checks: the monitor runs a command in the container from time to time, and keeps what that says.
//!
//! The rules are docker's (moby `daemon/health.go`): the first check comes after an interval; failures in the start period
//! do not count; so many failures in a row make the container unhealthy, and one success makes it healthy.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::sys::ns::SingleThreaded;
use crate::sys::process::{self, Child, End};
use crate::sys::{Errno, access, pidfd, to_errno};

use super::container::Container;
use super::enter::{self, Entry};
use super::sweep::SIGKILL;

/// What is kept of a check's output, in bytes, and how many checks are kept.
const OUTPUT_BYTES: usize = 4096;
const KEPT_CHECKS: usize = 5;
/// The file in the container's directory.
const FILE: &str = "health";

/// How a container's health is looked after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// docker's form: `CMD` and words, or `CMD-SHELL` and a text.
    pub test: Vec<String>,
    /// Nanoseconds between two checks.
    pub interval_ns: u64,
    /// Nanoseconds that a check may take.
    pub timeout_ns: u64,
    /// Nanoseconds in which failures do not count.
    pub start_period_ns: u64,
    /// Nanoseconds between two checks in that time.
    pub start_interval_ns: u64,
    /// Failures in a row.
    pub retries: u32,
}

impl HealthCheck {
    /// docker's defaults for a test.
    #[must_use]
    pub fn new(test: Vec<String>) -> Self {
        let seconds = |count: u64| count * 1_000_000_000;
        Self {
            test,
            interval_ns: seconds(30),
            timeout_ns: seconds(30),
            start_period_ns: 0,
            start_interval_ns: seconds(5),
            retries: 3,
        }
    }

    /// The command of a check.
    fn argv(&self) -> Vec<OsString> {
        match self.test.split_first() {
            Some((kind, [text, ..])) if kind == "CMD-SHELL" => {
                vec!["/bin/sh".into(), "-c".into(), text.into()]
            }
            Some((_, words)) => words.iter().map(OsString::from).collect(),
            None => Vec::new(),
        }
    }
}

/// What is known of a container's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last checks, the newest last.
    pub log: VecDeque<Checked>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Checked {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 is well; -1 took too long.
    pub exit_code: i32,
    /// What it printed.
    pub output: String,
}

impl Container {
    /// Its health, if that is looked after.
    #[must_use]
    pub fn health(&self) -> Option<Health> {
        self.record.health.as_ref()?;
        match fs::read(self.directory.join(FILE)) {
            Ok(text) => serde_json::from_slice(&text).ok(),
            // The monitor writes it when the workload has been started, and who started it may ask before that.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Health::starting()),
            Err(_) => None,
        }
    }
}

impl Health {
    fn starting() -> Self {
        Self { status: "starting".into(), failing_streak: 0, log: VecDeque::new() }
    }
}

/// The monitor's part.
#[derive(Debug)]
pub(super) struct Nurse {
    check: HealthCheck,
    health: Health,
    started: Instant,
    due: Instant,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    output: Option<PipeReader>,
    text: Vec<u8>,
    began: Timestamp,
    deadline: Instant,
    /// It took too long, and is being killed.
    is_late: bool,
}

impl Nurse {
    /// One for a container that has just been started, if its health is looked after.
    pub(super) fn new(container: &Container) -> Option<Self> {
        let check = container.record.health.clone().filter(|check| !check.argv().is_empty())?;
        let health = Health::starting();
        let started = Instant::now();
        let mut nurse = Self { due: started, check, health, started, running: None };
        nurse.due = started + nurse.pause();
        nurse.write(container.directory());
        Some(nurse)
    }

    /// Until the next check is due or one has taken too long.
    pub(super) fn left(&self) -> Duration {
        let until = self.running.as_ref().map_or(self.due, |running| running.deadline);
        until.saturating_duration_since(Instant::now())
    }

    /// What a running check prints to.
    pub(super) fn output(&self) -> Option<BorrowedFd<'_>> {
        Some(self.running.as_ref()?.output.as_ref()?.as_fd())
    }

    /// Does what is due. `can_read`: the running check has printed something, or closed its output.
    pub(super) fn work(&mut self, container: &Container, can_read: bool) {
        let Some(running) = &mut self.running else {
            if Instant::now() >= self.due {
                self.start(container);
            }
            return;
        };
        if can_read {
            running.read();
        }
        if Instant::now() >= running.deadline {
            running.is_late = true;
            // ESRCH: it ends at this moment.
            let _ = pidfd::send_signal_to_group(running.child.as_raw(), SIGKILL);
            let _ = pidfd::send_signal(running.child.as_raw(), SIGKILL);
        }
        let end = match process::reap_child(running.child) {
            Ok(Some(end)) => end,
            Ok(None) if running.is_late => {
                running.deadline = Instant::now() + Duration::from_millis(100);
                return;
            }
            Ok(None) => return,
            Err(_) => End::Exited(1),
        };
        self.finish(container, end);
    }

    fn start(&mut self, container: &Container) {
        let began = Timestamp::now();
        let timeout = Duration::from_nanos(self.check.timeout_ns.max(1));
        match start_check(container, &self.check) {
            Ok((child, output)) => {
                let deadline = Instant::now() + timeout;
                self.running = Some(Running {
                    child,
                    output: Some(output),
                    text: Vec::new(),
                    began,
                    deadline,
                    is_late: false,
                });
            }
            Err(errno) => {
                let text = format!("the check cannot be started: {}", errno.desc());
                self.note(container, Checked { start: began, end: began, exit_code: -1, output: text });
            }
        }
    }

    fn finish(&mut self, container: &Container, end: End) {
        let Some(mut running) = self.running.take() else { return };
        running.drain();
        let (exit_code, output) = if running.is_late {
            let seconds = Duration::from_nanos(self.check.timeout_ns);
            (-1, format!("Health check exceeded timeout ({seconds:?})"))
        } else {
            (end.code(), String::from_utf8_lossy(&running.text).into_owned())
        };
        self.note(container, Checked { start: running.began, end: Timestamp::now(), exit_code, output });
    }

    fn note(&mut self, container: &Container, checked: Checked) {
        let is_young = self.started.elapsed() < self.start_period();
        let health = &mut self.health;
        if checked.exit_code == 0 {
            health.status = "healthy".into();
            health.failing_streak = 0;
        } else if health.status != "starting" || !is_young {
            health.failing_streak = health.failing_streak.saturating_add(1);
            if health.failing_streak >= self.check.retries.max(1) {
                health.status = "unhealthy".into();
            }
        }
        self.health.log.push_back(checked);
        while self.health.log.len() > KEPT_CHECKS {
            self.health.log.pop_front();
        }
        self.due = Instant::now() + self.pause();
        self.write(container.directory());
    }

    fn start_period(&self) -> Duration {
        Duration::from_nanos(self.check.start_period_ns)
    }

    fn pause(&self) -> Duration {
        let is_starting = self.health.status == "starting" && self.started.elapsed() < self.start_period();
        let interval = if is_starting { self.check.start_interval_ns } else { self.check.interval_ns };
        Duration::from_nanos(interval.max(1_000_000))
    }

    fn write(&self, directory: &Path) {
        let text = serde_json::to_vec(&self.health).unwrap_or_default();
        let new = directory.join(".health");
        // A full disk: what is told is older than it could be.
        let _ = fs::write(&new, text).and_then(|()| fs::rename(&new, directory.join(FILE)));
    }

    /// The container has ended, and a running check with it.
    pub(super) fn end(self) {
        if let Some(running) = self.running {
            // ESRCH: it has ended.
            let _ = pidfd::send_signal_to_group(running.child.as_raw(), SIGKILL);
            let _ = pidfd::send_signal(running.child.as_raw(), SIGKILL);
            let _ = process::wait(running.child);
        }
    }
}

impl Running {
    fn read(&mut self) {
        let Some(output) = &self.output else { return };
        let mut bytes = [0; 4096];
        match access::read(output, &mut bytes) {
            Ok(count) if count > 0 => {
                let room = OUTPUT_BYTES.saturating_sub(self.text.len());
                self.text.extend(bytes.iter().take(count.min(room)));
            }
            Err(Errno::EAGAIN) => {}
            _ => self.output = None,
        }
    }

    fn drain(&mut self) {
        while let Some(output) = &self.output {
            if !access::wait_readable(output.as_fd(), Duration::ZERO).unwrap_or(false) {
                return;
            }
            self.read();
        }
    }
}

fn start_check(container: &Container, check: &HealthCheck) -> Result<(Child, PipeReader), Errno> {
    let (output, there) = io::pipe().map_err(to_errno)?;
    let witness = SingleThreaded::witness().ok_or(Errno::EINVAL)?;
    let child = process::fork_child(&witness, || {
        let ready = process::default_signals().and_then(|()| process::new_session()).and_then(|()| {
            let null = File::open("/dev/null").map_err(to_errno)?;
            process::set_standard_streams(null, &there, &there)?;
            process::keep_standard_streams()
        });
        if ready.is_err() {
            return 1;
        }
        let entry = Entry {
            argv: check.argv(),
            env: container.env().unwrap_or_default(),
            workdir: None,
            user: None,
            keep_stdin: true,
        };
        match enter::enter(container, &entry) {
            Ok(never) => match never {},
            Err(error) => {
                // What it prints is what is kept of the check.
                let _ = access::write(io::stdout(), format!("{error}\n").as_bytes());
                error.exit_code().unwrap_or(1).into()
            }
        }
    })?;
    access::never_wait(&output)?;
    Ok((child, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_check_is_for_the_shell() {
        let words = |test: &[&str]| HealthCheck::new(test.iter().map(|word| (*word).into()).collect()).argv();
        assert_eq!(words(&["CMD-SHELL", "curl x | y"]), ["/bin/sh", "-c", "curl x | y"]);
        assert_eq!(words(&["CMD", "a", "b"]), ["a", "b"]);
        assert!(words(&["NONE"]).is_empty() && words(&[]).is_empty());
    }
}
