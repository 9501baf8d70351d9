//! Sums of everything in a squashfs, which the format itself does not keep: of each data and fragment block, and of the
//! tables piece by piece. They are made while an image is written, and lie beside it.
//!
//! ```text
//! 0    16  "slipway-sums 1" and two NULs
//! 16   32  sha256 of the tables, from the inode table to the end of the image, and then of what is before the first block
//!          (superblock, compressor options): what binds a list to its image, and is the same for all that is kept so
//! 48    8  where the first block begins
//! 56    8  number of blocks, n
//! 64    8  number of pieces of the tables, m
//! 72       n × { bytes in the image u32, sum 16 bytes }, in the order of the image, without gaps
//!          m × sum 16 bytes, one for each 8 KiB of the tables
//!      32  sha256 of everything before
//! ```
//!
//! All integers are little endian. A sum is the first half of a sha256: 128 bits tell any damage, and a forged block would
//! need 2^128 tries; the list takes some four hundredths of a percent of the image. Metadata blocks are not listed one by
//! one, since a piece says as well where the damage is.

use crate::base::{Digest, Hasher};

const MAGIC: &[u8; 16] = b"slipway-sums 1\0\0";
/// Bytes of the tables that share a sum.
pub const PIECE_BYTES: usize = 8192;
const HEAD_BYTES: usize = 72;
const BLOCK_BYTES: usize = 20;
const SUM_BYTES: usize = 16;
const OWN_BYTES: usize = 32;

/// The first half of a sha256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum([u8; SUM_BYTES]);

impl Sum {
    /// The sum of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from(Digest::of(bytes))
    }
}

impl From<Digest> for Sum {
    fn from(digest: Digest) -> Self {
        let (half, _) = digest.as_bytes().split_first_chunk().expect("a sha256 has 32 bytes");
        Self(*half)
    }
}

/// A block as it lies in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSum {
    /// Bytes that it takes there.
    pub packed_bytes: u32,
    /// Its sum.
    pub sum: Sum,
}

/// The sums of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// What binds them to the image; see the module.
    pub tables: Digest,
    /// Where the first block begins.
    pub first_block: u64,
    /// All blocks, in the order of the image.
    pub blocks: Vec<BlockSum>,
    /// The tables, piece by piece.
    pub pieces: Vec<Sum>,
}

/// Why bytes are no list of sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SumsError {
    /// Other first bytes.
    #[error("it has an unknown form")]
    Form,
    /// Its numbers do not fit its length.
    #[error("it is {have_bytes} bytes long, which its numbers do not fit")]
    Length {
        /// How long it is.
        have_bytes: usize,
    },
    /// Its own sum is wrong.
    #[error("it is damaged itself")]
    Damaged,
}

impl Sums {
    /// As it is stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(self.tables.as_bytes());
        for number in [self.first_block, self.blocks.len() as u64, self.pieces.len() as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for block in &self.blocks {
            out.extend_from_slice(&block.packed_bytes.to_le_bytes());
            out.extend_from_slice(&block.sum.0);
        }
        out.extend(self.pieces.iter().flat_map(|piece| piece.0));
        let own = Digest::of(&out);
        out.extend_from_slice(own.as_bytes());
        out
    }

    /// Reads what [`Self::to_bytes`] makes.
    pub fn parse(bytes: &[u8]) -> Result<Self, SumsError> {
        let wrong_length = SumsError::Length { have_bytes: bytes.len() };
        let rest = bytes.strip_prefix(MAGIC).ok_or(SumsError::Form)?;
        let (tables, mut rest) = rest.split_first_chunk::<32>().ok_or(wrong_length)?;
        let mut number = || {
            let (number, later) = rest.split_first_chunk().ok_or(wrong_length)?;
            rest = later;
            Ok(u64::from_le_bytes(*number))
        };
        let (first_block, blocks, pieces) = (number()?, number()?, number()?);
        let size = |count: u64, each: usize| usize::try_from(count).ok()?.checked_mul(each);
        let sizes = size(blocks, BLOCK_BYTES).zip(size(pieces, SUM_BYTES));
        let (blocks, pieces) = sizes.ok_or(wrong_length)?;
        let whole =
            HEAD_BYTES.checked_add(blocks).and_then(|sum| sum.checked_add(pieces)?.checked_add(OWN_BYTES));
        if whole != Some(bytes.len()) {
            return Err(wrong_length);
        }
        let (listed, own) = bytes.split_at(bytes.len() - OWN_BYTES);
        if Digest::of(listed).as_bytes() != own {
            return Err(SumsError::Damaged);
        }
        let (blocks, rest) = rest.split_at(blocks);
        let sum = |bytes: &[u8]| Sum(bytes.try_into().expect("cut to this length"));
        let block = |bytes: &[u8]| {
            let (size, own) = bytes.split_first_chunk().expect("cut to this length");
            BlockSum { packed_bytes: u32::from_le_bytes(*size), sum: sum(own) }
        };
        Ok(Self {
            tables: Digest::from_bytes(*tables),
            first_block,
            blocks: blocks.chunks_exact(BLOCK_BYTES).map(block).collect(),
            pieces: rest[..pieces].chunks_exact(SUM_BYTES).map(sum).collect(),
        })
    }

