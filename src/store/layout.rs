//! The images of an OCI layout: by its index, from a directory or from wherever else its blobs are.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::{Digest, ReadAt as _};
use crate::oci::layout::{
    BLOBS_DIRECTORY, INDEX_FILE, LAYOUT_FILE, entry_is_called, entry_name, parse_index, parse_marker,
};
use crate::oci::{Descriptor, Index, Platform, media};
use crate::sys::file::ReadFile;

use super::source::{BlobSource, Described, ImageError, Piece, described_image};
use super::{ArchiveError, ArchiveFault, LayerSet, StoreError};

/// Largest file `oci-layout`, in bytes; real ones have 30.
pub(super) const MARKER_LIMIT_BYTES: u64 = 4096;

/// Reads the image of the layout at `directory` that is called `name` (tag, full name or digest), or the only one.
pub fn read_layout(
    directory: &Path,
    name: Option<&str>,
    wanted: &Platform,
) -> Result<LayerSet, ArchiveError> {
    read_directory(directory, name, wanted).map_err(|fault| fault.at(&directory.to_string_lossy()))
}

fn read_directory(directory: &Path, name: Option<&str>, wanted: &Platform) -> Result<LayerSet, ArchiveFault> {
    let read = |missing: &'static str, limit_bytes| match read_file(&directory.join(missing), limit_bytes)? {
        Some(raw) => Ok(raw),
        None => Err(ArchiveFault::NotALayout { missing }),
    };
    parse_marker(&read(LAYOUT_FILE, MARKER_LIMIT_BYTES)?)?;
    let index = parse_index(&read(INDEX_FILE, media::INDEX_LIMIT_BYTES)?)?;
    let group = only_group(&index, name)?;
    let mut source = LayoutDirectory { blobs: directory.join(BLOBS_DIRECTORY) };
    Ok(described_image(&mut source, &group.name, &group.index, wanted)?.layers)
}

/// The group that is called `name`, or the only one; a manifest under several tags is one image.
fn only_group(index: &Index, name: Option<&str>) -> Result<Group, ArchiveFault> {
    let mut groups = groups_of(index, |entry| name.is_none_or(|name| entry_is_called(entry, name)));
    let first_digest = |group: &Group| group.index.manifests.first().map(|entry| entry.digest);
    groups.dedup_by_key(|group| first_digest(group));
    match (groups.pop(), groups.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(ArchiveFault::SeveralImages { available: available(index) }),
        (None, _) => {
            let name = name.unwrap_or("anything").to_owned();
            Err(ArchiveFault::NoSuchImage { name, available: available(index) })
        }
    }
}

/// The names of all images for a message.
fn available(index: &Index) -> String {
    const SHOWN: usize = 16;
    let groups = groups_of(index, |_| true);
    let mut words: Vec<String> =
        groups.iter().take(SHOWN).map(|group| format!("`{}`", group.label())).collect();
    if groups.len() > SHOWN {
        words.push(format!("{} more", groups.len() - SHOWN));
    }
    if words.is_empty() { "other entries".into() } else { words.join(", ") }
}

/// An image of an index with all its names.
pub(super) struct NamedImage {
    pub(super) names: Vec<String>,
    pub(super) image: Described,
}

/// All images of a layout's index that are for `wanted`.
pub(super) fn images_of(
    source: &mut impl BlobSource,
    index: &Index,
    wanted: &Platform,
) -> Result<Vec<NamedImage>, ImageError> {
    let mut images: Vec<NamedImage> = Vec::new();
    for group in groups_of(index, |_| true) {
        let image = described_image(source, &group.name, &group.index, wanted)?;
        let digest = image.layers.manifest_digest;
        let known = images.iter_mut().find(|known| known.image.layers.manifest_digest == digest);
        let names = (!group.name.is_empty()).then_some(group.name);
        match known {
            Some(known) => known.names.extend(names),
            None => images.push(NamedImage { names: names.into_iter().collect(), image }),
        }
    }
    Ok(images)
}

/// Entries of an index that are one image, perhaps for several platforms.
struct Group {
    name: String,
    index: Index,
}

impl Group {
    fn label(&self) -> String {
        match self.index.manifests.first() {
            Some(entry) if self.name.is_empty() => entry.digest.to_string(),
            _ => self.name.clone(),
        }
    }
}

/// Entries of one name that tell their platforms compete; any other entry stands for itself.
fn groups_of(index: &Index, wanted: impl Fn(&Descriptor) -> bool) -> Vec<Group> {
    let tells_platform =
        |entry: &Descriptor| entry.platform.as_ref().is_some_and(|platform| !platform.is_blank());
    let mut groups: Vec<Group> = Vec::new();
    for entry in index.manifests.iter().filter(|entry| entry.is_image_candidate() && wanted(entry)) {
        let name = entry_name(entry).unwrap_or_default();
        let fitting = groups.iter_mut().find(|group| {
            group.name == name && tells_platform(entry) && group.index.manifests.iter().all(tells_platform)
        });
        match fitting {
            Some(group) => group.index.manifests.push(entry.clone()),
            None => groups.push(Group {
                name: name.to_owned(),
                index: Index { manifests: vec![entry.clone()], unreadable: Vec::new() },
            }),
        }
    }
    groups
}

/// The blobs of a layout directory.
struct LayoutDirectory {
    blobs: PathBuf,
}

impl BlobSource for LayoutDirectory {
    fn document(
        &mut self,
        what: &'static str,
        digest: &Digest,
        limit_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(raw) = read_file(&self.blobs.join(digest.hex()), limit_bytes)? else { return Ok(None) };
        let got = Digest::of(&raw);
        if got != *digest {
            return Err(ImageError::Digest { what, name: digest.to_string(), got });
        }
        Ok(Some(raw))
    }

    fn layer(&mut self, digest: &Digest) -> Result<Option<Piece>, ImageError> {
        Ok(open_file(&self.blobs.join(digest.hex()))?.map(Piece::whole))
    }
}

pub(super) fn open_file(path: &Path) -> Result<Option<ReadFile>, StoreError> {
    match File::open(path).and_then(ReadFile::new) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(StoreError::of("open", path, error)),
    }
}

/// A small file, whole; `None` if it is not there.
fn read_file(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(file) = open_file(path)? else { return Ok(None) };
    read_whole(&Piece::whole(file), path, limit_bytes).map(Some)
}

/// The bytes of a piece that is small.
pub(super) fn read_whole(piece: &Piece, path: &Path, limit_bytes: u64) -> Result<Vec<u8>, StoreError> {
    let size_bytes = piece.size_bytes;
    let length = match usize::try_from(size_bytes) {
        Ok(length) if size_bytes <= limit_bytes => length,
        _ => return Err(StoreError::TooLarge { path: path.into(), size_bytes, limit_bytes }),
    };
    let mut raw = vec![0; length];
    piece
        .file
        .read_exact_at(&mut raw, piece.offset_bytes)
        .map_err(|error| StoreError::of("read", path, error))?;
    Ok(raw)
}
