//! The two records of the format, byte for byte: the header (128 bytes) and a descriptor (585 bytes).

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 128;
/// Bytes of one descriptor.
pub(super) const DESCRIPTOR_BYTES: usize = 585;
/// What stands at byte 32 of every SIF.
pub(super) const MAGIC: &[u8; 10] = b"SIF_MAGIC\0";
/// Where the magic stands.
pub(super) const MAGIC_OFFSET_BYTES: usize = 32;
/// The only version there is.
pub(super) const VERSION: &[u8; 3] = b"01\0";
/// Group numbers are stored with these bits set; alone they mean "no group".
const GROUP_MASK: u32 = 0xf000_0000;
const NAME_BYTES: usize = 128;
const EXTRA_BYTES: usize = 384;

/// The header, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The first line of the file, which makes it executable; NUL padded.
    pub launch_script: [u8; 32],
    /// Version text, `01`.
    pub version: [u8; 3],
    /// Architecture of the primary partition.
    pub architecture: [u8; 3],
    /// Identity; zeros in a reproducible file.
    pub uuid: [u8; 16],
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub modified: i64,
    /// Slots of the table that are free.
    pub free_slots: i64,
    /// Slots of the table.
    pub total_slots: i64,
    /// Where the table begins.
    pub table_offset_bytes: i64,
    /// How long it is.
    pub table_size_bytes: i64,
    /// Where the data begins.
    pub data_offset_bytes: i64,
    /// How long it is.
    pub data_size_bytes: i64,
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// Definition file, the recipe as text.
    Deffile,
    /// A file system.
    Partition {
        /// How it is stored.
        file_system: FileSystem,
        /// What it is for.
        kind: PartitionKind,
        /// Its architecture, as in the header.
        architecture: [u8; 3],
    },
    /// Any JSON document.
    GenericJson,
    /// Any bytes.
    GenericRaw,
    /// The index of an OCI-SIF.
    OciRootIndex,
    /// Everything that we need not look into, by its number.
    Other(i32),
}

/// How a partition is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum FileSystem {
    Squashfs,
    Ext3,
    Archive,
    Raw,
    /// squashfs in a LUKS2 container.
    EncryptedLuks2,
    /// squashfs in a gocryptfs directory.
    EncryptedGocryptfs,
    Other(i32),
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum PartitionKind {
    System,
    /// The root file system; a file has at most one.
    Primary,
    Data,
    Overlay,
    Other(i32),
}

/// A used descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// Its number: slot + 1.
    pub id: u32,
    /// The group it belongs to.
    pub group: Option<u32>,
    /// The object or, with the mask `0xf0000000`, the group that it speaks of; 0 for none.
    pub link: u32,
    /// Where its data begins in the file.
    pub offset_bytes: u64,
    /// How long its data is.
    pub size_bytes: u64,
    /// Its data and the padding before it.
    pub padded_bytes: u64,
    /// Unix seconds.
    pub created: i64,
    /// Unix seconds.
    pub modified: i64,
    /// Name, without the NULs behind it.
    pub name: Vec<u8>,
}

/// Takes fixed-size fields from a record, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the record is as long as its fields");
        self.0 = rest;
        *field
    }

    fn take_i32(&mut self) -> i32 {
        i32::from_le_bytes(self.take())
    }

    fn take_u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn take_i64(&mut self) -> i64 {
        i64::from_le_bytes(self.take())
    }
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut fields = Fields(bytes);
        let launch_script = fields.take();
        let _magic: [u8; MAGIC.len()] = fields.take();
        Self {
            launch_script,
            version: fields.take(),
            architecture: fields.take(),
            uuid: fields.take(),
            created: fields.take_i64(),
            modified: fields.take_i64(),
            free_slots: fields.take_i64(),
            total_slots: fields.take_i64(),
            table_offset_bytes: fields.take_i64(),
            table_size_bytes: fields.take_i64(),
            data_offset_bytes: fields.take_i64(),
            data_size_bytes: fields.take_i64(),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&self.launch_script);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version);
        out.extend_from_slice(&self.architecture);
        out.extend_from_slice(&self.uuid);
        for number in [
            self.created,
            self.modified,
            self.free_slots,
            self.total_slots,
            self.table_offset_bytes,
            self.table_size_bytes,
            self.data_offset_bytes,
            self.data_size_bytes,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out
    }
}

