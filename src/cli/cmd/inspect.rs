//! `slipway inspect`: what is known of images and containers, in docker's JSON.

use serde_json::{Value, json};

use crate::oci::Manifest;
use crate::reference::ImageRef;
use crate::runtime::RuntimeError;
use crate::store::{Store, StoredImage};

use super::{Session, containers, locate};
use crate::cli::args::InspectArgs;
use crate::cli::failure::Failure;
use crate::cli::template::Template;
use crate::cli::term;

/// What the names may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Kind {
    /// A container, or else an image.
    Any,
    Container,
    Image,
}

/// Shows each; one that is not there does not keep the others.
pub(in crate::cli) fn run(args: &InspectArgs, kind: Kind, session: &Session) -> Result<(), Failure> {
    let kind = match args.kind.as_deref() {
        Some("container") => Kind::Container,
        Some("image") => Kind::Image,
        _ => kind,
    };
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for word in &args.images {
        match value(word, kind, session) {
            Ok(value) => found.push(value),
            Err(failure) => failures.push(failure),
        }
    }
    match (&template, args.format.is_some()) {
        (Some(template), _) => {
            for value in &found {
                term::print(&format_args!("{}\n", template.render(value)?))?;
            }
        }
        (None, true) => term::print(&format_args!("{}\n", Value::from(found)))?,
        (None, false) => term::print(&pretty(&found.into()))?,
    }
    for failure in &failures {
        term::complain(failure);
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::quiet_own()) }
}

fn value(word: &str, kind: Kind, session: &Session) -> Result<Value, Failure> {
    if kind != Kind::Image {
        match containers::inspect(word, session) {
            Ok(value) => return Ok(value),
            Err(error @ RuntimeError::NoSuchContainer { .. }) if kind == Kind::Container => {
                return Err(error.into());
            }
            Err(RuntimeError::NoSuchContainer { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let store = session.store()?;
    let (image, _) = locate::image(&store, word)?;
    describe(&image, &store)
}

/// Docker's indent is four spaces.
fn pretty(value: &Value) -> String {
    use serde::Serialize as _;
    let mut text = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut text, form))
        .expect("a JSON value can be written");
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}

fn describe(image: &StoredImage, store: &Store) -> Result<Value, Failure> {
    let (config, manifest) = locate::documents(store, image)?;
    let record = &image.record;
    let familiar =
        |name: &String| ImageRef::parse(name).map_or_else(|_| name.clone(), |reference| reference.familiar());
    let text = |name: &str| config.get(name).cloned().unwrap_or_else(|| "".into());
    let mut value = json!({
        "Id": record.config.to_string(),
        "RepoTags": image.names.iter().map(familiar).collect::<Vec<_>>(),
        "RepoDigests": image.digests.iter().map(familiar).collect::<Vec<_>>(),
        "Parent": "",
        "Comment": last_comment(&config),
        "Created": text("created"),
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": config.get("config").cloned().unwrap_or_else(|| json!({})),
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Size": size_bytes(record.size_bytes, manifest.as_ref()),
        "RootFS": { "Type": "layers", "Layers": config.pointer("/rootfs/diff_ids").cloned().unwrap_or_else(|| json!([])) },
        "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
        "Slipway": {
            "Manifest": record.manifest.to_string(),
            "RunFile": record.image.as_ref().filter(|key| store.has_image(key)).map(|key| store.image_path(key)),
            "RunFileSize": record.size_bytes,
        },
    });
    if let Some(variant) = config.get("variant") {
        value["Variant"] = variant.clone();
    }
    Ok(value)
}

fn last_comment(config: &Value) -> Value {
    let last = config.get("history").and_then(Value::as_array).and_then(|entries| entries.last());
    last.and_then(|entry| entry.get("comment")).cloned().unwrap_or_else(|| "".into())
}

/// The layers as they are stored; the run file where they are not.
fn size_bytes(run_file_bytes: u64, manifest: Option<&Manifest>) -> u64 {
    manifest.map_or(run_file_bytes, |manifest| {
        manifest.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size_bytes))
    })
}
