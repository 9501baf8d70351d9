//! Data that was made of one squashfs and is kept beside it. It says which one by the digest of its tables, so that it can
//! never be a second truth: where the digests differ, it is refused.
//!
//! ```text
//! 0    16  what it is
//! 16   32  the digest of the tables, as in the list of sums ([`super::sums`])
//! 48    8  where the first block begins, which that digest needs; little endian
//! 56       the data
//!      32  sha256 of everything before
//! ```

use crate::base::Digest;

const HEAD_BYTES: usize = 56;
const OWN_BYTES: usize = 32;

/// Such data, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound<'a> {
    /// Digest of the tables of its squashfs.
    pub tables: Digest,
    /// Where that one's first block begins.
    pub first_block: u64,
    /// The data.
    pub data: &'a [u8],
}

impl<'a> Bound<'a> {
    /// As it is stored.
    #[must_use]
    pub fn to_bytes(&self, kind: &[u8; 16]) -> Vec<u8> {
        let mut out =
            [kind, &self.tables.as_bytes()[..], &self.first_block.to_le_bytes(), self.data].concat();
        let own = Digest::of(&out);
        out.extend_from_slice(own.as_bytes());
        out
    }

    /// Reads what [`Self::to_bytes`] makes; `None` if it is of another kind or damaged.
    #[must_use]
    pub fn parse(bytes: &'a [u8], kind: &[u8; 16]) -> Option<Self> {
        let (rest, own) = bytes.split_last_chunk::<OWN_BYTES>()?;
        let (head, data) = rest.split_first_chunk::<HEAD_BYTES>()?;
        let (tables, first_block) = head.strip_prefix(kind)?.split_first_chunk::<32>()?;
        if Digest::of(rest).as_bytes() != own {
            return None;
        }
        let first_block = u64::from_le_bytes(first_block.try_into().ok()?);
        Some(Self { tables: Digest::from_bytes(*tables), first_block, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_as_it_was() {
        let kind = b"test of the kind";
        for data in [&b""[..], b"some data"] {
            let bound = Bound { tables: Digest::from_bytes([7; 32]), first_block: 106, data };
            let bytes = bound.to_bytes(kind);
            assert_eq!(bytes.len(), 56 + data.len() + 32);
            assert_eq!(Bound::parse(&bytes, kind), Some(bound));
            assert_eq!(Bound::parse(&bytes, b"another kind ..."), None);
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert_eq!(Bound::parse(&changed, kind), None, "{at}");
                assert_eq!(Bound::parse(&bytes[..at], kind), None, "{at}");
            }
        }
    }
}
