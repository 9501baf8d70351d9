//! Sparse maps: which parts of a file the archive holds; the rest is zeros.

use super::header::{BLOCK_BYTES, Block, number};
use super::pax::decimal;

/// Most segments of one file: 16 MiB of map. Files with more holes are an attack.
pub(super) const MAX_SPARSE_SEGMENTS: usize = 1 << 20;

/// A part of a file that the archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Where reading an expanded file stands.
#[derive(Debug)]
pub(super) struct SparseCursor {
    segments: Vec<Segment>,
    next_segment: usize,
    position: u64,
    real_size: u64,
}

/// What comes next in an expanded file, at most so many bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Hole(u64),
    Data(u64),
    End,
}

impl SparseCursor {
    /// Checks that the segments ascend, lie within the file and are exactly the stored data.
    pub(super) fn new(
        segments: Vec<Segment>,
        real_size: u64,
        stored_bytes: u64,
    ) -> Result<Self, &'static str> {
        let mut end = 0_u64;
        let mut sum = 0_u64;
        for segment in &segments {
            if segment.offset < end {
                return Err("segments overlap or do not ascend");
            }
            end = segment.offset.checked_add(segment.length).ok_or("a segment is too long")?;
            sum = sum.checked_add(segment.length).ok_or("a segment is too long")?;
        }
        if end > real_size {
            return Err("a segment lies behind the end of the file");
        }
        if sum != stored_bytes {
            return Err("the segments are not as long as the stored data");
        }
        Ok(Self { segments, next_segment: 0, position: 0, real_size })
    }

    pub(super) fn real_size(&self) -> u64 {
        self.real_size
    }

    pub(super) fn next_piece(&mut self) -> Piece {
        while let Some(segment) = self.segments.get(self.next_segment) {
            if self.position < segment.offset {
                return Piece::Hole(segment.offset - self.position);
            }
            let end = segment.offset + segment.length;
            if self.position < end {
                return Piece::Data(end - self.position);
            }
            self.next_segment += 1;
        }
        if self.position < self.real_size { Piece::Hole(self.real_size - self.position) } else { Piece::End }
    }

    /// Moves on by bytes of the piece that [`Self::next_piece`] gave.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.position += bytes;
    }
}

/// The old GNU map: four entries in the header, 21 in each extension block.
#[derive(Debug, Default)]
pub(super) struct OldGnuMap {
    pub(super) segments: Vec<Segment>,
}

const ENTRY_BYTES: usize = 24;
const HEADER_ENTRIES: std::ops::Range<usize> = 386..482;
const HEADER_EXTENDED: usize = 482;
const HEADER_REAL_SIZE: std::ops::Range<usize> = 483..495;
const BLOCK_ENTRIES: std::ops::Range<usize> = 0..504;
const BLOCK_EXTENDED: usize = 504;

impl OldGnuMap {
    /// Takes the header's part; returns the real size and whether an extension block follows.
    pub(super) fn add_header(&mut self, header: &Block) -> Result<(u64, bool), &'static str> {
        self.add_entries(&header[HEADER_ENTRIES])?;
        let real_size = number(&header[HEADER_REAL_SIZE])
            .and_then(|size| u64::try_from(size).ok())
            .ok_or("the real size is not a number")?;
        Ok((real_size, header[HEADER_EXTENDED] != 0))
    }

    /// Takes an extension block; returns whether another follows.
    pub(super) fn add_block(&mut self, block: &Block) -> Result<bool, &'static str> {
        self.add_entries(&block[BLOCK_ENTRIES])?;
        Ok(block[BLOCK_EXTENDED] != 0)
    }

    fn add_entries(&mut self, entries: &[u8]) -> Result<(), &'static str> {
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let (offset, length) = entry.split_at(ENTRY_BYTES / 2);
            if length.first() == Some(&0) {
                break;
            }
            if self.segments.len() == MAX_SPARSE_SEGMENTS {
                return Err("the sparse map is too long");
            }
            let field = |bytes| number(bytes).and_then(|value| u64::try_from(value).ok());
            let (Some(offset), Some(length)) = (field(offset), field(length)) else {
                return Err("an entry is not a number");
            };
            self.segments.push(Segment { offset, length });
        }
        Ok(())
    }
}

/// The map of PAX 1.0, which stands as decimal lines in the blocks before the data.
#[derive(Debug, Default)]
pub(super) struct MapParser {
    line: Vec<u8>,
    expected: Option<u64>,
    open_offset: Option<u64>,
    pub(super) segments: Vec<Segment>,
}

/// Longest line of a 1.0 map: the digits of 2^64.
const MAX_LINE_BYTES: usize = 20;

impl MapParser {
    /// Takes the next block; returns whether the map is complete.
    pub(super) fn add_block(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<bool, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                if self.line.len() == MAX_LINE_BYTES {
                    return Err("a line is too long");
                }
                self.line.push(byte);
                continue;
            }
            let value = decimal(&self.line)?.ok_or("a line is empty")?;
            self.line.clear();
            self.add_number(value)?;
            if self.is_complete() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_complete(&self) -> bool {
        self.open_offset.is_none() && self.expected == u64::try_from(self.segments.len()).ok()
    }

    fn add_number(&mut self, value: u64) -> Result<(), &'static str> {
        if self.expected.is_none() {
            if usize::try_from(value).is_ok_and(|count| count <= MAX_SPARSE_SEGMENTS) {
                self.expected = Some(value);
                return Ok(());
            }
            return Err("the sparse map is too long");
        }
        match self.open_offset.take() {
            None => self.open_offset = Some(value),
            Some(offset) => self.segments.push(Segment { offset, length: value }),
        }
        Ok(())
    }
}
