//! All layers through their streams into the merge and the squashfs, and what to say when one is wrong.

use std::io::{self, Read};
use std::path::Path;

use crate::base::ReadAt as _;
use crate::base::tree::{FileId, Tree};
use crate::squashfs::write::{Storing, WriteError, Writer};
use crate::store::Layer;
use crate::tarlayer::{FileSink, LayerRest, Limits, MergeError, Merger, TarReader};

use super::output::Growing;
use super::stream;
use super::warning::{self, Seen};
use super::{ConvertError, Encoding, Event, LayerName, Source, error};

/// What the layers are together.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) tree: Tree,
    /// Bytes of all tars.
    pub(super) tar_bytes: u64,
    /// Their entries.
    pub(super) entries: u64,
}

/// Merges all layers, newest first.
pub(super) fn merge(
    source: &mut Source<'_>,
    limits: Limits,
    sink: &mut Sink,
    target: &Path,
    on_event: &mut dyn FnMut(Event),
) -> Result<Merged, ConvertError> {
    let mut merger = Merger::new(limits);
    let count = source.layer_count;
    let mut tar_bytes: u64 = 0;
    // Newest first, as the merge counts them.
    let mut names = Vec::with_capacity(count);
    for index in (0..count).rev() {
        let Some(layer) = (source.layer)(index) else {
            return Err(ConvertError::NotThere { number: index + 1, count });
        };
        let layer = &layer;
        let name = LayerName::of(layer, index, count);
        names.push(name);
        let have_bytes = layer.file.size_bytes();
        let need_bytes = layer.offset_bytes.saturating_add(layer.size_bytes);
        if have_bytes < need_bytes {
            return Err(ConvertError::CutShort { layer: name, have_bytes, need_bytes });
        }
        on_event(Event::LayerStarted { index, count, size_bytes: layer.size_bytes, digest: name.digest });
        let mut read = |merge: Merge| {
            let mut on_progress = |done_bytes| on_event(Event::LayerProgress { index, done_bytes });
            let (merged, fate) = stream::read_layer(
                layer,
                &mut on_progress,
                |tar| {
                    let merged = merge(&mut merger, &mut TarReader::new(tar), sink);
                    merged.map_err(|error| sink.failed.take().map_or(Failed::Merge(error), Failed::Write))
                },
                Failed::is_final,
            )
            .map_err(|source| ConvertError::Thread { layer: name, source })?;
            verdict(layer, &names, merged, fate, target)
        };
        let (is_incomplete, layer_bytes) =
            read(|merger, tar, sink| Ok(merger.add_layer_lean(tar, sink)? == LayerRest::ReadAgain))?;
        // Rare: content was passed by that a hard link further down in the same tar asked for.
        if is_incomplete {
            read(|merger, tar, sink| merger.add_layer_again(tar, sink).map(|()| false))?;
        }
        tar_bytes += layer_bytes;
        on_event(Event::LayerDone { index });
    }
    let entries = merger.entries();
    let tree = merger.finish().map_err(|source| merge_error(&names, source))?;
    Ok(Merged { tree, tar_bytes, entries })
}

/// How a layer is given to the merge; true if it has to be given once more.
type Merge = fn(
    &mut Merger,
    &mut TarReader<&mut stream::TarStream<'_>>,
    &mut dyn FileSink,
) -> Result<bool, MergeError>;

/// Why a layer was not merged.
enum Failed {
    /// The layer's tar is at fault.
    Merge(MergeError),
    /// The output is.
    Write(WriteError),
}

impl Failed {
    /// Whether the rest of the layer cannot explain it.
    fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Write(_) | Self::Merge(MergeError::TooManyEntries { .. } | MergeError::TooManyBytes { .. })
        )
    }
}

/// The first cause of whatever went wrong with a layer; else what the merge said and the length of the tar. A wrong
/// digest explains broken compression, which explains a strange tar.
fn verdict(
    layer: &Layer,
    names: &[LayerName],
    merged: Result<bool, Failed>,
    fate: stream::Fate,
    target: &Path,
) -> Result<(bool, u64), ConvertError> {
    let name = *names.last().expect("a layer is named before it is read");
    let is_final = merged.as_ref().is_err_and(Failed::is_final);
    let merged = merged.map_err(|failed| match failed {
        Failed::Write(source) => ConvertError::Write { path: target.into(), source },
        Failed::Merge(source) => merge_error(names, source),
    });
    if is_final {
        return merged.map(|is_incomplete| (is_incomplete, 0));
    }
    let found = fate.stored.map_err(|source| ConvertError::ReadLayer { layer: name, source })?;
    if let Some(found) = found.filter(|found| Some(*found) != layer.digest) {
        return Err(ConvertError::Digest { layer: name, found });
    }
    if fate.is_cut {
        return merged.and(Err(ConvertError::LongRest { layer: name, limit_bytes: stream::MAX_REST_BYTES }));
    }
    let encoding = fate.encoding;
    let tar_bytes = fate.inflated.map_err(|source| match encoding {
        Encoding::Foreign(_) => ConvertError::Compression { layer: name, encoding },
        _ => ConvertError::Inflate { layer: name, encoding, source },
    })?;
    if let Some(found) = fate.diff_id.filter(|found| *found != layer.diff_id) {
        return Err(ConvertError::DiffId { layer: name, expected: layer.diff_id, found });
    }
    merged.map(|is_incomplete| (is_incomplete, tar_bytes))
}

/// Names the layer that the merge complains about; it counts them from the top, as `names` has them.
fn merge_error(names: &[LayerName], source: MergeError) -> ConvertError {
    let name = error::layer_from_top(&source).and_then(|number| names.get(number)).copied();
    match (name, source) {
        (Some(layer), MergeError::Tar { source, .. }) => ConvertError::Tar { layer, source },
        (Some(layer), source) => ConvertError::Merge { layer, source },
        (None, source) => ConvertError::Tree { source },
    }
}

/// The squashfs as the merge sees it. It keeps the writer's own error, which the merge can only pass on as text.
#[derive(Debug)]
pub(super) struct Sink {
    writer: Writer<Growing>,
    failed: Option<WriteError>,
    seen: Seen,
}

impl Sink {
    pub(super) fn new(writer: Writer<Growing>, seen: Seen) -> Self {
        Self { writer, failed: None, seen }
    }

    pub(super) fn into_parts(self) -> (Writer<Growing>, Seen) {
        (self.writer, self.seen)
    }
}

impl FileSink for Sink {
    fn add_file(&mut self, path: &[u8], size_bytes: u64, content: &mut dyn Read) -> io::Result<FileId> {
        let mut head = [0; warning::HEAD_BYTES];
        let length = head.len().min(usize::try_from(size_bytes).unwrap_or(usize::MAX));
        let head = &mut head[..length];
        content.read_exact(head)?;
        let added = self.writer.add_file_as(Storing::of(path), size_bytes, &mut (&*head).chain(content));
        let id = added.map_err(|error| match error {
            WriteError::Content { source } => source,
            error => {
                let text = error.to_string();
                self.failed = Some(error);
                io::Error::other(text)
            }
        })?;
        self.seen.note(id, head);
        Ok(id)
    }
}
