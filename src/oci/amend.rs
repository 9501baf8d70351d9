//! New images from old ones: a config with one layer more, or with other words, and the manifest for it.
//!
//! Documents are changed as JSON values, so that fields which this program does not know stay.

use serde_json::{Map, Value, json};

use crate::base::Digest;

use super::media;

/// A layer on top, or the only one.
#[derive(Debug, Clone, Copy)]
pub struct TopLayer<'a> {
    /// sha256 of the uncompressed tar.
    pub diff_id: Digest,
    /// sha256 of the blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// How it is packed: `+gzip`, `+zstd` or nothing.
    pub suffix: &'a str,
}

/// What is written into a config beside the layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Words<'a> {
    /// RFC 3339.
    pub created: &'a str,
    /// How the layer was made.
    pub created_by: &'a str,
    /// Who made it.
    pub author: &'a str,
    /// What was changed.
    pub comment: &'a str,
}

/// Why instructions or documents are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmendError {
    /// A document is not an object, or lacks what every image has.
    #[error("the image's {document} has no `{field}`")]
    Shape {
        /// Which document.
        document: &'static str,
        /// What is missing.
        field: &'static str,
    },
    /// No instruction that can be applied.
    #[error("`--change {text}`: {why}")]
    Instruction {
        /// As given.
        text: String,
        /// What is wrong.
        why: String,
    },
}

impl crate::base::Hint for AmendError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Shape { .. } => Some("pull or load the image again".into()),
            Self::Instruction { .. } => Some(
                "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR, HEALTHCHECK and SHELL can be changed"
                    .into(),
            ),
        }
    }
}

/// A config of an image that is made from nothing.
#[must_use]
pub fn empty_config(architecture: &str, variant: Option<&str>) -> Value {
    let mut config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
        "history": [],
    });
    if let Some(variant) = variant {
        config["variant"] = variant.into();
    }
    config
}

/// Adds a layer to a config.
pub fn add_layer(config: &mut Value, layer: &TopLayer<'_>, words: &Words<'_>) -> Result<(), AmendError> {
    let shape = |field| AmendError::Shape { document: "config", field };
    let ids = config.pointer_mut("/rootfs/diff_ids").and_then(Value::as_array_mut);
    ids.ok_or_else(|| shape("rootfs.diff_ids"))?.push(layer.diff_id.to_string().into());
    let object = config.as_object_mut().ok_or_else(|| shape("config"))?;
    object.insert("created".into(), words.created.into());
    if !words.author.is_empty() {
        object.insert("author".into(), words.author.into());
    }
    // The container that a base was made in says nothing of this image.
    for stale in ["id", "parent", "container", "container_config", "comment"] {
        object.remove(stale);
    }
    let mut entry = json!({ "created": words.created, "created_by": words.created_by });
    for (name, value) in [("author", words.author), ("comment", words.comment)] {
        if !value.is_empty() {
            entry[name] = value.into();
        }
    }
    let history = object.entry("history").or_insert_with(|| Value::Array(Vec::new()));
    if history.is_null() {
        *history = Value::Array(Vec::new());
    }
    history.as_array_mut().ok_or_else(|| shape("history"))?.push(entry);
    Ok(())
}

/// The manifest of an image with the layers of `base`, as they are, and one more. Without a base there is that one alone.
pub fn manifest(base: Option<&Value>, config: &[u8], layer: &TopLayer<'_>) -> Result<Value, AmendError> {
    let shape = |field| AmendError::Shape { document: "manifest", field };
    let is_docker = base
        .and_then(|base| base.get("mediaType"))
        .is_some_and(|media_type| media_type == media::DOCKER_MANIFEST);
    let mut layers = match base {
        Some(base) => base.get("layers").and_then(Value::as_array).cloned().ok_or_else(|| shape("layers"))?,
        None => Vec::new(),
    };
    // One kind of names for all: registries refuse a mixture.
    let (manifest_type, config_type, layer_type) = match is_docker {
        true => {
            let suffix = layer.suffix.replace('+', ".");
            (
                media::DOCKER_MANIFEST,
                media::DOCKER_CONFIG,
                format!("{}diff.tar{suffix}", media::DOCKER_LAYER_PREFIX),
            )
        }
        false => (
            media::OCI_MANIFEST,
            media::OCI_CONFIG,
            format!("{}v1.tar{}", media::OCI_LAYER_PREFIX, layer.suffix),
        ),
    };
    layers.push(json!({
        "mediaType": layer_type,
        "digest": layer.digest.to_string(),
        "size": layer.size_bytes,
    }));
    Ok(json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {
            "mediaType": config_type,
            "digest": Digest::of(config).to_string(),
            "size": config.len(),
        },
        "layers": layers,
    }))
}

