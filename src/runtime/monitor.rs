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
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::launch::{self, Context, stop_for_test};
use crate::plan::LaunchPlan;
use crate::sys::access::{self, Wanted};
use crate::sys::ns::SingleThreaded;
use crate::sys::pidfd::ProcessId;
use crate::sys::{Errno, process, socket, to_errno};

use super::container::Container;
use super::health::Nurse;
use super::hub::{Hub, Sink};
use super::log::{LogWriter, Stream};
use super::start::{Answer, say};
use super::sweep;

/// Bytes of output that are read at once: a whole pipe.
const READ_BYTES: usize = 64 << 10;
/// After the end of the workload this much output is still taken, per stream: more than a pipe holds. Somebody outside the
/// container may have been given the pipe, and must not keep the monitor.
const LAST_BYTES: usize = 1 << 20;
/// So long the last output may wait for those who watch.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// The monitor's whole life. The exit status is for nobody.
pub(super) fn run(
    container: &mut Container,
    plan: &LaunchPlan,
    context: &Context<'_>,
    first: Option<OwnedFd>,
    answers: PipeWriter,
) -> i32 {
    process::set_name(c"slipway-monitor");
    stop_for_test("monitor-begins");
    match begin(container, plan, context, first, &answers) {
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
    /// Where its control group lies, if it has one.
    groups: Option<PathBuf>,
    hub: Hub,
    /// Its output and its errors, where it has no terminal; `None` once they have ended.
    pipes: [Option<PipeReader>; 2],
    /// Where the terminal comes from, until it has.
    console: Option<OwnedFd>,
    /// The terminal has bytes, or may have.
    reads_terminal: bool,
    start: PipeReader,
    log: LogWriter,
    /// Looks after the health once the workload runs.
    nurse: Option<Nurse>,
}

/// What was attempted, and why it failed.
type Failed = (&'static str, Errno);

fn begin(
    container: &mut Container,
    plan: &LaunchPlan,
    context: &Context<'_>,
    first: Option<OwnedFd>,
    answers: &PipeWriter,
) -> Result<Workload, Failed> {
    // Nothing of the caller's may stay open: `$(slipway run -d …)` would wait for it.
    let mut kept = vec![answers.as_fd(), context.image.file.fd()];
    kept.extend(context.lease);
    kept.extend(container.lock.as_ref().map(|lock| lock.as_fd()));
    kept.extend(first.as_ref().map(OwnedFd::as_fd));
    process::keep_only_fds(&kept).map_err(|errno| ("closing the caller's files", errno))?;
    let log = LogWriter::open(container.log_path()).map_err(|error| ("opening the log", to_errno(error)))?;
    let record = &container.record;
    let (out, out_there) = pipe()?;
    let (err, err_there) = pipe()?;
    let (start, start_there) = pipe()?;
    let (gate_there, gate) = pipe()?;
    let (input_there, input) = match record.open_stdin && !record.tty {
        true => pipe().map(|(there, here)| (Some(there), Some(here)))?,
        false => (None, None),
    };
    let (console, console_there) = match record.tty {
        true => socket::pair()
            .map(|(here, there)| (Some(here), Some(there)))
            .map_err(|errno| ("making sockets", errno))?,
        false => (None, None),
    };
    let directory = container.lock.as_ref().map(|lock| lock.as_fd());
    let mut hub = Hub::new(directory, first, record.stdin_once);
    stop_for_test("monitor-listens");
    // The child takes its own copies out of these, and so closes what it must not hold; here they stay.
    let mut here = Some((gate, input));
    let mut there = Some((gate_there, start_there));
    let streams = Streams { input: input_there, out: out_there, err: err_there, console: console_there };
    let witness = SingleThreaded::witness().ok_or(("looking at its own threads", Errno::EINVAL))?;
    let child = process::fork_child(&witness, || {
        drop(here.take());
        there.take().map_or(125, |(gate, start)| become_workload(plan, context, &streams, gate, start))
    })
    .map_err(|errno| ("starting a process", errno))?;
    drop((there, streams));
    let (mut gate, input) = here.ok_or(("keeping the gate", Errno::EINVAL))?;
    if let Some(pipe) = input {
        hub.set_sink(Sink::Pipe(pipe));
    }

    stop_for_test("monitor-forked");
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
    stop_for_test("monitor-written");
    // A child that was killed meanwhile is noticed in `watch`.
    let _ = gate.write_all(b"!");
    Ok(Workload {
        child,
        groups: plan.control_group().map(Path::to_path_buf),
        hub,
        pipes: [Some(out), Some(err)],
        console,
        reads_terminal: false,
        start,
        log,
        nurse: None,
    })
}

fn pipe() -> Result<(PipeReader, PipeWriter), Failed> {
    io::pipe().map_err(|error| ("making a pipe", to_errno(error)))
}

/// The workload's ends of its standard streams; no input is `/dev/null`. With a terminal they are what it gets until it
/// makes that.
#[derive(Debug)]
struct Streams {
    input: Option<PipeReader>,
    out: PipeWriter,
    err: PipeWriter,
    /// Where it sends its terminal.
    console: Option<OwnedFd>,
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
            let null = File::open("/dev/null").map_err(to_errno)?;
            process::set_standard_streams(null, &streams.out, &streams.err)
        }
    });
    if let Err(errno) = ready {
        let message =
            format!("cannot start the workload: its standard streams: {} ({errno:?})", errno.desc());
        say(start, &Answer::Failed { message, hint: None, code: 125 });
        return 125;
    }
    let error = launch::apply(plan, &context.with_console(streams.console.as_ref()));
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
        let code = loop {
            // Before the first wait too: the child may have ended before its end was watched.
            match process::try_wait(self.child) {
                Ok(None) => {}
                Ok(Some(code)) => break code,
                Err(_) => break 125,
            }
            let Ok(started) = self.turn(container, &ends, failure.is_none() && answers.is_some()) else {
                break 125;
            };
            process::clear_watch(&ends);
            if started {
                failure = self.failure();
                if failure.is_none() {
                    stop_for_test("monitor-answers");
                    namespace = sweep::mount_namespace(self.child.as_raw());
                    answers.take().into_iter().for_each(|answers| say(answers, &Answer::Started));
                    self.nurse = Nurse::new(container);
                }
            }
        };
        stop_for_test("monitor-ends");
        if let Some(nurse) = self.nurse.take() {
            nurse.end();
        }
        if let Some(namespace) = namespace {
            sweep::kill_all_in(&namespace);
        }
        if let Some(parent) = &self.groups {
            launch::sweep_groups(parent);
        }
        self.take_terminal();
        self.keep_rest();
        // A child that ended before the pipe was looked at: what it said is still there.
        let failure = failure.or_else(|| answers.is_some().then(|| self.failure()).flatten());
        let error = match &failure {
            Some(Answer::Failed { message, .. }) => Some(message.clone()),
            _ => None,
        };
        // The disk may be full, or somebody has removed the directory: then there is nobody to tell.
        let _ = container.write_exit(code, error);
        stop_for_test("monitor-told");
        if container.record.auto_remove {
            let _ = container.remove_own_volumes();
            let _ = container.forget();
        }
        if let Some(answers) = answers {
            say(answers, &failure.unwrap_or(Answer::Started));
        }
        self.hub.close(LAST_PATIENCE);
        0
    }

    /// Waits once, and does what has become possible. True if the start has been decided, where `asks_start`.
    fn turn(&mut self, container: &Container, ends: &impl AsFd, asks_start: bool) -> Result<bool, Errno> {
        let mut wanted = vec![reading(ends.as_fd())];
        let start = asks_start.then(|| push(&mut wanted, self.start.as_fd()));
        let console = self.console.as_ref().map(|console| push(&mut wanted, console.as_fd()));
        // Nothing more is taken of the workload than those who watch it take.
        let takes = self.hub.takes_output();
        let terminal = self.hub.terminal().filter(|_| takes && self.reads_terminal);
        let terminal = terminal.map(|master| push(&mut wanted, master.as_fd()));
        let pipes = self
            .pipes
            .each_ref()
            .map(|pipe| pipe.as_ref().filter(|_| takes).map(|pipe| push(&mut wanted, pipe.as_fd())));
        let check = self.nurse.as_ref().and_then(Nurse::output);
        let check = check.map(|output| push(&mut wanted, output));
        let places = self.hub.want(&mut wanted);
        let ready = access::wait_ready(&wanted, self.nurse.as_ref().map(Nurse::left))?;
        let is_ready =
            |place: Option<usize>| place.and_then(|place| ready.get(place)).is_some_and(|ready| ready.read);
        if is_ready(console) {
            self.take_terminal();
        }
        if is_ready(terminal) {
            self.reads_terminal = self.keep_some(Stream::Stdout) > 0;
        }
        let [out, err] = pipes.map(is_ready);
        for (ready, stream) in [(out, Stream::Stdout), (err, Stream::Stderr)] {
            if ready && self.keep_some(stream) == 0 {
                *self.pipe(stream) = None;
            }
        }
        self.hub.work(&places, &ready);
        if let Some(nurse) = &mut self.nurse {
            nurse.work(container, is_ready(check));
        }
        Ok(is_ready(start))
    }

    /// What the child said on its way; nothing if it was executed. Returns at once: its end is closed, or being closed.
    fn failure(&mut self) -> Option<Answer> {
        let mut text = Vec::new();
        self.start.read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Takes the terminal that the workload has made. From then on nothing else is its output.
    fn take_terminal(&mut self) {
        let Some(console) = self.console.take() else { return };
        if let Ok(Some((_, fds))) = socket::try_receive(&console, 1)
            && let Some(master) = fds.into_iter().next()
        {
            self.hub.set_sink(Sink::Terminal(master));
            self.reads_terminal = true;
            self.pipes = [None, None];
        }
    }

    fn pipe(&mut self, stream: Stream) -> &mut Option<PipeReader> {
        let [out, err] = &mut self.pipes;
        if stream == Stream::Stdout { out } else { err }
    }

    /// Keeps what a stream has now; gives the number of bytes, 0 at its end.
    fn keep_some(&mut self, stream: Stream) -> usize {
        let mut bytes = vec![0; READ_BYTES];
        let count = match (self.hub.terminal(), &self.pipes) {
            (Some(master), _) => match access::read(master, &mut bytes) {
                // Nothing yet after all. EIO: no program has the terminal open any more.
                Err(Errno::EAGAIN) => return 1,
                other => other.unwrap_or(0),
            },
            (None, [Some(pipe), _]) if stream == Stream::Stdout => {
                access::read(pipe, &mut bytes).unwrap_or(0)
            }
            (None, [_, Some(pipe)]) if stream == Stream::Stderr => {
                access::read(pipe, &mut bytes).unwrap_or(0)
            }
            (None, _) => 0,
        };
        let now = Timestamp::now();
        match bytes.get(..count).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => {
                self.log.take(stream, bytes, now);
                self.hub.tell(stream, bytes);
            }
            None => self.log.finish(stream, now),
        }
        count
    }

    /// Keeps what is still on its way, without waiting for whoever may hold the other side.
    fn keep_rest(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut left = LAST_BYTES;
            loop {
                let is_terminal = self.hub.terminal().is_some();
                let source = match self.hub.terminal() {
                    Some(master) => (stream == Stream::Stdout && self.reads_terminal).then(|| master.as_fd()),
                    None => {
                        let [out, err] = &self.pipes;
                        let pipe = if stream == Stream::Stdout { out } else { err };
                        pipe.as_ref().map(|pipe| pipe.as_fd())
                    }
                };
                let Some(source) = source else { break };
                let ready = access::wait_readable(source, Duration::ZERO).unwrap_or(false);
                let count = if ready && left > 0 { self.keep_some(stream) } else { 0 };
                self.reads_terminal &= !is_terminal || count > 0;
                if count == 0 {
                    break;
                }
                left = left.saturating_sub(count);
            }
            self.log.finish(stream, Timestamp::now());
        }
    }
}

fn reading(fd: BorrowedFd<'_>) -> Wanted<'_> {
    Wanted { fd, read: true, write: false }
}

/// Adds a fd to read from to what is waited for, and gives its place.
fn push<'a>(wanted: &mut Vec<Wanted<'a>>, fd: BorrowedFd<'a>) -> usize {
    wanted.push(reading(fd));
    wanted.len() - 1
}
