//! File content: full blocks one after the other, and tails that share fragment blocks.

use std::sync::{Arc, PoisonError};

use super::error::ReadError;
use super::inode::{FileData, Inode, InodeKind};
use super::metadata::Chain;
use super::{Reader, Shared};
use crate::squashfs::format::BLOCK_STORED;

/// Most fragment blocks of an image: 2 TiB of small files in blocks of 128 KiB.
const MAX_FRAGMENTS: u32 = 1 << 24;
/// Bytes of an entry in the fragment table.
const FRAGMENT_BYTES: u64 = 16;

/// Where a data block lies in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockPlace {
    /// File offset.
    pub offset: u64,
    /// Bytes that it takes there, with the bit for "stored"; 0 is a hole.
    pub size_word: u32,
}

impl BlockPlace {
    /// Bytes that it takes in the image.
    #[must_use]
    pub fn packed_bytes(self) -> u32 {
        self.size_word & !BLOCK_STORED
    }
}

/// A fragment block: it holds the tails of several files.
pub type Fragment = BlockPlace;

impl Reader {
    /// The whole content of a regular file; more than `max_bytes` is an error.
    pub fn read_all(&self, inode: &Inode, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
        let size_bytes = file_of(inode)?.size_bytes;
        if size_bytes > max_bytes {
            let what = "bytes of a file that is read whole";
            return Err(ReadError::TooLarge { what, value: size_bytes, limit: max_bytes });
        }
        // Block by block, since the size is only a claim.
        let step = self.shared.superblock.block_bytes as usize;
        let mut content = Vec::new();
        while (content.len() as u64) < size_bytes {
            let start = content.len();
            let left = usize::try_from(size_bytes).unwrap_or(usize::MAX) - start;
            content.resize(start + step.min(left), 0);
            let count = self.read_at(inode, start as u64, &mut content[start..])?;
            content.truncate(start + count);
        }
        Ok(content)
    }

