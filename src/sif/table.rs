//! Reading: the header and the used descriptors of a file, checked against the file's size.

use crate::base::{Hint, ReadAt};

use super::record::{
    DESCRIPTOR_BYTES, FileSystem, HEADER_BYTES, Header, MAGIC, MAGIC_OFFSET_BYTES, Object, ObjectKind,
    PartitionKind, VERSION,
};

/// Most slots of a table that we read. Writers make 48; an OCI-SIF as many as it has blobs and 8 more.
const MAX_SLOTS: i64 = 4096;
/// Slots read at a time.
const SLOTS_PER_READ: u64 = 64;

/// A SIF's header and used descriptors, in the order of the table.
#[derive(Debug, Clone)]
pub struct Sif {
    /// The header.
    pub header: Header,
    /// Used descriptors.
    pub objects: Vec<Object>,
}

/// Why a file is no SIF that we can run.
#[derive(Debug, thiserror::Error)]
pub enum SifError {
    /// The file below failed.
    #[error("reading {size_bytes} bytes at byte {offset_bytes}: {source}")]
    Read {
        /// Where.
        offset_bytes: u64,
        /// How much.
        size_bytes: usize,
        /// The cause.
        source: std::io::Error,
    },
    /// No magic at its place.
    #[error("there is no SIF header")]
    NoMagic,
    /// A version that nobody has defined yet.
    #[error("SIF version `{version}` is not known, only 01 is")]
    Version {
        /// The version's text.
        version: String,
    },
    /// The file ends before what the header or a descriptor speaks of.
    #[error("file is cut short: have {have_bytes} bytes, needs {need_bytes}")]
    CutShort {
        /// Bytes of the file.
        have_bytes: u64,
        /// Bytes that it must have.
        need_bytes: u64,
    },
    /// A number that no writer makes.
    #[error("{place}: {field} {value} makes no sense")]
    Number {
        /// The header or which descriptor.
        place: String,
        /// The field.
        field: &'static str,
        /// What it holds, as text.
        value: String,
    },
    /// No primary partition.
    #[error("the SIF has no primary partition: it holds no root file system")]
    NoPrimary,
    /// More than one primary partition.
    #[error("the SIF has {count} primary partitions instead of one")]
    ManyPrimaries {
        /// How many.
        count: usize,
    },
    /// The OCI-SIF of SingularityCE 4, which has layers instead of a partition.
    #[error("this is an OCI-SIF of SingularityCE, a format that is not supported")]
    OciSif,
    /// An encrypted partition.
    #[error("the root file system is encrypted ({method}), which is not supported")]
    Encrypted {
        /// How.
        method: &'static str,
    },
    /// A partition that is no squashfs.
    #[error("the root file system is {file_system}, only squashfs is supported")]
    FileSystem {
        /// Its name.
        file_system: String,
    },
}

impl Hint for SifError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::CutShort { .. } => Some("download or copy the file again".into()),
            Self::OciSif => Some(
                "pull the same image from its registry with `slipway pull`, or make a plain SIF with \
                 `singularity build --no-oci`"
                    .into(),
            ),
            Self::Encrypted { .. } => Some("build the image without encryption".into()),
            Self::FileSystem { .. } => Some("rebuild it with `apptainer build NEW.sif OLD.sif`".into()),
            _ => None,
        }
    }
}

/// Whether a file with these first bytes is a SIF, maybe a broken one.
#[must_use]
pub fn is_sif(head: &[u8]) -> bool {
    head.get(MAGIC_OFFSET_BYTES..).is_some_and(|rest| rest.starts_with(MAGIC))
}

impl Sif {
    /// Reads header and table of `file` and checks that every object lies inside it.
    pub fn read(file: &dyn ReadAt) -> Result<Self, SifError> {
        let have_bytes = file.size_bytes();
        if have_bytes < HEADER_BYTES as u64 {
            let mut head = vec![0; usize::try_from(have_bytes).unwrap_or(HEADER_BYTES)];
            read(file, &mut head, 0)?;
            return Err(if is_sif(&head) {
                SifError::CutShort { have_bytes, need_bytes: HEADER_BYTES as u64 }
            } else {
                SifError::NoMagic
            });
        }
        let mut bytes = [0; HEADER_BYTES];
        read(file, &mut bytes, 0)?;
        if !is_sif(&bytes) {
            return Err(SifError::NoMagic);
        }
        let header = Header::parse(&bytes);
        if header.version != *VERSION {
            let version = String::from_utf8_lossy(&header.version).trim_end_matches('\0').to_owned();
            return Err(SifError::Version { version });
        }
        let objects = read_table(file, &header)?;
        let need_bytes = objects
            .iter()
            .map(|object| object.offset_bytes.saturating_add(object.size_bytes))
            .max()
            .unwrap_or_default();
        if need_bytes > have_bytes {
            return Err(SifError::CutShort { have_bytes, need_bytes });
        }
        Ok(Self { header, objects })
    }

