//! Mount points that the image lacks, grafted into the table before the first request.

use std::collections::BTreeMap;

use super::table::{Body, Entry, Index, Node, Span, Table, kind, to_u32};
use super::{ServeError, Synthetic, SyntheticKind};
use crate::base::RelPath;
use crate::squashfs::format::NO_XATTR;

const DIRECTORY_MODE: u32 = kind::DIRECTORY | 0o755;
const FILE_MODE: u32 = kind::FILE | 0o644;

/// Names that directories of the table get.
type Added = BTreeMap<Index, BTreeMap<Vec<u8>, Index>>;

/// Adds every mount point that is not there, with the directories above it. `mtime` is the time that they show.
pub(super) fn graft(table: &mut Table, synthetic: &[Synthetic], mtime: u32) -> Result<(), ServeError> {
    let mut added = Added::new();
    for point in synthetic {
        place(table, &mut added, point, mtime)?;
    }
    // A directory's names must stay next to each other: the old ones are copied behind all others, with the new.
    for (directory, names) in added {
        let start = table.entries.len();
        let Some(node) = table.nodes.get(directory as usize) else { continue };
        let old = table.entries(node).to_vec();
        table.entries.extend(old);
        for (name, child) in names {
            let name_start = table.names.len();
            table.names.extend_from_slice(&name);
            table.entries.extend(Entry::new(name_start, name.len(), child));
        }
        table.set_entries(directory, start)?;
    }
    Ok(())
}

fn place(table: &mut Table, added: &mut Added, point: &Synthetic, mtime: u32) -> Result<(), ServeError> {
    let mut at = table.root();
    let mut path = RelPath::root();
    let mut names = point.path.components().peekable();
    while let Some(name) = names.next() {
        let wanted = match (names.peek(), point.kind) {
            (None, SyntheticKind::File) => FILE_MODE,
            _ => DIRECTORY_MODE,
        };
        path = path.join(name).unwrap_or(path);
        let here = table.nodes.get(at as usize).and_then(|node| table.lookup(node, name));
        let here = here.or_else(|| added.get(&at).and_then(|names| names.get(name).copied()));
        at = match here {
            Some(index) => {
                check(table, index, wanted, point, &path)?;
                index
            }
            None => {
                let index = add_node(table, at, wanted, mtime)?;
                added.entry(at).or_default().insert(name.to_vec(), index);
                index
            }
        };
    }
    Ok(())
}

/// A directory takes directories; a file is bound over anything that is no directory and no link.
fn check(
    table: &Table,
    index: Index,
    wanted: u32,
    point: &Synthetic,
    path: &RelPath,
) -> Result<(), ServeError> {
    let found = table.nodes.get(index as usize).map_or(0, |node| node.mode & kind::MASK);
    let fits = if wanted == DIRECTORY_MODE {
        found == kind::DIRECTORY
    } else {
        found != kind::DIRECTORY && found != kind::SYMLINK
    };
    if fits {
        return Ok(());
    }
    let found = match found {
        kind::DIRECTORY => "directory",
        kind::SYMLINK => "symbolic link",
        kind::FILE => "regular file",
        _ => "special file",
    };
    Err(ServeError::Conflict { target: point.path.clone(), at: path.clone(), found })
}

fn add_node(table: &mut Table, parent: Index, mode: u32, mtime: u32) -> Result<Index, ServeError> {
    let index = to_u32(table.nodes.len())?;
    let is_directory = mode == DIRECTORY_MODE;
    let body = if is_directory {
        Body::Directory { entries: Span::default(), parent: Some(parent) }
    } else {
        Body::File(super::table::File::default())
    };
    let highest = u32::try_from(table.nodes.len() + 1).unwrap_or(u32::MAX);
    let link_count = if is_directory { 2 } else { 1 };
    table.nodes.push(Node { mode, number: highest, mtime, link_count, xattr: NO_XATTR, body });
    if is_directory && let Some(parent) = table.nodes.get_mut(parent as usize) {
        parent.link_count = parent.link_count.saturating_add(1);
    }
    Ok(index)
}
