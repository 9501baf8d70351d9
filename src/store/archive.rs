//! Image archives: what `docker save`, podman, skopeo and builders write, in both of Docker's shapes.
//!
//! ```text
//! until Docker 24                    since Docker 25, and oci-archive
//!   manifest.json                      oci-layout, index.json
//!   <config hex>.json                  blobs/sha256/<hex>
//!   <id>/layer.tar (maybe a link)      manifest.json that names blobs/…  (Docker only)
//!   repositories, <id>/json, VERSION   repositories
//! ```
//!
//! The layout is preferred, since only it has manifests; where it is inconsistent (some Docker 25 and containerd
//! archives list what they do not hold) `manifest.json` decides.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::base::{Digest, ReadAt as _};
use crate::oci::layout::{INDEX_FILE, LAYOUT_FILE, parse_index, parse_marker};
use crate::oci::{Platform, media};
use crate::sys::file::ReadFile;
use crate::tarlayer::Encoding;

use super::layout::{MARKER_LIMIT_BYTES, NamedImage, images_of};
use super::members::{Members, promised_digest};
use super::outer::open_outer;
use super::source::{ImageError, Piece, diff_ids, layer_at};
use super::{ArchiveError, ArchiveFault, LayerSet, Store};

/// Largest `manifest.json`, in bytes; containerd takes as much.
const MANIFEST_JSON_LIMIT_BYTES: u64 = 20 << 20;
/// Its name.
const MANIFEST_JSON: &str = "manifest.json";

/// One image of an archive.
#[derive(Debug, Clone)]
pub struct ArchiveImage {
    /// Its names as the archive writes them, which may be short (`python:3.12`) or none.
    pub names: Vec<String>,
    /// The raw manifest, if the archive has one.
    pub manifest: Option<Vec<u8>>,
    /// What it is made of. The layers' bytes are not verified yet: who reads them compares [`super::Layer::digest`]
    /// and [`super::Layer::diff_id`].
    pub layers: LayerSet,
}

/// Reads the archive at `path`. A plain tar is only looked into, and the layers are windows of that file; a compressed
/// one, or a pipe, is taken apart into blobs of `store`. Of an image for several platforms it gives the one for
/// `wanted`.
pub fn read_archive(
    path: &Path,
    store: &Store,
    wanted: &Platform,
) -> Result<Vec<ArchiveImage>, ArchiveError> {
    let origin = path.to_string_lossy();
    open_members(path, store)
        .and_then(|members| images(members, store, wanted))
        .map_err(|fault| fault.at(&origin))
}

/// Reads an archive that comes only once, such as standard input, which `origin` names in errors.
pub fn read_archive_stream(
    stream: impl Read,
    origin: &str,
    store: &Store,
    wanted: &Platform,
) -> Result<Vec<ArchiveImage>, ArchiveError> {
    open_outer(stream)
        .and_then(|mut tar| Members::of_stream(&mut tar, store))
        .and_then(|members| images(members, store, wanted))
        .map_err(|fault| fault.at(origin))
}

fn open_members(path: &Path, store: &Store) -> Result<Members, ArchiveFault> {
    let read = |source| ArchiveFault::Read { source };
    let file = File::open(path).map_err(read)?;
    if !file.metadata().map_err(read)?.is_file() {
        return Members::of_stream(&mut open_outer(file)?, store);
    }
    let file = ReadFile::new(file).map_err(read)?;
    let mut head = [0; 512];
    let count = file.read_at(&mut head, 0).map_err(read)?;
    match Encoding::of(&head[..count]) {
        _ if count == 0 => Err(ArchiveFault::Empty),
        Encoding::Plain => Members::of_file(file, store),
        Encoding::Foreign(kind) => Err(ArchiveFault::Compression { kind }),
        Encoding::Gzip | Encoding::Zstd => {
            let file = File::open(path).map_err(read)?;
            Members::of_stream(&mut open_outer(file)?, store)
        }
    }
}

fn images(mut members: Members, store: &Store, wanted: &Platform) -> Result<Vec<ArchiveImage>, ArchiveFault> {
    let listed = match members.document(MANIFEST_JSON, MANIFEST_JSON_LIMIT_BYTES)? {
        Some(raw) => Some(parse_manifest_json(&raw)?),
        None => None,
    };
    let images = match (layout_images(&mut members, wanted), listed) {
        (Ok(Some(found)), listed) if listed.is_none() || !found.is_empty() => {
            merged(&members, found, &listed.unwrap_or_default())?
        }
        // The layout is missing, empty or wrong.
        (_, Some(listed)) => listed
            .iter()
            .map(|item| listed_image(&mut members, store, item))
            .collect::<Result<Vec<_>, ArchiveFault>>()?,
        (Err(fault), None) => return Err(fault),
        (Ok(_), None) => return Err(ArchiveFault::NotALayout { missing: LAYOUT_FILE }),
    };
    if members.is_from_stream() {
        for image in &images {
            store.put_blob(&image.layers.config)?;
            image.manifest.as_deref().map(|raw| store.put_blob(raw)).transpose()?;
        }
        members.publish_used()?;
    }
    Ok(images)
}

