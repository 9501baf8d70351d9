//! A fence around the verbs that talk to registries or read bytes of strangers: pull, push, load and convert write to the
//! store and to their target, and nowhere else, and start nothing.

use std::path::Path;

use super::Session;
use crate::cli::failure::Failure;
use crate::cli::term;
use crate::sys::landlock::{self, Fence};

/// Puts this process behind the fence, before it has threads. `target` is the directory of a file to be made.
///
/// A login helper is a program of others and may need more: where one is configured there is no fence.
pub(super) fn enclose(session: &Session, target: Option<&Path>) -> Result<(), Failure> {
    if session.credentials().name_helpers() {
        return Ok(());
    }
    let places = session.store()?.directories();
    let mut writes: Vec<&Path> = places.iter().map(AsRef::as_ref).collect();
    // A terminal may be opened by name, and what is thrown away goes there.
    writes.extend(["/dev/tty", "/dev/null"].map(Path::new));
    writes.extend(target.map(|target| if target.as_os_str().is_empty() { Path::new(".") } else { target }));
    if let Err(errno) = landlock::enclose(&Fence { reads_all: true, writes: &writes }) {
        // It is a second fence: the work is right without it.
        term::warn(&format!("this process could not give up rights on files: {}", errno.desc()));
    }
    Ok(())
}
