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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_device_may_be_used() {
        assert_eq!(may_read_and_write(Path::new("/dev/null")), Ok(()));
        assert_eq!(may_read_and_write(Path::new("/dev/none")), Err(Errno::ENOENT));
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
