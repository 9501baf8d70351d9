//! A strict tar reader over any byte stream.
//!
//! It reads what writers of layers have written in thirty years: Unix 7th edition, POSIX `ustar` and `pax`, star, GNU
//! (long names, base-256 numbers, both kinds of sparse files). Where readers are known to disagree about what an
//! archive says, it takes Go's reading, since that is what Docker and containerd apply, or refuses.
//!
//! Formats: POSIX `pax` ("pax Interchange Format"), GNU tar manual ("Tar Internals"), libarchive `tar(5)`.

mod error;
mod header;
mod pax;
mod sparse;
mod stream;
#[cfg(test)]
mod tests;

use std::io::Read;

pub use error::TarError;

use error::shown;
use header::{BLOCK_BYTES, Block, Format, Header, until_nul};
use pax::PaxFields;
use sparse::{MapParser, OldGnuMap, Piece, SparseCursor};
use stream::Stream;

/// Largest extension header: names and attributes of one member. Go and the Linux limits (4 KiB of path, 64 KiB an
/// attribute) stay far below.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// Regular file; its data follows.
    File,
    /// Directory.
    Directory,
    /// Symbolic link to `Entry::link`.
    Symlink,
    /// Hard link to the path `Entry::link`.
    HardLink,
    /// Character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Named pipe.
    Fifo,
}

/// One member of a tar: header fields after all extension headers are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as written, not cleaned.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Whole seconds since 1970, may be negative.
    pub mtime: i64,
    /// Length of the logical file content in bytes (sparse files: expanded). A hard link has one only where the
    /// archive repeats the content for it.
    pub size_bytes: u64,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    /// Extended attributes, name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries one after the other.
///
/// Headers are read one block at a time: give it a buffered stream, or one for which small reads are cheap.
#[derive(Debug)]
pub struct TarReader<R> {
    stream: Stream<R>,
    /// Name of the current member, for messages.
    member: Vec<u8>,
    /// Data of the current member that was not read yet, as stored.
    stored_left: u64,
    /// Bytes between the end of the data and the next header.
    padding: usize,
    sparse: Option<SparseCursor>,
    globals: PaxFields,
    has_ended: bool,
}

/// Extension headers that wait for their member.
#[derive(Debug, Default)]
struct Pending {
    pax: Option<PaxFields>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

impl<R: Read> TarReader<R> {
    /// Starts at the first header.
    pub fn new(stream: R) -> Self {
        Self {
            stream: Stream::new(stream),
            member: Vec::new(),
            stored_left: 0,
            padding: 0,
            sparse: None,
            globals: PaxFields::default(),
            has_ended: false,
        }
    }

    /// Gives the stream back. After the end marker it stands behind the marker's two blocks: what follows (more zeros,
    /// garbage) was not read.
    pub fn into_inner(self) -> R {
        self.stream.into_inner()
    }

    /// Whether the current entry's data has holes, so that it is not stored in one piece. Of any other entry all
    /// [`Entry::size_bytes`] bytes lie at the stream's position after [`Self::next_entry`].
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        self.sparse.is_some()
    }

