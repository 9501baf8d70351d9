//! All tables of a finished tree, and the superblock that points at them.

use std::collections::HashMap;
use std::io::{Seek, Write};

use super::Options;
use super::content::{Content, Fragment};
use super::directory::{Entry, Listing, write_listing};
use super::error::WriteError;
use super::ids::IdTable;
use super::inode::{Common, encode_device, put_device, put_directory, put_file, put_ipc, put_symlink};
use super::metadata::{MetadataPlace, MetadataWriter, write_indexed_table};
use super::order::{Order, index, sorted_children};
use super::output::Output;
use super::xattrs::XattrTable;
use crate::base::tree::{NodeId, NodeKind, Tree};
use crate::squashfs::compress::Compressor;
use crate::squashfs::format::limits::{MAX_LISTING_BYTES, MAX_TARGET_BYTES};
use crate::squashfs::format::{BLOCK_BYTES, NO_TABLE, NO_XATTR, Superblock, flags, inode_type};

/// What the superblock says besides numbers and places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// Of the tables.
    pub(super) compressor: Compressor,
    /// Of the blocks, and of the tables unless they are stored as they are.
    pub(super) compressor_id: u16,
    /// Those that follow from neither tables nor attributes.
    pub(super) flags: u16,
    pub(super) block_bytes: u32,
    pub(super) mtime: u32,
}

impl From<&Options> for Form {
    fn from(options: &Options) -> Self {
        let compressor = options.compressor;
        Self {
            compressor,
            compressor_id: compressor.id(),
            flags: flags_of(compressor),
            block_bytes: BLOCK_BYTES,
            mtime: options.mtime,
        }
    }
}

/// Appends all tables and returns the superblock.
pub(super) fn write_tables<W: Write + Seek>(
    out: &mut Output<W>,
    content: &Content,
    tree: &Tree,
    form: &Form,
) -> Result<Superblock, WriteError> {
    let compressor = form.compressor;
    let mut tables = Tables {
        content,
        tree,
        order: Order::of(tree)?,
        inodes: MetadataWriter::new("inode", compressor)?,
        directories: MetadataWriter::new("directory", compressor)?,
        ids: IdTable::default(),
        xattrs: XattrTable::new(compressor)?,
        places: Vec::new(),
        listings: HashMap::new(),
        bytes: Vec::new(),
    };
    let root = tables.put_all()?;
    let Tables { order, inodes, directories, ids, xattrs, places, .. } = tables;

    let inode_table = out.position();
    inodes.finish(out)?;
    let directory_table = out.position();
    directories.finish(out)?;
    let fragments = content.fragments.iter().map(fragment_entry);
    let fragment_table = write_indexed_table(out, "fragment", compressor, fragments)?;
    let lookups = places.iter().map(|place| place.to_reference().to_le_bytes());
    let export_table = write_indexed_table(out, "export", compressor, lookups)?;
    let id_table = write_indexed_table(out, "id", compressor, ids.ids().iter().map(|id| id.to_le_bytes()))?;
    let xattr_table = xattrs.finish(out)?;

    let no_xattrs = if xattr_table.is_none() { flags::NO_XATTRS } else { 0 };
    Ok(Superblock {
        inode_count: order.inode_count,
        mtime: form.mtime,
        block_bytes: form.block_bytes,
        fragment_count: u32::try_from(content.fragments.len()).expect("fragments are numbered in 32 bits"),
        compressor_id: form.compressor_id,
        flags: flags::DUPLICATES | flags::EXPORTABLE | no_xattrs | form.flags,
        id_count: u16::try_from(ids.ids().len()).expect("ids are numbered in 16 bits"),
        root_inode: root.to_reference(),
        bytes_used: out.position(),
        id_table,
        xattr_table: xattr_table.unwrap_or(NO_TABLE),
        inode_table,
        directory_table,
        fragment_table,
        export_table,
    })
}

/// What an image says about its compressor, besides its number.
fn flags_of(compressor: Compressor) -> u16 {
    match compressor {
        Compressor::None => {
            flags::UNCOMPRESSED_INODES
                | flags::UNCOMPRESSED_DATA
                | flags::UNCOMPRESSED_FRAGMENTS
                | flags::UNCOMPRESSED_XATTRS
                | flags::UNCOMPRESSED_IDS
        }
        _ if compressor.options().is_some() => flags::COMPRESSOR_OPTIONS,
        _ => 0,
    }
}

/// The tables in the making.
struct Tables<'a> {
    content: &'a Content,
    tree: &'a Tree,
    order: Order,
    inodes: MetadataWriter,
    directories: MetadataWriter,
    ids: IdTable,
    xattrs: XattrTable,
    /// Where inodes are, by number - 1; they are written in the order of their numbers.
    places: Vec<MetadataPlace>,
    /// Listings whose directory has no inode yet.
    listings: HashMap<NodeId, Listing<'a>>,
    /// The inode being made.
    bytes: Vec<u8>,
}

