//! Layers → squashfs → SIF in one pass: nothing is unpacked, nothing is published before all digests match.
//!
//! ```text
//! for each layer, newest first:  stream (read, inflate, hash) ─▶ TarReader ─▶ Merger ─▶ squashfs Writer ─▶ file
//! then:                          graft /.singularity.d ─▶ tables ─▶ SIF header ─▶ fsync ─▶ rename
//! ```
//!
//! - Reproducible: the bytes depend on the layers, the image config, the manifest's digest and the compressor, and on
//!   nothing else: not on the image's name, the clock, the threads or the node.
//! - Everything in the squashfs belongs to root (uid and gid 0), as in Apptainer's unprivileged builds: the mount shows
//!   the caller as owner anyway. Owners for a re-push stand in the layers, which the store keeps.
//! - Memory is bounded by buffers and by the number of entries, not by sizes.

#![expect(clippy::disallowed_methods, reason = "writes the converted file")]

use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::base::ReadAt as _;
use crate::base::tree::{FileId, Tree};
use crate::oci::ImageConfig;
use crate::sif::{self, Draft, DraftObject, ObjectKind, PARTITION_ALIGN_BYTES, ZERO_TIME};
use crate::squashfs::write::{self, WriteError, Writer};
use crate::store::{Layer, LayerSet};
use crate::tarlayer::{FileSink, Limits, MergeError, Merger, TarReader};

mod apptainer;
mod created;
mod error;
mod graft;
mod inflate;
mod output;
mod stream;

pub use error::{ConvertError, LayerName};
pub use inflate::Encoding;

/// Counts up whenever the same image would give other bytes than before; part of the key of a stored run file.
pub const WRITER_VERSION: u32 = 1;

/// How to convert.
#[derive(Debug, Clone)]
pub struct Options {
    /// Compressor of the squashfs.
    pub compressor: crate::squashfs::compress::Compressor,
    /// Compressing threads, at least 1.
    pub threads: usize,
    /// Most entries of all layers together.
    pub max_entries: u64,
}

/// What a conversion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the SIF.
    pub sif_bytes: u64,
    /// Bytes of all uncompressed layer tars.
    pub tar_bytes: u64,
    /// Entries of all layers.
    pub entries: u64,
}

/// What a conversion is doing. Layers have indices from 0, base first, and are converted from the last to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A layer is begun.
    LayerStarted {
        /// Which one.
        index: usize,
        /// How many there are.
        count: usize,
        /// Its stored bytes.
        size_bytes: u64,
    },
    /// So much of a layer has been read.
    LayerProgress {
        /// Which one.
        index: usize,
        /// Stored bytes that are done.
        done_bytes: u64,
    },
    /// A layer is verified and merged.
    LayerDone {
        /// Which one.
        index: usize,
    },
    /// The file has its name.
    Finished,
}

/// Converts into the new file `target`, which appears only when it is whole.
pub fn convert(layers: &LayerSet, target: &Path, options: &Options) -> Result<Report, ConvertError> {
    convert_with(layers, target, options, &mut |_| {})
}

/// As [`convert`], and tells what it is doing.
pub fn convert_with(
    layers: &LayerSet,
    target: &Path,
    options: &Options,
    on_event: &mut dyn FnMut(Event),
) -> Result<Report, ConvertError> {
    let config = ImageConfig::parse(&layers.config).map_err(|source| ConvertError::Config { source })?;
    check_layers(layers, &config)?;
    let facts = apptainer::Facts { config: &config, from: layers.manifest_digest };
    let created = config.created.as_deref().and_then(created::parse_created).unwrap_or(ZERO_TIME);
    let draft = Draft::new(small_objects(&facts, &layers.config)?, &config.architecture, created)?;

    let write_error = |source| ConvertError::Write { path: target.into(), source };
    let output_error = |source| ConvertError::Output { path: target.into(), source };
    let (output, mut file) = output::Output::create(target)?;
    let start_bytes = draft.partition_offset_bytes();
    file.seek(SeekFrom::Start(start_bytes)).map_err(output_error)?;
    let mtime = created::to_u32(created);
    let writer_options = write::Options { compressor: options.compressor, threads: options.threads, mtime };
    let writer = Writer::new(file, writer_options).map_err(write_error)?;
    let mut sink = Sink { writer, failed: None };

    let merger = Merger::new(Limits { max_entries: options.max_entries });
    let (mut tree, tar_bytes, entries) = merge_layers(layers, merger, &mut sink, target, on_event)?;
    graft::give_to_root(&mut tree);
    add_apptainer_files(&mut tree, &mut sink.writer, &facts, mtime).map_err(write_error)?;
    let (mut file, size_bytes) = sink.writer.finish(&tree).map_err(write_error)?;

    let padded_bytes = size_bytes.next_multiple_of(PARTITION_ALIGN_BYTES);
    let sif_bytes = start_bytes + padded_bytes;
    file.seek(SeekFrom::Start(start_bytes + size_bytes)).map_err(output_error)?;
    std::io::copy(&mut std::io::repeat(0).take(padded_bytes - size_bytes), &mut file)
        .map_err(output_error)?;
    file.flush().map_err(output_error)?;
    output.publish(file, &draft.head(padded_bytes)?)?;
    on_event(Event::Finished);
    Ok(Report { sif_bytes, tar_bytes, entries })
}

