//! An image file, opened: which format, where its squashfs lies, and the OCI config it carries.
//!
//! The format is told by content, never by the name. [`FORMATS`] is the seam: a new format is a reader and one line
//! there. Anything else is refused with what it is ("a tar archive") and one thing to do about it.
//!
//! The config comes from our own object in the SIF (the whole image config), else from Apptainer's (its `config` part
//! alone), else it is the default.

#![expect(clippy::disallowed_methods, reason = "opens image files")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Hint, ReadAt};
use crate::oci::ImageConfig;
use crate::sif::SifError;
use crate::squashfs::bound::Bound;
use crate::squashfs::read::{ReadError, Reader};
use crate::squashfs::sums::{Sums, SumsError};
use crate::sys::file::ReadFile;

mod alien;
mod sif;
mod squashfs;

#[cfg(test)]
mod tests;

/// Bytes at the start of a file that tell its format; an ext file system's magic is the last of them.
const HEAD_BYTES: usize = 2048;
/// Longest list of sums that we read, in bytes: that of an image of more than 600 GiB.
const MAX_SUMS_BYTES: u64 = 256 << 20;
/// Largest config object that we read. Docker itself refuses configs above 4 MiB.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

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
    raw_config: Option<Vec<u8>>,
    /// Where the sums of the squashfs lie.
    sums: Option<Stretch>,
    /// Where the loader's cache lies that was prepared for it.
    loader_cache: Option<Stretch>,
}

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins, in bytes.
    pub offset_bytes: u64,
    /// How long it is.
    pub size_bytes: u64,
}

/// One format of image file.
#[derive(Debug)]
pub struct Format {
    /// Its name in messages.
    pub name: &'static str,
    /// Whether a file with these first bytes (up to 2048) is of this format, maybe a broken one.
    pub matches: fn(&[u8]) -> bool,
    /// Reads what [`Image`] needs.
    pub read: fn(&dyn ReadAt) -> Result<Contents, FormatError>,
}

/// Every format that can be run.
pub static FORMATS: [Format; 2] = [sif::FORMAT, squashfs::FORMAT];

/// What a format finds in a file.
#[derive(Debug, Default)]
pub struct Contents {
    /// Where the squashfs begins, in bytes.
    pub offset_bytes: u64,
    /// How long it is, in bytes.
    pub size_bytes: u64,
    /// The image config, or the default.
    pub config: ImageConfig,
    /// The whole image config, byte for byte, if the file carries it.
    pub raw_config: Option<Vec<u8>>,
    /// GOARCH of the file system, if the file says one.
    pub architecture: Option<String>,
    /// Where the sums of the squashfs lie, if the file carries them.
    pub sums: Option<Stretch>,
    /// Where the loader's cache lies that was prepared for it, if the file carries one.
    pub loader_cache: Option<Stretch>,
}

/// Why a file of a known format cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The SIF is broken or of a kind that is not supported.
    #[error(transparent)]
    Sif(#[from] SifError),
    /// What should be a squashfs is not.
    #[error("there is no squashfs at byte {offset_bytes}")]
    NoSquashfs {
        /// Where it should be.
        offset_bytes: u64,
    },
    /// The squashfs says that it is longer than what is there.
    #[error("file is cut short: have {have_bytes} bytes of the squashfs, needs {need_bytes}")]
    CutShort {
        /// Bytes from the start of the squashfs to the end of the partition or file.
        have_bytes: u64,
        /// Bytes that the superblock says.
        need_bytes: u64,
    },
    /// An object is too large.
    #[error("object `{name}` is {size_bytes} bytes long, more than the {limit_bytes} that are read")]
    ObjectTooLarge {
        /// Name of the object.
        name: &'static str,
        /// Its length.
        size_bytes: u64,
        /// Our limit.
        limit_bytes: u64,
    },
    /// Our own object beside the squashfs is none.
    #[error("object `{name}` cannot be used: {source}")]
    Sums {
        /// Name of the object.
        name: &'static str,
        /// The cause.
        source: SumsError,
    },
    /// Our own object beside the squashfs is damaged.
    #[error("object `{name}` is damaged")]
    DamagedObject {
        /// Name of the object.
        name: &'static str,
    },
    /// Our own object is of another squashfs.
    #[error("object `{name}` belongs to another squashfs than the one in the file")]
    ForeignObject {
        /// Name of the object.
        name: &'static str,
    },
    /// The squashfs is damaged.
    #[error(transparent)]
    Squashfs(#[from] ReadError),
    /// A config object is no image config.
    #[error("object `{name}` is not a valid image config: {source}")]
    Config {
        /// Name of the object.
        name: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
    /// The file failed.
    #[error("reading at byte {offset_bytes}: {source}")]
    Read {
        /// Where.
        offset_bytes: u64,
        /// The cause.
        source: std::io::Error,
    },
}

impl Hint for FormatError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Sif(error) => error.hint(),
            Self::Squashfs(error) => error.hint(),
            Self::ForeignObject { .. } => Some(
                "make the image again, or copy it again; if its file system was exchanged on purpose, remove the object"
                    .into(),
            ),
            Self::CutShort { .. }
            | Self::NoSquashfs { .. }
            | Self::Sums { .. }
            | Self::DamagedObject { .. }
            | Self::Config { .. } => Some("download or copy the file again".into()),
            Self::ObjectTooLarge { .. } | Self::Read { .. } => None,
        }
    }
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
    /// It is something else.
    #[error("`{}` is not an image: it is {what}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What it is, with its article.
        what: &'static str,
        /// What to do about it.
        advice: String,
    },
    /// It is an image, but cannot be used.
    #[error("cannot use {format} `{}`: {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
        /// Why.
        source: FormatError,
    },
}

