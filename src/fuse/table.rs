//! The image's metadata in flat arrays, read-only once loaded, so that lookups take no lock.
//!
//! A node is an inode of the image or a mount point that was added. The kernel's node id is a node's index + 1, with
//! the root, which must be 1, and the first node exchanged.

use std::ops::Range;

use super::ServeError;
use super::wire::Attr;
use crate::squashfs::format::{BLOCK_STORED, NO_XATTR};
use crate::squashfs::read::{BlockPlace, Directory, Fragment, Inode, InodeKind, ReadError, Reader};

/// Most data blocks of all files together: 8 TiB in blocks of 128 KiB, and 1 GiB of memory.
const MAX_BLOCKS: usize = 1 << 26;
/// Most nodes, added ones included.
const MAX_NODES: u64 = u32::MAX as u64 - 1;

/// Kinds of file in a mode, sys/stat.h.
pub(super) mod kind {
    pub(in super::super) const MASK: u32 = 0o170_000;
    pub(in super::super) const FIFO: u32 = 0o010_000;
    pub(in super::super) const CHAR_DEVICE: u32 = 0o020_000;
    pub(in super::super) const DIRECTORY: u32 = 0o040_000;
    pub(in super::super) const BLOCK_DEVICE: u32 = 0o060_000;
    pub(in super::super) const FILE: u32 = 0o100_000;
    pub(in super::super) const SYMLINK: u32 = 0o120_000;
    pub(in super::super) const SOCKET: u32 = 0o140_000;
}

/// Index of a node.
pub(super) type Index = u32;

/// All metadata.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) nodes: Vec<Node>,
    /// Names of all directories; a directory's are next to each other and sorted by bytes.
    pub(super) entries: Vec<Entry>,
    pub(super) names: Vec<u8>,
    targets: Vec<u8>,
    blocks: Vec<BlockPlace>,
    fragments: Vec<Fragment>,
    root: Index,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    name_start: u32,
    name_bytes: u16,
    pub(super) node: Index,
}

/// An inode.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// As the image has it, not as it is shown.
    pub(super) mode: u32,
    pub(super) number: u32,
    pub(super) mtime: u32,
    pub(super) link_count: u32,
    /// [`NO_XATTR`] if none.
    pub(super) xattr: u32,
    pub(super) body: Body,
}

/// What only one kind of inode has.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Directory { entries: Span, parent: Option<Index> },
    File(File),
    Symlink { target: Span },
    Device { packed: u32 },
    Other,
}

/// A stretch of one of the table's arrays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) count: u32,
}

/// Where a file's bytes lie.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct File {
    pub(super) size_bytes: u64,
    blocks: Span,
    /// Index in the fragment table, and offset in the block; `None` without a tail of its own.
    fragment: Option<(u32, u32)>,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.count as usize
    }
}

impl Table {
    /// Reads all inodes and directories.
    pub(super) fn load(reader: &Reader, threads: usize) -> Result<Self, ServeError> {
        let tables = reader.tables(threads)?;
        let mut table = Self { fragments: reader.fragments()?, ..Self::default() };
        let mut references = Vec::new();
        let mut directories = Vec::new();
        tables.for_each_inode(|reference, inode| {
            if let InodeKind::Directory(directory) = &inode.kind {
                directories.push((to_u32(table.nodes.len())?, directory.clone()));
            }
            references.push(reference);
            let node = table.node_of(inode)?;
            table.nodes.push(node);
            Ok(())
        })?;
        let find =
            |reference: &u64| references.binary_search(reference).ok().and_then(|at| u32::try_from(at).ok());
        let superblock = reader.superblock();
        table.root = find(&superblock.root_inode)
            .ok_or(ServeError::Tree { what: "its root is not in the inode table" })?;
        let listed: u64 = directories.iter().map(|(_, directory)| u64::from(directory.listing_bytes)).sum();
        if listed > tables.directory_bytes() {
            return Err(ServeError::Tree { what: "directories share their listings" });
        }
        for (index, directory) in &directories {
            table.add_entries(
                *index,
                directory,
                |directory, visit| tables.for_each_entry(directory, visit),
                find,
            )?;
        }
        table.find_parents()?;
        Ok(table)
    }

