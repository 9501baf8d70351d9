//! Processes: a detached child, signals, exec.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use super::ns::SingleThreaded;
use super::{Errno, Result, to_errno};

/// The number of a child of this process: it stays the child's until it is waited for.
pub type Child = Pid;

/// Starts `work` in a process of its own that nobody waits for: forked twice, in its own session, so that it is no
/// child of the caller and no signal of the caller's terminal or process group reaches it.
///
/// `work` returns the exit status. It runs in a copy of this process, which has one thread, so it may allocate and
/// start threads.
pub fn spawn_detached(witness: &SingleThreaded, work: impl FnOnce() -> i32) -> Result<()> {
    let mut work = Some(work);
    spawn_each_detached(witness, &mut [&mut || work.take().map_or(1, |work| work())])
}

/// As [`spawn_detached`], for several processes at once, by way of one that ends.
pub fn spawn_each_detached(witness: &SingleThreaded, works: &mut [&mut dyn FnMut() -> i32]) -> Result<()> {
    let _waitable = WaitableChildren::new()?;
    let child = fork_child(witness, || {
        if setsid().is_err() {
            return 1;
        }
        for work in works {
            // SAFETY: this process has one thread (it is a fresh fork).
            match unsafe { fork() } {
                Err(_) => return 1,
                Ok(ForkResult::Parent { .. }) => {}
                Ok(ForkResult::Child) => end_now(work()),
            }
        }
        0
    })?;
    match wait(child)? {
        0 => Ok(()),
        _ => Err(Errno::EAGAIN),
    }
}

/// While it lives, SIGCHLD has its default effect. A caller that ignores it (`trap '' CHLD`) passes that on, and then the
/// kernel reaps children at once and waiting for one is ECHILD.
#[derive(Debug)]
pub struct WaitableChildren {
    before: SigAction,
}

impl WaitableChildren {
    /// Sets the default effect.
    pub fn new() -> Result<Self> {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: SIG_DFL runs no code of ours.
        let before = unsafe { sigaction(Signal::SIGCHLD, &default) }?;
        Ok(Self { before })
    }
}

impl Drop for WaitableChildren {
    fn drop(&mut self) {
        // SAFETY: this is what was there before; a failure could only mean that SIGCHLD is no signal.
        let _ = unsafe { sigaction(Signal::SIGCHLD, &self.before) };
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

/// Forks; both go on from here. `None` in the child.
pub fn fork_here(_witness: &SingleThreaded) -> Result<Option<Child>> {
    // SAFETY: the witness says that this process has one thread, so the child's memory is consistent.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

pub(super) fn end_now(status: i32) -> ! {
    // SAFETY: _exit only ends the process; nothing of ours must run after it.
    unsafe { libc::_exit(status) }
}

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl End {
    /// The exit status, or 128 + the signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(number) => 128_i32.saturating_add(number),
        }
    }

    /// Ends this process in the same way, without running anything more of it.
    pub fn follow(self) -> ! {
        match self {
            Self::Exited(status) => end_now(status),
            Self::Killed(number) => super::signals::end_by(number),
        }
    }
}

/// One child of this process that has ended, whichever it is; `None` if none has. ECHILD: there is none at all.
pub fn reap_any() -> Result<Option<(Child, End)>> {
    reap(-1)
}

/// How a child has ended; `None` while it runs.
pub fn reap_child(child: Child) -> Result<Option<End>> {
    reap(child.as_raw()).map(|found| found.map(|(_, end)| end))
}

/// waitpid(2) by hand: `nix` knows no real-time signals.
fn reap(which: i32) -> Result<Option<(Child, End)>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int, which lives during the call.
    let result = unsafe { libc::waitpid(which, &raw mut status, libc::WNOHANG) };
    match Errno::result(result) {
        Ok(0) | Err(Errno::EINTR) => Ok(None),
        Ok(pid) if libc::WIFEXITED(status) => {
            Ok(Some((Pid::from_raw(pid), End::Exited(libc::WEXITSTATUS(status)))))
        }
        Ok(pid) if libc::WIFSIGNALED(status) => {
            Ok(Some((Pid::from_raw(pid), End::Killed(libc::WTERMSIG(status)))))
        }
        Ok(_) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Has the kernel kill this process when its parent ends, however that ends. False if the parent, `parent`, has ended
/// already.
pub fn die_with_parent(parent: Child) -> Result<bool> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    Ok(nix::unistd::getppid() == parent)
}

/// As [`die_with_parent`], where the parent is in another pid namespace and cannot be seen from here.
pub fn die_with_any_parent() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
}

