//! `slipway image check`.

use std::path::Path;

use crate::base::Hint as _;
use crate::base::sizes::human_size;
use crate::host::LaunchFacts;
use crate::image::Image;
use crate::squashfs::read::Reader;

use super::locate::run_file;
use super::{Session, threads};
use crate::cli::args::{CheckArgs, PullWhen};
use crate::cli::failure::Failure;
use crate::cli::term;

/// Reads all of an image. What is wrong goes to standard error, a line each.
pub(in crate::cli) fn check(args: &CheckArgs, session: &Session) -> Result<(), Failure> {
    let path = run_file(&args.file, session, PullWhen::Missing, None)?;
    let image = Image::open(&path)?;
    let reader = Reader::open(image.partition())
        .map_err(|error| Failure::from(error).about(&format!("cannot check `{}`", path.display())))?;
    let facts = LaunchFacts::read(Path::new("/"));
    let sums = image.sums()?;
    let checked =
        reader.check(sums.as_ref(), threads(session.settings.convert.threads.value, &facts), &mut |_| {});
    for fault in &checked.faults {
        term::note(fault);
    }
    let hidden = checked.fault_count.saturating_sub(checked.faults.len() as u64);
    if hidden > 0 {
        term::note(&format_args!("… and {hidden} more"));
    }
    if let Some(first) = checked.faults.first() {
        let count = checked.fault_count;
        let faults = if count == 1 { "1 fault".into() } else { format!("{count} faults") };
        return Err(Failure::new(format!("`{}` is damaged: {faults}", path.display()), None)
            .with_hint(first.source.hint()));
    }
    image.loader_cache(&reader)?;
    term::print(&format_args!(
        "{}: {} names, {} blocks{}, {}: no fault\n",
        path.display(),
        checked.entries,
        checked.blocks,
        if sums.is_some() { " as they were written" } else { "" },
        human_size(checked.content_bytes)
    ))
}
