//! `slipway import`: a tar of a root becomes an image of one layer.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use jiff::Timestamp;

use crate::oci::amend::{self, Words};
use crate::tarlayer::Encoding;

use super::{Session, compose, platform};
use crate::cli::args::ImportArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// Bytes that tell how a stream is compressed.
const HEAD_BYTES: u64 = 512;

pub(in crate::cli) fn run(args: &ImportArgs, session: &Session) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(format!("cannot read `{}`: {error}", args.file.display()), None);
    if args.file.to_string_lossy().contains("://") {
        return Err(Failure::new(
            format!("cannot import `{}`: only files are imported", args.file.display()),
            "download it first: `curl URL | slipway import - NAME`",
        ));
    }
    let name = compose::new_name(args.name.as_deref())?;
    let platform = platform(args.platform.as_deref())?;
    let mut config = amend::empty_config(&platform.architecture, platform.variant.as_deref());
    for text in &args.change {
        amend::change(&mut config, text)?;
    }
    let input: Box<dyn Read> = match args.file.as_path() {
        path if path == Path::new("-") => Box::new(io::stdin()),
        path => Box::new(File::open(path).map_err(failed)?),
    };
    let mut input = BufReader::with_capacity(64 << 10, input);
    let mut head = Vec::new();
    input.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(failed)?;
    let encoding = Encoding::of(&head);
    if let Encoding::Foreign(kind) = encoding {
        return Err(Failure::new(
            format!("cannot import `{}`: it is compressed with {kind}", args.file.display()),
            "unpack it on the way: `xz -dc FILE | slipway import - NAME`",
        ));
    }
    let whole = BufReader::with_capacity(64 << 10, head.as_slice().chain(input));
    let tar = encoding.decode(whole).map_err(failed)?;
    let store = session.store()?;
    let layer = compose::store_layer(&store, tar, |_| Ok(()))?;
    let now = Timestamp::now().to_string();
    let comment = if args.message.is_empty() { "Imported from -" } else { &args.message };
    let words = Words { created: &now, created_by: "", author: "", comment };
    amend::add_layer(&mut config, &layer.as_top(), &words)?;
    let id = compose::publish_image(&config, None, &layer, name.as_ref(), &store, session)?;
    term::print(&format_args!("{id}\n"))
}
