//! An opened file for positional reads by many threads, without a shared position; and the sync of a directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
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

/// Takes the lock of an open file (flock(2)), alone or with others, and waits as long as somebody has it otherwise. A lock
/// that this fd has is changed.
pub fn lock(fd: BorrowedFd<'_>, sharing: Sharing) -> Result<()> {
    let wanted = match sharing {
        Sharing::Alone => libc::LOCK_EX,
        Sharing::Together => libc::LOCK_SH,
    };
    loop {
        // SAFETY: plain numbers, and the fd is open as long as it is borrowed.
        match Errno::result(unsafe { libc::flock(fd.as_raw_fd(), wanted) }) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Who may have a lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody else.
    Alone,
    /// Others that share it.
    Together,
}

/// Gives a lock back before the fd is closed.
pub fn unlock(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: plain numbers, and the fd is open as long as it is borrowed.
    Errno::result(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) }).map(drop)
}

/// Removes a name from an opened directory, wherever that is mounted, or if it is mounted nowhere any more.
pub fn remove_from(directory: BorrowedFd<'_>, name: &str) -> Result<()> {
    nix::unistd::unlinkat(directory, name, nix::unistd::UnlinkatFlags::NoRemoveDir)
}

/// Flag of an open that fails where the last name is a symbolic link.
pub const NO_FOLLOW: i32 = libc::O_NOFOLLOW;

/// Flags of an open of a directory and of nothing else: it does not wait for the writer of a pipe.
pub const DIRECTORY_ONLY: i32 = libc::O_NOFOLLOW | libc::O_DIRECTORY | libc::O_NONBLOCK;

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
    facts: std::fs::Metadata,
}

impl ReadFile {
    /// Takes an opened file and asks for its size.
    pub fn new(file: File) -> io::Result<Self> {
        let facts = file.metadata()?;
        Ok(Self { file, facts })
    }

    /// What tells this content from any other on this node: the file, its size, when it was changed.
    #[must_use]
    pub fn identity(&self) -> String {
        let facts = &self.facts;
        let times = (facts.mtime(), facts.mtime_nsec(), facts.ctime(), facts.ctime_nsec());
        format!("{} {} {} {times:?}", facts.dev(), facts.ino(), facts.len())
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
        self.facts.len()
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
