//! Running a further command in a container: join its namespaces, then become the command.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use crate::launch::{become_workload, join_group_of, supervise};
use crate::sys::ns::{OtherNamespaces, SingleThreaded};
use crate::sys::process::End;
use crate::sys::seccomp::{self, Instruction};
use crate::sys::signals::SignalWatch;
use crate::sys::{Errno, access, privileges, process, pty, socket};

use super::attach::{self, Link, Outputs, Parting, Wishes};
use super::container::Container;
use super::error::RuntimeError;
use super::start::{self, Answer};

/// Longest word of a command that could not be executed, in bytes.
const ANSWER_BYTES: usize = 64 << 10;

/// The command and where it runs.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Argument list.
    pub argv: Vec<OsString>,
    /// `NAME=value` lines, all of them.
    pub env: Vec<OsString>,
    /// The working directory that was asked for; else the container's, or `/` where that is gone.
    pub workdir: Option<PathBuf>,
    /// The user that was asked for.
    pub user: Option<String>,
    /// Standard input is the caller's; else `/dev/null`.
    pub keep_stdin: bool,
}

/// Becomes the command, and returns only the error. Where the container has a pid namespace, a child is the command, and
/// this process ends as that does.
pub fn enter(container: &Container, entry: &Entry) -> Result<Infallible, RuntimeError> {
    let failed = |act, errno| RuntimeError::Enter { name: container.record.name.clone(), act, errno };
    let doors = Doors::of(container)?;
    let witness =
        SingleThreaded::witness().ok_or_else(|| failed("this process has threads", Errno::EINVAL))?;
    if !entry.keep_stdin {
        let null = fs::File::open("/dev/null").map_err(RuntimeError::state("open", "/dev/null"))?;
        process::set_standard_input(null).map_err(|errno| failed("closing standard input", errno))?;
    }
    join(container, &doors.namespaces, &witness)?;
    become_command(container, entry, &doors.filter)
}

/// As [`enter`], on a terminal of the container's own, to which the caller's is attached. Gives how the command ended.
pub fn enter_terminal(
    container: &Container,
    entry: &Entry,
    wishes: Wishes,
    outputs: &mut Outputs<'_>,
) -> Result<Parting, RuntimeError> {
    let failed = |act, errno| RuntimeError::Enter { name: container.record.name.clone(), act, errno };
    let doors = Doors::of(container)?;
    let witness =
        SingleThreaded::witness().ok_or_else(|| failed("this process has threads", Errno::EINVAL))?;
    let (ours, theirs) = socket::pair().map_err(|errno| failed("making sockets", errno))?;
    let mut ours = Some(ours);
    let child = process::fork_child(&witness, || {
        drop(ours.take());
        let error = match become_command_on_terminal(container, &doors, entry, &theirs) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let text = serde_json::to_vec(&Answer::of_error(&error)).unwrap_or_default();
        // The other side may be gone, and then nobody wants to know.
        let _ = socket::send(&theirs, &text, &[]);
        error.exit_code().unwrap_or(125).into()
    });
    let child = child.map_err(|errno| failed("starting a process", errno))?;
    drop((theirs, doors));
    let ours = ours.ok_or_else(|| failed("keeping a socket", Errno::EINVAL))?;
    // Exec closes the other end: until then the terminal stays as it is, so that an error is shown well.
    let mut master = None;
    let receive = || socket::receive(&ours, ANSWER_BYTES);
    while let Some((text, fds)) = receive().map_err(|errno| failed("making a terminal", errno))? {
        match fds.into_iter().next() {
            Some(fd) => master = Some(fd),
            None => {
                // It was a child of this process, and ends by itself.
                let _ = process::wait(child);
                return Err(match serde_json::from_slice(&text) {
                    Ok(Answer::Failed { message, hint, code }) => {
                        RuntimeError::Launch { message, hint, code }
                    }
                    _ => failed("making a terminal", Errno::EIO),
                });
            }
        }
    }
    let Some(master) = master else {
        let end = process::wait(child).map_err(|errno| failed("waiting for the command", errno))?;
        return Ok(Parting::Ended(Some(End::Exited(end))));
    };
    let link = Link::Terminal { master, child };
    let parting = attach::relay(&link, wishes, outputs, &|_| {})
        .map_err(|errno| failed("passing on what is typed and printed", errno))?;
    if let (Parting::Detached, Link::Terminal { master, .. }) = (parting, &link) {
        // The command goes on, and its terminal must: without another side it would get SIGHUP.
        process::spawn_detached(&witness, || hold_terminal(master))
            .map_err(|errno| failed("keeping its terminal", errno))?;
    }
    Ok(parting)
}

