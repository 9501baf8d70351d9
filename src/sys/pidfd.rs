//! Processes that are no children of ours: who one is beyond its reusable number, whether it lives, signals, its end.
//!
//! A number alone names nobody: the kernel gives it away again. A [`ProcessId`] is the number and the time of the start;
//! a [`ProcessHandle`] holds a pidfd (Linux 5.3) that was opened before the identity was looked at, so that a signal can
//! reach nobody else. Older kernels: kill(2) right after a look, and waiting by looking again and again.

#![expect(clippy::disallowed_methods, reason = "reads /proc/PID/stat, which is a kernel interface")]

use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Errno, Result, access};

/// Between two looks at a process where the kernel has no pidfd.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the boot. exec does not change it.
    pub start_ticks: u64,
}

impl ProcessId {
    /// This process; `None` without a procfs.
    #[must_use]
    pub fn own() -> Option<Self> {
        Self::of(nix::unistd::getpid().as_raw())
    }

    /// The process that has this number now. `None` if there is none, or only what is left of one (a zombie).
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        start_ticks(&stat).map(|start_ticks| Self { pid, start_ticks })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Takes hold of it. `None` if it has ended.
    #[must_use]
    pub fn open(self) -> Option<ProcessHandle> {
        let fd = pidfd_open(self.pid).ok();
        // After the open: if the number is still this process's, the pidfd is too.
        self.is_alive().then_some(ProcessHandle { id: self, fd })
    }
}

/// The start time in the text of `/proc/PID/stat`. The name, in parentheses, may hold anything, so what counts is behind
/// the last parenthesis.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    // Field 3 of proc_pid_stat(5), then field 22.
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A process that is held on to: its number cannot come to mean another one.
#[derive(Debug)]
pub struct ProcessHandle {
    id: ProcessId,
    fd: Option<OwnedFd>,
}

impl ProcessHandle {
    /// Sends a signal by its number. ESRCH means that the process has ended.
    pub fn signal(&self, number: i32) -> Result<()> {
        if let Some(fd) = &self.fd {
            // SAFETY: plain numbers; a null siginfo lets the kernel fill in what kill(2) would.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    fd.as_raw_fd(),
                    number,
                    std::ptr::null::<libc::siginfo_t>(),
                    0,
                )
            };
            match Errno::result(result) {
                Err(Errno::ENOSYS) => {}
                other => return other.map(drop),
            }
        }
        if !self.id.is_alive() {
            return Err(Errno::ESRCH);
        }
        send_signal(self.id.pid, number)
    }

    /// Waits for the end. False if `timeout` passed first.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        let start = Instant::now();
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            match &self.fd {
                Some(fd) => {
                    if access::wait_readable(fd.as_fd(), left.unwrap_or(Duration::from_secs(3600)))? {
                        return Ok(true);
                    }
                }
                None if !self.id.is_alive() => return Ok(true),
                None => std::thread::sleep(left.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)),
            }
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
        }
    }
}

fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(result)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this fd (close-on-exec), and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// This process, as something that another can wait for (pidfd_open, Linux 5.3).
pub fn own_handle() -> Result<OwnedFd> {
    pidfd_open(nix::unistd::getpid().as_raw())
}

/// The nearest process above this one that has one of these names, as something to wait for.
#[must_use]
pub fn ancestor_named(names: &[&str]) -> Option<OwnedFd> {
    let mut pid = nix::unistd::getppid().as_raw();
    while pid > 1 {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let (name, parent) = name_and_parent(&stat)?;
        if names.iter().any(|wanted| wanted.as_bytes() == name) {
            return pidfd_open(pid).ok();
        }
        pid = parent;
    }
    None
}

/// Name and parent in the text of `/proc/PID/stat`.
fn name_and_parent(stat: &[u8]) -> Option<(&[u8], i32)> {
    let start = stat.iter().position(|byte| *byte == b'(')? + 1;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let parent = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((stat.get(start..end)?, parent))
}

/// kill(2) for one process, also with the real-time signals.
pub fn send_signal(pid: i32, number: i32) -> Result<()> {
    if pid <= 0 {
        return Err(Errno::ESRCH);
    }
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::kill(pid, number) }).map(drop)
}

/// kill(2) for a process group.
pub fn send_signal_to_group(group: i32, number: i32) -> Result<()> {
    if group <= 1 {
        return Err(Errno::ESRCH);
    }
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::kill(-group, number) }).map(drop)
}

/// The number of a signal by its name with or without `SIG`, its number, or `RTMIN+n` and `RTMAX-n`.
#[must_use]
pub fn signal_number(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name {
        "RTMIN" => libc::SIGRTMIN(),
        "RTMAX" => libc::SIGRTMAX(),
        "CLD" => libc::SIGCHLD,
        "POLL" => libc::SIGIO,
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(more), _) => libc::SIGRTMIN().checked_add(more.parse::<u8>().ok()?.into())?,
            (_, Some(less)) => libc::SIGRTMAX().checked_sub(less.parse::<u8>().ok()?.into())?,
            _ => format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok()? as i32,
        },
    };
    let is_real_time = name.starts_with("RT");
    (!is_real_time || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_start_time_behind_any_name() {
        let stat = |name: &str, state: &str| {
            let zeros = "0 ".repeat(18);
            format!("7 ({name}) {state} {zeros}4242 9 9\n").into_bytes()
        };
        assert_eq!(start_ticks(&stat("sleep", "S")), Some(4242));
        assert_eq!(start_ticks(&stat("a) Z 1 (b", "R")), Some(4242));
        assert_eq!(start_ticks(&stat("sleep", "Z")), None);
        assert_eq!(start_ticks(b"7 (x) S 1"), None);
        assert_eq!(start_ticks(b""), None);
    }

    #[test]
    fn reads_name_and_parent() {
        let check = |stat: &[u8], expected| assert_eq!(name_and_parent(stat), expected);
        check(b"7 (slurmstepd) S 3 7 7 0", Some((b"slurmstepd".as_slice(), 3)));
        check(b"7 (a) S 9 (b) R 4 1", Some((b"a) S 9 (b".as_slice(), 4)));
        check(b"7 (x", None);
        check(b"", None);
        assert!(ancestor_named(&["no-such-program-1"]).is_none());
    }

    #[test]
    fn knows_itself_and_no_other() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        assert_eq!(own.open().unwrap().wait(Some(Duration::ZERO)), Ok(false));
        let earlier = ProcessId { start_ticks: own.start_ticks + 1, ..own };
        assert!(!earlier.is_alive() && earlier.open().is_none());
        assert_eq!(ProcessId::of(-1), None);
    }

    #[test]
    fn signals_have_docker_s_spellings() {
        let check = |text: &str, expected: Option<i32>| assert_eq!(signal_number(text), expected, "{text}");
        check("TERM", Some(15));
        check("SIGTERM", Some(15));
        check("sigint", Some(2));
        check("9", Some(9));
        check("RTMIN+3", Some(libc::SIGRTMIN() + 3));
        check("SIGRTMAX-1", Some(libc::SIGRTMAX() - 1));
        check("RTMIN+200", None);
        check("0", None);
        check("65", None);
        check("NOSUCH", None);
        check("", None);
    }
}
