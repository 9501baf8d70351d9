//! Images written to one archive that old and new docker, podman, skopeo and containerd read.
//!
//! ```text
//! oci-layout, index.json          an OCI layout …
//! manifest.json, repositories     … and docker's own list, which points into the same blobs
//! blobs/sha256/<hex>              each once, sorted
//! ```
//!
//! The same images give the same bytes: no times, no owners, sorted names. Blobs go in as the store has them, so that
//! digests stay.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::base::{Digest, ReadAt as _};
use crate::oci::layout::{BLOBS_DIRECTORY, INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION};
use crate::oci::{Document, Manifest, media};
use crate::reference::ImageRef;

use super::{ImageError, Store, StoreError};

const BLOCK_BYTES: usize = 512;
/// What eleven octal digits hold, less one.
const OCTAL_LIMIT_BYTES: u64 = 1 << 33;

/// An image to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedImage {
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Under which names; none for an image without one.
    pub names: Vec<ImageRef>,
}

/// Why images could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Something of the image is not in the store.
    #[error("cannot save `{name}`: {source}")]
    Image {
        /// The image.
        name: String,
        /// The cause.
        source: ImageError,
    },
    /// The archive cannot be written.
    #[error("cannot write the archive: {source}")]
    Write {
        /// The cause.
        source: io::Error,
    },
}

impl crate::base::Hint for SaveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Image { source: ImageError::Missing { .. }, .. } => Some(
                "pull or load it again with `store.keep_blobs = true`, which keeps what a save needs".into(),
            ),
            Self::Image { source, .. } => source.hint(),
            Self::Write { .. } => None,
        }
    }
}

/// An image with its documents.
struct Parts<'a> {
    image: &'a SavedImage,
    raw: Vec<u8>,
    manifest: Manifest,
}

impl Store {
    /// Writes the archive. Everything is looked for before the first byte is written.
    pub fn save(&self, images: &[SavedImage], out: &mut dyn Write) -> Result<(), SaveError> {
        let parts = images.iter().map(|image| self.parts(image)).collect::<Result<Vec<_>, _>>()?;
        let mut blobs: BTreeSet<Digest> = BTreeSet::new();
        for part in &parts {
            let layers = part.manifest.layers.iter().map(|layer| layer.digest);
            for digest in [part.image.manifest, part.manifest.config.digest].into_iter().chain(layers) {
                if blobs.insert(digest) && !self.has_blob(&digest) {
                    return Err(missing(part.image, "layer", &digest));
                }
            }
        }
        self.write_archive(&parts, &blobs, out).map_err(|source| SaveError::Write { source })
    }

    fn parts<'a>(&self, image: &'a SavedImage) -> Result<Parts<'a>, SaveError> {
        let digest = image.manifest;
        let raw = self
            .read_blob(&digest, media::MANIFEST_LIMIT_BYTES)
            .map_err(|error| failed(image, error))?
            .ok_or_else(|| missing(image, "manifest", &digest))?;
        match Document::parse(&raw) {
            Ok(Document::Manifest(manifest)) => Ok(Parts { image, raw, manifest }),
            Ok(Document::Index(_)) => Err(failed(image, ImageError::IsIndex { digest })),
            Err(source) => Err(failed(image, ImageError::Document { digest, source })),
        }
    }

    fn write_archive(
        &self,
        parts: &[Parts<'_>],
        blobs: &BTreeSet<Digest>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let marker = json!({ "imageLayoutVersion": LAYOUT_VERSION });
        for (name, document) in [
            (LAYOUT_FILE, marker),
            (INDEX_FILE, index_of(parts)),
            ("manifest.json", list_of(parts)),
            ("repositories", repositories_of(parts)),
        ] {
            let raw = document.to_string().into_bytes();
            out.write_all(&header(name, b'0', raw.len() as u64))?;
            out.write_all(&raw)?;
            pad(raw.len() as u64, out)?;
        }
        for directory in ["blobs/", "blobs/sha256/"] {
            out.write_all(&header(directory, b'5', 0))?;
        }
        let mut buffer = vec![0; 1 << 20];
        for digest in blobs {
            // Opened one by one: an archive may have more blobs than a process may have files.
            let file = self.open_blob(digest).map_err(StoreError::into_io)?.ok_or(io::ErrorKind::NotFound)?;
            let size_bytes = file.size_bytes();
            out.write_all(&header(&blob_name(digest), b'0', size_bytes))?;
            let mut done_bytes = 0;
            while done_bytes < size_bytes {
                let length = usize::try_from(size_bytes - done_bytes).unwrap_or(usize::MAX).min(buffer.len());
                file.read_exact_at(&mut buffer[..length], done_bytes)?;
                out.write_all(&buffer[..length])?;
                done_bytes += length as u64;
            }
            pad(size_bytes, out)?;
        }
        out.write_all(&[0; 2 * BLOCK_BYTES])?;
        out.flush()
    }
}