impl Hint for ImageError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotAnImage { advice, .. } => Some(advice.clone()),
            Self::Unusable { source, .. } => source.hint(),
            Self::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("check the path; an image of a registry is named without `/` or `./` before it".into())
            }
            _ => None,
        }
    }
}

impl Image {
    /// Opens an image by content: SIF or bare squashfs.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let fail = |source| ImageError::Open { path: path.into(), source };
        // Asked before opening: opening a pipe would wait for a writer.
        let kind = std::fs::metadata(path).map_err(fail)?.file_type();
        if let Some(alien) = alien::of_type(kind) {
            return Err(alien.into_error(path));
        }
        let resolved = std::fs::canonicalize(path).map_err(fail)?;
        let file = std::fs::File::open(&resolved).and_then(ReadFile::new).map_err(fail)?;
        let head = read_head(&file).map_err(fail)?;
        let Some(format) = FORMATS.iter().find(|format| (format.matches)(&head)) else {
            return Err(alien::of_content(&head).into_error(path));
        };
        let contents = (format.read)(&file).map_err(|source| ImageError::Unusable {
            path: path.into(),
            format: format.name,
            source,
        })?;
        Ok(Self {
            path: resolved,
            file: Arc::new(file),
            offset_bytes: contents.offset_bytes,
            size_bytes: contents.size_bytes,
            config: contents.config,
            architecture: contents.architecture,
            raw_config: contents.raw_config,
            sums: contents.sums,
            loader_cache: contents.loader_cache,
        })
    }

    /// The sums of all blocks and tables, if the file carries them. Whether they fit the squashfs is for who uses them.
    pub fn sums(&self) -> Result<Option<Sums>, ImageError> {
        let Some(place) = self.sums else { return Ok(None) };
        let name = crate::sif::SUMS;
        let read = || {
            let raw = read_stretch(&*self.file, place, name, MAX_SUMS_BYTES)?;
            Sums::parse(&raw).map_err(|source| FormatError::Sums { name, source })
        };
        read().map(Some).map_err(|source| self.unusable(source))
    }

    /// The squashfs as a file of its own.
    #[must_use]
    pub fn partition(&self) -> Arc<dyn ReadAt> {
        Arc::new(crate::base::read_at::Window::new(self.file.clone(), self.offset_bytes, self.size_bytes))
    }

    /// The loader's cache that was prepared for the image, where its own is missing or stale. It must be that of the
    /// squashfs, whose reader this is: all tables are read for that.
    pub fn loader_cache(&self, reader: &Reader) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(place) = self.loader_cache else { return Ok(None) };
        let name = crate::sif::LOADER_CACHE;
        let read = || {
            let raw = read_stretch(&*self.file, place, name, MAX_CONFIG_BYTES)?;
            let bound = Bound::parse(&raw, crate::sif::LOADER_CACHE_KIND);
            let bound = bound.ok_or(FormatError::DamagedObject { name })?;
            if reader.table_digest(bound.first_block)? != bound.tables {
                return Err(FormatError::ForeignObject { name });
            }
            Ok(bound.data.to_vec())
        };
        read().map(Some).map_err(|source| self.unusable(source))
    }

    fn unusable(&self, source: FormatError) -> ImageError {
        ImageError::Unusable { path: self.path.clone(), format: "SIF", source }
    }

    /// Whether it is a squashfs alone.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.offset_bytes == 0
    }

    /// The whole OCI image config, byte for byte as it came from the registry; only a SIF of ours carries it.
    #[must_use]
    pub fn raw_config(&self) -> Option<&[u8]> {
        self.raw_config.as_deref()
    }
}

fn read_head(file: &ReadFile) -> std::io::Result<Vec<u8>> {
    let size = usize::try_from(file.size_bytes()).unwrap_or(HEAD_BYTES).min(HEAD_BYTES);
    let mut head = vec![0; size];
    file.read_exact_at(&mut head, 0)?;
    Ok(head)
}

/// The bytes of an object that is read whole.
fn read_stretch(
    file: &dyn ReadAt,
    place: Stretch,
    name: &'static str,
    limit_bytes: u64,
) -> Result<Vec<u8>, FormatError> {
    let Stretch { offset_bytes, size_bytes } = place;
    let length = usize::try_from(size_bytes).ok().filter(|_| size_bytes <= limit_bytes);
    let length = length.ok_or(FormatError::ObjectTooLarge { name, size_bytes, limit_bytes })?;
    let mut raw = vec![0; length];
    file.read_exact_at(&mut raw, offset_bytes)
        .map_err(|source| FormatError::Read { offset_bytes, source })?;
    Ok(raw)
}
