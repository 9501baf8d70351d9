//! The numbers of the format: superblock, metadata blocks, inode kinds, tables. Shared by writer and reader.

/// `hsqs`, little endian.
pub const MAGIC: u32 = 0x7371_7368;
/// Bytes of the superblock.
pub const SUPERBLOCK_BYTES: usize = 96;
/// Uncompressed bytes of a full metadata block.
pub const METADATA_BYTES: usize = 8192;
/// In a metadata block's 16-bit header: stored, not compressed.
pub const METADATA_STORED: u16 = 0x8000;
/// In a data block's 32-bit size: stored, not compressed. A size of 0 is a hole.
pub const BLOCK_STORED: u32 = 1 << 24;
/// Data block size that we write: the largest read that the kernel sends to a FUSE server in a user namespace.
pub const BLOCK_BYTES: u32 = 128 * 1024;
/// Fragment index of an inode without a fragment; also "no table" in 64-bit table offsets when all ones.
pub const NO_FRAGMENT: u32 = u32::MAX;
/// Table offset of a table that is absent.
pub const NO_TABLE: u64 = u64::MAX;
/// xattr index of an inode without extended attributes.
pub const NO_XATTR: u32 = u32::MAX;

/// Inode types as they stand on disk. The extended kind of a basic one is the basic one + 7.
#[expect(missing_docs, reason = "the names say it")]
pub mod inode_type {
    pub const DIRECTORY: u16 = 1;
    pub const FILE: u16 = 2;
    pub const SYMLINK: u16 = 3;
    pub const BLOCK_DEVICE: u16 = 4;
    pub const CHAR_DEVICE: u16 = 5;
    pub const FIFO: u16 = 6;
    pub const SOCKET: u16 = 7;
    pub const EXTENDED: u16 = 7;
}

/// Superblock flags.
#[expect(missing_docs, reason = "the names say it")]
pub mod flags {
    pub const UNCOMPRESSED_INODES: u16 = 0x0001;
    pub const UNCOMPRESSED_DATA: u16 = 0x0002;
    pub const UNCOMPRESSED_FRAGMENTS: u16 = 0x0008;
    pub const NO_FRAGMENTS: u16 = 0x0010;
    pub const ALWAYS_FRAGMENTS: u16 = 0x0020;
    pub const DUPLICATES: u16 = 0x0040;
    pub const EXPORTABLE: u16 = 0x0080;
    pub const UNCOMPRESSED_XATTRS: u16 = 0x0100;
    pub const NO_XATTRS: u16 = 0x0200;
    pub const COMPRESSOR_OPTIONS: u16 = 0x0400;
    pub const UNCOMPRESSED_IDS: u16 = 0x0800;
}

/// The superblock's fields, in file order after the magic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Number of inodes.
    pub inode_count: u32,
    /// Time of making, seconds since 1970.
    pub mtime: u32,
    /// Data block size in bytes, a power of two from 4 KiB to 1 MiB.
    pub block_bytes: u32,
    /// Entries of the fragment table.
    pub fragment_count: u32,
    /// 1 gzip, 2 lzma, 3 lzo, 4 xz, 5 lz4, 6 zstd.
    pub compressor_id: u16,
    /// [`flags`].
    pub flags: u16,
    /// Entries of the id table.
    pub id_count: u16,
    /// Where the root inode lies: metadata block offset from the inode table shifted left by 16, and offset inside.
    pub root_inode: u64,
    /// Bytes of the whole image, before padding.
    pub bytes_used: u64,
    /// Offsets of the tables from the start of the image.
    pub id_table: u64,
    /// As above; [`NO_TABLE`] if absent.
    pub xattr_table: u64,
    /// As above.
    pub inode_table: u64,
    /// As above.
    pub directory_table: u64,
    /// As above; [`NO_TABLE`] if absent.
    pub fragment_table: u64,
    /// As above; [`NO_TABLE`] if absent.
    pub export_table: u64,
}

impl Superblock {
    /// The 96 bytes on disk, version 4.0.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut out = Vec::with_capacity(SUPERBLOCK_BYTES);
        for word in [MAGIC, self.inode_count, self.mtime, self.block_bytes, self.fragment_count] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let block_log = self.block_bytes.trailing_zeros().try_into().unwrap_or(u16::MAX);
        for half in [self.compressor_id, block_log, self.flags, self.id_count, 4, 0] {
            out.extend_from_slice(&half.to_le_bytes());
        }
        for long in [
            self.root_inode,
            self.bytes_used,
            self.id_table,
            self.xattr_table,
            self.inode_table,
            self.directory_table,
            self.fragment_table,
            self.export_table,
        ] {
            out.extend_from_slice(&long.to_le_bytes());
        }
        out.try_into().expect("five words, six halves and eight longs are 96 bytes")
    }
}

/// What we neither write nor read, so that a hostile image cannot ask for more memory than an honest one needs. Writer and
/// reader share them, or an image could be made that cannot be run; the numbers are what a server may spend.
pub mod limits {
    use crate::base::limits;

    /// Longest name in a directory, in bytes. The format itself allows 256.
    pub const MAX_NAME_BYTES: usize = limits::NAME_BYTES;
    /// Longest target of a symbolic link, in bytes; the kernel refuses more than a page.
    pub const MAX_TARGET_BYTES: usize = limits::PATH_BYTES;
    /// Most data blocks of one file: 512 GiB in blocks of 128 KiB, whose places take 64 MiB of memory.
    pub const MAX_FILE_BLOCKS: u64 = 1 << 22;
    /// Most bytes of one directory's listing: some three million names.
    pub const MAX_LISTING_BYTES: u32 = 64 << 20;
    /// Most extended attributes of one inode.
    pub const MAX_XATTRS: usize = 4096;
    /// Most bytes of all extended attributes of one inode.
    pub const MAX_XATTR_SET_BYTES: usize = 4 << 20;
    /// Longest name of an extended attribute with its prefix, in bytes.
    pub const MAX_XATTR_NAME_BYTES: usize = limits::XATTR_NAME_BYTES;
    /// Longest value of an extended attribute, in bytes.
    pub const MAX_XATTR_VALUE_BYTES: usize = limits::XATTR_VALUE_BYTES;
}
