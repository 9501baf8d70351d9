//! Where hot lists lie.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Session;
use crate::cli::args::RunArgs;

/// Where the hot list of an image and a program is: in the store for an image of the store, where it is made by itself,
/// and beside any other, where it is made on demand only.
pub(super) fn list(image: &Path, args: &RunArgs, command: &[OsString], session: &Session) -> Option<PathBuf> {
    /// Longest name of a program in a file name, in bytes.
    const MAX_PROGRAM_BYTES: usize = 64;
    let program = command.first().and_then(|word| Path::new(word).file_name()).unwrap_or_default();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+-".contains(byte);
    let mut list = image.file_name()?.to_os_string();
    list.push(".");
    list.push(if !program.is_empty() && program.as_bytes().iter().all(plain) {
        program
    } else {
        "run".as_ref()
    });
    if list.len() > image.file_name()?.len() + MAX_PROGRAM_BYTES {
        return None;
    }
    let store = &session.settings.store.dir.value;
    if image.starts_with(store) {
        return Some(store.join("hot").join(list));
    }
    list.push(".hot");
    let beside = image.with_file_name(list);
    let cwd = std::env::current_dir().ok()?;
    (args.record_hot || beside.exists()).then(|| cwd.join(beside))
}
