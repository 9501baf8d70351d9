//! Files of containers: copying in and out, what has changed, the whole root as a tar.
//!
//! Work inside a container is done by a child process whose root *is* the container's: it has joined a running one's
//! namespaces, or has built the root of a stopped one anew. So a link of the container leads nowhere else. What it reads goes
//! as a tar through a pipe to this process, which never opens a path of the container itself.
//!
//! ```text
//! slipway cp ──┬── fork, join ──▶ in the container: pack or unpack
//!              │        ▲ ▼ tar through a pipe, words as JSON over a socket
//!              └── unpack or pack, as the caller, on the host
//! ```

mod changes;
mod copy;
mod inside;
mod pack;
mod unpack;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::Hint;
use crate::sys::Errno;

pub use changes::{Change, ChangeKind, ChangeStream, changed_bytes, changes, pack_changes};
pub use copy::{copy_in, copy_in_tar, copy_out, copy_out_tar, export};
pub use inside::Place;

/// Why files could not be copied. It travels from the child as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CopyError {
    /// Nothing is there.
    #[error("could not find the file `{}` in {whose}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// `container NAME`, or `this host`.
        whose: String,
    },
    /// A directory on a file.
    #[error("cannot copy directory: `{}` is a file", path.display())]
    DirectoryOnFile {
        /// The file.
        path: PathBuf,
    },
    /// A file where only a directory can be.
    #[error("the destination directory `{}` must exist", path.display())]
    NoDirectory {
        /// The place.
        path: PathBuf,
    },
    /// Below the destination something else has the place.
    #[error("cannot overwrite `{}`: {why}", path.display())]
    InTheWay {
        /// The place.
        path: PathBuf,
        /// What is there, and what was to come.
        why: String,
    },
    /// A container that cannot be written to.
    #[error("cannot write `{}`: its place in the container is read-only", path.display())]
    ReadOnly {
        /// The place.
        path: PathBuf,
    },
    /// A step that the kernel refused.
    #[error("cannot {act} `{}`: {words}", path.display())]
    Step {
        /// What was attempted.
        act: String,
        /// On which file.
        path: PathBuf,
        /// The kernel's reason.
        words: String,
    },
    /// An archive that cannot be read, or that must not be.
    #[error("the archive cannot be unpacked: {words}")]
    Archive {
        /// Why.
        words: String,
    },
    /// The other side ended without a word.
    #[error("the process inside the container was killed")]
    Killed,
    /// Writing a stream failed.
    #[error("cannot pass the files on: {words}")]
    Stream {
        /// The system's reason.
        words: String,
    },
    /// A container whose changes are not on disk.
    #[error("the changes of container `{name}` are not kept: {why}")]
    NoChanges {
        /// The container.
        name: String,
        /// Why they are not.
        why: String,
    },
}

impl CopyError {
    fn step(act: &str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Self {
        let path = path.as_ref().to_path_buf();
        move |errno| match errno {
            Errno::EROFS => Self::ReadOnly { path },
            errno => Self::Step { act: act.into(), path, words: format!("{} ({errno:?})", errno.desc()) },
        }
    }

    fn stream(error: &std::io::Error) -> Self {
        Self::Stream { words: error.to_string() }
    }
}

impl Hint for CopyError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ReadOnly { .. } => {
                "start the container with `--writable-tmpfs`, or bind a directory with `-v` and copy there"
                    .into()
            }
            Self::NoDirectory { .. } => "leave the `/` at its end out, or make it first".into(),
            Self::NoChanges { .. } => "start it with `slipway run -d --writable-tmpfs`".into(),
            _ => return None,
        })
    }
}
