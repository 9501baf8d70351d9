//! The content-addressed store: blobs, refs, images. Publishing is tmp + fsync + link, and a lost race is a success.
//!
//! ```text
//! <root>/blobs/sha256/<hex>     as an OCI layout has them
//! <root>/refs/<escaped name>    small JSON: manifest and image key
//! <root>/images/<key>.sif       immutable run files
//! <root>/volumes/<name>/data/   named volumes, which are the user's own to write to
//! <root>/tmp/<host>.<pid>.<n>   in the same tree, so that a name can be given atomically
//! ```
//!
//! The tree may lie on NFS, Lustre or GPFS and be used by many nodes at once: nothing here takes a lock, replaces a
//! file that may be in use, or trusts the clock.

#![expect(clippy::disallowed_methods, reason = "the store's files are touched only here")]

mod archive;
mod blobs;
mod error;
mod fault;
mod find;
mod fresh;
mod images;
mod keep;
mod layout;
mod members;
mod outer;
mod prune;
mod refs;
mod remove;
mod save;
mod source;
#[cfg(test)]
mod tests;
mod tmp;
mod volumes;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::Digest;
use crate::sys::file::ReadFile;

pub use archive::{ArchiveImage, read_archive, read_archive_stream};
pub use blobs::BlobWriter;
pub use error::StoreError;
pub use fault::{ArchiveError, ArchiveFault};
pub use find::{FindError, Meant, StoredImage};
pub use fresh::{Fresh, Target};
pub use images::{ImageKey, ImageKeyError};
pub use keep::Keeping;
pub use layout::read_layout;
pub use prune::Usage;
pub use refs::RefRecord;
pub use remove::Removed;
pub use save::{SaveError, SavedImage};
pub use source::ImageError;
pub use volumes::{Volume, VolumeError, VolumeFacts, is_volume_name};

/// A piece of an opened file that holds one layer as it was stored or sent (maybe compressed).
#[derive(Debug, Clone)]
pub struct Layer {
    /// Digest of the bytes as stored, if somebody promised one (an archive's `layer.tar` has none).
    pub digest: Option<Digest>,
    /// sha256 of the uncompressed tar, from the image config.
    pub diff_id: Digest,
    /// The file.
    pub file: Arc<ReadFile>,
    /// Where in it the layer begins, in bytes.
    pub offset_bytes: u64,
    /// How long it is, in bytes.
    pub size_bytes: u64,
}

/// One image, all of whose blobs are at hand: what a conversion starts from.
#[derive(Debug, Clone)]
pub struct LayerSet {
    /// The name that the image was asked under, for messages and labels; empty for an untagged archive.
    pub name: String,
    /// Digest of the manifest; for an archive without one, of the config.
    pub manifest_digest: Digest,
    /// The raw image config.
    pub config: Vec<u8>,
    /// Layers, base first.
    pub layers: Vec<Layer>,
}

/// The store.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store at `root`, makes its directories where they are missing, and removes what dead writers left.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned() };
        let blobs = root.join(crate::oci::layout::BLOBS_DIRECTORY);
        let parts = [root.join("refs"), root.join("images"), store.tmp_directory()];
        let top = blobs.parent().unwrap_or(root).to_owned();
        for directory in [root.to_owned(), top, blobs].into_iter().chain(parts) {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|error| StoreError::of("create", &directory, error))?;
            check_owner(&directory)?;
        }
        tmp::remove_stale(&store.tmp_directory());
        Ok(store)
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every directory of it that may be a link to another file system, and it itself.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        let blobs = self.root.join(crate::oci::layout::BLOBS_DIRECTORY);
        let top = blobs.parent().map(Path::to_path_buf);
        let parts = ["refs", "images", "hot", "leases"].map(|name| self.root.join(name));
        [self.root.clone(), blobs, self.tmp_directory()].into_iter().chain(top).chain(parts).collect()
    }

    fn tmp_directory(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

/// An image is run as its store has it, so nobody else may be able to put one there.
fn check_owner(directory: &Path) -> Result<(), StoreError> {
    const OTHERS_WRITE: u32 = 0o022;
    let facts = fs::metadata(directory).map_err(|error| StoreError::of("read", directory, error))?;
    let (uid, _) = crate::sys::process::own_ids();
    if facts.uid() != uid {
        return Err(StoreError::Owner { path: directory.into(), owner: facts.uid(), uid });
    }
    if facts.mode() & OTHERS_WRITE != 0 {
        return Err(StoreError::Exposed { path: directory.into() });
    }
    Ok(())
}
