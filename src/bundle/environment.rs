//! The environment of the workload, by the `hpc` rule: `-e` over grants over image over host.
//!
//! The host's `PATH` and `LD_*` never enter: they name files that the image does not have. Shell functions that bash
//! exports (`BASH_FUNC_*`) stay out too, since the image's shell may be another version.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use crate::oci::RunConfig;

use super::Caller;

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

pub(super) fn merge(
    config: &RunConfig,
    asked: &[EnvRequest],
    granted: &[(String, String)],
    caller: &Caller,
) -> Vec<OsString> {
    let host = &caller.env;
    let mut env: BTreeMap<OsString, OsString> = host
        .iter()
        .filter(|(name, _)| passes(name))
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
    for request in asked {
        match request {
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
        let env = merge(&config, &asked, &[("G".into(), "granted".into())], &caller);
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
}
