//! Our reader: every number of the file is checked before it is used.
//!
//! An image may come from anywhere and be damaged or made to harm, so whatever its bytes are, nothing here panics, loops
//! for ever, or takes more memory than the named limits allow; it ends in a [`ReadError`]. Opening reads the superblock
//! and the owners only: a start looks up some thirty paths and must not pay for two hundred thousand.

mod check;
mod data;
mod directory;
mod error;
mod inode;
mod metadata;
mod path;
mod summed;
mod superblock;
#[cfg(test)]
mod tests;
mod xattr;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::base::ReadAt;
use crate::squashfs::compress::BlockDecompressor;
use crate::squashfs::format::{METADATA_BYTES, NO_TABLE, SUPERBLOCK_BYTES, Superblock};

pub use check::{Checked, Fault};
pub use data::{BlockPlace, Fragment};
pub use directory::DirectoryEntry;
pub use error::ReadError;
pub use inode::{Directory, FileData, FileFragment, Inode, InodeKind};
pub use path::Resolved;

use metadata::{Chain, Cursor, Place};

/// An opened squashfs. Cheap to clone, usable from many threads.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// What all clones of a reader share.
struct Shared {
    image: Arc<dyn ReadAt>,
    superblock: Superblock,
    /// Owners and groups, by their index in inodes.
    ids: Vec<u32>,
    metadata: metadata::Cache,
    /// Where the blocks of the fragment table lie, once someone has asked.
    fragment_blocks: OnceLock<Vec<u64>>,
    /// The data block read last: small files of one directory share a fragment.
    last_block: Mutex<Option<(BlockPlace, Arc<Vec<u8>>)>>,
    /// Warm decompressors that no thread uses at the moment.
    idle: Mutex<Vec<Scratch>>,
}

/// What one thread needs to decompress.
struct Scratch {
    decompressor: BlockDecompressor,
    input: Vec<u8>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("superblock", &self.superblock).finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads and checks the superblock and the table of owners.
    pub fn open(image: Arc<dyn ReadAt>) -> Result<Self, ReadError> {
        Self::open_with_memory(image, metadata::CACHED_BLOCKS * METADATA_BYTES)
    }

    /// As [`Self::open`], with so many bytes of memory for decompressed metadata.
    pub fn open_with_memory(image: Arc<dyn ReadAt>, metadata_bytes: usize) -> Result<Self, ReadError> {
        let have_bytes = image.size_bytes();
        let mut bytes = [0; SUPERBLOCK_BYTES];
        if have_bytes < SUPERBLOCK_BYTES as u64 {
            return Err(ReadError::CutShort { have_bytes, need_bytes: SUPERBLOCK_BYTES as u64 });
        }
        image.read_exact_at(&mut bytes, 0).map_err(|source| ReadError::Io { offset: 0, source })?;
        let superblock = superblock::parse(&bytes, have_bytes)?;
        let mut shared = Shared {
            image,
            superblock,
            ids: Vec::new(),
            metadata: metadata::Cache::new(metadata_bytes / METADATA_BYTES),
            fragment_blocks: OnceLock::new(),
            last_block: Mutex::default(),
            idle: Mutex::default(),
        };
        shared.ids = read_ids(&shared)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The numbers of the superblock.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.shared.superblock
    }

    /// The root directory.
    pub fn root(&self) -> Result<Inode, ReadError> {
        let root = self.inode(self.shared.superblock.root_inode)?;
        if root.is_directory() {
            return Ok(root);
        }
        let value = self.shared.superblock.root_inode;
        Err(ReadError::Superblock { field: "root inode", value, reason: "which is no directory" })
    }

    /// True if the image may hold extended attributes.
    #[must_use]
    pub fn has_xattrs(&self) -> bool {
        self.shared.superblock.xattr_table != NO_TABLE
    }
}

impl Shared {
    fn read_exact(&self, buf: &mut [u8], offset: u64) -> Result<(), ReadError> {
        self.image.read_exact_at(buf, offset).map_err(|source| ReadError::Io { offset, source })
    }

    fn inode_chain(&self) -> Chain {
        Chain { what: "inode table", end: self.superblock.directory_table }
    }

    fn directory_chain(&self) -> Chain {
        Chain { what: "directory table", end: self.superblock.bytes_used }
    }

    /// A cursor on record `index` of a table that is reached through a list of 64-bit block offsets at `list`.
    fn indexed(
        &self,
        chain: Chain,
        list: u64,
        index: u64,
        record_bytes: u64,
    ) -> Result<Cursor<'_>, ReadError> {
        let per_block = METADATA_BYTES as u64 / record_bytes;
        let block = self.block_of_list(chain.what, list, index / per_block)?;
        let offset = usize::try_from(index % per_block * record_bytes).unwrap_or(usize::MAX);
        Cursor::new(self, chain, Place { block, offset })
    }

    /// Entry `index` of a list of 64-bit block offsets at `list`.
    fn block_of_list(&self, what: &'static str, list: u64, index: u64) -> Result<u64, ReadError> {
        let at = index.checked_mul(8).and_then(|skip| list.checked_add(skip));
        let Some(at) = at.filter(|at| self.superblock.bytes_used.saturating_sub(*at) >= 8) else {
            return Err(ReadError::Damaged {
                what,
                offset: list,
                reason: "ends behind the end of the image",
            });
        };
        let mut bytes = [0; 8];
        self.read_exact(&mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A warm decompressor. Hand it back with [`Self::give_back`].
    fn scratch(&self) -> Result<Scratch, ReadError> {
        if let Some(scratch) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(scratch);
        }
        let id = self.superblock.compressor_id;
        let decompressor = BlockDecompressor::new(id).map_err(|_| ReadError::Compressor { id })?;
        Ok(Scratch { decompressor, input: Vec::new() })
    }

    fn give_back(&self, scratch: Scratch) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}

/// The table of owners: at most 65,535, so it is read whole.
fn read_ids(shared: &Shared) -> Result<Vec<u32>, ReadError> {
    const ID_BYTES: u64 = 4;
    const IDS_PER_BLOCK: u16 = 2048;
    let chain = Chain { what: "id table", end: shared.superblock.bytes_used };
    let mut ids = Vec::with_capacity(shared.superblock.id_count.into());
    for index in 0..shared.superblock.id_count {
        if index % IDS_PER_BLOCK == 0 {
            let left = shared.superblock.id_count - index;
            let mut cursor = shared.indexed(chain, shared.superblock.id_table, index.into(), ID_BYTES)?;
            for _ in 0..left.min(IDS_PER_BLOCK) {
                ids.push(cursor.u32()?);
            }
        }
    }
    Ok(ids)
}
