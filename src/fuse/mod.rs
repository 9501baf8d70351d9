//! Our FUSE server: a read-only squashfs served on `/dev/fuse` by several threads.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::base::{ReadAt, RelPath};

/// What a synthesised mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyntheticKind {
    /// Empty directory.
    Directory,
    /// Empty file.
    File,
}

/// A mount point that the server shows although the image lacks it; missing parents are directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthetic {
    /// Place below the image's root, links resolved.
    pub path: RelPath,
    /// Directory or file.
    pub kind: SyntheticKind,
}

/// What to serve, and how.
pub struct ServerSpec {
    /// The squashfs.
    pub image: Arc<dyn ReadAt>,
    /// Mount points to add.
    pub synthetic: Vec<Synthetic>,
    /// Every file is shown as owned by this user.
    pub uid: u32,
    /// And this group.
    pub gid: u32,
    /// Memory for decompressed blocks, in bytes.
    pub cache_bytes: usize,
    /// Answer OPEN and OPENDIR with ENOSYS, so that the kernel stops asking.
    pub no_open: bool,
}

impl std::fmt::Debug for ServerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerSpec").field("synthetic", &self.synthetic).finish_non_exhaustive()
    }
}

/// Why an image cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The image is damaged.
    #[error(transparent)]
    Image(#[from] crate::squashfs::read::ReadError),
    /// The kernel's side failed.
    #[error("serving the file system: {errno}")]
    Device {
        /// The cause.
        errno: crate::sys::Errno,
    },
}

/// A loaded image, ready to serve.
#[derive(Debug)]
pub struct Server {}

impl Server {
    /// Loads all metadata.
    pub fn load(_spec: ServerSpec) -> Result<Self, ServeError> {
        Ok(Self {})
    }

    /// Serves until the kernel ends the connection (ENODEV): one thread for each fd.
    pub fn run(self, _devices: Vec<OwnedFd>) -> Result<(), ServeError> {
        Ok(())
    }
}
