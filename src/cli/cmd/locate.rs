//! From the word that names an image to its run file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::image::Image;
use crate::oci::{Document, Manifest, media};
use crate::reference::ImageRef;
use crate::store::{Meant, Store, StoredImage};
use crate::sys::process::WaitableChildren;

use super::Session;
use crate::cli::args::PullWhen;
use crate::cli::failure::Failure;
use crate::cli::term;

/// A word that begins with `/` or `.`, ends in `.sif`, `.sqsh` or `.squashfs`, or names a file that exists, is a file;
/// any other is an image name, looked up in the store and pulled if it is not there.
///
/// `--pull` says when it is pulled, and `--platform` for which machine.
pub(super) fn run_file(
    word: &OsStr,
    session: &Session,
    when: PullWhen,
    platform: Option<&str>,
) -> Result<PathBuf, Failure> {
    if is_file(word) {
        return Ok(PathBuf::from(word));
    }
    let text = word.to_str().ok_or_else(|| {
        Failure::new(format!("`{}` is not an image name", word.to_string_lossy()), "names are plain ASCII")
    })?;
    let store = session.store()?;
    let found = if when == PullWhen::Always { None } else { stored(&store, text)? };
    if let Some(path) = found {
        return Ok(path);
    }
    ImageRef::parse(text)?;
    match when {
        PullWhen::Never => {
            return Err(Failure::new(
                format!("no such image: `{text}`, and `--pull never` forbids to download it"),
                "`slipway images` lists those that are there",
            ));
        }
        PullWhen::Missing => term::note(&format_args!("Unable to find image '{text}' locally")),
        PullWhen::Always => {}
    }
    pull_in_child(text, platform)?;
    stored(&store, text)?
        .ok_or_else(|| Failure::new(format!("`{text}` was pulled but is not in the store"), None))
}

/// Whether a word names a file, and not an image of the store.
pub(super) fn is_file(word: &OsStr) -> bool {
    [b"/".as_slice(), b"."].iter().any(|start| word.as_bytes().starts_with(start))
        || [b".sif".as_slice(), b".sqsh", b".squashfs"].iter().any(|end| word.as_bytes().ends_with(end))
        || Path::new(word).is_file()
}

/// The run file of the image that a name, an id or the beginning of one means.
fn stored(store: &Store, word: &str) -> Result<Option<PathBuf>, Failure> {
    // A start by name reads one file, however many images there are.
    let by_name = match ImageRef::parse(word) {
        Ok(reference) => store.get_ref(&reference.to_string())?,
        Err(_) => None,
    };
    let record = match by_name {
        Some(record) => Some(record),
        None => store.find_image(word)?.map(|(image, _)| image.record),
    };
    let key = record.and_then(|record| record.image);
    Ok(key.filter(|key| store.has_image(key)).map(|key| store.image_path(&key)))
}

/// The image that a word means, which must be there.
pub(super) fn image(store: &Store, word: &str) -> Result<(StoredImage, Meant), Failure> {
    store.find_image(word)?.ok_or_else(|| {
        Failure::new(format!("no such image: `{word}`"), "`slipway images` lists those that are there")
    })
}

/// The raw image config: as a blob, or as the run file carries it.
pub(super) fn raw_config(store: &Store, image: &StoredImage) -> Result<Vec<u8>, Failure> {
    let record = &image.record;
    if let Some(raw) = store.read_blob(&record.config, media::CONFIG_LIMIT_BYTES)? {
        return Ok(raw);
    }
    let key = record.image.as_ref().filter(|key| store.has_image(key));
    let file = key.map(|key| Image::open(&store.image_path(key))).transpose()?;
    let raw = file.as_ref().and_then(|file| file.raw_config()).map(<[u8]>::to_vec);
    raw.ok_or_else(|| Failure::new(format!("the store has no config of the image {}", record.config), None))
}

/// The image's config and manifest as JSON; the manifest only if it is kept.
pub(super) fn documents(store: &Store, image: &StoredImage) -> Result<(Value, Option<Manifest>), Failure> {
    let raw = raw_config(store, image)?;
    let config = serde_json::from_slice(&raw).map_err(|error| {
        Failure::new(format!("the image config {} is not valid: {error}", image.record.config), None)
    })?;
    let manifest = match store.read_blob(&image.record.manifest, media::MANIFEST_LIMIT_BYTES)? {
        Some(raw) => match Document::parse(&raw)? {
            Document::Manifest(manifest) => Some(manifest),
            Document::Index(_) => None,
        },
        None => None,
    };
    Ok((config, manifest))
}

/// Pulling starts threads, and the launcher must have none: a child does it. Its words go to standard error, so that
/// standard output stays the workload's.
fn pull_in_child(name: &str, platform: Option<&str>) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(format!("cannot start a child to pull `{name}`: {error}"), None)
    };
    let _waitable = WaitableChildren::new().map_err(|errno| failed(&errno))?;
    let status = Command::new("/proc/self/exe")
        .args(["pull", "--quiet"])
        .args(platform.map(|platform| format!("--platform={platform}")))
        .args(["--", name])
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| failed(&error))?;
    // The child has said why.
    if status.success() { Ok(()) } else { Err(Failure::quiet_own()) }
}
