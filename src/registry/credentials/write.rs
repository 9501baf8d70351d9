//! A login kept, and forgotten: in a helper, or in the file, all of whose other words stay.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize as _;
use serde_json::{Map, Value};

use super::{
    CredentialError, CredentialSources, Keys, Login, base64, file, helper, host_of_address, server_key,
};

/// Where a login was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In this file, readable by its owner alone but not encrypted.
    File(PathBuf),
    /// By this helper.
    Helper(String),
}

/// Keeps the login for `server`, where docker would.
pub fn keep_login(sources: &CredentialSources, server: &str, login: &Login) -> Result<Kept, CredentialError> {
    let (path, mut value, key) = open(sources, server)?;
    if let Some(name) = file::helper_for(&value, &Keys::of(&key, "")).map(str::to_owned) {
        helper::store(&name, &key, login)?;
        // Docker notes there, without the secret, whom the helper knows.
        auths(&mut value).insert(key, Value::Object(Map::new()));
        write(&path, &value)?;
        return Ok(Kept::Helper(name));
    }
    auths(&mut value).insert(key, entry_of(login));
    write(&path, &value)?;
    Ok(Kept::File(path))
}

/// Forgets the login for `server`; tells whether there was one.
pub fn erase_login(sources: &CredentialSources, server: &str) -> Result<bool, CredentialError> {
    let (path, mut value, key) = open(sources, server)?;
    let mut known = false;
    if let Some(name) = file::helper_for(&value, &Keys::of(&key, "")).map(str::to_owned) {
        known = helper::erase(&name, &key)?;
    }
    let keys = Keys::of(&key, "");
    let auths = auths(&mut value);
    let before = auths.len();
    auths.retain(|key, _| !keys.is_host(key));
    if auths.len() != before {
        known = true;
        write(&path, &value)?;
    }
    Ok(known)
}

fn open(sources: &CredentialSources, server: &str) -> Result<(PathBuf, Value, String), CredentialError> {
    let path = sources.target.clone().ok_or(CredentialError::NoPlace)?;
    let value = file::read(&path)?.unwrap_or_else(|| Value::Object(Map::new()));
    let key = server_key(server);
    // Podman knows Docker Hub by its plain name.
    let is_podmans = path.file_name().is_some_and(|name| name == "auth.json");
    let key = if is_podmans && host_of_address(&key) == "index.docker.io" { "docker.io".into() } else { key };
    Ok((path, value, key))
}

fn auths(value: &mut Value) -> &mut Map<String, Value> {
    let whole = value.as_object_mut().expect("a login file is an object");
    let auths = whole.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    if !auths.is_object() {
        *auths = Value::Object(Map::new());
    }
    auths.as_object_mut().expect("made so just now")
}

fn entry_of(login: &Login) -> Value {
    let pair = |username: &str, password: &str| base64::encode(format!("{username}:{password}").as_bytes());
    match login {
        Login::Password { username, password } => {
            serde_json::json!({ "auth": pair(username, password.expose()) })
        }
        Login::Identity { username, token } if username.is_empty() => {
            serde_json::json!({ "identitytoken": token.expose() })
        }
        Login::Identity { username, token } => {
            serde_json::json!({ "auth": pair(username, ""), "identitytoken": token.expose() })
        }
        Login::Bearer { token } => serde_json::json!({ "registrytoken": token.expose() }),
    }
}

/// Replaces the file at once, so that no reader sees half of it, and keeps a symbolic link to it.
fn write(path: &Path, value: &Value) -> Result<(), CredentialError> {
    let mut text = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut text, form))
        .expect("a JSON value can be written");
    let target = followed(path);
    replace(&target, &text).map_err(|source| CredentialError::File { verb: "write", path: target, source })
}

/// Where the links of `path` end, also if nothing is there yet.
fn followed(path: &Path) -> PathBuf {
    const LINK_LIMIT: usize = 16;
    let mut path = path.to_path_buf();
    for _ in 0..LINK_LIMIT {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    path
}

fn replace(target: &Path, text: &[u8]) -> io::Result<()> {
    let directory = target.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory.join(name);
    let written = (|| {
        // What a process of the same number left behind is of no use.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, target)
    })();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}