    /// Reads from a regular file at `offset` until `buf` is full or the file ends, and says how many bytes it gave.
    pub fn read_at(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let file = file_of(inode)?;
        let block_bytes = u64::from(self.shared.superblock.block_bytes);
        let mut done = 0;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            if at >= file.size_bytes {
                break;
            }
            let within = usize::try_from(at % block_bytes).unwrap_or(usize::MAX);
            let (block, start, end) = self.block_with(file, at / block_bytes)?;
            let have = block.get(start..end).and_then(|bytes| bytes.get(within..)).unwrap_or_default();
            let count = have.len().min(buf.len() - done);
            if count == 0 {
                let reason = "is shorter than the file that it belongs to";
                return Err(ReadError::Damaged { what: "data block", offset: file.start, reason });
            }
            buf[done..done + count].copy_from_slice(&have[..count]);
            done += count;
        }
        Ok(done)
    }

    /// The block that holds the file's bytes from `index` blocks on, and which part of it is the file's.
    fn block_with(&self, file: &FileData, index: u64) -> Result<(Arc<Vec<u8>>, usize, usize), ReadError> {
        let block_bytes = u64::from(self.shared.superblock.block_bytes);
        let left = file.size_bytes.saturating_sub(index.saturating_mul(block_bytes));
        let length = usize::try_from(left.min(block_bytes)).unwrap_or(usize::MAX);
        let position = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some(size_word) = file.block_sizes.get(position) {
            let mut offset = file.start;
            for before in &file.block_sizes[..position] {
                offset = offset.saturating_add(u64::from(before & !BLOCK_STORED));
            }
            let place = BlockPlace { offset, size_word: *size_word };
            return Ok((self.block_again(place, length)?, 0, length));
        }
        let Some(fragment) = file.fragment else { return Ok((Arc::default(), 0, 0)) };
        let place = self.fragment(fragment.index)?;
        let start = fragment.offset as usize;
        Ok((self.block_again(place, self.shared.superblock.block_bytes as usize)?, start, start + length))
    }

    /// [`Self::read_block`], with the block read last at hand.
    fn block_again(&self, place: BlockPlace, length: usize) -> Result<Arc<Vec<u8>>, ReadError> {
        let last = || self.shared.last_block.lock().unwrap_or_else(PoisonError::into_inner);
        if place.packed_bytes() > 0
            && let Some((at, block)) = &*last()
            && *at == place
        {
            return Ok(block.clone());
        }
        let block = Arc::new(self.read_block(place, length)?);
        *last() = Some((place, block.clone()));
        Ok(block)
    }

    /// Reads and decompresses one data or fragment block. It gives at most `length` bytes, which a caller that knows
    /// the length has to compare; a hole gives as many zeros.
    pub fn read_block(&self, place: BlockPlace, length: usize) -> Result<Vec<u8>, ReadError> {
        let shared = &self.shared;
        let length = length.min(shared.superblock.block_bytes as usize);
        let mut out = vec![0; length];
        let damaged = |reason| ReadError::Damaged { what: "data block", offset: place.offset, reason };
        let packed = place.packed_bytes();
        if place.size_word == 0 {
            return Ok(out);
        }
        if packed == 0 || packed > shared.superblock.block_bytes {
            return Err(damaged("has an impossible size"));
        }
        let room = shared.superblock.bytes_used.saturating_sub(place.offset);
        if u64::from(packed) > room {
            return Err(damaged("lies behind the end of the image"));
        }
        let packed = packed as usize;
        if place.size_word & BLOCK_STORED != 0 {
            let Some(body) = out.get_mut(..packed) else {
                return Err(damaged("is longer than the file that it belongs to"));
            };
            shared.read_exact(body, place.offset)?;
            out.truncate(packed);
            return Ok(out);
        }
        let mut scratch = shared.scratch()?;
        scratch.input.resize(packed, 0);
        let result = shared.read_exact(&mut scratch.input, place.offset).and_then(|()| {
            scratch
                .decompressor
                .decompress(&scratch.input, &mut out)
                .map_err(|source| ReadError::Decompress { what: "data block", offset: place.offset, source })
        });
        shared.give_back(scratch);
        out.truncate(result?);
        Ok(out)
    }

    /// One entry of the fragment table.
    pub fn fragment(&self, index: u32) -> Result<Fragment, ReadError> {
        let chain = fragment_chain(&self.shared);
        let superblock = &self.shared.superblock;
        if index >= superblock.fragment_count {
            let reason = "has fewer entries than a file asks for";
            return Err(ReadError::Damaged { what: chain.what, offset: superblock.fragment_table, reason });
        }
        let mut cursor =
            self.shared.indexed(chain, superblock.fragment_table, index.into(), FRAGMENT_BYTES)?;
        let (offset, size_word) = (cursor.u64()?, cursor.u32()?);
        Ok(Fragment { offset, size_word })
    }

    /// The whole fragment table.
    pub fn fragments(&self) -> Result<Vec<Fragment>, ReadError> {
        const PER_BLOCK: u32 = 512;
        let (shared, chain) = (&self.shared, fragment_chain(&self.shared));
        let count = shared.superblock.fragment_count;
        if count > MAX_FRAGMENTS {
            let (value, limit) = (count.into(), MAX_FRAGMENTS.into());
            return Err(ReadError::TooLarge { what: "fragment blocks", value, limit });
        }
        let mut fragments = Vec::new();
        for first in (0..count).step_by(PER_BLOCK as usize) {
            let list = shared.superblock.fragment_table;
            let mut cursor = shared.indexed(chain, list, first.into(), FRAGMENT_BYTES)?;
            for _ in first..count.min(first + PER_BLOCK) {
                let (offset, size_word, _unused) = (cursor.u64()?, cursor.u32()?, cursor.u32()?);
                fragments.push(Fragment { offset, size_word });
            }
        }
        Ok(fragments)
    }
}

fn fragment_chain(shared: &Shared) -> Chain {
    Chain { what: "fragment table", end: shared.superblock.bytes_used }
}

fn file_of(inode: &Inode) -> Result<&FileData, ReadError> {
    match &inode.kind {
        InodeKind::File(data) => Ok(data),
        _ => Err(ReadError::WrongKind { number: inode.number, wanted: "regular file" }),
    }
}
