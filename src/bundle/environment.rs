//! The environment of the workload. In the `hpc` profile: `-e` over grants over image over host; in the `docker` profile
//! the host has no part (docker.com, "run", and moby `daemon/container/env.go`).
//!
//! The host's `PATH` and `LD_*` never enter: they name files that the image does not have. Shell functions that bash
//! exports (`BASH_FUNC_*`) stay out too, since the image's shell may be another version.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::base::Hint;
use crate::config::Profile;
use crate::grants::Grants;
use crate::oci::RunConfig;

use super::explain::{Reason, Source};
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

/// The variables of a workload, and those of the caller that stay out.
#[derive(Debug, Default)]
pub(super) struct Environment {
    variables: BTreeMap<OsString, (OsString, Reason)>,
    pub(super) withheld: Vec<(String, Reason)>,
}

/// What the environment is made of, beside what was asked.
pub(super) struct Inputs<'a> {
    pub(super) config: &'a RunConfig,
    pub(super) request: &'a Request,
    pub(super) grants: &'a Grants,
    pub(super) caller: &'a Caller,
    /// Home of the user by the image's `/etc/passwd`.
    pub(super) home: &'a Path,
}

pub(super) fn merge(inputs: &Inputs<'_>) -> Environment {
    let mut env = Environment::default();
    match inputs.request.profile {
        Profile::Hpc => env.add_callers(inputs),
        Profile::Docker => env.add_dockers(inputs),
    }
    for line in &inputs.config.env {
        match line.split_once('=') {
            Some(("", _)) => {}
            Some((name, value)) => env.set(name, value, Source::Image, "ENV of the image"),
            None => env.remove(OsStr::new(line)),
        }
    }
    for (name, value) in &inputs.grants.env {
        env.set(name, value, Source::Granted, inputs.grants.reason(name));
    }
    env.add_proxies(inputs.request);
    env.add_asked(inputs);
    if inputs.request.profile == Profile::Docker && !env.variables.contains_key(OsStr::new("HOME")) {
        let home = inputs.request.home.as_ref().map_or(inputs.home, |home| &home.target);
        env.set("HOME", home, Source::Image, "home of the user in the image's /etc/passwd");
    }
    env
}

impl Environment {
    fn set(
        &mut self,
        name: impl Into<OsString>,
        value: impl Into<OsString>,
        source: Source,
        why: impl Into<Cow<'static, str>>,
    ) {
        self.variables.insert(name.into(), (value.into(), Reason::new(source, why)));
    }

    fn remove(&mut self, name: &OsStr) {
        self.variables.remove(name);
    }

    /// The hpc profile: the caller's own, without what names files of the host.
    fn add_callers(&mut self, inputs: &Inputs<'_>) {
        let (caller, request) = (inputs.caller, inputs.request);
        for (name, value) in &caller.env {
            let why = match why_withheld(name) {
                Some(why) => why,
                None if request.clean_env && !is_kept_when_clean(name) => "--cleanenv",
                None => {
                    self.set(name, value, Source::Host, "the caller's environment");
                    continue;
                }
            };
            self.withheld.push((name.to_string_lossy().into_owned(), Reason::new(Source::Host, why)));
        }
        if let Some(home) = &request.home {
            self.set("HOME", &home.target, Source::Asked, home.asked.clone());
        } else if let Some(home) = &caller.home
            && !self.variables.contains_key(OsStr::new("HOME"))
        {
            self.set("HOME", home, Source::Host, "the caller's home directory");
        }
        let why = "packages below the home directory are for another Python";
        self.set("PYTHONNOUSERSITE", "1", Source::Default, why);
        self.set("PATH", DEFAULT_PATH, Source::Default, "Docker's, for an image that sets none");
    }

    /// The docker profile: what `docker run` starts from; nothing of the caller's.
    fn add_dockers(&mut self, inputs: &Inputs<'_>) {
        self.set("PATH", DEFAULT_PATH, Source::Default, "Docker's, for an image that sets none");
        if let Some(name) = &inputs.request.host_name {
            self.set("HOSTNAME", name, Source::Default, "the container's host name");
        }
        if inputs.request.tty {
            self.set("TERM", "xterm", Source::Default, "-t");
        }
        if let Some(home) = &inputs.request.home {
            self.set("HOME", &home.target, Source::Asked, home.asked.clone());
        }
        let why = "the docker profile takes nothing from the caller; `-e NAME` brings one in";
        for name in inputs.caller.env.keys() {
            self.withheld.push((name.to_string_lossy().into_owned(), Reason::new(Source::Host, why)));
        }
    }

    /// docker's client writes them as if the user had; the user's own words come later and win.
    fn add_proxies(&mut self, request: &Request) {
        for (name, value) in &request.proxies {
            self.set(name, value, Source::Config, "`proxies` of docker's config.json");
        }
    }

