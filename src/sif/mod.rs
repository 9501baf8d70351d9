//! SIF, Singularity's image file, version `01`: reading and writing of the header and the descriptor table. Pure.
//!
//! ```text
//! 0        128 bytes   header: launch script, "SIF_MAGIC", version, architecture, UUID, times, table and data places
//! 4096     48 × 585    descriptor table: one slot an object, unused slots are zeros
//! 32176                data: the small objects one after the other, partitions on a multiple of 4096
//! ```
//!
//! All integers are little endian and nothing is padded. Older writers put the data at 32768 and every object on a
//! multiple of 4096; the places stand in the header and the descriptors, so both are read alike. Every number of a
//! file is checked before it is used, above all that each object lies inside the file: a download that was cut short
//! otherwise shows up as a broken file system much later.
//!
//! What we write ([`Draft`]) is reproducible: the UUID is zeros and the only time in it is given by the caller.
//! Format: <https://github.com/apptainer/sif> (`pkg/sif`).

mod arch;
mod draft;
mod record;
mod table;

#[cfg(test)]
mod tests;

pub use arch::{architecture_code, architecture_name};
pub use draft::{Draft, DraftError, DraftObject, ZERO_TIME};
pub use record::{FileSystem, Header, Object, ObjectKind, PartitionKind};
pub use table::{Sif, SifError, is_sif};

/// Name of the object that holds what `apptainer inspect` prints.
pub const INSPECT_METADATA: &str = "inspect-metadata.json";
/// Name of Apptainer's object with the `config` part of the OCI image config.
pub const OCI_CONFIG: &str = "oci-config.json";
/// Name of our object with the whole OCI image config, byte for byte as the registry sent it.
///
/// It is a generic JSON object (0x4006) in the partition's group: foreign readers look such objects up by name and pass
/// over ours, and a signature of the group covers it. Its sha256 is the image's id.
pub const IMAGE_CONFIG: &str = "slipway-image-config.json";
/// Name of our object with the sums of the squashfs ([`crate::squashfs::sums`]), behind the partition, in its group.
///
/// Generic raw data (0x4007), which others pass over. It carries a digest of the squashfs's tables: one that does not fit
/// is an error, not a second truth.
pub const SUMS: &str = "slipway-sums";
/// Name of our object with the loader's cache that the image should have, where its own is missing or stale. It is bound
/// to the squashfs ([`crate::squashfs::bound`]) and lies behind the partition, in its group.
pub const LOADER_CACHE: &str = "slipway-ld.so.cache";
/// What the bytes of [`LOADER_CACHE`] begin with.
pub const LOADER_CACHE_KIND: &[u8; 16] = b"slipway-ldso 1\0\0";

/// Where partitions begin and to what they are padded, in bytes.
pub const PARTITION_ALIGN_BYTES: u64 = 4096;
