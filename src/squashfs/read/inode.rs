//! Inodes: fourteen layouts on disk, one type in memory.

use super::error::ReadError;
use super::metadata::{Cursor, Place};
use super::{Reader, Shared};
use crate::squashfs::format::limits::{MAX_FILE_BLOCKS, MAX_TARGET_BYTES};
use crate::squashfs::format::{NO_FRAGMENT, NO_XATTR, inode_type};

/// Bytes of a directory's listing that count as `.` and `..` in its size and are not in the table.
const DOT_ENTRIES_BYTES: u32 = 3;

/// One inode, parsed.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Number, from 1.
    pub number: u32,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Hard links.
    pub link_count: u32,
    /// Index of its extended attributes in the image's table.
    pub xattr: Option<u32>,
    /// What it is, with what only that kind has.
    pub kind: InodeKind,
}

/// The kinds of inode.
#[derive(Debug, Clone)]
pub enum InodeKind {
    /// Directory.
    Directory(Directory),
    /// Regular file.
    File(FileData),
    /// Symbolic link and its target.
    Symlink(Box<[u8]>),
    /// Character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

/// Where a directory's listing lies.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Bytes of the listing; 0 for an empty directory.
    pub listing_bytes: u32,
    /// Number of the inode of the directory above.
    pub parent: u32,
    pub(super) listing: Place,
    /// Where the index by names lies in the inode table, and how many entries it has.
    pub(super) index: Option<(Place, u16)>,
}

/// Where a regular file's bytes lie.
#[derive(Debug, Clone)]
pub struct FileData {
    /// Length in bytes.
    pub size_bytes: u64,
    /// File offset of the first data block.
    pub start: u64,
    /// Blocks of its own. A file without a fragment has its tail in the last.
    pub block_count: u64,
    /// Where the list of their sizes lies in the inode table.
    pub(super) block_list: Place,
    /// The tail that is shorter than a block, if it lies in a block that files share.
    pub fragment: Option<FileFragment>,
}

/// The place of a file's tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFragment {
    /// Index in the fragment table.
    pub index: u32,
    /// Offset in the decompressed fragment block, in bytes.
    pub offset: u32,
}

impl Inode {
    /// True for a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self.kind, InodeKind::File(_))
    }

    /// True for a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, InodeKind::Directory(_))
    }

    /// True for a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        matches!(self.kind, InodeKind::Symlink(_))
    }

    /// Length of a regular file or of a link's target, in bytes; 0 for the other kinds.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        match &self.kind {
            InodeKind::File(data) => data.size_bytes,
            InodeKind::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }
}

impl Reader {
    /// The inode at a reference, as directory entries and the superblock hold them.
    pub fn inode(&self, reference: u64) -> Result<Inode, ReadError> {
        let shared = &self.shared;
        let place = Place::from_reference(reference, shared.superblock.inode_table);
        parse(shared, &mut Cursor::new(shared, shared.inode_chain(), place)?)
    }

    /// The inode at a reference and the reference of the one behind it in the table, where a writer puts what lies in the
    /// same directory. `None` behind a file with so many blocks that passing by their list would take long; a reference
    /// behind the end is one that cannot be read.
    pub fn inode_and_next(&self, reference: u64) -> Result<(Inode, Option<u64>), ReadError> {
        /// Entries of a block list that are passed by: files of 512 MiB.
        const MAX_PASSED_BLOCKS: u64 = 4096;
        let shared = &self.shared;
        let place = Place::from_reference(reference, shared.superblock.inode_table);
        let mut cursor = Cursor::new(shared, shared.inode_chain(), place)?;
        let inode = parse(shared, &mut cursor)?;
        match &inode.kind {
            InodeKind::File(data) => match usize::try_from(data.block_count.min(MAX_PASSED_BLOCKS + 1)) {
                Ok(count) if data.block_count <= MAX_PASSED_BLOCKS => cursor.pass(count * 4)?,
                _ => return Ok((inode, None)),
            },
            InodeKind::Directory(Directory { index: Some((_, count)), .. }) => {
                for _ in 0..*count {
                    super::directory::index_entry(&mut cursor)?;
                }
            }
            _ => {}
        }
        let next = cursor.next_place().to_reference(shared.superblock.inode_table);
        Ok((inode, next))
    }

    /// The target of a symbolic link.
    pub fn read_link<'a>(&self, inode: &'a Inode) -> Result<&'a [u8], ReadError> {
        match &inode.kind {
            InodeKind::Symlink(target) => Ok(target),
            _ => Err(ReadError::WrongKind { number: inode.number, wanted: "symbolic link" }),
        }
    }
}