    /// Where the tables begin: behind the last block.
    #[must_use]
    pub fn tables_start(&self) -> u64 {
        self.blocks.iter().fold(self.first_block, |at, block| at.saturating_add(block.packed_bytes.into()))
    }
}

/// Sums tables that come in order.
#[derive(Debug)]
pub struct TableHasher {
    whole: Hasher,
    piece: Hasher,
    /// Bytes that the open piece lacks.
    left: usize,
    pieces: Vec<Sum>,
}

impl Default for TableHasher {
    fn default() -> Self {
        Self { whole: Hasher::new(), piece: Hasher::new(), left: PIECE_BYTES, pieces: Vec::new() }
    }
}

impl TableHasher {
    /// The next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.whole.update(bytes);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.left));
            self.piece.update(now);
            self.left -= now.len();
            if self.left == 0 {
                self.close_piece();
            }
            bytes = later;
        }
    }

    /// The end of the tables; `head` is what is before the first block.
    #[must_use]
    pub fn finish(mut self, head: &[u8]) -> (Digest, Vec<Sum>) {
        if self.left < PIECE_BYTES {
            self.close_piece();
        }
        self.whole.update(head);
        (self.whole.finish(), self.pieces)
    }

    fn close_piece(&mut self) {
        let piece = std::mem::replace(&mut self.piece, Hasher::new());
        self.pieces.push(Sum::from(piece.finish()));
        self.left = PIECE_BYTES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(blocks: u32, table_bytes: usize) -> Sums {
        let mut hasher = TableHasher::default();
        // In steps that fall anywhere on the pieces.
        for bytes in vec![7; table_bytes].chunks(1000) {
            hasher.update(bytes);
        }
        let (tables, pieces) = hasher.finish(b"head");
        let block = |index: u32| BlockSum { packed_bytes: index + 1, sum: Sum::of(&index.to_le_bytes()) };
        Sums { tables, first_block: 96, blocks: (0..blocks).map(block).collect(), pieces }
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        for (blocks, table_bytes, pieces) in
            [(0, 0, 0), (3, 1, 1), (100, 8192, 1), (7, 8193, 2), (1, 30_000, 4)]
        {
            let sums = sums(blocks, table_bytes);
            let bytes = sums.to_bytes();
            assert_eq!(sums.pieces.len(), pieces);
            assert_eq!(bytes.len(), 72 + 20 * blocks as usize + 16 * pieces + 32);
            assert_eq!(Sums::parse(&bytes), Ok(sums));
        }
        assert_eq!(sums(3, 0).tables_start(), 96 + 1 + 2 + 3);
    }

    #[test]
    fn pieces_are_sums_of_their_bytes() {
        let mut hasher = TableHasher::default();
        hasher.update(&[1; PIECE_BYTES]);
        hasher.update(&[2; 5]);
        let (tables, pieces) = hasher.finish(b"head");
        assert_eq!(pieces, [Sum::of(&[1; PIECE_BYTES]), Sum::of(&[2; 5])]);
        assert_eq!(tables, Digest::of(&[&[1; PIECE_BYTES][..], &[2; 5], b"head"].concat()));
    }

    #[test]
    fn a_list_that_was_changed_is_refused() {
        let bytes = sums(5, 100).to_bytes();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Sums::parse(&changed).is_err(), "{at}");
            assert!(Sums::parse(&bytes[..at]).is_err(), "{at}");
        }
        let mut huge = bytes.clone();
        huge[56..64].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(Sums::parse(&huge), Err(SumsError::Length { have_bytes: bytes.len() }));
        assert_eq!(Sums::parse(b"something else"), Err(SumsError::Form));
    }

    /// The form is kept in files: it must not change under them.
    #[test]
    fn the_form_is_as_it_was() {
        let sums = Sums {
            tables: Digest::from_bytes([0xaa; 32]),
            first_block: 96,
            blocks: vec![BlockSum { packed_bytes: 0x0102_0304, sum: Sum([0xbb; 16]) }],
            pieces: vec![Sum([0xcc; 16])],
        };
        let expected = [
            &b"slipway-sums 1\0\0"[..],
            &[0xaa; 32],
            &[96, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1],
            &[0xbb; 16],
            &[0xcc; 16],
        ]
        .concat();
        let bytes = sums.to_bytes();
        assert_eq!(bytes[..bytes.len() - 32], expected);
        assert_eq!(bytes[bytes.len() - 32..], *Digest::of(&expected).as_bytes());
    }
}
