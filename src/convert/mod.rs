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

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use crate::base::Digest;
use crate::base::read_at::Window;
use crate::base::tree::Tree;
use crate::oci::ImageConfig;
use crate::sif::{self, Draft, DraftObject, ObjectKind, PARTITION_ALIGN_BYTES, ZERO_TIME};
use crate::squashfs::bound::Bound;
use crate::squashfs::read::Reader;
use crate::squashfs::sums::Sums;
use crate::squashfs::write::{self, Finished, WriteError, Writer};
use crate::store::{Fresh, Layer, LayerSet, Target};
use crate::sys::file::ReadFile;
use crate::tarlayer::Limits;

mod apptainer;
mod created;
mod error;
mod graft;
mod layers;
mod loader_cache;
mod optimize;
mod output;
mod stream;
mod warning;

pub use crate::tarlayer::Encoding;
pub use error::{ConvertError, LayerName};
pub use optimize::{Optimized, optimize};
pub use warning::{Warning, WarningKind};

/// Counts up whenever the same image would give other bytes than before; part of the key of a stored run file.
pub const WRITER_VERSION: u32 = 3;

/// How to convert.
#[derive(Debug, Clone)]
pub struct Options {
    /// Compressor of the squashfs.
    pub compressor: crate::squashfs::compress::Compressor,
    /// Compressing threads, at least 1.
    pub threads: usize,
    /// Most entries of all layers together.
    pub max_entries: u64,
    /// Most bytes of all their files together, holes counted.
    pub max_bytes: u64,
}

/// What a conversion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the SIF.
    pub sif_bytes: u64,
    /// Bytes of all uncompressed layer tars.
    pub tar_bytes: u64,
    /// Entries of all layers.
    pub entries: u64,
    /// What the user should know about the image.
    pub warnings: Vec<Warning>,
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
        /// Digest of its stored bytes; where none was promised, of its tar.
        digest: Digest,
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

/// An image to convert, whose layers may still be on their way.
pub struct Source<'a> {
    /// Digest of its manifest.
    pub manifest_digest: Digest,
    /// The raw image config.
    pub config: &'a [u8],
    /// How many layers it has.
    pub layer_count: usize,
    /// Gives the layer of an index, base first, and may wait for it; `None` if it will not come. The last is asked for first.
    pub layer: &'a mut dyn FnMut(usize) -> Option<Layer>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({}, {} layers)", self.manifest_digest, self.layer_count)
    }
}

/// Converts into the new file `target`, which appears only when it is whole.
pub fn convert(set: &LayerSet, target: &Path, options: &Options) -> Result<Report, ConvertError> {
    convert_with(set, target, options, &mut |_| {})
}

/// As [`convert`], and tells what it is doing.
pub fn convert_with(
    set: &LayerSet,
    target: &Path,
    options: &Options,
    on_event: &mut dyn FnMut(Event),
) -> Result<Report, ConvertError> {
    let source = Source {
        manifest_digest: set.manifest_digest,
        config: &set.config,
        layer_count: set.layers.len(),
        layer: &mut |index| set.layers.get(index).cloned(),
    };
    convert_arriving(source, &Target::replacing(target), options, on_event)
}

