//! Run files: one immutable SIF for each manifest, writer version and compressor.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::Digest;

use super::fresh::Target;
use super::{Store, StoreError};

/// The name of a run file: `<manifest hex>-<writer version>-<compressor>`. Equal keys mean equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageKey(String);

/// Why a text is not an image key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image key of the form <64 hex digits>-<number>-<compressor>")]
pub struct ImageKeyError {
    /// The text, cut to a readable length.
    pub text: String,
}

impl ImageKey {
    /// The key of `manifest` as converted by the writer of that version with that compressor; other characters of the
    /// compressor's name than lower-case letters and digits are left out.
    ///
    /// ```
    /// use slipway::{base::Digest, store::ImageKey};
    /// assert!(ImageKey::new(&Digest::of(b""), 1, "zstd").to_string().ends_with("b855-1-zstd"));
    /// ```
    #[must_use]
    pub fn new(manifest: &Digest, writer_version: u32, compressor: &str) -> Self {
        let compressor: String = compressor.chars().filter(|c| is_word(*c)).collect();
        Self(format!("{}-{writer_version}-{compressor}", manifest.hex()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ImageKey> for String {
    fn from(key: ImageKey) -> Self {
        key.0
    }
}

impl TryFrom<String> for ImageKey {
    type Error = ImageKeyError;
    fn try_from(text: String) -> Result<Self, ImageKeyError> {
        let mut words = text.splitn(3, '-');
        let mut word = || words.next().unwrap_or_default();
        let (hex, version, compressor) = (word(), word(), word());
        let sound = format!("sha256:{hex}").parse::<Digest>().is_ok()
            && version.parse::<u32>().is_ok_and(|number| number.to_string() == version)
            && compressor.len() <= 32
            && compressor.chars().all(is_word);
        if sound { Ok(Self(text)) } else { Err(ImageKeyError { text: text.chars().take(120).collect() }) }
    }
}

impl Store {
    /// Where the run file is or would be.
    #[must_use]
    pub fn image_path(&self, key: &ImageKey) -> PathBuf {
        self.root.join("images").join(format!("{key}.sif"))
    }

    /// Whether the run file is there.
    #[must_use]
    pub fn has_image(&self, key: &ImageKey) -> bool {
        self.image_path(key).is_file()
    }

    /// Where to write a run file. Another process that was faster is no error, and the file that it published stays.
    #[must_use]
    pub fn image_target(&self, key: &ImageKey) -> Target {
        Target::in_store(self.image_path(key), self.tmp_directory())
    }

    /// Forgets the hot lists of a run file. What cannot be removed is of no use and does no harm.
    pub(super) fn remove_hot_lists(&self, key: &ImageKey) {
        let own = format!("{key}.sif.");
        for entry in std::fs::read_dir(self.root.join("hot")).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(own.as_bytes()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Forgets a run file; it need not be there.
    pub fn remove_image(&self, key: &ImageKey) -> Result<(), StoreError> {
        let path = self.image_path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::of("remove", &path, error))
            }
            _ => Ok(()),
        }
    }
}
