//! `slipway pull`: the blobs into the store, a run file made of them, and the name set.

use crate::reference::ImageRef;
use crate::registry;

use super::publish::{make_run_file, publish, with_arriving};
use super::{Session, platform};
use crate::cli::args::PullArgs;
use crate::cli::failure::Failure;
use crate::cli::progress::Progress;
use crate::cli::term;

pub(in crate::cli) fn run(args: &PullArgs, session: &Session) -> Result<(), Failure> {
    let reference = ImageRef::parse(&args.name)?;
    let wanted = platform(args.platform.as_deref())?;
    let store = session.store()?;
    let client = session.client();
    let before = store.get_ref(&reference.to_string())?;
    let progress = Progress::new(&args.conversion.progress);
    let on_event = |event| progress.pull(&event);
    let (pinned, _) = registry::pull_while(&client, &reference, &wanted, &store, &on_event, |arriving| {
        if args.platform.is_some() && !wanted.runnable().contains(&arriving.platform.normalized()) {
            return Err(Failure::new(
                format!(
                    "cannot pull `{}` for {wanted}: there is only an image for {}",
                    args.name, arriving.platform
                ),
                "leave out `--platform`, or ask the image's makers for one",
            ));
        }
        with_arriving(arriving, |source| make_run_file(source, &store, session, &args.conversion, &progress))
    })?;
    let set = store.layer_set(&reference.familiar(), &pinned.manifest_digest)?;
    let record =
        publish(&set, std::slice::from_ref(&reference), &store, session, &args.conversion, &progress)?;
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
