//! Being attached: the caller's terminal or pipes on one side, a container's or a command's on the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::sys::access::{self, Wanted};
use crate::sys::process::{self, Child, End};
use crate::sys::pty::{self, RawTerminal, WindowSize};
use crate::sys::signals::{self, SignalWatch};
use crate::sys::{Errno, pidfd, socket};

use super::container::Container;
use super::error::RuntimeError;
use super::keys::DetachKeys;
use super::line::{self, Ask, MESSAGE_BYTES, PIECE_BYTES};
use super::log::Stream;

/// What stands on the other side.
#[derive(Debug)]
pub(super) enum Link {
    /// A container's monitor.
    Monitor(OwnedFd),
    /// The terminal of a command that is a child of this process.
    Terminal { master: OwnedFd, child: Child },
}

/// How one is attached.
#[derive(Debug)]
pub struct Wishes {
    /// What the caller types goes to the other side.
    pub passes_input: bool,
    /// The keys that end it while the other side goes on; `None` where nothing does.
    pub keys: Option<DetachKeys>,
    /// The other side has a terminal, and the caller's becomes its window.
    pub is_terminal: bool,
    /// Signals go to the container instead of ending this process.
    pub passes_signals: bool,
}

/// Where output goes.
pub struct Outputs<'a> {
    /// Standard output, and all that a terminal shows.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
}

impl std::fmt::Debug for Outputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outputs")
    }
}

/// How being attached has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// The other side has ended; of a command it is known how.
    Ended(Option<End>),
    /// By the detach keys.
    Detached,
    /// A signal wants this process to end.
    Signal(i32),
    /// Nobody reads the output any more.
    Unread,
}

/// A line to a running container's monitor.
pub fn connect(container: &Container) -> Result<Line, RuntimeError> {
    let failed = |errno| RuntimeError::Attach { name: container.record.name.clone(), errno };
    let directory =
        File::open(container.directory()).map_err(RuntimeError::state("open", container.directory()))?;
    socket::connect_in(directory.as_fd(), line::SOCKET).map(Line).map_err(failed)
}

/// A line to a monitor.
#[derive(Debug)]
pub struct Line(OwnedFd);

/// A line to a monitor that is about to be started, and the end that the monitor gets.
pub fn line_pair() -> Result<(Line, OwnedFd), Errno> {
    socket::pair().map(|(ours, theirs)| (Line(ours), theirs))
}

/// Stays attached to a container until one side ends it.
pub fn attach(
    line: Line,
    container: &Container,
    wishes: Wishes,
    outputs: &mut Outputs<'_>,
) -> Result<Parting, RuntimeError> {
    let failed = |errno| RuntimeError::Attach { name: container.record.name.clone(), errno };
    let target = container.process();
    let pass = |number: i32| {
        if let Some(target) = &target {
            // ESRCH: it has just ended, and the line says so in a moment.
            let _ = target.signal(number);
        }
    };
    relay(&Link::Monitor(line.0), wishes, outputs, &pass).map_err(failed)
}

/// Stands between the caller and `link` until one of them ends it.
pub(super) fn relay(
    link: &Link,
    wishes: Wishes,
    outputs: &mut Outputs<'_>,
    pass_signal: &dyn Fn(i32),
) -> Result<Parting, Errno> {
    let watch = SignalWatch::new()?;
    let raw = if wishes.is_terminal && wishes.passes_input { RawTerminal::enter().ok() } else { None };
    if let Link::Terminal { master, .. } = link {
        access::never_wait(master)?;
    }
    let mut relay = Relay { link, wishes, input_has_ended: false, waiting: VecDeque::new(), watch };
    relay.resize(true);
    let parting = relay.run(outputs, pass_signal);
    drop(raw);
    parting
}

struct Relay<'a> {
    link: &'a Link,
    wishes: Wishes,
    input_has_ended: bool,
    /// What the other side has not taken yet.
    waiting: VecDeque<Vec<u8>>,
    watch: SignalWatch,
}

