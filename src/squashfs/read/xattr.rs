//! Extended attributes: a list of sets that inodes share by index; long values may lie apart.

use super::Reader;
use super::error::ReadError;
use super::inode::Inode;
use super::metadata::{Chain, Cursor, Place};
use crate::base::tree::Xattrs;
use crate::squashfs::format::NO_TABLE;
use crate::squashfs::format::limits::{
    MAX_XATTR_NAME_BYTES, MAX_XATTR_SET_BYTES, MAX_XATTR_VALUE_BYTES, MAX_XATTRS,
};

/// Name prefixes by their number.
const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// In an attribute's type: the value is a reference to where it lies.
const VALUE_APART: u16 = 0x100;
/// Bytes of an entry in the table of sets, and of the table's head.
const SET_BYTES: u64 = 16;
const HEAD_BYTES: u64 = 16;

impl Reader {
    /// The extended attributes of an inode, by full name, in the order of the image.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs, ReadError> {
        inode.xattr.map_or_else(|| Ok(Vec::new()), |index| self.xattr_set(index))
    }

    /// One set of extended attributes, by the index that an inode holds.
    pub fn xattr_set(&self, index: u32) -> Result<Xattrs, ReadError> {
        let shared = &self.shared;
        let head = shared.superblock.xattr_table;
        let chain = Chain { what: "xattr table", end: shared.superblock.bytes_used };
        let damaged = |reason| ReadError::Damaged { what: chain.what, offset: head, reason };
        if head == NO_TABLE {
            return Err(damaged("is absent, but an inode refers to it"));
        }
        // The head is the start of the attributes and the number of sets, in two 64-bit words.
        let start = shared.block_of_list(chain.what, head, 0)?;
        let set_count = shared.block_of_list(chain.what, head, 1)? & u64::from(u32::MAX);
        if u64::from(index) >= set_count {
            return Err(damaged("has fewer sets than an inode asks for"));
        }
        let mut set = shared.indexed(chain, head.saturating_add(HEAD_BYTES), index.into(), SET_BYTES)?;
        let (reference, count) = (set.u64()?, set.u32()?);
        if count as usize > MAX_XATTRS {
            let what = "extended attributes of one file";
            return Err(ReadError::TooLarge { what, value: count.into(), limit: MAX_XATTRS as u64 });
        }
        let mut cursor = Cursor::new(shared, chain, Place::from_reference(reference, start))?;
        let mut xattrs = Xattrs::new();
        let mut total = 0;
        for _ in 0..count {
            let kind = cursor.u16()?;
            let name_bytes = usize::from(cursor.u16()?);
            let Some(prefix) = PREFIXES.get(usize::from(kind & !VALUE_APART)) else {
                return Err(cursor.damaged("holds an attribute of an unknown kind"));
            };
            if prefix.len() + name_bytes > MAX_XATTR_NAME_BYTES {
                return Err(cursor.damaged("holds an attribute with a name that is longer than Linux allows"));
            }
            let mut name = prefix.to_vec();
            name.extend(cursor.bytes(name_bytes)?);
            let value = if kind & VALUE_APART == 0 {
                value(&mut cursor)?
            } else {
                let _bytes_of_reference = cursor.u32()?;
                let place = Place::from_reference(cursor.u64()?, start);
                value(&mut Cursor::new(shared, chain, place)?)?
            };
            total += name.len() + value.len();
            if total > MAX_XATTR_SET_BYTES {
                let (value, limit) = (total as u64, MAX_XATTR_SET_BYTES as u64);
                return Err(ReadError::TooLarge { what: "bytes of one file's attributes", value, limit });
            }
            xattrs.push((name, value));
        }
        Ok(xattrs)
    }
}

fn value(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, ReadError> {
    let size = cursor.u32()?;
    if size as usize > MAX_XATTR_VALUE_BYTES {
        return Err(cursor.damaged("holds an attribute with a value that is longer than Linux allows"));
    }
    cursor.bytes(size as usize)
}
