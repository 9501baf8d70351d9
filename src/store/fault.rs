//! Why an archive or a layout directory gives no image, in words.

use std::io;

use crate::base::Hint;
use crate::oci::DocumentError;
use crate::oci::layout::LayoutError;
use crate::tarlayer::TarError;

use super::{ImageError, StoreError};

/// An archive or layout directory that gives no image.
#[derive(Debug, thiserror::Error)]
#[error("`{origin}`: {source}")]
pub struct ArchiveError {
    /// Its path, or `standard input`.
    pub origin: String,
    /// What is wrong with it.
    pub source: ArchiveFault,
}

/// What is wrong with an archive or a layout directory.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    /// It cannot be opened or read at all.
    #[error("it cannot be read: {source}")]
    Read {
        /// The cause.
        source: io::Error,
    },
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// A compression that this program does not read.
    #[error("it is compressed with {kind}, which is not read here")]
    Compression {
        /// The program that reads it.
        kind: &'static str,
    },
    /// Cut short, damaged, or no tar.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A tar of something else.
    #[error("this is no image archive: it has neither `manifest.json` nor `index.json`")]
    NotAnImageArchive,
    /// It has layers, but nothing says what they are.
    #[error(
        "it has layers but neither `manifest.json` nor `index.json`: it was cut short, or made by a Docker before 1.10"
    )]
    NoManifest,
    /// More members than any image has.
    #[error("it has more than {limit} members")]
    TooManyMembers {
        /// The limit.
        limit: usize,
    },
    /// Longer names than any image has.
    #[error("the names of its members have more than {limit_bytes} bytes")]
    LongNames {
        /// The limit.
        limit_bytes: usize,
    },
    /// A directory of something else.
    #[error("this is no OCI layout: it has no file `{missing}`")]
    NotALayout {
        /// What a layout has.
        missing: &'static str,
    },
    /// The file `oci-layout`.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The file `index.json`.
    #[error("`index.json`: {source}")]
    Index {
        /// The cause.
        #[from]
        source: DocumentError,
    },
    /// The file `manifest.json`.
    #[error("`manifest.json` is not valid: {source}")]
    ManifestJson {
        /// The cause.
        source: serde_json::Error,
    },
    /// Docker 25 wrote such archives for images that it could not read.
    #[error("`manifest.json` is `null`: the archive was saved without any image")]
    NullManifest,
    /// Some tools leave out layers that a daemon has anyway.
    #[error("layer {number} ({diff_id}) was left out when the archive was made")]
    LayerLeftOut {
        /// Its number, from 1.
        number: usize,
        /// Its digest, uncompressed.
        diff_id: crate::base::Digest,
    },
    /// Nothing is called so.
    #[error("it has no image called `{name}`, only {available}")]
    NoSuchImage {
        /// What was asked for.
        name: String,
        /// What there is, in words.
        available: String,
    },
    /// It is not said which one is meant.
    #[error("it has several images: {available}")]
    SeveralImages {
        /// What there is, in words.
        available: String,
    },
    /// The image is incomplete or wrong.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The store cannot take what is in it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ArchiveFault {
    pub(super) fn at(self, origin: &str) -> ArchiveError {
        ArchiveError { origin: origin.to_owned(), source: self }
    }
}

impl Hint for ArchiveError {
    fn hint(&self) -> Option<String> {
        Some(match &self.source {
            ArchiveFault::Compression { kind } => {
                format!("decompress it on the way: `{kind} -dc FILE | slipway load`")
            }
            ArchiveFault::NotAnImageArchive => {
                "if it holds a root file system, make an image of it with `slipway import`".into()
            }
            ArchiveFault::Read { source } => match source.kind() {
                io::ErrorKind::NotFound => "check the path: it counts from the current directory".into(),
                io::ErrorKind::PermissionDenied => "ask its owner to let you read it: `chmod o+r`".into(),
                _ => return None,
            },
            ArchiveFault::Tar(_)
            | ArchiveFault::Empty
            | ArchiveFault::NoManifest
            | ArchiveFault::Image(ImageError::Missing { .. } | ImageError::Digest { .. }) => {
                "copy it again, or save the image again".into()
            }
            ArchiveFault::NullManifest | ArchiveFault::LayerLeftOut { .. } => {
                "save the image again with `docker save`".into()
            }
            ArchiveFault::SeveralImages { .. } => format!("name one, as in `oci:{}:NAME`", self.origin),
            ArchiveFault::Index { source } => return source.hint(),
            ArchiveFault::Image(source) => return source.hint(),
            ArchiveFault::Store(source) => return source.hint(),
            _ => return None,
        })
    }
}
