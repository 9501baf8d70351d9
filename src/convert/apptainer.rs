//! What Apptainer and Singularity expect inside an image: `/.singularity.d`, mount points, links, and three documents
//! in the SIF. Pure: a config goes in, texts come out.
//!
//! None of this is needed by Slipway itself; it is what lets `apptainer run` start the same file. The environment
//! scripts are read by a shell (Apptainer brings one of its own, so that images without `/bin/sh` work) and are
//! therefore kept to plain words: single-quoted values, `[`, `||`, `export`, `unset`.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::base::Digest;
use crate::oci::{ImageConfig, RunConfig};

/// A file that the image gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    /// Where, below the root.
    pub(super) path: &'static str,
    /// Permission bits.
    pub(super) mode: u16,
    /// Content.
    pub(super) text: String,
}

/// Directories that every image has: mount points and ours.
pub(super) const DIRECTORIES: [(&str, u16); 11] = [
    (".singularity.d/libs", 0o755),
    (".singularity.d/actions", 0o755),
    (".singularity.d/env", 0o755),
    ("dev", 0o755),
    ("proc", 0o755),
    ("root", 0o755),
    ("var/tmp", 0o1777),
    ("tmp", 0o1777),
    ("etc", 0o755),
    ("sys", 0o755),
    ("home", 0o755),
];

/// Files that are made, empty, only if the image has none: the host's are bound over them.
pub(super) const EMPTY_FILES: [&str; 2] = ["etc/hosts", "etc/resolv.conf"];

/// Links of the root directory and their targets; a name that exists is left alone.
pub(super) const LINKS: [(&str, &str); 6] = [
    ("singularity", ".singularity.d/runscript"),
    (".run", ".singularity.d/actions/run"),
    (".exec", ".singularity.d/actions/exec"),
    (".test", ".singularity.d/actions/test"),
    (".shell", ".singularity.d/actions/shell"),
    ("environment", ".singularity.d/env/90-environment.sh"),
];

/// Variables of the image, and where Apptainer looks for them.
const IMAGE_ENV: &str = ".singularity.d/env/10-docker2singularity.sh";
/// Left to whoever rebuilds the image.
const USER_ENV: &str = ".singularity.d/env/90-environment.sh";
const RUNSCRIPT: &str = ".singularity.d/runscript";
const STARTSCRIPT: &str = ".singularity.d/startscript";

/// The image's facts that go into texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The parsed image config.
    pub(super) config: &'a ImageConfig,
    /// What the image is: the digest of its manifest. Not its name: the same image has the same bytes under each name.
    pub(super) from: Digest,
}

