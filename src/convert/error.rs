//! Why a conversion fails, in words that name the layer.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::base::{Digest, Hint};
use crate::image::ImageError;
use crate::sif::{DraftError, SifError};
use crate::squashfs::write::{RelayError, WriteError};
use crate::store::Layer;
use crate::tarlayer::{MergeError, TarError};

use super::Encoding;

/// Which layer an error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerName {
    /// Its number, from 1, base first.
    pub number: usize,
    /// How many there are.
    pub count: usize,
    /// Digest of its stored bytes; where none was promised, of its tar.
    pub digest: Digest,
}

impl LayerName {
    /// The layer of that index among so many.
    pub(super) fn of(layer: &Layer, index: usize, count: usize) -> Self {
        let digest = layer.digest.unwrap_or(layer.diff_id);
        Self { number: index + 1, count, digest }
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {} of {} (`{}`)", self.number, self.count, self.digest)
    }
}

/// Why a conversion failed.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The image config cannot be used.
    #[error("the image config is not valid: {source}")]
    Config {
        /// The cause.
        source: serde_json::Error,
    },
    /// The config speaks of other layers than there are.
    #[error("the image config names {config_count} layers, but the image has {layer_count}")]
    LayerCount {
        /// Layers in the config's `rootfs`.
        config_count: usize,
        /// Layers at hand.
        layer_count: usize,
    },
    /// A layer that was on its way is not there. Whoever was to bring it knows why.
    #[error("layer {number} of {count} has not come")]
    NotThere {
        /// Its number, from 1, base first.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// A layer's file ends before the layer does.
    #[error("{layer}: file is cut short: have {have_bytes} bytes, needs {need_bytes}")]
    CutShort {
        /// Which layer.
        layer: LayerName,
        /// Bytes of the file.
        have_bytes: u64,
        /// Where the layer must end.
        need_bytes: u64,
    },
    /// A layer's file failed.
    #[error("reading {layer}: {source}")]
    ReadLayer {
        /// Which layer.
        layer: LayerName,
        /// The cause.
        source: io::Error,
    },
    /// The stored bytes are not those that the manifest promised.
    #[error("{layer}: content does not match its digest, it has `{found}`")]
    Digest {
        /// Which layer.
        layer: LayerName,
        /// Digest of what is there.
        found: Digest,
    },
    /// A compression that no builder uses.
    #[error("{layer} is compressed with {encoding}, only gzip and zstd are supported")]
    Compression {
        /// Which layer.
        layer: LayerName,
        /// How it is compressed.
        encoding: Encoding,
    },
    /// The compressed data is broken.
    #[error("{layer}: the {encoding} data is broken: {source}")]
    Inflate {
        /// Which layer.
        layer: LayerName,
        /// How it is compressed.
        encoding: Encoding,
        /// The cause.
        source: io::Error,
    },
    /// The tar is not the one that the image config promised.
    #[error("{layer}: uncompressed content is `{found}`, but the image config says `{expected}`")]
    DiffId {
        /// Which layer.
        layer: LayerName,
        /// The config's digest.
        expected: Digest,
        /// Digest of what is there.
        found: Digest,
    },
    /// The tar has ended long before the layer.
    #[error("{layer}: more than {limit_bytes} bytes stand behind the end of the tar")]
    LongRest {
        /// Which layer.
        layer: LayerName,
        /// How many may.
        limit_bytes: u64,
    },
    /// The layer is no tar, or a broken one.
    #[error("{layer}: {source}")]
    Tar {
        /// Which layer.
        layer: LayerName,
        /// The cause.
        source: TarError,
    },
    /// The layers do not fit together.
    #[error("{source}; layer {} from the top is {layer}", layer.count - layer.number)]
    Merge {
        /// Which layer.
        layer: LayerName,
        /// The cause.
        source: MergeError,
    },
    /// The layers together are more than is allowed.
    #[error(transparent)]
    Tree {
        /// The cause.
        source: MergeError,
    },
    /// The squashfs cannot be written.
    #[error("converting to `{}`: {source}", path.display())]
    Write {
        /// The target.
        path: PathBuf,
        /// The cause.
        source: WriteError,
    },
    /// The SIF around it cannot be written.
    #[error(transparent)]
    Sif(#[from] DraftError),
    /// The target's directory takes no file.
    #[error("cannot make `{}`: {source}", path.display())]
    Create {
        /// The target.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The finished file cannot be completed or named.
    #[error("writing `{}`: {source}", path.display())]
    Output {
        /// The target.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An image that was to be laid out anew cannot be read or written.
    #[error("optimizing `{}`: {source}", path.display())]
    Relay {
        /// The image.
        path: PathBuf,
        /// The cause.
        source: RelayError,
    },
    /// Its SIF cannot be read.
    #[error("optimizing `{}`: {source}", path.display())]
    Source {
        /// The image.
        path: PathBuf,
        /// The cause.
        source: SifError,
    },
    /// It has more than its root file system.
    #[error("cannot optimize `{}`: it has a second partition, which would be lost", path.display())]
    SecondPartition {
        /// The image.
        path: PathBuf,
    },
    /// The image cannot be opened or used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// No thread could be started.
    #[error("cannot start a thread to read {layer}: {source}")]
    Thread {
        /// Which layer.
        layer: LayerName,
        /// The cause.
        source: io::Error,
    },
}

/// The layer that the merge complains about, counted from the newest, which is 0.
pub(super) fn layer_from_top(error: &MergeError) -> Option<usize> {
    match error {
        MergeError::Tar { layer, .. }
        | MergeError::Sink { layer, .. }
        | MergeError::Name { layer, .. }
        | MergeError::RootNotDirectory { layer }
        | MergeError::SymlinkTarget { layer, .. }
        | MergeError::Attribute { layer, .. }
        | MergeError::HardLinkPath { layer, .. }
        | MergeError::HardLinkMissing { layer, .. }
        | MergeError::HardLinkToDirectory { layer, .. }
        | MergeError::NotADirectory { layer, .. }
        | MergeError::SymlinkLoop { layer, .. }
        | MergeError::LayerChanged { layer } => Some(*layer),
        MergeError::TooManyEntries { .. }
        | MergeError::TooManyBytes { .. }
        | MergeError::ContentPassedBy { .. } => None,
    }
}

impl Hint for ConvertError {
    fn hint(&self) -> Option<String> {
        let again = "pull or load the image again; if it stays, whoever made the image has to make it again";
        match self {
            Self::CutShort { .. }
            | Self::Digest { .. }
            | Self::Inflate { .. }
            | Self::DiffId { .. }
            | Self::LongRest { .. }
            | Self::Tar { .. } => Some(again.into()),
            Self::Compression { .. } => {
                Some("make the image again with `--output type=oci-archive,compression=zstd`".into())
            }
            Self::Write { source, .. } => source.hint(),
            Self::Relay { source, .. } => source.hint(),
            Self::Source { source, .. } => source.hint(),
            Self::Image(source) => source.hint(),
            Self::SecondPartition { .. } => Some("use the image as it is".into()),
            Self::Merge { source, .. } | Self::Tree { source } => source.hint(),
            Self::Create { source, .. } | Self::Output { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("make room there or write the image elsewhere".into())
                }
                io::ErrorKind::FileTooLarge => Some("raise `ulimit -f`".into()),
                io::ErrorKind::NotFound => Some("make the directory first".into()),
                _ => None,
            },
            Self::Thread { .. } => Some("raise `ulimit -u` or the job's limit of tasks".into()),
            _ => None,
        }
    }
}
