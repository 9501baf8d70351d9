//! An unpacked tree as the root: the tree itself, which is shared, with the mount points that it lacks in a layer below.
//!
//! ```text
//! overlay   [upper: changes]  >  the tree  >  a tmpfs with empty directories and files
//! ```
//!
//! A directory that both have looks as the tree has it, so that the tree is shown as it is and stays as it is.

use std::path::{Path, PathBuf};

use crate::plan::{MountPoint, PathKind, Upper};
use crate::sys::{self, Errno, mount};

use super::apply::{LOWER, MERGED, STAGING, make_directory, make_file, make_scratch, upper_directories};

/// Mounts the tree on a staging directory and gives the place of the root.
pub(super) fn mount(
    directory: &Path,
    mount_points: &[MountPoint],
    upper: Option<&Upper>,
) -> sys::Result<PathBuf> {
    let mut result = Err(Errno::ENOENT);
    for place in STAGING.map(Path::new) {
        // Mounting over a directory that holds a layer would hide it.
        let is_above = |path: &Path| path.starts_with(place);
        if is_above(directory) || matches!(upper, Some(Upper::Directory { path }) if is_above(path)) {
            continue;
        }
        result = make_scratch(place, upper).map(|()| place);
        if !matches!(result, Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES)) {
            break;
        }
    }
    let scratch = result?;
    let lower = scratch.join(LOWER);
    for MountPoint { path, kind } in mount_points {
        make_mount_point(&lower, path, *kind)?;
    }
    let merged = scratch.join(MERGED);
    let changes = upper.map(|upper| upper_directories(scratch, upper)).transpose()?;
    let changes = changes.as_ref().map(|(changes, work)| (changes.as_path(), work.as_path()));
    mount::overlay(&[directory, &lower], changes, &merged)?;
    Ok(merged)
}

/// An empty directory or file below `lower`, with the directories above it.
fn make_mount_point(lower: &Path, path: &crate::base::RelPath, kind: PathKind) -> sys::Result<()> {
    let target = lower.join(path.as_path());
    let below: Vec<_> = target.ancestors().take_while(|above| *above != lower).collect();
    below.iter().skip(1).rev().try_for_each(|above| make_directory(above))?;
    match kind {
        PathKind::Directory => make_directory(&target),
        PathKind::File => make_file(&target, 0o644, &[]),
    }
}
