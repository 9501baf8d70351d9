//! Directory listings: entries under headers, and the index of a long listing.
//!
//! ```text
//! header: count - 1, inode block, base inode number     (12 bytes)
//!   entry: inode offset, number - base, type, name length - 1, name
//!   entry: …
//! header: …
//! ```

use super::error::WriteError;
use super::metadata::{MetadataPlace, MetadataWriter};
use crate::squashfs::format::METADATA_BYTES;
use crate::squashfs::format::limits::MAX_LISTING_BYTES;

/// Most entries under one header: `SQUASHFS_DIR_COUNT` of the kernel.
const MAX_ENTRIES_PER_HEADER: usize = 256;
/// Bytes of a header.
const HEADER_BYTES: usize = 12;
/// Bytes of an entry without its name.
const ENTRY_BYTES: usize = 8;
/// The kernel adds `.` and `..` to a listing's size as if they took three bytes.
pub(super) const DOT_BYTES: u32 = 3;

/// One entry, ready to be stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    /// Inode number.
    pub(super) number: u32,
    /// Where the inode is.
    pub(super) inode: MetadataPlace,
    /// Basic inode type.
    pub(super) kind: u16,
}

/// A stored listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing<'a> {
    pub(super) place: MetadataPlace,
    /// Without the two dots.
    pub(super) size_bytes: u32,
    /// Only for listings longer than a metadata block.
    pub(super) index: Vec<IndexEntry<'a>>,
}

/// The first header in a further metadata block of a listing, so that a lookup need not read those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexEntry<'a> {
    /// Bytes of the listing before that header.
    pub(super) offset_bytes: u32,
    /// Offset on disk of the header's metadata block, from the start of the directory table.
    pub(super) block: u32,
    /// First name under the header.
    pub(super) name: &'a [u8],
}

/// Stores a listing; `None` if it is longer than [`MAX_LISTING_BYTES`].
pub(super) fn write_listing<'a>(
    table: &mut MetadataWriter,
    entries: &[Entry<'a>],
) -> Result<Option<Listing<'a>>, WriteError> {
    let place = table.place()?;
    let mut listing = Listing { place, size_bytes: 0, index: Vec::new() };
    let mut indexed_block = place.block;
    let mut rest = entries;
    let mut bytes = Vec::with_capacity(METADATA_BYTES);
    while let Some(first) = rest.first() {
        let (run, later) = rest.split_at(run_len(rest));
        let here = table.place()?;
        // At most one entry for each 8 KiB of the largest listing: 16 bits count them.
        if here.block != indexed_block {
            indexed_block = here.block;
            let offset_bytes = listing.size_bytes;
            listing.index.push(IndexEntry { offset_bytes, block: here.block, name: first.name });
        }
        bytes.clear();
        put_run(&mut bytes, first, run);
        table.write(&bytes)?;
        let size = u32::try_from(bytes.len()).ok().and_then(|more| listing.size_bytes.checked_add(more));
        match size.filter(|&size| size <= MAX_LISTING_BYTES) {
            Some(size) => listing.size_bytes = size,
            None => return Ok(None),
        }
        rest = later;
    }
    if usize::try_from(listing.size_bytes).is_ok_and(|size| size <= METADATA_BYTES) {
        listing.index.clear();
    }
    Ok(Some(listing))
}

/// How many of `entries` fit under one header: inodes in one metadata block, numbers within 16 bits of the first, and no
/// more bytes than a metadata block, so that an index entry for every block is possible.
fn run_len(entries: &[Entry<'_>]) -> usize {
    let Some(first) = entries.first() else { return 0 };
    let mut size_bytes = HEADER_BYTES;
    let fits = |entry: &&Entry<'_>| {
        size_bytes += ENTRY_BYTES + entry.name.len();
        entry.inode.block == first.inode.block
            && number_delta(first.number, entry.number).is_some()
            && size_bytes <= METADATA_BYTES
    };
    entries.iter().take(MAX_ENTRIES_PER_HEADER).take_while(fits).count().max(1)
}

fn number_delta(base: u32, number: u32) -> Option<i16> {
    i16::try_from(i64::from(number) - i64::from(base)).ok()
}