/// Applies a Dockerfile instruction to the `config` object of a config.
pub fn change(config: &mut Value, text: &str) -> Result<(), AmendError> {
    let wrong = |why: &str| AmendError::Instruction { text: text.to_owned(), why: why.to_owned() };
    let (word, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
    let rest = rest.trim();
    let run = run_object(config)?;
    let words = || rest.split_whitespace().map(|word| unquoted(word).to_owned()).collect::<Vec<_>>();
    let needs = |rest: &str| if rest.is_empty() { Err(wrong("it needs a value")) } else { Ok(()) };
    match word.to_ascii_uppercase().as_str() {
        "CMD" => drop(run.insert("Cmd".into(), command(rest, run))),
        "ENTRYPOINT" => drop(run.insert("Entrypoint".into(), command(rest, run))),
        "SHELL" => match serde_json::from_str::<Vec<String>>(rest) {
            Ok(words) if !words.is_empty() => drop(run.insert("Shell".into(), words.into())),
            _ => return Err(wrong("it takes a list of words in JSON's form")),
        },
        "ENV" => {
            needs(rest)?;
            for (name, value) in pairs(rest).ok_or_else(|| wrong("it needs NAME=value"))? {
                set_env(run, &name, &value);
            }
        }
        "LABEL" => {
            needs(rest)?;
            let pairs = pairs(rest).ok_or_else(|| wrong("it needs NAME=value"))?;
            let labels = member(run, "Labels");
            pairs.into_iter().for_each(|(name, value)| drop(labels.insert(name, value.into())));
        }
        "EXPOSE" => {
            needs(rest)?;
            for port in words() {
                let port = if port.contains('/') { port } else { format!("{port}/tcp") };
                member(run, "ExposedPorts").insert(port, Value::Object(Map::new()));
            }
        }
        "VOLUME" => {
            needs(rest)?;
            let places = serde_json::from_str::<Vec<String>>(rest).unwrap_or_else(|_| words());
            for place in places {
                member(run, "Volumes").insert(place, Value::Object(Map::new()));
            }
        }
        "USER" | "WORKDIR" | "STOPSIGNAL" => {
            needs(rest)?;
            let field = match word.to_ascii_uppercase().as_str() {
                "USER" => "User",
                "WORKDIR" => "WorkingDir",
                _ => "StopSignal",
            };
            let old = run.get(field).and_then(Value::as_str).unwrap_or("/").to_owned();
            let value = match field {
                "WorkingDir" if !rest.starts_with('/') => format!("{}/{rest}", old.trim_end_matches('/')),
                _ => rest.to_owned(),
            };
            run.insert(field.into(), value.into());
        }
        "ONBUILD" => {
            needs(rest)?;
            let list = run.entry("OnBuild").or_insert_with(|| Value::Array(Vec::new()));
            if !list.is_array() {
                *list = Value::Array(Vec::new());
            }
            list.as_array_mut().into_iter().for_each(|list| list.push(rest.into()));
        }
        "HEALTHCHECK" => {
            let check = health_check(rest).ok_or_else(|| wrong("it needs NONE or [OPTIONS] CMD"))?;
            run.insert("Healthcheck".into(), check);
        }
        _ => return Err(wrong("it is no instruction that an image keeps")),
    }
    Ok(())
}

/// Sets a variable of the `config` object.
pub fn set_variable(config: &mut Value, name: &str, value: &str) -> Result<(), AmendError> {
    set_env(run_object(config)?, name, value);
    Ok(())
}

/// Sets a label of the `config` object.
pub fn set_label(config: &mut Value, name: &str, value: &str) -> Result<(), AmendError> {
    member(run_object(config)?, "Labels").insert(name.to_owned(), value.into());
    Ok(())
}

fn run_object(config: &mut Value) -> Result<&mut Map<String, Value>, AmendError> {
    let shape = || AmendError::Shape { document: "config", field: "config" };
    let run = config.as_object_mut().ok_or_else(shape)?.entry("config").or_insert(Value::Null);
    if run.is_null() {
        *run = Value::Object(Map::new());
    }
    run.as_object_mut().ok_or_else(shape)
}

/// A JSON list of words as it is, else words for the shell.
fn command(rest: &str, run: &Map<String, Value>) -> Value {
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(words) => words.into(),
        Err(_) => {
            let shell = run.get("Shell").and_then(Value::as_array).cloned();
            let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
            words.push(rest.into());
            Value::Array(words)
        }
    }
}