    fn add_asked(&mut self, inputs: &Inputs<'_>) {
        for asked in &inputs.request.env {
            match asked {
                EnvRequest::Set(name, value) => {
                    self.set(name, value, Source::Asked, "-e, --env or --env-file")
                }
                EnvRequest::Inherit(name) => match inputs.caller.env.get(name) {
                    Some(value) => self.set(name, value, Source::Host, "the caller's, by -e NAME"),
                    None => self.remove(name),
                },
            }
            // One that was asked for is not left out any more.
            let (EnvRequest::Set(name, _) | EnvRequest::Inherit(name)) = asked;
            let name = name.to_string_lossy();
            self.withheld.retain(|(other, _)| *other != name);
        }
    }

    /// `NAME=value` lines, and the reasons of all names.
    pub(super) fn finish(self) -> (Vec<OsString>, Vec<(String, Reason)>) {
        let mut reasons = Vec::with_capacity(self.variables.len());
        let lines = self.variables.into_iter().map(|(mut name, (value, reason))| {
            reasons.push((name.to_string_lossy().into_owned(), reason));
            name.push("=");
            name.push(value);
            name
        });
        let lines = lines.collect();
        (lines, reasons)
    }
}

/// Why a variable of the caller stays out in the hpc profile.
fn why_withheld(name: &OsStr) -> Option<&'static str> {
    match name.as_bytes() {
        b"PATH" => Some("it names directories of the host; `-e PATH` brings it in"),
        b"_" => Some("it names the program that the caller started last"),
        name if name.starts_with(b"LD_") => {
            Some("it names libraries of the host, which do not fit the image; `-e` brings it in")
        }
        name if name.starts_with(b"BASH_FUNC_") => {
            Some("a function of the caller's shell may not fit the image's")
        }
        _ => None,
    }
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
        let grants = Grants { env: vec![("G".to_owned(), "granted".to_owned())], ..Grants::default() };
        let merged = |config: &RunConfig, request: &Request, grants: &Grants| {
            merge(&Inputs { config, request, grants, caller: &caller, home: Path::new("/srv") })
        };
        let clean = Request { clean_env: true, ..Request::default() };
        let (few, _) = merged(&RunConfig::default(), &clean, &Grants::default()).finish();
        assert_eq!(few.len(), 3, "{few:?}");
        let env = merged(&config, &request, &grants);
        assert_eq!(
            env.withheld.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["BASH_FUNC_f%%", "PATH"]
        );
        let (env, reasons) = env.finish();
        let reason = |name: &str| reasons.iter().find(|(other, _)| other == name).unwrap().1.to_string();
        assert_eq!(reason("A"), "host: the caller's environment");
        assert_eq!(reason("D"), "asked: -e, --env or --env-file");
        assert_eq!(reason("G"), "granted: a provider asks for it");
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
    fn dockers_environment_is_the_images_and_the_users() {
        let caller = Caller {
            uid: 1000,
            gid: 1000,
            name: "ada".into(),
            group: "ada".into(),
            home: Some("/home/ada".into()),
            cwd: None,
            env: [("KEPT", "caller"), ("HOME", "/home/ada")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            host_has: Vec::new(),
        };
        let check = |image: &[&str], asked: &[EnvRequest], tty: bool, expected: &[&str]| {
            let config =
                RunConfig { env: image.iter().map(ToString::to_string).collect(), ..RunConfig::default() };
            let request = Request {
                profile: Profile::Docker,
                host_name: Some("0123456789ab".into()),
                env: asked.to_vec(),
                tty,
                proxies: vec![("HTTP_PROXY".into(), "p".into())],
                ..Request::default()
            };
            let grants = Grants::default();
            let inputs = Inputs {
                config: &config,
                request: &request,
                grants: &grants,
                caller: &caller,
                home: Path::new("/srv"),
            };
            let (lines, _) = merge(&inputs).finish();
            assert_eq!(lines.iter().map(|line| line.to_str().unwrap()).collect::<Vec<_>>(), expected);
        };
        let path = format!("PATH={DEFAULT_PATH}");
        check(&[], &[], false, &["HOME=/srv", "HOSTNAME=0123456789ab", "HTTP_PROXY=p", &path]);
        check(
            &["PATH=/bin", "HOME=/image", "A=image", "HTTP_PROXY=image"],
            &[
                EnvRequest::Set("HTTP_PROXY".into(), "mine".into()),
                EnvRequest::Inherit("KEPT".into()),
                EnvRequest::Inherit("A".into()),
            ],
            true,
            &[
                "HOME=/image",
                "HOSTNAME=0123456789ab",
                "HTTP_PROXY=mine",
                "KEPT=caller",
                "PATH=/bin",
                "TERM=xterm",
            ],
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