impl Facts<'_> {
    /// The recipe that stands for this conversion.
    pub(super) fn deffile(&self) -> String {
        format!("bootstrap: docker\nfrom: {}\n", self.from)
    }

    /// The image's labels and what Apptainer adds; the image's own win.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.config.config.labels.clone();
        let from = self.from.to_string();
        let created = self.config.created.as_deref().unwrap_or_default();
        for (name, value) in [
            ("org.label-schema.schema-version", "1.0"),
            ("org.label-schema.build-date", created),
            ("org.label-schema.build-arch", &self.config.architecture),
            ("org.label-schema.usage.singularity.deffile.bootstrap", "docker"),
            ("org.label-schema.usage.singularity.deffile.from", &from),
            ("org.opencontainers.image.created", created),
            ("org.opencontainers.image.architecture", &self.config.architecture),
            ("org.opencontainers.image.base.digest", &from),
        ] {
            if !value.is_empty() {
                labels.entry(name.into()).or_insert_with(|| value.into());
            }
        }
        labels
    }

    /// All files of `/.singularity.d`, in a fixed order.
    pub(super) fn scripts(&self) -> Vec<Script> {
        let run_config = &self.config.config;
        let script = |path, text: String| Script { path, mode: 0o755, text };
        let document = |path, text| Script { path, mode: 0o644, text };
        let action = |path, tail: &str| script(path, format!("{ACTION_HEAD}{tail}"));
        vec![
            action(".singularity.d/actions/exec", "exec \"$@\"\n"),
            action(".singularity.d/actions/run", "exec /.singularity.d/runscript \"$@\"\n"),
            action(".singularity.d/actions/shell", SHELL_ACTION),
            action(".singularity.d/actions/start", START_ACTION),
            action(".singularity.d/actions/test", TEST_ACTION),
            script(
                ".singularity.d/env/01-base.sh",
                "#!/bin/sh\n# Nothing to set before the image's own.\n".into(),
            ),
            script(IMAGE_ENV, image_env(run_config)),
            script(USER_ENV, USER_ENV_TEXT.into()),
            script(
                ".singularity.d/env/95-apps.sh",
                "#!/bin/sh\n# A Docker image has no apps of the Scientific Filesystem.\n".into(),
            ),
            script(".singularity.d/env/99-base.sh", LIBS_ENV.into()),
            script(".singularity.d/env/99-runtimevars.sh", PATH_ENV.into()),
            script(RUNSCRIPT, runscript(run_config)),
            script(STARTSCRIPT, STARTSCRIPT_TEXT.into()),
            document(".singularity.d/labels.json", to_json(&self.labels())),
            document(".singularity.d/Singularity", self.deffile()),
        ]
    }

    /// What `apptainer inspect` prints without starting the image.
    pub(super) fn inspect_metadata(&self) -> String {
        let run_config = &self.config.config;
        let environment = BTreeMap::from([
            (format!("/{IMAGE_ENV}"), image_env(run_config)),
            (format!("/{USER_ENV}"), USER_ENV_TEXT.to_owned()),
        ]);
        to_json(&serde_json::json!({
            "data": {
                "attributes": {
                    "deffile": self.deffile(),
                    "environment": environment,
                    "labels": self.labels(),
                    "runscript": runscript(run_config),
                    "startscript": STARTSCRIPT_TEXT,
                },
            },
            "type": "container",
        }))
    }
}

/// The `config` part of an image config, byte for byte; `{}` if there is none.
pub(super) fn oci_config(raw: &[u8]) -> Result<String, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Outer<'a> {
        #[serde(borrow, default)]
        config: Option<&'a RawValue>,
    }
    let raw = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw);
    let outer: Outer<'_> = serde_json::from_slice(raw)?;
    Ok(outer.config.map_or("{}", RawValue::get).to_owned())
}

fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("maps of strings are JSON")
}

/// The variables of the image. `PATH` is the image's; any other may come from outside.
fn image_env(config: &RunConfig) -> String {
    let mut text = String::from("#!/bin/sh\n");
    for line in &config.env {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        // A name that no shell can set, or a value that no process can hold, would break the whole script.
        if !is_variable(name) || value.contains('\0') {
            continue;
        }
        let value = single_quoted(value);
        let guard = if name == "PATH" { String::new() } else { format!("[ -n \"${{{name}:-}}\" ] || ") };
        text = text + &guard + name + "=" + &value + "\nexport " + name + "\n";
    }
    text
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Text as one word of a POSIX shell. A quote in it stands in double quotes, not behind a backslash: the shell that is built
/// into Apptainer keeps that backslash in an assignment (seen with 1.4.5).
fn single_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r#"'"'"'"#))
}

/// Words as they stand in a command, each quoted.
fn command_words(words: &[String]) -> String {
    words.iter().map(|word| single_quoted(word)).collect::<Vec<_>>().join(" ")
}

/// Starts ENTRYPOINT and CMD. The line that evaluates `SINGULARITY_OCI_RUN` must stand as it is: by it Apptainer knows
/// that its own shell can run the script.
fn runscript(config: &RunConfig) -> String {
    let entrypoint = command_words(&config.entrypoint);
    let cmd = command_words(&config.cmd);
    let mut text = String::from("#!/bin/sh\n");
    text = text + "OCI_ENTRYPOINT=" + &single_quoted(&entrypoint) + "\n";
    text = text + "OCI_CMD=" + &single_quoted(&cmd) + "\n\n";
    text += "if [ -n \"${SINGULARITY_NO_EVAL:-}\" ]; then\n";
    text += "    # Exact words, as Docker starts them: arguments replace CMD, ENTRYPOINT comes first.\n";
    text = text + "    [ $# -gt 0 ] || set -- " + &cmd + "\n";
    text = text + "    set -- " + &entrypoint + " \"$@\"\nelse\n";
    text + RUNSCRIPT_TAIL
}