/// As [`convert_with`], with layers that may still be on their way.
pub fn convert_arriving(
    mut source: Source<'_>,
    target: &Target,
    options: &Options,
    on_event: &mut dyn FnMut(Event),
) -> Result<Report, ConvertError> {
    let config = ImageConfig::parse(source.config).map_err(|source| ConvertError::Config { source })?;
    let (config_count, layer_count) = (config.rootfs.diff_ids.len(), source.layer_count);
    if config_count != layer_count {
        return Err(ConvertError::LayerCount { config_count, layer_count });
    }
    let facts = apptainer::Facts { config: &config, from: source.manifest_digest };
    let created = config.created.as_deref().and_then(created::parse_created).unwrap_or(ZERO_TIME);
    let draft = Draft::new(small_objects(&facts, source.config)?, &config.architecture, created)?;

    let path = target.path();
    let write_error = |source| ConvertError::Write { path: path.into(), source };
    let (fresh, file) =
        target.create().map_err(|source| ConvertError::Create { path: path.into(), source })?;
    let mut file = output::Growing::new(file);
    let start_bytes = draft.partition_offset_bytes();
    file.seek(SeekFrom::Start(start_bytes)).map_err(output_error(path))?;
    let mtime = created::to_u32(created);
    let writer_options = write::Options { compressor: options.compressor, threads: options.threads, mtime };
    let writer = Writer::new(file, writer_options).map_err(write_error)?;
    let mut sink = layers::Sink::new(writer, warning::Seen::new(&config.architecture));

    let limits = Limits { max_entries: options.max_entries, max_bytes: options.max_bytes };
    let merged = layers::merge(&mut source, limits, &mut sink, path, on_event)?;
    let (mut tree, (mut writer, seen)) = (merged.tree, sink.into_parts());
    let warnings = seen.warnings(&tree);
    graft::give_to_root(&mut tree);
    add_apptainer_files(&mut tree, &mut writer, &facts, mtime).map_err(write_error)?;
    let finished = writer.finish_with_sums(&tree).map_err(write_error)?;
    let sif_bytes = wrap(finished, &draft, &config.architecture, fresh, path)?;
    on_event(Event::Finished);
    Ok(Report { sif_bytes, tar_bytes: merged.tar_bytes, entries: merged.entries, warnings })
}

fn output_error(path: &Path) -> impl Fn(std::io::Error) -> ConvertError {
    move |source| ConvertError::Output { path: path.into(), source }
}

/// Makes a SIF of a squashfs that stands where the draft has its partition, and publishes it. Returns its length.
fn wrap(
    finished: Finished<output::Growing>,
    draft: &Draft,
    architecture: &str,
    fresh: Fresh,
    path: &Path,
) -> Result<u64, ConvertError> {
    let Finished { mut out, size_bytes, sums } = finished;
    let padded_bytes = size_bytes.next_multiple_of(PARTITION_ALIGN_BYTES);
    let inside = ReadFile::new(out.try_clone().map_err(output_error(path))?).map_err(output_error(path))?;
    let inside = Window::new(inside, draft.partition_offset_bytes(), size_bytes);
    let behind = objects_behind(&sums, inside, architecture);
    let head = draft.head_with(padded_bytes, &behind)?;
    let padding_bytes = padded_bytes - size_bytes;
    let mut write = || {
        std::io::copy(&mut std::io::repeat(0).take(padding_bytes), &mut out)?;
        for object in &behind {
            out.write_all(&object.data)?;
        }
        let sif_bytes = out.stream_position()?;
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&head)?;
        out.flush()?;
        Ok(sif_bytes)
    };
    let sif_bytes = write().map_err(output_error(path))?;
    fresh.publish(out.into_file()).map_err(output_error(path))?;
    Ok(sif_bytes)
}

/// Our objects that depend on the squashfs.
fn objects_behind(sums: &Sums, squashfs: Window<ReadFile>, architecture: &str) -> Vec<DraftObject> {
    let raw = |name, data| DraftObject { kind: ObjectKind::GenericRaw, name, data };
    let mut objects = vec![raw(sif::SUMS, sums.to_bytes())];
    let reader = Reader::open(Arc::new(squashfs)).ok();
    if let Some(data) = reader.and_then(|reader| loader_cache::prepare(&reader, architecture)) {
        let bound = Bound { tables: sums.tables, first_block: sums.first_block, data: &data };
        objects.push(raw(sif::LOADER_CACHE, bound.to_bytes(sif::LOADER_CACHE_KIND)));
    }
    objects
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

fn add_apptainer_files(
    tree: &mut Tree,
    writer: &mut Writer<output::Growing>,
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
