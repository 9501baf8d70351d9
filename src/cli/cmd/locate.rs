//! From the word that names an image to its run file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::reference::ImageRef;
use crate::store::Store;
use crate::sys::process::WaitableChildren;

use super::Session;
use crate::cli::failure::Failure;

/// A word that begins with `/` or `.`, ends in `.sif`, `.sqsh` or `.squashfs`, or names a file that exists, is a file;
/// any other is an image name, looked up in the store and pulled if it is not there.
pub(super) fn run_file(word: &OsStr, session: &Session) -> Result<PathBuf, Failure> {
    let path = Path::new(word);
    let named_as_file = [b"/".as_slice(), b"."].iter().any(|start| word.as_bytes().starts_with(start))
        || [b".sif".as_slice(), b".sqsh", b".squashfs"].iter().any(|end| word.as_bytes().ends_with(end));
    if named_as_file || path.is_file() {
        return Ok(path.to_path_buf());
    }
    let text = word.to_str().ok_or_else(|| {
        Failure::new(format!("`{}` is not an image name", word.to_string_lossy()), "names are plain ASCII")
    })?;
    let reference = ImageRef::parse(text)?;
    let store = session.store()?;
    if let Some(path) = stored(&store, &reference)? {
        return Ok(path);
    }
    pull_in_child(text)?;
    stored(&store, &reference)?
        .ok_or_else(|| Failure::new(format!("`{text}` was pulled but is not in the store"), None))
}

fn stored(store: &Store, reference: &ImageRef) -> Result<Option<PathBuf>, Failure> {
    let record = store.get_ref(&reference.to_string())?;
    let key = record.and_then(|record| record.image);
    Ok(key.filter(|key| store.has_image(key)).map(|key| store.image_path(&key)))
}

/// Pulling starts threads, and the launcher must have none: a child does it. Its words go to standard error, so that
/// standard output stays the workload's.
fn pull_in_child(name: &str) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot start a child to pull `{name}`: {error}"), None)
    };
    let _waitable = WaitableChildren::new().map_err(|errno| failed(&errno))?;
    let status = Command::new("/proc/self/exe")
        .args(["pull", "--quiet", name])
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| failed(&error))?;
    // The child has said why.
    if status.success() { Ok(()) } else { Err(Failure::quiet_own()) }
}
