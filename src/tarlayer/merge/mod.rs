//! The one-pass merge: layers are read newest first, and the result equals applying them oldest first.
//!
//! File content streams by once, newest layer first, and is handed on at once. Everything else of an entry is small
//! and is kept (about 100 bytes). When all layers are known, [`replay`] applies them oldest first, as the image
//! specification tells it, so that links, replaced directories and whiteouts mean what they meant to their layer.
//!
//! What newest-first reading gains is that hidden content need not be stored. Content is certainly hidden if
//! - its layer lists every directory above it, so no symbolic link of a lower layer can lead it elsewhere,
//! - a newer layer removes or replaces that very path or a directory above it, and
//! - no hard link can still reach it.
//!
//! The last is certain for newer layers, but a link may follow in the same layer. So [`Merger::add_layer`] stores all
//! content, and [`Merger::add_layer_lean`] passes hidden content by and says if the layer must be read once more.

mod error;
#[cfg(test)]
mod model;
mod paths;
#[cfg(test)]
mod property;
mod record;
mod replay;
#[cfg(test)]
mod tests;

use std::io::Read;

use crate::base::limits::PATH_BYTES as MAX_TARGET_BYTES;
use crate::base::tree::{FileId, Tree};

use super::{Entry, EntryKind, TarReader};

pub use error::{MergeError, NameError};

use paths::{Listing, PathId, Paths, ROOT, flag};
use record::{Meaning, Meta, Record, RecordKind};

/// Takes the content of regular files as the merge meets them.
pub trait FileSink {
    /// Stores `size_bytes` bytes of `content`. The `path` is the one by which they came; others may have the same content.
    fn add_file(&mut self, path: &[u8], size_bytes: u64, content: &mut dyn Read) -> std::io::Result<FileId>;
}

/// Bounds on what a hostile image may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most entries of all layers together.
    pub max_entries: u64,
    /// Most bytes of all files of all layers together, holes and hidden files counted: a few bytes of tar can be a file
    /// of petabytes.
    pub max_bytes: u64,
}

/// An entry whose link target and attributes are longer than this counts as several: memory is what is limited.
const BYTES_PER_ENTRY: usize = 256;
/// Above this, no number of an entry or path would fit; it would also be 300 GB of memory.
const MAX_ENTRIES: u64 = 1 << 30;
/// Directories that no layer lists are free up to this number, and up to as many as there may be entries.
const FREE_PATHS: u64 = 4096;

/// Whether [`Merger::add_layer_lean`] is done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum LayerRest {
    /// All content that is needed was stored.
    Nothing,
    /// A hard link needs content that was passed by: give the layer to [`Merger::add_layer_again`].
    ReadAgain,
}

/// The state between layers.
#[derive(Debug)]
pub struct Merger {
    limits: Limits,
    /// Entries so far, large ones counted several times.
    entries: u64,
    /// Bytes of all files so far.
    bytes: u64,
    paths: Paths,
    /// The entries of each layer, newest layer first.
    layers: Vec<Vec<Record>>,
    /// Content of the last layer that was passed by and is needed.
    wanted: Vec<Passed>,
}

/// A file whose content was passed by.
#[derive(Debug, Clone, Copy)]
struct Passed {
    /// Which entry of the tar it is.
    entry: u64,
    /// Which record of the layer it is.
    record: usize,
    size_bytes: u64,
}

/// The layer that is being read.
#[derive(Debug)]
struct OpenLayer {
    number: usize,
    may_pass_by: bool,
    records: Vec<Record>,
    passed: Vec<Passed>,
    /// Set once an entry may have put a symbolic link in the place of a listed directory: from then on no path of
    /// this layer is certain.
    is_uncertain: bool,
}

