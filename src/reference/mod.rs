//! Image names: text → [`ImageRef`], by the grammar and normalisation of Docker (facts: docker §6.1). Pure.

use crate::base::Digest;

/// A normalised reference: `docker.io/library/python:3.12`, perhaps with a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageRef {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Wrong form.
    #[error("`{text}` is not an image name")]
    Form {
        /// The text.
        text: String,
    },
}

impl ImageRef {
    /// Parses and normalises; adds `latest` where neither tag nor digest is given.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        Err(ReferenceError::Form { text: text.into() })
    }

    /// Registry domain, `docker.io` for Docker Hub.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository path, `library/python`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Docker's short form, `python:3.12`.
    #[must_use]
    pub fn familiar(&self) -> String {
        String::new()
    }
}

impl std::fmt::Display for ImageRef {
    /// The canonical form, `docker.io/library/python:3.12`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)
    }
}
