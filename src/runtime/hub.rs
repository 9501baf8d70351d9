//! The monitor's part of `attach`: a socket by which commands come, what they type, and what they are told.
//!
//! Output waits for the slowest, as with docker: a line that is full holds the workload up, and nothing is lost. A line
//! that is closed is forgotten.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::sys::access::{self, Ready, Wanted};
use crate::sys::pty::{self, WindowSize};
use crate::sys::{Errno, socket};

use super::line::{self, Ask, MESSAGE_BYTES, PIECE_BYTES};
use super::log::Stream;

/// Output that may wait for one command before the workload waits too, in bytes.
const QUEUE_BYTES: usize = 1 << 20;
/// Input that may wait for the workload, in bytes.
const INPUT_BYTES: usize = 256 << 10;
/// Most commands that are attached at a time.
const MOST_LINES: usize = 64;

/// Where input goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// Nowhere: the workload's standard input is `/dev/null`.
    None,
    /// A pipe to its standard input.
    Pipe(std::io::PipeWriter),
    /// Its terminal, which the monitor reads too.
    Terminal(OwnedFd),
}

/// Everybody who is attached.
#[derive(Debug)]
pub(super) struct Hub {
    listener: Option<OwnedFd>,
    lines: Vec<Line>,
    input: Input,
}

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    /// Messages that wait, and how many bytes they are.
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
}

#[derive(Debug)]
struct Input {
    sink: Sink,
    waiting: VecDeque<u8>,
    /// The first command's end of input is the workload's.
    once: bool,
    has_ended: bool,
}

/// The places of the hub's fds in a list of what is waited for.
#[derive(Debug, Default)]
pub(super) struct Places {
    listener: Option<usize>,
    sink: Option<usize>,
    lines: Vec<Option<usize>>,
}

impl Hub {
    /// A hub that listens by a name in the container's directory. It works without that name too, where no socket can be
    /// made: then nobody can attach.
    pub(super) fn new(directory: Option<BorrowedFd<'_>>, first: Option<OwnedFd>, once: bool) -> Self {
        let listener = directory.and_then(|directory| socket::listen_in(directory, line::SOCKET).ok());
        let lines = first.into_iter().map(Line::new).collect();
        let input = Input { sink: Sink::None, waiting: VecDeque::new(), once, has_ended: false };
        Self { listener, lines, input }
    }

    /// Says where input goes, once that is known.
    pub(super) fn set_sink(&mut self, sink: Sink) {
        let ready = match &sink {
            Sink::None => Ok(()),
            Sink::Pipe(pipe) => access::never_wait(pipe),
            Sink::Terminal(master) => access::never_wait(master),
        };
        // With a sink that could make the monitor wait there is no input.
        self.input.sink = if ready.is_ok() { sink } else { Sink::None };
    }

    /// The terminal, if the workload has one.
    pub(super) fn terminal(&self) -> Option<&OwnedFd> {
        match &self.input.sink {
            Sink::Terminal(master) => Some(master),
            _ => None,
        }
    }

    /// Whether everybody who is attached can be told more.
    pub(super) fn takes_output(&self) -> bool {
        self.lines.iter().all(|line| line.queued_bytes < QUEUE_BYTES)
    }

    /// Tells everybody.
    pub(super) fn tell(&mut self, stream: Stream, bytes: &[u8]) {
        if self.lines.is_empty() {
            return;
        }
        for piece in bytes.chunks(PIECE_BYTES) {
            let message = line::output(stream, piece);
            for line in &mut self.lines {
                line.queued_bytes += message.len();
                line.queue.push_back(message.clone());
            }
        }
        self.lines.retain_mut(|line| line.send().is_ok());
    }

