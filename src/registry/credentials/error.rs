//! Why logins could not be read or written, without a word of what is in them.

use std::io;
use std::path::PathBuf;

use crate::base::Hint;

/// Why a place that knows logins was of no use.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file system.
    #[error("cannot {verb} `{path}`: {source}", path = .path.display())]
    File {
        /// `read`, `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file has another form.
    #[error("the login file `{path}` is not valid: {why}", path = .path.display())]
    Form {
        /// The file, or the variable.
        path: PathBuf,
        /// What is wrong, without its content.
        why: String,
    },
    /// The entry of one registry has another form.
    #[error("the login for `{key}` in `{path}` is not valid: {why}", path = .path.display())]
    Entry {
        /// The file, or the variable.
        path: PathBuf,
        /// The registry.
        key: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A helper that cannot be started.
    #[error("the login for `{server}` is with the helper `{program}`, which cannot be started: {source}")]
    HelperStart {
        /// The program.
        program: String,
        /// The registry.
        server: String,
        /// The cause.
        source: io::Error,
    },
    /// A helper that failed.
    #[error("the helper `{program}` failed to {verb} the login for `{server}`: {why}")]
    Helper {
        /// The program.
        program: String,
        /// `get`, `store`, `erase`.
        verb: &'static str,
        /// The registry.
        server: String,
        /// Its words, or its status.
        why: String,
    },
    /// Nothing says where logins are kept.
    #[error("there is no place to keep a login")]
    NoPlace,
}

impl Hint for CredentialError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::HelperStart { program, .. } => Some(format!(
                "install `{program}`, or take it out of `credsStore` and `credHelpers` in docker's config.json and run `slipway login`"
            )),
            Self::Form { path, .. } | Self::Entry { path, .. } => {
                Some(format!("mend `{}`, or log in again with `slipway login`", path.display()))
            }
            Self::NoPlace => Some("set HOME or DOCKER_CONFIG".into()),
            Self::File { .. } | Self::Helper { .. } => None,
        }
    }
}
