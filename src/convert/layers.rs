//! All layers through their streams into the merge and the squashfs, and what to say when one is wrong.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::base::tree::{FileId, Tree};
use crate::squashfs::write::{WriteError, Writer};
use crate::store::LayerSet;
use crate::tarlayer::{FileSink, LayerRest, Limits, MergeError, Merger, TarReader};

use super::stream;
use super::{ConvertError, Encoding, Event, LayerName, error};

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
    set: &LayerSet,
    limits: Limits,
    sink: &mut Sink,
    target: &Path,
    on_event: &mut dyn FnMut(Event),
) -> Result<Merged, ConvertError> {
    let mut merger = Merger::new(limits);
    let count = set.layers.len();
    let mut tar_bytes: u64 = 0;
    for (index, layer) in set.layers.iter().enumerate().rev() {
        on_event(Event::LayerStarted { index, count, size_bytes: layer.size_bytes });
        let mut read = |merge: Merge| {
            let name = LayerName::of(set, index);
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
            verdict(set, index, merged, fate, target)
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
    let tree = merger.finish().map_err(|source| merge_error(set, source))?;
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
    set: &LayerSet,
    index: usize,
    merged: Result<bool, Failed>,
    fate: stream::Fate,
    target: &Path,
) -> Result<(bool, u64), ConvertError> {
    let (layer, name) = (&set.layers[index], LayerName::of(set, index));
    let is_final = merged.as_ref().is_err_and(Failed::is_final);
    let merged = merged.map_err(|failed| match failed {
        Failed::Write(source) => ConvertError::Write { path: target.into(), source },
        Failed::Merge(source) => merge_error(set, source),
    });
    if is_final {
        return merged.map(|is_incomplete| (is_incomplete, 0));
    }
    let found = fate.stored.map_err(|source| ConvertError::ReadLayer { layer: name, source })?;
    if let Some(found) = found.filter(|found| Some(*found) != layer.digest) {
        return Err(ConvertError::Digest { layer: name, found });
    }
    let encoding = fate.encoding;
    let tar_bytes = fate.inflated.map_err(|source| match encoding {
        Encoding::Foreign(_) => ConvertError::Compression { layer: name, encoding },
        _ => ConvertError::Inflate { layer: name, encoding, source },
    })?;
    if fate.diff_id != layer.diff_id {
        return Err(ConvertError::DiffId { layer: name, expected: layer.diff_id, found: fate.diff_id });
    }
    merged.map(|is_incomplete| (is_incomplete, tar_bytes))
}

/// Names the layer that the merge complains about; it counts them from the top.
fn merge_error(set: &LayerSet, source: MergeError) -> ConvertError {
    let from_top = error::layer_from_top(&source);
    let index = from_top.and_then(|number| set.layers.len().checked_sub(number + 1));
    match (index.map(|index| LayerName::of(set, index)), source) {
        (Some(layer), MergeError::Tar { source, .. }) => ConvertError::Tar { layer, source },
        (Some(layer), source) => ConvertError::Merge { layer, source },
        (None, source) => ConvertError::Tree { source },
    }
}

/// The squashfs as the merge sees it. It keeps the writer's own error, which the merge can only pass on as text.
#[derive(Debug)]
pub(super) struct Sink {
    writer: Writer<File>,
    failed: Option<WriteError>,
}

impl Sink {
    pub(super) fn new(writer: Writer<File>) -> Self {
        Self { writer, failed: None }
    }

    pub(super) fn into_writer(self) -> Writer<File> {
        self.writer
    }
}

impl FileSink for Sink {
    fn add_file(&mut self, size_bytes: u64, content: &mut dyn Read) -> io::Result<FileId> {
        self.writer.add_file(size_bytes, content).map_err(|error| match error {
            WriteError::Content { source } => source,
            error => {
                let text = error.to_string();
                self.failed = Some(error);
                io::Error::other(text)
            }
        })
    }
}
