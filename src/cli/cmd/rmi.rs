//! `slipway rmi`: names taken away, and images that lose their last one.

use std::collections::BTreeSet;

use crate::reference::ImageRef;
use crate::store::{Meant, Store, StoredImage};

use super::{Session, locate};
use crate::cli::args::RmiArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// Removes each; one that fails does not keep the others.
pub(in crate::cli) fn run(args: &RmiArgs, session: &Session) -> Result<(), Failure> {
    let store = session.store()?;
    let mut failed = false;
    for word in &args.images {
        match remove(word, args.force, &store) {
            Ok(lines) => term::print(&lines)?,
            Err(failure) => {
                term::complain(&failure);
                failed = true;
            }
        }
    }
    if failed { Err(Failure::quiet_own()) } else { Ok(()) }
}

/// The lines that say what went.
fn remove(word: &str, force: bool, store: &Store) -> Result<String, Failure> {
    let (image, meant) = locate::image(store, word)?;
    let names: Vec<String> = match meant {
        Meant::Name(name) => vec![name],
        Meant::Digest => {
            let repository = ImageRef::parse(word)?.repository();
            image.names.iter().filter(|name| repository_of(name) == repository).cloned().collect()
        }
        Meant::Id => {
            let repositories: BTreeSet<String> = image.names.iter().map(|name| repository_of(name)).collect();
            if repositories.len() > 1 && !force {
                return Err(conflict(&image));
            }
            image.names.clone()
        }
    };
    let mut lines = String::new();
    let mut say = |verb: &str, what: &str| {
        for part in [verb, ": ", what, "\n"] {
            lines.push_str(part);
        }
    };
    for name in &names {
        if store.remove_ref(name)? {
            say("Untagged", &familiar(name));
        }
    }
    if names.len() < image.names.len() {
        return Ok(lines);
    }
    for digest in &image.digests {
        say("Untagged", &familiar(digest));
    }
    let record = &image.record;
    store.remove_ref(&record.manifest.to_string())?;
    let removed = store.remove_parts(record)?;
    say("Deleted", &record.config.to_string());
    for blob in removed.blobs.iter().filter(|blob| ![record.config, record.manifest].contains(blob)) {
        say("Deleted", &blob.to_string());
    }
    if removed.in_use {
        term::note(&format_args!(
            "the run file of {} stays until the last container that runs from it has ended",
            record.config.short()
        ));
    }
    Ok(lines)
}

fn conflict(image: &StoredImage) -> Failure {
    Failure::new(
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            image.record.config.short()
        ),
        "name one of them, or add `-f` to remove all",
    )
}

fn repository_of(name: &str) -> String {
    ImageRef::parse(name).map_or_else(|_| name.to_owned(), |name| name.repository())
}

pub(super) fn familiar(name: &str) -> String {
    ImageRef::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar())
}