impl Object {
    /// Reads one slot. `None`: the slot is free. `Some(Err(field))`: that field holds a negative number.
    pub(super) fn parse(bytes: &[u8; DESCRIPTOR_BYTES]) -> Option<Result<Self, &'static str>> {
        let mut fields = Fields(bytes);
        let number = fields.take_i32();
        let [used] = fields.take();
        if used == 0 {
            return None;
        }
        let id = fields.take_u32();
        let group = fields.take_u32();
        let link = fields.take_u32();
        let places = [fields.take_i64(), fields.take_i64(), fields.take_i64()];
        let [Ok(offset_bytes), Ok(size_bytes), Ok(padded_bytes)] = places.map(u64::try_from) else {
            let names = ["offset", "size", "size with padding"];
            let negative = places.iter().zip(names).find(|(value, _)| **value < 0);
            return Some(Err(negative.map_or("size", |(_, name)| name)));
        };
        let (created, modified) = (fields.take_i64(), fields.take_i64());
        let (_uid, _gid) = (fields.take_i64(), fields.take_i64());
        let name: [u8; NAME_BYTES] = fields.take();
        let kind = ObjectKind::parse(number, &fields.take::<EXTRA_BYTES>());
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
        Some(Ok(Self {
            kind,
            id,
            group: Some(group & !GROUP_MASK).filter(|&group| group != 0),
            link,
            offset_bytes,
            size_bytes,
            padded_bytes,
            created,
            modified,
            name: name[..end].to_vec(),
        }))
    }

    /// The slot's bytes; `None` if the name is too long or a number too large for the format.
    pub(super) fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(DESCRIPTOR_BYTES);
        let (number, extra) = self.kind.to_parts();
        out.extend_from_slice(&number.to_le_bytes());
        out.push(1);
        for word in [self.id, self.group.unwrap_or(0) | GROUP_MASK, self.link] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for place in [self.offset_bytes, self.size_bytes, self.padded_bytes] {
            out.extend_from_slice(&i64::try_from(place).ok()?.to_le_bytes());
        }
        for long in [self.created, self.modified, 0, 0] {
            out.extend_from_slice(&long.to_le_bytes());
        }
        out.extend_from_slice(&self.name);
        out.resize(out.len() + NAME_BYTES.checked_sub(self.name.len())?, 0);
        out.extend_from_slice(&extra);
        out.resize(DESCRIPTOR_BYTES, 0);
        Some(out)
    }
}

impl ObjectKind {
    fn parse(number: i32, extra: &[u8; EXTRA_BYTES]) -> Self {
        match number {
            0x4001 => Self::Deffile,
            0x4004 => {
                let mut fields = Fields(extra);
                Self::Partition {
                    file_system: FileSystem::from_number(fields.take_i32()),
                    kind: PartitionKind::from_number(fields.take_i32()),
                    architecture: fields.take(),
                }
            }
            0x4006 => Self::GenericJson,
            0x4007 => Self::GenericRaw,
            0x400a => Self::OciRootIndex,
            other => Self::Other(other),
        }
    }

    fn to_parts(self) -> (i32, Vec<u8>) {
        match self {
            Self::Deffile => (0x4001, Vec::new()),
            Self::Partition { file_system, kind, architecture } => {
                let mut extra = file_system.number().to_le_bytes().to_vec();
                extra.extend_from_slice(&kind.number().to_le_bytes());
                extra.extend_from_slice(&architecture);
                (0x4004, extra)
            }
            Self::GenericJson => (0x4006, Vec::new()),
            Self::GenericRaw => (0x4007, Vec::new()),
            Self::OciRootIndex => (0x400a, Vec::new()),
            Self::Other(number) => (number, Vec::new()),
        }
    }
}

impl FileSystem {
    fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Squashfs,
            2 => Self::Ext3,
            3 => Self::Archive,
            4 => Self::Raw,
            5 => Self::EncryptedLuks2,
            6 => Self::EncryptedGocryptfs,
            other => Self::Other(other),
        }
    }

    fn number(self) -> i32 {
        match self {
            Self::Squashfs => 1,
            Self::Ext3 => 2,
            Self::Archive => 3,
            Self::Raw => 4,
            Self::EncryptedLuks2 => 5,
            Self::EncryptedGocryptfs => 6,
            Self::Other(number) => number,
        }
    }
}

impl PartitionKind {
    fn from_number(number: i32) -> Self {
        match number {
            1 => Self::System,
            2 => Self::Primary,
            3 => Self::Data,
            4 => Self::Overlay,
            other => Self::Other(other),
        }
    }

    fn number(self) -> i32 {
        match self {
            Self::System => 1,
            Self::Primary => 2,
            Self::Data => 3,
            Self::Overlay => 4,
            Self::Other(number) => number,
        }
    }
}
