//! The two small files at the root of an OCI layout, and the names that its index gives to images.

use serde::Deserialize;

use super::{Descriptor, Document, DocumentError, Index, without_bom};

/// The file that marks a layout.
pub const LAYOUT_FILE: &str = "oci-layout";
/// The file that lists its images.
pub const INDEX_FILE: &str = "index.json";
/// Where its blobs of sha256 are.
pub const BLOBS_DIRECTORY: &str = "blobs/sha256";
/// The only version there is.
pub const LAYOUT_VERSION: &str = "1.0.0";

/// Why a layout is refused.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The marker is not JSON of the expected form.
    #[error("the file `oci-layout` is not valid: {source}")]
    Marker {
        /// The cause.
        #[from]
        source: serde_json::Error,
    },
    /// A version of the future.
    #[error("the layout has version `{version}`, and only 1.0.0 is known")]
    Version {
        /// As written.
        version: String,
    },
}

/// Checks the bytes of the file `oci-layout`.
pub fn parse_marker(raw: &[u8]) -> Result<(), LayoutError> {
    #[derive(Deserialize)]
    struct Marker {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let marker: Marker = serde_json::from_slice(without_bom(raw))?;
    if marker.version == LAYOUT_VERSION {
        Ok(())
    } else {
        Err(LayoutError::Version { version: marker.version })
    }
}

/// Reads the bytes of the file `index.json`.
pub fn parse_index(raw: &[u8]) -> Result<Index, DocumentError> {
    match Document::parse(raw)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(DocumentError::NotIndex),
    }
}

/// The name of an entry: the full one that containerd writes, else the tag (`org.opencontainers.image.ref.name`).
#[must_use]
pub fn entry_name(entry: &Descriptor) -> Option<&str> {
    entry
        .annotation("io.containerd.image.name")
        .or_else(|| entry.annotation("org.opencontainers.image.ref.name"))
        .filter(|name| !name.is_empty())
}

/// Whether an entry is meant by `name`: its tag, its full name, or its digest.
#[must_use]
pub fn entry_is_called(entry: &Descriptor, name: &str) -> bool {
    entry.annotation("org.opencontainers.image.ref.name") == Some(name)
        || entry.annotation("io.containerd.image.name") == Some(name)
        || entry.digest.to_string() == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_one_is_a_layout() {
        parse_marker(br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        for (raw, words) in [
            (r#"{"imageLayoutVersion":"2.0.0"}"#, "the layout has version `2.0.0`, and only 1.0.0 is known"),
            (
                "{}",
                "the file `oci-layout` is not valid: missing field `imageLayoutVersion` at line 1 column 2",
            ),
        ] {
            assert_eq!(parse_marker(raw.as_bytes()).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn an_entry_has_a_name_a_tag_and_a_digest() {
        let digest = crate::base::Digest::of(b"");
        let raw = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","size":2,"annotations":{{
                "io.containerd.image.name":"docker.io/library/a:1","org.opencontainers.image.ref.name":"1"}}}}]}}"#
        );
        let index = parse_index(raw.as_bytes()).unwrap();
        let entry = &index.manifests[0];
        assert_eq!(entry_name(entry), Some("docker.io/library/a:1"));
        for name in ["1", "docker.io/library/a:1", &digest.to_string()] {
            assert!(entry_is_called(entry, name), "{name}");
        }
        assert!(!entry_is_called(entry, "a"));
        let manifest = format!(r#"{{"config":{{"digest":"{digest}","size":2}},"layers":[]}}"#);
        assert!(matches!(parse_index(manifest.as_bytes()), Err(DocumentError::NotIndex)));
    }
}
