//! Signals, waiting, removing, renaming.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::sys::Errno;
use crate::sys::pidfd::{ProcessHandle, signal_number};

use super::container::{Container, parse_exit};
use super::error::RuntimeError;
use super::names;
use super::shelf::Shelf;
use super::sweep::SIGKILL;

/// SIGTERM, on every architecture.
const SIGTERM: i32 = 15;
/// How long a process may take to die of SIGKILL: one that waits for a file system may take its time.
const DYING_SECONDS: u64 = 10;

/// The number of a signal in a user's words.
pub fn parse_signal(text: &str) -> Result<i32, RuntimeError> {
    signal_number(text).ok_or_else(|| RuntimeError::BadSignal { text: text.to_owned() })
}

/// Asks the workload to end: the signal that was asked for, or the container's own, and SIGKILL after the grace. Returns once
/// it has ended. One that does not run has.
pub fn stop(
    container: &Container,
    signal: Option<i32>,
    grace_seconds: Option<i64>,
) -> Result<(), RuntimeError> {
    let Some(process) = container.process() else { return finish(container) };
    let own = container.record.stop_signal.as_deref().and_then(signal_number);
    send(container, &process, signal.or(own).unwrap_or(SIGTERM))?;
    // Negative: for ever.
    let grace = u64::try_from(grace_seconds.unwrap_or(container.record.grace_seconds())).ok();
    let ended = process.wait(grace.map(Duration::from_secs)).unwrap_or(false);
    if ended { finish(container) } else { end(container, &process) }
}

/// Sends a signal; after SIGKILL waits for the end.
pub fn kill(container: &Container, signal: i32) -> Result<(), RuntimeError> {
    let not_running = || RuntimeError::NotRunning { name: container.record.name.clone() };
    let process = container.process().filter(|_| container.is_running()).ok_or_else(not_running)?;
    if signal == SIGKILL {
        return end(container, &process);
    }
    send(container, &process, signal)
}

/// Stops a process of a container until [`go_on`]. ESRCH: it has just ended.
pub fn stop_process(pid: i32) -> Result<(), Errno> {
    const SIGSTOP: &str = "STOP";
    crate::sys::pidfd::send_signal(pid, signal_number(SIGSTOP).ok_or(Errno::EINVAL)?)
}

/// Lets a stopped process go on.
pub fn go_on(pid: i32) -> Result<(), Errno> {
    const SIGCONT: &str = "CONT";
    crate::sys::pidfd::send_signal(pid, signal_number(SIGCONT).ok_or(Errno::EINVAL)?)
}

/// How a container will have ended, held open: with `--rm` the monitor removes the file's name.
#[derive(Debug)]
pub struct Ending {
    path: PathBuf,
    file: File,
}

impl Ending {
    /// Opens it.
    pub fn of(container: &Container) -> Result<Self, RuntimeError> {
        let path = container.directory().join("exit");
        let file = File::open(&path).map_err(RuntimeError::state("open", &path))?;
        Ok(Self { path, file })
    }

    /// Waits for the end, and gives the exit code; `None` where only the process that started the container knows it.
    pub fn wait(mut self, container: &Container) -> Result<Option<i32>, RuntimeError> {
        let watched = container.record.monitor.or(container.record.process);
        let running = watched.filter(|_| container.exit().is_none()).and_then(|id| id.open());
        if let Some(process) = running {
            process.wait(None).map_err(|errno| RuntimeError::Monitor {
                name: container.record.name.clone(),
                act: "waiting for its end",
                errno,
            })?;
        }
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).map_err(RuntimeError::state("read", &self.path))?;
        Ok(parse_exit(&bytes).map(|exit| exit.code))
    }
}

/// Removes a container, and with `force` ends it first.
pub fn remove(container: &Container, force: bool) -> Result<(), RuntimeError> {
    if container.is_running() {
        if !force {
            return Err(RuntimeError::Running { name: container.record.name.clone() });
        }
        match container.process() {
            Some(process) => end(container, &process)?,
            None => finish(container)?,
        }
    }
    container.forget()
}

/// Gives a container another name.
pub fn rename(shelf: &Shelf, container: &mut Container, name: &str) -> Result<(), RuntimeError> {
    let name = names::parse_name(name).ok_or_else(|| RuntimeError::BadName { name: name.to_owned() })?;
    if name == container.record.name {
        return Err(RuntimeError::NameInUse {
            name: name.to_owned(),
            id: container.record.short_id().to_owned(),
        });
    }
    shelf.take_name(container, name)?;
    container.take_over_name(name)
}

fn send(container: &Container, process: &ProcessHandle, number: i32) -> Result<(), RuntimeError> {
    match process.signal(number) {
        // It has just ended by itself.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(RuntimeError::Signal { name: container.record.name.clone(), number, errno }),
    }
}

fn end(container: &Container, process: &ProcessHandle) -> Result<(), RuntimeError> {
    send(container, process, SIGKILL)?;
    if !process.wait(Some(Duration::from_secs(DYING_SECONDS))).unwrap_or(false) {
        return Err(RuntimeError::Unkillable { name: container.record.name.clone(), seconds: DYING_SECONDS });
    }
    finish(container)
}

/// Waits for the monitor to write down the end.
fn finish(container: &Container) -> Result<(), RuntimeError> {
    let Some(monitor) = container.record.monitor.and_then(|id| id.open()) else { return Ok(()) };
    if monitor.wait(Some(Duration::from_secs(DYING_SECONDS))).unwrap_or(false) {
        return Ok(());
    }
    Err(RuntimeError::Unkillable { name: container.record.name.clone(), seconds: DYING_SECONDS })
}
