//! Metadata blocks: at most 8 KiB each, behind a 16-bit header, one after the other. A table is a chain of them that is
//! read as one stream; a place in it is the file offset of a block and an offset in what the block holds.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::Shared;
use super::error::ReadError;
use crate::squashfs::format::{METADATA_BYTES, METADATA_STORED};

/// Blocks that a reader keeps, 2 MiB: a start that resolves some thirty paths meets a few dozen.
pub(super) const CACHED_BLOCKS: usize = 256;
/// Bytes of a metadata block's header.
const HEADER_BYTES: u64 = 2;

/// One decompressed metadata block.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Box<[u8]>,
    /// File offset of the block behind it.
    next: u64,
}

/// Locks that the blocks at hand are split over, so that threads of a server seldom wait for each other.
const SHARDS: usize = 16;

/// The blocks at hand, by file offset.
#[derive(Debug)]
pub(super) struct Cache {
    shards: Vec<Mutex<Blocks>>,
    /// Most blocks of one shard.
    shard_blocks: usize,
}

#[derive(Debug, Default)]
struct Blocks {
    map: HashMap<u64, Arc<Block>>,
    /// The same, oldest first.
    order: VecDeque<u64>,
}

/// A stretch of the image that holds a chain of metadata blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    /// For messages.
    pub(super) what: &'static str,
    /// File offset behind which none of its blocks begins.
    pub(super) end: u64,
}

/// A place in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// File offset of the block.
    pub(super) block: u64,
    /// Offset in what it holds.
    pub(super) offset: usize,
}

impl Place {
    /// From the packed form of the format: block offset, relative to `table`, shifted left by 16, and the offset inside.
    pub(super) fn from_reference(reference: u64, table: u64) -> Self {
        let offset = (reference & 0xffff) as usize;
        Self { block: table.saturating_add(reference >> 16), offset }
    }

    /// The packed form; `None` for what it cannot say.
    pub(super) fn to_reference(self, table: u64) -> Option<u64> {
        let offset = u64::from(u16::try_from(self.offset).ok()?);
        let block = self.block.checked_sub(table).filter(|block| *block < 1 << 32)?;
        Some(block << 16 | offset)
    }
}

impl Cache {
    /// Room for about so many blocks.
    pub(super) fn new(blocks: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_blocks: blocks.div_ceil(SHARDS),
        }
    }

    pub(super) fn block(&self, shared: &Shared, chain: Chain, at: u64) -> Result<Arc<Block>, ReadError> {
        if let Some(block) = self.shard(at).map.get(&at) {
            return Ok(block.clone());
        }
        // Two threads may do this for one block: that costs some microseconds, and waiting would cost a lock.
        let block = Arc::new(read_block(shared, chain, at)?);
        let mut blocks = self.shard(at);
        if blocks.map.insert(at, block.clone()).is_none() {
            blocks.order.push_back(at);
        }
        while blocks.order.len() > self.shard_blocks.max(1) {
            let oldest = blocks.order.pop_front();
            oldest.and_then(|oldest| blocks.map.remove(&oldest));
        }
        Ok(block)
    }

    fn shard(&self, at: u64) -> std::sync::MutexGuard<'_, Blocks> {
        // Compressed blocks take one to four KiB, so neighbours get different low bits after the multiplication only.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let index = usize::try_from(at.wrapping_mul(GOLDEN) >> 32).unwrap_or(0) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads and decompresses the block whose header is at `at`.
fn read_block(shared: &Shared, chain: Chain, at: u64) -> Result<Block, ReadError> {
    let room = shared.superblock.bytes_used.saturating_sub(at);
    if at >= chain.end || room <= HEADER_BYTES {
        return Err(damaged(chain, at, "is not within its table"));
    }
    let mut raw = [0; METADATA_BYTES + 2];
    let have = usize::try_from(room).unwrap_or(usize::MAX).min(raw.len());
    let raw = &mut raw[..have];
    shared.read_exact(raw, at)?;
    let (stored, size) = parse_header([raw[0], raw[1]], chain, at)?;
    let Some(body) = raw.get(2..2 + size) else {
        return Err(damaged(chain, at, "ends behind the end of the image"));
    };
    let bytes = unpack(shared, chain, at, stored, body)?;
    Ok(Block { bytes, next: at + HEADER_BYTES + size as u64 })
}

