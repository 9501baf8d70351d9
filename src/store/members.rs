//! The members of an image archive by name: windows into a plain file, or parts taken out of a stream.
//!
//! A plain file is scanned header by header and nothing is copied. What comes from a pipe or a compressor is read
//! once: small members stay in memory, large ones wait as unpublished blobs until it is known what they are.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::base::limits::PATH_BYTES;
use crate::base::{Digest, ReadAt as _};
use crate::oci::layout::BLOBS_DIRECTORY;
use crate::sys::file::ReadFile;
use crate::tarlayer::{EntryKind, TarReader};

use super::blobs::PendingBlob;
use super::layout::{open_file, read_whole};
use super::source::{BlobSource, ImageError, Piece};
use super::{ArchiveFault, Store, StoreError};

/// Members that an archive may have. An image of 500 layers has 1,500.
const MEMBER_LIMIT: usize = 200_000;
/// Bytes of all names and link targets together: 300 for each of the most members.
const ALL_NAMES_BYTES: usize = 60 << 20;
/// Members that do not look like parts of an image, before it is clear that this is the tar of something else.
const STRANGER_LIMIT: usize = 500;
/// A member of a stream up to this many bytes stays in memory…
const SMALL_BYTES: u64 = 64 << 10;
/// …as long as all of them together have no more than this.
const ALL_SMALL_BYTES: u64 = 64 << 20;
/// Links to links that are followed.
const LINK_LIMIT: usize = 8;

/// Where a member's bytes are.
#[derive(Debug)]
enum Member {
    Window { offset_bytes: u64, size_bytes: u64 },
    Small(Vec<u8>),
    Waiting(PendingBlob),
    Link(String),
}

/// All members of one archive.
#[derive(Debug)]
pub(super) struct Members {
    store: Store,
    archive: Option<Arc<ReadFile>>,
    by_name: BTreeMap<String, Member>,
    /// Blobs that an image needs, to be published.
    used: Vec<String>,
}

impl Members {
    /// Scans a plain tar. Only its headers are read.
    pub(super) fn of_file(file: ReadFile, store: &Store) -> Result<Self, ArchiveFault> {
        let file = Arc::new(file);
        let scan = Scan { file: &file, position: Cell::new(0), blind_until: Cell::new(0) };
        let mut members = Self::empty(store, Some(Arc::clone(&file)));
        let mut tar = TarReader::new(&scan);
        members.read(&mut tar, |tar, size_bytes| {
            if tar.is_sparse() {
                // Its bytes are not in one piece.
                return waiting(tar, store);
            }
            let offset_bytes = scan.position.get();
            scan.blind_until.set(offset_bytes.saturating_add(size_bytes));
            Ok(Member::Window { offset_bytes, size_bytes })
        })?;
        Ok(members)
    }

    /// Takes a tar apart that comes only once.
    pub(super) fn of_stream(stream: &mut dyn Read, store: &Store) -> Result<Self, ArchiveFault> {
        let mut members = Self::empty(store, None);
        let mut tar = TarReader::new(&mut *stream);
        let mut small_left = ALL_SMALL_BYTES;
        members.read(&mut tar, |tar, size_bytes| {
            if size_bytes > SMALL_BYTES || size_bytes > small_left {
                return waiting(tar, store);
            }
            small_left -= size_bytes;
            let mut raw = Vec::new();
            let mut data = tar.data();
            match data.read_to_end(&mut raw) {
                Ok(_) => Ok(Member::Small(raw)),
                Err(source) => {
                    Err(data.into_error().map_or(ArchiveFault::Read { source }, ArchiveFault::Tar))
                }
            }
        })?;
        super::outer::drain(stream);
        Ok(members)
    }

    fn empty(store: &Store, archive: Option<Arc<ReadFile>>) -> Self {
        Self { store: store.clone(), archive, by_name: BTreeMap::new(), used: Vec::new() }
    }

