//! Writing: a SIF whose small objects are known and whose one partition is written as a stream; what is known only then
//! comes behind it.

use super::PARTITION_ALIGN_BYTES;
use super::record::{
    DESCRIPTOR_BYTES, FileSystem, HEADER_BYTES, Header, Object, ObjectKind, PartitionKind, VERSION,
};

/// The time of a file without one: the first second of the year 1, which Go's zero time is. Zero itself would be read
/// as 1970.
pub const ZERO_TIME: i64 = -62_135_596_800;

/// First line of the file. It lets `./image.sif` run where Apptainer's `run-singularity` is on the PATH.
const LAUNCH_SCRIPT: &[u8] = b"#!/usr/bin/env run-singularity\n";
/// Where the table begins, in bytes.
const TABLE_OFFSET_BYTES: u64 = 4096;
/// Slots of the table, as every writer makes them.
const SLOTS: usize = 48;
/// Everything lies in one group, so that one signature covers the image.
const GROUP: u32 = 1;

/// A small object: known before the partition is written.
#[derive(Debug, Clone)]
pub struct DraftObject {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name, at most 128 bytes; may be empty.
    pub name: &'static str,
    /// Its data.
    pub data: Vec<u8>,
}

/// A SIF about to be written: small objects first, then one primary squashfs partition.
///
/// ```
/// use slipway::sif::{Draft, PARTITION_ALIGN_BYTES, ZERO_TIME};
/// let draft = Draft::new(Vec::new(), "amd64", ZERO_TIME).unwrap();
/// let start = draft.partition_offset_bytes();
/// assert_eq!(start % PARTITION_ALIGN_BYTES, 0);
/// // … write the squashfs at `start`, pad it to a multiple of 4096, then put this at byte 0:
/// let head = draft.head(8192).unwrap();
/// assert_eq!(head.len() as u64, start);
/// ```
#[derive(Debug, Clone)]
pub struct Draft {
    objects: Vec<Object>,
    data: Vec<u8>,
    architecture: [u8; 3],
    time: i64,
}

/// Why a SIF cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// More objects than the table has slots.
    #[error("{count} objects do not fit into a SIF of {SLOTS} descriptors")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A name or a number does not fit into a descriptor.
    #[error("object `{name}` does not fit into a SIF descriptor")]
    TooLarge {
        /// Its name.
        name: String,
    },
}

impl Draft {
    /// Places the small objects one after the other. `architecture` is a GOARCH word, `time` Unix seconds.
    pub fn new(small: Vec<DraftObject>, architecture: &str, time: i64) -> Result<Self, DraftError> {
        let count = small.len() + 1;
        if count > SLOTS {
            return Err(DraftError::TooMany { count });
        }
        let mut draft = Self {
            objects: Vec::with_capacity(count),
            data: Vec::new(),
            architecture: super::architecture_code(architecture),
            time,
        };
        for object in small {
            draft.add(object.kind, object.name, &object.data)?;
        }
        Ok(draft)
    }

    /// Places one more small object behind the others.
    pub fn add(&mut self, kind: ObjectKind, name: &str, data: &[u8]) -> Result<(), DraftError> {
        let count = self.objects.len() + 2;
        if count > SLOTS {
            return Err(DraftError::TooMany { count });
        }
        self.push(kind, name, data.len() as u64, 0);
        self.data.extend_from_slice(data);
        Ok(())
    }

    /// Where the partition begins, in bytes.
    #[must_use]
    pub fn partition_offset_bytes(&self) -> u64 {
        self.data_end_bytes().next_multiple_of(PARTITION_ALIGN_BYTES)
    }

    /// Everything before the partition, which is `size_bytes` long with its padding.
    pub fn head(&self, size_bytes: u64) -> Result<Vec<u8>, DraftError> {
        self.head_with(size_bytes, &[])
    }