fn check_layers(layers: &LayerSet, config: &ImageConfig) -> Result<(), ConvertError> {
    let (config_count, layer_count) = (config.rootfs.diff_ids.len(), layers.layers.len());
    if config_count != layer_count {
        return Err(ConvertError::LayerCount { config_count, layer_count });
    }
    for (index, layer) in layers.layers.iter().enumerate() {
        let have_bytes = layer.file.size_bytes();
        let need_bytes = layer.offset_bytes.saturating_add(layer.size_bytes);
        if have_bytes < need_bytes {
            return Err(ConvertError::CutShort { layer: name_layer(layers, index), have_bytes, need_bytes });
        }
    }
    Ok(())
}

fn name_layer(layers: &LayerSet, index: usize) -> LayerName {
    let layer = &layers.layers[index];
    LayerName { number: index + 1, count: layers.layers.len(), digest: layer.digest.unwrap_or(layer.diff_id) }
}

/// The recipe and the documents, sorted by name as Apptainer writes them.
fn small_objects(facts: &apptainer::Facts<'_>, raw_config: &[u8]) -> Result<Vec<DraftObject>, ConvertError> {
    let json = |name, data| DraftObject { kind: ObjectKind::GenericJson, name, data };
    let oci_config = apptainer::oci_config(raw_config).map_err(|source| ConvertError::Config { source })?;
    Ok(vec![
        DraftObject { kind: ObjectKind::Deffile, name: "", data: facts.deffile().into_bytes() },
        json(sif::INSPECT_METADATA, facts.inspect_metadata().into_bytes()),
        json(sif::OCI_CONFIG, oci_config.into_bytes()),
        json(sif::IMAGE_CONFIG, raw_config.to_vec()),
    ])
}

/// Merges all layers, newest first. Returns the tree, the bytes of all tars and their entries.
fn merge_layers(
    layers: &LayerSet,
    mut merger: Merger,
    sink: &mut Sink,
    target: &Path,
    on_event: &mut dyn FnMut(Event),
) -> Result<(Tree, u64, u64), ConvertError> {
    let count = layers.layers.len();
    let mut tar_bytes: u64 = 0;
    for (index, layer) in layers.layers.iter().enumerate().rev() {
        on_event(Event::LayerStarted { index, count, size_bytes: layer.size_bytes });
        let name = name_layer(layers, index);
        let mut on_progress = |done_bytes| on_event(Event::LayerProgress { index, done_bytes });
        let (merged, fate) = stream::read_layer(
            layer,
            &mut on_progress,
            |tar| {
                let merged = merger.add_layer(&mut TarReader::new(tar), sink);
                merged.map_err(|error| sink.failed.take().map_or(Failed::Merge(error), Failed::Write))
            },
            |error| matches!(error, Failed::Write(_)),
        )
        .map_err(|source| ConvertError::Thread { layer: name, source })?;
        tar_bytes += verdict(name, layer, merged, fate, target)?;
        on_event(Event::LayerDone { index });
    }
    let tree = merger.finish().map_err(|source| ConvertError::Tree { source })?;
    let entries = tree.nodes.len() as u64;
    Ok((tree, tar_bytes, entries))
}

/// Why a layer was not merged.
enum Failed {
    /// The layer's tar is at fault.
    Merge(MergeError),
    /// The output is.
    Write(WriteError),
}

/// The first cause of whatever went wrong with a layer; else the length of its tar. A wrong digest explains broken
/// compression, which explains a strange tar.
fn verdict(
    name: LayerName,
    layer: &Layer,
    merged: Result<(), Failed>,
    fate: stream::Fate,
    target: &Path,
) -> Result<u64, ConvertError> {
    let merged = match merged {
        Err(Failed::Write(source)) => return Err(ConvertError::Write { path: target.into(), source }),
        Err(Failed::Merge(source)) => Err(ConvertError::Merge { layer: name, source }),
        Ok(()) => Ok(()),
    };
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
    merged.map(|()| tar_bytes)
}

fn add_apptainer_files(
    tree: &mut Tree,
    writer: &mut Writer<std::fs::File>,
    facts: &apptainer::Facts<'_>,
    mtime: u32,
) -> Result<(), WriteError> {
    let mut add = |text: &str| writer.add_file(text.len() as u64, &mut text.as_bytes());
    let mut graft = graft::Graft { tree, mtime };
    for (path, mode) in apptainer::DIRECTORIES {
        graft.make_directory(path, mode);
    }
    for path in apptainer::EMPTY_FILES {
        if graft.is_free(path) {
            graft.put_file(path, 0o644, add("")?);
        }
    }
    for (name, target) in apptainer::LINKS {
        graft.put_link(name, target);
    }
    for script in facts.scripts() {
        graft.put_file(script.path, script.mode, add(&script.text)?);
    }
    Ok(())
}

/// The squashfs as the merge sees it. It keeps the writer's own error, which the merge can only pass on as text.
#[derive(Debug)]
struct Sink {
    writer: Writer<std::fs::File>,
    failed: Option<WriteError>,
}

impl FileSink for Sink {
    fn add_file(&mut self, size_bytes: u64, content: &mut dyn Read) -> std::io::Result<FileId> {
        self.writer.add_file(size_bytes, content).map_err(|error| match error {
            WriteError::Content { source } => source,
            error => {
                let text = error.to_string();
                self.failed = Some(error);
                std::io::Error::other(text)
            }
        })
    }
}
