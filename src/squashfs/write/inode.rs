//! The bytes of inodes. Each kind has a basic form, and an extended one for what the basic form cannot hold.

use super::content::FilePlace;
use super::directory::{DOT_BYTES, Listing};
use crate::squashfs::format::{NO_XATTR, inode_type};

/// What all inodes start with, and what extended ones add.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common {
    pub(super) mode: u16,
    /// Indices in the id table.
    pub(super) uid_index: u16,
    pub(super) gid_index: u16,
    pub(super) mtime: u32,
    pub(super) number: u32,
    pub(super) links: u32,
    /// Number of a set of extended attributes, or [`NO_XATTR`].
    pub(super) xattr: u32,
}

impl Common {
    fn put_head(&self, bytes: &mut Vec<u8>, kind: u16) {
        for half in [kind, self.mode & 0o7777, self.uid_index, self.gid_index] {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        put_words(bytes, &[self.mtime, self.number]);
    }

    fn kind(&self, basic: u16) -> u16 {
        if self.xattr == NO_XATTR { basic } else { basic + inode_type::EXTENDED }
    }

    fn put_xattr(&self, bytes: &mut Vec<u8>) {
        if self.xattr != NO_XATTR {
            put_words(bytes, &[self.xattr]);
        }
    }
}

/// A regular file with the sizes of its blocks.
pub(super) fn put_file(bytes: &mut Vec<u8>, common: &Common, file: &FilePlace, blocks: &[u32]) {
    let basic = u32::try_from(file.start).ok().zip(u32::try_from(file.size_bytes).ok());
    match basic {
        Some((start, size)) if common.links == 1 && common.xattr == NO_XATTR && file.hole_bytes == 0 => {
            common.put_head(bytes, inode_type::FILE);
            put_words(bytes, &[start, file.fragment, file.fragment_offset, size]);
        }
        _ => {
            common.put_head(bytes, inode_type::FILE + inode_type::EXTENDED);
            for long in [file.start, file.size_bytes, file.hole_bytes] {
                bytes.extend_from_slice(&long.to_le_bytes());
            }
            put_words(bytes, &[common.links, file.fragment, file.fragment_offset, common.xattr]);
        }
    }
    put_words(bytes, blocks);
}

/// A directory.
pub(super) fn put_directory(bytes: &mut Vec<u8>, common: &Common, parent: u32, listing: &Listing<'_>) {
    let size = listing.size_bytes + DOT_BYTES;
    let place = listing.place;
    match u16::try_from(size) {
        Ok(short_size) if common.xattr == NO_XATTR && listing.index.is_empty() => {
            common.put_head(bytes, inode_type::DIRECTORY);
            put_words(bytes, &[place.block, common.links]);
            bytes.extend_from_slice(&short_size.to_le_bytes());
            bytes.extend_from_slice(&place.offset.to_le_bytes());
            put_words(bytes, &[parent]);
        }
        _ => {
            common.put_head(bytes, inode_type::DIRECTORY + inode_type::EXTENDED);
            put_words(bytes, &[common.links, size, place.block, parent]);
            let count =
                u16::try_from(listing.index.len()).expect("a listing has at most 32768 metadata blocks");
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend_from_slice(&place.offset.to_le_bytes());
            put_words(bytes, &[common.xattr]);
            for entry in &listing.index {
                let last = u32::try_from(entry.name.len() - 1).expect("names have 1 to 255 bytes");
                put_words(bytes, &[entry.offset_bytes, entry.block, last]);
                bytes.extend_from_slice(entry.name);
            }
        }
    }
}

/// A symbolic link.
pub(super) fn put_symlink(bytes: &mut Vec<u8>, common: &Common, target: &[u8]) {
    common.put_head(bytes, common.kind(inode_type::SYMLINK));
    let size = u32::try_from(target.len()).expect("targets are checked to be shorter than a page");
    put_words(bytes, &[common.links, size]);
    bytes.extend_from_slice(target);
    common.put_xattr(bytes);
}

/// A device; `kind` is the basic type.
pub(super) fn put_device(bytes: &mut Vec<u8>, common: &Common, kind: u16, number: u32) {
    common.put_head(bytes, common.kind(kind));
    put_words(bytes, &[common.links, number]);
    common.put_xattr(bytes);
}

/// A fifo or a socket; `kind` is the basic type.
pub(super) fn put_ipc(bytes: &mut Vec<u8>, common: &Common, kind: u16) {
    common.put_head(bytes, common.kind(kind));
    put_words(bytes, &[common.links]);
    common.put_xattr(bytes);
}

/// A device number as Linux packs it (`new_encode_dev`); `None` beyond 12 bits of major and 20 of minor.
pub(super) fn encode_device(major: u32, minor: u32) -> Option<u32> {
    let fits = major < 1 << 12 && minor < 1 << 20;
    fits.then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

fn put_words(bytes: &mut Vec<u8>, words: &[u32]) {
    bytes.reserve(words.len() * 4);
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_device_numbers_as_linux_does() {
        let check = |major, minor, expected| assert_eq!(encode_device(major, minor), expected);
        check(1, 3, Some(0x0103));
        check(195, 255, Some(0xc3ff));
        check(4095, 0xf_ffff, Some(0xffff_ffff));
        check(259, 0x12345, Some(0x1231_0345));
        check(4096, 0, None);
        check(0, 1 << 20, None);
    }
}
