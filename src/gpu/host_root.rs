//! The only door of this module to the host's files: every path is read below a prefix, `/` but in tests and where the
//! driver lives in a container's tree.
#![expect(clippy::disallowed_methods, reason = "gpu reads procfs, sysfs and the driver's directories")]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::file::ReadFile;
use crate::sys::{Errno, access};

/// Most bytes of a text file that are read; procfs and sysfs files are far smaller.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Where the host's tree begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoot {
    prefix: PathBuf,
}

impl Default for HostRoot {
    fn default() -> Self {
        Self { prefix: "/".into() }
    }
}

/// The kernel's answer to whether this user may use a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeAccess {
    /// It may be read and written.
    Open,
    /// The device cgroup denies it (EPERM): it is another job's.
    DeniedByCgroup,
    /// Mode, owner or group deny it (EACCES).
    DeniedByMode,
    /// There is no such node.
    Missing,
    /// The node is on a mount with `nodev`, so every open fails.
    OnNodev,
    /// Another error.
    Unusable,
}

impl NodeAccess {
    /// Why the node cannot be used, as a fragment.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Open => "it may be used",
            Self::DeniedByCgroup => "the device cgroup denies its node (EPERM)",
            Self::DeniedByMode => "mode or group of its node deny it (EACCES)",
            Self::Missing => "it has no device node",
            Self::OnNodev => "its node is on a mount with nodev",
            Self::Unusable => "its node cannot be used",
        }
    }

    /// True if somebody decided that this user shall not have it.
    #[must_use]
    pub fn is_denied(self) -> bool {
        matches!(self, Self::DeniedByCgroup | Self::DeniedByMode)
    }
}

/// Says that a file or directory has been replaced or changed, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl HostRoot {
    /// The host's tree as it lies below `prefix`.
    #[must_use]
    pub fn new(prefix: impl Into<PathBuf>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Where the absolute path `path` of the host is for this process.
    #[must_use]
    pub fn place(&self, path: &Path) -> PathBuf {
        self.prefix.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A small text file.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        String::from_utf8(self.read_bytes(path, MAX_TEXT_BYTES)?).ok()
    }

    /// A whole file; `None` if it is missing or larger than `max_bytes`.
    pub(super) fn read_bytes(&self, path: &str, max_bytes: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.place(Path::new(path))).ok()?;
        file.take(max_bytes.checked_add(1)?).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= max_bytes).then_some(bytes)
    }

    /// The names in a directory, sorted; none if it is missing.
    pub(super) fn list(&self, path: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.place(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// Whether something is a directory; `None` if it is not there.
    pub(super) fn is_directory(&self, path: &Path) -> Option<bool> {
        fs::metadata(self.place(path)).ok().map(|facts| facts.is_dir())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        fs::metadata(self.place(path)).is_ok()
    }

    /// True for a file that is no link, and its size.
    pub(super) fn regular_file_bytes(&self, path: &Path) -> Option<u64> {
        let facts = fs::symlink_metadata(self.place(path)).ok()?;
        facts.is_file().then_some(facts.len())
    }

    pub(super) fn is_socket(&self, path: &Path) -> bool {
        fs::metadata(self.place(path)).is_ok_and(|facts| facts.file_type().is_socket())
    }

    /// The path with all links resolved; `None` if it is missing or leaves the tree.
    pub(super) fn real(&self, path: &Path) -> Option<PathBuf> {
        let prefix = fs::canonicalize(&self.prefix).ok()?;
        let real = fs::canonicalize(self.place(path)).ok()?;
        real.strip_prefix(&prefix).ok().map(|inside| Path::new("/").join(inside))
    }

    pub(super) fn open(&self, path: &Path) -> Option<ReadFile> {
        ReadFile::new(fs::File::open(self.place(path)).ok()?).ok()
    }

    pub(super) fn stamp(&self, path: &Path) -> Option<Stamp> {
        let facts = fs::metadata(self.place(path)).ok()?;
        Some(Stamp { inode: facts.ino(), seconds: facts.mtime(), nanoseconds: facts.mtime_nsec() })
    }

    /// Asks the kernel about a device node by access(2) and statvfs(2), without opening it.
    ///
    /// Below another prefix than `/` the file stands for the node, whatever it is and wherever it lies.
    pub(super) fn node_access(&self, path: &Path) -> NodeAccess {
        self.ask(path, access::may_read_and_write)
    }

    /// The same of a node that is only read, as capability nodes are.
    pub(super) fn node_readable(&self, path: &Path) -> NodeAccess {
        self.ask(path, access::may_read)
    }

    fn ask(&self, path: &Path, may: fn(&Path) -> crate::sys::Result<()>) -> NodeAccess {
        let place = self.place(path);
        match may(&place) {
            Ok(()) if self.prefix != Path::new("/") => NodeAccess::Open,
            Ok(()) => match access::forbids_devices(&place) {
                Ok(false) => NodeAccess::Open,
                Ok(true) => NodeAccess::OnNodev,
                Err(_) => NodeAccess::Unusable,
            },
            Err(Errno::EPERM) => NodeAccess::DeniedByCgroup,
            Err(Errno::EACCES) => NodeAccess::DeniedByMode,
            Err(Errno::ENOENT | Errno::ENOTDIR) => NodeAccess::Missing,
            Err(_) => NodeAccess::Unusable,
        }
    }
}
