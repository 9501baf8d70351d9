//! Every path of every layer, once: a number for each name and for each path, a few bytes apiece.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Number of a name (one component) in a [`Paths`].
pub(super) type NameId = u32;
/// Number of a path in a [`Paths`].
pub(super) type PathId = u32;

/// The path of the root.
pub(super) const ROOT: PathId = 0;

/// What newer layers did at a path; bits of [`PathNode::flags`].
pub(super) mod flag {
    /// A newer layer removes what is here, or puts something that is no directory in its place.
    pub(in super::super) const REPLACED: u8 = 1;
    /// A newer layer has a directory here, which hides a file.
    pub(in super::super) const DIRECTORY: u8 = 2;
    /// A newer layer hides everything below this directory.
    pub(in super::super) const EMPTIED: u8 = 4;
    /// A hard link of this or a newer layer names this path as its target.
    pub(in super::super) const CLAIMED: u8 = 8;
}

/// How a layer lists a path itself, by the last entry of that path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    Directory,
    Other,
}

#[derive(Debug)]
struct PathNode {
    parent: PathId,
    name: NameId,
    /// The layer (counted from 1) whose listing the next two fields tell; 0 for none.
    listed_by: u32,
    /// Index of the last entry of this path in that layer.
    last_record: u32,
    is_directory: bool,
    flags: u8,
}

/// All names and paths.
#[derive(Debug)]
pub(super) struct Paths {
    name_bytes: Vec<u8>,
    /// End of each name in `name_bytes`; a name starts where the one before ends.
    name_ends: Vec<u64>,
    name_index: Index,
    nodes: Vec<PathNode>,
    node_index: Index,
    /// The directory of the entry before, as written and as a path.
    known_directory: (Vec<u8>, PathId),
    /// Last names of targets whose directory is not certain.
    claimed_names: HashSet<NameId>,
    hasher: RandomState,
}

impl Paths {
    pub(super) fn new() -> Self {
        let root =
            PathNode { parent: ROOT, name: 0, listed_by: 0, last_record: 0, is_directory: true, flags: 0 };
        Self {
            name_bytes: Vec::new(),
            name_ends: Vec::new(),
            name_index: Index::default(),
            nodes: vec![root],
            node_index: Index::default(),
            known_directory: (Vec::new(), ROOT),
            claimed_names: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// How many paths there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The number of a name.
    pub(super) fn name(&mut self, name: &[u8]) -> NameId {
        let hash = self.hasher.hash_one(name);
        let (bytes, ends) = (&self.name_bytes, &self.name_ends);
        if let Some(id) = self.name_index.find(hash, |id| name_of(bytes, ends, id) == name) {
            return id;
        }
        let id = id_of(self.name_ends.len());
        self.name_bytes.extend_from_slice(name);
        self.name_ends.push(self.name_bytes.len() as u64);
        let (bytes, ends, hasher) = (&self.name_bytes, &self.name_ends, &self.hasher);
        self.name_index.insert(hash, id, |id| hasher.hash_one(name_of(bytes, ends, id)));
        id
    }

    /// The number of a name that was seen before.
    pub(super) fn find_name(&self, name: &[u8]) -> Option<NameId> {
        let hash = self.hasher.hash_one(name);
        self.name_index.find(hash, |id| name_of(&self.name_bytes, &self.name_ends, id) == name)
    }

    /// The number of the path of a name in a directory.
    pub(super) fn child(&mut self, parent: PathId, name: &[u8]) -> PathId {
        let name = self.name(name);
        let hash = self.hasher.hash_one((parent, name));
        let nodes = &self.nodes;
        let is_it = |id: u32| nodes[index_of(id)].parent == parent && nodes[index_of(id)].name == name;
        if let Some(id) = self.node_index.find(hash, is_it) {
            return id;
        }
        let id = id_of(self.nodes.len());
        self.nodes.push(PathNode {
            parent,
            name,
            listed_by: 0,
            last_record: 0,
            is_directory: false,
            flags: 0,
        });
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.node_index.insert(hash, id, |id| {
            let node = &nodes[index_of(id)];
            hasher.hash_one((node.parent, node.name))
        });
        id
    }

    /// The directory that was set last, if it is this one.
    pub(super) fn known_directory(&self, written: &[u8]) -> Option<PathId> {
        (self.known_directory.0 == written).then_some(self.known_directory.1)
    }

    /// Remembers the directory that `child` stands in for [`Self::known_directory`].
    pub(super) fn set_known_directory(&mut self, written: &[u8], child: PathId) {
        self.known_directory.0.clear();
        self.known_directory.0.extend_from_slice(written);
        self.known_directory.1 = self.parent(child);
    }

    pub(super) fn parent(&self, path: PathId) -> PathId {
        self.nodes[index_of(path)].parent
    }

    /// The last name of a path. The root has none; ask only for others.
    pub(super) fn last_name(&self, path: PathId) -> NameId {
        self.nodes[index_of(path)].name
    }

    pub(super) fn name_bytes(&self, name: NameId) -> &[u8] {
        name_of(&self.name_bytes, &self.name_ends, name)
    }

    /// The path and the directories above it, from below, without the root.
    pub(super) fn upwards(&self, path: PathId) -> impl Iterator<Item = PathId> {
        std::iter::successors(Some(path), |&path| Some(self.parent(path))).take_while(|&path| path != ROOT)
    }

    /// The path in words.
    pub(super) fn shown(&self, path: PathId) -> String {
        let mut names: Vec<_> =
            self.upwards(path).map(|path| self.name_bytes(self.last_name(path))).collect();
        names.reverse();
        String::from_utf8_lossy(&names.join(&b'/')).into_owned()
    }

    /// Notes that a layer has an entry of this path.
    pub(super) fn list(&mut self, path: PathId, layer: usize, listing: Listing, record: usize) {
        let node = &mut self.nodes[index_of(path)];
        node.listed_by = id_of(layer + 1);
        node.last_record = id_of(record);
        node.is_directory = listing == Listing::Directory;
    }

    /// How the layer that is being read or applied lists the path, if it does.
    pub(super) fn listing(&self, path: PathId, layer: usize) -> Option<Listing> {
        let node = &self.nodes[index_of(path)];
        (node.listed_by == id_of(layer + 1)).then_some(if node.is_directory {
            Listing::Directory
        } else {
            Listing::Other
        })
    }

    /// Whether an entry is the last one of its path in its layer.
    pub(super) fn is_last(&self, path: PathId, layer: usize, record: usize) -> bool {
        let node = &self.nodes[index_of(path)];
        node.listed_by == id_of(layer + 1) && node.last_record == id_of(record)
    }

    pub(super) fn set_flag(&mut self, path: PathId, flag: u8) {
        self.nodes[index_of(path)].flags |= flag;
    }

    pub(super) fn has_flag(&self, path: PathId, flags: u8) -> bool {
        self.nodes[index_of(path)].flags & flags != 0
    }

    /// Notes that a hard link may reach any file of this path's last name.
    pub(super) fn claim_name_of(&mut self, path: PathId) {
        let name = self.last_name(path);
        self.claimed_names.insert(name);
    }

    /// Whether a hard link of this or a newer layer may need the file at this path.
    pub(super) fn is_claimed(&self, path: PathId) -> bool {
        self.has_flag(path, flag::CLAIMED) || self.claimed_names.contains(&self.last_name(path))
    }

    /// Frees what only the reading of layers needs.
    pub(super) fn end_reading(&mut self) {
        self.node_index = Index::default();
        self.claimed_names = HashSet::new();
    }
}

fn name_of<'b>(bytes: &'b [u8], ends: &[u64], id: NameId) -> &'b [u8] {
    let at = index_of(id);
    let start = at.checked_sub(1).map_or(0, |before| ends[before]);
    let (start, end) = (usize::try_from(start).unwrap_or(0), usize::try_from(ends[at]).unwrap_or(0));
    &bytes[start..end]
}

