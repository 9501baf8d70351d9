//! The compression around a whole archive, told by its first bytes.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use super::ArchiveFault;

/// Enough to see the magic of a tar, which stands at 257.
const HEAD_BYTES: usize = 512;
/// Read calls to a file or pipe are this large.
const BUFFER_BYTES: usize = 256 << 10;
/// log2 of the largest zstd window that we make room for: 128 MiB. A frame may ask for far more.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outer {
    Plain,
    Gzip,
    Zstd,
    /// Told by name only.
    Foreign(&'static str),
}

impl Outer {
    /// Tells by the first bytes.
    pub(super) fn of(head: &[u8]) -> Self {
        // A tar begins with a file name, which may look like anything.
        if head.get(257..262) == Some(b"ustar") {
            return Self::Plain;
        }
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Foreign("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Foreign("xz"),
            _ => Self::Plain,
        }
    }
}

/// The tar inside `stream`.
pub(super) fn open_outer<'a>(mut stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ArchiveFault> {
    let read = |source| ArchiveFault::Read { source };
    let mut head = Vec::with_capacity(HEAD_BYTES);
    stream.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(read)?;
    if head.is_empty() {
        return Err(ArchiveFault::Empty);
    }
    let outer = Outer::of(&head);
    let whole = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(head).chain(stream));
    Ok(match outer {
        Outer::Plain => Box::new(whole),
        Outer::Gzip => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(whole)))
        }
        Outer::Zstd => Box::new(BufReader::with_capacity(BUFFER_BYTES, zstd_reader(whole).map_err(read)?)),
        Outer::Foreign(kind) => return Err(ArchiveFault::Compression { kind }),
    })
}

fn zstd_reader<'a, R: BufRead>(input: R) -> io::Result<zstd::stream::read::Decoder<'a, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// Reads what is left behind a tar's end, so that the program at the other end of a pipe is not killed by SIGPIPE.
/// Nothing in it matters: what the image is made of has been verified.
pub(super) fn drain(stream: &mut dyn Read) {
    const LIMIT_BYTES: u64 = 64 << 20;
    // The tar's end was seen, so what follows cannot make it worse.
    let _ = io::copy(&mut stream.take(LIMIT_BYTES), &mut io::sink());
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn tells_and_opens() {
        let mut tar = vec![0_u8; 1000];
        tar[..6].copy_from_slice(b"\x1f\x8bname");
        tar[257..262].copy_from_slice(b"ustar");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(tar.as_slice(), 1).unwrap();
        for (input, kind) in [(&tar, Outer::Plain), (&gzip, Outer::Gzip), (&zstd, Outer::Zstd)] {
            assert_eq!(Outer::of(input), kind);
            let mut out = Vec::new();
            open_outer(input.as_slice()).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, tar);
        }
        for (head, words) in [
            (&b""[..], "the file is empty"),
            (b"BZh91AY", "it is compressed with bzip2, which is not read here"),
            (b"\xfd7zXZ\0\0", "it is compressed with xz, which is not read here"),
        ] {
            let error = open_outer(head).err().unwrap();
            assert_eq!(error.to_string(), words);
        }
    }
}
