//! The monitor: one small process for each detached container. It starts the workload as its child, keeps what it
//! prints, and writes down how it ended. It has one thread and no terminal, and holds no fd of its caller.
//!
//! ```text
//! slipway run -d ── fork, setsid, fork ──▶ slipway-monitor ── fork ──▶ the launcher's own path ── exec ──▶ workload
//!        ▲                                     │   ▲    └─ pid into state.json, then a byte through the gate ─┘
//!        └──────────── Answer ◀────────────────┘   └──────── Answer, or closed by exec ◀──────────────────────┘
//! ```
//!
//! The gate makes sure that no workload runs whose pid is not written down: if the monitor is killed before, the child
//! reads the end of the pipe and ends.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::launch::{self, Context};
use crate::plan::LaunchPlan;
use crate::sys::ns::SingleThreaded;
use crate::sys::pidfd::ProcessId;
use crate::sys::{Errno, access, process};

use super::container::Container;
use super::log::{LogWriter, Stream};
use super::start::{Answer, say};
use super::sweep;

/// Bytes of output that are read at once: a whole pipe.
const READ_BYTES: usize = 64 << 10;
/// After the end of the workload this much output is still taken, per stream: more than a pipe holds. Somebody outside the
/// container may have been given the pipe, and must not keep the monitor.
const LAST_BYTES: usize = 1 << 20;

/// The monitor's whole life. The exit status is for nobody.
pub(super) fn run(
    container: &mut Container,
    plan: &LaunchPlan,
    context: &Context<'_>,
    answers: PipeWriter,
) -> i32 {
    process::set_name(c"slipway-monitor");
    match begin(container, plan, context, &answers) {
        Ok(workload) => workload.watch(container, answers),
        Err((act, errno)) => {
            let message = format!(
                "cannot start container `{}`: {act}: {} ({errno:?})",
                container.record.name,
                errno.desc()
            );
            say(answers, &Answer::Failed { message, hint: None, code: 125 });
            1
        }
    }
}

/// The workload, seen by its monitor.
#[derive(Debug)]
struct Workload {
    child: process::Child,
    /// Held open and never written, where standard input was asked to stay open.
    _input: Option<PipeWriter>,
    out: PipeReader,
    err: PipeReader,
    start: PipeReader,
    log: LogWriter,
}

