//! An opened file for positional reads by many threads, without a shared position.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;

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
}
