//! `slipway push`: an image to where its name says.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::Digest;
use crate::base::sizes::human_size;
use crate::oci::{Document, media};
use crate::reference::ImageRef;
use crate::registry::{self, PushEvent, PushState, Pushed};
use crate::store::{RefRecord, Store};

use super::{Session, fence, locate};
use crate::cli::args::PushArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

pub(in crate::cli) fn run(args: &PushArgs, session: &Session) -> Result<(), Failure> {
    let store = session.store()?;
    let reference = ImageRef::parse(&args.name)?;
    if reference.digest().is_some() {
        return Err(Failure::new(
            format!("cannot push `{}`: a digest is no place to push to", args.name),
            "push a name with a tag",
        ));
    }
    let (refs, _) = store.readable_refs()?;
    let chosen: Vec<(ImageRef, RefRecord)> = refs
        .iter()
        .filter_map(|(name, record)| Some((ImageRef::parse(name).ok()?, record.clone())))
        .filter(|(name, _)| {
            *name == reference || (args.all_tags && name.repository() == reference.repository())
        })
        .collect();
    if chosen.is_empty() {
        // The usual words for what is not there, and for a name that has only an id.
        locate::image(&store, &args.name)?;
        return Err(Failure::new(
            format!("`{}` is an image but no name to push to", args.name),
            "name it first with `slipway tag IMAGE NAME`",
        ));
    }
    fence::enclose(session, args.digestfile.as_deref().and_then(Path::parent))?;
    if !args.quiet {
        term::print(&format_args!("The push refers to repository [{}]\n", reference.repository()))?;
    }
    for (name, record) in chosen {
        let pushed = push_one(&name, &record, &refs, &store, args.quiet, session)?;
        store.set_name(&name.to_string(), &RefRecord { top: Some(pushed.digest), ..record })?;
        if let Some(path) = &args.digestfile {
            std::fs::write(path, pushed.digest.to_string())
                .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", path.display()), None))?;
        }
        if args.quiet {
            term::print(&format_args!("{name}\n"))?;
        } else {
            let tag = name.tag().unwrap_or_default();
            term::print(&format_args!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size_bytes))?;
        }
    }
    Ok(())
}

fn push_one(
    name: &ImageRef,
    record: &RefRecord,
    refs: &[(String, RefRecord)],
    store: &Store,
    quiet: bool,
    session: &Session,
) -> Result<Pushed, Failure> {
    let mounts = mounts_for(name, refs, store);
    let say = |event: PushEvent| {
        if let Some(line) = line_of(&event, quiet) {
            term::note(&line);
        }
    };
    Ok(registry::push(&session.client(), name, &record.manifest, store, &mounts, &say)?)
}

/// Other repositories of that registry that images here came from, for each blob: it may be taken from there.
fn mounts_for(name: &ImageRef, refs: &[(String, RefRecord)], store: &Store) -> BTreeMap<Digest, String> {
    let mut mounts = BTreeMap::new();
    for (other, record) in refs {
        let Ok(other) = ImageRef::parse(other) else { continue };
        // Only what was pulled from there or pushed to there is known to be there.
        if record.top.is_none() || other.domain() != name.domain() || other.path() == name.path() {
            continue;
        }
        let Ok(Some(raw)) = store.read_blob(&record.manifest, media::MANIFEST_LIMIT_BYTES) else { continue };
        let Ok(Document::Manifest(manifest)) = Document::parse(&raw) else { continue };
        for layer in &manifest.layers {
            mounts.entry(layer.digest).or_insert_with(|| other.path().to_owned());
        }
    }
    mounts
}

fn line_of(event: &PushEvent, quiet: bool) -> Option<String> {
    match event {
        PushEvent::Waiting { why, wait } => Some(format!("{why}; next try in {} s", wait.as_secs())),
        _ if quiet => None,
        PushEvent::Blob { digest, size_bytes, state } => match state {
            PushState::Present => Some(format!("{}: Layer already exists", digest.short())),
            PushState::Mounted { from } => Some(format!("{}: Mounted from {from}", digest.short())),
            PushState::Done => Some(format!("{}: Pushed ({})", digest.short(), human_size(*size_bytes))),
            PushState::Progress { .. } => None,
        },
    }
}
