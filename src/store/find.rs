//! Images by what a user calls them: a name, a digest, an id or the beginning of one. And names given and taken.

use std::collections::BTreeSet;

use crate::base::{Digest, Hint};
use crate::reference::ImageRef;

use super::{RefRecord, Store, StoreError};

/// An image with all its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// What is known of it.
    pub record: RefRecord,
    /// Its names in canonical form; none for an image that lost its last one.
    pub names: Vec<String>,
    /// The names as they are in the registries, `repository@digest`.
    pub digests: Vec<String>,
}

/// How a word fits an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meant {
    /// The word is this name of it.
    Name(String),
    /// The word is `repository@digest`.
    Digest,
    /// The word is its id, or begins it.
    Id,
}

/// Why a word means no image.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Several images begin so.
    #[error("`{prefix}` begins the ids of {} images: {}", .ids.len(), .ids.join(", "))]
    Ambiguous {
        /// The word.
        prefix: String,
        /// Their ids, short.
        ids: Vec<String>,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Hint for FindError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Ambiguous { .. } => Some("write more of the id".into()),
            Self::Store(source) => source.hint(),
        }
    }
}

/// An image that has no name is kept under the digest of its manifest.
fn is_name(name: &str) -> bool {
    name.parse::<Digest>().is_err()
}

impl Store {
    /// All images whose refs can be read ([`Store::readable_refs`]), each once, by their first names; those without a
    /// name last.
    pub fn images(&self) -> Result<Vec<StoredImage>, StoreError> {
        let mut images: Vec<StoredImage> = Vec::new();
        for (name, record) in self.readable_refs()?.0 {
            let at = images.iter().position(|image| image.record.manifest == record.manifest);
            let at = at.unwrap_or_else(|| {
                images.push(StoredImage { record: record.clone(), names: Vec::new(), digests: Vec::new() });
                images.len() - 1
            });
            let image = &mut images[at];
            if !is_name(&name) {
                continue;
            }
            if let (Some(top), Ok(reference)) = (record.top, ImageRef::parse(&name)) {
                let digest = format!("{}@{top}", reference.repository());
                if !image.digests.contains(&digest) {
                    image.digests.push(digest);
                }
            }
            image.names.push(name);
        }
        images.sort_by_key(|image| image.names.is_empty());
        Ok(images)
    }

    /// The image that a word means: first a name, then `repository@digest`, then an id, full or its beginning, with or
    /// without `sha256:`. Ids are the config's digest, as with docker until 28, and the manifest's, as since 29.
    pub fn find_image(&self, word: &str) -> Result<Option<(StoredImage, Meant)>, FindError> {
        let images = self.images()?;
        if let Ok(reference) = ImageRef::parse(word) {
            let name = reference.to_string();
            if let Some(image) = images.iter().find(|image| image.names.contains(&name)) {
                return Ok(Some((image.clone(), Meant::Name(name))));
            }
            if let Some(digest) = reference.digest() {
                let by_registry = format!("{}@{digest}", reference.repository());
                let found = images.iter().find(|image| {
                    let in_repository = |name: &String| {
                        ImageRef::parse(name).is_ok_and(|name| name.repository() == reference.repository())
                    };
                    image.digests.contains(&by_registry)
                        || (image.record.manifest == digest && image.names.iter().any(in_repository))
                });
                return Ok(found.cloned().map(|image| (image, Meant::Digest)));
            }
        }
        let prefix = word.strip_prefix("sha256:").unwrap_or(word);
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if prefix.is_empty() || !prefix.bytes().all(is_hex) {
            return Ok(None);
        }
        let begins = |digest: &Digest| digest.hex().starts_with(prefix);
        let mut found: Vec<StoredImage> = images
            .into_iter()
            .filter(|image| begins(&image.record.config) || begins(&image.record.manifest))
            .collect();
        let ids: BTreeSet<String> =
            found.iter().map(|image| image.record.config.short().to_string()).collect();
        if ids.len() > 1 {
            return Err(FindError::Ambiguous { prefix: word.into(), ids: ids.into_iter().collect() });
        }
        // Two manifests of one config are one image to docker; one that has a name is the better one.
        Ok((!found.is_empty()).then(|| (found.remove(0), Meant::Id)))
    }

    /// Makes `name` mean `record`. An image that loses its last name by that stays, without a name.
    pub fn set_name(&self, name: &str, record: &RefRecord) -> Result<(), StoreError> {
        // The same config in another manifest (layers compressed in another way) is the same image, and the old manifest
        // is left to a later prune.
        let before = self.get_ref(name)?.filter(|before| before.config != record.config);
        if let Some(before) = before {
            // First the new place, then the change: a crash in between leaves one name too many.
            self.keep_nameless_besides(&before, Some(name))?;
        }
        self.set_ref(name, record)?;
        // A name is better than none.
        self.remove_ref(&record.manifest.to_string())?;
        Ok(())
    }

    /// Keeps an image that has no name; nothing happens if it has one.
    pub fn keep_nameless(&self, record: &RefRecord) -> Result<(), StoreError> {
        self.keep_nameless_besides(record, None)
    }

    fn keep_nameless_besides(&self, record: &RefRecord, besides: Option<&str>) -> Result<(), StoreError> {
        let has_name = self.list_refs()?.iter().any(|(name, other)| {
            other.manifest == record.manifest && is_name(name) && Some(name.as_str()) != besides
        });
        if has_name {
            return Ok(());
        }
        self.set_ref(&record.manifest.to_string(), &RefRecord { top: None, ..record.clone() })
    }
}
