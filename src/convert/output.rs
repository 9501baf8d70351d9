//! The file while a conversion writes it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::sys::file::start_writeback;

/// Bytes between two times that the disk is asked to begin.
const WRITEBACK_BYTES: usize = 32 << 20;

/// A file that grows: the disk works while we do, so that the sync at the end has little left.
#[derive(Debug)]
pub(super) struct Growing {
    file: File,
    /// Bytes since the disk was asked last.
    fresh_bytes: usize,
}

impl Growing {
    pub(super) fn new(file: File) -> Self {
        Self { file, fresh_bytes: 0 }
    }

    /// The same file, to read in it.
    pub(super) fn try_clone(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }
}

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.fresh_bytes += count;
        if self.fresh_bytes >= WRITEBACK_BYTES {
            self.fresh_bytes = 0;
            start_writeback(&self.file);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for Growing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Seek for Growing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
