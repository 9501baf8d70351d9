//! The compression of a layer or archive, told by content, as Docker does: media types and file names may lie.

use std::io::{self, BufRead, Read};

/// log2 of the largest zstd window that we make room for: 128 MiB, which `zstd --ultra -22` needs. A frame may ask for
/// 2 TiB.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// What gzip members and zstd frames begin with.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// How a tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Plain,
    /// One or more gzip members.
    Gzip,
    /// One or more zstd frames.
    Zstd,
    /// Known, but not used by any builder; refused by name.
    Foreign(&'static str),
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Foreign(name) => name,
        })
    }
}

impl Encoding {
    /// Tells the encoding by the first bytes; 262 are enough.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        // A tar begins with a file name, which may look like anything; its magic stands further back.
        if head.get(257..).is_some_and(|rest| rest.starts_with(b"ustar")) {
            return Self::Plain;
        }
        let is_skippable = matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        match head {
            _ if head.starts_with(GZIP_MAGIC) => Self::Gzip,
            _ if head.starts_with(ZSTD_MAGIC) || is_skippable => Self::Zstd,
            _ if head.starts_with(b"BZh") => Self::Foreign("bzip2"),
            _ if head.starts_with(b"\xfd7zXZ\0") => Self::Foreign("xz"),
            _ => Self::Plain,
        }
    }

    /// The uncompressed bytes of `input`, to its very end.
    pub fn decode<'a>(self, input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(input),
            Self::Gzip => Box::new(Gunzip { member: Some(flate2::bufread::GzDecoder::new(input)) }),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Self::Foreign(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }
}

/// Compresses with gzip what is written to it, as layers are.
#[derive(Debug)]
pub struct GzipWriter<W: io::Write>(flate2::write::GzEncoder<W>);

impl<W: io::Write> GzipWriter<W> {
    /// Starts a member: without a name or a time, so that the same bytes give the same.
    pub fn new(out: W) -> Self {
        Self(flate2::write::GzEncoder::new(out, flate2::Compression::new(6)))
    }

    /// Ends it and gives the stream back.
    pub fn finish(self) -> io::Result<W> {
        self.0.finish()
    }
}

impl<W: io::Write> io::Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// All members of a gzip file, and then nothing but zeros: some writers pad. The `flate2` reader for many members takes
/// such zeros for a broken header.
struct Gunzip<R> {
    member: Option<flate2::bufread::GzDecoder<R>>,
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buf)?;
            if count > 0 || buf.is_empty() {
                return Ok(count);
            }
            let finished = self.member.take().map(flate2::bufread::GzDecoder::into_inner);
            self.member = finished.map(next_member).transpose()?.flatten();
        }
        Ok(0)
    }
}

fn next_member<R: BufRead>(mut input: R) -> io::Result<Option<flate2::bufread::GzDecoder<R>>> {
    loop {
        let ahead = input.fill_buf()?;
        let Some(&first) = ahead.first() else { return Ok(None) };
        if first != 0 {
            return Ok(Some(flate2::bufread::GzDecoder::new(input)));
        }
        let zeros = ahead.iter().take_while(|&&byte| byte == 0).count();
        input.consume(zeros);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        // A tiny buffer, so that every boundary is met.
        let input = io::BufReader::with_capacity(3, bytes);
        Encoding::of(bytes).decode(input)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn encodings_are_told_by_content() {
        let mut tar = vec![0; 512];
        tar[..3].copy_from_slice(b"BZh");
        assert_eq!(Encoding::of(&tar), Encoding::Foreign("bzip2"));
        tar[257..262].copy_from_slice(b"ustar");
        for (head, expected) in [
            (tar.as_slice(), Encoding::Plain),
            (b"", Encoding::Plain),
            (b"\x1f\x8b\x08", Encoding::Gzip),
            (b"\x28\xb5\x2f\xfd", Encoding::Zstd),
            (b"\x5e\x2a\x4d\x18", Encoding::Zstd),
            (b"\xfd7zXZ\0", Encoding::Foreign("xz")),
        ] {
            assert_eq!(Encoding::of(head), expected);
        }
    }

    #[test]
    fn members_and_frames_follow_each_other() {
        let members = [gzip(b"one "), gzip(b""), gzip(b"two"), vec![0; 700]].concat();
        assert_eq!(inflate(&members).unwrap(), b"one two");
        let frame = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let frames = [&skippable, frame(b"one ").as_slice(), &skippable, &frame(b"two")].concat();
        assert_eq!(inflate(&frames).unwrap(), b"one two");
        assert_eq!(inflate(b"plain").unwrap(), b"plain");
    }

    #[test]
    fn damage_is_an_error() {
        let good = gzip(&b"content ".repeat(100));
        assert!(inflate(&good[..good.len() - 1]).is_err());
        assert!(inflate(&[&good[..], b"junk"].concat()).is_err());
        let mut flipped = good;
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert!(inflate(&flipped).is_err());
        let frame = zstd::encode_all(b"content".repeat(100).as_slice(), 1).unwrap();
        assert!(inflate(&frame[..frame.len() - 1]).is_err());
        assert!(Encoding::Foreign("xz").decode(io::empty()).is_err());
    }

    #[test]
    fn a_window_beyond_the_cap_is_refused() {
        // Frame header: no checksum, no content size, window descriptor 2^(10 + exponent).
        let frame = |exponent: u8| [ZSTD_MAGIC, &[0, exponent << 3], &[1, 0, 0]].concat();
        assert!(inflate(&frame(17)).unwrap().is_empty());
        assert!(inflate(&frame(18)).is_err());
    }
}