impl Relay<'_> {
    fn run(&mut self, outputs: &mut Outputs<'_>, pass_signal: &dyn Fn(i32)) -> Result<Parting, Errno> {
        loop {
            let stdin = io::stdin();
            let takes_input = self.wishes.passes_input && !self.input_has_ended && self.waiting.is_empty();
            let mut wanted = vec![
                Wanted { fd: self.watch.as_fd(), read: true, write: false },
                Wanted { fd: self.link_fd(), read: true, write: !self.waiting.is_empty() },
            ];
            if takes_input {
                wanted.push(Wanted { fd: stdin.as_fd(), read: true, write: false });
            }
            let ready = access::wait_ready(&wanted, None)?;
            let at = |place: usize| ready.get(place).copied().unwrap_or_default();
            if at(0).read
                && let Some(parting) = self.take_signals(pass_signal)
            {
                return Ok(parting);
            }
            if at(1).write {
                self.send();
            }
            if at(1).read
                && let Some(parting) = self.take_output(outputs)?
            {
                return Ok(parting);
            }
            if at(2).read && self.take_input()? {
                return Ok(Parting::Detached);
            }
            if let Link::Terminal { child, .. } = self.link
                && let Some(end) = process::reap_child(*child)?
            {
                // What it printed last is still there; others may hold the terminal and are not waited for.
                while matches!(self.take_output(outputs), Ok(None)) && self.has_output() {}
                return Ok(Parting::Ended(Some(end)));
            }
        }
    }

    fn link_fd(&self) -> BorrowedFd<'_> {
        match self.link {
            Link::Monitor(socket) => socket.as_fd(),
            Link::Terminal { master, .. } => master.as_fd(),
        }
    }

    fn has_output(&self) -> bool {
        access::wait_readable(self.link_fd(), std::time::Duration::ZERO).unwrap_or(false)
    }

    fn take_signals(&mut self, pass_signal: &dyn Fn(i32)) -> Option<Parting> {
        while let Some(caught) = self.watch.next() {
            match caught.number {
                signals::CHILD => {}
                signals::WINDOW if self.wishes.is_terminal => self.resize(false),
                number if self.wishes.passes_signals => pass_signal(number),
                number if signals::ends_by_default(number) => return Some(Parting::Signal(number)),
                _ => {}
            }
        }
        None
    }

    /// The other side gets the caller's window. At first it gets another one before, so that programs draw anew.
    fn resize(&mut self, is_first: bool) {
        if !self.wishes.is_terminal {
            return;
        }
        let Ok(size) = pty::window_size(io::stdin()).or_else(|_| pty::window_size(io::stdout())) else {
            return;
        };
        let other = WindowSize { rows: size.rows.saturating_add(1), ..size };
        let sizes = if is_first { &[other, size][..] } else { &[size][..] };
        for size in sizes {
            match self.link {
                Link::Monitor(_) => self.waiting.push_back(Ask::Window(*size).to_bytes()),
                // A terminal that has ended has no window.
                Link::Terminal { master, .. } => drop(pty::set_window_size(master, *size)),
            }
        }
    }

    /// Reads what is typed. True if it is the detach keys.
    fn take_input(&mut self) -> Result<bool, Errno> {
        let mut bytes = vec![0; PIECE_BYTES / 2];
        let count = match access::read(io::stdin(), &mut bytes) {
            Err(Errno::EAGAIN) => return Ok(false),
            // EIO: the terminal has gone.
            Err(Errno::EIO) => 0,
            other => other?,
        };
        bytes.truncate(count);
        if count == 0 {
            self.input_has_ended = true;
            if matches!(self.link, Link::Monitor(_)) {
                self.waiting.push_back(Ask::EndOfInput.to_bytes());
            }
            return Ok(false);
        }
        let mut is_detached = false;
        if let Some(keys) = &mut self.wishes.keys {
            (bytes, is_detached) = keys.filter(&bytes);
        }
        if !bytes.is_empty() {
            self.waiting.push_back(match self.link {
                Link::Monitor(_) => Ask::Input(bytes).to_bytes(),
                Link::Terminal { .. } => bytes,
            });
            self.send();
        }
        Ok(is_detached)
    }

    /// Hands over what waits, as far as the other side takes it.
    fn send(&mut self) {
        while let Some(front) = self.waiting.front_mut() {
            let sent = match self.link {
                Link::Monitor(socket) => socket::try_send(socket, front).map(|()| front.len()),
                Link::Terminal { master, .. } => access::write(master, front),
            };
            match sent {
                Ok(count) if count < front.len() => drop(front.drain(..count)),
                Ok(_) => drop(self.waiting.pop_front()),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return,
                // It is gone, which reading tells.
                Err(_) => self.waiting.clear(),
            }
        }
    }

    /// Takes one piece of output.
    fn take_output(&mut self, outputs: &mut Outputs<'_>) -> Result<Option<Parting>, Errno> {
        let written = match self.link {
            Link::Monitor(socket) => match socket::try_receive(socket, MESSAGE_BYTES) {
                Ok(Some((message, _))) => match line::parse_output(&message) {
                    Some((Stream::Stdout, bytes)) => write(outputs.out, bytes),
                    Some((Stream::Stderr, bytes)) => write(outputs.err, bytes),
                    None => Ok(()),
                },
                Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
                Ok(None) | Err(Errno::ECONNRESET) => return Ok(Some(Parting::Ended(None))),
                Err(errno) => return Err(errno),
            },
            Link::Terminal { master, child } => {
                let mut bytes = vec![0; PIECE_BYTES];
                match access::read(master, &mut bytes) {
                    Ok(count) if count > 0 => write(outputs.out, bytes.get(..count).unwrap_or_default()),
                    Err(Errno::EAGAIN) => Ok(()),
                    // No program has it open: the command has ended, or is about to.
                    Ok(_) | Err(Errno::EIO) => {
                        return loop {
                            if let Some(end) = process::reap_child(*child)? {
                                break Ok(Some(Parting::Ended(Some(end))));
                            }
                            // Programs may close their terminal and go on.
                            access::wait_any([Some(self.watch.as_fd())], None)?;
                            while let Some(caught) = self.watch.next() {
                                if caught.number != signals::CHILD {
                                    // ESRCH: it has ended, which the next turn sees.
                                    let _ = pidfd::send_signal(child.as_raw(), caught.number);
                                }
                            }
                        };
                    }
                    Err(errno) => return Err(errno),
                }
            }
        };
        Ok(if written.is_ok() { None } else { Some(Parting::Unread) })
    }
}

fn write(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}
