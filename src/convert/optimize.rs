//! A SIF made of another image, with the blocks that a start reads first and side by side. Nothing is compressed again.

use std::io::{Seek as _, SeekFrom};

use crate::base::ReadAt as _;
use crate::image::Image;
use crate::oci::Platform;
use crate::sif::{self, Draft, ObjectKind, Sif, SifError, ZERO_TIME};
use crate::squashfs::format::Superblock;
use crate::squashfs::read::{BlockPlace, Reader};
use crate::squashfs::write::{self, Moved};
use crate::store::Target;

use super::output::Growing;
use super::{ConvertError, output_error, wrap};

/// Largest object that is copied, in bytes: they are documents.
const MAX_OBJECT_BYTES: u64 = 16 << 20;
/// Types of object that are copied: text, variables, labels. The others speak of the old file.
const COPIED_KINDS: [ObjectKind; 5] = [
    ObjectKind::Deffile,
    ObjectKind::Other(0x4002),
    ObjectKind::Other(0x4003),
    ObjectKind::GenericJson,
    ObjectKind::GenericRaw,
];

/// What an optimisation did.
#[derive(Debug)]
pub struct Optimized {
    /// Bytes of the SIF.
    pub sif_bytes: u64,
    /// Bytes of the stretch at the front that holds what a start reads.
    pub hot_bytes: u64,
    /// Superblock of the new squashfs, by which a hot list knows it.
    pub superblock: Superblock,
    /// Where the hot blocks are now.
    pub moved: Moved,
    /// Names of the objects that were left out, with what they are.
    pub left_out: Vec<String>,
}

/// Writes `image` to `target` with the blocks of `hot` in front, in that order.
pub fn optimize(image: &Image, hot: &[BlockPlace], target: &Target) -> Result<Optimized, ConvertError> {
    let source = |source| ConvertError::Relay { path: image.path.clone(), source };
    let reader = Reader::open(image.partition()).map_err(|error| source(error.into()))?;
    let sums = image.sums()?;
    let architecture = image.architecture.clone().unwrap_or(Platform::host().architecture);
    let (draft, left_out) = draft_of(image, &architecture)?;

    let path = target.path();
    let (fresh, file) =
        target.create().map_err(|source| ConvertError::Create { path: path.into(), source })?;
    let mut file = Growing::new(file);
    file.seek(SeekFrom::Start(draft.partition_offset_bytes())).map_err(output_error(path))?;
    let relaid = write::relay(&reader, sums.as_ref(), hot, file).map_err(source)?;
    let sif_bytes = wrap(relaid.finished, &draft, &architecture, fresh, path)?;
    let (hot_bytes, superblock, moved) = (relaid.hot_bytes, relaid.superblock, relaid.moved);
    Ok(Optimized { sif_bytes, hot_bytes, superblock, moved, left_out })
}

/// The documents of the image's SIF; those of a bare squashfs are none.
fn draft_of(image: &Image, architecture: &str) -> Result<(Draft, Vec<String>), ConvertError> {
    let unusable = |source| ConvertError::Source { path: image.path.clone(), source };
    if image.is_bare() {
        return Ok((Draft::new(Vec::new(), architecture, ZERO_TIME)?, Vec::new()));
    }
    let old = Sif::read(&*image.file).map_err(unusable)?;
    let mut draft = Draft::new(Vec::new(), architecture, old.header.created)?;
    let mut left_out = Vec::new();
    for object in &old.objects {
        let name = String::from_utf8_lossy(&object.name).into_owned();
        let is_primary = object.offset_bytes == image.offset_bytes;
        let is_remade = [sif::SUMS, sif::LOADER_CACHE].iter().any(|own| object.name == own.as_bytes());
        if is_remade || (is_primary && matches!(object.kind, ObjectKind::Partition { .. })) {
            continue;
        }
        if let ObjectKind::Partition { .. } = object.kind {
            return Err(ConvertError::SecondPartition { path: image.path.clone() });
        }
        if !COPIED_KINDS.contains(&object.kind) || object.size_bytes > MAX_OBJECT_BYTES {
            left_out.push(match object.kind {
                ObjectKind::Other(0x4005) => "a signature, which is of the old file".into(),
                ObjectKind::Other(number) => format!("`{name}` of type {number:#x}"),
                _ => format!("`{name}`, which is too large"),
            });
            continue;
        }
        let mut data = vec![0; usize::try_from(object.size_bytes).unwrap_or(0)];
        let offset_bytes = object.offset_bytes;
        image
            .file
            .read_exact_at(&mut data, offset_bytes)
            .map_err(|source| unusable(SifError::Read { offset_bytes, size_bytes: data.len(), source }))?;
        draft.add(object.kind, &name, &data)?;
    }
    Ok((draft, left_out))
}