    /// Adds what the hub waits for.
    pub(super) fn want<'a>(&'a self, wanted: &mut Vec<Wanted<'a>>) -> Places {
        let mut add = |fd: BorrowedFd<'a>, read: bool, write: bool| {
            wanted.push(Wanted { fd, read, write });
            Some(wanted.len() - 1)
        };
        let takes_input = self.input.waiting.len() < INPUT_BYTES;
        let mut places = Places::default();
        if let Some(listener) = self.listener.as_ref().filter(|_| self.lines.len() < MOST_LINES) {
            places.listener = add(listener.as_fd(), true, false);
        }
        if !self.input.waiting.is_empty() {
            places.sink = match &self.input.sink {
                Sink::None => None,
                Sink::Pipe(pipe) => add(pipe.as_fd(), false, true),
                Sink::Terminal(master) => add(master.as_fd(), false, true),
            };
        }
        for line in &self.lines {
            let write = !line.queue.is_empty();
            let place =
                (takes_input || write).then(|| add(line.socket.as_fd(), takes_input, write)).flatten();
            places.lines.push(place);
        }
        places
    }

    /// Does what has become possible.
    pub(super) fn work(&mut self, places: &Places, ready: &[Ready]) {
        let at = |place: Option<usize>| place.and_then(|place| ready.get(place)).copied().unwrap_or_default();
        if at(places.sink).write {
            self.input.flush();
        }
        let mut index = 0;
        self.lines.retain_mut(|line| {
            let now = at(places.lines.get(index).copied().flatten());
            index += 1;
            (!now.write || line.send().is_ok()) && (!now.read || line.listen(&mut self.input))
        });
        if at(places.listener).read
            && let Some(Ok(socket)) = self.listener.as_ref().map(socket::accept)
        {
            self.lines.push(Line::new(socket));
        }
    }

    /// Everything is told: what waits is sent as far as it goes, for at most `patience`.
    pub(super) fn close(mut self, patience: std::time::Duration) {
        self.listener = None;
        let start = std::time::Instant::now();
        while self.lines.iter().any(|line| !line.queue.is_empty()) {
            let left = patience.saturating_sub(start.elapsed());
            let waiting: Vec<Wanted<'_>> = self
                .lines
                .iter()
                .filter(|line| !line.queue.is_empty())
                .map(|line| Wanted { fd: line.socket.as_fd(), read: false, write: true })
                .collect();
            if left.is_zero() || access::wait_ready(&waiting, Some(left)).is_err() {
                return;
            }
            self.lines.retain_mut(|line| line.send().is_ok());
        }
    }
}

impl Line {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, queue: VecDeque::new(), queued_bytes: 0 }
    }

    /// Sends what the other side takes; an error means that it is gone.
    fn send(&mut self) -> Result<(), Errno> {
        while let Some(message) = self.queue.front() {
            match socket::try_send(&self.socket, message) {
                Ok(()) => self.queued_bytes -= self.queue.pop_front().map_or(0, |message| message.len()),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Takes one message. False if the other side is gone.
    fn listen(&mut self, input: &mut Input) -> bool {
        let message = match socket::try_receive(&self.socket, MESSAGE_BYTES) {
            Ok(Some((message, _))) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return true,
            Ok(None) | Err(_) => return false,
        };
        match Ask::parse(&message) {
            Some(Ask::Input(bytes)) if !matches!(input.sink, Sink::None) => {
                input.waiting.extend(bytes);
                input.flush();
            }
            Some(Ask::EndOfInput) if input.once => {
                input.has_ended = true;
                input.flush();
            }
            Some(Ask::Window(size)) => input.set_window(size),
            _ => {}
        }
        true
    }
}

impl Input {
    /// Writes what the workload takes.
    fn flush(&mut self) {
        while !self.waiting.is_empty() {
            let (bytes, _) = self.waiting.as_slices();
            let written = match &self.sink {
                Sink::None => Ok(bytes.len()),
                Sink::Pipe(pipe) => access::write(pipe, bytes),
                Sink::Terminal(master) => access::write(master, bytes),
            };
            match written {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(Errno::EAGAIN) => return,
                // Nobody reads any more.
                Err(_) => self.waiting.clear(),
            }
        }
        if self.has_ended && matches!(self.sink, Sink::Pipe(_)) {
            self.sink = Sink::None;
        }
    }

    fn set_window(&self, size: WindowSize) {
        if let Sink::Terminal(master) = &self.sink {
            // A terminal that has ended has no window.
            let _ = pty::set_window_size(master, size);
        }
    }
}
