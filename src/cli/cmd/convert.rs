//! `slipway convert`: one image from anywhere to a file of the user's.

use std::path::Path;

use crate::base::sizes::human_size;
use crate::convert;
use crate::fuse;
use crate::image::Image;
use crate::oci::Platform;
use crate::reference::ImageRef;
use crate::registry::{self, Arriving};
use crate::squashfs::read::Reader;
use crate::store::{self, LayerSet, Target};

use super::publish::{forget_damaged, with_arriving};
use super::{Session, bundle, fence, hot, locate, platform};
use crate::cli::args::{ConvertArgs, PullWhen};
use crate::cli::failure::Failure;
use crate::cli::progress::Progress;
use crate::cli::term;

pub(in crate::cli) fn run(args: &ConvertArgs, session: &Session) -> Result<(), Failure> {
    let target = &args.target;
    let directory = target.to_str().and_then(|text| text.strip_prefix("bundle:"));
    if let Some(directory) = directory.filter(|_| !args.optimize) {
        return make_bundle(args, Path::new(directory), session);
    }
    if target.extension().is_none_or(|extension| extension != "sif") {
        return Err(Failure::new(
            format!(
                "cannot make `{}`: the only kinds that are made are a .sif and a bundle",
                target.display()
            ),
            "end the target's name in `.sif`, or write bundle:DIRECTORY",
        ));
    }
    if !args.force && target.symlink_metadata().is_ok() {
        return Err(Failure::new(
            format!("cannot make `{}`: it exists", target.display()),
            "add `--force` to replace it, or choose another name",
        ));
    }
    if args.optimize {
        return optimize(args, session);
    }
    convert_to(args, target, session)?;
    term::print(&format_args!("{}\n", target.display()))
}

fn convert_to(args: &ConvertArgs, target: &Path, session: &Session) -> Result<(), Failure> {
    let wanted = platform(args.platform.as_deref())?;
    fence::enclose(session, target.parent())?;
    let progress = Progress::new(&args.conversion.progress);
    let options = session.convert_options(&args.conversion);
    let mut on_event = |event| progress.convert(event);
    let (layers, report) = match args.source.split_once(':') {
        Some(("docker", name)) => {
            let reference = ImageRef::parse(name.trim_start_matches("//"))?;
            let (client, store) = (session.client(), session.store()?);
            let on_pull = |event| progress.pull(&event);
            let meanwhile = |arriving: &Arriving<'_>| -> Result<_, Failure> {
                let report = with_arriving(arriving, |source| {
                    convert::convert_arriving(source, &Target::replacing(target), &options, &mut on_event)
                        .map_err(|error| forget_damaged(error, &store))
                })?;
                Ok((arriving.layer_count(), report))
            };
            registry::pull_while(&client, &reference, &wanted, &store, &on_pull, meanwhile)?.1
        }
        _ => {
            let set = read_source(&args.source, &wanted, session)?;
            (set.layers.len(), convert::convert_with(&set, target, &options, &mut on_event)?)
        }
    };
    progress.converted(layers, &report);
    Ok(())
}

/// An OCI bundle in a new directory, by way of an image file beside it where the source is none.
fn make_bundle(args: &ConvertArgs, directory: &Path, session: &Session) -> Result<(), Failure> {
    if directory.symlink_metadata().is_ok() {
        return Err(Failure::new(
            format!("cannot make `{}`: it exists", directory.display()),
            "remove it first, or choose another name",
        ));
    }
    let is_described =
        ["docker:", "docker-archive:", "oci:"].iter().any(|kind| args.source.starts_with(kind));
    if !is_described {
        let image = locate::run_file(args.source.as_ref(), session, PullWhen::Missing, None)?;
        bundle::write(&image, directory, &args.device, session)?;
        return term::print(&format_args!("{}\n", directory.display()));
    }
    let beside = directory.with_extension(format!("slipway-{}.tmp.sif", std::process::id()));
    let made = convert_to(args, &beside, session)
        .and_then(|()| bundle::write(&beside, directory, &args.device, session));
    // A conversion that failed has made nothing.
    let _ = std::fs::remove_file(&beside);
    made?;
    term::print(&format_args!("{}\n", directory.display()))
}

/// Lays an image out anew for the starts that were recorded, and writes their lists beside it.
fn optimize(args: &ConvertArgs, session: &Session) -> Result<(), Failure> {
    let target = &args.target;
    let source = locate::run_file(args.source.as_ref(), session, PullWhen::Missing, None)?;
    let image = Image::open(&source)?;
    let superblock = Reader::open(image.partition())?.superblock().clone();
    let lists = if args.hot.is_empty() {
        hot::lists_of(&image.path, session)
    } else {
        args.hot.iter().map(|path| (hot::program_of(path, &image.path), path.clone())).collect()
    };
    let mut starts = Vec::new();
    for (program, path) in lists {
        match fuse::read_hot_list(&path, &superblock) {
            Some(list) => starts.push((program, list)),
            None if args.hot.is_empty() => {}
            None => {
                return Err(Failure::new(
                    format!("cannot use `{}`: it is no hot list of `{}`", path.display(), source.display()),
                    "record one with `slipway run --record-hot IMAGE COMMAND`",
                ));
            }
        }
    }
    if starts.is_empty() {
        return Err(Failure::new(
            format!("cannot optimize `{}`: no start of it was recorded", source.display()),
            "record one with `slipway run --record-hot IMAGE COMMAND`",
        ));
    }
    let all: Vec<_> = starts.iter().flat_map(|(_, list)| list).copied().collect();
    let done = convert::optimize(&image, &all, &Target::replacing(target))?;
    for text in &done.left_out {
        term::warn(&format!("left out: {text}"));
    }
    for (program, list) in &starts {
        let path = hot::beside(target, program);
        fuse::write_hot_list(&path, &done.superblock, &done.moved.list(list)).map_err(|error| {
            Failure::new(format!("cannot write the hot list `{}`: {error}", path.display()), None)
        })?;
    }
    if !args.conversion.progress.quiet {
        let programs: Vec<_> = starts.iter().map(|(program, _)| program.as_str()).collect();
        term::note(&format_args!(
            "Optimized for {}: {} of {} in front",
            programs.join(", "),
            human_size(done.hot_bytes),
            human_size(done.sif_bytes)
        ));
    }
    term::print(&format_args!("{}\n", target.display()))
}

fn read_source(source: &str, wanted: &Platform, session: &Session) -> Result<LayerSet, Failure> {
    match source.split_once(':') {
        Some(("docker-archive", path)) => {
            let store = session.store()?;
            let mut images = store::read_archive(Path::new(path), &store, wanted)?;
            match (images.pop(), images.is_empty()) {
                (Some(image), true) => Ok(image.layers),
                (None, _) => Err(Failure::new(format!("cannot convert `{path}`: it holds no image"), None)),
                (Some(_), false) => Err(Failure::new(
                    format!("cannot convert `{path}`: it holds {} images", images.len() + 1),
                    "load it with `slipway load -i` and run the images by name",
                )),
            }
        }
        Some(("oci", rest)) => {
            // A directory may hold a colon itself; a tag may not hold a slash.
            let (directory, tag) = match rest.rsplit_once(':') {
                Some((directory, tag)) if !tag.contains('/') => (directory, Some(tag)),
                _ => (rest, None),
            };
            Ok(store::read_layout(Path::new(directory), tag, wanted)?)
        }
        _ => Err(Failure::new(
            format!("cannot convert `{source}`: it does not say what kind of source it is"),
            "write docker-archive:FILE, oci:DIRECTORY[:TAG] or docker://NAME",
        )),
    }
}
