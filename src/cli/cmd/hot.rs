//! Where hot lists lie.
#![expect(clippy::disallowed_methods, reason = "looks for the lists of an image")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Session;
use crate::cli::args::RunArgs;

/// Ends the name of a list that lies beside its image.
const ENDING: &str = ".hot";
/// The program of a list that was recorded of a start without a plain name.
const NO_PROGRAM: &str = "run";

/// Where the list of an image that is no store's is.
pub(super) fn beside(image: &Path, program: &str) -> PathBuf {
    let mut name = image.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{program}{ENDING}"));
    image.with_file_name(name)
}

/// All lists of an image, with their programs, sorted by those.
pub(super) fn lists_of(image: &Path, session: &Session) -> Vec<(String, PathBuf)> {
    let in_store = session.settings.store.dir.value.join("hot");
    let is_stored = image.starts_with(&session.settings.store.dir.value);
    let directory = if is_stored { in_store } else { image.with_file_name("") };
    let directory = if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory };
    let (prefix, ending) = (prefix_of(image), if is_stored { "" } else { ENDING });
    let mut lists = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let program = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(ending));
        if let Some(program) = program.filter(|program| !program.is_empty()) {
            lists.push((program.to_owned(), entry.path()));
        }
    }
    lists.sort();
    lists
}

/// The program that a list is of, by its name.
pub(super) fn program_of(list: &Path, image: &Path) -> String {
    let name = list.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let program = name.strip_prefix(&prefix_of(image)).map(|rest| rest.strip_suffix(ENDING).unwrap_or(rest));
    program.filter(|program| !program.is_empty()).unwrap_or(NO_PROGRAM).to_owned()
}

fn prefix_of(image: &Path) -> String {
    format!("{}.", image.file_name().and_then(|name| name.to_str()).unwrap_or_default())
}

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
        NO_PROGRAM.as_ref()
    });
    if list.len() > image.file_name()?.len() + MAX_PROGRAM_BYTES {
        return None;
    }
    let store = &session.settings.store.dir.value;
    if image.starts_with(store) {
        return Some(store.join("hot").join(list));
    }
    list.push(ENDING);
    let beside = image.with_file_name(list);
    let cwd = std::env::current_dir().ok()?;
    (args.record_hot || beside.exists()).then(|| cwd.join(beside))
}