fn name_of(image: &SavedImage) -> String {
    image.names.first().map_or_else(|| image.manifest.to_string(), ImageRef::familiar)
}

fn failed(image: &SavedImage, source: impl Into<ImageError>) -> SaveError {
    SaveError::Image { name: name_of(image), source: source.into() }
}

fn missing(image: &SavedImage, what: &'static str, digest: &Digest) -> SaveError {
    failed(image, ImageError::Missing { what, name: digest.to_string() })
}

fn blob_name(digest: &Digest) -> String {
    format!("{BLOBS_DIRECTORY}/{}", digest.hex())
}

/// The layout's index: one entry for each name, with the annotations that containerd and others look for.
fn index_of(parts: &[Parts<'_>]) -> Value {
    let mut entries = Vec::new();
    for part in parts {
        let media_type = serde_json::from_slice::<Value>(&part.raw)
            .ok()
            .and_then(|raw| raw.get("mediaType")?.as_str().map(str::to_owned))
            .unwrap_or_else(|| media::OCI_MANIFEST.into());
        let entry = json!({
            "mediaType": media_type,
            "digest": part.image.manifest.to_string(),
            "size": part.raw.len(),
        });
        if part.image.names.is_empty() {
            entries.push(entry.clone());
        }
        for name in &part.image.names {
            let mut entry = entry.clone();
            entry["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": name.tag().unwrap_or_default(),
            });
            entries.push(entry);
        }
    }
    json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": entries })
}

fn list_of(parts: &[Parts<'_>]) -> Value {
    let one = |part: &Parts<'_>| {
        let layers: Vec<String> = part.manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
        let names: Vec<String> = part.image.names.iter().map(ImageRef::familiar).collect();
        json!({
            "Config": blob_name(&part.manifest.config.digest),
            "RepoTags": if names.is_empty() { Value::Null } else { names.into() },
            "Layers": layers,
        })
    };
    parts.iter().map(one).collect()
}

/// What docker looked for before it had `manifest.json`.
fn repositories_of(parts: &[Parts<'_>]) -> Value {
    let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for part in parts {
        let top = part.manifest.layers.last().map_or(part.manifest.config.digest, |layer| layer.digest);
        for name in &part.image.names {
            if let Some(tag) = name.tag() {
                let familiar = name.familiar();
                let repository = familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar).to_owned();
                repositories.entry(repository).or_default().insert(tag.to_owned(), top.hex());
            }
        }
    }
    json!(repositories)
}

/// A header of a plain tar: root's, no time. Sizes beyond octal are written in base 256, as GNU tar does.
fn header(name: &str, kind: u8, size_bytes: u64) -> [u8; BLOCK_BYTES] {
    let mut header = [0; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, if kind == b'5' { b"0000755\0" } else { b"0000644\0" });
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size_bytes < OCTAL_LIMIT_BYTES {
        put(124, format!("{size_bytes:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size_bytes.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn pad(size_bytes: u64, out: &mut dyn Write) -> io::Result<()> {
    let rest = usize::try_from(size_bytes % BLOCK_BYTES as u64).unwrap_or_default();
    out.write_all(&[0; BLOCK_BYTES][..(BLOCK_BYTES - rest) % BLOCK_BYTES])
}
