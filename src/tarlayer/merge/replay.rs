//! Applies recorded layers oldest first and makes the tree.
//!
//! A layer is applied in two steps. First its whiteouts, all against the layers below, wherever they stand in the tar.
//! Then its entries in their order. A directory on the way to an entry is looked up in what is there so far:
//! - a symbolic link is followed, root-relative, unless the layer lists a directory at that path, which replaces it;
//! - what is missing is made, and what is no directory gives way, unless the layer itself put it there.
//!
//! A hard link takes what is at its target at that moment. Where nothing is, it waits for the end of its layer, and
//! may then also take what its layer hides or replaces.

use std::collections::{HashMap, HashSet};

use crate::base::tree::{FileId, Node, NodeId, NodeKind, Tree};

use super::error::MergeError;
use super::paths::{Listing, NameId, PathId, Paths, ROOT, index_of};
use super::record::{AUFS_LINKS, Meta, Record, RecordKind};
use super::{FREE_PATHS, MAX_TARGET_BYTES};
use crate::base::limits::NAME_BYTES;

/// Most symbolic links on one way, as Linux has it (`MAXSYMLINKS`).
const MAX_SYMLINKS: usize = 40;
/// How often links whose target is missing are tried again; each time brings a chain of links one link further, or
/// all of it if it stands in the archive from its end.
const MAX_LINK_ROUNDS: usize = 16;

/// The root directory's node.
const ROOT_NODE: NodeId = 0;
/// Content of a file whose content was passed by; only nodes in `Replay::passed` have it.
const NO_CONTENT: FileId = FileId(u32::MAX);

/// Number of the set of names in a directory. Emptying a directory gives it a new one.
type Space = u32;

/// Applies `layers` (newest first) oldest first.
pub(super) fn replay(
    paths: Paths,
    mut layers: Vec<Vec<Record>>,
    max_entries: u64,
) -> Result<Tree, MergeError> {
    let mut replay = Replay {
        paths,
        layer: 0,
        nodes: Vec::new(),
        spaces: Vec::new(),
        next_space: 0,
        names: HashMap::new(),
        passed: HashSet::new(),
        max_entries,
    };
    replay.add_node(NodeKind::Directory(Vec::new()), Meta::of_missing_directory())?;
    while let Some(records) = layers.pop() {
        replay.layer = layers.len();
        replay.apply_layer(records)?;
    }
    replay.into_tree()
}

struct Replay {
    paths: Paths,
    /// The layer that is applied.
    layer: usize,
    nodes: Vec<Node>,
    /// For each node the names in it; only directories use theirs.
    spaces: Vec<Space>,
    next_space: Space,
    names: HashMap<(Space, NameId), NodeId>,
    /// Files whose content was passed by.
    passed: HashSet<NodeId>,
    max_entries: u64,
}

/// What to do on the way to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Make what is missing.
    Make,
    /// Only look.
    Look,
}

/// One step on the way to a directory.
enum Step {
    /// Into a name; with the path where the layer itself names it, not a link.
    Into(NameId, Option<PathId>),
    Up,
}

impl Replay {
    fn apply_layer(&mut self, mut records: Vec<Record>) -> Result<(), MergeError> {
        for (index, record) in records.iter().enumerate() {
            let listing = match record.kind {
                RecordKind::Whiteout | RecordKind::Opaque => continue,
                RecordKind::Directory => Listing::Directory,
                _ => Listing::Other,
            };
            self.paths.list(record.path, self.layer, listing, index);
        }
        let below = self.link_targets_below(&records);
        self.apply_whiteouts(&records)?;
        let mut waiting = Vec::new();
        for (index, record) in records.iter_mut().enumerate() {
            if !self.apply_record(record)? {
                waiting.push(index);
            }
        }
        self.apply_waiting_links(&mut records, waiting, &below)?;
        if let Some(name) = self.paths.find_name(AUFS_LINKS) {
            self.names.remove(&(self.space(ROOT_NODE), name));
        }
        Ok(())
    }

