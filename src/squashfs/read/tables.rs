//! All inodes and directories at once, for who serves the whole image.

use std::ops::ControlFlow;

use super::error::ReadError;
use super::inode::{Directory, Inode};
use super::metadata::{Cursor, Place, preload};
use super::{Reader, Shared, inode};
use crate::squashfs::format::NO_TABLE;

/// The inode and directory tables, decompressed. They leave the memory when this is dropped.
#[derive(Debug)]
pub struct Tables<'a> {
    reader: &'a Reader,
    directory_bytes: u64,
}

impl Drop for Tables<'_> {
    fn drop(&mut self) {
        self.reader.shared.metadata.clear();
    }
}

impl Reader {
    /// Decompresses all inodes and directories, on `threads` threads.
    pub fn tables(&self, threads: usize) -> Result<Tables<'_>, ReadError> {
        let shared = &self.shared;
        shared.metadata.clear();
        // Made first, so that what a failing half has loaded goes again.
        let mut tables = Tables { reader: self, directory_bytes: 0 };
        preload(shared, shared.inode_chain(), shared.superblock.inode_table, threads)?;
        let mut directories = shared.directory_chain();
        directories.end = directory_end(shared)?;
        let start = shared.superblock.directory_table;
        tables.directory_bytes = preload(shared, directories, start, threads)?;
        Ok(tables)
    }
}

impl Tables<'_> {
    /// Bytes of all listings together: no image that is sound lists more.
    #[must_use]
    pub fn directory_bytes(&self) -> u64 {
        self.directory_bytes
    }

    /// Calls `visit` with every inode and its reference, in the table's order: references ascend.
    pub fn for_each_inode(
        &self,
        mut visit: impl FnMut(u64, Inode) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let shared = &self.reader.shared;
        let table = shared.superblock.inode_table;
        let mut cursor = Cursor::new(shared, shared.inode_chain(), Place { block: table, offset: 0 })?;
        for _ in 0..shared.superblock.inode_count {
            if cursor.at_end() {
                break;
            }
            cursor.settle()?;
            let reference = cursor.place().to_reference(table);
            visit(reference, inode::parse(shared, &mut cursor)?)?;
        }
        Ok(())
    }

    /// Calls `visit` with every name in a directory and the reference of its inode, in the image's order.
    pub fn for_each_entry(
        &self,
        directory: &Directory,
        mut visit: impl FnMut(&[u8], u64),
    ) -> Result<(), ReadError> {
        self.reader.walk(directory, None, |found| {
            visit(found.name, found.reference);
            ControlFlow::Continue(())
        })
    }
}

/// Where the directory table ends: at the first block of whatever table follows. The superblock does not say it.
fn directory_end(shared: &Shared) -> Result<u64, ReadError> {
    let superblock = &shared.superblock;
    let start = superblock.directory_table;
    let mut end = superblock.bytes_used;
    let lists = [
        (superblock.fragment_table, superblock.fragment_count > 0),
        (superblock.export_table, superblock.export_table != NO_TABLE),
        (superblock.id_table, true),
        (superblock.xattr_table, superblock.xattr_table != NO_TABLE),
    ];
    for (list, _) in lists.into_iter().filter(|(_, present)| *present) {
        // A list's blocks lie before the list, but a table may be anywhere in a file made by another hand.
        for candidate in [list, shared.block_of_list("directory table", list, 0)?] {
            if candidate >= start {
                end = end.min(candidate);
            }
        }
    }
    Ok(end)
}
