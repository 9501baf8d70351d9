//! The environment of the workload, by the `hpc` rule: `-e` over grants over image over host.
//!
//! The host's `PATH` and `LD_*` never enter: they name files that the image does not have. Shell functions that bash
//! exports (`BASH_FUNC_*`) stay out too, since the image's shell may be another version.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use crate::base::Hint;
use crate::oci::RunConfig;

use super::{Caller, Request};

/// Docker's PATH for an image that sets none (moby `daemon/pkg/oci/defaults.go`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One `-e` or one line of an `--env-file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvRequest {
    /// `NAME=value`.
    Set(OsString, OsString),
    /// `NAME` alone: the caller's value; if the caller has none, the variable is removed.
    Inherit(OsString),
}

/// Why the lines of an `--env-file` are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvFileError {
    /// A name with blanks, which no shell could use.
    #[error("`{file}` line {line}: variable `{name}` contains whitespaces")]
    Name {
        /// The file.
        file: String,
        /// Line number, from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// `=VALUE`.
    #[error("`{file}` line {line}: no variable name")]
    NoName {
        /// The file.
        file: String,
        /// Line number, from 1.
        line: usize,
    },
}

impl Hint for EnvFileError {
    fn hint(&self) -> Option<String> {
        Some("write NAME=value lines; nothing is quoted or expanded".into())
    }
}

/// Reads an `--env-file` by Docker's rules (docker/cli `pkg/kvfile`): leading blanks go, `#` only begins a line, values are
/// taken as they are, and a name alone is the caller's variable.
pub fn parse_env_file(file: &str, text: &str) -> Result<Vec<EnvRequest>, EnvFileError> {
    let mut found = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
        let (file, line) = (file.to_owned(), index + 1);
        if name.is_empty() {
            return Err(EnvFileError::NoName { file, line });
        }
        if name.contains(char::is_whitespace) {
            return Err(EnvFileError::Name { file, line, name: name.into() });
        }
        found.push(match value {
            Some(value) => EnvRequest::Set(name.into(), value.into()),
            None => EnvRequest::Inherit(name.into()),
        });
    }
    Ok(found)
}

pub(super) fn merge(
    config: &RunConfig,
    request: &Request,
    granted: &[(String, String)],
    caller: &Caller,
) -> Vec<OsString> {
    let host = &caller.env;
    let mut env: BTreeMap<OsString, OsString> = host
        .iter()
        .filter(|(name, _)| passes(name) && (!request.clean_env || is_kept_when_clean(name)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(home) = &caller.home {
        env.entry("HOME".into()).or_insert_with(|| home.clone().into());
    }
    env.insert("PYTHONNOUSERSITE".into(), "1".into());
    env.insert("PATH".into(), DEFAULT_PATH.into());
    for line in &config.env {
        match line.split_once('=') {
            Some(("", _)) => {}
            Some((name, value)) => drop(env.insert(name.into(), value.into())),
            None => drop(env.remove(OsStr::new(line))),
        }
    }
    for (name, value) in granted {
        env.insert(name.into(), value.into());
    }
    for asked in &request.env {
        match asked {
            EnvRequest::Set(name, value) => drop(env.insert(name.clone(), value.clone())),
            EnvRequest::Inherit(name) => match host.get(name) {
                Some(value) => drop(env.insert(name.clone(), value.clone())),
                None => drop(env.remove(name)),
            },
        }
    }
    env.into_iter()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        })
        .collect()
}

fn passes(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !(name == b"PATH" || name == b"_" || name.starts_with(b"LD_") || name.starts_with(b"BASH_FUNC_"))
}

/// As Apptainer's `--cleanenv`: the terminal's kind and the proxies.
fn is_kept_when_clean(name: &OsStr) -> bool {
    name == "TERM" || name == "HOME" || name.to_string_lossy().to_ascii_lowercase().ends_with("_proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_sources_win_and_host_paths_stay_out() {
        let host: BTreeMap<OsString, OsString> = [
            ("PATH", "/host"),
            ("LD_PRELOAD", "x"),
            ("A", "host"),
            ("B", "host"),
            ("C", "host"),
            ("BASH_FUNC_f%%", "()"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
        let config = RunConfig {
            env: vec!["B=image".into(), "D=image".into(), "E=image".into(), "=x".into(), "F".into()],
            ..RunConfig::default()
        };
        let asked = [
            EnvRequest::Set("D".into(), "asked".into()),
            EnvRequest::Inherit("LD_PRELOAD".into()),
            EnvRequest::Inherit("E".into()),
        ];
        let caller = Caller {
            uid: 1000,
            gid: 1000,
            name: "ada".into(),
            group: "ada".into(),
            home: Some("/home/ada".into()),
            cwd: None,
            env: host,
            host_has: Vec::new(),
        };
        let request = Request { env: asked.into(), ..Request::default() };
        let granted = [("G".to_owned(), "granted".to_owned())];
        let clean = Request { clean_env: true, ..Request::default() };
        let few = merge(&RunConfig::default(), &clean, &[], &caller);
        assert_eq!(few.len(), 3, "{few:?}");
        let env = merge(&config, &request, &granted, &caller);
        let lines: Vec<_> = env.iter().map(|line| line.to_str().unwrap()).collect();
        assert_eq!(
            lines,
            [
                "A=host",
                "B=image",
                "C=host",
                "D=asked",
                "G=granted",
                "HOME=/home/ada",
                "LD_PRELOAD=x",
                &format!("PATH={DEFAULT_PATH}"),
                "PYTHONNOUSERSITE=1"
            ]
        );
    }

    #[test]
    fn reads_env_files() {
        let read = parse_env_file("f", "\u{feff}# comment\n A=1 # kept \nB\n\nC=\n").unwrap();
        let expected = [
            EnvRequest::Set("A".into(), "1 # kept ".into()),
            EnvRequest::Inherit("B".into()),
            EnvRequest::Set("C".into(), "".into()),
        ];
        assert_eq!(read, expected);
        let error = |text: &str| parse_env_file("f", text).unwrap_err().to_string();
        assert_eq!(error("\n=x"), "`f` line 2: no variable name");
        assert_eq!(error("A B=x"), "`f` line 1: variable `A B` contains whitespaces");
    }
}
