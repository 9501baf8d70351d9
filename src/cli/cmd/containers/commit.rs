//! `commit`: what a container has changed becomes the top layer of a new image.

use std::os::unix::ffi::OsStrExt as _;

use jiff::Timestamp;
use serde_json::Value;

use crate::bundle::EnvRequest;
use crate::oci::amend::{self, Words};
use crate::oci::media;
use crate::runtime::{self, Container};
use crate::store::Store;

use super::super::request::env_request;
use super::super::{Session, compose, locate};
use super::files::Stopped;
use super::{shelf, start};
use crate::cli::args::{CommitArgs, RunArgs};
use crate::cli::failure::Failure;
use crate::cli::term;

pub(super) fn run(args: &CommitArgs, session: &Session) -> Result<(), Failure> {
    let name = compose::new_name(args.name.as_deref())?;
    let container = shelf(session).find(&args.container)?;
    let store = session.store()?;
    let (mut config, manifest) = base(&container, &store)?;
    start::with_run_args(&container, |args, command| {
        let words: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        take_over(&mut config, args, &words)
    })?;
    for text in &args.change {
        amend::change(&mut config, text)?;
    }
    let stopped = (args.pause && !args.no_pause && container.is_running()).then(|| Stopped::new(&container));
    // A child packs, and it must be made before this process has threads.
    let mut stream = runtime::pack_changes(&container)?;
    let layer = compose::store_layer(&store, &mut stream.tar, |_| Ok(()));
    drop(stopped);
    // What the child says is the cause where the stream broke.
    stream.finish()?;
    let layer = layer?;
    let now = Timestamp::now().to_string();
    let created_by = container.record.command.join(" ");
    let words =
        Words { created: &now, created_by: &created_by, author: &args.author, comment: &args.message };
    amend::add_layer(&mut config, &layer.as_top(), &words)?;
    let id = compose::publish_image(&config, Some(&manifest), &layer, name.as_ref(), &store, session)?;
    term::print(&format_args!("{id}\n"))
}

/// The documents of the image that a container was made from.
fn base(container: &Container, store: &Store) -> Result<(Value, Value), Failure> {
    let image = &container.record.image;
    let lost = |why: &str| {
        Failure::new(
            format!("cannot commit `{}`: its image `{image}` {why}", container.record.name),
            "pull or load the image with `store.keep_blobs = true`, or use `slipway export` and `slipway import`",
        )
    };
    let id = container.record.image_id.as_deref().ok_or_else(|| lost("carries no config"))?;
    let Some((stored, _)) = store.find_image(id)? else { return Err(lost("is not in the store")) };
    let raw = locate::raw_config(store, &stored)?;
    let manifest = store
        .read_blob(&stored.record.manifest, media::MANIFEST_LIMIT_BYTES)?
        .ok_or_else(|| lost("has no manifest in the store"))?;
    let parse = |what: &str, raw: &[u8]| {
        serde_json::from_slice::<Value>(raw)
            .map_err(|error| Failure::new(format!("the {what} of `{image}` is not valid: {error}"), None))
    };
    Ok((parse("config", &raw)?, parse("manifest", &manifest)?))
}

/// As with docker, what the container was started with becomes the image's own.
fn take_over(config: &mut Value, args: &RunArgs, command: &[String]) -> Result<(), Failure> {
    let as_words = |words: &[String]| Value::from(words.to_vec()).to_string();
    if let Some(entrypoint) = &args.entrypoint {
        let words = match entrypoint.to_string_lossy() {
            word if word.is_empty() => Vec::new(),
            word => vec![word.into_owned()],
        };
        amend::change(config, &format!("ENTRYPOINT {}", as_words(&words)))?;
        amend::change(config, "CMD []")?;
    }
    if !command.is_empty() {
        amend::change(config, &format!("CMD {}", as_words(command)))?;
    }
    for text in &args.env {
        // A variable without a value was the caller's, and says nothing to others.
        if let EnvRequest::Set(name, value) = env_request(text)
            && !name.as_bytes().is_empty()
        {
            amend::set_variable(config, &name.to_string_lossy(), &value.to_string_lossy())?;
        }
    }
    if let Some(workdir) = &args.workdir {
        amend::change(config, &format!("WORKDIR {}", workdir.display()))?;
    }
    for label in &args.keep.label {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        amend::set_label(config, name, value)?;
    }
    Ok(())
}