    /// Skips what is left of the current entry's data and reads the next header; `None` at the end marker or at the
    /// end of the stream on a header boundary.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.has_ended {
            return Ok(None);
        }
        self.skip_data()?;
        let mut pending = Pending::default();
        let mut block = [0; BLOCK_BYTES];
        loop {
            let offset = self.stream.offset() + to_u64(self.padding);
            let is_whole = self.read_header_block(&mut block)?;
            if !is_whole || is_zero(&block) {
                if !pending.is_empty() {
                    return Err(TarError::LooseExtension { offset });
                }
                // The marker has two blocks. Where one stands alone, GNU tar stops and bsdtar goes on; Go refuses.
                if is_whole && self.stream.fill(&mut block)? > 0 && !is_zero(&block) {
                    return Err(TarError::LoneZeroBlock { offset });
                }
                self.has_ended = true;
                return Ok(None);
            }
            let header = Header::new(&block).ok_or(TarError::Checksum { offset })?;
            match header.typeflag() {
                typeflag @ (b'x' | b'L' | b'K') => {
                    self.add_extension(&header, typeflag, &mut pending, offset)?
                }
                b'g' if pending.is_empty() => {
                    let data = self.read_extension(&header, offset)?;
                    apply_pax(&mut self.globals, &data, &header, self.stream.offset())?;
                    self.globals.keep_global();
                }
                // Go would forget the waiting extensions, GNU tar would keep them.
                b'g' => return Err(TarError::LooseExtension { offset }),
                _ => return self.start_member(&header, pending, offset).map(Some),
            }
        }
    }

    /// Reads data of the current entry; 0 at its end. Sparse holes come as zeros.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let Some(sparse) = &mut self.sparse else {
            return self.read_stored(buf);
        };
        match sparse.next_piece() {
            Piece::End => Ok(0),
            Piece::Hole(length) => {
                let count = at_most(length, buf.len());
                buf[..count].fill(0);
                sparse.advance(to_u64(count));
                Ok(count)
            }
            Piece::Data(length) => {
                let limit = at_most(length, buf.len());
                let count = self.read_stored(&mut buf[..limit])?;
                if let Some(sparse) = &mut self.sparse {
                    sparse.advance(to_u64(count));
                }
                Ok(count)
            }
        }
    }

    /// The current entry's data as a [`Read`]. An error of the archive comes as an [`std::io::Error`] and stays in
    /// the adapter for [`EntryData::into_error`].
    pub fn data(&mut self) -> EntryData<'_, R> {
        EntryData { reader: self, error: None }
    }

    /// Reads stored bytes of the current member straight into `buf`.
    fn read_stored(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let limit = at_most(self.stored_left, buf.len());
        if limit == 0 {
            return Ok(0);
        }
        let count = self.stream.read(&mut buf[..limit])?;
        if count == 0 {
            return Err(self.truncated_data());
        }
        self.stored_left -= to_u64(count);
        Ok(count)
    }

    fn truncated_data(&self) -> TarError {
        TarError::TruncatedData { member: shown(&self.member), offset: self.stream.offset() }
    }

    /// Skips the rest of the data; the padding goes with the next header block.
    fn skip_data(&mut self) -> Result<(), TarError> {
        self.sparse = None;
        let skipped = self.stream.skip(self.stored_left)?;
        self.stored_left -= skipped;
        if self.stored_left == 0 { Ok(()) } else { Err(self.truncated_data()) }
    }

    /// Reads the padding and the next header block in one go; false if the stream ends before the header.
    fn read_header_block(&mut self, block: &mut Block) -> Result<bool, TarError> {
        let mut both = [0; 2 * BLOCK_BYTES];
        let padding = std::mem::take(&mut self.padding);
        let count = self.stream.fill(&mut both[..padding + BLOCK_BYTES])?;
        // Some writers never close their tar (umoci 0.4.7 `insert`): the last member's padding is missing or short. No
        // data is lost by that, and Docker, containerd and umoci take it for the end.
        if count <= padding {
            return Ok(false);
        }
        if count < padding + BLOCK_BYTES {
            return Err(TarError::TruncatedHeader { offset: self.stream.offset() });
        }
        block.copy_from_slice(&both[padding..padding + BLOCK_BYTES]);
        Ok(true)
    }

    fn add_extension(
        &mut self,
        header: &Header<'_>,
        typeflag: u8,
        pending: &mut Pending,
        offset: u64,
    ) -> Result<(), TarError> {
        let is_repeated = match typeflag {
            b'x' => pending.pax.is_some(),
            b'L' => pending.long_name.is_some(),
            _ => pending.long_link.is_some(),
        };
        if is_repeated {
            return Err(TarError::RepeatedExtension { typeflag: char::from(typeflag), offset });
        }
        let data = self.read_extension(header, offset)?;
        match typeflag {
            b'x' => {
                let mut fields = self.globals.clone();
                apply_pax(&mut fields, &data, header, self.stream.offset())?;
                pending.pax = Some(fields);
            }
            b'L' => pending.long_name = Some(until_nul(&data).to_vec()),
            _ => pending.long_link = Some(until_nul(&data).to_vec()),
        }
        Ok(())
    }

    fn read_extension(&mut self, header: &Header<'_>, offset: u64) -> Result<Vec<u8>, TarError> {
        self.member = header.path();
        let size_bytes = header.size().ok_or_else(|| self.bad_number("size", offset))?;
        let length = usize::try_from(size_bytes).ok().filter(|_| size_bytes <= MAX_EXTENSION_BYTES);
        let Some(length) = length else {
            return Err(TarError::ExtensionTooLarge {
                size_bytes,
                limit_bytes: MAX_EXTENSION_BYTES,
                member: shown(&self.member),
                offset,
            });
        };
        let mut data = vec![0; length];
        if self.stream.fill(&mut data)? < length {
            return Err(self.truncated_data());
        }
        self.padding = padding_of(size_bytes);
        Ok(data)
    }

    fn bad_number(&self, field: &'static str, offset: u64) -> TarError {
        TarError::Number { field, member: shown(&self.member), offset }
    }

    /// Applies the extensions to a member's own header and makes its data ready.
    fn start_member(
        &mut self,
        header: &Header<'_>,
        pending: Pending,
        offset: u64,
    ) -> Result<Entry, TarError> {
        let mut pax = pending.pax.unwrap_or_else(|| self.globals.clone());
        // Go lets a GNU long name win over a PAX path.
        let path = pending.long_name.or(pax.path.take()).unwrap_or_else(|| header.path());
        self.member.clone_from(&path);
        let link = pending.long_link.or(pax.link.take()).unwrap_or_else(|| header.link().to_vec());
        let bad = |field| TarError::Number { field, member: shown(&path), offset };
        // The size of a PAX header wins for the data of its member, or a reader would take file data for headers.
        let stored_bytes =
            pax.size_bytes.or_else(|| header.size()).filter(|&size| size <= i64::MAX.cast_unsigned());
        let stored_bytes = stored_bytes.ok_or_else(|| bad("size"))?;
        let device = || header.device().ok_or_else(|| bad("device number"));
        let kind = match header.typeflag() {
            // Before POSIX a directory was a file whose name ends in a slash.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                let typeflag = char::from(other).escape_default().to_string();
                return Err(TarError::UnknownType { typeflag, member: shown(&path), offset });
            }
        };
        let mut entry = Entry {
            mode: header.mode().ok_or_else(|| bad("mode"))?,
            uid: pax.uid.or_else(|| header.uid()).ok_or_else(|| bad("owner"))?,
            gid: pax.gid.or_else(|| header.gid()).ok_or_else(|| bad("group"))?,
            mtime: pax.mtime.or_else(|| header.mtime()).ok_or_else(|| bad("time"))?,
            path,
            kind,
            size_bytes: 0,
            link,
            xattrs: std::mem::take(&mut pax.xattrs),
        };
        match entry.kind {
            EntryKind::File => {
                self.start_data(stored_bytes);
                entry.size_bytes = stored_bytes;
                if header.typeflag() == b'S' {
                    self.start_old_sparse(header)?;
                } else if pax.sparse.is_sparse() {
                    if let Some(name) = pax.sparse.name.take() {
                        entry.path = name;
                    }
                    self.start_pax_sparse(pax)?;
                }
                if let Some(sparse) = &self.sparse {
                    entry.size_bytes = sparse.real_size();
                }
            }
            EntryKind::HardLink if stored_bytes > 0 && self.link_has_data(header)? => {
                self.start_data(stored_bytes);
                entry.size_bytes = stored_bytes;
            }
            // Whatever their size field says, no data follows: so Go and libarchive read it.
            _ => {}
        }
        Ok(entry)
    }

    fn start_data(&mut self, stored_bytes: u64) {
        self.stored_left = stored_bytes;
        self.padding = padding_of(stored_bytes);
    }

    /// Whether the size of a hard link counts. Most writers set it without data; POSIX lets `pax -o linkdata` repeat
    /// the content. The archive tells by what follows: a header, or something that can only be data.
    fn link_has_data(&mut self, header: &Header<'_>) -> Result<bool, TarError> {
        if header.format != Format::Posix {
            return Ok(false);
        }
        let mut next = [0; BLOCK_BYTES];
        let count = self.stream.fill(&mut next)?;
        self.stream.put_back(&next[..count]);
        Ok(count > 0 && !(count == BLOCK_BYTES && (is_zero(&next) || Header::new(&next).is_some())))
    }

    fn start_old_sparse(&mut self, header: &Header<'_>) -> Result<(), TarError> {
        let mut map = OldGnuMap::default();
        let (real_size, mut is_extended) =
            map.add_header(header.block()).map_err(|reason| self.bad_sparse(reason))?;
        let mut block = [0; BLOCK_BYTES];
        while is_extended {
            // These blocks belong to the header: the size does not count them.
            if self.stream.fill(&mut block)? < BLOCK_BYTES {
                return Err(TarError::TruncatedHeader { offset: self.stream.offset() });
            }
            is_extended = map.add_block(&block).map_err(|reason| self.bad_sparse(reason))?;
        }
        self.start_sparse(map.segments, real_size)
    }

    fn start_pax_sparse(&mut self, pax: PaxFields) -> Result<(), TarError> {
        let sparse = pax.sparse;
        let Some(real_size) = sparse.real_size else {
            return Err(self.bad_sparse("the real size is missing"));
        };
        let segments = match (sparse.major.unwrap_or(0), sparse.minor.unwrap_or(0)) {
            (0, _) => sparse.map.unwrap_or_default(),
            (1, 0) => self.read_sparse_map()?,
            _ => return Err(self.bad_sparse("its version is unknown")),
        };
        if sparse.segment_count.is_some_and(|count| count != to_u64(segments.len()))
            && sparse.major != Some(1)
        {
            return Err(self.bad_sparse("it has not as many segments as it says"));
        }
        self.start_sparse(segments, real_size)
    }

    /// The map of a 1.0 sparse file: the first blocks of the data.
    fn read_sparse_map(&mut self) -> Result<Vec<sparse::Segment>, TarError> {
        let mut parser = MapParser::default();
        let mut block = [0; BLOCK_BYTES];
        loop {
            if self.stored_left < to_u64(BLOCK_BYTES) {
                return Err(self.bad_sparse("it is longer than the stored data"));
            }
            if self.stream.fill(&mut block)? < BLOCK_BYTES {
                return Err(self.truncated_data());
            }
            self.stored_left -= to_u64(BLOCK_BYTES);
            if parser.add_block(&block).map_err(|reason| self.bad_sparse(reason))? {
                return Ok(parser.segments);
            }
        }
    }

    fn start_sparse(&mut self, segments: Vec<sparse::Segment>, real_size: u64) -> Result<(), TarError> {
        let cursor = SparseCursor::new(segments, real_size, self.stored_left)
            .map_err(|reason| self.bad_sparse(reason))?;
        self.sparse = Some(cursor);
        Ok(())
    }

    fn bad_sparse(&self, reason: &'static str) -> TarError {
        TarError::Sparse { reason, member: shown(&self.member), offset: self.stream.offset() }
    }
}

