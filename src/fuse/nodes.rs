//! The kernel's node ids and what lies behind them.
//!
//! A node id is the place of an inode in the image's inode table, so nothing has to be loaded before the first request,
//! and nothing is kept for a node: a start from an image with 200,000 files costs what one with 20 costs. (Tried: flat
//! arrays of all metadata answer some microseconds faster, but take 50 ms of CPU to load for such an image.)
//!
//! | id | node |
//! |---|---|
//! | 1 | the root, as the kernel demands |
//! | 2 + reference | an inode of the image; references have 48 bits |
//! | 2^62 + n | a mount point that was added |

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::SyntheticKind;
use super::wire::Attr;
use crate::base::tree::Xattrs;
use crate::squashfs::format::inode_type;
use crate::squashfs::read::{
    BlockPlace, DirectoryEntry, FileData, Fragment, Inode, InodeKind, ReadError, Reader,
};

const ROOT: u64 = 1;
const FIRST_REFERENCE: u64 = 2;
const FIRST_ADDED: u64 = 1 << 62;

/// Most data blocks of which the places are kept, 16 MiB: files of 128 GiB together.
const MAX_KEPT_BLOCKS: usize = 1 << 20;
/// Most names of directories that are being listed that are kept.
const MAX_KEPT_NAMES: usize = 1 << 18;

/// Kinds of file in a mode, sys/stat.h.
pub(super) mod kind {
    pub(in super::super) const FIFO: u32 = 0o010_000;
    pub(in super::super) const CHAR_DEVICE: u32 = 0o020_000;
    pub(in super::super) const DIRECTORY: u32 = 0o040_000;
    pub(in super::super) const BLOCK_DEVICE: u32 = 0o060_000;
    pub(in super::super) const FILE: u32 = 0o100_000;
    pub(in super::super) const SYMLINK: u32 = 0o120_000;
    pub(in super::super) const SOCKET: u32 = 0o140_000;
}

/// All nodes of an image.
#[derive(Debug)]
pub(super) struct Nodes {
    reader: Reader,
    root_reference: u64,
    added: RwLock<AddedNodes>,
    files: Mutex<Kept<FileMap>>,
    listings: Mutex<Kept<Vec<DirectoryEntry>>>,
}

/// What is there beyond the image. It only grows.
#[derive(Debug, Default)]
struct AddedNodes {
    nodes: Vec<Added>,
    /// Names that directories have beyond the image's, by the directory's id.
    names: HashMap<u64, Vec<AddedName>>,
}

/// A mount point that the image lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) kind: SyntheticKind,
    pub(super) parent: u64,
}

/// Its name, and its id.
type AddedName = (Box<[u8]>, u64);

/// What lies behind an id.
#[derive(Debug)]
pub(super) enum Node {
    Image(Inode),
    Added(Added),
}

/// Where a file's bytes lie.
#[derive(Debug, Default)]
pub(super) struct FileMap {
    pub(super) size_bytes: u64,
    pub(super) blocks: Vec<BlockPlace>,
    /// The block that holds the tail, and where in it.
    pub(super) tail: Option<(Fragment, usize)>,
}

/// A regular file that was come by in the inode table.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileInTable {
    pub(super) id: u64,
    pub(super) size_bytes: u64,
    /// The reference behind it.
    pub(super) next: Option<u64>,
}

/// A name in a directory.
pub(super) struct Named<'a> {
    pub(super) name: &'a [u8],
    pub(super) number: u64,
    /// Kind as in a mode.
    pub(super) kind: u32,
    pub(super) id: u64,
}

/// Things that were made at some cost and will be asked for again. Dropped all at once when they are too many: each is
/// made again within a millisecond.
#[derive(Debug)]
struct Kept<T> {
    map: HashMap<u64, Arc<T>>,
    weight: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { map: HashMap::new(), weight: 0 }
    }
}

impl<T> Kept<T> {
    fn keep(&mut self, id: u64, thing: Arc<T>, weight: usize, limit: usize) {
        if self.weight + weight > limit {
            *self = Self::default();
        }
        if self.map.insert(id, thing).is_none() {
            self.weight += weight;
        }
    }

    fn forget(&mut self, id: u64, weight: usize) {
        if self.map.remove(&id).is_some() {
            self.weight = self.weight.saturating_sub(weight);
        }
    }
}