    fn node_of(&mut self, inode: Inode) -> Result<Node, ReadError> {
        let device = |major: u32, minor: u32| (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        let (kind, body) = match inode.kind {
            InodeKind::Directory(_) => {
                (kind::DIRECTORY, Body::Directory { entries: Span::default(), parent: None })
            }
            InodeKind::File(data) => {
                let start = self.blocks.len();
                if start + data.block_sizes.len() > MAX_BLOCKS {
                    let (value, limit) = ((start + data.block_sizes.len()) as u64, MAX_BLOCKS as u64);
                    return Err(ReadError::TooLarge { what: "data blocks of the image", value, limit });
                }
                let mut offset = data.start;
                for size_word in data.block_sizes {
                    self.blocks.push(BlockPlace { offset, size_word });
                    offset = offset.saturating_add(u64::from(size_word & !BLOCK_STORED));
                }
                let blocks = Span { start: to_u32(start)?, count: to_u32(self.blocks.len() - start)? };
                let fragment = data.fragment.map(|fragment| (fragment.index, fragment.offset));
                (kind::FILE, Body::File(File { size_bytes: data.size_bytes, blocks, fragment }))
            }
            InodeKind::Symlink(target) => {
                let span = Span { start: to_u32(self.targets.len())?, count: to_u32(target.len())? };
                self.targets.extend_from_slice(&target);
                (kind::SYMLINK, Body::Symlink { target: span })
            }
            InodeKind::CharDevice { major, minor } => {
                (kind::CHAR_DEVICE, Body::Device { packed: device(major, minor) })
            }
            InodeKind::BlockDevice { major, minor } => {
                (kind::BLOCK_DEVICE, Body::Device { packed: device(major, minor) })
            }
            InodeKind::Fifo => (kind::FIFO, Body::Other),
            InodeKind::Socket => (kind::SOCKET, Body::Other),
        };
        Ok(Node {
            mode: kind | u32::from(inode.mode),
            number: inode.number,
            mtime: inode.mtime,
            link_count: inode.link_count,
            xattr: inode.xattr.unwrap_or(NO_XATTR),
            body,
        })
    }

    fn add_entries(
        &mut self,
        index: Index,
        directory: &Directory,
        walk: impl FnOnce(&Directory, &mut dyn FnMut(&[u8], u64)) -> Result<(), ReadError>,
        find: impl Fn(&u64) -> Option<u32>,
    ) -> Result<(), ServeError> {
        let start = self.entries.len();
        let mut lost = false;
        let (entries, names) = (&mut self.entries, &mut self.names);
        walk(directory, &mut |name, reference| {
            let (name_start, node) = (u32::try_from(names.len()), find(&reference));
            let (Ok(name_start), Some(node), Ok(name_bytes)) = (name_start, node, u16::try_from(name.len()))
            else {
                lost = true;
                return;
            };
            names.extend_from_slice(name);
            entries.push(Entry { name_start, name_bytes, node });
        })?;
        if lost {
            return Err(ServeError::Tree {
                what: "a directory names an inode that is not in the inode table",
            });
        }
        self.set_entries(index, start)
    }

    /// Sorts the entries from `start` on and makes them those of a directory.
    pub(super) fn set_entries(&mut self, index: Index, start: usize) -> Result<(), ServeError> {
        let names = &self.names;
        let added = &mut self.entries[start..];
        if !added.is_sorted_by_key(|entry| entry.name(names)) {
            added.sort_by_key(|entry| entry.name(names));
        }
        let span = Span { start: to_u32(start)?, count: to_u32(added.len())? };
        if let Some(Node { body: Body::Directory { entries, .. }, .. }) = self.nodes.get_mut(index as usize) {
            *entries = span;
        }
        Ok(())
    }

    /// Gives each directory the one above it. A directory with two places would be a loop, or one in the making.
    fn find_parents(&mut self) -> Result<(), ServeError> {
        for above in 0..to_u32(self.nodes.len())? {
            let Some(entries) = self.entries_of(above) else { continue };
            for at in entries {
                let child = self.entries[at].node;
                if child == self.root {
                    return Err(ServeError::Tree { what: "a directory holds the root" });
                }
                if let Some(Node { body: Body::Directory { parent, .. }, .. }) =
                    self.nodes.get_mut(child as usize)
                    && parent.replace(above).is_some()
                {
                    return Err(ServeError::Tree { what: "a directory has two places" });
                }
            }
        }
        Ok(())
    }

    fn entries_of(&self, index: Index) -> Option<Range<usize>> {
        match self.nodes.get(index as usize)?.body {
            Body::Directory { entries, .. } => Some(entries.range()),
            _ => None,
        }
    }

    /// The root directory's index.
    pub(super) fn root(&self) -> Index {
        self.root
    }

    /// The kernel's id of a node.
    pub(super) fn id_of(&self, index: Index) -> u64 {
        u64::from(self.exchange_root(index)) + 1
    }

    /// The node of a kernel's id, if there is one.
    pub(super) fn by_id(&self, id: u64) -> Option<(Index, &Node)> {
        let index = self.exchange_root(u32::try_from(id.checked_sub(1)?).ok()?);
        Some((index, self.nodes.get(index as usize)?))
    }

    fn exchange_root(&self, index: Index) -> Index {
        match index {
            0 => self.root,
            index if index == self.root => 0,
            index => index,
        }
    }

    /// The names of a directory; none of anything else.
    pub(super) fn entries(&self, node: &Node) -> &[Entry] {
        match node.body {
            Body::Directory { entries, .. } => self.entries.get(entries.range()).unwrap_or_default(),
            _ => &[],
        }
    }

    /// The name of an entry.
    pub(super) fn name(&self, entry: &Entry) -> &[u8] {
        entry.name(&self.names)
    }

    /// The node under a name of a directory.
    pub(super) fn lookup(&self, directory: &Node, name: &[u8]) -> Option<Index> {
        let entries = self.entries(directory);
        let at = entries.binary_search_by(|entry| self.name(entry).cmp(name)).ok()?;
        Some(entries[at].node)
    }

    /// A link's target.
    pub(super) fn target(&self, node: &Node) -> Option<&[u8]> {
        match node.body {
            Body::Symlink { target } => self.targets.get(target.range()),
            _ => None,
        }
    }

    /// The place of block `index` of a file, if it has so many.
    pub(super) fn block(&self, file: &File, index: u64) -> Option<BlockPlace> {
        let index = usize::try_from(index).ok()?;
        self.blocks.get(file.blocks.range())?.get(index).copied()
    }

    /// The block that holds a file's tail, and where in it.
    pub(super) fn tail(&self, file: &File) -> Option<(Fragment, usize)> {
        let (index, offset) = file.fragment?;
        Some((*self.fragments.get(index as usize)?, offset as usize))
    }

    /// What the kernel is told about a node.
    pub(super) fn attr(&self, node: &Node, uid: u32, gid: u32) -> Attr {
        let (size_bytes, device) = match &node.body {
            // An entry of a directory counts 32 bytes, roughly what file systems on disk show.
            Body::Directory { entries, .. } => (u64::from(entries.count) * 32, 0),
            Body::File(file) => (file.size_bytes, 0),
            Body::Symlink { target } => (u64::from(target.count), 0),
            Body::Device { packed } => (0, *packed),
            Body::Other => (0, 0),
        };
        Attr {
            number: u64::from(node.number),
            size_bytes,
            mtime: node.mtime,
            mode: shown_mode(node.mode),
            link_count: node.link_count,
            uid,
            gid,
            device,
        }
    }
}

/// The mode as it is shown. Files of an image belong to many users, and here all to one, who is to them what root is in
/// Docker: root reads every file, enters every directory and executes what anyone may execute. The kernel checks modes
/// (`default_permissions`) against that one owner, so the owner's bits must say the same.
fn shown_mode(mode: u32) -> u32 {
    const OWNER_READS: u32 = 0o400;
    const OWNER_EXECUTES: u32 = 0o100;
    const ANYONE_EXECUTES: u32 = 0o111;
    match mode & kind::MASK {
        kind::DIRECTORY => mode | OWNER_READS | OWNER_EXECUTES,
        kind::FILE if mode & ANYONE_EXECUTES != 0 => mode | OWNER_READS | OWNER_EXECUTES,
        kind::SYMLINK => mode | 0o777,
        _ => mode | OWNER_READS,
    }
}

impl Entry {
    pub(super) fn new(name_start: usize, name_bytes: usize, node: Index) -> Option<Self> {
        let (name_start, name_bytes) = (u32::try_from(name_start).ok()?, u16::try_from(name_bytes).ok()?);
        Some(Self { name_start, name_bytes, node })
    }

    fn name<'a>(&self, names: &'a [u8]) -> &'a [u8] {
        let start = self.name_start as usize;
        names.get(start..start + usize::from(self.name_bytes)).unwrap_or_default()
    }
}

pub(super) fn to_u32(count: usize) -> Result<u32, ReadError> {
    let what = "entries of an image's tables";
    u32::try_from(count).map_err(|_| ReadError::TooLarge { what, value: count as u64, limit: MAX_NODES })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_see_what_root_would() {
        let check = |stored: u32, shown: u32| assert_eq!(shown_mode(stored), shown, "{stored:o}");
        check(0o100_000, 0o100_400);
        check(0o100_600, 0o100_600);
        check(0o100_644, 0o100_644);
        check(0o100_010, 0o100_510);
        check(0o104_711, 0o104_711);
        check(0o040_000, 0o040_500);
        check(0o041_777, 0o041_777);
        check(0o120_000, 0o120_777);
    }
}
