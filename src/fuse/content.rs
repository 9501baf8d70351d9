//! File content: the blocks under a stretch of a file, borrowed from the cache, never copied here.

use std::io::IoSlice;

use super::cache::{Block, Cache, Unreadable};
use super::nodes::FileMap;
use crate::squashfs::read::{BlockPlace, Reader};

/// What holes are made of.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A part of an answer to READ.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes `start..end` of a block.
    Bytes { block: Block, start: usize, end: usize },
    /// So many zeros.
    Hole(usize),
}

/// File content of one image.
#[derive(Debug)]
pub(super) struct Content {
    reader: Reader,
    cache: Cache,
    block_bytes: usize,
}

impl Content {
    pub(super) fn new(reader: Reader, cache_bytes: usize) -> Self {
        let block_bytes = reader.superblock().block_bytes as usize;
        Self { reader, cache: Cache::new(cache_bytes, block_bytes), block_bytes }
    }

    /// The bytes of a file from `offset` on, `count` of them or up to the file's end, as pieces behind `out`.
    pub(super) fn read(
        &self,
        file: &FileMap,
        offset: u64,
        count: u32,
        out: &mut Vec<Piece>,
    ) -> Result<(), Unreadable> {
        let block_bytes = self.block_bytes as u64;
        let end = offset.saturating_add(count.into()).min(file.size_bytes);
        let mut at = offset;
        while at < end {
            let index = at / block_bytes;
            let block_start = index * block_bytes;
            let length = to_usize((file.size_bytes - block_start).min(block_bytes))?;
            let within = to_usize(at - block_start)?;
            let upto = to_usize((end - block_start).min(block_bytes))?;
            let own = file.blocks.get(to_usize(index)?).copied();
            out.push(match own {
                Some(place) if place.size_word == 0 => Piece::Hole(upto - within),
                Some(place) => {
                    let block = self.block(place, length)?;
                    // A block that gives less would be a hole that nobody sees, so it is an error.
                    if block.len() != length {
                        return Err(Unreadable);
                    }
                    Piece::Bytes { block, start: within, end: upto }
                }
                None => {
                    let (place, start) = file.tail.ok_or(Unreadable)?;
                    let block = self.block(place, self.block_bytes)?;
                    let end = start.checked_add(upto).filter(|end| *end <= block.len()).ok_or(Unreadable)?;
                    Piece::Bytes { block, start: start + within, end }
                }
            });
            at = block_start + upto as u64;
        }
        Ok(())
    }

    fn block(&self, place: BlockPlace, length: usize) -> Result<Block, Unreadable> {
        self.cache.get(place, || self.reader.read_block(place, length).map_err(|_| Unreadable))
    }
}

/// The pieces as one answer, behind `header`.
pub(super) fn to_parts<'a>(header: &'a [u8], body: &'a [u8], pieces: &'a [Piece]) -> Vec<IoSlice<'a>> {
    let mut parts = vec![IoSlice::new(header)];
    if !body.is_empty() {
        parts.push(IoSlice::new(body));
    }
    for piece in pieces {
        match piece {
            Piece::Bytes { block, start, end } => {
                parts.push(IoSlice::new(block.get(*start..*end).unwrap_or_default()));
            }
            Piece::Hole(count) => {
                let mut left = *count;
                while left > 0 {
                    let step = left.min(ZEROS.len());
                    parts.push(IoSlice::new(&ZEROS[..step]));
                    left -= step;
                }
            }
        }
    }
    parts
}

fn to_usize(count: u64) -> Result<usize, Unreadable> {
    usize::try_from(count).map_err(|_| Unreadable)
}