/// Whether the block is stored as it is, and how many bytes it takes in the file.
fn parse_header(header: [u8; 2], chain: Chain, at: u64) -> Result<(bool, usize), ReadError> {
    let header = u16::from_le_bytes(header);
    let size = usize::from(header & !METADATA_STORED);
    if size == 0 || size > METADATA_BYTES {
        return Err(damaged(chain, at, "has an impossible size"));
    }
    Ok((header & METADATA_STORED != 0, size))
}

fn unpack(shared: &Shared, chain: Chain, at: u64, stored: bool, body: &[u8]) -> Result<Box<[u8]>, ReadError> {
    if stored {
        return Ok(body.into());
    }
    let mut out = [0; METADATA_BYTES];
    let mut scratch = shared.scratch()?;
    let result = scratch.decompressor.decompress(body, &mut out);
    shared.give_back(scratch);
    match result {
        Ok(0) => Err(damaged(chain, at, "is empty")),
        Ok(count) => out.get(..count).map(Box::from).ok_or_else(|| damaged(chain, at, "is too large")),
        Err(source) => Err(ReadError::Decompress { what: chain.what, offset: at, source }),
    }
}

fn damaged(chain: Chain, offset: u64, reason: &'static str) -> ReadError {
    ReadError::Damaged { what: chain.what, offset, reason }
}

/// Reads a chain as one stream.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    shared: &'a Shared,
    chain: Chain,
    block: Arc<Block>,
    place: Place,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(shared: &'a Shared, chain: Chain, place: Place) -> Result<Self, ReadError> {
        let block = shared.metadata.block(shared, chain, place.block)?;
        if place.offset > block.bytes.len() {
            return Err(damaged(chain, place.block, "is shorter than a reference into it"));
        }
        Ok(Self { shared, chain, block, place })
    }

    /// Where the next byte is read from.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// An error about what is being read.
    pub(super) fn damaged(&self, reason: &'static str) -> ReadError {
        damaged(self.chain, self.place.block, reason)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next `count` bytes. The caller has bounded `count`.
    pub(super) fn bytes(&mut self, count: usize) -> Result<Vec<u8>, ReadError> {
        let mut out = vec![0; count];
        self.fill(&mut out)?;
        Ok(out)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        if let Some(array) = self.block.bytes.get(self.place.offset..).and_then(<[u8]>::first_chunk::<N>) {
            let array = *array;
            self.place.offset += N;
            return Ok(array);
        }
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    /// Fills `out` with the next bytes.
    pub(super) fn fill(&mut self, mut out: &mut [u8]) -> Result<(), ReadError> {
        while !out.is_empty() {
            let rest = self.rest()?;
            let step = rest.len().min(out.len());
            let (now, later) = out.split_at_mut(step);
            now.copy_from_slice(&rest[..step]);
            self.place.offset += step;
            out = later;
        }
        Ok(())
    }

    /// Passes by the next `count` bytes.
    pub(super) fn pass(&mut self, mut count: usize) -> Result<(), ReadError> {
        while count > 0 {
            let step = self.rest()?.len().min(count);
            self.place.offset += step;
            count -= step;
        }
        Ok(())
    }

    /// Where the next byte lies, as a reference to it would say: the end of a block is the beginning of the next.
    pub(super) fn next_place(&self) -> Place {
        if self.place.offset < self.block.bytes.len() {
            self.place
        } else {
            Place { block: self.block.next, offset: 0 }
        }
    }

    /// What is left of the block, or the next block; never empty.
    fn rest(&mut self) -> Result<&[u8], ReadError> {
        if self.place.offset >= self.block.bytes.len() {
            let next = self.block.next;
            self.block = self.shared.metadata.block(self.shared, self.chain, next)?;
            self.place = Place { block: next, offset: 0 };
        }
        Ok(&self.block.bytes[self.place.offset..])
    }
}
