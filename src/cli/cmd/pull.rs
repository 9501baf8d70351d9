//! `slipway pull`: the blobs into the store, a run file made of them, and the name set.

use crate::oci::Platform;
use crate::reference::ImageRef;
use crate::registry::{self, Client, LayerState, PullEvent};
use crate::store::Store;

use super::publish::publish;
use super::{Session, platform};
use crate::base::sizes::human_size;
use crate::cli::args::PullArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

pub(in crate::cli) fn run(args: &PullArgs, session: &Session) -> Result<(), Failure> {
    let reference = ImageRef::parse(&args.name)?;
    let wanted = platform(args.platform.as_deref())?;
    let store = session.store()?;
    let client = session.client_with_retries(args.retry);
    let pull = |reference: &ImageRef| {
        let pull_one = || pull_one(reference, &wanted, args, &store, &client, session);
        pull_one().or_else(|failure| {
            if !failure.is_mended() {
                return Err(failure);
            }
            term::note(&"warning: a layer in the store was damaged and is fetched again");
            pull_one()
        })
    };
    let is_tagged = args.name.rsplit('/').next().unwrap_or_default().contains([':', '@']);
    if !args.all_tags {
        if !is_tagged && !args.quiet {
            term::note(&"Using default tag: latest");
        }
        return pull(&reference);
    }
    if is_tagged {
        return Err(Failure::new(
            "tag can't be used with --all-tags/-a",
            "leave out the tag, or leave out `--all-tags`",
        ));
    }
    for tag in client.tags(&reference)? {
        let one = ImageRef::parse(&format!("{}:{tag}", reference.repository()))?;
        pull(&one)?;
    }
    Ok(())
}

fn pull_one(
    reference: &ImageRef,
    wanted: &Platform,
    args: &PullArgs,
    store: &Store,
    client: &Client,
    session: &Session,
) -> Result<(), Failure> {
    if !args.quiet {
        let tag = reference.manifest_reference();
        term::note(&format_args!("{tag}: Pulling from {}", reference.path()));
    }
    // It is only compared with, and a damaged ref is replaced by this pull.
    let before = store.get_ref(&reference.to_string()).unwrap_or_default();
    let say = |event: PullEvent| {
        if let Some(line) = line_of(&event, args.quiet) {
            term::note(&line);
        }
    };
    let pinned = registry::pull(client, reference, wanted, store, &say)?;
    if args.platform.is_some() && !wanted.runnable().contains(&pinned.platform.normalized()) {
        return Err(Failure::new(
            format!(
                "cannot pull `{}` for {wanted}: there is only an image for {}",
                args.name, pinned.platform
            ),
            "leave out `--platform`, or ask the image's makers for one",
        ));
    }
    let set = store.layer_set(&reference.familiar(), &pinned.manifest_digest)?;
    let names = std::slice::from_ref(reference);
    let record = publish(&set, names, Some(pinned.top_digest), store, session, args.quiet)?;
    if args.quiet {
        return term::print(&format_args!("{reference}\n"));
    }
    let status = if before.is_some_and(|before| before.manifest == record.manifest) {
        "Image is up to date for"
    } else {
        "Downloaded newer image for"
    };
    term::print(&format_args!(
        "Digest: {}\nStatus: {status} {}\n{reference}\n",
        pinned.top_digest,
        reference.familiar()
    ))
}

/// A line of progress; the quiet form keeps only what a user must know.
fn line_of(event: &PullEvent, quiet: bool) -> Option<String> {
    match event {
        PullEvent::OtherPlatform { wanted, found } => {
            Some(format!("warning: the image is for {found}, and there is none for {wanted}"))
        }
        PullEvent::Waiting { why, wait } => Some(format!("{why}; next try in {} s", wait.as_secs())),
        PullEvent::MirrorFailed { why } => Some(format!("warning: {why}; asking the next place")),
        _ if quiet => None,
        PullEvent::Resolved { layers, size_bytes, .. } => {
            Some(format!("{layers} layers, {}", human_size(*size_bytes)))
        }
        PullEvent::Layer { digest, size_bytes, state } => match state {
            LayerState::Present => Some(format!("{}: Already exists", digest.short())),
            LayerState::Done => {
                Some(format!("{}: Pull complete ({})", digest.short(), human_size(*size_bytes)))
            }
            LayerState::Started | LayerState::Progress { .. } => None,
        },
    }
}
