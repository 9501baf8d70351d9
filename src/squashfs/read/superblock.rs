//! The first 96 bytes, checked.

use super::error::ReadError;
use crate::squashfs::compress::is_supported;
use crate::squashfs::format::{MAGIC, NO_TABLE, SUPERBLOCK_BYTES, Superblock};

/// The smallest and the largest data block that the format allows, in bytes.
const BLOCK_BYTES_RANGE: std::ops::RangeInclusive<u32> = 4096..=1 << 20;

/// Parses a superblock and checks that its numbers can be those of a file of `have_bytes`.
pub(super) fn parse(bytes: &[u8; SUPERBLOCK_BYTES], have_bytes: u64) -> Result<Superblock, ReadError> {
    let mut rest = bytes.as_slice();
    let magic = take_u32(&mut rest);
    if magic != MAGIC {
        return Err(if magic == MAGIC.swap_bytes() {
            ReadError::BigEndian
        } else {
            ReadError::NotSquashfs { found: magic.to_le_bytes() }
        });
    }
    let inode_count = take_u32(&mut rest);
    let mtime = take_u32(&mut rest);
    let block_bytes = take_u32(&mut rest);
    let fragment_count = take_u32(&mut rest);
    let compressor_id = take_u16(&mut rest);
    let block_log = take_u16(&mut rest);
    let flags = take_u16(&mut rest);
    let id_count = take_u16(&mut rest);
    let (major, minor) = (take_u16(&mut rest), take_u16(&mut rest));
    let superblock = Superblock {
        inode_count,
        mtime,
        block_bytes,
        fragment_count,
        compressor_id,
        flags,
        id_count,
        root_inode: take_u64(&mut rest),
        bytes_used: take_u64(&mut rest),
        id_table: take_u64(&mut rest),
        xattr_table: take_u64(&mut rest),
        inode_table: take_u64(&mut rest),
        directory_table: take_u64(&mut rest),
        fragment_table: take_u64(&mut rest),
        export_table: take_u64(&mut rest),
    };
    if (major, minor) != (4, 0) {
        return Err(ReadError::Version { major, minor });
    }
    if !is_supported(compressor_id) {
        return Err(ReadError::Compressor { id: compressor_id });
    }
    check(&superblock, block_log, have_bytes)?;
    Ok(superblock)
}

fn check(superblock: &Superblock, block_log: u16, have_bytes: u64) -> Result<(), ReadError> {
    let refuse = |field, value, reason| Err(ReadError::Superblock { field, value, reason });
    let block_bytes = superblock.block_bytes;
    if !BLOCK_BYTES_RANGE.contains(&block_bytes) || !block_bytes.is_power_of_two() {
        return refuse("block size", block_bytes.into(), "which is no power of two from 4 KiB to 1 MiB");
    }
    if block_bytes.trailing_zeros() != u32::from(block_log) {
        return refuse("block log", block_log.into(), "which contradicts the block size");
    }
    let end = superblock.bytes_used;
    if end > have_bytes {
        return Err(ReadError::CutShort { have_bytes, need_bytes: end });
    }
    if superblock.inode_table < SUPERBLOCK_BYTES as u64
        || superblock.inode_table >= superblock.directory_table
    {
        return refuse(
            "inode table",
            superblock.inode_table,
            "which is not between superblock and directories",
        );
    }
    for (field, value, optional) in [
        ("directory table", superblock.directory_table, false),
        ("id table", superblock.id_table, false),
        ("fragment table", superblock.fragment_table, superblock.fragment_count == 0),
        ("xattr table", superblock.xattr_table, superblock.xattr_table == NO_TABLE),
    ] {
        if value >= end && !optional {
            return refuse(field, value, "which is behind the end");
        }
    }
    if superblock.id_count == 0 {
        return refuse("id count", 0, "but every inode has an owner");
    }
    if superblock.inode_count == 0 {
        return refuse("inode count", 0, "but the root is one");
    }
    Ok(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_first_chunk().expect("the fields of a superblock are 96 bytes together");
    *rest = tail;
    *head
}

fn take_u16(rest: &mut &[u8]) -> u16 {
    u16::from_le_bytes(take(rest))
}

fn take_u32(rest: &mut &[u8]) -> u32 {
    u32::from_le_bytes(take(rest))
}

fn take_u64(rest: &mut &[u8]) -> u64 {
    u64::from_le_bytes(take(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            inode_count: 5,
            mtime: 7,
            block_bytes: 131_072,
            fragment_count: 1,
            compressor_id: 6,
            flags: 0,
            id_count: 1,
            root_inode: 32,
            bytes_used: 1000,
            id_table: 900,
            xattr_table: NO_TABLE,
            inode_table: 200,
            directory_table: 300,
            fragment_table: 400,
            export_table: NO_TABLE,
        }
    }

    #[test]
    fn reads_what_the_writer_writes() {
        assert_eq!(parse(&sample().to_bytes(), 4096).unwrap(), sample());
    }

    #[test]
    fn refuses_by_name() {
        let check = |change: &dyn Fn(&mut Superblock), expected: &str| {
            let mut superblock = sample();
            change(&mut superblock);
            assert_eq!(parse(&superblock.to_bytes(), 1000).unwrap_err().to_string(), expected);
        };
        check(&|s| s.bytes_used = 1001, "the file is cut short: it has 1000 bytes and needs 1001");
        check(
            &|s| s.compressor_id = 77,
            "the squashfs names a compressor 77; only those from 1 (gzip) to 6 (zstd) are known",
        );
        check(
            &|s| s.block_bytes = 2048,
            "the squashfs is damaged: its superblock says block size = 2048, which is no power of two from 4 KiB to 1 MiB",
        );
        check(
            &|s| s.fragment_table = 1000,
            "the squashfs is damaged: its superblock says fragment table = 1000, which is behind the end",
        );
        check(
            &|s| s.directory_table = 100,
            "the squashfs is damaged: its superblock says inode table = 200, which is not between superblock and directories",
        );
    }

    #[test]
    fn refuses_foreign_files() {
        let check = |at: usize, value: &[u8], expected: &str| {
            let mut bytes = sample().to_bytes();
            bytes[at..at + value.len()].copy_from_slice(value);
            assert_eq!(parse(&bytes, 1000).unwrap_err().to_string(), expected);
        };
        check(0, b"sqsh", "the squashfs is big-endian (version 3 or older); only version 4.0 can be read");
        check(0, b"\x7fELF", "not a squashfs: it begins with the bytes [7f, 45, 4c, 46]");
        check(28, &[3, 0, 1, 0], "the squashfs has version 3.1; only version 4.0 can be read");
        check(
            22,
            &[16],
            "the squashfs is damaged: its superblock says block log = 16, which contradicts the block size",
        );
    }
}
