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

/// Why each library and each file made for a provider is inside.
pub(super) fn of_files(grants: &Grants) -> Vec<(PathBuf, Reason)> {
    let library = |name: &str| grants.reasons.get(name).map_or("a library of the driver", String::as_str);
    let libraries = grants.libraries.iter().map(|one| {
        let why = library(&one.name).to_owned();
        (Path::new(LIBRARY_DIRECTORY).join(&one.name), Reason::new(Source::Granted, why))
    });
    let files = grants.files.iter().filter_map(|file| {
        let why = grants.reasons.get(&*file.target.to_string_lossy())?;
        Some((file.target.clone(), Reason::new(Source::Granted, why.clone())))
    });
    libraries.chain(files).collect()
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