    /// Collects the entries of `tar`; `take` makes a member of a regular file, told its size.
    fn read<R: Read>(
        &mut self,
        tar: &mut TarReader<R>,
        mut take: impl FnMut(&mut TarReader<R>, u64) -> Result<Member, ArchiveFault>,
    ) -> Result<(), ArchiveFault> {
        let (mut entries, mut strangers, mut name_bytes) = (0_usize, 0_usize, 0_usize);
        while let Some(entry) = tar.next_entry()? {
            entries += 1;
            if entries > MEMBER_LIMIT {
                return Err(ArchiveFault::TooManyMembers { limit: MEMBER_LIMIT });
            }
            // Nothing in an image has such a name, and a tar may have names of a megabyte each.
            if entry.path.len() > PATH_BYTES || entry.link.len() > PATH_BYTES {
                continue;
            }
            let Some(name) = plain_name("", &entry.path) else { continue };
            name_bytes += entry.path.len() + entry.link.len();
            if name_bytes > ALL_NAMES_BYTES {
                return Err(ArchiveFault::LongNames { limit_bytes: ALL_NAMES_BYTES });
            }
            let target = |base: &str| plain_name(base, &entry.link).map(Member::Link);
            let member = match entry.kind {
                EntryKind::File => Some(take(tar, entry.size_bytes)?),
                EntryKind::Symlink => target(parent(&name)),
                EntryKind::HardLink => target(""),
                _ => None,
            };
            if let Some(member) = member {
                strangers += usize::from(!looks_like_a_part(&name));
                self.by_name.insert(name, member);
            }
            if strangers > STRANGER_LIMIT && !self.has_image_file() {
                return Err(ArchiveFault::NotAnImageArchive);
            }
        }
        if self.has_image_file() {
            Ok(())
        } else if self.by_name.keys().any(|name| is_layer_name(name)) {
            Err(ArchiveFault::NoManifest)
        } else {
            Err(ArchiveFault::NotAnImageArchive)
        }
    }

    fn has_image_file(&self) -> bool {
        self.by_name.contains_key("manifest.json") || self.by_name.contains_key("index.json")
    }

    /// The name of the file that `name` means, after links.
    fn resolve(&self, name: &str) -> Option<String> {
        let mut name = plain_name("", name.as_bytes())?;
        for _ in 0..LINK_LIMIT {
            match self.by_name.get(&name)? {
                Member::Link(target) => name.clone_from(target),
                _ => return Some(name),
            }
        }
        None
    }

    /// A small member, whole; `None` if it is not there.
    pub(super) fn document(&self, name: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(found) = self.resolve(name) else { return Ok(None) };
        let whole = |piece: &Piece| read_whole(piece, Path::new(name), limit_bytes).map(Some);
        match self.by_name.get(&found) {
            Some(Member::Small(raw)) => {
                let size_bytes = raw.len() as u64;
                if size_bytes > limit_bytes {
                    return Err(StoreError::TooLarge { path: name.into(), size_bytes, limit_bytes });
                }
                Ok(Some(raw.clone()))
            }
            Some(Member::Waiting(blob)) => match open_file(blob.path())? {
                Some(file) => whole(&Piece::whole(file)),
                None => Ok(None),
            },
            Some(Member::Window { offset_bytes, size_bytes }) => {
                match self.window(*offset_bytes, *size_bytes) {
                    Some(piece) => whole(&piece),
                    None => Ok(None),
                }
            }
            Some(Member::Link(_)) | None => Ok(None),
        }
    }

    /// Where a member's bytes are, and their digest if they were hashed on the way; `None` if it is not there.
    pub(super) fn piece(&mut self, name: &str) -> Result<Option<(Piece, Option<Digest>)>, StoreError> {
        let Some(found) = self.resolve(name) else { return Ok(None) };
        if let Some(Member::Small(raw)) = self.by_name.get(&found) {
            // It needs a file after all.
            let mut writer = self.store.blob_writer(None, None)?;
            writer.append(raw)?;
            self.by_name.insert(found.clone(), Member::Waiting(writer.finish()?));
        }
        Ok(match self.by_name.get(&found) {
            Some(Member::Waiting(blob)) => {
                let digest = blob.digest();
                let piece = open_file(blob.path())?.map(|file| (Piece::whole(file), Some(digest)));
                self.used.push(found);
                piece
            }
            Some(Member::Window { offset_bytes, size_bytes }) => {
                self.window(*offset_bytes, *size_bytes).map(|piece| (piece, None))
            }
            _ => None,
        })
    }

    fn window(&self, offset_bytes: u64, size_bytes: u64) -> Option<Piece> {
        Some(Piece { file: Arc::clone(self.archive.as_ref()?), offset_bytes, size_bytes })
    }

    /// Whether the members were taken out of a stream, so that nothing else has them.
    pub(super) fn is_from_stream(&self) -> bool {
        self.archive.is_none()
    }

    /// Publishes the blobs that images need. The pieces stay as they are.
    pub(super) fn publish_used(mut self) -> Result<(), StoreError> {
        for name in std::mem::take(&mut self.used) {
            if let Some(Member::Waiting(blob)) = self.by_name.remove(&name) {
                blob.publish()?;
            }
        }
        Ok(())
    }
}

/// Puts a member aside as a blob that is not published yet.
fn waiting<R: Read>(tar: &mut TarReader<R>, store: &Store) -> Result<Member, ArchiveFault> {
    const BUFFER_BYTES: usize = 256 << 10;
    let mut writer = store.blob_writer(None, None)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match tar.read_data(&mut buffer)? {
            0 => return Ok(Member::Waiting(writer.finish()?)),
            count => writer.append(&buffer[..count])?,
        }
    }
}

