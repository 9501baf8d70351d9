//! Enroot's `.credentials`: the form of netrc, `machine HOST login NAME password SECRET`.

use std::path::Path;

use super::{CredentialError, Keys, Login, Secret};

/// The login that the file knows. A file that is not there knows none.
pub(super) fn login(path: &Path, keys: &Keys) -> Result<Option<Login>, CredentialError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(source) => return Err(CredentialError::File { verb: "read", path: path.into(), source }),
    };
    let Some(entry) = entries(&text).into_iter().find(|entry| keys.is_host(&entry.machine)) else {
        return Ok(None);
    };
    if entry.password.starts_with("$(") || entry.password.starts_with('`') {
        let why = "its password is a shell command, and those are not run here";
        return Err(CredentialError::Entry { path: path.into(), key: entry.machine, why });
    }
    let password = Secret::new(entry.password);
    Ok((!entry.login.is_empty()).then_some(Login::Password { username: entry.login, password }))
}

#[derive(Default)]
struct Entry {
    machine: String,
    login: String,
    password: String,
}

fn entries(text: &str) -> Vec<Entry> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let mut entries: Vec<Entry> = Vec::new();
    for pair in Pairs(&words) {
        match (pair, entries.last_mut()) {
            (("machine", value), _) => entries.push(Entry { machine: value.into(), ..Entry::default() }),
            (("login", value), Some(entry)) => entry.login = unquoted(value),
            (("password", value), Some(entry)) => entry.password = unquoted(value),
            _ => {}
        }
    }
    entries
}

/// Keywords with their values; unknown words are stepped over.
struct Pairs<'a>(&'a [&'a str]);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (word, rest) = self.0.split_first()?;
            if !matches!(*word, "machine" | "login" | "password" | "account") {
                self.0 = rest;
                continue;
            }
            let (value, rest) = rest.split_first()?;
            self.0 = rest;
            return Some((word, value));
        }
    }
}

fn unquoted(value: &str) -> String {
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    inner.unwrap_or(value).replace("\\$", "$")
}
