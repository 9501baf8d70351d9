//! The parts of a check that need the sums of an image.

use std::sync::atomic::{AtomicU8, Ordering};

use super::error::ReadError;
use super::{BlockPlace, Reader};
use crate::squashfs::format::Superblock;
use crate::squashfs::sums::{PIECE_BYTES, Sum, Sums, TableHasher};

/// Bytes of the tables that are read at a time.
const READ_BYTES: usize = 64 * PIECE_BYTES;
/// What is known of a block: nothing yet, that it is as it was written, that it is not.
const UNSEEN: u8 = 0;
const GOOD: u8 = 1;
const WRONG: u8 = 2;

/// Sums, found by the place of their block.
pub(in crate::squashfs) struct Summed<'a> {
    sums: &'a Sums,
    /// Where each block begins.
    offsets: Vec<u64>,
    states: Vec<AtomicU8>,
}

/// How it is known that the sums are not those of this image: their numbers do not agree with the superblock.
fn fault_of_form(sums: &Sums, superblock: &Superblock) -> Option<&'static str> {
    if sums.tables_start() != superblock.inode_table {
        return Some("its blocks do not end where the tables of this one begin");
    }
    let table_bytes = superblock.bytes_used.saturating_sub(superblock.inode_table);
    (table_bytes.div_ceil(PIECE_BYTES as u64) != sums.pieces.len() as u64)
        .then_some("its tables have another length")
}

impl Reader {
    /// The sums of this image, found by place; those of another are refused.
    pub(in crate::squashfs) fn summed<'a>(&self, sums: &'a Sums) -> Result<Summed<'a>, ReadError> {
        match fault_of_form(sums, self.superblock()) {
            Some(reason) => Err(ReadError::ForeignSums { reason }),
            None => Ok(Summed::new(sums)),
        }
    }

    /// The digest that binds what is kept beside an image to it: of its tables and of what is before its first block.
    pub fn table_digest(&self, first_block: u64) -> Result<crate::base::Digest, ReadError> {
        Ok(self.sum_tables(first_block)?.0)
    }

    fn sum_tables(&self, first_block: u64) -> Result<(crate::base::Digest, Vec<Sum>), ReadError> {
        let superblock = self.superblock();
        let mut hasher = TableHasher::default();
        let mut buf = vec![0; READ_BYTES];
        let mut at = superblock.inode_table;
        while at < superblock.bytes_used {
            let left = usize::try_from(superblock.bytes_used - at).unwrap_or(usize::MAX);
            let step = &mut buf[..left.min(READ_BYTES)];
            self.read_packed(at, step)?;
            hasher.update(step);
            at += step.len() as u64;
        }
        let length = usize::try_from(first_block.min(superblock.inode_table)).unwrap_or(usize::MAX);
        // A superblock and the options of a compressor are some hundred bytes.
        let mut head = vec![0; length.min(PIECE_BYTES)];
        self.read_packed(0, &mut head)?;
        Ok(hasher.finish(&head))
    }
}

/// Compares the tables with their sums, piece by piece.
pub(super) fn check_tables(reader: &Reader, sums: &Sums, fault: &mut dyn FnMut(&str, ReadError)) {
    let superblock = reader.superblock();
    if let Some(reason) = fault_of_form(sums, superblock) {
        return fault("sums", ReadError::ForeignSums { reason });
    }
    let (digest, pieces) = match reader.sum_tables(sums.first_block) {
        Ok(found) => found,
        Err(source) => return fault("tables", source),
    };
    if digest == sums.tables {
        return;
    }
    let mut any = false;
    for (number, _) in pieces.iter().zip(&sums.pieces).enumerate().filter(|(_, (found, sum))| found != sum) {
        any = true;
        let offset = superblock.inode_table + (number * PIECE_BYTES) as u64;
        let end = offset + PIECE_BYTES as u64;
        let table = match offset {
            _ if end <= superblock.directory_table => "inode table",
            _ if offset < superblock.directory_table => "inode and directory tables",
            _ if superblock.fragment_count > 0 && end <= superblock.fragment_table => "directory table",
            _ => "tables",
        };
        fault(table, ReadError::Sum { what: "piece", number, offset });
    }
    if !any {
        let reason = "is not what was written";
        fault("superblock", ReadError::Damaged { what: "superblock", offset: 0, reason });
    }
}

impl<'a> Summed<'a> {
    pub(super) fn new(sums: &'a Sums) -> Self {
        let mut at = sums.first_block;
        let mut offsets = Vec::with_capacity(sums.blocks.len());
        for block in &sums.blocks {
            offsets.push(at);
            at = at.saturating_add(block.packed_bytes.into());
        }
        Self { sums, offsets, states: sums.blocks.iter().map(|_| AtomicU8::new(UNSEEN)).collect() }
    }

    /// Compares the sum that a block has with the one that it must have.
    pub(in crate::squashfs) fn compare(
        &self,
        what: &'static str,
        place: BlockPlace,
        sum: Sum,
    ) -> Result<(), ReadError> {
        let offset = place.offset;
        let known = self.offsets.binary_search(&offset).ok();
        let known = known.and_then(|number| Some((number, self.sums.blocks.get(number)?)));
        match known.filter(|(_, block)| block.packed_bytes == place.packed_bytes()) {
            None => Err(ReadError::Damaged { what, offset, reason: "is not in the list of sums" }),
            Some((number, block)) => {
                let is_good = block.sum == sum;
                self.states[number].store(if is_good { GOOD } else { WRONG }, Ordering::Relaxed);
                if is_good { Ok(()) } else { Err(ReadError::Sum { what, number, offset }) }
            }
        }
    }

    /// Compares the blocks that no file led to.
    pub(super) fn check_rest(&self, reader: &Reader, fault: &mut dyn FnMut(&str, ReadError)) {
        let mut packed = Vec::new();
        for (number, (block, &offset)) in self.sums.blocks.iter().zip(&self.offsets).enumerate() {
            if self.states[number].load(Ordering::Relaxed) != UNSEEN {
                continue;
            }
            let length = usize::try_from(block.packed_bytes).unwrap_or(usize::MAX);
            let found = if u64::from(block.packed_bytes) > reader.superblock().block_bytes.into() {
                Err(ReadError::Damaged { what: "block", offset, reason: "has an impossible size" })
            } else {
                packed.resize(length, 0);
                reader.read_packed(offset, &mut packed).and_then(|()| {
                    let place = BlockPlace { offset, size_word: block.packed_bytes };
                    self.compare("block", place, Sum::of(&packed))
                })
            };
            if let Err(source) = found {
                fault("a block that no file names", source);
            }
        }
    }

    /// How many blocks are as they were written.
    pub(super) fn good_blocks(&self) -> u64 {
        self.states.iter().filter(|state| state.load(Ordering::Relaxed) == GOOD).count() as u64
    }
}