impl BlobSource for Members {
    fn document(
        &mut self,
        what: &'static str,
        digest: &Digest,
        limit_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        let name = blob_name(digest);
        let Some(raw) = Self::document(self, &name, limit_bytes)? else { return Ok(None) };
        let got = Digest::of(&raw);
        if got == *digest { Ok(Some(raw)) } else { Err(ImageError::Digest { what, name, got }) }
    }

    fn layer(&mut self, digest: &Digest) -> Result<Option<Piece>, ImageError> {
        let name = blob_name(digest);
        match self.piece(&name)? {
            Some((_, Some(got))) if got != *digest => Err(ImageError::Digest { what: "layer", name, got }),
            found => Ok(found.map(|(piece, _)| piece)),
        }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("{BLOBS_DIRECTORY}/{}", digest.hex())
}

/// The digest that a member's name promises, if it lies where a layout has its blobs.
pub(super) fn promised_digest(name: &str) -> Option<Digest> {
    let name = plain_name("", name.as_bytes())?;
    let hex = name.strip_prefix(BLOBS_DIRECTORY)?.strip_prefix('/')?;
    format!("sha256:{hex}").parse().ok()
}

/// A member's name without `./`, doubled slashes and `..`, taken from `base`. `None`: it leads out of the archive or
/// is no text, so nothing can mean it.
fn plain_name(base: &str, name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    let start = if name.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = start.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn is_layer_name(name: &str) -> bool {
    name.starts_with(BLOBS_DIRECTORY) || name == "layer.tar" || name.ends_with("/layer.tar")
}

/// Whether tools give such names to parts of images: `<id>/layer.tar`, `<id>/json`, `<id>/VERSION`, `blobs/…`, and
/// anything at the top.
fn looks_like_a_part(name: &str) -> bool {
    let mut parts = name.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("blobs"), _, _) | (_, None, _) => true,
        (_, Some(file), None) => matches!(file, "json" | "VERSION") || file.contains(".tar"),
        _ => false,
    }
}

/// A file read in order, but for regions that nobody looks at: they are passed without reading, so that a scan costs
/// one small read for each member and not one pass over the data.
#[derive(Debug)]
struct Scan<'a> {
    file: &'a ReadFile,
    position: Cell<u64>,
    blind_until: Cell<u64>,
}

impl Read for &Scan<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let position = self.position.get();
        let blind = self.blind_until.get().min(self.file.size_bytes()).saturating_sub(position);
        let count = if blind > 0 {
            usize::try_from(blind).map_or(buf.len(), |blind| blind.min(buf.len()))
        } else {
            self.file.read_at(buf, position)?
        };
        self.position.set(position + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarlayer::testing::{archive, file, symlink};

    #[test]
    fn names_are_made_plain() {
        for (base, name, expected) in [
            ("", "./a//b/", Some("a/b")),
            ("", "/a/../b", Some("b")),
            ("x/y", "../z/layer.tar", Some("x/z/layer.tar")),
            ("x", "/z", Some("z")),
            ("x", "../../z", None),
            ("", ".", None),
            ("", "", None),
        ] {
            assert_eq!(plain_name(base, name.as_bytes()).as_deref(), expected, "{name}");
        }
        assert_eq!(plain_name("", b"\xff"), None);
    }

    /// An archive with a `manifest.json` and links with names and targets of that length.
    fn members_with_links(count: usize, length: usize) -> Result<Members, ArchiveFault> {
        let links = (0..count).map(|number| symlink(format!("{number:0length$}"), "t".repeat(length)));
        let tar = archive(&links.chain([file("manifest.json", "[]")]).collect::<Vec<_>>());
        let root = tempfile::tempdir().unwrap();
        Members::of_stream(&mut tar.as_slice(), &Store::open(root.path()).unwrap())
    }

    #[test]
    fn names_cost_bounded_memory() {
        assert_eq!(members_with_links(3, PATH_BYTES).unwrap().by_name.len(), 4);
        assert_eq!(members_with_links(3, PATH_BYTES + 1).unwrap().by_name.len(), 1);
        let error = members_with_links(ALL_NAMES_BYTES / PATH_BYTES / 2 + 1, PATH_BYTES).unwrap_err();
        assert!(matches!(error, ArchiveFault::LongNames { .. }), "{error}");
    }

    #[test]
    fn parts_of_images_are_known_by_name() {
        for (name, expected) in [
            ("manifest.json", true),
            ("0123.tar.gz", true),
            ("0123/layer.tar", true),
            ("0123/VERSION", true),
            ("blobs/sha256/0123", true),
            ("etc/passwd", false),
            ("usr/bin/env", false),
        ] {
            assert_eq!(looks_like_a_part(name), expected, "{name}");
        }
        let digest = Digest::of(b"");
        assert_eq!(promised_digest(&format!("./{}", blob_name(&digest))), Some(digest));
        assert_eq!(promised_digest("0123/layer.tar"), None);
    }
}
