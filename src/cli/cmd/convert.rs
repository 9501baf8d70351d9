//! `slipway convert`: one image from anywhere to a file of the user's.

use std::path::Path;

use crate::base::sizes::human_size;
use crate::convert;
use crate::oci::Platform;
use crate::reference::ImageRef;
use crate::registry;
use crate::store::{self, LayerSet};

use super::publish::forget_damaged;
use super::{Session, platform};
use crate::cli::args::ConvertArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

pub(in crate::cli) fn run(args: &ConvertArgs, session: &Session) -> Result<(), Failure> {
    let target = &args.target;
    if target.extension().is_none_or(|extension| extension != "sif") {
        return Err(Failure::new(
            format!("cannot make `{}`: the only kind of file that is made yet is a .sif", target.display()),
            "end the target's name in `.sif`",
        ));
    }
    if !args.force && target.symlink_metadata().is_ok() {
        return Err(Failure::new(
            format!("cannot make `{}`: it exists", target.display()),
            "add `--force` to replace it, or choose another name",
        ));
    }
    let wanted = platform(args.platform.as_deref())?;
    let set = read_source(&args.source, &wanted, session)?;
    let report = match convert::convert(&set, target, &session.convert_options()) {
        Err(error) if args.source.starts_with("docker:") => {
            return Err(forget_damaged(error, &session.store()?));
        }
        report => report?,
    };
    term::print(&format_args!(
        "{}: {} layers, {} entries, {} to {}\n",
        target.display(),
        set.layers.len(),
        report.entries,
        human_size(report.tar_bytes),
        human_size(report.sif_bytes)
    ))
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
        Some(("docker", name)) => {
            let reference = ImageRef::parse(name.trim_start_matches("//"))?;
            let store = session.store()?;
            let pinned = registry::pull(&session.client(), &reference, wanted, &store, &|_| {})?;
            Ok(store.layer_set(&reference.familiar(), &pinned.manifest_digest)?)
        }
        _ => Err(Failure::new(
            format!("cannot convert `{source}`: it does not say what kind of source it is"),
            "write docker-archive:FILE, oci:DIRECTORY[:TAG] or docker://NAME",
        )),
    }
}
