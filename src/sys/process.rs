//! Processes: a detached child, signals, exec.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use super::ns::SingleThreaded;
use super::{Errno, Result};

/// The number of a child of this process: it stays the child's until it is waited for.
pub type Child = Pid;

/// Starts `work` in a process of its own that nobody waits for: forked twice, in its own session, so that it is no
/// child of the caller and no signal of the caller's terminal or process group reaches it.
///
/// `work` returns the exit status. It runs in a copy of this process, which has one thread, so it may allocate and
/// start threads.
pub fn spawn_detached(witness: &SingleThreaded, work: impl FnOnce() -> i32) -> Result<()> {
    let child = fork_child(witness, || {
        if setsid().is_err() {
            return 1;
        }
        // SAFETY: this process has one thread (it is a fresh fork).
        match unsafe { fork() } {
            Err(_) => 1,
            Ok(ForkResult::Parent { .. }) => 0,
            Ok(ForkResult::Child) => end_now(work()),
        }
    })?;
    match wait(child)? {
        0 => Ok(()),
        _ => Err(Errno::EAGAIN),
    }
}

/// Forks; the child ends with what `work` returns, without running the parent's exit handlers.
pub fn fork_child(_witness: &SingleThreaded, work: impl FnOnce() -> i32) -> Result<Pid> {
    // SAFETY: the witness says that this process has one thread, so the child's memory is consistent.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => end_now(work()),
    }
}

fn end_now(status: i32) -> ! {
    // SAFETY: _exit only ends the process; nothing of ours must run after it.
    unsafe { libc::_exit(status) }
}

/// Waits for a child: its exit status, or 128 + the signal that ended it.
pub fn wait(child: Pid) -> Result<i32> {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(status),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// As [`wait`], but `None` while the child still runs.
pub fn try_wait(child: Pid) -> Result<Option<i32>> {
    match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, status)) => Ok(Some(status)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(128 + signal as i32)),
        Ok(_) | Err(Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A fd that can be read when a child of this process has ended. The signal is blocked for the rest of this process's
/// life, so it is called after the last fork of what is to be executed.
pub fn watch_children() -> Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Takes what a fd of [`watch_children`] holds, so that it waits again.
pub fn clear_watch(watch: &SignalFd) {
    while matches!(watch.read_signal(), Ok(Some(_))) {}
}

/// Makes this process the leader of a session of its own.
pub fn new_session() -> Result<()> {
    setsid().map(drop)
}

/// Puts a fd in the place of standard input.
pub fn set_standard_input(input: impl AsFd) -> Result<()> {
    nix::unistd::dup2_stdin(input)
}

/// Puts the fds in the place of standard input, output and error.
pub fn set_standard_streams(input: impl AsFd, output: impl AsFd, error: impl AsFd) -> Result<()> {
    nix::unistd::dup2_stdin(input)?;
    nix::unistd::dup2_stdout(output)?;
    nix::unistd::dup2_stderr(error)
}

/// Ignores every signal that can be ignored, and blocks none: a server must outlive what its caller gets.
pub fn ignore_signals() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        // A fault must still kill, and SIGCHLD ignored would break waiting.
        let keep = matches!(
            signal,
            Signal::SIGKILL
                | Signal::SIGSTOP
                | Signal::SIGSEGV
                | Signal::SIGBUS
                | Signal::SIGILL
                | Signal::SIGFPE
                | Signal::SIGABRT
                | Signal::SIGTRAP
                | Signal::SIGSYS
                | Signal::SIGCHLD
        );
        if !keep {
            // SAFETY: SIG_IGN runs no code of ours. A failure can only mean a signal that this kernel does not know.
            let _ = unsafe { sigaction(signal, &ignore) };
        }
    }
}

/// Gives SIGPIPE its default effect back and clears the signal mask: Rust's start-up ignores SIGPIPE, and an ignored
/// signal survives exec, so that `yes | head` in the container would print an error.
pub fn restore_signals_for_exec() -> Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Closes every fd of this process but those given; 0, 1 and 2 become `/dev/null`, so that `$(slipway run …)` does not
/// wait for a server, and a socket that the caller inherited is seen as closed when the caller closes it.
pub fn keep_only_fds(kept: &[BorrowedFd<'_>]) -> Result<()> {
    let null = nix::fcntl::open("/dev/null", nix::fcntl::OFlag::O_RDWR, nix::sys::stat::Mode::empty())?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    let mut kept: Vec<RawFd> = kept.iter().map(|fd| fd.as_raw_fd()).filter(|fd| *fd > 2).collect();
    kept.sort_unstable();
    // No longer this object's to close: it took the place of a standard stream that was closed and stays there, or it
    // lies in a range that is closed below.
    let _number = std::os::fd::IntoRawFd::into_raw_fd(null);
    let mut from: RawFd = 3;
    for fd in kept {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, RawFd::MAX)
}

/// close_range(2), and on kernels before 5.9 one close for each fd that procfs lists.
#[expect(clippy::disallowed_methods, reason = "lists /proc/self/fd, which is a kernel interface")]
fn close_range(first: RawFd, last: RawFd) -> Result<()> {
    // SAFETY: the caller (`keep_only_fds`, in a fresh fork) owns no object for any fd in the range that it will use or
    // drop later: it ends without returning to the parent's code.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    match Errno::result(result) {
        Err(Errno::ENOSYS) => {}
        other => return other.map(drop),
    }
    let names = std::fs::read_dir("/proc/self/fd").map_err(|_| Errno::EIO)?;
    let open: Vec<RawFd> =
        names.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| (first..=last).contains(fd)) {
        // SAFETY: as above. EBADF is the directory fd of the listing, closed by now.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Names this process as `ps` and `top` show it; at most 15 bytes count.
pub fn set_name(name: &std::ffi::CStr) {
    // A name is for humans: the process works without it.
    let _ = nix::sys::prctl::set_name(name);
}

/// From here on no exec gains privileges: setuid and file capabilities have no effect.
pub fn set_no_new_privileges() -> Result<()> {
    nix::sys::prctl::set_no_new_privs()
}

/// Replaces this process. Returns only the error.
pub fn exec(path: &CString, args: &[CString], env: &[CString]) -> Errno {
    let result: Result<Infallible> = nix::unistd::execve(path, args, env);
    match result {
        Err(errno) => errno,
        Ok(never) => match never {},
    }
}

/// Changes the working directory.
pub fn change_directory(path: &std::path::Path) -> Result<()> {
    nix::unistd::chdir(path)
}

/// The real user and group id of this process.
#[must_use]
pub fn real_ids() -> (u32, u32) {
    (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw())
}
