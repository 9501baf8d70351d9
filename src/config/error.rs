//! What can be wrong with a configuration, with file and line.

use std::io;
use std::path::PathBuf;

use crate::base::{Hint, HostlistError, Origin};

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
    /// A key that was asked for and does not exist.
    #[error("there is no key `{key}`")]
    NoKey {
        /// The key as written.
        key: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// `[[nodes]]`, `[[partitions]]` or `[[nodesets]]` in another form.
    #[error("{path}:{line}: {}", record(kind, *lacks))]
    Record {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The record's name.
        kind: &'static str,
        /// The key that it needs and has not; `None` if it is no list of tables at all.
        lacks: Option<&'static str>,
    },
    /// Names of nodes or partitions that cannot be read.
    #[error("{path}:{line}: {source}")]
    Names {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and where in the text.
        source: HostlistError,
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
            Self::UnknownKey { nearest: Some(nearest), .. } | Self::NoKey { nearest: Some(nearest), .. } => {
                Some(format!("the nearest key is `{nearest}`"))
            }
            Self::UnknownKey { nearest: None, .. } | Self::NoKey { nearest: None, .. } => {
                Some("`slipway config show` lists all keys".into())
            }
            Self::Record { kind, lacks, .. } => Some(format!(
                "write `[[{kind}]]` and below it `{} = \"gpu[001-128]\"`",
                lacks.unwrap_or("names")
            )),
            Self::Names { .. } => Some("write names as Slurm does: `gpu[001-128],login1`".into()),
            Self::Variable { key, .. } => {
                let name = key.replace('.', "_").to_ascii_uppercase();
                Some(format!("set the variable, or give the value as SLIPWAY_{name}"))
            }
            Self::Read { .. } | Self::Syntax { .. } | Self::Value { .. } => None,
        }
    }
}

fn record(kind: &str, lacks: Option<&str>) -> String {
    match lacks {
        Some(key) => format!("`[[{kind}]]` needs `{key}`, a text with names"),
        None => format!("`{kind}` is a list of tables, each under `[[{kind}]]`"),
    }
}