    /// The root file system: the one primary partition, which must be a plain squashfs.
    pub fn primary(&self) -> Result<&Object, SifError> {
        let primaries = self.objects.iter().filter_map(|object| match object.kind {
            ObjectKind::Partition { file_system, kind: PartitionKind::Primary, .. } => {
                Some((object, file_system))
            }
            _ => None,
        });
        let primaries: Vec<_> = primaries.collect();
        let [(object, file_system)] = primaries.as_slice() else {
            let is_oci = self.objects.iter().any(|object| object.kind == ObjectKind::OciRootIndex);
            return Err(match primaries.len() {
                0 if is_oci => SifError::OciSif,
                0 => SifError::NoPrimary,
                count => SifError::ManyPrimaries { count },
            });
        };
        match file_system {
            FileSystem::Squashfs => Ok(object),
            FileSystem::EncryptedLuks2 => Err(SifError::Encrypted { method: "LUKS2" }),
            FileSystem::EncryptedGocryptfs => Err(SifError::Encrypted { method: "gocryptfs" }),
            FileSystem::Ext3 => Err(SifError::FileSystem { file_system: "ext3".into() }),
            FileSystem::Archive => Err(SifError::FileSystem { file_system: "an archive".into() }),
            FileSystem::Raw => Err(SifError::FileSystem { file_system: "raw data".into() }),
            FileSystem::Other(number) => {
                Err(SifError::FileSystem { file_system: format!("of unknown type {number}") })
            }
        }
    }

    /// The first object of generic raw data of that name.
    #[must_use]
    pub fn find_raw(&self, name: &str) -> Option<&Object> {
        self.objects
            .iter()
            .find(|object| object.kind == ObjectKind::GenericRaw && object.name == name.as_bytes())
    }

    /// The first generic JSON object of that name.
    #[must_use]
    pub fn find_json(&self, name: &str) -> Option<&Object> {
        self.objects
            .iter()
            .find(|object| object.kind == ObjectKind::GenericJson && object.name == name.as_bytes())
    }
}

fn read_table(file: &dyn ReadAt, header: &Header) -> Result<Vec<Object>, SifError> {
    let number =
        |field, value: i64| SifError::Number { place: "header".into(), field, value: value.to_string() };
    let slots = u64::try_from(header.total_slots)
        .ok()
        .filter(|_| header.total_slots <= MAX_SLOTS)
        .ok_or_else(|| number("number of descriptors", header.total_slots))?;
    let offset_bytes = u64::try_from(header.table_offset_bytes)
        .map_err(|_| number("offset of the descriptors", header.table_offset_bytes))?;
    for (field, value) in [
        ("size of the descriptors", header.table_size_bytes),
        ("offset of the data", header.data_offset_bytes),
        ("size of the data", header.data_size_bytes),
    ] {
        if value < 0 {
            return Err(number(field, value));
        }
    }
    let need_bytes = offset_bytes.saturating_add(slots * DESCRIPTOR_BYTES as u64);
    if need_bytes > file.size_bytes() {
        return Err(SifError::CutShort { have_bytes: file.size_bytes(), need_bytes });
    }

    let mut objects = Vec::new();
    let mut done = 0;
    while done < slots {
        let count = SLOTS_PER_READ.min(slots - done);
        let mut bytes = vec![[0; DESCRIPTOR_BYTES]; usize::try_from(count).unwrap_or_default()];
        read(file, bytes.as_flattened_mut(), offset_bytes + done * DESCRIPTOR_BYTES as u64)?;
        for (slot, bytes) in (done..).zip(&bytes) {
            match Object::parse(bytes) {
                None => {}
                Some(Ok(object)) => objects.push(object),
                Some(Err(field)) => {
                    let place = format!("descriptor {}", slot + 1);
                    return Err(SifError::Number { place, field, value: "below 0".into() });
                }
            }
        }
        done += count;
    }
    Ok(objects)
}

fn read(file: &dyn ReadAt, buf: &mut [u8], offset_bytes: u64) -> Result<(), SifError> {
    let size_bytes = buf.len();
    file.read_exact_at(buf, offset_bytes).map_err(|source| SifError::Read {
        offset_bytes,
        size_bytes,
        source,
    })
}
