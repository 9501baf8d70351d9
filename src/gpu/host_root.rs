//! The only door of this module to the host's files: every path is read below a prefix, `/` but in tests and where the
//! driver lives in a container's tree.
#![expect(clippy::disallowed_methods, reason = "gpu reads procfs, sysfs and the driver's directories")]

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::file::ReadFile;
use crate::sys::{Errno, access};

/// Most bytes of a text file that are read; procfs and sysfs files are far smaller.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Where NVIDIA's driver container shows its own tree to the host.
pub(super) const DRIVER_CONTAINER: &str = "/run/nvidia/driver";
/// Most links on one path: Linux `MAXSYMLINKS`.
const MAX_LINKS: usize = 40;

/// Where the host's tree begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoot {
    prefix: PathBuf,
    /// The directory of the host that has the driver's `dev`, where it is not `/`.
    devices: Option<PathBuf>,
}

impl Default for HostRoot {
    fn default() -> Self {
        Self::new("/")
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

impl Stamp {
    /// When it was changed last: seconds and nanoseconds since 1970.
    pub(super) fn time(self) -> (i64, i64) {
        (self.seconds, self.nanoseconds)
    }
}

impl HostRoot {
    /// The host's tree as it lies below `prefix`.
    #[must_use]
    pub fn new(prefix: impl Into<PathBuf>) -> Self {
        Self { prefix: prefix.into(), devices: None }
    }

    /// The same with the device nodes of `device_root`. If that is not said and the host's own `/dev` has none, those
    /// below `driver_root` are taken, by default a driver container's.
    #[must_use]
    pub fn with_devices(mut self, device_root: Option<&Path>, driver_root: Option<&Path>) -> Self {
        const SIGN: &str = "dev/nvidiactl";
        self.devices = match device_root {
            Some(root) => Some(root.to_path_buf()),
            None if self.exists(&Path::new("/").join(SIGN)) => None,
            None => {
                let root = driver_root.unwrap_or(Path::new(DRIVER_CONTAINER));
                self.exists(&root.join(SIGN)).then(|| root.to_path_buf())
            }
        }
        .filter(|root| root != Path::new("/"));
        self
    }

    /// The directory of the host that has the driver's `dev`, where it is not `/`.
    #[must_use]
    pub fn device_root(&self) -> Option<&Path> {
        self.devices.as_deref()
    }

    /// Where the absolute path `path` of the host is for this process.
    #[must_use]
    pub fn place(&self, path: &Path) -> PathBuf {
        let inside = path.strip_prefix("/").unwrap_or(path);
        match &self.devices {
            Some(root) if inside.starts_with("dev") => {
                self.prefix.join(root.strip_prefix("/").unwrap_or(root)).join(inside)
            }
            _ => self.prefix.join(inside),
        }
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

    pub(super) fn exists(&self, path: &Path) -> bool {
        fs::metadata(self.place(path)).is_ok()
    }

    /// True for a file that is no link, and its size.
    pub(super) fn regular_file_bytes(&self, path: &Path) -> Option<u64> {
        let facts = fs::symlink_metadata(self.place(path)).ok()?;
        facts.is_file().then_some(facts.len())
    }

    pub(super) fn is_directory(&self, path: &Path) -> bool {
        fs::metadata(self.place(path)).is_ok_and(|facts| facts.is_dir())
    }

    /// True for a program that runs with its owner's rights.
    pub(super) fn is_setuid_program(&self, path: &Path) -> bool {
        fs::metadata(self.place(path)).is_ok_and(|facts| facts.is_file() && facts.mode() & 0o4111 > 0o4000)
    }

    pub(super) fn is_socket(&self, path: &Path) -> bool {
        fs::metadata(self.place(path)).is_ok_and(|facts| facts.file_type().is_socket())
    }

    /// The path with all links resolved; `None` if it is missing.
    pub(super) fn real(&self, path: &Path) -> Option<PathBuf> {
        self.real_below(Path::new("/"), path)
    }

    /// The place on the host of the absolute path `path` of the tree that begins at `top`. Links lead beneath `top`, as
    /// they do for a process whose root that is. `None` if there is nothing.
    pub(super) fn real_below(&self, top: &Path, path: &Path) -> Option<PathBuf> {
        let names = |path: &Path| -> Vec<OsString> {
            path.components().rev().map(|name| name.as_os_str().to_owned()).collect()
        };
        let (mut ahead, mut found, mut links) = (names(path), PathBuf::new(), 0);
        while let Some(name) = ahead.pop() {
            match name.as_bytes() {
                b"/" => found.clear(),
                b"." => {}
                b".." => {
                    found.pop();
                }
                _ => match fs::read_link(self.place(&top.join(&found).join(&name))) {
                    Ok(target) => {
                        links += 1;
                        if links > MAX_LINKS {
                            return None;
                        }
                        ahead.extend(names(&target));
                    }
                    // EINVAL: it is no link.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => found.push(name),
                    Err(_) => return None,
                },
            }
        }
        Some(top.join(found))
    }

    pub(super) fn open(&self, path: &Path) -> Option<ReadFile> {
        ReadFile::new(fs::File::open(self.place(path)).ok()?).ok()
    }

    pub(super) fn stamp(&self, path: &Path) -> Option<Stamp> {
        let facts = fs::metadata(self.place(path)).ok()?;
        Some(Stamp { inode: facts.ino(), seconds: facts.mtime(), nanoseconds: facts.mtime_nsec() })
    }

    /// Who may use a node: `mode 0660, owner root, group video`, and the group that one would have to be in.
    pub(super) fn owners(&self, path: &Path) -> Option<(String, Option<String>)> {
        let facts = fs::metadata(self.place(path)).ok()?;
        let name = |file: &str, id: u32| {
            let text = self.read(file).unwrap_or_default();
            let line = text.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string()));
            line.and_then(|line| line.split(':').next()).map_or_else(|| id.to_string(), str::to_owned)
        };
        let (owner, group) = (name("/etc/passwd", facts.uid()), name("/etc/group", facts.gid()));
        let words = format!("mode {:04o}, owner {owner}, group {group}", facts.mode() & 0o7777);
        Some((words, (facts.mode() & 0o060 == 0o060).then_some(group)))
    }

    /// True if `path` lies on a mount with `nodev`.
    pub(super) fn forbids_devices(&self, path: &Path) -> bool {
        access::forbids_devices(&self.place(path)).unwrap_or_default()
    }

    /// True for a program that runs as its owner, root.
    pub(super) fn is_setuid_root(&self, path: &Path) -> bool {
        fs::metadata(self.place(path)).is_ok_and(|facts| facts.uid() == 0 && facts.mode() & 0o4001 == 0o4001)
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