/// Gives every signal its default effect, and blocks none: for a child of a process that has made arrangements.
pub fn default_signals() -> Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: SIG_DFL runs no code of ours.
        unsafe { sigaction(signal, &default) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Closes every fd of this process but the standard streams.
pub fn keep_standard_streams() -> Result<()> {
    close_range(3, RawFd::MAX)
}

/// Makes this process the parent of every orphan below it.
pub fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Waits until this process gets SIGCONT. Not by SIGSTOP, which the first process of a pid namespace cannot send itself.
#[cfg(debug_assertions)]
pub fn stop_here() {
    let wanted = SigSet::from(Signal::SIGCONT);
    let name = nix::sys::prctl::get_name().unwrap_or_default();
    // A failure could only mean that SIGCONT is no signal.
    if let Ok(before) = wanted.thread_swap_mask(SigmaskHow::SIG_BLOCK) {
        set_name(c"slipway-stopped");
        let _ = wanted.wait();
        let _ = before.thread_set_mask();
    }
    set_name(&name);
}

/// How many of procfs's clock ticks a second has.
#[must_use]
pub fn clock_ticks() -> u32 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    ticks.and_then(|ticks| u32::try_from(ticks).ok()).filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// This process's number.
#[must_use]
pub fn own_number() -> Child {
    nix::unistd::getpid()
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

/// From here on SIGUSR1 waits until [`watch_report_signal`] takes it, in this thread and those it starts. A handler would
/// lose one that comes just before a thread goes to wait for the kernel.
pub fn hold_report_signal() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // A failure could only mean that the signal does not exist.
    let _ = SigSet::from(Signal::SIGUSR1).thread_block();
    // SAFETY: SIG_DFL runs no code of ours, and the signal is blocked.
    let _ = unsafe { sigaction(Signal::SIGUSR1, &default) };
}

/// Calls `on_signal` for each SIGUSR1 that [`hold_report_signal`] holds, and `on_message` when the socket `messages` has
/// something or has closed, which is watched until that says no; until the other end of the socket `end` closes.
pub fn watch_report_signal(
    end: &OwnedFd,
    mut messages: Option<&OwnedFd>,
    on_signal: impl Fn(),
    on_message: impl Fn(&OwnedFd) -> bool,
) -> Result<()> {
    let signals = SignalFd::with_flags(&SigSet::from(Signal::SIGUSR1), SfdFlags::SFD_CLOEXEC)?;
    loop {
        let fds = [Some(signals.as_fd()), Some(end.as_fd()), messages.map(AsFd::as_fd)];
        let [signal, ended, message] = super::access::wait_any(fds, None)?;
        if ended {
            return Ok(());
        }
        if signal {
            signals.read_signal()?;
            on_signal();
        }
        if message {
            messages = messages.filter(|line| on_message(line));
        }
    }
}

/// Lets this process run on every CPU that its cgroup has, where the caller was bound to some of them.
pub fn use_every_cpu() {
    let mut all = nix::sched::CpuSet::new();
    for cpu in 0..nix::sched::CpuSet::count() {
        // It fails for numbers beyond the set's own size only.
        let _ = all.set(cpu);
    }
    // A kernel that refuses leaves the process where it is.
    let _ = nix::sched::sched_setaffinity(Pid::from_raw(0), &all);
}

/// How many CPUs this process may run on; 0 if the kernel has more than it can say here.
#[must_use]
pub fn cpu_count() -> usize {
    let Ok(set) = nix::sched::sched_getaffinity(Pid::from_raw(0)) else { return 0 };
    (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).count()
}

/// Raises the soft limit of open files to the hard one.
pub fn use_every_fd() {
    use nix::sys::resource::{getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // A kernel that refuses leaves the limit as it is.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Has the allocator keep two arenas for all threads: with one for each it keeps what a server freed many times over.
pub fn share_allocator_arenas() {
    #[cfg(target_env = "gnu")]
    {
        const ARENAS: libc::c_int = 2;
        // SAFETY: mallopt only changes how the allocator works from now on.
        // It says 0 where it does not know the parameter, and then memory is larger and nothing is wrong.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
    }
}

/// Whether SIGXFSZ had its default effect before [`report_file_size_limits`].
static LIMIT_WAS_FATAL: AtomicBool = AtomicBool::new(false);

/// From here on a write beyond `ulimit -f` fails with EFBIG, which is told, instead of ending this process without a word.
pub fn report_file_size_limits() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_IGN runs no code of ours. A failure could only mean that the signal does not exist.
    if let Ok(before) = unsafe { sigaction(Signal::SIGXFSZ, &ignore) }
        && matches!(before.handler(), SigHandler::SigDfl)
    {
        LIMIT_WAS_FATAL.store(true, Ordering::Relaxed);
    }
}

/// Gives the signals that we ignore their default effect back: an ignored signal survives exec. Rust's start-up ignores
/// SIGPIPE, so that `yes | head` in the container would print an error.
pub fn restore_signals_for_exec() -> Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    if LIMIT_WAS_FATAL.load(Ordering::Relaxed) {
        // SAFETY: SIG_DFL runs no code of ours.
        unsafe { sigaction(Signal::SIGXFSZ, &default) }?;
    }
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }.map(drop)
}