/// Takes what is printed to a terminal that nobody looks at, until no program has it open.
fn hold_terminal(master: &OwnedFd) -> i32 {
    process::set_name(c"slipway-terminal");
    process::ignore_signals();
    if process::keep_only_fds(&[master.as_fd()]).is_err() {
        return 1;
    }
    // If it cannot be left, a directory is held that somebody may want to unmount.
    let _ = process::change_directory(Path::new("/"));
    let mut bytes = [0; 4096];
    loop {
        let waited = access::wait_any([Some(master.as_fd())], None);
        match waited.and_then(|_| access::read(master, &mut bytes)) {
            Ok(0) | Err(Errno::EIO) => return 0,
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(_) => return 1,
        }
    }
}

/// As [`enter`], in a process of its own that nobody waits for. Returns once the command has been executed.
pub fn enter_detached(container: &Container, entry: &Entry) -> Result<(), RuntimeError> {
    let name = container.record.name.clone();
    start::in_background(&name, |answers| {
        let closed =
            |errno| RuntimeError::Enter { name: name.clone(), act: "closing the caller's files", errno };
        let kept = process::keep_only_fds(&[answers.as_fd()]).map_err(closed);
        match kept.and_then(|()| enter(container, entry)) {
            Ok(never) => match never {},
            Err(error) => {
                start::say(answers, &Answer::of_error(&error));
                125
            }
        }
    })
    .map(drop)
}

/// Runs `work` in a child that is inside the container: its root is the container's, and it has the rights of the user
/// namespace. Only its exit status comes back.
pub(super) fn visit(
    container: &Container,
    work: impl FnOnce() -> i32,
) -> Result<process::Child, RuntimeError> {
    let failed = |act, errno| RuntimeError::Enter { name: container.record.name.clone(), act, errno };
    let doors = Doors::of(container)?;
    let witness =
        SingleThreaded::witness().ok_or_else(|| failed("this process has threads", Errno::EINVAL))?;
    process::fork_child(&witness, || {
        match SingleThreaded::witness().map(|inside| doors.namespaces.join(&inside)) {
            Some(Ok(())) => work(),
            _ => 125,
        }
    })
    .map_err(|errno| failed("starting a process", errno))
}

/// What leads into a container, opened while it can be.
#[derive(Debug)]
struct Doors {
    namespaces: OtherNamespaces,
    /// The filter of system calls for whoever goes in.
    filter: Vec<Instruction>,
}

impl Doors {
    fn of(container: &Container) -> Result<Self, RuntimeError> {
        let name = &container.record.name;
        let failed = |act, errno| RuntimeError::Enter { name: name.clone(), act, errno };
        let not_running = || RuntimeError::NotRunning { name: name.clone() };
        let id = container.record.process.filter(|_| container.is_running()).ok_or_else(not_running)?;
        let namespaces = OtherNamespaces::of(id.pid).map_err(|errno| match errno {
            Errno::ENOENT | Errno::ESRCH => not_running(),
            other => failed("opening its namespaces", other),
        })?;
        // Only now is it certain whose namespaces these are.
        if !id.is_alive() {
            return Err(not_running());
        }
        if namespaces.are_our_own() {
            return Err(failed("it is still being started", Errno::EAGAIN));
        }
        // Inside, the container's directory is out of reach.
        Ok(Self { namespaces, filter: container.filter() })
    }
}

