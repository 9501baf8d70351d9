//! Starting a container: the command's side.

use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::base::Hint as _;
use crate::launch::{Context, LaunchError, stop_for_test};
use crate::plan::LaunchPlan;
use crate::sys::ns::SingleThreaded;
use crate::sys::pidfd::ProcessId;
use crate::sys::process;
use crate::sys::{Errno, to_errno};

use super::container::Container;
use super::error::RuntimeError;
use super::monitor;

/// Longest answer of a monitor, in bytes: an error with its hint.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// What the monitor, or the process that was to become the workload, says about the start. A workload that was executed
/// says nothing: its end of the pipe is closed by exec.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The workload runs.
    Started,
    /// It does not.
    Failed { message: String, hint: Option<String>, code: u8 },
}

impl Answer {
    pub(super) fn of_launch(error: &LaunchError) -> Self {
        Self::Failed { message: error.to_string(), hint: error.hint(), code: error.exit_code() }
    }

    pub(super) fn of_error(error: &RuntimeError) -> Self {
        let code = error.exit_code().unwrap_or(1);
        Self::Failed { message: error.to_string(), hint: error.hint(), code }
    }
}

/// Starts the workload below a monitor of its own, and returns once it has been executed. Whoever has the other end of
/// `first` is attached before it prints anything.
pub fn start(
    container: &mut Container,
    plan: &LaunchPlan,
    context: &Context<'_>,
    first: Option<OwnedFd>,
) -> Result<(), RuntimeError> {
    container.prepare_start()?;
    stop_for_test("prepared");
    let name = container.record.name.clone();
    let has_answered =
        in_background(&name, |answers| monitor::run(container, plan, context, first, answers))?;
    // The monitor has its copy.
    container.lock = None;
    container.reload();
    if has_answered { Ok(()) } else { Err(RuntimeError::MonitorGone { name }) }
}

/// Runs `work` in a process of its own that nobody waits for, and waits for its answer. False if the pipe ended without
/// one: something was executed, or the process was killed.
pub(super) fn in_background(name: &str, work: impl FnOnce(PipeWriter) -> i32) -> Result<bool, RuntimeError> {
    let failed = |act, errno| RuntimeError::Monitor { name: name.to_owned(), act, errno };
    let witness =
        SingleThreaded::witness().ok_or_else(|| failed("looking at its own threads", Errno::EINVAL))?;
    let (mut answers, theirs) = io::pipe().map_err(|error| failed("making a pipe", to_errno(error)))?;
    // The other process takes it out of its own copy; here it stays and is dropped.
    let mut theirs = Some(theirs);
    process::spawn_detached(&witness, || theirs.take().map_or(1, work))
        .map_err(|errno| failed("starting a process", errno))?;
    drop(theirs);
    let mut text = Vec::new();
    let read = answers.by_ref().take(MAX_ANSWER_BYTES).read_to_end(&mut text);
    read.map_err(|error| failed("reading its answer", to_errno(error)))?;
    if text.is_empty() {
        return Ok(false);
    }
    match serde_json::from_slice(&text) {
        Ok(Answer::Started) => Ok(true),
        Ok(Answer::Failed { message, hint, code }) => Err(RuntimeError::Launch { message, hint, code }),
        Err(_) => Err(RuntimeError::MonitorGone { name: name.to_owned() }),
    }
}

/// Says how it went. Whoever asked may be gone, and then nobody wants to know.
pub(super) fn say(mut answers: PipeWriter, answer: &Answer) {
    let text = serde_json::to_vec(answer).unwrap_or_default();
    let _ = answers.write_all(&text);
}

/// Notes that this process is about to become the workload of a container that no monitor keeps.
pub fn register_own(container: &mut Container) -> Result<(), RuntimeError> {
    container.record.process = ProcessId::own();
    container.record.monitor = None;
    container.record.started = Some(jiff::Timestamp::now());
    container.write()
}

/// Takes back a container that could not be started. Where its monitor was killed the workload may be on its way still.
pub fn unregister(container: &Container) {
    let mut now = container.clone();
    now.reload();
    now.end_own_orphan();
    // The launch's own error is what the user must see; the next command that looks puts the rest right.
    let _ = container.remove_own_volumes();
    let _ = container.forget();
}
