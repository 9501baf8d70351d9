//! Which certificates a TLS connection may rest on: `SSL_CERT_FILE` or the system's bundle, and a registry's own from
//! `certs.d/HOST[:PORT]/` of docker and podman (`*.crt` authorities, `*.cert` and `*.key` of the client).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where distributions keep the certificates that the system trusts.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];
/// Largest certificate file, in bytes; system bundles have a quarter of a megabyte.
const FILE_LIMIT_BYTES: u64 = 16 << 20;

/// Where certificates are looked for. The default trusts what the program was built with.
#[derive(Debug, Clone, Default)]
pub struct TrustSources {
    /// `SSL_CERT_FILE`: instead of the system's.
    bundle: Option<PathBuf>,
    system: Vec<PathBuf>,
    /// Directories like `/etc/docker/certs.d`.
    directories: Vec<PathBuf>,
}

/// What holds for one host, as PEM.
#[derive(Debug, Default)]
pub(super) struct HostTrust {
    /// Authorities; empty means those that the program was built with.
    pub(super) authorities: Vec<Vec<u8>>,
    /// The client's own certificate and its key.
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl TrustSources {
    /// The places of a user with this environment. `HOME` must be in it.
    #[must_use]
    pub fn from_env(env: &BTreeMap<OsString, OsString>) -> Self {
        let path =
            |name: &str| env.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME").unwrap_or_else(|| "/nonexistent".into());
        let config_home = path("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        Self {
            bundle: path("SSL_CERT_FILE"),
            system: SYSTEM_BUNDLES.map(PathBuf::from).to_vec(),
            directories: vec![
                config_home.join("containers/certs.d"),
                config_home.join("docker/certs.d"),
                "/etc/containers/certs.d".into(),
                "/etc/docker/certs.d".into(),
            ],
        }
    }

    /// The directory with a registry's own certificates, if there is one. Such a registry speaks TLS, wherever it is.
    pub(super) fn directory(&self, authority: &str) -> Option<PathBuf> {
        // A name with a slash would lead elsewhere; an authority has none.
        if authority.is_empty() || authority.contains('/') || authority.starts_with('.') {
            return None;
        }
        self.directories.iter().map(|directory| directory.join(authority)).find(|path| path.is_dir())
    }

    /// Reads what holds for a host. The error is in words that name the file.
    pub(super) fn read(&self, authority: &str) -> Result<HostTrust, String> {
        let mut trust = HostTrust::default();
        match &self.bundle {
            Some(path) => trust.authorities.push(read(path)?),
            None => {
                trust.authorities.extend(
                    self.system.iter().filter(|path| path.is_file()).find_map(|path| read(path).ok()),
                );
            }
        }
        let Some(directory) = self.directory(authority) else { return Ok(trust) };
        let entries = fs::read_dir(&directory).map_err(|error| cannot_read(&directory, &error))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(OsStr::to_str) {
                Some("crt") => trust.authorities.push(read(&path)?),
                Some("cert") => trust.client = Some((read(&path)?, read(&path.with_extension("key"))?)),
                _ => {}
            }
        }
        Ok(trust)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let facts = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    if facts.len() > FILE_LIMIT_BYTES {
        return Err(format!("`{}` is too large for a file of certificates", path.display()));
    }
    fs::read(path).map_err(|error| cannot_read(path, &error))
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read `{}`: {error}", path.display())
}