const RUNSCRIPT_TAIL: &str = r#"    # Singularity's way: a shell evaluates the arguments, so that '$HOME' means the home inside.
    OCI_ARGUMENTS=""
    for OCI_ARGUMENT in "$@"; do
        OCI_ARGUMENTS="${OCI_ARGUMENTS} \"${OCI_ARGUMENT}\""
    done
    [ $# -gt 0 ] || OCI_ARGUMENTS="${OCI_CMD}"
    SINGULARITY_OCI_RUN="-- ${OCI_ENTRYPOINT} ${OCI_ARGUMENTS}"
eval "set ${SINGULARITY_OCI_RUN}"
fi
if [ $# -eq 0 ]; then
    echo "this image has no command to run: name one" >&2
    exit 127
fi
exec "$@"
"#;

const ACTION_HEAD: &str = r#"#!/bin/sh
# For runtimes older than 3.6; later ones bring their own.
for script in /.singularity.d/env/*.sh; do
    if [ -f "$script" ]; then . "$script"; fi
done
"#;

const SHELL_ACTION: &str = r#"for SHELL in "${SINGULARITY_SHELL:-}" /bin/bash /bin/sh; do
    if [ -n "$SHELL" ] && [ -x "$SHELL" ]; then
        export SHELL
        exec "$SHELL" "$@"
    fi
done
echo "this image has no shell" >&2
exit 127
"#;

const START_ACTION: &str = r#"# The instance's first process waits for this signal.
kill -CONT 1
exec /.singularity.d/startscript "$@"
"#;

const TEST_ACTION: &str = r#"if [ -x /.singularity.d/test ]; then exec /.singularity.d/test "$@"; fi
echo "this image has no test" >&2
"#;

const USER_ENV_TEXT: &str = "#!/bin/sh\n# Room for variables of your own.\n";

const STARTSCRIPT_TEXT: &str = "#!/bin/sh\n# A Docker image has no service to start as an instance.\n";

const LIBS_ENV: &str = r#"#!/bin/sh
# The runtime binds host libraries, such as a GPU driver's, into this directory.
LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
PS1="Apptainer> "
export LD_LIBRARY_PATH PS1
"#;

const PATH_ENV: &str = r#"#!/bin/sh
# What the caller wants with PATH: something before it, something behind it, or another one.
[ -z "${SING_USER_DEFINED_PREPEND_PATH:-}" ] || PATH="$SING_USER_DEFINED_PREPEND_PATH:$PATH"
[ -z "${SING_USER_DEFINED_APPEND_PATH:-}" ] || PATH="$PATH:$SING_USER_DEFINED_APPEND_PATH"
[ -z "${SING_USER_DEFINED_PATH:-}" ] || PATH="$SING_USER_DEFINED_PATH"
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
export PATH
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> ImageConfig {
        ImageConfig::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        for (text, expected) in [
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r#"'it'"'"'s'"#),
            ("$HOME `x` \\ \"q\"\n", "'$HOME `x` \\ \"q\"\n'"),
            ("'", r#"''"'"''"#),
        ] {
            assert_eq!(single_quoted(text), expected);
        }
        assert_eq!(command_words(&["sh".into(), "-c".into(), "echo $X".into()]), "'sh' '-c' 'echo $X'");
    }

    #[test]
    fn variables_of_the_image_yield_to_the_outside_except_path() {
        let check = |line: &str, expected: &str| {
            let config = RunConfig { env: vec![line.to_owned()], ..RunConfig::default() };
            assert_eq!(image_env(&config), format!("#!/bin/sh\n{expected}"), "{line}");
        };
        check("PATH=/a:/b", "PATH='/a:/b'\nexport PATH\n");
        check("A=b=c", "[ -n \"${A:-}\" ] || A='b=c'\nexport A\n");
        check("_9=it's", "[ -n \"${_9:-}\" ] || _9='it'\"'\"'s'\nexport _9\n");
        check("EMPTY", "[ -n \"${EMPTY:-}\" ] || EMPTY=''\nexport EMPTY\n");
        for line in ["", "=x", "9A=x", "A-B=x", "A;rm=x", "Ä=x", "A=\0"] {
            check(line, "");
        }
    }

    #[test]
    fn the_runscript_holds_the_words_twice_quoted_and_the_marker() {
        let config = config(r#"{"config":{"Entrypoint":["/run it"],"Cmd":["it's","$HOME"]}}"#);
        let text = runscript(&config.config);
        assert!(text.contains("\nOCI_ENTRYPOINT=''\"'\"'/run it'\"'\"''\n"), "{text}");
        assert!(text.contains("    set -- '/run it' \"$@\"\n"), "{text}");
        assert!(text.contains("    [ $# -gt 0 ] || set -- 'it'\"'\"'s' '$HOME'\n"), "{text}");
        assert_eq!(text.lines().filter(|line| *line == "eval \"set ${SINGULARITY_OCI_RUN}\"").count(), 1);
    }

    #[test]
    fn labels_of_the_image_win() {
        let config = config(
            r#"{"architecture":"amd64","created":"2024-01-02T03:04:05Z",
                "config":{"Labels":{"org.opencontainers.image.created":"mine","a":"b"}}}"#,
        );
        let from = Digest::of(b"");
        let labels = Facts { config: &config, from }.labels();
        let check = |name: &str, expected: &str| assert_eq!(labels[name], expected, "{name}");
        check("a", "b");
        check("org.opencontainers.image.created", "mine");
        check("org.label-schema.build-date", "2024-01-02T03:04:05Z");
        check("org.label-schema.usage.singularity.deffile.from", &from.to_string());
        let empty = ImageConfig::default();
        assert!(!Facts { config: &empty, from }.labels().contains_key("org.label-schema.build-arch"));
    }

    #[test]
    fn the_config_part_is_copied_byte_for_byte() {
        let raw = br#"{"os":"linux","config":{"Z": 1.50,  "Unknown":["x"]},"rootfs":{}}"#;
        assert_eq!(oci_config(raw).unwrap(), r#"{"Z": 1.50,  "Unknown":["x"]}"#);
        assert_eq!(oci_config(br#"{"config":null}"#).unwrap(), "{}");
        assert_eq!(oci_config(b"{}").unwrap(), "{}");
        assert!(oci_config(b"[").is_err());
    }

    #[test]
    fn inspect_finds_its_keys() {
        let config = config(r#"{"config":{"Env":["A=b"]}}"#);
        let facts = Facts { config: &config, from: Digest::of(b"") };
        let json: serde_json::Value = serde_json::from_str(&facts.inspect_metadata()).unwrap();
        assert_eq!(json["type"], "container");
        let attributes = &json["data"]["attributes"];
        assert_eq!(attributes["deffile"], facts.deffile());
        assert!(attributes["runscript"].as_str().unwrap().starts_with("#!/bin/sh\n"));
        let environment = &attributes["environment"]["/.singularity.d/env/10-docker2singularity.sh"];
        assert!(environment.as_str().unwrap().contains("export A\n"));
    }

    #[test]
    fn every_script_lies_in_a_directory_that_is_made() {
        let config = ImageConfig::default();
        let scripts = Facts { config: &config, from: Digest::of(b"") }.scripts();
        for script in &scripts {
            let parent = script.path.rsplit_once('/').unwrap().0;
            let known = parent == ".singularity.d" || DIRECTORIES.iter().any(|(path, _)| *path == parent);
            assert!(known, "{}", script.path);
        }
        for (_, target) in LINKS {
            assert!(scripts.iter().any(|script| script.path == target), "{target}");
        }
    }
}
