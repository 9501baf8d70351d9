//! `slipway load`: every image of a `docker save` archive into the store.

use std::path::Path;

use crate::oci::{ImageConfig, Platform};
use crate::reference::ImageRef;
use crate::store;

use super::{Session, fence, publish};
use crate::cli::args::LoadArgs;
use crate::cli::failure::Failure;
use crate::cli::progress::Progress;
use crate::cli::term;

pub(in crate::cli) fn run(args: &LoadArgs, session: &Session) -> Result<(), Failure> {
    let input = args.input.as_deref().unwrap_or(Path::new("/dev/stdin"));
    if args.input.is_none() && term::input_is_terminal() {
        return Err(Failure::new(
            "requested load from stdin, but stdin is empty",
            "name a file with `-i`, or write `docker save IMAGE | slipway load`",
        ));
    }
    fence::enclose(session, None)?;
    let store = session.store()?;
    let quiet = args.conversion.progress.quiet;
    for image in store::read_archive(input, &store, &Platform::host())? {
        let names = image.names.iter().map(|name| ImageRef::parse(name)).collect::<Result<Vec<_>, _>>()?;
        let progress = Progress::new(&args.conversion.progress);
        // The copy runs beside the conversion, which verifies everything: nothing of a damaged archive is published.
        let keep = session.settings.store.keep_blobs.value;
        let (record, keeping) = std::thread::scope(|scope| {
            let keeping = keep.then(|| scope.spawn(|| store.keep(&image)));
            let record = publish::convert(&image.layers, &store, session, &args.conversion, &progress);
            (record, keeping.map(|copy| copy.join()))
        });
        let mut record = record?;
        match keeping {
            Some(Ok(keeping)) => record.manifest = keeping?.publish()?,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => {
                store.put_blob(&image.layers.config)?;
            }
        }
        publish::name(&record, &names, &store)?;
        warn_of_foreign(&image.layers.config, &image.layers.name, &progress);
        drop(progress);
        for name in &names {
            let prefix = if quiet { "" } else { "Loaded image: " };
            term::print(&format_args!("{prefix}{}\n", name.familiar()))?;
        }
        if names.is_empty() {
            let prefix = if quiet { "" } else { "Loaded image ID: " };
            term::print(&format_args!("{prefix}{}\n", record.config))?;
        }
    }
    Ok(())
}

/// A wrong architecture is said when the image comes, not only when it is run.
fn warn_of_foreign(raw_config: &[u8], name: &str, progress: &Progress) {
    let host = Platform::host();
    let Ok(config) = ImageConfig::parse(raw_config) else { return };
    if !config.architecture.is_empty() && config.architecture != host.architecture {
        progress
            .warn(&format!("`{name}` is for {} and this host is {}", config.architecture, host.architecture));
    }
}