/// Joins, and forks where only a child is inside: then this process stays and ends as the child does.
fn join(
    container: &Container,
    namespaces: &OtherNamespaces,
    witness: &SingleThreaded,
) -> Result<(), RuntimeError> {
    let failed = |act, errno| RuntimeError::Enter { name: container.record.name.clone(), act, errno };
    // What a container's command does counts in its limits; where that cannot be, it is still limited by the job.
    if let Some(process) = &container.record.process {
        let _ = join_group_of(process.pid);
    }
    namespaces.join(witness).map_err(|errno| failed("joining its namespaces", errno))?;
    if !namespaces.need_a_fork() {
        return Ok(());
    }
    let watch = SignalWatch::new().map_err(|errno| failed("watching signals", errno))?;
    let parent = process::own_number();
    let child = process::fork_here(witness).map_err(|errno| failed("starting a process", errno))?;
    let Some(child) = child else {
        // A command whose starter was killed has nobody to tell its end.
        let _ = process::die_with_parent(parent);
        return watch.release().map_err(|errno| failed("watching signals", errno));
    };
    // What the child holds open must end with it alone.
    let _ = process::keep_only_fds(&[watch.as_fd()]);
    supervise(&watch, child).follow()
}

fn become_command_on_terminal(
    container: &Container,
    doors: &Doors,
    entry: &Entry,
    whose: &OwnedFd,
) -> Result<Infallible, RuntimeError> {
    let failed = |act, errno| RuntimeError::Enter { name: container.record.name.clone(), act, errno };
    let witness =
        SingleThreaded::witness().ok_or_else(|| failed("this process has threads", Errno::EINVAL))?;
    join(container, &doors.namespaces, &witness)?;
    let (master, terminal) =
        pty::open_terminal(Path::new("/dev/ptmx")).map_err(|errno| failed("making a terminal", errno))?;
    if let Ok(size) = pty::window_size(std::io::stdin()) {
        // Without it the window has no size, as that of a pipe.
        let _ = pty::set_window_size(&master, size);
    }
    socket::send(whose, b"t", &[master]).map_err(|errno| failed("giving the terminal away", errno))?;
    pty::take_terminal(&terminal).map_err(|errno| failed("taking the terminal", errno))?;
    drop(terminal);
    become_command(container, entry, &doors.filter)
}

fn become_command(
    container: &Container,
    entry: &Entry,
    filter: &[Instruction],
) -> Result<Infallible, RuntimeError> {
    let name = &container.record.name;
    let failed = |act, errno| RuntimeError::Enter { name: name.clone(), act, errno };
    if let Some(user) = &entry.user {
        check_user(name, user)?;
    }
    let cwd = entry.workdir.as_deref().unwrap_or(&container.record.cwd);
    match process::change_directory(cwd) {
        Err(_) if entry.workdir.is_none() => process::change_directory(Path::new("/")),
        other => other,
    }
    .map_err(|errno| failed("changing to the working directory", errno))?;
    let record = &container.record;
    privileges::limit_capabilities(record.capabilities, record.added_capabilities)
        .map_err(|errno| failed("giving up capabilities", errno))?;
    privileges::set_no_new_privileges().map_err(|errno| failed("giving up privileges", errno))?;
    if !filter.is_empty() {
        seccomp::load(filter).map_err(|errno| failed("filtering system calls", errno))?;
    }
    Err(RuntimeError::Command(become_workload(&entry.argv, &entry.env)))
}

/// A container holds one user; another cannot be had. Names are those of the container's own `/etc/passwd`.
fn check_user(container: &str, asked: &str) -> Result<(), RuntimeError> {
    let (uid, _) = process::own_ids();
    let user = asked.split(':').next().unwrap_or_default();
    let number = user.parse().ok().or_else(|| {
        let text = fs::read_to_string("/etc/passwd").ok()?;
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    });
    if number == Some(uid) {
        return Ok(());
    }
    Err(RuntimeError::OtherUser { name: container.to_owned(), user: asked.to_owned(), uid })
}
