//! Pseudo-terminals: making one, taking it as one's own, its window; and the caller's terminal as raw bytes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::{Errno, Result, process};

/// Opens a new terminal by the multiplexer of a devpts: the side of who looks after it, and that of the programs.
///
/// The second comes from the fd of the first (TIOCGPTPEER, 4.13), never by a name, which could be another's.
pub fn open_terminal(multiplexer: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let path = CString::new(multiplexer.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let master = nix::fcntl::open(path.as_c_str(), flags, nix::sys::stat::Mode::empty())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the fd is open, and the kernel reads one int, which lives during the call.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    Errno::result(result)?;
    // SAFETY: the fd is open and the argument is a plain number.
    let peer = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    let peer = Errno::result(peer)?;
    // SAFETY: the kernel has just made this fd, and nobody else knows its number.
    Ok((master, unsafe { OwnedFd::from_raw_fd(peer) }))
}

/// Makes this process the leader of a session whose terminal is `terminal`, and puts that in the place of its standard
/// streams.
pub fn take_terminal(terminal: &OwnedFd) -> Result<()> {
    match process::new_session() {
        // It leads a session already, which has no terminal.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    // SAFETY: the fd is open and the argument is a plain number: do not take another's terminal away.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    Errno::result(result)?;
    process::set_standard_streams(terminal, terminal, terminal)
}

/// The size of a terminal's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// The window of a terminal; ENOTTY if it is none.
pub fn window_size(terminal: impl AsFd) -> Result<WindowSize> {
    // SAFETY: a winsize of zeros is valid.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the fd is open and the kernel writes one winsize, which lives during the call.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    Errno::result(result)?;
    Ok(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Says how large the window is; the programs in it get SIGWINCH if that is new.
pub fn set_window_size(terminal: impl AsFd, size: WindowSize) -> Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the fd is open and the kernel reads one winsize, which lives during the call.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    Errno::result(result).map(drop)
}

/// While it lives, the terminal on standard input hands every byte on as it is typed, and shows nothing by itself.
pub struct RawTerminal {
    before: Termios,
}

impl std::fmt::Debug for RawTerminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawTerminal")
    }
}

impl RawTerminal {
    /// Changes the terminal on standard input; ENOTTY if there is none.
    pub fn enter() -> Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // If the terminal has gone, nobody needs its modes. TCSADRAIN: what was printed raw is shown raw.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_two_sides_and_a_window() {
        let Ok((master, slave)) = open_terminal(Path::new("/dev/ptmx")) else { return };
        let size = WindowSize { rows: 7, columns: 31 };
        set_window_size(&master, size).unwrap();
        assert_eq!(window_size(&slave), Ok(size));
        nix::unistd::write(&slave, b"x\n").unwrap();
        let mut bytes = [0; 8];
        let count = nix::unistd::read(&master, &mut bytes).unwrap();
        assert_eq!(bytes.get(..count), Some(b"x\r\n".as_slice()));
        assert_eq!(window_size(std::io::pipe().unwrap().0), Err(Errno::ENOTTY));
    }
}