impl Merger {
    /// An empty tree.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { max_entries: limits.max_entries.min(MAX_ENTRIES), ..limits };
        Self { limits, entries: 0, bytes: 0, paths: Paths::new(), layers: Vec::new(), wanted: Vec::new() }
    }

    /// Merges the next older layer below what is known. The content of every file goes to `sink`.
    pub fn add_layer<R: Read>(
        &mut self,
        tar: &mut TarReader<R>,
        sink: &mut dyn FileSink,
    ) -> Result<(), MergeError> {
        self.read_layer(tar, sink, false)
    }

    /// As [`Self::add_layer`], but does not store what newer layers hide. If it says so, the same layer must be given
    /// to [`Self::add_layer_again`] before the next.
    pub fn add_layer_lean<R: Read>(
        &mut self,
        tar: &mut TarReader<R>,
        sink: &mut dyn FileSink,
    ) -> Result<LayerRest, MergeError> {
        self.read_layer(tar, sink, true)?;
        Ok(if self.wanted.is_empty() { LayerRest::Nothing } else { LayerRest::ReadAgain })
    }

    /// Reads the last layer once more for content that was passed by and is needed after all.
    pub fn add_layer_again<R: Read>(
        &mut self,
        tar: &mut TarReader<R>,
        sink: &mut dyn FileSink,
    ) -> Result<(), MergeError> {
        let Some(layer) = self.layers.len().checked_sub(1) else { return Ok(()) };
        let mut number = 0;
        for wanted in std::mem::take(&mut self.wanted) {
            let entry = loop {
                let entry = tar.next_entry().map_err(|source| MergeError::Tar { layer, source })?;
                number += 1;
                match entry {
                    None => return Err(MergeError::LayerChanged { layer }),
                    Some(entry) if number > wanted.entry => break entry,
                    Some(_) => {}
                }
            };
            if entry.kind != EntryKind::File || entry.size_bytes != wanted.size_bytes {
                return Err(MergeError::LayerChanged { layer });
            }
            let content = store(&entry, layer, tar, sink)?;
            if let Some(record) = self.layers[layer].get_mut(wanted.record) {
                record.kind = RecordKind::File(Some(content));
            }
        }
        Ok(())
    }

    /// The finished tree, with real owners and modes as the image has them.
    pub fn finish(self) -> Result<Tree, MergeError> {
        let Self { limits, mut paths, layers, .. } = self;
        paths.end_reading();
        replay::replay(paths, layers, limits.max_entries)
    }

    /// How many entries all layers together had so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.layers.iter().map(|records| records.len() as u64).sum()
    }

    fn read_layer<R: Read>(
        &mut self,
        tar: &mut TarReader<R>,
        sink: &mut dyn FileSink,
        may_pass_by: bool,
    ) -> Result<(), MergeError> {
        let number = self.layers.len();
        let mut layer =
            OpenLayer { number, may_pass_by, records: Vec::new(), passed: Vec::new(), is_uncertain: false };
        let mut entry_number = 0;
        while let Some(entry) =
            tar.next_entry().map_err(|source| MergeError::Tar { layer: number, source })?
        {
            self.add_entry(entry, entry_number, &mut layer, tar, sink)?;
            entry_number += 1;
        }
        self.close_layer(layer);
        Ok(())
    }

    fn add_entry<R: Read>(
        &mut self,
        mut entry: Entry,
        entry_number: u64,
        layer: &mut OpenLayer,
        tar: &mut TarReader<R>,
        sink: &mut dyn FileSink,
    ) -> Result<(), MergeError> {
        let number = layer.number;
        let shown = |entry: &Entry| String::from_utf8_lossy(&entry.path).into_owned();
        let meaning = record::meaning(&mut self.paths, &entry.path)
            .map_err(|source| MergeError::Name { layer: number, source })?;
        let meta = Meta::take(&mut entry).map_err(|name| MergeError::Attribute {
            name: String::from_utf8_lossy(&name).into_owned(),
            path: shown(&entry),
            layer: number,
        })?;
        if entry.kind == EntryKind::Symlink && !(1..=MAX_TARGET_BYTES).contains(&entry.link.len()) {
            return Err(MergeError::SymlinkTarget { path: shown(&entry), layer: number });
        }
        self.count_entry(entry.link.len() + meta.xattr_bytes())?;
        self.bytes = self.bytes.saturating_add(entry.size_bytes);
        if self.bytes > self.limits.max_bytes {
            return Err(MergeError::TooManyBytes { limit_bytes: self.limits.max_bytes });
        }
        let (path, kind) = match meaning {
            Meaning::Nothing => return Ok(()),
            Meaning::Whiteout(path) => (path, RecordKind::Whiteout),
            Meaning::Opaque(path) => (path, RecordKind::Opaque),
            Meaning::Plain(ROOT) if entry.kind != EntryKind::Directory => {
                return Err(MergeError::RootNotDirectory { layer: number });
            }
            Meaning::Plain(path) | Meaning::AufsLink(path) => {
                let kind = match entry.kind {
                    EntryKind::File if meaning == Meaning::Plain(path) && self.is_hidden(path, layer) => {
                        layer.passed.push(Passed {
                            entry: entry_number,
                            record: layer.records.len(),
                            size_bytes: entry.size_bytes,
                        });
                        RecordKind::File(None)
                    }
                    EntryKind::File => RecordKind::File(Some(store(&entry, number, tar, sink)?)),
                    EntryKind::HardLink => {
                        let target = record::target(&mut self.paths, &entry.link).map_err(|source| {
                            MergeError::HardLinkPath { path: shown(&entry), layer: number, source }
                        })?;
                        self.claim(target, layer);
                        RecordKind::HardLink(target)
                    }
                    ref special => RecordKind::of_special(special, entry.link),
                };
                self.list(path, &kind, layer);
                (path, kind)
            }
        };
        layer.records.push(Record { path, kind, meta });
        Ok(())
    }

    fn count_entry(&mut self, bytes: usize) -> Result<(), MergeError> {
        let limit = self.limits.max_entries;
        self.entries += 1 + (bytes / BYTES_PER_ENTRY) as u64;
        if self.entries > limit || self.paths.len() as u64 > 2 * limit + FREE_PATHS {
            return Err(MergeError::TooManyEntries { limit });
        }
        Ok(())
    }

    /// Notes an entry, and whether it makes the paths of its layer uncertain.
    fn list(&mut self, path: PathId, kind: &RecordKind, layer: &mut OpenLayer) {
        // A hard link may be one to a symbolic link.
        if matches!(kind, RecordKind::Symlink(_) | RecordKind::HardLink(_)) {
            let was_directory = self.paths.listing(path, layer.number) == Some(Listing::Directory);
            layer.is_uncertain |= was_directory || !self.is_certain(path, layer);
        }
        let listing = if matches!(kind, RecordKind::Directory) { Listing::Directory } else { Listing::Other };
        self.paths.list(path, layer.number, listing, layer.records.len());
    }

    /// Whether the path means in its layer what it says: the layer lists every directory above it.
    fn is_certain(&self, path: PathId, layer: &OpenLayer) -> bool {
        !layer.is_uncertain
            && self
                .paths
                .upwards(path)
                .skip(1)
                .all(|above| self.paths.listing(above, layer.number) == Some(Listing::Directory))
    }

    /// Whether the file at a path of the open layer will certainly not be seen, as far as is known.
    fn is_hidden(&self, path: PathId, layer: &OpenLayer) -> bool {
        let is_removed = || {
            self.paths.has_flag(path, flag::REPLACED | flag::DIRECTORY)
                || self.paths.has_flag(ROOT, flag::EMPTIED)
                || self
                    .paths
                    .upwards(path)
                    .skip(1)
                    .any(|above| self.paths.has_flag(above, flag::REPLACED | flag::EMPTIED))
        };
        layer.may_pass_by && is_removed() && !self.paths.is_claimed(path) && self.is_certain(path, layer)
    }

    /// Notes the target of a hard link.
    fn claim(&mut self, target: PathId, layer: &OpenLayer) {
        if target == ROOT {
            return;
        }
        if self.is_certain(target, layer) {
            self.paths.set_flag(target, flag::CLAIMED);
        } else {
            self.paths.claim_name_of(target);
        }
    }

    /// Makes a layer's view count for the older ones.
    fn close_layer(&mut self, layer: OpenLayer) {
        let OpenLayer { number, records, passed, is_uncertain, .. } = layer;
        for (index, record) in records.iter().enumerate() {
            if let (RecordKind::HardLink(target), true) = (&record.kind, is_uncertain)
                && *target != ROOT
            {
                self.paths.claim_name_of(*target);
            }
            let flag = match record.kind {
                RecordKind::Whiteout => flag::REPLACED,
                RecordKind::Opaque => flag::EMPTIED,
                // Of several entries of one path, only the last is sure to be there in the end.
                _ if !self.paths.is_last(record.path, number, index) => continue,
                RecordKind::Directory => flag::DIRECTORY,
                _ => flag::REPLACED,
            };
            self.paths.set_flag(record.path, flag);
        }
        self.wanted = passed;
        self.wanted.retain(|passed| self.paths.is_claimed(records[passed.record].path));
        self.layers.push(records);
    }
}

fn store<R: Read>(
    entry: &Entry,
    layer: usize,
    tar: &mut TarReader<R>,
    sink: &mut dyn FileSink,
) -> Result<FileId, MergeError> {
    let mut data = tar.data();
    let stored = sink.add_file(&entry.path, entry.size_bytes, &mut data);
    if let Some(source) = data.into_error() {
        return Err(MergeError::Tar { layer, source });
    }
    stored.map_err(|source| MergeError::Sink {
        path: String::from_utf8_lossy(&entry.path).into_owned(),
        layer,
        source,
    })
}
