//! What can go wrong with the store's files, in words.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::{Digest, Hint};

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system is full.
    #[error("cannot {action} `{path}`: no space is left on that file system")]
    NoSpace {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
    },
    /// The user's or the project's quota is used up.
    #[error("cannot {action} `{path}`: the disk quota is used up")]
    Quota {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
    },
    /// Not allowed, or a file system mounted read-only.
    #[error("cannot {action} `{path}`: {source}")]
    Permission {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Any other failure of the file system.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Somebody else could put images into it.
    #[error("the store's directory `{path}` belongs to user {owner}, not to user {uid}")]
    Owner {
        /// The store's directory, or one in it.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// Others could put images into it.
    #[error("the store's directory `{path}` can be written by other users")]
    Exposed {
        /// The store's directory, or one in it.
        path: PathBuf,
    },
    /// Other bytes than promised.
    #[error("the blob {expected} arrived with other content: its sha256 is {got}")]
    Digest {
        /// What was promised.
        expected: Digest,
        /// What came.
        got: Digest,
    },
    /// More or fewer bytes than promised.
    #[error("the blob {} should have {expected_bytes} bytes, but {got}", named(.digest))]
    Size {
        /// The blob, if it was promised under a name.
        digest: Option<Digest>,
        /// What was promised.
        expected_bytes: u64,
        /// `N came` or `more came`.
        got: String,
    },
    /// A blob that should be in the store has been changed on disk.
    #[error("the stored blob `{path}` is damaged: its sha256 is {got}")]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// What its bytes have.
        got: Digest,
    },
    /// Larger than any document of its kind.
    #[error("the file `{path}` has {size_bytes} bytes, more than the limit of {limit_bytes}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        size_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// A ref's file is not what this program writes.
    #[error("the file `{path}` is not a valid ref: {source}")]
    Ref {
        /// The ref's file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// A ref of a newer program.
    #[error("the ref `{path}` has version {version}, and this program knows {known}")]
    RefVersion {
        /// The ref's file.
        path: PathBuf,
        /// Its version.
        version: u64,
        /// Ours.
        known: u64,
    },
}

impl StoreError {
    /// Sorts a failure of the file system by what its reader can do about it.
    pub(crate) fn of(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull => Self::NoSpace { action, path },
            io::ErrorKind::QuotaExceeded => Self::Quota { action, path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { action, path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// The same for a caller that can only pass an `io::Error` on; the kind survives.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::NoSpace { .. } => io::ErrorKind::StorageFull,
            Self::Quota { .. } => io::ErrorKind::QuotaExceeded,
            Self::Permission { source, .. } | Self::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }
}

fn named(digest: &Option<Digest>) -> String {
    digest.map_or_else(|| "without a digest".into(), |digest| digest.to_string())
}

impl Hint for StoreError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSpace { .. } => {
                "free some space there, or put the store on another file system with the key `store.dir`".into()
            }
            Self::Quota { .. } => {
                "delete something, ask for a larger quota, or put the store on another file system with the key `store.dir`".into()
            }
            Self::Owner { .. } => "give a directory of your own as the key `store.dir`".into(),
            Self::Exposed { path } => format!("run `chmod go-w {}`", path.display()),
            Self::Digest { .. } | Self::Size { .. } => {
                "try again; if it stays so, a proxy on the way or the source itself is broken".into()
            }
            Self::Damaged { path, .. } => format!("delete `{}` and pull the image again", path.display()),
            Self::RefVersion { .. } => "use the newer slipway that wrote it, or pull the image again".into(),
            Self::Ref { path, .. } => format!("delete `{}` and pull the image again", path.display()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => {
                "raise `ulimit -f`".into()
            }
            Self::Permission { .. } | Self::Io { .. } | Self::TooLarge { .. } => return None,
        })
    }
}
