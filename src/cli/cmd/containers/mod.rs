//! The verbs for containers, and what they share: where the state is, and one answer for each name.

mod attach;
mod commit;
mod exec;
mod files;
mod health;
mod inspect;
mod logs;
mod ps;
mod start;
mod stats;

use std::path::Path;

use crate::host::private_directories;
use crate::runtime::{self, Container, Ending, RuntimeError, Shelf};
use crate::sched;

use super::Session;
use crate::cli::args::{ContainerVerb, StopArgs};
use crate::cli::failure::Failure;
use crate::cli::{table, term};

pub(super) use inspect::value as inspect;
pub(super) use start::run_kept;

pub(in crate::cli) fn run(verb: &ContainerVerb, session: &Session) -> Result<(), Failure> {
    match verb {
        ContainerVerb::Exec(args) => exec::run(args, session),
        ContainerVerb::Ps(args) => ps::run(args, session),
        ContainerVerb::Create(args) => start::create(args, session),
        ContainerVerb::Start(args) => start::run(args, session),
        ContainerVerb::Logs(args) => logs::run(args, session),
        ContainerVerb::Attach(args) => attach::run(args, session),
        ContainerVerb::Stop(args) => each(&args.containers, session, |container| stop(container, args)),
        ContainerVerb::Restart(args) => each(&args.containers, session, |container| {
            stop(container, args)?;
            start::again(container, session, None)
        }),
        ContainerVerb::Kill(args) => {
            let signal = runtime::parse_signal(&args.signal)?;
            each(&args.containers, session, |container| Ok(runtime::kill(container, signal)?))
        }
        ContainerVerb::Rm(args) => each(&args.containers, session, |container| {
            runtime::remove(container, args.force)?;
            if args.volumes { Ok(container.remove_own_volumes()?) } else { Ok(()) }
        }),
        ContainerVerb::Wait(args) => all(&args.containers, session, |_, container| {
            let code = Ending::of(&container)?.wait(&container)?.ok_or_else(|| {
                Failure::new(
                    format!("the exit code of `{}` went to whoever started it", container.record.name),
                    "start it with `slipway run -d` to ask for it later",
                )
            })?;
            term::print(&format_args!("{code}\n"))
        }),
        ContainerVerb::Rename(args) => {
            let shelf = shelf(session);
            let mut container = shelf.find(&args.container)?;
            Ok(runtime::rename(&shelf, &mut container, &args.name)?)
        }
        ContainerVerb::Copy(args) => files::cp(args, session),
        ContainerVerb::Diff(args) => files::diff(args, session),
        ContainerVerb::Export(args) => files::export(args, session),
        ContainerVerb::Commit(args) => commit::run(args, session),
        ContainerVerb::Stats(args) => stats::run(args, session),
        ContainerVerb::Update(_) => Err(Failure::new(
            "cannot change the limits of a container: they are set when it starts",
            "make it anew with other flags; the limits of a job are changed with `scontrol update`",
        )),
        ContainerVerb::Top(args) => top(&running(&args.container, session)?),
        // A container uses the host's network: nothing is forwarded.
        ContainerVerb::Port(args) => shelf(session).find(&args.container).map(drop).map_err(Failure::from),
    }
}

fn stop(container: &Container, args: &StopArgs) -> Result<(), Failure> {
    let signal = args.signal.as_deref().map(runtime::parse_signal).transpose()?;
    Ok(runtime::stop(container, signal, args.timeout)?)
}

/// How many containers there are, and how many of them run.
pub(in crate::cli::cmd) fn count(session: &Session) -> Result<(usize, usize), Failure> {
    let all = shelf(session).list()?;
    Ok((all.len(), all.iter().filter(|container| container.is_running()).count()))
}

/// The caller's containers on this node.
pub(super) fn shelf(session: &Session) -> Shelf {
    let in_job = sched::read_job(&session.env, Path::new("/")).job_id.is_some();
    let directories = private_directories(&session.env, in_job);
    // Whoever looks at containers puts right what killed processes have left, and so it is with what they share.
    directories.iter().for_each(|directory| crate::launch::sweep_keepers(directory));
    Shelf::new(directories)
}

/// A container that must run.
fn running(word: &str, session: &Session) -> Result<Container, Failure> {
    let container = shelf(session).find(word)?;
    if container.is_running() {
        Ok(container)
    } else {
        Err(RuntimeError::NotRunning { name: word.into() }.into())
    }
}

/// Whether standard input is a terminal, where `-t` asks for one. In a batch script that is the most common slip of a
/// pasted line, and harmless; elsewhere it is an error, as with docker.
fn has_terminal(session: &Session) -> Result<bool, Failure> {
    if term::input_is_terminal() {
        return Ok(true);
    }
    if session.env.contains_key(std::ffi::OsStr::new("SLURM_JOB_ID")) {
        term::warn("there is no terminal: `-t` is left out");
        return Ok(false);
    }
    Err(Failure::new("the input device is not a TTY", "leave `-t` out"))
}

/// Does something to each container and prints the word that named it, as docker does. One that fails does not keep the
/// others.
fn each(
    words: &[String],
    session: &Session,
    mut act: impl FnMut(&mut Container) -> Result<(), Failure>,
) -> Result<(), Failure> {
    all(words, session, |word, mut container| {
        act(&mut container)?;
        term::print(&format_args!("{word}\n"))
    })
}

fn all(
    words: &[String],
    session: &Session,
    mut act: impl FnMut(&str, Container) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let shelf = shelf(session);
    let mut has_failed = false;
    for word in words {
        let result = shelf.find(word).map_err(Failure::from).and_then(|container| act(word, container));
        if let Err(failure) = result {
            term::complain(&failure);
            has_failed = true;
        }
    }
    if has_failed { Err(Failure::quiet_own()) } else { Ok(()) }
}

/// The processes of a container, by what procfs says.
fn top(container: &Container) -> Result<(), Failure> {
    let mut lines = vec![["UID", "PID", "PPID", "STAT", "CMD"].map(str::to_owned).to_vec()];
    for pid in container.processes() {
        // One that has ended meanwhile is left out.
        lines.extend(process_line(pid));
    }
    term::print(&table::columns(&lines))
}

fn process_line(pid: i32) -> Option<Vec<String>> {
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).ok();
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned()
    };
    let command = read("cmdline")?;
    let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let command = words.join(" ").trim_end().to_owned();
    let command = if command.is_empty() { format!("[{}]", field("Name")) } else { command };
    Some(vec![field("Uid"), pid.to_string(), field("PPid"), field("State"), command])
}
