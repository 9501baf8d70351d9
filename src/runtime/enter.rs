//! Running a further command in a container: join its namespaces, then become the command.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use crate::launch::become_workload;
use crate::sys::ns::{OtherNamespaces, SingleThreaded};
use crate::sys::seccomp::{self, Instruction};
use crate::sys::{Errno, process};

use super::container::Container;
use super::error::RuntimeError;
use super::start;

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

/// Becomes the command, and returns only the error; or, where the container has a pid namespace, the exit code of a child.
pub fn enter(container: &Container, entry: &Entry) -> Result<i32, RuntimeError> {
    let name = &container.record.name;
    let failed = |act, errno| RuntimeError::Enter { name: name.clone(), act, errno };
    let not_running = || RuntimeError::NotRunning { name: name.clone() };
    let id = container.record.process.filter(|_| container.is_running()).ok_or_else(not_running)?;
    // Inside, the container's directory is out of reach.
    let filter = container.filter();
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
    let witness =
        SingleThreaded::witness().ok_or_else(|| failed("this process has threads", Errno::EINVAL))?;
    if !entry.keep_stdin {
        let null = fs::File::open("/dev/null").map_err(RuntimeError::state("open", "/dev/null"))?;
        process::set_standard_input(null).map_err(|errno| failed("closing standard input", errno))?;
    }
    namespaces.join(&witness).map_err(|errno| failed("joining its namespaces", errno))?;
    if !namespaces.need_a_fork() {
        return become_command(container, entry, &filter).map(|never| match never {});
    }
    let child = process::fork_child(&witness, || match become_command(container, entry, &filter) {
        Ok(never) => match never {},
        // The parent cannot tell what the child met; the code does.
        Err(error) => error.exit_code().unwrap_or(125).into(),
    });
    let child = child.map_err(|errno| failed("starting a process", errno))?;
    process::wait(child).map_err(|errno| failed("waiting for the command", errno))
}

/// As [`enter`], in a process of its own that nobody waits for. Returns once the command has been executed.
pub fn enter_detached(container: &Container, entry: &Entry) -> Result<(), RuntimeError> {
    let name = container.record.name.clone();
    start::in_background(&name, |answers| {
        let kept = process::keep_only_fds(&[answers.as_fd()]);
        let result = match kept {
            Ok(()) => enter(container, entry),
            Err(errno) => {
                Err(RuntimeError::Enter { name: name.clone(), act: "closing the caller's files", errno })
            }
        };
        match result {
            Ok(code) => code,
            Err(error) => {
                start::say(answers, &start::Answer::of_error(&error));
                125
            }
        }
    })
    .map(drop)
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
    process::limit_capabilities(record.capabilities, record.added_capabilities)
        .map_err(|errno| failed("giving up capabilities", errno))?;
    process::set_no_new_privileges().map_err(|errno| failed("giving up privileges", errno))?;
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
