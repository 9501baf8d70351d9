//! Paths: symbolic links are followed beneath the image's root, as a process inside would see them.

use super::Reader;
use super::error::ReadError;
use super::inode::{Inode, InodeKind};
use crate::base::RelPath;
use crate::squashfs::format::METADATA_BYTES;
use crate::squashfs::format::limits::MAX_LISTING_BYTES;

/// Most links on one path: Linux `MAXSYMLINKS`.
const MAX_LINKS: usize = 40;
/// Most bytes of listings on one path, as if every step read its directory whole: four of the largest. Links that go up
/// and down in a large directory would keep the launch busy for hours.
const MAX_WALK_BYTES: u64 = 4 * MAX_LISTING_BYTES as u64;
/// A step counts as so many bytes at least: a metadata block for the listing and one for the inode.
const STEP_BYTES: u64 = 2 * METADATA_BYTES as u64;

/// Where a path leads once links are followed beneath the image's root.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The clean place; where something is missing, the rest of the path hangs on the last place that exists.
    pub path: RelPath,
    /// What is there.
    pub inode: Option<Inode>,
}

/// A walk from the root downwards.
struct Walk {
    /// The places that exist, from the root to where the walk stands. Never empty; the root's name is.
    places: Vec<(Vec<u8>, Inode)>,
    /// Names behind the last place that exists.
    missing: Vec<Vec<u8>>,
    /// Names still to go, the next one last.
    ahead: Vec<Vec<u8>>,
    /// What the steps so far cost at most, in bytes of listings.
    walked_bytes: u64,
}

impl Reader {
    /// What lies at `path`: links on the way are followed beneath the root, the last one if `follow_last`. `None` if
    /// there is nothing.
    pub fn resolve(&self, path: &RelPath, follow_last: bool) -> Result<Option<Inode>, ReadError> {
        let walk = self.walk_path(path, follow_last)?;
        Ok(if walk.missing.is_empty() {
            walk.places.into_iter().next_back().map(|(_, inode)| inode)
        } else {
            None
        })
    }

    /// Follows `path` from the root, every symbolic link (also a final one, and absolute ones) beneath the root.
    pub fn resolve_path(&self, path: &RelPath) -> Result<Resolved, ReadError> {
        let mut walk = self.walk_path(path, true)?;
        let names = walk.places.iter().map(|(name, _)| name).chain(&walk.missing);
        let joined = names.map(Vec::as_slice).collect::<Vec<_>>().join(&b'/');
        let clean = RelPath::parse(&joined);
        let clean = clean.map_err(|source| ReadError::Path { path: path.to_string(), source })?;
        let found = if walk.missing.is_empty() { walk.places.pop() } else { None };
        Ok(Resolved { path: clean, inode: found.map(|(_, inode)| inode) })
    }

    fn walk_path(&self, path: &RelPath, follow_last: bool) -> Result<Walk, ReadError> {
        let ahead = path.components().rev().map(<[u8]>::to_vec).collect();
        let places = vec![(Vec::new(), self.root()?)];
        let mut walk = Walk { places, missing: Vec::new(), ahead, walked_bytes: 0 };
        let mut links = 0;
        while let Some(name) = walk.ahead.pop() {
            if name == b".." {
                walk.up();
                continue;
            }
            let Some(inode) = self.step(&mut walk, &name)? else {
                walk.missing.push(name);
                continue;
            };
            match &inode.kind {
                InodeKind::Symlink(target) if follow_last || !walk.ahead.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ReadError::LinkLoop { path: path.to_string(), limit: MAX_LINKS });
                    }
                    walk.follow(target);
                }
                _ => walk.places.push((name, inode)),
            }
        }
        Ok(walk)
    }

    /// What `name` is where the walk stands.
    fn step(&self, walk: &mut Walk, name: &[u8]) -> Result<Option<Inode>, ReadError> {
        let Some((_, inode)) = walk.places.last().filter(|_| walk.missing.is_empty()) else {
            return Ok(None);
        };
        let InodeKind::Directory(directory) = &inode.kind else { return Ok(None) };
        walk.walked_bytes += STEP_BYTES.max(directory.listing_bytes.into());
        if walk.walked_bytes > MAX_WALK_BYTES {
            let what = "bytes of directories on one path";
            return Err(ReadError::TooLarge { what, value: walk.walked_bytes, limit: MAX_WALK_BYTES });
        }
        self.lookup(inode, name)
    }
}

impl Walk {
    /// `..`: never above the root.
    fn up(&mut self) {
        if self.missing.pop().is_none() && self.places.len() > 1 {
            self.places.pop();
        }
    }

    fn follow(&mut self, target: &[u8]) {
        if target.starts_with(b"/") {
            self.places.truncate(1);
        }
        let names = target.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        self.ahead.extend(names.rev().map(<[u8]>::to_vec));
    }
}
