//! `slipway save`: images into one archive.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use crate::base::Digest;
use crate::reference::ImageRef;
use crate::store::{Meant, SaveError, SavedImage, Store};

use super::{Session, locate};
use crate::cli::args::SaveArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

pub(in crate::cli) fn run(args: &SaveArgs, session: &Session) -> Result<(), Failure> {
    let store = session.store()?;
    let mut images: Vec<SavedImage> = Vec::new();
    for word in &args.images {
        for (manifest, name) in meant_by(word, &store)? {
            let at = images.iter().position(|image| image.manifest == manifest).unwrap_or_else(|| {
                images.push(SavedImage { manifest, names: Vec::new() });
                images.len() - 1
            });
            let names = &mut images[at].names;
            names.extend(name.filter(|name| !names.contains(name)));
        }
    }
    match &args.output {
        Some(path) => write_file(path, &images, &store),
        None if term::output_is_terminal() => {
            Err(Failure::new("cowardly refusing to save to a terminal", "use the `-o` flag or redirect"))
        }
        None => match store.save(&images, &mut term::raw_output()) {
            // Whoever read the archive has gone, which is their affair.
            Err(SaveError::Write { source }) if source.kind() == io::ErrorKind::BrokenPipe => {
                Err(Failure::quiet(0))
            }
            saved => Ok(saved?),
        },
    }
}

/// The images of a word, each under one name: an id has none, and a name without a tag means all tags.
fn meant_by(word: &str, store: &Store) -> Result<Vec<(Digest, Option<ImageRef>)>, Failure> {
    let is_repository = !word.rsplit('/').next().unwrap_or_default().contains([':', '@']);
    if is_repository && let Ok(reference) = ImageRef::parse(word) {
        let all: Vec<_> = store
            .readable_refs()?
            .0
            .into_iter()
            .filter_map(|(name, record)| Some((record.manifest, ImageRef::parse(&name).ok()?)))
            .filter(|(_, name)| name.repository() == reference.repository())
            .map(|(manifest, name)| (manifest, Some(name)))
            .collect();
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let (image, meant) = locate::image(store, word)?;
    let name = match meant {
        Meant::Name(name) => Some(ImageRef::parse(&name)?),
        Meant::Digest | Meant::Id => None,
    };
    Ok(vec![(image.record.manifest, name)])
}

/// Half an archive is never seen under the name.
fn write_file(path: &Path, images: &[SavedImage], store: &Store) -> Result<(), Failure> {
    let failed =
        |source: io::Error| Failure::new(format!("cannot write `{}`: {source}", path.display()), None);
    if path.symlink_metadata().is_ok_and(|facts| !facts.is_file()) {
        // A pipe, a device, a link: written where it leads.
        let mut out = BufWriter::new(File::options().write(true).truncate(true).open(path).map_err(failed)?);
        return Ok(store.save(images, &mut out)?);
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = (|| {
        let file = File::options().write(true).create_new(true).open(&temporary).map_err(failed)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        store.save(images, &mut out)?;
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(failed)
    })();
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
