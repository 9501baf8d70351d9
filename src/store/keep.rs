//! Images of archives, kept: their layers as blobs, with the manifest that the archive has, or one made for it.

use std::io;
use std::path::Path;

use serde_json::json;

use crate::base::{Digest, ReadAt as _};
use crate::oci::media;

use super::blobs::PendingBlob;
use super::{ArchiveImage, ImageError, Layer, Store, StoreError};

/// Bytes per read.
const BUFFER_BYTES: usize = 1 << 20;

/// What an image is made of, copied but not published. Dropping it leaves nothing.
#[derive(Debug)]
pub struct Keeping {
    store: Store,
    layers: Vec<PendingBlob>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Keeping {
    /// Publishes everything, the manifest last, and returns its digest.
    pub fn publish(self) -> Result<Digest, StoreError> {
        for layer in self.layers {
            layer.publish()?;
        }
        self.store.put_blob(&self.config)?;
        self.store.put_blob(&self.manifest)
    }
}

impl Store {
    /// Copies everything that an image of an archive is made of, so that it can be pushed and saved.
    ///
    /// An image without a manifest gets one that says what its layers are, with the layers byte for byte as they came.
    pub fn keep(&self, image: &ArchiveImage) -> Result<Keeping, ImageError> {
        let set = &image.layers;
        let mut layers = Vec::new();
        let mut descriptors = Vec::with_capacity(set.layers.len());
        for layer in &set.layers {
            let digest = match layer.digest.filter(|digest| self.has_blob(digest)) {
                Some(digest) => digest,
                None => {
                    let pending = self.copy_layer(layer, &set.name)?;
                    let digest = pending.digest();
                    layers.push(pending);
                    digest
                }
            };
            let media_type = format!("{}v1.tar{}", media::OCI_LAYER_PREFIX, suffix_of(layer));
            descriptors.push(
                json!({ "mediaType": media_type, "digest": digest.to_string(), "size": layer.size_bytes }),
            );
        }
        let config = Digest::of(&set.config);
        let manifest = match &image.manifest {
            Some(raw) => raw.clone(),
            None => json!({
                "schemaVersion": 2,
                "mediaType": media::OCI_MANIFEST,
                "config": {
                    "mediaType": media::OCI_CONFIG, "digest": config.to_string(), "size": set.config.len(),
                },
                "layers": descriptors,
            })
            .to_string()
            .into_bytes(),
        };
        Ok(Keeping { store: self.clone(), layers, config: set.config.clone(), manifest })
    }

    fn copy_layer(&self, layer: &Layer, name: &str) -> Result<PendingBlob, ImageError> {
        let mut writer = self.blob_writer(layer.digest, Some(layer.size_bytes))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut done_bytes = 0;
        while done_bytes < layer.size_bytes {
            let left = usize::try_from(layer.size_bytes - done_bytes).unwrap_or(usize::MAX);
            let length = left.min(buffer.len());
            let count = layer
                .file
                .read_at(&mut buffer[..length], layer.offset_bytes + done_bytes)
                .and_then(
                    |count| if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) },
                )
                .map_err(|error| StoreError::of("read the layers of", Path::new(name), error))?;
            writer.append(&buffer[..count])?;
            done_bytes += count as u64;
        }
        writer.finish().map_err(|error| match error {
            StoreError::Digest { expected, got } => {
                ImageError::Digest { what: "layer", name: expected.to_string(), got }
            }
            error => error.into(),
        })
    }
}

/// How the layer is packed, by its first bytes: an archive's names say nothing of that.
fn suffix_of(layer: &Layer) -> &'static str {
    let mut head = [0; 4];
    match layer.file.read_exact_at(&mut head, layer.offset_bytes) {
        Ok(()) if head.starts_with(&[0x1f, 0x8b]) => "+gzip",
        Ok(()) if head == [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
        _ => "",
    }
}
