//! A program of a sandbox on a terminal that the test holds the other side of.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use slipway::sys::pty::{WindowSize, set_window_size};

use super::sandbox::DEADLINE;

/// The test's side. What the program prints is kept in `seen`.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: File,
    /// The program's side, to look at its modes.
    pub(crate) slave: OwnedFd,
    pub(crate) child: Child,
    pub(crate) seen: Vec<u8>,
}

impl Terminal {
    /// Starts `command` as the leader of a session on a new terminal.
    pub(crate) fn start(command: &Command) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let side = || Stdio::from(pair.slave.try_clone().unwrap());
        // setsid(1) makes the terminal the session's, so that SIGWINCH and ^C reach it.
        let mut line = Command::new("setsid");
        line.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args());
        line.env_clear().stdin(side()).stdout(side()).stderr(side());
        for (name, value) in command.get_envs() {
            line.env(name, value.unwrap_or_default());
        }
        line.env("PATH", super::sandbox::PATH);
        if let Some(directory) = command.get_current_dir() {
            line.current_dir(directory);
        }
        let user = super::user::User::ordinary();
        if nix::unistd::getuid().is_root() {
            use std::os::unix::process::CommandExt as _;
            line.uid(user.uid).gid(user.gid);
        }
        Self { master: pair.master.into(), slave: pair.slave, child: line.spawn().unwrap(), seen: Vec::new() }
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        set_window_size(&self.master, WindowSize { rows, columns }).unwrap();
    }

    pub(crate) fn type_in(&mut self, text: &[u8]) {
        self.master.write_all(text).unwrap();
    }

    /// Types a lot, and takes what is printed meanwhile.
    pub(crate) fn type_much(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
            let waited = poll(&mut fds, PollTimeout::try_from(DEADLINE).unwrap()).unwrap();
            assert!(waited > 0, "the terminal takes nothing: {} bytes left", text.len());
            let events = fds[0].revents().unwrap();
            if events.contains(PollFlags::POLLIN) {
                self.take();
            } else if events.contains(PollFlags::POLLOUT) {
                let count = self.master.write(&text[..text.len().min(512)]).unwrap();
                text = &text[count..];
            }
        }
    }

    fn take(&mut self) -> usize {
        let mut bytes = [0; 65536];
        let count = self.master.read(&mut bytes).unwrap_or(0);
        self.seen.extend(&bytes[..count]);
        count
    }

    /// Waits until the program has printed something for which `is_so` holds.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, is_so: impl Fn(&[u8]) -> bool) {
        let start = std::time::Instant::now();
        while !is_so(&self.seen) {
            let left = DEADLINE.saturating_sub(start.elapsed());
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
            let taken = if ready > 0 { self.take() } else { 0 };
            assert!(taken > 0, "{what}: still not so: {}", self.text());
        }
    }

    /// Waits for a text.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        self.wait(text, |seen| seen.windows(text.len()).any(|window| window == text.as_bytes()));
    }

    /// Forgets what was printed so far.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Takes the rest until the program has ended.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let start = std::time::Instant::now();
        loop {
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(20_u8)).unwrap() > 0 {
                self.take();
            } else if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "it does not end: {}", self.text());
        }
    }

    /// Whether the terminal shows what is typed: off while a program has it raw.
    pub(crate) fn has_echo(&self) -> bool {
        let modes = nix::sys::termios::tcgetattr(&self.slave).unwrap();
        modes.local_flags.contains(nix::sys::termios::LocalFlags::ECHO)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
