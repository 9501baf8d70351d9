//! Why layers cannot be merged.

use crate::base::{Hint, relpath::RelPathError};
use crate::tarlayer::TarError;

pub use super::record::NameError;

/// Why layers cannot be merged. Layers are counted as they are added: the newest is 0.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The tar of a layer is not readable.
    #[error("layer {layer} from the top: {source}")]
    Tar {
        /// The layer.
        layer: usize,
        /// The cause.
        source: TarError,
    },
    /// The content of a file could not be stored.
    #[error("storing `{path}` of layer {layer} from the top: {source}")]
    Sink {
        /// The file.
        path: String,
        /// The layer.
        layer: usize,
        /// The cause.
        source: std::io::Error,
    },
    /// An entry whose name cannot be in an image.
    #[error("layer {layer} from the top: {source}")]
    Name {
        /// The layer.
        layer: usize,
        /// What is wrong with the name.
        source: NameError,
    },
    /// The root is listed as something else than a directory.
    #[error("layer {layer} from the top lists the root as something that is no directory")]
    RootNotDirectory {
        /// The layer.
        layer: usize,
    },
    /// A symbolic link that Linux could not make or follow.
    #[error("symbolic link `{path}` of layer {layer} from the top has an empty or too long target")]
    SymlinkTarget {
        /// The link.
        path: String,
        /// The layer.
        layer: usize,
    },
    /// An attribute that Linux could not hold.
    #[error("attribute `{name}` of `{path}` in layer {layer} from the top is larger than Linux allows")]
    Attribute {
        /// The attribute.
        name: String,
        /// The file.
        path: String,
        /// The layer.
        layer: usize,
    },
    /// A hard link whose target leaves the image.
    #[error("target of hard link `{path}` in layer {layer} from the top: {source}")]
    HardLinkPath {
        /// The link.
        path: String,
        /// The layer.
        layer: usize,
        /// What is wrong with the target.
        source: RelPathError,
    },
    /// A hard link to a path that neither its layer nor those below have.
    #[error("hard link `{path}` of layer {layer} from the top: neither it nor a layer below has `{target}`")]
    HardLinkMissing {
        /// The link.
        path: String,
        /// The path that is missing.
        target: String,
        /// The layer.
        layer: usize,
    },
    /// A hard link to a directory.
    #[error("hard link `{path}` of layer {layer} from the top: `{target}` is a directory")]
    HardLinkToDirectory {
        /// The link.
        path: String,
        /// The directory.
        target: String,
        /// The layer.
        layer: usize,
    },
    /// An entry below something that is neither a directory nor a link to one.
    #[error("`{path}` of layer {layer} from the top lies below `{parent}`, which is no directory")]
    NotADirectory {
        /// The entry's directory.
        path: String,
        /// The component that is in the way.
        parent: String,
        /// The layer.
        layer: usize,
    },
    /// Too many symbolic links on the way to an entry.
    #[error("the way to `{path}` of layer {layer} from the top leads through too many symbolic links")]
    SymlinkLoop {
        /// The directory that could not be reached.
        path: String,
        /// The layer.
        layer: usize,
    },
    /// The image has more entries than allowed.
    #[error("the image has more than {limit} entries (large attributes and unlisted directories count too)")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
    /// The image has more content than allowed.
    #[error("the files of the image have more than {limit_bytes} bytes (holes and hidden files count too)")]
    TooManyBytes {
        /// The limit.
        limit_bytes: u64,
    },
    /// Content that was passed by is needed, and the layer was not read again.
    #[error("the content of `{path}` was passed by, but a hard link needs it: read its layer once more")]
    ContentPassedBy {
        /// A name of the file.
        path: String,
    },
    /// The second reading of a layer gave something else.
    #[error("layer {layer} from the top was not the same when it was read once more")]
    LayerChanged {
        /// The layer.
        layer: usize,
    },
}

impl Hint for MergeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Tar {
                source: TarError::TruncatedHeader { .. } | TarError::TruncatedData { .. }, ..
            } => Some("pull or save the image again: a part of this layer is missing".to_owned()),
            Self::TooManyEntries { limit } => {
                Some(format!("set `convert.max_entries` above {limit} if you trust this image"))
            }
            Self::TooManyBytes { limit_bytes } => {
                Some(format!("set `convert.max_bytes` above {limit_bytes} if you trust this image"))
            }
            _ => None,
        }
    }
}
