//! A tar builder for tests: members with any field, right or wrong.

/// One member, to be changed by the `with_` functions.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: Vec<u8>,
    pub(crate) typeflag: u8,
    pub(crate) mode: u64,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) link: Vec<u8>,
    pub(crate) data: Vec<u8>,
    /// The size field, if it is to differ from the data.
    pub(crate) size_field: Option<u64>,
    pub(crate) magic: [u8; 8],
    pub(crate) device: (u64, u64),
    /// Bytes put at an offset of the finished header, before the checksum is made.
    pub(crate) patches: Vec<(usize, Vec<u8>)>,
}

/// The magic of POSIX headers.
pub(crate) const POSIX_MAGIC: [u8; 8] = *b"ustar\x0000";
/// The magic of GNU headers.
pub(crate) const GNU_MAGIC: [u8; 8] = *b"ustar  \0";

/// A member of a type; regular files have mode 0644, all else 0755.
pub(crate) fn member(typeflag: u8, name: impl AsRef<[u8]>) -> Member {
    Member {
        name: name.as_ref().to_vec(),
        typeflag,
        mode: if typeflag == b'0' { 0o644 } else { 0o755 },
        uid: 0,
        gid: 0,
        mtime: 0,
        link: Vec::new(),
        data: Vec::new(),
        size_field: None,
        magic: POSIX_MAGIC,
        device: (0, 0),
        patches: Vec::new(),
    }
}

/// A regular file.
pub(crate) fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Member {
    Member { data: data.as_ref().to_vec(), ..member(b'0', name) }
}

/// A directory.
pub(crate) fn dir(name: impl AsRef<[u8]>) -> Member {
    member(b'5', name)
}

/// A symbolic link.
pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Member {
    Member { link: target.as_ref().to_vec(), ..member(b'2', name) }
}

/// A hard link.
pub(crate) fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Member {
    Member { link: target.as_ref().to_vec(), ..member(b'1', name) }
}

/// A PAX header with records.
pub(crate) fn pax(records: &[(&str, &[u8])]) -> Member {
    let data: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key.as_bytes(), value)).collect();
    Member { data, ..member(b'x', "PaxHeaders/x") }
}

/// One `LENGTH KEY=VALUE\n` record.
pub(crate) fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} ").into_bytes();
    record.extend([key, b"=", value, b"\n"].concat());
    record
}

impl Member {
    /// With this mode.
    pub(crate) fn mode(self, mode: u64) -> Self {
        Self { mode, ..self }
    }

    /// With this size in the header, whatever the data is.
    pub(crate) fn size_field(self, size: u64) -> Self {
        Self { size_field: Some(size), ..self }
    }

    /// With these bytes at this offset of the header.
    pub(crate) fn patch(mut self, offset: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.patches.push((offset, bytes.as_ref().to_vec()));
        self
    }

    /// The header block and the padded data. A name that does not fit its field goes to a GNU long name before it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (typeflag, text) in [(b'L', &self.name), (b'K', &self.link)] {
            if text.len() > 100 {
                let long = Self {
                    data: [text.as_slice(), b"\0"].concat(),
                    magic: GNU_MAGIC,
                    ..member(typeflag, "././@LongLink")
                };
                out.extend(long.bytes());
            }
        }
        out.extend(self.header());
        out.extend(&self.data);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn header(&self) -> [u8; 512] {
        let mut header = [0; 512];
        let mut put =
            |offset: usize, bytes: &[u8]| header[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.uid).as_bytes());
        put(116, format!("{:07o}", self.gid).as_bytes());
        put(124, format!("{:011o}", self.size_field.unwrap_or(self.data.len() as u64)).as_bytes());
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(156, &[self.typeflag]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, &self.magic);
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        for (offset, bytes) in &self.patches {
            put(*offset, bytes);
        }
        set_checksum(&mut header);
        header
    }
}

/// Writes the unsigned checksum of a header.
pub(crate) fn set_checksum(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// An archive of members with its end marker.
pub(crate) fn archive(members: &[Member]) -> Vec<u8> {
    let mut out: Vec<u8> = members.iter().flat_map(Member::bytes).collect();
    out.resize(out.len() + 1024, 0);
    out
}
