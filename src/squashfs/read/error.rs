//! What can be wrong with an image, in words.

use std::io;

use crate::base::Hint;

/// Why an image, or a part of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file below failed.
    #[error("reading the squashfs at byte {offset}: {source}")]
    Io {
        /// Where.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// The first bytes are not those of a squashfs.
    #[error("not a squashfs: it begins with the bytes {found:02x?}")]
    NotSquashfs {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// Made before 2009 on a machine with the other byte order.
    #[error("the squashfs is big-endian (version 3 or older); only version 4.0 can be read")]
    BigEndian,
    /// Another version of the format.
    #[error("the squashfs has version {major}.{minor}; only version 4.0 can be read")]
    Version {
        /// Major number.
        major: u16,
        /// Minor number.
        minor: u16,
    },
    /// A compressor that nobody has defined.
    #[error("the squashfs names a compressor {id}; only those from 1 (gzip) to 6 (zstd) are known")]
    Compressor {
        /// The compressor's number.
        id: u16,
    },
    /// The end is missing.
    #[error("the file is cut short: it has {have_bytes} bytes and needs {need_bytes}")]
    CutShort {
        /// Length of the file (or partition) in bytes.
        have_bytes: u64,
        /// Length that the superblock states, in bytes.
        need_bytes: u64,
    },
    /// A number in the superblock that cannot be.
    #[error("the squashfs is damaged: its superblock says {field} = {value}, {reason}")]
    Superblock {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something in a table or block that cannot be.
    #[error("the squashfs is damaged: {what} at byte {offset} {reason}")]
    Damaged {
        /// The table or block.
        what: &'static str,
        /// Where it lies in the image, in bytes.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A compressed block that does not decompress.
    #[error("the squashfs is damaged: {what} at byte {offset} does not decompress: {source}")]
    Decompress {
        /// The table or block.
        what: &'static str,
        /// Where it lies in the image, in bytes.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// A block that is not as it was when the image was made.
    #[error("the squashfs is damaged: {what} {number} at byte {offset} is not what was written")]
    Sum {
        /// A block, or a piece of a table.
        what: &'static str,
        /// Which one, in the order of the image, from 0.
        number: usize,
        /// Where it lies in the image, in bytes.
        offset: u64,
    },
    /// Sums of another image.
    #[error("the list of sums is of another squashfs: {reason}")]
    ForeignSums {
        /// How that is known.
        reason: &'static str,
    },
    /// More of something than we are willing to hold in memory.
    #[error("{what}: {value} is more than the {limit} that can be read")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it says it is.
        value: u64,
        /// Our limit.
        limit: u64,
    },
    /// Links that lead to links for ever.
    #[error("`/{path}` leads through more than {limit} symbolic links")]
    LinkLoop {
        /// The path as asked for.
        path: String,
        /// Our limit, the kernel's.
        limit: usize,
    },
    /// A path that becomes longer than Linux allows once its links are followed.
    #[error("`/{path}` leads to a path that Linux does not allow: {source}")]
    Path {
        /// The path as asked for.
        path: String,
        /// The cause.
        source: crate::base::relpath::RelPathError,
    },
    /// An inode was asked for what only another kind has.
    #[error("inode {number} is no {wanted}")]
    WrongKind {
        /// The inode's number.
        number: u32,
        /// What was wanted.
        wanted: &'static str,
    },
}

impl Hint for ReadError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::CutShort { .. }
            | Self::Superblock { .. }
            | Self::Compressor { .. }
            | Self::Damaged { .. }
            | Self::Decompress { .. }
            | Self::Sum { .. } => {
                Some("copy or pull the image again; the copy at hand is not what was written".to_owned())
            }
            Self::ForeignSums { .. } => Some(
                "make the image again, or copy it again; if its file system was exchanged on purpose, remove the list"
                    .to_owned(),
            ),
            Self::BigEndian | Self::Version { .. } => {
                Some("unpack it with `unsquashfs` and pack it again with `mksquashfs -comp zstd`".to_owned())
            }
            Self::Io { .. }
            | Self::NotSquashfs { .. }
            | Self::TooLarge { .. }
            | Self::LinkLoop { .. }
            | Self::Path { .. }
            | Self::WrongKind { .. } => None,
        }
    }
}
