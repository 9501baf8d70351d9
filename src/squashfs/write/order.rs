//! The order of inodes: who is reachable, under which number, with how many names.
//!
//! Inodes are written directory after directory, every directory after all that lies below it, the children of one
//! directory side by side in the order of their names. So a listing and the inodes that it names lie together, numbers
//! in a listing are close to each other, and the root is last.

use super::error::WriteError;
use crate::base::tree::{Node, NodeId, NodeKind, Tree};
use crate::squashfs::format::limits::MAX_NAME_BYTES;

/// Largest number of inodes: the root's parent is numbered one higher, and that must fit too.
pub(super) const MAX_INODES: u32 = u32::MAX - 1;

/// A checked tree with its inodes numbered.
#[derive(Debug)]
pub(super) struct Order {
    /// All directories, each after those below it; the root is last.
    pub(super) directories: Vec<NodeId>,
    /// Inode number by node, from 1; 0 for a node that no directory names.
    pub(super) numbers: Vec<u32>,
    /// Hard links by node.
    pub(super) links: Vec<u32>,
    /// Of a directory, the directory that names it; of the root, the root.
    parents: Vec<NodeId>,
    /// The highest number, the root's.
    pub(super) inode_count: u32,
}

impl Order {
    /// Checks names and structure and gives the numbers. No recursion: an image's tree may be thousands of levels deep.
    pub(super) fn of(tree: &Tree) -> Result<Self, WriteError> {
        let count = tree.nodes.len();
        if !tree.nodes.get(index(tree.root)).is_some_and(is_directory) {
            return Err(WriteError::RootNotDirectory);
        }
        let mut order = Self {
            directories: Vec::new(),
            numbers: vec![0; count],
            links: vec![0; count],
            parents: vec![tree.root; count],
            inode_count: 0,
        };
        order.walk(tree)?;
        order.give_numbers(tree)?;
        Ok(order)
    }

    /// The number of a directory's parent. The root's parent is the number behind the last, as mksquashfs has it.
    pub(super) fn parent_number(&self, tree: &Tree, directory: NodeId) -> u32 {
        if directory == tree.root {
            return self.inode_count + 1;
        }
        self.numbers[index(self.parents[index(directory)])]
    }

    /// The path of something in a directory, in words.
    pub(super) fn path(&self, tree: &Tree, directory: NodeId, name: &[u8]) -> String {
        let mut names = vec![name];
        let mut below = directory;
        while below != tree.root {
            let above = self.parents[index(below)];
            let entry = children(tree, above).iter().find(|(_, child)| *child == below);
            names.push(entry.map(|(name, _)| &**name).unwrap_or_default());
            below = above;
        }
        names.reverse();
        String::from_utf8_lossy(&names.join(&b'/')).into_owned()
    }

    /// Parents first; turned around at the end, that is children first.
    fn walk(&mut self, tree: &Tree) -> Result<(), WriteError> {
        let mut stack = vec![tree.root];
        self.links[index(tree.root)] = 2;
        while let Some(directory) = stack.pop() {
            self.directories.push(directory);
            let children = children(tree, directory);
            let mut below = Vec::new();
            for (name, child) in children {
                if let Some(reason) = fault_of_name(name) {
                    return Err(WriteError::Name { path: self.path(tree, directory, name), reason });
                }
                let Some(node) = tree.nodes.get(index(*child)) else {
                    let path = self.path(tree, directory, name);
                    return Err(WriteError::UnknownNode { path, node: *child, nodes: tree.nodes.len() });
                };
                let links = &mut self.links[index(*child)];
                if !is_directory(node) {
                    *links = links.saturating_add(1);
                    continue;
                }
                if *links > 0 {
                    return Err(WriteError::DirectoryTwice { path: self.path(tree, directory, name) });
                }
                *links = 2;
                self.parents[index(*child)] = directory;
                let links = &mut self.links[index(directory)];
                *links = links.saturating_add(1);
                below.push((name, *child));
            }
            below.sort_unstable();
            stack.extend(below.into_iter().map(|(_, child)| child));
        }
        self.directories.reverse();
        Ok(())
    }

    fn give_numbers(&mut self, tree: &Tree) -> Result<(), WriteError> {
        let mut last = 0_u32;
        let mut next = || {
            last = last.saturating_add(1);
            if last > MAX_INODES { Err(WriteError::TooManyInodes { limit: MAX_INODES }) } else { Ok(last) }
        };
        for &directory in &self.directories {
            let children = sorted_children(tree, directory);
            if let Some(pair) = children.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(WriteError::NameTwice { path: self.path(tree, directory, pair[0].0) });
            }
            for (_, child) in children {
                let number = &mut self.numbers[index(child)];
                if *number == 0 {
                    *number = next()?;
                }
            }
        }
        self.inode_count = next()?;
        self.numbers[index(tree.root)] = self.inode_count;
        Ok(())
    }
}

/// A directory's entries in the order in which squashfs keeps them, that of `strcmp`.
pub(super) fn sorted_children(tree: &Tree, directory: NodeId) -> Vec<(&[u8], NodeId)> {
    let mut sorted: Vec<_> =
        children(tree, directory).iter().map(|(name, child)| (&**name, *child)).collect();
    sorted.sort_unstable();
    sorted
}

/// A node's index in the arena.
pub(super) fn index(node: NodeId) -> usize {
    usize::try_from(node).expect("an index of 32 bits")
}

fn children(tree: &Tree, directory: NodeId) -> &[(Box<[u8]>, NodeId)] {
    match tree.nodes.get(index(directory)).map(|node| &node.kind) {
        Some(NodeKind::Directory(children)) => children,
        _ => &[],
    }
}

fn is_directory(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Directory(_))
}

fn fault_of_name(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("is empty"),
        b"." | b".." => Some("is the directory itself or the one above"),
        _ if name.len() > MAX_NAME_BYTES => Some("is longer than 255 bytes"),
        _ if name.contains(&b'/') => Some("holds a slash"),
        _ if name.contains(&0) => Some("holds a NUL byte"),
        _ => None,
    }
}