/// The number for an index. The limit on entries keeps indices far below 2^32.
fn id_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// The index for a number.
pub(super) fn index_of(id: u32) -> usize {
    id as usize
}

/// A hash table of numbers whose keys lie elsewhere. Open addressing, at most half full.
#[derive(Debug, Default)]
struct Index {
    /// A number plus 1, or 0 for a free slot.
    slots: Vec<u32>,
    used: usize,
}

impl Index {
    fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.start(hash);
        loop {
            let id = self.slots[at].checked_sub(1)?;
            if is_it(id) {
                return Some(id);
            }
            at = (at + 1) % self.slots.len();
        }
    }

    /// Adds a number that is not there yet.
    fn insert(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.used + 1) * 2 > self.slots.len() {
            let length = (self.slots.len() * 2).max(64);
            let old = std::mem::replace(&mut self.slots, vec![0; length]);
            for id in old.into_iter().filter_map(|slot| slot.checked_sub(1)) {
                self.put(hash_of(id), id);
            }
        }
        self.put(hash, id);
        self.used += 1;
    }

    fn put(&mut self, hash: u64, id: u32) {
        let mut at = self.start(hash);
        while self.slots[at] != 0 {
            at = (at + 1) % self.slots.len();
        }
        self.slots[at] = id + 1;
    }

    /// The slots are a power of two, so the low bits of the hash choose one.
    fn start(&self, hash: u64) -> usize {
        let low = u32::try_from(hash & 0xffff_ffff).unwrap_or(0);
        index_of(low) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay() {
        let mut paths = Paths::new();
        let names: Vec<String> = (0..1000).map(|number| format!("n{}", number % 700)).collect();
        let ids: Vec<_> = names.iter().map(|name| paths.child(ROOT, name.as_bytes())).collect();
        for (name, &id) in names.iter().zip(&ids) {
            assert_eq!(paths.child(ROOT, name.as_bytes()), id);
            assert_eq!(paths.shown(id), *name);
        }
        assert_eq!(paths.len(), 701);
        let below = paths.child(ids[3], b"n4");
        assert_eq!(paths.shown(below), "n3/n4");
        assert_eq!(paths.last_name(below), paths.last_name(ids[4]));
        assert_eq!(paths.find_name(b"n5"), Some(paths.last_name(ids[5])));
        assert_eq!(paths.find_name(b"x"), None);
    }
}
