//! Our writer: data blocks as files arrive, compressed on several threads, then the tables of a finished tree.
//!
//! Reproducible: the same files in the same order and the same tree give the same bytes, whatever the threads do.
//!
//! ```text
//! superblock | options of the compressor, if it has any | data blocks and fragment blocks, in order of arrival
//!            | inodes | directories | fragments | export | ids | xattrs
//! ```
//!
//! Memory: a bounded number of blocks in flight, 48 bytes a file, 24 bytes a block, about 80 bytes a file (to find
//! duplicates), and at the end the inode and directory tables, compressed.

mod content;
mod directory;
mod error;
mod ids;
mod inode;
mod metadata;
mod order;
mod output;
mod plain;
mod pool;
mod relay;
mod tables;
#[cfg(test)]
mod tests;
mod xattrs;

use std::io::{Read, Seek, Write};

use self::content::ContentWriter;
pub use self::error::WriteError;
use self::output::Output;
pub use self::plain::Storing;
use self::pool::Pool;
pub use self::relay::{Moved, Relaid, RelayError, relay};
use super::compress::Compressor;
use super::format::{METADATA_STORED, SUPERBLOCK_BYTES, Superblock};
use super::sums::{BlockSum, Sums};
use crate::base::tree::{FileId, Tree};

/// How to write.
#[derive(Debug, Clone)]
pub struct Options {
    /// Compressor of data and metadata.
    pub compressor: Compressor,
    /// Compressing threads, at least 1.
    pub threads: usize,
    /// Time stamp of the image, seconds since 1970.
    pub mtime: u32,
}

/// A squashfs being written to `W`, from `W`'s position at the start.
///
/// Dropping it ends its threads and leaves an image without a superblock.
#[derive(Debug)]
pub struct Writer<W> {
    options: Options,
    content: ContentWriter<W>,
    /// An earlier call failed.
    given_up: bool,
}

/// A finished image.
#[derive(Debug)]
pub struct Finished<W> {
    /// The output, positioned behind the image.
    pub out: W,
    /// The image's length, not padded.
    pub size_bytes: u64,
    /// The sums of all its blocks and tables.
    pub sums: Sums,
}

impl<W: Read + Write + Seek> Writer<W> {
    /// Leaves room for the superblock and starts the threads.
    pub fn new(out: W, options: Options) -> Result<Self, WriteError> {
        let pool = Pool::start(options.compressor, options.threads)?;
        let mut out = Output::new(out, &[0; SUPERBLOCK_BYTES])?;
        out.write(&options_block(options.compressor))?;
        let content = ContentWriter::new(out, pool, options.compressor);
        Ok(Self { options, content, given_up: false })
    }

    /// Stores the content of one regular file, of exactly `size_bytes`.
    ///
    /// Files of equal content share a handle. After an error the image misses something: every further call
    /// fails with [`WriteError::GivenUp`].
    pub fn add_file(&mut self, size_bytes: u64, content: &mut dyn Read) -> Result<FileId, WriteError> {
        self.add_file_as(Storing::Packed, size_bytes, content)
    }

    /// As [`Self::add_file`], with a choice of how it is stored.
    pub fn add_file_as(
        &mut self,
        storing: Storing,
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<FileId, WriteError> {
        if self.given_up {
            return Err(WriteError::GivenUp);
        }
        let added = self.content.add(storing, size_bytes, content);
        self.given_up = added.is_err();
        added
    }

    /// Writes all tables and the superblock. Returns the output, positioned behind the image, and the image's length
    /// in bytes (not padded).
    ///
    /// A block device has to be padded to a whole number of its sectors before the kernel mounts it.
    pub fn finish(self, tree: &Tree) -> Result<(W, u64), WriteError> {
        let finished = self.finish_with_sums(tree)?;
        Ok((finished.out, finished.size_bytes))
    }

    /// As [`Self::finish`], and gives the sums of all that was written.
    pub fn finish_with_sums(self, tree: &Tree) -> Result<Finished<W>, WriteError> {
        if self.given_up {
            return Err(WriteError::GivenUp);
        }
        let (mut out, content) = self.content.finish()?;
        let head = options_block(self.options.compressor);
        out.begin_tables();
        let superblock = tables::write_tables(&mut out, &content, tree, &(&self.options).into())?;
        finish_image(out, &superblock, &head, content.sums)
    }
}

/// What stands behind the superblock, if the compressor has options.
fn options_block(compressor: Compressor) -> Vec<u8> {
    let Some(bytes) = compressor.options() else { return Vec::new() };
    let size = u16::try_from(bytes.len()).expect("options are a few bytes") | METADATA_STORED;
    [&size.to_le_bytes(), bytes].concat()
}

/// Puts the superblock in front of an image whose tables are the last that was written; `options` stand behind it.
fn finish_image<W: Write + Seek>(
    mut out: Output<W>,
    superblock: &Superblock,
    options: &[u8],
    blocks: Vec<BlockSum>,
) -> Result<Finished<W>, WriteError> {
    let hasher = out.end_tables();
    let superblock = superblock.to_bytes();
    let (out, size_bytes) = out.finish(&superblock)?;
    let head = [&superblock[..], options].concat();
    let first_block = head.len() as u64;
    let (tables, pieces) = hasher.finish(&head);
    Ok(Finished { out, size_bytes, sums: Sums { tables, first_block, blocks, pieces } })
}