impl Nodes {
    /// The nodes of an image, with no mount point added yet.
    pub(super) fn new(reader: Reader) -> Result<Self, ReadError> {
        reader.root()?;
        Ok(Self {
            root_reference: reader.superblock().root_inode,
            reader,
            added: RwLock::default(),
            files: Mutex::default(),
            listings: Mutex::default(),
        })
    }

    /// The root's id.
    pub(super) fn root() -> u64 {
        ROOT
    }

    /// How many nodes there are.
    pub(super) fn count(&self) -> u64 {
        u64::from(self.reader.superblock().inode_count) + self.added_count() as u64
    }

    /// The node of an id that the kernel was told.
    pub(super) fn get(&self, id: u64) -> Result<Node, ReadError> {
        if let Some(added) = self.added_index(id) {
            return Ok(Node::Added(added));
        }
        let reference = if id == ROOT { self.root_reference } else { id.saturating_sub(FIRST_REFERENCE) };
        self.reader.inode(reference).map(Node::Image)
    }

    fn added_index(&self, id: u64) -> Option<Added> {
        let index = usize::try_from(id.checked_sub(FIRST_ADDED)?).ok()?;
        self.with_added(|added| added.nodes.get(index).copied())
    }

    fn with_added<T>(&self, look: impl FnOnce(&AddedNodes) -> T) -> T {
        look(&self.added.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many mount points, and directories above them, were added.
    pub(super) fn added_count(&self) -> usize {
        self.with_added(|added| added.nodes.len())
    }

    fn id_of(&self, reference: u64) -> u64 {
        if reference == self.root_reference { ROOT } else { reference + FIRST_REFERENCE }
    }

    /// The id under a name of a directory.
    pub(super) fn lookup(&self, id: u64, name: &[u8]) -> Result<Option<u64>, ReadError> {
        if let Node::Image(inode) = self.get(id)?
            && let Some(reference) = self.reader.lookup_reference(&inode, name)?
        {
            return Ok(Some(self.id_of(reference)));
        }
        Ok(self.with_added(|added| {
            let names = added.names.get(&id)?;
            names.iter().find(|(added, _)| **added == *name).map(|(_, id)| *id)
        }))
    }

    fn names_added_to(&self, id: u64) -> Vec<AddedName> {
        self.with_added(|added| added.names.get(&id).cloned().unwrap_or_default())
    }

    /// Adds a node to a directory that has no such name. Ids follow each other, so that a server and its spare that add
    /// the same nodes in the same order agree on them.
    pub(super) fn add(&self, parent: u64, name: &[u8], kind: SyntheticKind) -> u64 {
        let mut added = self.added.write().unwrap_or_else(PoisonError::into_inner);
        let id = FIRST_ADDED + added.nodes.len() as u64;
        added.nodes.push(Added { kind, parent });
        added.names.entry(parent).or_default().push((name.into(), id));
        id
    }

    /// Calls `visit` with the names of a directory, without `.` and `..`, from the `skip`th on, until it is false.
    pub(super) fn list(
        &self,
        id: u64,
        node: &Node,
        skip: usize,
        mut visit: impl FnMut(usize, &Named<'_>) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        let listing = match node {
            Node::Image(inode) => self.listing(id, inode, skip)?,
            Node::Added(_) => Arc::default(),
        };
        for (at, entry) in listing.iter().enumerate().skip(skip) {
            let named = Named {
                name: &entry.name,
                number: entry.number.into(),
                kind: kind_of(entry.kind),
                id: self.id_of(entry.reference),
            };
            if !visit(at, &named)? {
                // It goes on later: a large directory is not to be parsed again for each page of names.
                lock(&self.listings).keep(id, listing.clone(), listing.len(), MAX_KEPT_NAMES);
                return Ok(());
            }
        }
        lock(&self.listings).forget(id, listing.len());
        for (at, (name, added)) in
            (listing.len()..).zip(&self.names_added_to(id)).skip(skip.saturating_sub(listing.len()))
        {
            let node = Node::Added(
                self.added_index(*added).unwrap_or(Added { kind: SyntheticKind::File, parent: id }),
            );
            let named = Named {
                name,
                number: self.number(*added, &node),
                kind: mode_of(&node) & KIND_MASK,
                id: *added,
            };
            if !visit(at, &named)? {
                break;
            }
        }
        Ok(())
    }

    fn listing(&self, id: u64, inode: &Inode, skip: usize) -> Result<Arc<Vec<DirectoryEntry>>, ReadError> {
        if skip > 0
            && let Some(listing) = lock(&self.listings).map.get(&id)
        {
            return Ok(listing.clone());
        }
        self.reader.read_dir(inode).map(Arc::new)
    }

    /// The number that a process sees for a node.
    pub(super) fn number(&self, id: u64, node: &Node) -> u64 {
        match node {
            Node::Image(inode) => inode.number.into(),
            Node::Added(_) => {
                let highest = u64::from(self.reader.superblock().inode_count);
                highest + 1 + id.saturating_sub(FIRST_ADDED)
            }
        }
    }

    /// The number of the directory above a directory; `None` if the node is none.
    pub(super) fn parent_number(&self, node: &Node) -> Result<Option<u64>, ReadError> {
        match node {
            Node::Image(Inode { kind: InodeKind::Directory(directory), number, .. }) => {
                // The root's parent, as images have it, is a number that no inode has.
                let is_root = directory.parent > self.reader.superblock().inode_count;
                Ok(Some(u64::from(if is_root { *number } else { directory.parent })))
            }
            Node::Added(Added { kind: SyntheticKind::Directory, parent }) => {
                Ok(Some(self.number(*parent, &self.get(*parent)?)))
            }
            _ => Ok(None),
        }
    }

    /// What the kernel is told about a node.
    pub(super) fn attr(&self, id: u64, node: &Node, (uid, gid): (u32, u32)) -> Attr {
        let (size_bytes, mtime, link_count, device) = match node {
            Node::Image(inode) => {
                let size_bytes = match &inode.kind {
                    InodeKind::Directory(directory) => directory.listing_bytes.into(),
                    _ => inode.size_bytes(),
                };
                let device = match inode.kind {
                    InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor } => {
                        // new_encode_dev(), include/linux/kdev_t.h
                        (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
                    }
                    _ => 0,
                };
                (size_bytes, inode.mtime, inode.link_count, device)
            }
            Node::Added(added) => {
                let link_count = if added.kind == SyntheticKind::Directory { 2 } else { 1 };
                (0, self.reader.superblock().mtime, link_count, 0)
            }
        };
        let is_directory =
            |id: u64| self.added_index(id).is_some_and(|added| added.kind == SyntheticKind::Directory);
        let below = self.names_added_to(id).iter().filter(|(_, id)| is_directory(*id)).count();
        let link_count = link_count.saturating_add(u32::try_from(below).unwrap_or(0));
        let number = self.number(id, node);
        Attr { number, size_bytes, mtime, mode: shown_mode(mode_of(node)), link_count, uid, gid, device }
    }

    /// Where the bytes of a regular file lie; `None` if the node is none.
    pub(super) fn file(&self, id: u64) -> Result<Option<Arc<FileMap>>, ReadError> {
        if let Some(map) = lock(&self.files).map.get(&id) {
            return Ok(Some(map.clone()));
        }
        match self.get(id)? {
            Node::Image(Inode { kind: InodeKind::File(data), .. }) => {
                let map = Arc::new(self.map(&data)?);
                if map.blocks.len() > 1 {
                    lock(&self.files).keep(id, map.clone(), map.blocks.len(), MAX_KEPT_BLOCKS);
                }
                Ok(Some(map))
            }
            Node::Added(Added { kind: SyntheticKind::File, .. }) => Ok(Some(Arc::default())),
            _ => Ok(None),
        }
    }

    /// The first node with content from a reference of the inode table on, and what stands behind it there; `None` if there
    /// is none within some inodes.
    pub(super) fn file_from(&self, mut reference: u64) -> Option<FileInTable> {
        /// Inodes of other kinds that are passed by: the links and directories between the files of a tree.
        const MAX_PASSED: u32 = 256;
        for _ in 0..MAX_PASSED {
            let (inode, next) = self.reader.inode_and_next(reference).ok()?;
            if inode.size_bytes() > 0 && inode.is_file() {
                return Some(FileInTable { id: self.id_of(reference), size_bytes: inode.size_bytes(), next });
            }
            reference = next?;
        }
        None
    }

    /// What stands behind a node in the inode table.
    pub(super) fn next_reference(&self, id: u64) -> Option<u64> {
        let reference = id.checked_sub(FIRST_REFERENCE).filter(|_| id < FIRST_ADDED)?;
        self.reader.inode_and_next(reference).ok()?.1
    }

    fn map(&self, data: &FileData) -> Result<FileMap, ReadError> {
        let tail = data.fragment.is_some().then(|| self.reader.tail(data)).transpose()?;
        Ok(FileMap { size_bytes: data.size_bytes, blocks: self.reader.blocks(data)?, tail })
    }

    /// True if no node has extended attributes.
    pub(super) fn lacks_xattrs(&self) -> bool {
        !self.reader.has_xattrs()
    }

    /// The attributes of a node that are shown: those of users. What `security.` and `trusted.` say is without effect
    /// on a mount without setuid, and would be without meaning for other owners.
    pub(super) fn xattrs(&self, id: u64) -> Result<Xattrs, ReadError> {
        let mut xattrs = match self.get(id)? {
            Node::Image(inode) => self.reader.xattrs(&inode)?,
            Node::Added(_) => Xattrs::new(),
        };
        xattrs.retain(|(name, _)| name.starts_with(b"user."));
        Ok(xattrs)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const KIND_MASK: u32 = 0o170_000;

/// Kind and permissions as they are stored.
fn mode_of(node: &Node) -> u32 {
    match node {
        Node::Added(Added { kind: SyntheticKind::Directory, .. }) => kind::DIRECTORY | 0o755,
        Node::Added(Added { kind: SyntheticKind::File, .. }) => kind::FILE | 0o644,
        Node::Image(inode) => stored_mode(inode),
    }
}

fn stored_mode(inode: &Inode) -> u32 {
    let kind = match inode.kind {
        InodeKind::Directory(_) => kind::DIRECTORY,
        InodeKind::File(_) => kind::FILE,
        InodeKind::Symlink(_) => kind::SYMLINK,
        InodeKind::CharDevice { .. } => kind::CHAR_DEVICE,
        InodeKind::BlockDevice { .. } => kind::BLOCK_DEVICE,
        InodeKind::Fifo => kind::FIFO,
        InodeKind::Socket => kind::SOCKET,
    };
    kind | u32::from(inode.mode)
}

/// The permissions that an inode is shown with (`0o7777`), to its one owner.
#[must_use]
pub fn shown_permissions(inode: &Inode) -> u32 {
    shown_mode(stored_mode(inode)) & 0o7777
}

/// The kind, as in a mode, of a kind in a listing.
fn kind_of(stored: u16) -> u32 {
    match stored {
        inode_type::DIRECTORY => kind::DIRECTORY,
        inode_type::FILE => kind::FILE,
        inode_type::SYMLINK => kind::SYMLINK,
        inode_type::BLOCK_DEVICE => kind::BLOCK_DEVICE,
        inode_type::CHAR_DEVICE => kind::CHAR_DEVICE,
        inode_type::FIFO => kind::FIFO,
        inode_type::SOCKET => kind::SOCKET,
        _ => 0,
    }
}

/// The mode as it is shown. Files of an image belong to many users, and here all to one, who is to them what root is in
/// Docker: root reads every file, enters every directory and executes what anyone may execute. The kernel checks modes
/// (`default_permissions`) against that one owner, so the owner's bits must say the same.
fn shown_mode(mode: u32) -> u32 {
    const OWNER_READS: u32 = 0o400;
    const OWNER_EXECUTES: u32 = 0o100;
    const ANYONE_EXECUTES: u32 = 0o111;
    match mode & KIND_MASK {
        kind::DIRECTORY => mode | OWNER_READS | OWNER_EXECUTES,
        kind::FILE if mode & ANYONE_EXECUTES != 0 => mode | OWNER_READS | OWNER_EXECUTES,
        kind::SYMLINK => mode | 0o777,
        _ => mode | OWNER_READS,
    }
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

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Kept::default();
        for id in 0..100 {
            kept.keep(id, Arc::new(()), 3, 10);
            kept.keep(id, Arc::new(()), 3, 10);
            assert!(kept.weight <= 10 && kept.weight == kept.map.len() * 3);
        }
        kept.forget(99, 3);
        assert!(kept.weight <= 7);
    }
}