    /// What the targets of hard links are in the layers below, for those that this layer hides or replaces: appliers
    /// that go by the order of the archive make such a link if it stands before the whiteout.
    fn link_targets_below(&mut self, records: &[Record]) -> HashMap<usize, NodeId> {
        let mut below = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            if let RecordKind::HardLink(target) = record.kind
                // A target that cannot be reached is one that is not there.
                && let Ok(Some(node)) = self.find(target)
            {
                below.insert(index, node);
            }
        }
        below
    }

    /// Hides what lower layers have. All are looked up before the first takes effect, so their order is nothing.
    fn apply_whiteouts(&mut self, records: &[Record]) -> Result<(), MergeError> {
        let mut removed = Vec::new();
        let mut emptied = Vec::new();
        for record in records {
            match record.kind {
                RecordKind::Whiteout => {
                    if let Some(directory) = self.directory(self.paths.parent(record.path), Way::Look)? {
                        removed.push((self.space(directory), self.paths.last_name(record.path)));
                    }
                }
                RecordKind::Opaque => emptied.extend(self.directory(record.path, Way::Look)?),
                _ => {}
            }
        }
        for key in removed {
            self.names.remove(&key);
        }
        for directory in emptied {
            self.spaces[index_of(directory)] = self.next_space;
            self.next_space += 1;
        }
        Ok(())
    }

    /// Applies an entry; false if it is a hard link whose target is not there yet.
    fn apply_record(&mut self, record: &mut Record) -> Result<bool, MergeError> {
        let path = record.path;
        let kind = match &mut record.kind {
            RecordKind::Whiteout | RecordKind::Opaque => return Ok(true),
            RecordKind::Directory => {
                let node = self.listed_directory(path)?;
                self.set_meta(node, &mut record.meta);
                return Ok(true);
            }
            RecordKind::HardLink(target) => return self.link(path, *target),
            RecordKind::File(content) => NodeKind::File(content.unwrap_or(NO_CONTENT)),
            RecordKind::Symlink(target) => NodeKind::Symlink(std::mem::take(target)),
            RecordKind::CharDevice { major, minor } => NodeKind::CharDevice { major: *major, minor: *minor },
            RecordKind::BlockDevice { major, minor } => {
                NodeKind::BlockDevice { major: *major, minor: *minor }
            }
            RecordKind::Fifo => NodeKind::Fifo,
        };
        let directory = self.made_directory(self.paths.parent(path))?;
        let meta = std::mem::replace(&mut record.meta, Meta::of_missing_directory());
        let node = self.add_node(kind, meta)?;
        if matches!(record.kind, RecordKind::File(None)) {
            self.passed.insert(node);
        }
        self.names.insert((self.space(directory), self.paths.last_name(path)), node);
        Ok(true)
    }

    /// The directory that an entry lists: the one that is there, or a new one in the place of what is no directory.
    fn listed_directory(&mut self, path: PathId) -> Result<NodeId, MergeError> {
        if path == ROOT {
            return Ok(ROOT_NODE);
        }
        let parent = self.made_directory(self.paths.parent(path))?;
        let key = (self.space(parent), self.paths.last_name(path));
        match self.names.get(&key) {
            Some(&node) if self.is_directory(node) => Ok(node),
            _ => self.make_directory(key),
        }
    }

    /// Makes a further name of what is at `target`; false if nothing is there.
    fn link(&mut self, path: PathId, target: PathId) -> Result<bool, MergeError> {
        match self.find(target)? {
            Some(node) => self.link_to(path, target, node).map(|()| true),
            None => Ok(false),
        }
    }

    /// What is at a path, without making anything.
    fn find(&mut self, path: PathId) -> Result<Option<NodeId>, MergeError> {
        if path == ROOT {
            return Ok(Some(ROOT_NODE));
        }
        let directory = self.directory(self.paths.parent(path), Way::Look)?;
        let name = self.paths.last_name(path);
        Ok(directory.and_then(|directory| self.names.get(&(self.space(directory), name)).copied()))
    }

    fn link_to(&mut self, path: PathId, target: PathId, node: NodeId) -> Result<(), MergeError> {
        if self.is_directory(node) {
            return Err(MergeError::HardLinkToDirectory {
                path: self.paths.shown(path),
                target: self.paths.shown(target),
                layer: self.layer,
            });
        }
        let directory = self.made_directory(self.paths.parent(path))?;
        self.names.insert((self.space(directory), self.paths.last_name(path)), node);
        Ok(())
    }

    /// Applies links whose target came behind them in the archive, or is only `below`.
    fn apply_waiting_links(
        &mut self,
        records: &mut [Record],
        mut waiting: Vec<usize>,
        below: &HashMap<usize, NodeId>,
    ) -> Result<(), MergeError> {
        // A later entry of the same path has taken the place of the link.
        waiting.retain(|&index| self.paths.is_last(records[index].path, self.layer, index));
        self.apply_links(records, &mut waiting)?;
        let mut still_waiting = Vec::new();
        for index in waiting {
            match (&records[index], below.get(&index)) {
                (&Record { path, kind: RecordKind::HardLink(target), .. }, Some(&node)) => {
                    self.link_to(path, target, node)?;
                }
                _ => still_waiting.push(index),
            }
        }
        self.apply_links(records, &mut still_waiting)?;
        match still_waiting.first().map(|&index| &records[index]) {
            Some(&Record { path, kind: RecordKind::HardLink(target), .. }) => {
                Err(MergeError::HardLinkMissing {
                    path: self.paths.shown(path),
                    target: self.paths.shown(target),
                    layer: self.layer,
                })
            }
            _ => Ok(()),
        }
    }

    /// Applies what can be applied of waiting links.
    fn apply_links(&mut self, records: &mut [Record], waiting: &mut Vec<usize>) -> Result<(), MergeError> {
        for _ in 0..MAX_LINK_ROUNDS {
            let before = waiting.len();
            let mut still_waiting = Vec::new();
            for &index in waiting.iter().rev() {
                if !self.apply_record(&mut records[index])? {
                    still_waiting.push(index);
                }
            }
            still_waiting.reverse();
            *waiting = still_waiting;
            if waiting.len() == before {
                break;
            }
        }
        Ok(())
    }

    /// The directory at a path, made if missing.
    fn made_directory(&mut self, path: PathId) -> Result<NodeId, MergeError> {
        match self.directory(path, Way::Make)? {
            Some(directory) => Ok(directory),
            None => Err(self.not_a_directory(path, path)),
        }
    }

    /// The directory at a path, symbolic links followed inside the root.
    fn directory(&mut self, path: PathId, way: Way) -> Result<Option<NodeId>, MergeError> {
        let mut steps: Vec<Step> =
            self.paths.upwards(path).map(|path| Step::Into(self.paths.last_name(path), Some(path))).collect();
        let mut trail = vec![ROOT_NODE];
        let mut links = 0;
        while let Some(step) = steps.pop() {
            let Step::Into(name, text) = step else {
                // The root is its own parent.
                trail.truncate(trail.len().max(2) - 1);
                continue;
            };
            let current = trail.last().copied().unwrap_or(ROOT_NODE);
            let key = (self.space(current), name);
            let listing = text.and_then(|text| self.paths.listing(text, self.layer));
            let child = self.names.get(&key).copied();
            let next = match child.map(|child| (child, &self.nodes[index_of(child)].kind)) {
                Some((child, NodeKind::Directory(_))) => child,
                Some((_, NodeKind::Symlink(target))) if listing != Some(Listing::Directory) => {
                    links += 1;
                    let target = target.clone();
                    if links > MAX_SYMLINKS || steps.len() > MAX_TARGET_BYTES {
                        let path = self.paths.shown(path);
                        return Err(MergeError::SymlinkLoop { path, layer: self.layer });
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    self.push_steps(&target, path, &mut steps)?;
                    continue;
                }
                _ if way == Way::Look => return Ok(None),
                Some((_, NodeKind::Symlink(_))) | None => self.make_directory(key)?,
                Some(_) => match text {
                    Some(_) if listing != Some(Listing::Other) => self.make_directory(key)?,
                    _ => return Err(self.not_a_directory(path, text.unwrap_or(path))),
                },
            };
            trail.push(next);
        }
        Ok(trail.last().copied())
    }

    /// Puts the way that a symbolic link's target tells before the steps that are left.
    fn push_steps(&mut self, target: &[u8], path: PathId, steps: &mut Vec<Step>) -> Result<(), MergeError> {
        for name in target.split(|&byte| byte == b'/').rev() {
            match name {
                b"" | b"." => {}
                b".." => steps.push(Step::Up),
                _ if name.len() > NAME_BYTES => {
                    let path = self.paths.shown(path);
                    return Err(MergeError::SymlinkTarget { path, layer: self.layer });
                }
                _ => steps.push(Step::Into(self.paths.name(name), None)),
            }
        }
        Ok(())
    }

    fn not_a_directory(&self, path: PathId, parent: PathId) -> MergeError {
        MergeError::NotADirectory {
            path: self.paths.shown(path),
            parent: self.paths.shown(parent),
            layer: self.layer,
        }
    }

    fn is_directory(&self, node: NodeId) -> bool {
        matches!(self.nodes[index_of(node)].kind, NodeKind::Directory(_))
    }

    fn space(&self, directory: NodeId) -> Space {
        self.spaces[index_of(directory)]
    }

    fn make_directory(&mut self, key: (Space, NameId)) -> Result<NodeId, MergeError> {
        let node = self.add_node(NodeKind::Directory(Vec::new()), Meta::of_missing_directory())?;
        self.names.insert(key, node);
        Ok(node)
    }

    fn add_node(&mut self, kind: NodeKind, meta: Meta) -> Result<NodeId, MergeError> {
        let count = self.nodes.len() as u64;
        let max_nodes = 2 * self.max_entries + FREE_PATHS;
        let node = u32::try_from(count).ok().filter(|_| count < max_nodes);
        let node = node.ok_or(MergeError::TooManyEntries { limit: self.max_entries })?;
        let Meta { mode, uid, gid, mtime, xattrs } = meta;
        self.nodes.push(Node { kind, mode, uid, gid, mtime, xattrs });
        self.spaces.push(self.next_space);
        self.next_space += 1;
        Ok(node)
    }

    fn set_meta(&mut self, node: NodeId, meta: &mut Meta) {
        let node = &mut self.nodes[index_of(node)];
        (node.mode, node.uid, node.gid, node.mtime) = (meta.mode, meta.uid, meta.gid, meta.mtime);
        node.xattrs = meta.xattrs.take();
    }

    /// Gives every directory that the root leads to its names, sorted.
    fn into_tree(self) -> Result<Tree, MergeError> {
        let Self { paths, mut nodes, spaces, names, passed, .. } = self;
        let mut names: Vec<(Space, NameId, NodeId)> =
            names.into_iter().map(|((space, name), node)| (space, name, node)).collect();
        names.sort_unstable_by(|left, right| {
            left.0.cmp(&right.0).then_with(|| paths.name_bytes(left.1).cmp(paths.name_bytes(right.1)))
        });
        let mut open = vec![ROOT_NODE];
        while let Some(directory) = open.pop() {
            let space = spaces[index_of(directory)];
            let start = names.partition_point(|entry| entry.0 < space);
            let length = names[start..].partition_point(|entry| entry.0 == space);
            let mut children = Vec::with_capacity(length);
            for &(_, name, node) in &names[start..start + length] {
                let name = paths.name_bytes(name);
                if passed.contains(&node) {
                    return Err(MergeError::ContentPassedBy {
                        path: String::from_utf8_lossy(name).into_owned(),
                    });
                }
                if matches!(nodes[index_of(node)].kind, NodeKind::Directory(_)) {
                    open.push(node);
                }
                children.push((name.into(), node));
            }
            nodes[index_of(directory)].kind = NodeKind::Directory(children);
        }
        Ok(Tree { nodes, root: ROOT_NODE })
    }
}
