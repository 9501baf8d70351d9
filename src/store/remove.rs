//! Images removed: what nothing else needs goes, what runs stays.

use std::collections::BTreeSet;
use std::fs;

use crate::base::Digest;
use crate::oci::{Document, media};

use super::{ImageKey, RefRecord, Store, StoreError};

/// What a removal took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Blobs that no other image has.
    pub blobs: Vec<Digest>,
    /// The run file.
    pub image: Option<ImageKey>,
    /// What both took, in bytes.
    pub bytes: u64,
    /// The run file stayed, since something runs from it.
    pub in_use: bool,
}

impl Store {
    /// Removes what the image `record` is made of and no other image needs. Its refs must be gone; where one is left,
    /// nothing happens.
    ///
    /// The manifest goes first, so that one that is there has all its parts.
    pub fn remove_parts(&self, record: &RefRecord) -> Result<Removed, StoreError> {
        let refs = self.list_refs()?;
        let mut removed = Removed::default();
        if refs.iter().any(|(_, other)| other.manifest == record.manifest) {
            return Ok(removed);
        }
        let mut used = BTreeSet::new();
        for (_, other) in &refs {
            used.extend(self.parts_of(other)?);
        }
        for digest in self.parts_of(record)? {
            if !used.contains(&digest) && self.has_blob(&digest) {
                removed.bytes += size_of(&self.blob_path(&digest));
                self.remove_blob(&digest)?;
                removed.blobs.push(digest);
            }
        }
        let Some(key) = record.image.clone() else { return Ok(removed) };
        if refs.iter().any(|(_, other)| other.image.as_ref() == Some(&key)) {
            return Ok(removed);
        }
        if self.is_in_use(&key) {
            removed.in_use = true;
        } else if self.has_image(&key) {
            removed.bytes += size_of(&self.image_path(&key));
            self.remove_image(&key)?;
            self.remove_hot_lists(&key);
            removed.image = Some(key);
        }
        Ok(removed)
    }

    /// Every blob of an image, the manifest first. An image whose manifest is not kept has its config alone.
    pub(super) fn parts_of(&self, record: &RefRecord) -> Result<Vec<Digest>, StoreError> {
        let mut parts = vec![record.manifest];
        let raw = match self.read_blob(&record.manifest, media::MANIFEST_LIMIT_BYTES) {
            // A damaged manifest tells nothing, and must not keep its image for ever.
            Err(StoreError::Damaged { .. } | StoreError::TooLarge { .. }) => None,
            raw => raw?,
        };
        if let Some(Ok(Document::Manifest(manifest))) = raw.map(|raw| Document::parse(&raw)) {
            parts.extend(manifest.layers.iter().map(|layer| layer.digest));
        }
        parts.push(record.config);
        parts.dedup();
        Ok(parts)
    }

    /// Whether a lease says that a run file is in use somewhere: any file in `leases/<key>/`.
    fn is_in_use(&self, key: &ImageKey) -> bool {
        let leases = self.root.join("leases").join(key.as_str());
        fs::read_dir(leases).is_ok_and(|mut leases| leases.next().is_some())
    }
}

fn size_of(path: &std::path::Path) -> u64 {
    fs::metadata(path).map_or(0, |facts| facts.len())
}
