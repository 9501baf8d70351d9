//! What is kept of an entry until all layers are known: about 60 bytes, without its path.

use crate::base::limits::{XATTR_NAME_BYTES, XATTR_VALUE_BYTES};
use crate::base::tree::{FileId, Xattrs};
use crate::base::{RelPath, relpath::RelPathError};
use crate::tarlayer::{Entry, EntryKind};

use super::paths::{PathId, Paths, ROOT};

/// Prefix of the names that hide something.
const WHITEOUT: &[u8] = b".wh.";
/// Prefix of the names that aufs used for itself.
const AUFS: &[u8] = b".wh..wh.";
/// The name that hides all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The directory of aufs whose files may be targets of hard links; it never shows in an image.
pub(super) const AUFS_LINKS: &[u8] = b".wh..wh.plnk";

/// One entry of one layer.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) path: PathId,
    pub(super) kind: RecordKind,
    pub(super) meta: Meta,
}

/// Metadata as the tree keeps it.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u32,
    pub(super) xattrs: Option<Box<Xattrs>>,
}

/// What an entry does at its path.
#[derive(Debug)]
pub(super) enum RecordKind {
    Directory,
    /// A file; `None` if its content was passed by.
    File(Option<FileId>),
    Symlink(Box<[u8]>),
    /// A further name of the file at this path.
    HardLink(PathId),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    /// Hides what lower layers have at the path.
    Whiteout,
    /// Hides what lower layers have in the directory.
    Opaque,
}

/// What the name of an entry says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Something at this path.
    Plain(PathId),
    /// As [`Meaning::Plain`], in the directory of aufs.
    AufsLink(PathId),
    Whiteout(PathId),
    Opaque(PathId),
    /// Bookkeeping of aufs.
    Nothing,
}

/// Why a name has no meaning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The path leaves the image or cannot exist on Linux.
    #[error(transparent)]
    Path(#[from] RelPathError),
    /// `.wh.` with nothing, `.` or `..` behind it.
    #[error("whiteout `{path}` names nothing")]
    EmptyWhiteout {
        /// The path as written.
        path: String,
    },
    /// An entry in a directory whose name is a whiteout.
    #[error("`{path}` lies below a whiteout")]
    BelowWhiteout {
        /// The path as written.
        path: String,
    },
}

/// Reads the meaning of an entry's name.
pub(super) fn meaning(paths: &mut Paths, written: &[u8]) -> Result<Meaning, NameError> {
    let path = RelPath::parse(written)?;
    let shown = || path.to_string();
    let bytes = path.as_bytes();
    let (directory, name) = match bytes.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
        None => (&b""[..], bytes),
    };
    // Most entries stand beside the one before them.
    if let Some(parent) = paths.known_directory(directory)
        && !name.is_empty()
        && !name.starts_with(WHITEOUT)
    {
        return Ok(Meaning::Plain(paths.child(parent, name)));
    }
    let mut parent = ROOT;
    let mut is_aufs_link = false;
    let mut components = path.components().peekable();
    while let Some(name) = components.next() {
        let is_last = components.peek().is_none();
        let Some(hidden) = name.strip_prefix(WHITEOUT) else {
            parent = paths.child(parent, name);
            continue;
        };
        if parent == ROOT && name == AUFS_LINKS {
            is_aufs_link = true;
            parent = paths.child(parent, name);
            continue;
        }
        if is_last && name == OPAQUE {
            return Ok(Meaning::Opaque(parent));
        }
        if name.starts_with(AUFS) {
            return Ok(Meaning::Nothing);
        }
        if !is_last {
            return Err(NameError::BelowWhiteout { path: shown() });
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(NameError::EmptyWhiteout { path: shown() });
        }
        return Ok(Meaning::Whiteout(paths.child(parent, hidden)));
    }
    if is_aufs_link {
        return Ok(Meaning::AufsLink(parent));
    }
    if parent != ROOT {
        paths.set_known_directory(directory, parent);
    }
    Ok(Meaning::Plain(parent))
}

/// The number of a path that a hard link names.
pub(super) fn target(paths: &mut Paths, written: &[u8]) -> Result<PathId, RelPathError> {
    let path = RelPath::parse(written)?;
    Ok(path.components().fold(ROOT, |parent, name| paths.child(parent, name)))
}

impl Meta {
    /// Takes the metadata out of an entry; the error is the name of an attribute that is too large for Linux.
    pub(super) fn take(entry: &mut Entry) -> Result<Self, Vec<u8>> {
        let mut xattrs = std::mem::take(&mut entry.xattrs);
        // An image must not steer an overlay that is mounted over it, nor claim capabilities or labels.
        xattrs.retain(|(name, _)| name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
        if let Some((name, _)) = xattrs
            .iter()
            .find(|(name, value)| name.len() > XATTR_NAME_BYTES || value.len() > XATTR_VALUE_BYTES)
        {
            return Err(name.clone());
        }
        xattrs.sort_unstable();
        Ok(Self {
            mode: u16::try_from(entry.mode & 0o7777).unwrap_or(0),
            uid: u32::try_from(entry.uid).unwrap_or(u32::MAX),
            gid: u32::try_from(entry.gid).unwrap_or(u32::MAX),
            mtime: u32::try_from(entry.mtime.max(0)).unwrap_or(u32::MAX),
            xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
        })
    }

    /// Of directories that no layer lists.
    pub(super) fn of_missing_directory() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: None }
    }

    /// Bytes of attributes, for the bound on memory.
    pub(super) fn xattr_bytes(&self) -> usize {
        let xattrs = self.xattrs.as_deref().map_or(&[][..], Vec::as_slice);
        xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl RecordKind {
    /// Of an entry that is no whiteout, no hard link and no file.
    pub(super) fn of_special(kind: &EntryKind, link: Vec<u8>) -> Self {
        match *kind {
            EntryKind::Symlink => Self::Symlink(link.into_boxed_slice()),
            EntryKind::CharDevice { major, minor } => Self::CharDevice { major, minor },
            EntryKind::BlockDevice { major, minor } => Self::BlockDevice { major, minor },
            EntryKind::Fifo => Self::Fifo,
            EntryKind::Directory | EntryKind::File | EntryKind::HardLink => Self::Directory,
        }
    }
}