/// What was attempted, and why it failed.
type Failed = (&'static str, Errno);

fn begin(
    container: &mut Container,
    plan: &LaunchPlan,
    context: &Context<'_>,
    answers: &PipeWriter,
) -> Result<Workload, Failed> {
    // Nothing of the caller's may stay open: `$(slipway run -d …)` would wait for it.
    let mut kept = vec![answers.as_fd(), context.image.file.fd()];
    kept.extend(container.lock.as_ref().map(|lock| lock.as_fd()));
    process::keep_only_fds(&kept).map_err(|errno| ("closing the caller's files", errno))?;
    let log = LogWriter::open(container.log_path()).map_err(|error| ("opening the log", to_errno(&error)))?;
    let (out, out_there) = pipe()?;
    let (err, err_there) = pipe()?;
    let (start, start_there) = pipe()?;
    let (gate_there, gate) = pipe()?;
    let (input_there, input) = match container.record.open_stdin {
        true => pipe().map(|(there, here)| (Some(there), Some(here)))?,
        false => (None, None),
    };
    // The child takes its own copies out of these, and so closes what it must not hold; here they stay.
    let mut here = Some((gate, input));
    let mut there = Some((gate_there, start_there));
    let streams = Streams { input: input_there, out: out_there, err: err_there };
    let witness = SingleThreaded::witness().ok_or(("looking at its own threads", Errno::EINVAL))?;
    let child = process::fork_child(&witness, || {
        drop(here.take());
        there.take().map_or(125, |(gate, start)| become_workload(plan, context, &streams, gate, start))
    })
    .map_err(|errno| ("starting a process", errno))?;
    drop((there, streams));
    let (mut gate, input) = here.ok_or(("keeping the gate", Errno::EINVAL))?;

    container.record.monitor = ProcessId::own();
    container.record.process = ProcessId::of(child.as_raw());
    container.record.started = Some(Timestamp::now());
    if container.write().is_err() {
        // The gate stays shut: the child reads its end, and ends.
        drop(gate);
        // It was this process's child, so there is nothing else to learn.
        let _ = process::wait(child);
        return Err(("writing the state", Errno::EIO));
    }
    // A child that was killed meanwhile is noticed in `watch`.
    let _ = gate.write_all(b"!");
    Ok(Workload { child, _input: input, out, err, start, log })
}

fn pipe() -> Result<(PipeReader, PipeWriter), Failed> {
    io::pipe().map_err(|error| ("making a pipe", to_errno(&error)))
}

fn to_errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// The workload's ends of its standard streams; no input is `/dev/null`.
#[derive(Debug)]
struct Streams {
    input: Option<PipeReader>,
    out: PipeWriter,
    err: PipeWriter,
}

/// The child's part: waits at the gate, takes its streams, and goes the way of every launch.
fn become_workload(
    plan: &LaunchPlan,
    context: &Context<'_>,
    streams: &Streams,
    mut gate: PipeReader,
    start: PipeWriter,
) -> i32 {
    if gate.read_exact(&mut [0]).is_err() {
        return 125;
    }
    drop(gate);
    let ready = process::new_session().and_then(|()| match &streams.input {
        Some(input) => process::set_standard_streams(input, &streams.out, &streams.err),
        None => {
            let null = File::open("/dev/null").map_err(|error| to_errno(&error))?;
            process::set_standard_streams(null, &streams.out, &streams.err)
        }
    });
    if let Err(errno) = ready {
        let message =
            format!("cannot start the workload: its standard streams: {} ({errno:?})", errno.desc());
        say(start, &Answer::Failed { message, hint: None, code: 125 });
        return 125;
    }
    let error = launch::apply(plan, context);
    say(start, &Answer::of_launch(&error));
    error.exit_code().into()
}

impl Workload {
    /// Keeps the workload's output until it has ended, and writes down how.
    fn watch(mut self, container: &Container, answers: PipeWriter) -> i32 {
        let Ok(ends) = process::watch_children() else { return 1 };
        process::ignore_signals();
        // The caller's directory may be unmounted some day. `/` is always there.
        let _ = process::change_directory(Path::new("/"));
        let mut answers = Some(answers);
        let mut failure = None;
        let mut namespace = None;
        let mut open = [true, true];
        let code = loop {
            // Before the first wait too: the child may have ended before its end was watched.
            match process::try_wait(self.child) {
                Ok(None) => {}
                Ok(Some(code)) => break code,
                Err(_) => break 125,
            }
            let fds: [Option<BorrowedFd<'_>>; 4] = [
                (failure.is_none() && answers.is_some()).then(|| self.start.as_fd()),
                open[0].then(|| self.out.as_fd()),
                open[1].then(|| self.err.as_fd()),
                Some(ends.as_fd()),
            ];
            let Ok([started, out, err, _]) = access::wait_any(fds, None) else { break 125 };
            process::clear_watch(&ends);
            if started {
                failure = self.failure();
                if failure.is_none() {
                    namespace = sweep::mount_namespace(self.child.as_raw());
                    answers.take().into_iter().for_each(|answers| say(answers, &Answer::Started));
                }
            }
            for (ready, stream, index) in [(out, Stream::Stdout, 0), (err, Stream::Stderr, 1)] {
                if ready {
                    open[index] = self.keep_some(stream) > 0;
                }
            }
        };
        if let Some(namespace) = namespace {
            sweep::kill_all_in(&namespace);
        }
        self.keep_rest();
        // A child that ended before the pipe was looked at: what it said is still there.
        let failure = failure.or_else(|| answers.is_some().then(|| self.failure()).flatten());
        let error = match &failure {
            Some(Answer::Failed { message, .. }) => Some(message.clone()),
            _ => None,
        };
        // The disk may be full, or somebody has removed the directory: then there is nobody to tell.
        let _ = container.write_exit(code, error);
        if container.record.auto_remove {
            let _ = container.remove_own_volumes();
            let _ = container.forget();
        }
        if let Some(answers) = answers {
            say(answers, &failure.unwrap_or(Answer::Started));
        }
        0
    }

    /// What the child said on its way; nothing if it was executed. Returns at once: its end is closed, or being closed.
    fn failure(&mut self) -> Option<Answer> {
        let mut text = Vec::new();
        self.start.read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Keeps what a stream has now; gives the number of bytes, 0 at its end.
    fn keep_some(&mut self, stream: Stream) -> usize {
        let pipe = if stream == Stream::Stdout { &mut self.out } else { &mut self.err };
        let mut bytes = vec![0; READ_BYTES];
        let count = pipe.read(&mut bytes).unwrap_or(0);
        let now = Timestamp::now();
        match bytes.get(..count).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => self.log.take(stream, bytes, now),
            None => self.log.finish(stream, now),
        }
        count
    }

    /// Keeps what is still in the pipes, without waiting for whoever may hold them.
    fn keep_rest(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut left = LAST_BYTES;
            loop {
                let pipe = if stream == Stream::Stdout { &self.out } else { &self.err };
                let ready = access::wait_readable(pipe.as_fd(), Duration::ZERO).unwrap_or(false);
                let count = if ready && left > 0 { self.keep_some(stream) } else { 0 };
                if count == 0 {
                    break;
                }
                left = left.saturating_sub(count);
            }
            self.log.finish(stream, Timestamp::now());
        }
    }
}
