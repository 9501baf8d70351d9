//! Mount points that the image lacks, added to the nodes before the first request, or later on a keeper's word.

use super::nodes::{Node, Nodes};
use super::{ServeError, Synthetic, SyntheticKind};
use crate::base::RelPath;
use crate::squashfs::read::InodeKind;

/// A directory, by its id, and a name in it.
type Name = (u64, Box<[u8]>);

/// Adds a mount point that is not there, with the directories above it. Gives the directory in which the first of them is
/// new, and its name there; `None` if nothing had to be added.
pub(super) fn graft(nodes: &Nodes, point: &Synthetic) -> Result<Option<Name>, ServeError> {
    let mut new = None;
    let mut at = Nodes::root();
    let mut path = RelPath::root();
    let mut names = point.path.components().peekable();
    while let Some(name) = names.next() {
        let wanted = if names.peek().is_some() { SyntheticKind::Directory } else { point.kind };
        path = path.join(name).unwrap_or(path);
        at = match nodes.lookup(at, name)? {
            Some(id) => {
                if let Some(found) = obstacle(&nodes.get(id)?, wanted) {
                    return Err(ServeError::Conflict { target: point.path.clone(), at: path, found });
                }
                id
            }
            None => {
                new.get_or_insert((at, name.into()));
                nodes.add(at, name, wanted)
            }
        };
    }
    Ok(new)
}

/// Why nothing can be mounted there, if so: a directory is mounted on a directory, and a file on anything that is no
/// directory and no link.
fn obstacle(node: &Node, wanted: SyntheticKind) -> Option<&'static str> {
    let (found, kind) = match node {
        Node::Added(added) => match added.kind {
            SyntheticKind::Directory => ("directory that another mount needs", SyntheticKind::Directory),
            SyntheticKind::File => ("file that another mount needs", SyntheticKind::File),
        },
        Node::Image(inode) => match inode.kind {
            InodeKind::Directory(_) => ("directory", SyntheticKind::Directory),
            InodeKind::Symlink(_) => return Some("symbolic link"),
            InodeKind::File(_) => ("regular file", SyntheticKind::File),
            _ => ("special file", SyntheticKind::File),
        },
    };
    (kind != wanted).then_some(found)
}