/// The current entry's data as a [`Read`]; made by [`TarReader::data`].
#[derive(Debug)]
pub struct EntryData<'r, R> {
    reader: &'r mut TarReader<R>,
    error: Option<TarError>,
}

impl<R> EntryData<'_, R> {
    /// The archive's error, if reading failed by one.
    #[must_use]
    pub fn into_error(self) -> Option<TarError> {
        self.error
    }
}

impl<R: Read> Read for EntryData<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read_data(buf).map_err(|error| {
            let outer = std::io::Error::other(error.to_string());
            self.error = Some(error);
            outer
        })
    }
}

fn apply_pax(fields: &mut PaxFields, data: &[u8], header: &Header<'_>, offset: u64) -> Result<(), TarError> {
    fields.apply(data).map_err(|reason| TarError::Extension { reason, member: shown(&header.path()), offset })
}

fn is_zero(block: &Block) -> bool {
    block.iter().fold(0, |sum, byte| sum | byte) == 0
}

/// Bytes that fill the last block of data up.
fn padding_of(size_bytes: u64) -> usize {
    let used = usize::try_from(size_bytes % to_u64(BLOCK_BYTES)).unwrap_or(0);
    (BLOCK_BYTES - used) % BLOCK_BYTES
}

/// The smaller of the two.
fn at_most(left: u64, limit: usize) -> usize {
    usize::try_from(left).map_or(limit, |left| left.min(limit))
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
