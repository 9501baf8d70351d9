//! Signals as things that are read, for processes that stand before others: what they get is passed on.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::Result;

/// What is passed on: everything that a user, a terminal or a scheduler sends. Not those that stop (a shell's job
/// control must see this process stop), not faults, which are this process's own.
const PASSED_ON: [Signal; 13] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGWINCH,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// SIGCHLD, on every architecture that this program knows.
pub const CHILD: i32 = libc::SIGCHLD;
/// The window of the terminal has changed.
pub const WINDOW: i32 = libc::SIGWINCH;

/// One signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Its number.
    pub number: i32,
    /// A terminal or the kernel sent it, to every process of the group: the others have it already.
    pub from_kernel: bool,
}

/// Signals that wait to be read instead of acting. For the rest of this process's life, and of what it executes: it is
/// made after the fork of whatever must not inherit it.
#[derive(Debug)]
pub struct SignalWatch {
    fd: SignalFd,
    before: SigSet,
}

impl SignalWatch {
    /// Watches what is passed on, and the ends of children.
    pub fn new() -> Result<Self> {
        let mut mask = SigSet::empty();
        PASSED_ON.into_iter().chain([Signal::SIGCHLD]).for_each(|signal| mask.add(signal));
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut before))?;
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // An ignored SIGCHLD would have the kernel reap children by itself.
        // SAFETY: SIG_DFL runs no code of ours, and the signal is blocked.
        unsafe { sigaction(Signal::SIGCHLD, &default) }?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, before })
    }

    /// The next signal that has come, if one has.
    pub fn next(&self) -> Option<Caught> {
        let info = self.fd.read_signal().ok()??;
        let number = i32::try_from(info.ssi_signo).ok()?;
        Some(Caught { number, from_kernel: info.ssi_code == libc::SI_KERNEL })
    }

    /// Lets signals act again as before, in a child that becomes something else.
    pub fn release(&self) -> Result<()> {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None)
    }
}

impl AsFd for SignalWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a process that has made no arrangement ends by this signal.
#[must_use]
pub fn ends_by_default(number: i32) -> bool {
    !matches!(number, libc::SIGCHLD | libc::SIGWINCH | libc::SIGCONT | libc::SIGURG)
}

/// Ends this process by a signal, as the process for which it stands has ended: no core of ours is written.
pub fn end_by(number: i32) -> ! {
    // A failure leaves a core of this small process beside the workload's.
    let _ = nix::sys::prctl::set_dumpable(false);
    if let Ok(signal) = Signal::try_from(number) {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: SIG_DFL runs no code of ours. A failure: SIGKILL and SIGSTOP cannot be set and need not.
        let _ = unsafe { sigaction(signal, &default) };
        let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from(signal)), None);
        let _ = nix::sys::signal::raise(signal);
    }
    // A signal that does not end a process cannot have ended the other; or it is one of real time.
    super::process::end_now(128_i32.saturating_add(number))
}
