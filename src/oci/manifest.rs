//! Manifests and indexes, OCI and Docker v2.2, told apart by their shape.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::base::{Digest, Hint};

use super::{Platform, media, null_default};

/// A pointer to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type as written; may be empty.
    #[serde(default, deserialize_with = "null_default")]
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
    /// Other places that have the blob (foreign layers).
    #[serde(default, deserialize_with = "null_default")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// Whether the type is one of a file system layer.
    #[must_use]
    pub fn is_layer(&self) -> bool {
        media::is_layer(&self.media_type)
    }

    /// Whether the type says that this is an index; a generic type says nothing, then [`Document::parse`] decides.
    #[must_use]
    pub fn is_index(&self) -> bool {
        media::is_index(&self.media_type)
    }

    /// Whether this index entry belongs to an image without being one: `BuildKit`'s provenance and SBOM manifests.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        self.annotation("vnd.docker.reference.type").is_some()
            || self.platform.as_ref().is_some_and(Platform::is_unknown)
    }

    /// Whether this index entry may lead to an image: neither attestation nor artifact nor a type that is not known.
    #[must_use]
    pub fn is_image_candidate(&self) -> bool {
        let known =
            self.is_index() || media::is_manifest(&self.media_type) || media::is_generic(&self.media_type);
        // A referrers list names the config's type here, also for an image.
        let artifact = self.artifact_type.as_deref().is_some_and(|kind| !media::is_image_config(kind));
        known && !artifact && !self.is_attestation()
    }

    /// The annotation of that name.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

/// An image manifest.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// The image config.
    pub config: Descriptor,
    /// Layers, base first.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// Set on artifacts.
    #[serde(default, rename = "artifactType")]
    pub artifact_type: Option<String>,
}

impl Manifest {
    /// Whether this is a container image, and not an artifact (chart, model, SBOM) kept in a registry.
    #[must_use]
    pub fn is_image(&self) -> bool {
        media::is_image_config(&self.config.media_type)
            && self.artifact_type.as_deref().is_none_or(media::is_image_config)
            && (self.layers.is_empty() || self.layers.iter().any(Descriptor::is_layer))
    }
}

/// An index (manifest list).
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Index {
    /// Its entries that can be read.
    pub manifests: Vec<Descriptor>,
    /// Why other entries cannot be read, such as a digest algorithm that is not known here.
    #[serde(skip)]
    pub unreadable: Vec<String>,
}

/// Either kind, told apart by shape.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
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
    /// Larger than any reader takes.
    #[error("the {kind} has {size_bytes} bytes, more than the limit of {limit_bytes}")]
    TooLarge {
        /// `manifest` or `index`.
        kind: &'static str,
        /// Its length.
        size_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// More entries than any reader takes.
    #[error("the index has {count} entries, more than the limit of {limit}")]
    TooManyEntries {
        /// How many.
        count: usize,
        /// What is allowed.
        limit: usize,
    },
    /// One document that two readers would read as two things.
    #[error("the document is a manifest and an index at once (it has `manifests` beside `{field}`)")]
    Ambiguous {
        /// The field that does not belong to an index.
        field: &'static str,
    },
    /// Says one thing and is another.
    #[error("the document calls itself `{media_type}`, but it has the shape of {shape}")]
    Mislabelled {
        /// Its `mediaType`.
        media_type: String,
        /// What it looks like.
        shape: &'static str,
    },
    /// Docker's format of 2015.
    #[error("the manifest has Docker's schema 1, which registries and Docker gave up")]
    Schema1,
    /// JSON, but neither of the two.
    #[error(
        "the document is neither a manifest nor an index (it has neither `manifests` nor `layers` with `config`)"
    )]
    Neither,
    /// A manifest where only an index can stand.
    #[error("an index was expected, but this is an image manifest")]
    NotIndex,
}

impl Hint for DocumentError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Schema1 => Some(
                "ask its author to build it again, or push it again with a Docker of version 20 to 24".into(),
            ),
            _ => None,
        }
    }
}

/// The fields that tell the shapes apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: Option<serde_json::Value>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<IgnoredAny>,
    #[serde(default)]
    config: Option<IgnoredAny>,
    #[serde(default)]
    layers: Option<IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Parses raw bytes; a document with both `manifests` and `layers` is refused (CVE-2021-41190), and so is schema 1.
    pub fn parse(raw: &[u8]) -> Result<Self, DocumentError> {
        let size_bytes = raw.len() as u64;
        check_size("index", size_bytes, media::INDEX_LIMIT_BYTES)?;
        let raw = super::without_bom(raw);
        let shape: Shape = serde_json::from_slice(raw)?;
        let media_type = shape.media_type.unwrap_or_default();

        let is_one = shape.schema_version.is_some_and(|version| version == 1);
        if is_one || shape.fs_layers.is_some() || media::is_schema1(&media_type) {
            return Err(DocumentError::Schema1);
        }
        let image_field = shape.layers.map(|_| "layers").or(shape.config.map(|_| "config"));
        match (shape.manifests.is_some(), image_field) {
            (true, Some(field)) => Err(DocumentError::Ambiguous { field }),
            (true, None) if media::is_manifest(&media_type) => {
                Err(DocumentError::Mislabelled { media_type, shape: "an index" })
            }
            (true, None) => Ok(Self::Index(parse_index(raw)?)),
            (false, Some(_)) if media::is_index(&media_type) => {
                Err(DocumentError::Mislabelled { media_type, shape: "an image manifest" })
            }
            (false, Some(_)) => {
                check_size("manifest", size_bytes, media::MANIFEST_LIMIT_BYTES)?;
                Ok(Self::Manifest(serde_json::from_slice(raw)?))
            }
            // An empty list is `null` where a Go program wrote it.
            (false, None) if media::is_index(&media_type) => Ok(Self::Index(Index::default())),
            (false, None) => Err(DocumentError::Neither),
        }
    }
}

fn check_size(kind: &'static str, size_bytes: u64, limit_bytes: u64) -> Result<(), DocumentError> {
    if size_bytes > limit_bytes {
        return Err(DocumentError::TooLarge { kind, size_bytes, limit_bytes });
    }
    Ok(())
}

/// Reads the entries one by one, so that one of an unknown kind (a sha512 digest, say) does not hide the others.
fn parse_index(raw: &[u8]) -> Result<Index, DocumentError> {
    #[derive(Deserialize)]
    struct Entries<'a> {
        #[serde(borrow)]
        manifests: Vec<&'a RawValue>,
    }
    let entries: Entries<'_> = serde_json::from_slice(raw)?;
    let (entries, limit) = (entries.manifests, media::INDEX_ENTRY_LIMIT);
    if entries.len() > limit {
        return Err(DocumentError::TooManyEntries { count: entries.len(), limit });
    }
    let mut index = Index::default();
    for entry in entries {
        match serde_json::from_str(entry.get()) {
            Ok(descriptor) => index.manifests.push(descriptor),
            Err(error) => index.unreadable.push(error.to_string()),
        }
    }
    Ok(index)
}