impl<'a> Tables<'a> {
    /// Makes all inodes and listings; returns where the root is.
    fn put_all(&mut self) -> Result<MetadataPlace, WriteError> {
        let directories = std::mem::take(&mut self.order.directories);
        let mut entries = Vec::new();
        for &directory in &directories {
            entries.clear();
            for (name, child) in sorted_children(self.tree, directory) {
                entries.push(self.put_child(directory, name, child)?);
            }
            let Some(listing) = write_listing(&mut self.directories, &entries)? else {
                let path = self.order.path(self.tree, directory, b"");
                return Err(WriteError::DirectoryTooLarge { path, limit_bytes: MAX_LISTING_BYTES });
            };
            self.listings.insert(directory, listing);
        }
        self.put_inode(self.tree.root, b"", self.tree.root)
    }

    /// The entry of a child, whose inode is made if this is its first name.
    fn put_child(
        &mut self,
        directory: NodeId,
        name: &'a [u8],
        child: NodeId,
    ) -> Result<Entry<'a>, WriteError> {
        let number = self.order.numbers[index(child)];
        let known = usize::try_from(number).ok().and_then(|number| self.places.get(number - 1));
        let inode = match known {
            Some(&place) => place,
            None => self.put_inode(directory, name, child)?,
        };
        Ok(Entry { name, number, inode, kind: basic_type(&self.tree.nodes[index(child)].kind) })
    }

    fn put_inode(
        &mut self,
        directory: NodeId,
        name: &[u8],
        node_id: NodeId,
    ) -> Result<MetadataPlace, WriteError> {
        let (tree, content) = (self.tree, self.content);
        let node = &tree.nodes[index(node_id)];
        let path = |order: &Order| order.path(tree, directory, name);
        let xattr = match &node.xattrs {
            None => NO_XATTR,
            Some(xattrs) => self.xattrs.number_of(xattrs)?.map_err(|fault| WriteError::Xattr {
                path: path(&self.order),
                name: fault.name,
                reason: fault.reason,
            })?,
        };
        let common = Common {
            mode: node.mode,
            uid_index: self.ids.index_of(node.uid)?,
            gid_index: self.ids.index_of(node.gid)?,
            mtime: node.mtime,
            number: self.order.numbers[index(node_id)],
            links: self.order.links[index(node_id)],
            xattr,
        };
        let kind = basic_type(&node.kind);
        let bytes = &mut self.bytes;
        bytes.clear();
        match &node.kind {
            NodeKind::Directory(_) => {
                let listing = self.listings.remove(&node_id).expect("a listing is made before its inode");
                put_directory(bytes, &common, self.order.parent_number(tree, node_id), &listing);
            }
            NodeKind::File(file) => {
                let Some(place) = usize::try_from(file.0).ok().and_then(|file| content.files.get(file))
                else {
                    let (path, files) = (path(&self.order), content.files.len());
                    return Err(WriteError::UnknownFile { path, file: file.0, files });
                };
                put_file(bytes, &common, place, content.blocks_of(place));
            }
            NodeKind::Symlink(target) => {
                if let Some(reason) = fault_of_target(target) {
                    return Err(WriteError::Target { path: path(&self.order), reason });
                }
                put_symlink(bytes, &common, target);
            }
            &NodeKind::CharDevice { major, minor } | &NodeKind::BlockDevice { major, minor } => {
                let Some(number) = encode_device(major, minor) else {
                    return Err(WriteError::Device { path: path(&self.order), major, minor });
                };
                put_device(bytes, &common, kind, number);
            }
            NodeKind::Fifo | NodeKind::Socket => put_ipc(bytes, &common, kind),
        }
        let place = self.inodes.place()?;
        self.inodes.write(&self.bytes)?;
        self.places.push(place);
        Ok(place)
    }
}

fn basic_type(kind: &NodeKind) -> u16 {
    match kind {
        NodeKind::Directory(_) => inode_type::DIRECTORY,
        NodeKind::File(_) => inode_type::FILE,
        NodeKind::Symlink(_) => inode_type::SYMLINK,
        NodeKind::CharDevice { .. } => inode_type::CHAR_DEVICE,
        NodeKind::BlockDevice { .. } => inode_type::BLOCK_DEVICE,
        NodeKind::Fifo => inode_type::FIFO,
        NodeKind::Socket => inode_type::SOCKET,
    }
}

fn fault_of_target(target: &[u8]) -> Option<&'static str> {
    match target {
        b"" => Some("is empty"),
        _ if target.len() > MAX_TARGET_BYTES => Some("is longer than 4095 bytes"),
        _ if target.contains(&0) => Some("holds a NUL byte"),
        _ => None,
    }
}

fn fragment_entry(fragment: &Fragment) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[..8].copy_from_slice(&fragment.start.to_le_bytes());
    entry[8..12].copy_from_slice(&fragment.size_word.to_le_bytes());
    entry
}
