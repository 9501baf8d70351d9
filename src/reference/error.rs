//! Why a text is not an image name, in words.

use crate::base::Hint;
use crate::base::digest::DigestError;

/// Why a text is not an image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Empty.
    #[error("`{text}` is not an image name")]
    Form {
        /// The text.
        text: String,
    },
    /// A web address.
    #[error("`{text}` is not an image name: it begins with `{scheme}://`")]
    Scheme {
        /// The text.
        text: String,
        /// The scheme.
        scheme: String,
        /// What stands after the scheme.
        without: String,
    },
    /// 64 hex digits.
    #[error("`{text}` is an image ID, not an image name")]
    ImageId {
        /// The text.
        text: String,
    },
    /// The registry's name is malformed.
    #[error("`{text}` is not an image name: `{domain}` is not a registry host with an optional port")]
    Domain {
        /// The text.
        text: String,
        /// The part that was read as the registry.
        domain: String,
    },
    /// Upper case in the repository.
    #[error("`{text}` is not an image name: the repository must be lower case")]
    UpperCase {
        /// The text.
        text: String,
    },
    /// A malformed part of the path.
    #[error(
        "`{text}` is not an image name: `{component}` is not lower-case letters and digits joined by `.`, `_`, `__` or `-`"
    )]
    Component {
        /// The text.
        text: String,
        /// The part between two slashes.
        component: String,
    },
    /// A malformed tag.
    #[error(
        "`{text}` is not an image name: tag `{tag}` may hold only letters, digits, `_`, `.` and `-`, at most 128, and begins with none of the last two"
    )]
    Tag {
        /// The text.
        text: String,
        /// The tag.
        tag: String,
    },
    /// A malformed digest, or one that cannot be verified.
    #[error("`{text}` is not an image name: {source}")]
    Digest {
        /// The text.
        text: String,
        /// The cause.
        source: DigestError,
    },
    /// Too long.
    #[error("the {what} of the image name is {length} bytes long, at most {limit} are allowed")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl Hint for ReferenceError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Form { .. } => {
                Some("name an image as in `python:3.12` or `nvcr.io/nvidia/pytorch:25.01-py3`".into())
            }
            Self::Scheme { without, .. } => Some(format!("write `{without}` without the scheme")),
            Self::UpperCase { text } => Some(format!("write `{}`", lower_repository(text))),
            Self::ImageId { .. } => Some("`slipway images` lists images by ID".into()),
            Self::Digest { source: DigestError::Algorithm { .. }, .. } => {
                Some("name the image by its sha256 digest or by a tag".into())
            }
            Self::Domain { .. }
            | Self::Component { .. }
            | Self::Tag { .. }
            | Self::Digest { .. }
            | Self::TooLong { .. } => None,
        }
    }
}

/// The name with its repository in lower case; tag and digest may hold capitals and stay.
fn lower_repository(text: &str) -> String {
    let path_start = text.find('/').map_or(0, |slash| slash + 1);
    let path_end = text
        .get(path_start..)
        .and_then(|rest| rest.find([':', '@']))
        .map_or(text.len(), |end| path_start + end);
    let (head, tail) = text.split_at(path_end);
    let (domain, path) = head.split_at(path_start);
    // `Foo/bar` would be the registry `Foo`, so a first part with capitals is only here if it is not the whole trouble.
    format!("{domain}{}{tail}", path.to_ascii_lowercase())
}
