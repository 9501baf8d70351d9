//! Puts what Apptainer expects into a merged tree. Nothing of the image is replaced, except below `/.singularity.d`,
//! and no link of the image is followed: a mount point behind one is left to the image.

use crate::base::tree::{FileId, Node, NodeId, NodeKind, Tree};

/// The directory that is ours.
const OWN_DIRECTORY: &[u8] = b".singularity.d";

/// A tree and the time that new nodes get.
#[derive(Debug)]
pub(super) struct Graft<'a> {
    pub(super) tree: &'a mut Tree,
    pub(super) mtime: u32,
}

impl Graft<'_> {
    /// Makes what is missing of the directory `path`. An obstacle (a file or a link) is left alone, unless it stands
    /// where our own directory must be.
    pub(super) fn make_directory(&mut self, path: &str, mode: u16) {
        let mut here = self.tree.root;
        let last = path.split('/').count();
        for (depth, name) in (1..).zip(path.split('/').map(str::as_bytes)) {
            let child = self.child(here, name);
            here = match child {
                Some(child) if self.is_directory(child) => child,
                Some(_) if !path.as_bytes().starts_with(OWN_DIRECTORY) => return,
                _ => {
                    // Only the last directory is as wide open as `/tmp`.
                    let mode = if depth == last { mode } else { 0o755 };
                    let made = self.push(NodeKind::Directory(Vec::new()), mode);
                    self.set_child(here, name, made);
                    made
                }
            };
        }
    }

    /// Puts a file at `path`, replacing what is there. Its directory must have been made.
    pub(super) fn put_file(&mut self, path: &str, mode: u16, content: FileId) {
        if let Some((directory, name)) = self.place(path) {
            let file = self.push(NodeKind::File(content), mode);
            self.set_child(directory, name, file);
        }
    }

    /// Whether `path` can be made: its directory is there and its name is free.
    pub(super) fn is_free(&self, path: &str) -> bool {
        self.place(path).is_some_and(|(directory, name)| self.child(directory, name).is_none())
    }

    /// Puts a symbolic link into the root directory, unless the name is taken.
    pub(super) fn put_link(&mut self, name: &str, target: &str) {
        if self.is_free(name) {
            let link = self.push(NodeKind::Symlink(target.as_bytes().into()), 0o777);
            self.set_child(self.tree.root, name.as_bytes(), link);
        }
    }

    /// The directory of `path`, reached without links, and the name in it.
    fn place<'p>(&self, path: &'p str) -> Option<(NodeId, &'p [u8])> {
        let (parents, name) = path.rsplit_once('/').map_or((None, path), |(up, name)| (Some(up), name));
        let mut here = self.tree.root;
        for name in parents.iter().flat_map(|parents| parents.split('/')) {
            here = self.child(here, name.as_bytes()).filter(|&child| self.is_directory(child))?;
        }
        Some((here, name.as_bytes()))
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.tree.nodes.get(usize::try_from(id).ok()?)
    }

    fn is_directory(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|node| matches!(node.kind, NodeKind::Directory(_)))
    }

    fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let NodeKind::Directory(children) = &self.node(directory)?.kind else { return None };
        children.iter().find(|(known, _)| **known == *name).map(|(_, child)| *child)
    }

    fn set_child(&mut self, directory: NodeId, name: &[u8], child: NodeId) {
        let node = usize::try_from(directory).ok().and_then(|at| self.tree.nodes.get_mut(at));
        let Some(Node { kind: NodeKind::Directory(children), .. }) = node else { return };
        match children.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) => *known = child,
            None => children.push((name.into(), child)),
        }
    }

    fn push(&mut self, kind: NodeKind, mode: u16) -> NodeId {
        let id = NodeId::try_from(self.tree.nodes.len()).expect("the merge counts nodes in 32 bits");
        self.tree.nodes.push(Node { kind, mode, uid: 0, gid: 0, mtime: self.mtime, xattrs: None });
        id
    }
}

/// Gives every node to root, as Apptainer's unprivileged builds do: the mount shows the caller as owner of everything.
pub(super) fn give_to_root(tree: &mut Tree) {
    for node in &mut tree.nodes {
        (node.uid, node.gid) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(kind: NodeKind) -> Node {
        Node { kind, mode: 0o755, uid: 7, gid: 8, mtime: 9, xattrs: None }
    }

    /// `/etc/hosts` a file, `/var` a link, `/.singularity.d` a file, `/run.sh` a hard link to the same file.
    fn tree() -> Tree {
        let named = |name: &str, id| (name.as_bytes().into(), id);
        let root = vec![named("etc", 1), named("var", 3), named(".singularity.d", 2), named("x", 2)];
        let nodes = vec![
            node(NodeKind::Directory(root)),
            node(NodeKind::Directory(vec![named("hosts", 2)])),
            node(NodeKind::File(FileId(5))),
            node(NodeKind::Symlink(b"/elsewhere"[..].into())),
        ];
        Tree { nodes, root: 0 }
    }

    #[test]
    fn what_is_there_stays() {
        let mut tree = tree();
        let mut graft = Graft { tree: &mut tree, mtime: 1 };
        graft.make_directory("var/tmp", 0o1777);
        graft.make_directory("etc", 0o700);
        graft.make_directory("home", 0o755);
        assert!(!graft.is_free("etc/hosts") && graft.is_free("etc/resolv.conf"));
        assert!(!graft.is_free("var/x") && !graft.is_free("none/x"));
        graft.put_link("x", "away");
        assert_eq!(graft.child(0, b"x"), Some(2));
        assert_eq!(graft.child(0, b"var"), Some(3));
        let home = graft.child(0, b"home").unwrap();
        assert_eq!(graft.node(home).unwrap().mode, 0o755);
        assert_eq!(graft.node(1).unwrap().mode, 0o755);
    }

    #[test]
    fn our_own_directory_replaces_an_obstacle_but_not_its_other_names() {
        let mut tree = tree();
        let mut graft = Graft { tree: &mut tree, mtime: 1 };
        graft.make_directory(".singularity.d/env", 0o755);
        graft.put_file(".singularity.d/env/a.sh", 0o755, FileId(6));
        graft.put_file(".singularity.d/env/a.sh", 0o644, FileId(7));
        let (directory, name) = graft.place(".singularity.d/env/a.sh").unwrap();
        let file = graft.node(graft.child(directory, name).unwrap()).unwrap();
        assert!(matches!(file.kind, NodeKind::File(FileId(7))) && file.mode == 0o644);
        assert_eq!(graft.child(0, b"x"), Some(2));
        give_to_root(&mut tree);
        assert!(tree.nodes.iter().all(|node| node.uid == 0 && node.gid == 0));
    }

    #[test]
    fn only_the_last_directory_is_open_to_all() {
        let mut tree = tree();
        let mut graft = Graft { tree: &mut tree, mtime: 1 };
        graft.make_directory("tmp/tmp", 0o1777);
        let outer = graft.child(0, b"tmp").unwrap();
        let inner = graft.child(outer, b"tmp").unwrap();
        assert_eq!([outer, inner].map(|id| graft.node(id).unwrap().mode), [0o755, 0o1777]);
    }
}
