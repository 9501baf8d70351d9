//! Docker's `config.json` and podman's `auth.json`: one form, read without believing it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde_json::Value;

use super::{CredentialError, Keys, Login, Secret, base64, helper};

/// Largest login file, in bytes.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// The login that a file knows, by itself or through a helper that it names. A file that is not there knows none.
pub(super) fn login(path: &Path, keys: &Keys) -> Result<Option<Login>, CredentialError> {
    let Some(value) = read(path)? else { return Ok(None) };
    match helper_for(&value, keys) {
        // A helper wins also where the file has an entry, as with docker. An absent answer is no reason to look on there.
        Some(name) => helper::get(name, keys.server()),
        None => entry(&value, keys, path),
    }
}

/// The file as it is; `None` if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Value>, CredentialError> {
    let wrong = |source| CredentialError::File { verb: "read", path: path.into(), source };
    let file = match File::open(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        file => file.map_err(wrong)?,
    };
    let mut raw = Vec::new();
    file.take(FILE_LIMIT_BYTES).read_to_end(&mut raw).map_err(wrong)?;
    if raw.trim_ascii().is_empty() {
        return Ok(None);
    }
    parse(&raw, path).map(Some)
}

pub(super) fn parse(raw: &[u8], path: &Path) -> Result<Value, CredentialError> {
    let wrong = |why: String| CredentialError::Form { path: path.into(), why };
    // The parser's own words could quote what stands there.
    let value: Value = serde_json::from_slice(raw)
        .map_err(|error| wrong(format!("no JSON at line {}, column {}", error.line(), error.column())))?;
    if value.is_object() { Ok(value) } else { Err(wrong("it is no JSON object".into())) }
}

/// The helper that the file names for a registry.
pub(super) fn helper_for<'a>(value: &'a Value, keys: &Keys) -> Option<&'a str> {
    let helpers = value.get("credHelpers").and_then(Value::as_object);
    let own = helpers.and_then(|helpers| {
        let exact = keys.prefixes.iter().chain(&keys.hosts).find_map(|key| helpers.get(key));
        exact.or_else(|| helpers.iter().find(|(key, _)| keys.is_host(key)).map(|(_, name)| name))
    });
    let name = own.or_else(|| value.get("credsStore"))?;
    name.as_str().filter(|name| !name.is_empty())
}

/// The entry of the file itself.
pub(super) fn entry(value: &Value, keys: &Keys, path: &Path) -> Result<Option<Login>, CredentialError> {
    let Some(auths) = value.get("auths").and_then(Value::as_object) else { return Ok(None) };
    let exact = keys.prefixes.iter().chain(&keys.hosts).find_map(|key| auths.get_key_value(key));
    let Some((key, entry)) = exact.or_else(|| auths.iter().find(|(key, _)| keys.is_host(key))) else {
        return Ok(None);
    };
    login_of(entry).map_err(|why| CredentialError::Entry { path: path.into(), key: key.clone(), why })
}

fn login_of(entry: &Value) -> Result<Option<Login>, &'static str> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Login::Bearer { token: Secret::new(token) }));
    }
    let pair = match text("auth") {
        Some(packed) => Some(unpack(packed)?),
        None => {
            text("username").map(|name| (name.to_owned(), text("password").unwrap_or_default().to_owned()))
        }
    };
    if let Some(token) = text("identitytoken") {
        let username = pair.map(|(username, _)| username).unwrap_or_default();
        return Ok(Some(Login::Identity { username, token: Secret::new(token) }));
    }
    Ok(pair.map(|(username, password)| Login::Password { username, password: Secret::new(password) }))
}

/// `base64(user:password)`.
fn unpack(packed: &str) -> Result<(String, String), &'static str> {
    let bytes = base64::decode(packed).ok_or("`auth` is no base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "`auth` is no text")?;
    let (username, password) = text.split_once(':').ok_or("`auth` has no colon between name and password")?;
    if username.is_empty() {
        return Err("`auth` has no user name");
    }
    Ok((username.into(), password.trim_end_matches('\0').into()))
}
