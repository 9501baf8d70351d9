//! Why things are, or are not, inside: for `--explain`.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::grants::{Grants, LIBRARY_DIRECTORY};

/// Where a thing came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Part of every container of this profile.
    Default,
    /// The host, or who calls.
    Host,
    /// The image.
    Image,
    /// A configuration file.
    Config,
    /// A provider: the driver of a GPU, and the like.
    Granted,
    /// The user.
    Asked,
}

/// A source, and the rule by which it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Where from.
    pub source: Source,
    /// By which rule, flag or setting.
    pub why: Cow<'static, str>,
}

impl Reason {
    pub(super) fn new(source: Source, why: impl Into<Cow<'static, str>>) -> Self {
        Self { source, why: why.into() }
    }
}

/// Why each library and each file made for a provider is inside; they are no mounts of the spec.
pub(super) fn of_files(grants: &Grants) -> Vec<(PathBuf, Reason)> {
    let files = grants.files.iter().map(|file| file.target.clone());
    let libraries = grants.libraries.iter().map(|library| Path::new(LIBRARY_DIRECTORY).join(&library.name));
    let reason = |place: PathBuf| {
        let why = grants.reason(&place.to_string_lossy());
        (place, Reason::new(Source::Granted, why))
    };
    files.chain(libraries).map(reason).collect()
}

impl Source {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Host => "host",
            Self::Image => "image",
            Self::Config => "config",
            Self::Granted => "granted",
            Self::Asked => "asked",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source.as_str(), self.why)
    }
}
