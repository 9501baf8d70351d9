//! A tar writer: `ustar` headers, with a `pax` header before what they cannot hold.
//!
//! The same entries give the same bytes. A pax header is written only where it must be, so that plain trees are readable
//! by everything.

use std::io::{self, Read, Write};

use super::reader::{Entry, EntryKind};

const BLOCK_BYTES: usize = 512;
/// Longest name and link of a ustar header without a prefix, in bytes.
const NAME_BYTES: usize = 100;
/// What seven octal digits hold, less one.
const SMALL_LIMIT: u64 = 1 << 21;
/// What eleven octal digits hold, less one.
const LARGE_LIMIT: u64 = 1 << 33;

/// Writes entries one after the other.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Adds an entry without content: anything but a file, or an empty one.
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        self.add_file(&Entry { size_bytes: 0, ..entry.clone() }, &mut io::empty())
    }

    /// Adds an entry with `size_bytes` of content. A source that has less is filled up with zeros, as GNU tar does where a
    /// file shrinks meanwhile; more is left.
    pub fn add_file(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        self.write_headers(entry)?;
        let copied = io::copy(&mut content.take(entry.size_bytes), &mut self.out)?;
        let missing = entry.size_bytes.saturating_sub(copied);
        io::copy(&mut io::repeat(0).take(missing.saturating_add(padding(entry.size_bytes))), &mut self.out)?;
        Ok(())
    }

    /// Ends the archive and gives the stream back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn write_headers(&mut self, entry: &Entry) -> io::Result<()> {
        let records = pax_records(entry);
        if !records.is_empty() {
            let size = records.len() as u64;
            self.out.write_all(&header(&Fields {
                path: b"pax",
                kind: b'x',
                size,
                mode: 0o644,
                ..Fields::default()
            }))?;
            self.out.write_all(&records)?;
            io::copy(&mut io::repeat(0).take(padding(size)), &mut self.out)?;
        }
        let (kind, major, minor) = match entry.kind {
            EntryKind::File => (b'0', 0, 0),
            EntryKind::HardLink => (b'1', 0, 0),
            EntryKind::Symlink => (b'2', 0, 0),
            EntryKind::CharDevice { major, minor } => (b'3', major, minor),
            EntryKind::BlockDevice { major, minor } => (b'4', major, minor),
            EntryKind::Directory => (b'5', 0, 0),
            EntryKind::Fifo => (b'6', 0, 0),
        };
        self.out.write_all(&header(&Fields {
            path: &entry.path,
            link: &entry.link,
            kind,
            size: entry.size_bytes,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: u64::try_from(entry.mtime).unwrap_or(0),
            major: major.into(),
            minor: minor.into(),
        }))
    }
}

#[derive(Default)]
struct Fields<'a> {
    path: &'a [u8],
    link: &'a [u8],
    kind: u8,
    size: u64,
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: u64,
    major: u64,
    minor: u64,
}