/// The images of the archive's layout; `None` if it has none.
fn layout_images(members: &mut Members, wanted: &Platform) -> Result<Option<Vec<NamedImage>>, ArchiveFault> {
    let marker = members.document(LAYOUT_FILE, MARKER_LIMIT_BYTES)?;
    let index = members.document(INDEX_FILE, media::INDEX_LIMIT_BYTES)?;
    let (Some(marker), Some(index)) = (marker, index) else { return Ok(None) };
    parse_marker(&marker)?;
    Ok(Some(images_of(members, &parse_index(&index)?, wanted)?))
}

/// An image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Listed {
    fn names(&self) -> Vec<String> {
        self.repo_tags.iter().flatten().filter(|name| !name.is_empty()).cloned().collect()
    }
}

fn parse_manifest_json(raw: &[u8]) -> Result<Vec<Listed>, ArchiveFault> {
    let listed: Option<Vec<Listed>> =
        serde_json::from_slice(raw).map_err(|source| ArchiveFault::ManifestJson { source })?;
    listed.ok_or(ArchiveFault::NullManifest)
}

/// Images of the layout, under the names that `manifest.json` gives them: the layout may have the tag alone.
fn merged(
    members: &Members,
    found: Vec<NamedImage>,
    listed: &[Listed],
) -> Result<Vec<ArchiveImage>, ArchiveFault> {
    let mut by_config: Vec<(Digest, Vec<String>)> = Vec::new();
    for item in listed {
        if let Some(raw) = members.document(&item.config, media::CONFIG_LIMIT_BYTES)? {
            by_config.push((Digest::of(&raw), item.names()));
        }
    }
    let image = |found: NamedImage| {
        let config = Digest::of(&found.image.layers.config);
        let listed: Vec<String> = by_config
            .iter()
            .filter(|(digest, _)| *digest == config)
            .flat_map(|(_, names)| names.clone())
            .collect();
        let names = if listed.is_empty() { found.names } else { listed };
        let mut layers = found.image.layers;
        layers.name = names.first().cloned().unwrap_or_default();
        ArchiveImage { names, manifest: Some(found.image.manifest), layers }
    };
    Ok(found.into_iter().map(image).collect())
}

/// An image by `manifest.json` alone.
fn listed_image(members: &mut Members, store: &Store, item: &Listed) -> Result<ArchiveImage, ArchiveFault> {
    let config = members
        .document(&item.config, media::CONFIG_LIMIT_BYTES)?
        .ok_or_else(|| ImageError::Missing { what: "config", name: item.config.clone() })?;
    let digest = Digest::of(&config);
    if hex_of_name(&item.config).is_some_and(|hex| hex != digest.hex()) {
        return Err(ImageError::Digest { what: "config", name: item.config.clone(), got: digest }.into());
    }
    let paths = item.layers.as_deref().unwrap_or_default();
    let diff_ids = diff_ids(&config, &digest, paths.len())?;
    let mut layers = Vec::with_capacity(paths.len());
    for (at, (path, diff_id)) in paths.iter().zip(diff_ids).enumerate() {
        let promised = promised_digest(path);
        let (piece, hashed) = if path.is_empty() {
            empty_layer(store, &diff_id)?.ok_or(ArchiveFault::LayerLeftOut { number: at + 1, diff_id })?
        } else {
            members.piece(path)?.ok_or_else(|| ImageError::Missing { what: "layer", name: path.clone() })?
        };
        if let (Some(expected), Some(got)) = (promised, hashed)
            && expected != got
        {
            return Err(ImageError::Digest { what: "layer", name: path.clone(), got }.into());
        }
        layers.push(layer_at(piece, promised.or(hashed), diff_id));
    }
    let names = item.names();
    let name = names.first().cloned().unwrap_or_default();
    let layers = LayerSet { name, manifest_digest: digest, config, layers };
    Ok(ArchiveImage { names, manifest: None, layers })
}

/// The digest that a config's name tells: `<hex>.json`, `sha256:<hex>`, `blobs/sha256/<hex>`.
fn hex_of_name(name: &str) -> Option<&str> {
    let last = name.rsplit('/').next()?;
    let hex = last.strip_suffix(".json").unwrap_or(last);
    let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
    format!("sha256:{hex}").parse::<Digest>().is_ok().then_some(hex)
}

/// The layer that buildpacks write as an empty name: a tar without members, if the diff id is that of one.
fn empty_layer(store: &Store, diff_id: &Digest) -> Result<Option<(Piece, Option<Digest>)>, ArchiveFault> {
    // Nothing at all, the two blocks of an end marker, and GNU tar's record of 20 blocks.
    const EMPTY_TARS: [usize; 3] = [0, 1024, 10240];
    for length in EMPTY_TARS {
        let tar = vec![0; length];
        if Digest::of(&tar) == *diff_id {
            store.put_blob(&tar)?;
            return Ok(store.open_blob(diff_id)?.map(|file| (Piece::whole(file), Some(*diff_id))));
        }
    }
    Ok(None)
}
