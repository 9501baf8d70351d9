//! Why an image could not be unpacked.

use std::path::{Path, PathBuf};

use crate::base::Hint;
use crate::base::sizes::human_size;
use crate::host::PrivateError;
use crate::squashfs::read::ReadError;
use crate::sys::Errno;

/// Why an image could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The directory of all trees is not there and cannot be made, or is not safe.
    #[error("cannot unpack images on this node: {source}")]
    Directory {
        /// Why.
        source: PrivateError,
    },
    /// The directory of all trees, or a tree in it, could not be worked on.
    #[error("cannot {act} `{}`: {} ({errno:?})", path.display(), errno.desc())]
    Place {
        /// What was attempted.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        errno: Errno,
    },
    /// Not enough room.
    #[error(
        "cannot unpack `{}` to `{}`: it takes {}, and {} are free there",
        image.display(), directory.display(), human_size(*need_bytes), human_size(*free_bytes)
    )]
    NoRoom {
        /// The image's file.
        image: PathBuf,
        /// Where to.
        directory: PathBuf,
        /// What its files take, in bytes.
        need_bytes: u64,
        /// What is free, in bytes.
        free_bytes: u64,
    },
    /// Not enough file numbers.
    #[error(
        "cannot unpack `{}` to `{}`: it has {need_files} files, and there is room for {free_files} there",
        image.display(), directory.display()
    )]
    TooManyFiles {
        /// The image's file.
        image: PathBuf,
        /// Where to.
        directory: PathBuf,
        /// How many files it has.
        need_files: u64,
        /// How many more the file system can have.
        free_files: u64,
    },
    /// A file could not be written.
    #[error(
        "cannot unpack `{}` to `{}`: writing `/{path}`, after {} of {}: {} ({errno:?})",
        image.display(), directory.display(), human_size(*done_bytes), human_size(*need_bytes), errno.desc()
    )]
    Write {
        /// The image's file.
        image: PathBuf,
        /// Where to.
        directory: PathBuf,
        /// The path in the image.
        path: String,
        /// What had been written, in bytes.
        done_bytes: u64,
        /// What its files take, in bytes.
        need_bytes: u64,
        /// The cause.
        errno: Errno,
    },
    /// The image is damaged.
    #[error("cannot unpack `{}`: reading `/{path}`: {source}", image.display())]
    Read {
        /// The image's file.
        image: PathBuf,
        /// The path in the image.
        path: String,
        /// The cause.
        source: ReadError,
    },
    /// The process that unpacks did not do its work.
    #[error("cannot unpack `{}`: the process that does it {how}", image.display())]
    Child {
        /// The image's file.
        image: PathBuf,
        /// How it ended, or why it did not start.
        how: String,
    },
    /// What the process that unpacks has said.
    #[error("{message}")]
    Told {
        /// Its words.
        message: String,
        /// Its hint.
        hint: Option<String>,
    },
}

impl UnpackError {
    /// An errno of something done to a path.
    pub(super) fn place(act: &'static str, path: &Path) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Place { act, path: path.to_path_buf(), errno }
    }
}

impl Hint for UnpackError {
    fn hint(&self) -> Option<String> {
        const ELSEWHERE: &str =
            "set `launch.unpack_dir` (SLIPWAY_LAUNCH_UNPACK_DIR) to a directory on a local disk";
        match self {
            Self::NoRoom { .. } | Self::TooManyFiles { .. } => Some(format!("{ELSEWHERE} with more room")),
            Self::Write { errno: Errno::EFBIG, .. } => Some("raise `ulimit -f`".into()),
            Self::Write { errno: Errno::EMFILE | Errno::ENFILE, .. } => Some("raise `ulimit -n`".into()),
            Self::Write { .. } | Self::Directory { .. } | Self::Place { .. } => Some(ELSEWHERE.into()),
            Self::Read { .. } => Some("make the image anew with `slipway pull` or `slipway convert`".into()),
            Self::Child { .. } => Some("start it again".into()),
            Self::Told { hint, .. } => hint.clone(),
        }
    }
}