fn health_check(rest: &str) -> Option<Value> {
    let mut check = Map::new();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace)?;
        rest = after.trim_start();
        let (name, value) = option.split_once('=')?;
        match name {
            "interval" => drop(check.insert("Interval".into(), nanoseconds(value)?.into())),
            "timeout" => drop(check.insert("Timeout".into(), nanoseconds(value)?.into())),
            "start-period" => drop(check.insert("StartPeriod".into(), nanoseconds(value)?.into())),
            "start-interval" => drop(check.insert("StartInterval".into(), nanoseconds(value)?.into())),
            "retries" => drop(check.insert("Retries".into(), value.parse::<u32>().ok()?.into())),
            _ => return None,
        }
    }
    if rest.eq_ignore_ascii_case("none") {
        return Some(json!({ "Test": ["NONE"] }));
    }
    let (word, words) = rest.split_once(char::is_whitespace)?;
    if !word.eq_ignore_ascii_case("cmd") {
        return None;
    }
    let test = match serde_json::from_str::<Vec<String>>(words.trim()) {
        Ok(words) => [vec!["CMD".to_owned()], words].concat(),
        Err(_) => vec!["CMD-SHELL".to_owned(), words.trim().to_owned()],
    };
    check.insert("Test".into(), test.into());
    Some(Value::Object(check))
}

/// Go's durations (`1m30s`, `500ms`) in nanoseconds.
#[must_use]
pub fn nanoseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|digits| *digits > 0)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale: u64 = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        let mut place = scale;
        for digit in part.bytes() {
            place /= 10;
            total = total.checked_add(place.checked_mul(u64::from(digit.wrapping_sub(b'0')))?)?;
        }
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// An object of the config, made where it is missing.
fn member<'a>(run: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = run.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object")
}

fn set_env(run: &mut Map<String, Value>, name: &str, value: &str) {
    let lines = run.entry("Env").or_insert_with(|| Value::Array(Vec::new()));
    if !lines.is_array() {
        *lines = Value::Array(Vec::new());
    }
    let Some(lines) = lines.as_array_mut() else { return };
    let line = Value::from(format!("{name}={value}"));
    let is_it = |old: &Value| old.as_str().is_some_and(|old| old.split('=').next() == Some(name));
    match lines.iter_mut().find(|old| is_it(old)) {
        Some(old) => *old = line,
        None => lines.push(line),
    }
}

/// `NAME=value NAME="with blanks"`, or Docker's old `NAME all the rest`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let first = text.split_whitespace().next()?;
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), unquoted(value.trim()).to_owned())]);
    }
    let mut found = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut quote, mut characters) = (String::new(), None, text.chars());
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => word.extend(characters.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(character),
            (c, None) if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            (c, _) => word.push(c),
        }
    }
    words.push(word);
    for word in words.iter().filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').filter(|(name, _)| !name.is_empty())?;
        found.push((name.to_owned(), value.to_owned()));
    }
    Some(found)
}

fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_config() {
        let check = |base: Value, texts: &[&str], expected: Value| {
            let mut config = json!({ "config": base });
            for text in texts {
                change(&mut config, text).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
            assert_eq!(config["config"], expected, "{texts:?}");
        };
        check(json!(null), &["CMD [\"a\", \"b c\"]"], json!({ "Cmd": ["a", "b c"] }));
        check(json!({}), &["cmd echo hi"], json!({ "Cmd": ["/bin/sh", "-c", "echo hi"] }));
        check(
            json!({}),
            &["SHELL [\"bash\"]", "ENTRYPOINT x"],
            json!({ "Shell": ["bash"], "Entrypoint": ["bash", "x"] }),
        );
        check(
            json!({ "Env": ["A=1", "B=2"] }),
            &["ENV A=3 C=\"x y\"", "ENV D e f"],
            json!({ "Env": ["A=3", "B=2", "C=x y", "D=e f"] }),
        );
        check(json!({}), &["LABEL a=b 'c d'=e"], json!({ "Labels": { "a": "b", "c d": "e" } }));
        check(json!({}), &["EXPOSE 80 53/udp"], json!({ "ExposedPorts": { "80/tcp": {}, "53/udp": {} } }));
        check(
            json!({}),
            &["VOLUME /a /b", "VOLUME [\"/c d\"]"],
            json!({ "Volumes": { "/a": {}, "/b": {}, "/c d": {} } }),
        );
        check(json!({}), &["WORKDIR /a", "WORKDIR b"], json!({ "WorkingDir": "/a/b" }));
        check(json!({}), &["USER me:us", "STOPSIGNAL INT"], json!({ "User": "me:us", "StopSignal": "INT" }));
        check(json!({}), &["ONBUILD RUN x"], json!({ "OnBuild": ["RUN x"] }));
        check(json!({}), &["HEALTHCHECK NONE"], json!({ "Healthcheck": { "Test": ["NONE"] } }));
        check(
            json!({}),
            &["HEALTHCHECK --interval=1m30s --retries=2 CMD curl x"],
            json!({ "Healthcheck": { "Interval": 90_000_000_000_u64, "Retries": 2, "Test": ["CMD-SHELL", "curl x"] } }),
        );
        for wrong in ["RUN x", "ENV", "ENV =x", "SHELL x", "HEALTHCHECK x", "", "USER"] {
            assert!(change(&mut json!({}), wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_layer_on_top_leaves_the_others_alone() {
        let layer =
            TopLayer { diff_id: Digest::of(b"d"), digest: Digest::of(b"z"), size_bytes: 7, suffix: "+gzip" };
        let mut config =
            json!({ "rootfs": { "diff_ids": ["sha256:a"] }, "history": null, "x-own": 1, "container": "c" });
        let words = Words { created: "2026-01-01T00:00:00Z", created_by: "sh", author: "me", comment: "" };
        add_layer(&mut config, &layer, &words).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!(["sha256:a", layer.diff_id.to_string()]));
        assert_eq!(config["x-own"], 1);
        assert!(config.get("container").is_none());
        assert_eq!(
            config["history"],
            json!([{ "created": words.created, "created_by": "sh", "author": "me" }])
        );
        let base = json!({ "mediaType": media::DOCKER_MANIFEST, "layers": [{ "own": true }] });
        let made = manifest(Some(&base), b"{}", &layer).unwrap();
        assert_eq!(made["layers"][0], json!({ "own": true }));
        assert_eq!(made["layers"][1]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
        assert_eq!(
            manifest(None, b"{}", &layer).unwrap()["layers"][0]["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        assert!(add_layer(&mut json!({}), &layer, &words).is_err());
    }

    #[test]
    fn durations_are_go_s() {
        for (text, expected) in [
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("500ms", Some(500_000_000)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("5x", None),
            ("s", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
        }
    }
}