fn put_run(bytes: &mut Vec<u8>, first: &Entry<'_>, run: &[Entry<'_>]) {
    let last = u32::try_from(run.len() - 1).expect("at most 256 entries");
    for word in [last, first.inode.block, first.number] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for entry in run {
        let delta = number_delta(first.number, entry.number).expect("a run ends before a far number");
        let name_last =
            u16::try_from(entry.name.len() - 1).expect("names are checked to have 1 to 255 bytes");
        bytes.extend_from_slice(&entry.inode.offset.to_le_bytes());
        bytes.extend_from_slice(&delta.to_le_bytes());
        bytes.extend_from_slice(&entry.kind.to_le_bytes());
        bytes.extend_from_slice(&name_last.to_le_bytes());
        bytes.extend_from_slice(entry.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::squashfs::compress::Compressor;
    use crate::squashfs::write::metadata::tests::unpack;

    fn table() -> MetadataWriter {
        MetadataWriter::new("directory", Compressor::Zstd(1)).unwrap()
    }

    fn entry(name: &[u8], number: u32, block: u32) -> Entry<'_> {
        Entry { name, number, inode: MetadataPlace { block, offset: 5 }, kind: 2 }
    }

    #[test]
    fn headers_split_where_they_must() {
        let check = |entries: &[(u32, u32)], expected: &[usize]| {
            let entries: Vec<_> =
                entries.iter().map(|&(number, block)| entry(b"name", number, block)).collect();
            let mut runs = Vec::new();
            let mut rest = entries.as_slice();
            while !rest.is_empty() {
                let len = run_len(rest);
                runs.push(len);
                rest = &rest[len..];
            }
            assert_eq!(runs, expected);
        };
        check(&[], &[]);
        check(&[(1, 0), (2, 0), (3, 0)], &[3]);
        check(&[(1, 0), (2, 9), (3, 9), (4, 0)], &[1, 2, 1]);
        check(&[(1, 0), (32768, 0)], &[2]);
        check(&[(1, 0), (32769, 0)], &[1, 1]);
        check(&[(32769, 0), (1, 0)], &[2]);
        check(&[(32770, 0), (1, 0), (2, 0)], &[1, 2]);
        check(&[(u32::MAX, 0), (1, 0)], &[1, 1]);
        let many: Vec<_> = (1..=600).map(|number| (number, 0)).collect();
        check(&many, &[256, 256, 88]);
    }

    #[test]
    fn bytes_of_a_listing() {
        let mut table = table();
        let entries = [entry(b"a", 10, 3), entry(b"bc", 9, 3), entry(b"d", 11, 4)];
        let listing = write_listing(&mut table, &entries).unwrap().unwrap();
        assert_eq!(listing.size_bytes, 12 + 9 + 10 + 12 + 9);
        assert!(listing.index.is_empty());
        let expected = [
            b"\x01\0\0\0\x03\0\0\0\x0a\0\0\0".as_slice(),
            b"\x05\0\0\0\x02\0\0\0a",
            b"\x05\0\xff\xff\x02\0\x01\0bc",
            b"\0\0\0\0\x04\0\0\0\x0b\0\0\0",
            b"\x05\0\0\0\x02\0\0\0d",
        ]
        .concat();
        assert_eq!(unpack(table), expected);
    }

    #[test]
    fn a_long_listing_has_an_index_entry_for_every_further_block() {
        let names: Vec<_> = (0..3000_u32).map(|number| format!("{number:0200}").into_bytes()).collect();
        let entries: Vec<_> = (1..).zip(&names).map(|(number, name)| entry(name, number, 0)).collect();
        let mut table = table();
        table.write(&[0; 100]).unwrap();
        let listing = write_listing(&mut table, &entries).unwrap().unwrap();
        let bytes = unpack(table);
        let size = usize::try_from(listing.size_bytes).unwrap();
        assert_eq!(bytes.len(), 100 + size);
        // Every metadata block but the first starts at most one header of 8 KiB before an index entry.
        assert!(listing.index.len() >= size / METADATA_BYTES - 1, "{}", listing.index.len());
        for index in &listing.index {
            let at = 100 + usize::try_from(index.offset_bytes).unwrap();
            let name = &bytes[at + HEADER_BYTES + ENTRY_BYTES..][..index.name.len()];
            assert_eq!(name, index.name);
        }
    }
}