    /// The same for a file with further objects behind the partition: their data follows it, one after the other.
    pub fn head_with(&self, size_bytes: u64, behind: &[DraftObject]) -> Result<Vec<u8>, DraftError> {
        let count = self.objects.len() + 1 + behind.len();
        if count > SLOTS {
            return Err(DraftError::TooMany { count });
        }
        let mut whole = self.clone();
        let kind = ObjectKind::Partition {
            file_system: FileSystem::Squashfs,
            kind: PartitionKind::Primary,
            architecture: self.architecture,
        };
        let padding_bytes = self.partition_offset_bytes() - self.data_end_bytes();
        whole.push(kind, "", size_bytes, padding_bytes);
        let mut end_bytes = self.partition_offset_bytes().saturating_add(size_bytes);
        for object in behind {
            let size_bytes = object.data.len() as u64;
            whole.push_at(end_bytes, object.kind, object.name, size_bytes, 0);
            end_bytes = end_bytes.saturating_add(size_bytes);
        }

        let mut out = whole.header().to_bytes();
        resize(&mut out, TABLE_OFFSET_BYTES);
        for object in &whole.objects {
            let bytes = object.to_bytes().ok_or_else(|| DraftError::TooLarge {
                name: String::from_utf8_lossy(&object.name).into_owned(),
            })?;
            out.extend_from_slice(&bytes);
        }
        resize(&mut out, data_offset_bytes());
        out.extend_from_slice(&self.data);
        resize(&mut out, self.partition_offset_bytes());
        Ok(out)
    }

    fn data_end_bytes(&self) -> u64 {
        data_offset_bytes() + self.data.len() as u64
    }

    /// Adds a descriptor for data behind what is there.
    fn push(&mut self, kind: ObjectKind, name: &str, size_bytes: u64, padding_bytes: u64) {
        self.push_at(self.data_end_bytes(), kind, name, size_bytes, padding_bytes);
    }

    fn push_at(&mut self, end_bytes: u64, kind: ObjectKind, name: &str, size_bytes: u64, padding_bytes: u64) {
        let id = u32::try_from(self.objects.len() + 1).expect("there are at most 48 objects");
        self.objects.push(Object {
            kind,
            id,
            group: Some(GROUP),
            link: 0,
            offset_bytes: end_bytes.saturating_add(padding_bytes),
            size_bytes,
            padded_bytes: padding_bytes.saturating_add(size_bytes),
            created: self.time,
            modified: self.time,
            name: name.as_bytes().to_vec(),
        });
    }

    fn header(&self) -> Header {
        let mut launch_script = [0; 32];
        launch_script[..LAUNCH_SCRIPT.len()].copy_from_slice(LAUNCH_SCRIPT);
        let to_i64 = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let data_size_bytes = self.objects.iter().map(|object| object.padded_bytes);
        Header {
            launch_script,
            version: *VERSION,
            architecture: self.architecture,
            uuid: [0; 16],
            created: self.time,
            modified: self.time,
            free_slots: to_i64((SLOTS - self.objects.len()) as u64),
            total_slots: to_i64(SLOTS as u64),
            table_offset_bytes: to_i64(TABLE_OFFSET_BYTES),
            table_size_bytes: to_i64(data_offset_bytes() - TABLE_OFFSET_BYTES),
            data_offset_bytes: to_i64(data_offset_bytes()),
            data_size_bytes: to_i64(data_size_bytes.fold(0, u64::saturating_add)),
        }
    }
}

const _: () = assert!(HEADER_BYTES as u64 <= TABLE_OFFSET_BYTES);

/// Where the data begins: right behind the table.
const fn data_offset_bytes() -> u64 {
    TABLE_OFFSET_BYTES + (SLOTS * DESCRIPTOR_BYTES) as u64
}

fn resize(out: &mut Vec<u8>, size_bytes: u64) {
    out.resize(usize::try_from(size_bytes).expect("a head is a few small documents long"), 0);
}
