//! Directories: runs of entries behind headers, sorted by name; a large one has an index of names.

use std::ops::ControlFlow;

use super::Reader;
use super::error::ReadError;
use super::inode::{Directory, Inode, InodeKind};
use super::metadata::{Cursor, Place};
use crate::squashfs::format::limits::{MAX_LISTING_BYTES, MAX_NAME_BYTES};

/// Most entries behind one header.
const MAX_RUN: u32 = 256;
/// Bytes of a header, and of an entry without its name.
const HEADER_BYTES: u32 = 12;
const ENTRY_BYTES: u32 = 8;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name: no slash, no NUL, not `.` or `..`.
    pub name: Box<[u8]>,
    /// For [`Reader::inode`].
    pub reference: u64,
    /// The inode's number, as the listing says.
    pub number: u32,
    /// The basic kind ([`inode_type`](crate::squashfs::format::inode_type)), as the listing says.
    pub kind: u16,
}

/// A name, while the listing is walked.
pub(super) struct Found<'a> {
    pub(super) name: &'a [u8],
    pub(super) reference: u64,
    pub(super) number: u32,
    pub(super) kind: u16,
}

impl Reader {
    /// All names of a directory, in the order of the image (sorted by bytes).
    pub fn read_dir(&self, inode: &Inode) -> Result<Vec<DirectoryEntry>, ReadError> {
        let mut entries = Vec::new();
        self.walk(directory_of(inode)?, None, |found| {
            let Found { name, reference, number, kind } = found;
            entries.push(DirectoryEntry { name: name.into(), reference, number, kind });
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    /// The inode of one name in a directory; `None` if there is none.
    pub fn lookup(&self, inode: &Inode, name: &[u8]) -> Result<Option<Inode>, ReadError> {
        let reference = self.lookup_reference(inode, name)?;
        reference.map(|reference| self.inode(reference)).transpose()
    }

    /// As [`Self::lookup`], but only the reference of the inode.
    pub fn lookup_reference(&self, inode: &Inode, name: &[u8]) -> Result<Option<u64>, ReadError> {
        let directory = directory_of(inode)?;
        let mut reference = None;
        let from = self.seek(directory, name)?;
        self.walk(directory, from, |found| match found.name.cmp(name) {
            std::cmp::Ordering::Less => ControlFlow::Continue(()),
            std::cmp::Ordering::Equal => {
                reference = Some(found.reference);
                ControlFlow::Break(())
            }
            std::cmp::Ordering::Greater => ControlFlow::Break(()),
        })?;
        Ok(reference)
    }

    /// The last run of entries that may hold `name`, by the directory's index: where it begins, and how many bytes of
    /// the listing lie before it.
    fn seek(&self, directory: &Directory, name: &[u8]) -> Result<Option<(Place, u32)>, ReadError> {
        let Some((place, count)) = directory.index else { return Ok(None) };
        let mut cursor = Cursor::new(&self.shared, self.shared.inode_chain(), place)?;
        let mut best = None;
        for _ in 0..count {
            let (passed, block, first) = index_entry(&mut cursor)?;
            if first.as_slice() > name || passed > directory.listing_bytes {
                break;
            }
            let block = self.shared.superblock.directory_table.saturating_add(block.into());
            // Entries of the index stand for the blocks' beginnings; a run that begins in the middle of a block has the
            // same distance from the listing's start.
            let offset =
                (directory.listing.offset + passed as usize) % crate::squashfs::format::METADATA_BYTES;
            best = Some((Place { block, offset }, passed));
        }
        Ok(best)
    }

    /// Calls `visit` with every entry from `from` on, until it breaks.
    fn walk(
        &self,
        directory: &Directory,
        from: Option<(Place, u32)>,
        mut visit: impl FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        if directory.listing_bytes > MAX_LISTING_BYTES {
            let (value, limit) = (directory.listing_bytes.into(), MAX_LISTING_BYTES.into());
            return Err(ReadError::TooLarge { what: "bytes of a directory's listing", value, limit });
        }
        let (place, passed) = from.unwrap_or((directory.listing, 0));
        let mut left = directory.listing_bytes.saturating_sub(passed);
        if left == 0 {
            return Ok(());
        }
        let mut cursor = Cursor::new(&self.shared, self.shared.directory_chain(), place)?;
        let mut spend = |cursor: &Cursor<'_>, bytes: u32| match left.checked_sub(bytes) {
            Some(rest) => {
                left = rest;
                Ok(rest)
            }
            None => Err(cursor.damaged("has a listing that ends within an entry")),
        };
        let mut name = [0; MAX_NAME_BYTES];
        loop {
            let mut rest = spend(&cursor, HEADER_BYTES)?;
            let count = cursor.u32()?;
            if count >= MAX_RUN {
                return Err(cursor.damaged("has a header with too many entries"));
            }
            let block = u64::from(cursor.u32()?);
            let base = cursor.u32()?;
            for _ in 0..=count {
                let [o0, o1, n0, n1, k0, k1, s0, s1] = cursor.array()?;
                let offset = u64::from(u16::from_le_bytes([o0, o1]));
                let number = base.wrapping_add_signed(i16::from_le_bytes([n0, n1]).into());
                let kind = u16::from_le_bytes([k0, k1]);
                let size = usize::from(u16::from_le_bytes([s0, s1])) + 1;
                let Some(name) = name.get_mut(..size) else {
                    return Err(cursor.damaged("holds a name that is longer than Linux allows"));
                };
                cursor.fill(name)?;
                if name.iter().any(|byte| matches!(byte, 0 | b'/')) || matches!(&*name, b"." | b"..") {
                    return Err(cursor.damaged("holds a name that is none"));
                }
                rest = spend(&cursor, ENTRY_BYTES + u32::try_from(size).unwrap_or(u32::MAX))?;
                let found = Found { name, reference: block << 16 | offset, number, kind };
                if visit(found).is_break() {
                    return Ok(());
                }
            }
            if rest == 0 {
                return Ok(());
            }
        }
    }
}

pub(super) fn directory_of(inode: &Inode) -> Result<&Directory, ReadError> {
    match &inode.kind {
        InodeKind::Directory(directory) => Ok(directory),
        _ => Err(ReadError::WrongKind { number: inode.number, wanted: "directory" }),
    }
}

/// One entry of a directory's index: bytes of the listing before it, its block, and the first name there.
pub(super) fn index_entry(cursor: &mut Cursor<'_>) -> Result<(u32, u32, Vec<u8>), ReadError> {
    let (passed, block, size) = (cursor.u32()?, cursor.u32()?, index_name_bytes(cursor)?);
    Ok((passed, block, cursor.bytes(size)?))
}

fn index_name_bytes(cursor: &mut Cursor<'_>) -> Result<usize, ReadError> {
    let size = cursor.u32()?;
    match usize::try_from(size).ok().filter(|size| *size < MAX_NAME_BYTES) {
        Some(size) => Ok(size + 1),
        None => Err(cursor.damaged("holds an index with a name that is longer than Linux allows")),
    }
}
