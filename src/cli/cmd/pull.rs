//! `slipway pull`: the blobs into the store, a run file made of them, and the name set.

use crate::reference::ImageRef;
use crate::registry::{self, LayerState, PullEvent};

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
    let client = session.client();
    let before = store.get_ref(&reference.to_string())?;
    let say = |event: PullEvent| {
        if let Some(line) = line_of(&event, args.quiet) {
            term::note(&line);
        }
    };
    let pinned = registry::pull(&client, &reference, &wanted, &store, &say)?;
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
    let record = publish(&set, std::slice::from_ref(&reference), &store, session, args.quiet)?;
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
