//! The content-addressed store: blobs, refs, images. Publishing is tmp + fsync + rename, and a lost race is a success.
//!
//! ```text
//! <root>/blobs/sha256/<hex>     as an OCI layout has them
//! <root>/refs/<escaped name>    small JSON: manifest and image key
//! <root>/images/<key>.sif       immutable run files
//! <root>/tmp/<host>.<pid>.<n>   in the same tree, so that rename is atomic
//! ```

#![expect(clippy::disallowed_methods, reason = "the store's files are touched only here")]

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::Digest;
use crate::sys::file::ReadFile;

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
