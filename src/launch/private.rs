//! Work on the caller's own files as their root: no mode of theirs is in the way. A child does it in a user namespace of its
//! own, where one is to be had.

use std::io::{PipeReader, Read as _, Write as _};

use crate::sys::ns::{self, IdMap, Isolation, SingleThreaded};
use crate::sys::process::Child;
use crate::sys::{Errno, Result, process, to_errno};

/// Longest answer of the child, in bytes.
const ANSWER_BYTES: u64 = 256 << 20;

/// The child.
#[derive(Debug)]
pub struct PrivateView {
    child: Child,
    answer: PipeReader,
}

impl PrivateView {
    /// Waits for the child, and gives what it says; `None` if it was killed.
    #[must_use]
    pub fn finish(self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let read = self.answer.take(ANSWER_BYTES).read_to_end(&mut text);
        let code = process::wait(self.child).ok()?;
        (read.is_ok() && code == 0).then_some(text)
    }
}

/// Starts a child that does `work` and says what that gives.
pub fn private_view(work: impl FnOnce() -> Vec<u8>) -> Result<PrivateView> {
    let witness = SingleThreaded::witness().ok_or(Errno::EINVAL)?;
    let (answer, theirs) = std::io::pipe().map_err(to_errno)?;
    let mut theirs = Some(theirs);
    let child = process::fork_child(&witness, || {
        process::set_name(c"slipway-files");
        become_root_of_own_files();
        let text = work();
        theirs.take().map_or(1, |mut theirs| i32::from(theirs.write_all(&text).is_err()))
    })?;
    drop(theirs);
    Ok(PrivateView { child, answer })
}

/// Without user namespaces the modes hold, and a file that they close is told.
fn become_root_of_own_files() {
    let (uid, gid) = process::own_ids();
    let Some(witness) = SingleThreaded::witness().filter(|_| uid != 0) else { return };
    if ns::unshare_user_and_mount(&witness, Isolation::default()).is_ok() {
        let map = IdMap { uid_outside: uid, uid_inside: uid, gid_outside: gid, gid_inside: gid };
        // Without maps every file is nobody's: the first that is opened tells.
        let _ = ns::write_id_maps(&map);
    }
}