/// A ustar header; what does not fit is cut or 0, since a pax header tells it.
fn header(fields: &Fields<'_>) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8], room: usize| {
        let length = bytes.len().min(room);
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    let octal = |value: u64, digits: usize, limit: u64| {
        format!("{:0digits$o}\0", if value < limit { value } else { 0 })
    };
    put(0, fields.path, NAME_BYTES);
    put(100, octal(u64::from(fields.mode & 0o7777), 7, SMALL_LIMIT).as_bytes(), 8);
    put(108, octal(fields.uid, 7, SMALL_LIMIT).as_bytes(), 8);
    put(116, octal(fields.gid, 7, SMALL_LIMIT).as_bytes(), 8);
    put(124, octal(fields.size, 11, LARGE_LIMIT).as_bytes(), 12);
    put(136, octal(fields.mtime, 11, LARGE_LIMIT).as_bytes(), 12);
    put(148, b"        ", 8);
    put(156, &[fields.kind], 1);
    put(157, fields.link, NAME_BYTES);
    put(257, b"ustar\x0000", 8);
    put(329, octal(fields.major, 7, SMALL_LIMIT).as_bytes(), 8);
    put(337, octal(fields.minor, 7, SMALL_LIMIT).as_bytes(), 8);
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// What a ustar header cannot hold.
fn pax_records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |name: &[u8], value: &[u8]| {
        // LENGTH SPACE NAME = VALUE NEWLINE, where the length counts its own digits.
        let rest = name.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        records.extend_from_slice(format!("{length} ").as_bytes());
        records.extend_from_slice(name);
        records.push(b'=');
        records.extend_from_slice(value);
        records.push(b'\n');
    };
    let number = |value: u64| value.to_string().into_bytes();
    if entry.path.len() > NAME_BYTES {
        add(b"path", &entry.path);
    }
    if entry.link.len() > NAME_BYTES {
        add(b"linkpath", &entry.link);
    }
    if entry.size_bytes >= LARGE_LIMIT {
        add(b"size", &number(entry.size_bytes));
    }
    if entry.mtime < 0 || entry.mtime.unsigned_abs() >= LARGE_LIMIT {
        add(b"mtime", entry.mtime.to_string().as_bytes());
    }
    for (name, value) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if value >= SMALL_LIMIT {
            add(name, &number(value));
        }
    }
    for (name, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// Zeros between content of this length and the next header.
fn padding(size_bytes: u64) -> u64 {
    size_bytes.next_multiple_of(BLOCK_BYTES as u64) - size_bytes
}

#[cfg(test)]
mod tests {
    use super::super::reader::TarReader;
    use super::*;

    fn entry(path: &[u8], kind: EntryKind) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            mode: 0o4755,
            uid: 7,
            gid: 8,
            mtime: 1_700_000_000,
            size_bytes: 0,
            link: Vec::new(),
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn our_reader_reads_back_what_is_written() {
        let long = [b"d/".repeat(150), b"end".to_vec()].concat();
        let entries = [
            entry(b"dir/", EntryKind::Directory),
            Entry { size_bytes: 600, ..entry(b"dir/file", EntryKind::File) },
            Entry { link: long.clone(), ..entry(b"dir/link", EntryKind::Symlink) },
            Entry { link: b"dir/file".to_vec(), ..entry(b"dir/hard", EntryKind::HardLink) },
            entry(b"pipe", EntryKind::Fifo),
            entry(b"null", EntryKind::CharDevice { major: 1, minor: 3 }),
            Entry {
                mtime: -5,
                uid: 1 << 22,
                xattrs: vec![(b"user.x".to_vec(), b"a=\n\0b".to_vec())],
                ..entry(&long, EntryKind::File)
            },
        ];
        let mut writer = TarWriter::new(Vec::new());
        for one in &entries {
            match one.size_bytes {
                0 => writer.add(one).unwrap(),
                // The source ends early.
                _ => writer.add_file(one, &mut [b'x'; 100].as_slice()).unwrap(),
            }
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK_BYTES, 0);
        let mut reader = TarReader::new(bytes.as_slice());
        for one in &entries {
            let read = reader.next_entry().unwrap().unwrap();
            assert_eq!(&read, one, "{}", String::from_utf8_lossy(&one.path));
            if one.size_bytes > 0 {
                let mut content = Vec::new();
                reader.data().read_to_end(&mut content).unwrap();
                assert_eq!(content, [vec![b'x'; 100], vec![0; 500]].concat());
            }
        }
        assert_eq!(reader.next_entry().unwrap(), None);
    }

    #[test]
    fn a_record_counts_its_own_digits() {
        for length in [80, 81, 84, 85, 86, 90, 95, 980, 990, 995] {
            let one = Entry { path: vec![b'p'; length + 21], ..entry(b"", EntryKind::File) };
            let records = pax_records(&one);
            let shown: usize = String::from_utf8_lossy(&records).split(' ').next().unwrap().parse().unwrap();
            assert_eq!(shown, records.len(), "{length}");
        }
    }
}
