//! What can be wrong with a configuration, with file and line.

use std::io;
use std::path::PathBuf;

use crate::base::{Hint, Origin};

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that is there cannot be read, or a file that was named is not there.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Not TOML.
    #[error("{path}:{line}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// A key that does not exist.
    #[error("{path}:{line}: there is no key `{key}`")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key as written.
        key: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// A value of another type, or out of range.
    #[error("{origin}: `{key}` is {expected}, not {found}")]
    Value {
        /// The key.
        key: &'static str,
        /// Where the value stands.
        origin: Origin,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A path with a variable that is not set.
    #[error("{origin}: `{key}` needs the environment variable {variable}, which is not set")]
    Variable {
        /// The key.
        key: &'static str,
        /// Where the path stands.
        origin: Origin,
        /// The variable.
        variable: String,
    },
}

impl Hint for ConfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { nearest: Some(nearest), .. } => {
                Some(format!("the nearest key is `{nearest}`"))
            }
            Self::UnknownKey { nearest: None, .. } => Some("`slipway config show` lists all keys".into()),
            Self::Variable { key, .. } => {
                let name = key.replace('.', "_").to_ascii_uppercase();
                Some(format!("set the variable, or give the value as SLIPWAY_{name}"))
            }
            Self::Read { .. } | Self::Syntax { .. } | Self::Value { .. } => None,
        }
    }
}
