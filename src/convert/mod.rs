//! Layers → squashfs → SIF in one pass: nothing is unpacked, nothing is published before all digests match.

use std::path::Path;

use crate::store::LayerSet;

/// How to convert.
#[derive(Debug, Clone)]
pub struct Options {
    /// Compressor of the squashfs.
    pub compressor: crate::squashfs::compress::Compressor,
    /// Compressing threads, at least 1.
    pub threads: usize,
    /// Most entries of all layers together.
    pub max_entries: u64,
}

/// What a conversion did.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// Bytes of the SIF.
    pub sif_bytes: u64,
    /// Bytes of all uncompressed layer tars.
    pub tar_bytes: u64,
    /// Entries of all layers.
    pub entries: u64,
}

/// Why a conversion failed.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// Not there yet.
    #[error("not implemented")]
    Missing,
}

/// Converts into the new file `target`, which appears only when it is whole.
pub fn convert(_layers: &LayerSet, _target: &Path, _options: &Options) -> Result<Report, ConvertError> {
    Err(ConvertError::Missing)
}
