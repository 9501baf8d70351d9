//! Files without a name (O_TMPFILE): they are gone with their last fd, however their process ends, until they are given one.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};

/// Makes a file without a name on the file system of `directory`. Not every file system can (NFS and most parallel ones
/// cannot): any error means that a name has to be used.
#[expect(clippy::disallowed_methods, reason = "opens the file that it makes")]
pub fn create(directory: &Path, mode: u32) -> io::Result<File> {
    File::options().read(true).write(true).mode(mode).custom_flags(libc::O_TMPFILE).open(directory)
}

/// Gives a file of [`create`] its name; one that is taken is an error.
///
/// By way of procfs, since only the privileged may name a file by its fd alone.
pub fn name(file: &File, path: &Path) -> io::Result<()> {
    let here = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::unistd::linkat(AT_FDCWD, here.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?;
    Ok(())
}
