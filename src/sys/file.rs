//! An opened file for positional reads by many threads, without a shared position; and the sync of a directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::base::ReadAt;

use super::{Errno, Result};

/// Takes the lock of an open file or directory (flock(2)), if nobody has it. It is held as long as this fd or a copy of it,
/// also in a forked process, is open. False if somebody else has it.
pub fn try_lock(fd: BorrowedFd<'_>) -> Result<bool> {
    // SAFETY: plain numbers, and the fd is open as long as it is borrowed.
    let result = unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    match Errno::result(result) {
        Ok(_) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Flag of an open that fails where the last name is a symbolic link.
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW;

/// Makes a new name durable. Some file systems refuse to sync a directory; they have no later moment to offer.
#[expect(clippy::disallowed_methods, reason = "opens the directory that it syncs")]
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent).and_then(|directory| directory.sync_all()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        other => other,
    }
}

/// A regular file opened for reading, with the size that it had then.
#[derive(Debug)]
pub struct ReadFile {
    file: File,
    size_bytes: u64,
}

impl ReadFile {
    /// Takes an opened file and asks for its size.
    pub fn new(file: File) -> io::Result<Self> {
        let size_bytes = file.metadata()?.len();
        Ok(Self { file, size_bytes })
    }

    /// The file's descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl ReadAt for ReadFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn done_with(&self, offset: u64, size_bytes: u64) {
        if let (Ok(offset), Ok(size_bytes)) = (offset.try_into(), size_bytes.try_into()) {
            // Advice only: a file system that cannot take it keeps its pages.
            let _ = posix_fadvise(&self.file, offset, size_bytes, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    fn will_need(&self, offset: u64, size_bytes: u64) {
        if let (Ok(offset), Ok(size_bytes)) = (offset.try_into(), size_bytes.try_into()) {
            // Advice, too: without it the bytes come when they are read.
            let _ = posix_fadvise(&self.file, offset, size_bytes, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }
}

/// How many bytes the file system of a path can hold.
pub fn capacity(path: &Path) -> Result<u64> {
    let facts = nix::sys::statvfs::statvfs(path)?;
    Ok(facts.blocks().saturating_mul(facts.fragment_size()))
}

/// Asks the kernel to begin writing what the file has in memory, without waiting for it, so that less is left to a sync
/// at the end. A file system that does not know the wish ignores it.
pub fn start_writeback(file: &File) {
    // SAFETY: the fd is open during the call, which touches no memory of ours; a length of 0 means up to the end.
    // An error is of no interest: it comes again at the sync.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_synced_is_no_error() {
        sync_parent(Path::new("no-directory-named")).unwrap();
        // procfs answers EINVAL.
        sync_parent(Path::new("/proc/self/x")).unwrap();
        assert!(sync_parent(Path::new("/nonexistent/x")).is_err());
    }
}