/// Parses the inode under the cursor.
pub(super) fn parse(shared: &Shared, cursor: &mut Cursor<'_>) -> Result<Inode, ReadError> {
    let kind = cursor.u16()?;
    let mode = cursor.u16()? & 0o7777;
    let owner = |index: u16| shared.ids.get(usize::from(index)).copied();
    let (uid, gid) = (owner(cursor.u16()?), owner(cursor.u16()?));
    let (Some(uid), Some(gid)) = (uid, gid) else {
        return Err(cursor.damaged("holds an inode with an owner that is not in the id table"));
    };
    let mtime = cursor.u32()?;
    let number = cursor.u32()?;
    if number == 0 {
        return Err(cursor.damaged("holds an inode with the number 0"));
    }
    let extended = kind > inode_type::EXTENDED;
    let basic = if extended { kind - inode_type::EXTENDED } else { kind };
    let (kind, link_count, xattr) = match basic {
        inode_type::DIRECTORY => directory(shared, cursor, extended)?,
        inode_type::FILE => file(shared, cursor, extended)?,
        inode_type::SYMLINK => symlink(cursor, extended)?,
        inode_type::BLOCK_DEVICE | inode_type::CHAR_DEVICE => device(cursor, basic, extended)?,
        inode_type::FIFO | inode_type::SOCKET => {
            let link_count = cursor.u32()?;
            let kind = if basic == inode_type::FIFO { InodeKind::Fifo } else { InodeKind::Socket };
            (kind, link_count, xattr_index(cursor, extended)?)
        }
        _ => return Err(cursor.damaged("holds an inode of an unknown kind")),
    };
    Ok(Inode { number, mode, uid, gid, mtime, link_count, xattr, kind })
}

type Body = (InodeKind, u32, Option<u32>);

fn xattr_index(cursor: &mut Cursor<'_>, extended: bool) -> Result<Option<u32>, ReadError> {
    if !extended {
        return Ok(None);
    }
    Ok(Some(cursor.u32()?).filter(|index| *index != NO_XATTR))
}

fn directory(shared: &Shared, cursor: &mut Cursor<'_>, extended: bool) -> Result<Body, ReadError> {
    let (start, link_count, size, offset, parent, index_count, xattr);
    if extended {
        link_count = cursor.u32()?;
        size = cursor.u32()?;
        start = cursor.u32()?;
        parent = cursor.u32()?;
        index_count = cursor.u16()?;
        offset = cursor.u16()?;
        xattr = xattr_index(cursor, true)?;
    } else {
        start = cursor.u32()?;
        link_count = cursor.u32()?;
        size = u32::from(cursor.u16()?);
        offset = cursor.u16()?;
        parent = cursor.u32()?;
        index_count = 0;
        xattr = None;
    }
    let index = (index_count > 0).then(|| (cursor.place(), index_count));
    let listing = Place {
        block: shared.superblock.directory_table.saturating_add(start.into()),
        offset: usize::from(offset),
    };
    let listing_bytes = size.saturating_sub(DOT_ENTRIES_BYTES);
    Ok((InodeKind::Directory(Directory { listing_bytes, parent, listing, index }), link_count, xattr))
}

fn file(shared: &Shared, cursor: &mut Cursor<'_>, extended: bool) -> Result<Body, ReadError> {
    let (start, size_bytes, link_count, fragment, offset, xattr);
    if extended {
        start = cursor.u64()?;
        size_bytes = cursor.u64()?;
        let _bytes_in_holes = cursor.u64()?;
        link_count = cursor.u32()?;
        fragment = cursor.u32()?;
        offset = cursor.u32()?;
        xattr = xattr_index(cursor, true)?;
    } else {
        start = u64::from(cursor.u32()?);
        fragment = cursor.u32()?;
        offset = cursor.u32()?;
        size_bytes = u64::from(cursor.u32()?);
        link_count = 1;
        xattr = None;
    }
    let block_bytes = u64::from(shared.superblock.block_bytes);
    let has_fragment = fragment != NO_FRAGMENT;
    if has_fragment && fragment >= shared.superblock.fragment_count {
        return Err(cursor.damaged("holds a file with a fragment that is not in the fragment table"));
    }
    let block_count = if has_fragment { size_bytes / block_bytes } else { size_bytes.div_ceil(block_bytes) };
    if block_count > MAX_FILE_BLOCKS {
        return Err(ReadError::TooLarge {
            what: "blocks of one file",
            value: block_count,
            limit: MAX_FILE_BLOCKS,
        });
    }
    // The list is read when someone wants a block: the inode of a large file costs no more than that of a small one.
    let block_list = cursor.place();
    let fragment = has_fragment.then_some(FileFragment { index: fragment, offset });
    Ok((
        InodeKind::File(FileData { size_bytes, start, block_count, block_list, fragment }),
        link_count,
        xattr,
    ))
}

fn symlink(cursor: &mut Cursor<'_>, extended: bool) -> Result<Body, ReadError> {
    let link_count = cursor.u32()?;
    let size = cursor.u32()?;
    if size as usize > MAX_TARGET_BYTES {
        let (value, limit) = (size.into(), MAX_TARGET_BYTES as u64);
        return Err(ReadError::TooLarge { what: "bytes of a symbolic link's target", value, limit });
    }
    let target = cursor.bytes(size as usize)?;
    if target.is_empty() || target.contains(&0) {
        return Err(cursor.damaged("holds a symbolic link whose target is no path"));
    }
    Ok((InodeKind::Symlink(target.into()), link_count, xattr_index(cursor, extended)?))
}

fn device(cursor: &mut Cursor<'_>, basic: u16, extended: bool) -> Result<Body, ReadError> {
    let link_count = cursor.u32()?;
    let packed = cursor.u32()?;
    // Linux new_decode_dev(), include/linux/kdev_t.h: twelve bits of major between the minor's eight and twelve.
    let (major, minor) = ((packed & 0xf_ff00) >> 8, (packed & 0xff) | ((packed >> 12) & 0xf_ff00));
    let kind = if basic == inode_type::BLOCK_DEVICE {
        InodeKind::BlockDevice { major, minor }
    } else {
        InodeKind::CharDevice { major, minor }
    };
    Ok((kind, link_count, xattr_index(cursor, extended)?))
}
