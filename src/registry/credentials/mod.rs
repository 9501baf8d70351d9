//! Logins: who the user is at a registry, and the files and helpers that know it.
//!
//! ```text
//! DOCKER_AUTH_CONFIG ─▶ REGISTRY_AUTH_FILE ─▶ docker's config.json ─▶ containers' auth.json ─▶ enroot's .credentials
//!                                              └─ credHelpers, credsStore: docker-credential-NAME
//! ```
//!
//! The first place that knows the registry wins. They are asked only when a registry asks. A secret has no `Debug`, is
//! in no error and never becomes an argument of a process: helpers get and give them by pipes.

#![expect(
    clippy::disallowed_methods,
    reason = "reads and writes the users' login files, and starts their helpers"
)]

mod base64;
mod error;
mod file;
mod helper;
mod netrc;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

pub use error::CredentialError;
pub use write::{Kept, erase_login, keep_login};

pub(super) use base64::encode as base64_encode;

/// The names that stand for Docker Hub in login files. The first is the one that Docker itself writes.
const HUB_NAMES: [&str; 4] =
    ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"];

/// A text that must not be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text out of sight.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the wire and for login files only.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who the user is at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password; the latter is often a token too (`$oauthtoken` and an API key, say).
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token that the registry's token server gave at the login.
    Identity {
        /// The name, perhaps empty.
        username: String,
        /// The token.
        token: Secret,
    },
    /// A token for the registry itself.
    Bearer {
        /// The token.
        token: Secret,
    },
}

impl Login {
    /// The user's name, if there is one.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Password { username, .. } | Self::Identity { username, .. } => {
                Some(username.as_str()).filter(|name| !name.is_empty())
            }
            Self::Bearer { .. } => None,
        }
    }
}

/// A file that may know logins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// JSON of docker or podman.
    Json(PathBuf),
    /// Enroot's netrc-like file.
    Netrc(PathBuf),
}

/// Where logins are looked for. The default knows none.
#[derive(Debug, Clone, Default)]
pub struct CredentialSources {
    /// The variable `DOCKER_AUTH_CONFIG`.
    inline: Option<Secret>,
    sources: Vec<Source>,
    /// The file that a login is written to.
    target: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) login: Option<Login>,
    /// A place that could not be asked. It matters only if the registry lets nobody else in.
    pub(super) trouble: Option<CredentialError>,
}

impl CredentialSources {
    /// The places of a user with this environment. `HOME` must be in it.
    #[must_use]
    pub fn from_env(env: &BTreeMap<OsString, OsString>) -> Self {
        let value = |name: &str| env.get(OsStr::new(name)).filter(|value| !value.is_empty());
        let path = |name: &str| value(name).map(PathBuf::from);
        let home = path("HOME").unwrap_or_else(|| "/nonexistent".into());
        let config_home = path("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        let docker = path("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker")).join("config.json");
        let explicit = path("REGISTRY_AUTH_FILE");
        let runtime = path("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json"));
        let enroot = path("ENROOT_CONFIG_PATH").unwrap_or_else(|| config_home.join("enroot"));
        let mut sources: Vec<Source> = explicit.clone().map(Source::Json).into_iter().collect();
        sources.push(Source::Json(docker.clone()));
        sources.push(Source::Json(config_home.join("containers/auth.json")));
        sources.extend(runtime.map(Source::Json));
        sources.push(Source::Netrc(enroot.join(".credentials")));
        Self {
            inline: value("DOCKER_AUTH_CONFIG").map(|text| Secret(text.to_string_lossy().into_owned())),
            sources,
            target: Some(explicit.unwrap_or(docker)),
        }
    }

    /// Whether a login file names a helper, which is a program of others that may need any right of the user's.
    #[must_use]
    pub fn name_helpers(&self) -> bool {
        let json = self.sources.iter().filter_map(|source| match source {
            Source::Json(path) => Some(path),
            Source::Netrc(_) => None,
        });
        // A file that cannot be read names none, and what cannot be understood is told when a login is needed.
        json.filter_map(|path| std::fs::read_to_string(path).ok())
            .any(|text| text.contains("\"credsStore\"") || text.contains("\"credHelpers\""))
    }

    /// The login for a registry, if it can be read.
    #[must_use]
    pub fn login_for(&self, host: &str) -> Option<Login> {
        self.find(host, "").login
    }

    /// The login for a repository of a registry (`host` or `host:port`).
    pub(super) fn find(&self, host: &str, repository: &str) -> Found {
        let keys = Keys::of(host, repository);
        let mut found = Found::default();
        if let Some(inline) = &self.inline {
            // The variable is strict: only what is written there, no helpers.
            match file::parse(inline.expose().as_bytes(), Path::new("DOCKER_AUTH_CONFIG"))
                .and_then(|value| file::entry(&value, &keys, Path::new("DOCKER_AUTH_CONFIG")))
            {
                Ok(login) => found.login = login,
                Err(error) => found.trouble = Some(error),
            }
        }
        for source in &self.sources {
            if found.login.is_some() {
                break;
            }
            let answer = match source {
                Source::Json(path) => file::login(path, &keys),
                Source::Netrc(path) => netrc::login(path, &keys),
            };
            match answer {
                Ok(login) => found.login = login,
                Err(error) => {
                    found.trouble.get_or_insert(error);
                }
            }
        }
        found
    }
}

/// The names under which a registry may stand in a file, best first.
#[derive(Debug)]
struct Keys {
    /// The registry alone.
    hosts: Vec<String>,
    /// `host/path` for ever shorter beginnings of the repository's path.
    prefixes: Vec<String>,
}

impl Keys {
    fn of(host: &str, repository: &str) -> Self {
        let hosts: Vec<String> = if HUB_NAMES.contains(&host) {
            HUB_NAMES.map(str::to_owned).to_vec()
        } else {
            vec![host.to_owned()]
        };
        let mut prefixes = Vec::new();
        let mut path = repository;
        while !path.is_empty() {
            let plain = hosts.iter().filter(|host| !host.contains("://"));
            prefixes.extend(plain.map(|host| format!("{host}/{path}")));
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        Self { hosts, prefixes }
    }

    /// What a helper is asked for.
    fn server(&self) -> &str {
        self.hosts.first().map_or("", String::as_str)
    }

    /// Whether a key of a file, perhaps an address of long ago (`https://host/v1/`), means this registry.
    fn is_host(&self, key: &str) -> bool {
        let is_address = key.contains("://") || ["/", "/v1", "/v2"].iter().any(|end| key.ends_with(end));
        let host = if is_address { host_of_address(key) } else { key };
        self.hosts.iter().any(|own| own == key || host_of_address(own).eq_ignore_ascii_case(host))
    }
}

fn host_of_address(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// The key that Docker uses for a server that a user names: the address of old for Docker Hub, else host and port.
#[must_use]
pub fn server_key(server: &str) -> String {
    let host = host_of_address(server);
    if host.is_empty() || HUB_NAMES.contains(&host) { HUB_NAMES[0].into() } else { host.to_owned() }
}
