//! Whether a file may be used, asked without opening it; and waiting for an fd.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::AccessFlags;

use super::{Errno, Result};

/// Asks by access(2) whether the real user may read and write `path`.
///
/// For a device node the kernel also asks the device cgroup (EPERM), and the driver's open is not called, so that a
/// sleeping GPU is not woken. It does not see a `nodev` mount: see [`forbids_devices`].
pub fn may_read_and_write(path: &Path) -> Result<()> {
    // Not faccessat with AT_EACCESS: before Linux 5.8 the C library answers that itself from the mode bits.
    nix::unistd::access(path, AccessFlags::R_OK | AccessFlags::W_OK)
}

/// The same for reading alone: some nodes are opened for nothing else, and their mode allows nothing else.
pub fn may_read(path: &Path) -> Result<()> {
    nix::unistd::access(path, AccessFlags::R_OK)
}

/// True if `path` lies on a mount with `nodev`, where opening a device node gives EACCES.
pub fn forbids_devices(path: &Path) -> Result<bool> {
    statvfs(path).map(|facts| facts.flags().contains(FsFlags::ST_NODEV))
}

/// Waits until `fd` can be read or its other side is closed. False if `timeout` passed first.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(count) => Ok(count > 0),
        // Not an answer: the caller looks at its clock and asks again.
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Waits until one of the fds can be read or its other side is closed, and says which; `None` in the list is left out.
/// All false if `timeout` passed first, or a signal came.
pub fn wait_any<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> Result<[bool; N]> {
    let mut asked: Vec<PollFd<'_>> =
        fds.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let timeout = timeout
        .map_or(PollTimeout::NONE, |timeout| PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX));
    match poll(&mut asked, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok([false; N]),
        Err(errno) => return Err(errno),
    }
    let mut answers = asked.iter().map(|fd| fd.any().unwrap_or(true));
    Ok(fds.map(|fd| fd.is_some() && answers.next().unwrap_or(false)))
}

/// An fd, and what it is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The fd.
    pub fd: BorrowedFd<'a>,
    /// It can be read, or its other side is closed.
    pub read: bool,
    /// It takes bytes.
    pub write: bool,
}

/// What has come true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// It can be read, or its other side is closed.
    pub read: bool,
    /// It takes bytes, or would fail at once.
    pub write: bool,
}

/// Waits until something of what is wanted is so. Nothing is if `timeout` passed first, or a signal came. An fd of which
/// nothing is wanted must not be in the list: the kernel tells its end again and again.
pub fn wait_ready(wanted: &[Wanted<'_>], timeout: Option<Duration>) -> Result<Vec<Ready>> {
    let events = |wanted: &Wanted<'_>| {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, wanted.read);
        flags.set(PollFlags::POLLOUT, wanted.write);
        flags
    };
    let mut asked: Vec<PollFd<'_>> =
        wanted.iter().map(|wanted| PollFd::new(wanted.fd, events(wanted))).collect();
    // Rounded up: a wait that ends early comes back at once, again and again.
    let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
        PollTimeout::try_from(timeout.saturating_add(Duration::from_micros(999))).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut asked, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(vec![Ready::default(); wanted.len()]),
        Err(errno) => return Err(errno),
    }
    let ends = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    Ok(asked
        .iter()
        .zip(wanted)
        .map(|(answer, wanted)| {
            let flags = answer.revents().unwrap_or(ends);
            let has_ended = flags.intersects(ends);
            Ready {
                read: wanted.read && (has_ended || flags.contains(PollFlags::POLLIN)),
                write: wanted.write && (has_ended || flags.contains(PollFlags::POLLOUT)),
            }
        })
        .collect())
}

/// Reads what is there, at most `buf`; 0 at the end.
pub fn read(fd: impl AsFd, buf: &mut [u8]) -> Result<usize> {
    loop {
        match nix::unistd::read(fd.as_fd(), buf) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Writes what fits.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize> {
    loop {
        match nix::unistd::write(fd.as_fd(), bytes) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// From here on, who would have to wait gets EAGAIN. It holds for every copy of the fd.
pub fn never_wait(fd: impl AsFd) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_device_may_be_used() {
        assert_eq!(may_read_and_write(Path::new("/dev/null")), Ok(()));
        assert_eq!(may_read_and_write(Path::new("/dev/none")), Err(Errno::ENOENT));
        assert_eq!(may_read(Path::new("/dev/null")), Ok(()));
        assert_eq!(may_read(Path::new("/dev/none")), Err(Errno::ENOENT));
        assert_eq!(forbids_devices(Path::new("/dev/null")), Ok(false));
    }

    #[test]
    fn a_closed_writer_counts_as_readable() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert_eq!(wait_readable(reader.as_fd(), Duration::ZERO), Ok(false));
        drop(writer);
        assert_eq!(wait_readable(reader.as_fd(), Duration::from_secs(60)), Ok(true));
    }
}
