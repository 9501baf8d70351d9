//! `slipway pull`: the blobs into the store, a run file made of them, and the name set.

use crate::oci::Platform;
use crate::reference::ImageRef;
use crate::registry::{self, Client};
use crate::store::Store;

use super::publish::{make_run_file, publish, with_arriving};
use super::{Session, fence, platform};
use crate::cli::args::PullArgs;
use crate::cli::failure::Failure;
use crate::cli::progress::Progress;
use crate::cli::term;

pub(in crate::cli) fn run(args: &PullArgs, session: &Session) -> Result<(), Failure> {
    let reference = ImageRef::parse(&args.name)?;
    let wanted = platform(args.platform.as_deref())?;
    fence::enclose(session, None)?;
    let store = session.store()?;
    let client = session.client_with_retries(args.retry);
    let pull = |reference: &ImageRef| {
        let pull_one = || pull_one(reference, &wanted, args, &store, &client, session);
        pull_one().or_else(|failure| {
            if !failure.is_mended() {
                return Err(failure);
            }
            term::warn("a layer in the store was damaged and is fetched again");
            pull_one()
        })
    };
    let is_tagged = args.name.rsplit('/').next().unwrap_or_default().contains([':', '@']);
    if !args.all_tags {
        if !is_tagged && !args.conversion.progress.quiet {
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
    if !args.conversion.progress.quiet {
        let tag = reference.manifest_reference();
        term::note(&format_args!("{tag}: Pulling from {}", reference.path()));
    }
    // It is only compared with, and a damaged ref is replaced by this pull.
    let before = store.get_ref(&reference.to_string()).unwrap_or_default();
    let progress = Progress::new(&args.conversion.progress);
    let on_event = |event| progress.pull(&event);
    let (pinned, _) = registry::pull_while(client, reference, wanted, store, &on_event, |arriving| {
        if args.platform.is_some() && !wanted.runnable().contains(&arriving.platform.normalized()) {
            return Err(Failure::new(
                format!(
                    "cannot pull `{}` for {wanted}: there is only an image for {}",
                    args.name, arriving.platform
                ),
                "leave out `--platform`, or ask the image's makers for one",
            ));
        }
        with_arriving(arriving, |source| make_run_file(source, store, session, &args.conversion, &progress))
    })?;
    let set = store.layer_set(&reference.familiar(), &pinned.manifest_digest)?;
    let names = std::slice::from_ref(reference);
    let record = publish(&set, names, Some(pinned.top_digest), store, session, &args.conversion, &progress)?;
    drop(progress);
    if args.conversion.progress.quiet {
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