/// Gives the calling thread a table of fds of its own, in which these are closed. Of a process that is killed, a thread that
/// waits in the kernel without end keeps its table open, and here whoever listens for the end must not wait for that.
pub fn leave_fds_to_others(fds: &[BorrowedFd<'_>]) -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES)?;
    for fd in fds {
        // SAFETY: the number is closed in a table that this thread alone has: the owner, in another thread, keeps its fd.
        unsafe { libc::close(fd.as_raw_fd()) };
    }
    Ok(())
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

/// Makes the kernel's choice of this process, when memory is short, likelier or less likely (-1000 to 1000). Less
/// likely than before is for root.
#[expect(clippy::disallowed_methods, reason = "writes /proc/self/oom_score_adj, which is a kernel interface")]
pub fn set_oom_score(score: i32) -> Result<()> {
    let written = std::fs::write("/proc/self/oom_score_adj", score.to_string());
    written.map_err(to_errno)
}

/// A limit of setrlimit(2) that a user may name.
pub type Resource = nix::sys::resource::Resource;

/// The resource of a `ulimit` name as Docker has it (docker/go-units `ulimit.go`).
#[must_use]
pub fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "locks" => Resource::RLIMIT_LOCKS,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rss" => Resource::RLIMIT_RSS,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        "stack" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

/// The hard limit of this process; `u64::MAX` is none.
#[must_use]
pub fn hard_limit(name: &str) -> Option<u64> {
    nix::sys::resource::getrlimit(resource(name)?).ok().map(|(_, hard)| hard)
}

/// Sets a limit of this process and of what it becomes. EPERM: the hard limit may only be lowered.
pub fn set_limit(name: &str, soft: u64, hard: u64) -> Result<()> {
    nix::sys::resource::setrlimit(resource(name).ok_or(Errno::EINVAL)?, soft, hard)
}

/// Sets the file mode creation mask and returns the one before.
pub fn set_umask(mask: u32) -> u32 {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask)).bits()
}

/// Overwrites this process's command line with zeros, so that `ps` shows its name instead: the words are the caller's
/// and may hold secrets (`-e TOKEN=…`), and `pkill -f` would take a server for the workload.
#[expect(clippy::disallowed_methods, reason = "reads /proc/self/stat, which is a kernel interface")]
pub fn forget_command_line() {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    // Fields are counted behind the name, which may hold anything: arg_start and arg_end are 48 and 49 (proc(5)).
    let Some((_, rest)) = stat.rsplit_once(')') else { return };
    let mut numbers = rest.split_whitespace().skip(45).map_while(|word| word.parse::<usize>().ok());
    let (Some(start), Some(end)) = (numbers.next(), numbers.next()) else { return };
    if start != 0 && end > start {
        let place: *mut u8 = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the kernel says that the argument strings lie from `start` to `end` on this process's own stack,
        // which is writable; Rust's copies of them were made at start-up and nothing else refers to the place.
        unsafe { place.write_bytes(0, end - start) };
    }
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

/// The groups of this process beside its main one, and that one.
#[must_use]
pub fn own_groups() -> Vec<u32> {
    let mut groups: Vec<u32> =
        nix::unistd::getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect();
    groups.push(own_ids().1);
    groups
}

/// The user and group id that this process acts as: what the kernel compares id maps and owners of files with.
#[must_use]
pub fn own_ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}
