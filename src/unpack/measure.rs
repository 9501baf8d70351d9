//! What a tree takes on disk, known before the first byte is written.

use std::collections::HashSet;

use crate::squashfs::read::{Inode, InodeKind, ReadError, Reader};

/// Deepest directory: as deep as a path can be.
const MAX_DEPTH: usize = crate::base::limits::PATH_BYTES / 2;

/// What a tree takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files, directories and links.
    pub files: u64,
    /// Bytes, in whole blocks of the file system.
    pub bytes: u64,
}

/// Adds up a whole tree, for a file system with blocks of that size. A file with several names counts once, and a hole
/// takes nothing. An error comes with the path where it was met.
pub fn measure(reader: &Reader, block_bytes: u64) -> Result<Needs, (String, ReadError)> {
    let mut needs = Needs::default();
    let mut seen = HashSet::new();
    let root = reader.root().map_err(|error| (String::new(), error))?;
    let mut open = vec![(Vec::new(), 0, root)];
    while let Some((path, depth, directory)) = open.pop() {
        let shown = || String::from_utf8_lossy(&path).into_owned();
        add(&mut needs, block_bytes, block_bytes);
        for entry in reader.read_dir(&directory).map_err(|error| (shown(), error))? {
            let below = || match path.is_empty() {
                true => entry.name.to_vec(),
                false => [path.as_slice(), b"/", &entry.name].concat(),
            };
            let fail = |error| (String::from_utf8_lossy(&below()).into_owned(), error);
            let inode = reader.inode(entry.reference).map_err(fail)?;
            match &inode.kind {
                InodeKind::Directory(_) => {
                    // A directory with two names could contain itself.
                    if depth >= MAX_DEPTH || !seen.insert(entry.reference) {
                        let reason = "gives a directory a second name, or lies too deep";
                        let offset = entry.reference >> 16;
                        return Err(fail(ReadError::Damaged { what: "directory table", offset, reason }));
                    }
                    open.push((below(), depth + 1, inode));
                }
                _ if inode.link_count > 1 && !seen.insert(entry.reference) => {}
                _ => {
                    let bytes = content_bytes(reader, &inode).map_err(fail)?;
                    add(&mut needs, bytes, block_bytes);
                }
            }
        }
    }
    Ok(needs)
}

fn add(needs: &mut Needs, bytes: u64, block_bytes: u64) {
    needs.files += 1;
    needs.bytes = needs.bytes.saturating_add(bytes.div_ceil(block_bytes).saturating_mul(block_bytes));
}

/// The bytes of a file that are no holes.
fn content_bytes(reader: &Reader, inode: &Inode) -> Result<u64, ReadError> {
    let InodeKind::File(file) = &inode.kind else { return Ok(0) };
    let block_bytes = u64::from(reader.superblock().block_bytes);
    let own_bytes = file.block_count.saturating_mul(block_bytes).min(file.size_bytes);
    let tail_bytes = file.size_bytes - own_bytes;
    if file.block_count == 0 {
        return Ok(tail_bytes);
    }
    let stored = u64::try_from(reader.stored_blocks(file)?.len()).unwrap_or(u64::MAX);
    Ok(stored.saturating_mul(block_bytes).min(own_bytes).saturating_add(tail_bytes))
}
