//! Block compressors: one door to `zstd`, to `lz4_flex` and to `flate2`'s zlib side. LZO, xz and lzma are read only: others
//! have made such images.

mod lzma;
mod lzo;

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use zstd::zstd_safe;

/// Superblock id of zlib streams.
const GZIP_ID: u16 = 1;
/// Superblock id of .lzma streams.
const LZMA_ID: u16 = 2;
/// Superblock id of LZO1X blocks.
const LZO_ID: u16 = 3;
/// Superblock id of .xz streams.
const XZ_ID: u16 = 4;
/// Superblock id of bare LZ4 blocks.
const LZ4_ID: u16 = 5;
/// Superblock id of zstd frames.
const ZSTD_ID: u16 = 6;
/// What an image with LZ4 has behind its superblock, without which the kernel refuses it: version 1 of the block
/// format ("legacy"), no flags.
const LZ4_OPTIONS: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

/// Which compressor an image uses, with the level of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressor {
    /// zlib streams (squashfs calls it gzip), level 1 to 9.
    Gzip(u32),
    /// LZ4 blocks: larger files, less work for whoever reads them.
    Lz4,
    /// Everything is stored as it is.
    None,
    /// zstd frames, level 1 to 19.
    Zstd(i32),
}

impl std::fmt::Display for Compressor {
    /// As the configuration writes it: `zstd:1`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gzip(level) => write!(f, "gzip:{level}"),
            Self::Lz4 => f.write_str("lz4"),
            Self::None => f.write_str("none"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// The text is no compressor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of {}", Compressor::EXPECTED)]
pub struct NoCompressor;

impl std::str::FromStr for Compressor {
    type Err = NoCompressor;

    /// Reads what [`Display`](std::fmt::Display) writes; the level may be left out.
    fn from_str(text: &str) -> Result<Self, NoCompressor> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let level = level.map(|level| level.parse().map_err(|_| NoCompressor)).transpose()?;
        let compressor = match (name, level) {
            ("zstd", None) => Self::DEFAULT,
            ("zstd", Some(level)) => Self::Zstd(level),
            ("gzip", level) => Self::Gzip(level.unwrap_or(6).try_into().map_err(|_| NoCompressor)?),
            ("lz4", None) => Self::Lz4,
            ("none", None) => Self::None,
            _ => return Err(NoCompressor),
        };
        if compressor.is_in_range() { Ok(compressor) } else { Err(NoCompressor) }
    }
}

impl Compressor {
    /// What is taken where nobody says. Level 1 takes a tenth less work for a conversion, but its files are 5 % larger
    /// (1.10 of gzip's at level 9 instead of 1.05), and each start reads them again.
    pub const DEFAULT: Self = Self::Zstd(3);

    /// What a user can write, for messages.
    pub const EXPECTED: &str = "\"zstd:LEVEL\" with 1 to 19, \"gzip:LEVEL\" with 1 to 9, \"lz4\" or \"none\"";

    /// The compressor's number in a superblock. There is none for no compressor; an image where every block is stored
    /// names the one that every reader has.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Self::Gzip(_) | Self::None => GZIP_ID,
            Self::Lz4 => LZ4_ID,
            Self::Zstd(_) => ZSTD_ID,
        }
    }

    /// What readers must be told besides the number, as it stands behind the superblock.
    #[must_use]
    pub fn options(self) -> Option<&'static [u8]> {
        (self == Self::Lz4).then_some(LZ4_OPTIONS.as_slice())
    }

    fn is_in_range(self) -> bool {
        match self {
            Self::Gzip(level) => (1..=9).contains(&level),
            Self::Zstd(level) => (1..=19).contains(&level),
            Self::Lz4 | Self::None => true,
        }
    }
}

/// Whether blocks of a superblock's compressor can be read.
#[must_use]
pub fn is_supported(compressor_id: u16) -> bool {
    (GZIP_ID..=ZSTD_ID).contains(&compressor_id)
}

/// Compresses block after block with one warm context. One for each thread.
pub struct BlockCompressor(CompressContext);

enum CompressContext {
    Gzip(Compress),
    Lz4,
    None,
    Zstd(zstd::bulk::Compressor<'static>),
}

impl std::fmt::Debug for BlockCompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockCompressor")
    }
}

impl BlockCompressor {
    /// A warm context. A level out of range is `InvalidInput`.
    pub fn new(compressor: Compressor) -> io::Result<Self> {
        if !compressor.is_in_range() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{compressor} is out of range, gzip has levels 1 to 9 and zstd 1 to 19"),
            ));
        }
        Ok(Self(match compressor {
            Compressor::Gzip(level) => CompressContext::Gzip(Compress::new(Compression::new(level), true)),
            Compressor::Lz4 => CompressContext::Lz4,
            Compressor::None => CompressContext::None,
            Compressor::Zstd(level) => CompressContext::Zstd(zstd::bulk::Compressor::new(level)?),
        }))
    }

    /// Compresses `input` into `output` (cleared first). `false`: it did not shrink, store it as it is.
    ///
    /// A zstd frame made at one go carries its content size and has a window no larger than the block, which is what
    /// the kernel's decompressor has room for.
    pub fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
        output.clear();
        match &mut self.0 {
            CompressContext::Gzip(context) => {
                context.reset();
                // Room for one byte less than the input: a stream that does not end in it did not shrink.
                output.resize(input.len().saturating_sub(1), 0);
                let status =
                    context.compress(input, output, FlushCompress::Finish).map_err(io::Error::other)?;
                let size_bytes = usize::try_from(context.total_out()).map_err(io::Error::other)?;
                output.truncate(size_bytes);
                Ok(status == Status::StreamEnd)
            }
            CompressContext::Lz4 => {
                output.resize(lz4_flex::block::get_maximum_output_size(input.len()), 0);
                let size_bytes = lz4_flex::block::compress_into(input, output).map_err(io::Error::other)?;
                output.truncate(size_bytes);
                Ok(size_bytes < input.len())
            }
            CompressContext::None => Ok(false),
            CompressContext::Zstd(context) => {
                output.reserve(zstd_safe::compress_bound(input.len()));
                let size_bytes = context.compress_to_buffer(input, output)?;
                Ok(size_bytes < input.len())
            }
        }
    }
}

/// Decompresses block after block with one warm context. One for each thread.
pub struct BlockDecompressor(DecompressContext);

enum DecompressContext {
    Gzip(Decompress),
    Lzma,
    Lzo,
    Xz,
    Lz4,
    Zstd(zstd::bulk::Decompressor<'static>),
}

impl std::fmt::Debug for BlockDecompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockDecompressor")
    }
}

impl BlockDecompressor {
    /// A context for the compressor id of a superblock (1 gzip, 2 lzma, 3 lzo, 4 xz, 5 lz4, 6 zstd); another id is
    /// `Unsupported`.
    pub fn new(compressor_id: u16) -> io::Result<Self> {
        match compressor_id {
            GZIP_ID => Ok(Self(DecompressContext::Gzip(Decompress::new(true)))),
            LZMA_ID => Ok(Self(DecompressContext::Lzma)),
            LZO_ID => Ok(Self(DecompressContext::Lzo)),
            XZ_ID => Ok(Self(DecompressContext::Xz)),
            LZ4_ID => Ok(Self(DecompressContext::Lz4)),
            ZSTD_ID => Ok(Self(DecompressContext::Zstd(zstd::bulk::Decompressor::new()?))),
            other => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("compressor {other} of squashfs is not known, only 1 (gzip) to 6 (zstd) are"),
            )),
        }
    }

    /// Decompresses one block into `output` and says how many bytes it gave. More than fits is an error.
    pub fn decompress(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<usize> {
        if input.is_empty() {
            // To zstd, nothing is no frames at all and gives nothing; no block of an image is empty.
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the compressed block is empty"));
        }
        match &mut self.0 {
            DecompressContext::Gzip(context) => {
                context.reset(true);
                let status = context
                    .decompress(input, output, FlushDecompress::Finish)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                if status != Status::StreamEnd {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the zlib stream is cut off or longer than its block",
                    ));
                }
                usize::try_from(context.total_out()).map_err(io::Error::other)
            }
            DecompressContext::Lzma => lzma::decompress_lzma(input, output),
            DecompressContext::Lzo => lzo::decompress(input, output),
            DecompressContext::Xz => lzma::decompress_xz(input, output),
            DecompressContext::Lz4 => lz4_flex::block::decompress_into(input, output)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            DecompressContext::Zstd(context) => context
                .decompress_to_buffer(input, output)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a pattern that a compressor could find (xorshift).
    fn noise(size_bytes: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        (0..size_bytes).map(|_| next()).collect()
    }

    #[test]
    fn round_trips_or_says_that_it_did_not_shrink() {
        for compressor in [
            Compressor::Gzip(1),
            Compressor::Gzip(9),
            Compressor::Lz4,
            Compressor::Zstd(1),
            Compressor::Zstd(19),
        ] {
            let mut compress = BlockCompressor::new(compressor).unwrap();
            let mut decompress = BlockDecompressor::new(compressor.id()).unwrap();
            let mut packed = Vec::new();
            let mut check = |input: &[u8], shrinks: bool| {
                assert_eq!(compress.compress(input, &mut packed).unwrap(), shrinks, "{compressor:?}");
                if shrinks {
                    assert!(packed.len() < input.len());
                    let mut output = vec![0; input.len()];
                    assert_eq!(decompress.decompress(&packed, &mut output).unwrap(), input.len());
                    assert!(output == input);
                    let mut short = vec![0; input.len() - 1];
                    assert!(decompress.decompress(&packed, &mut short).is_err());
                    assert!(decompress.decompress(&packed[..packed.len() - 1], &mut output).is_err());
                }
            };
            check(b"", false);
            check(b"a", false);
            check(&noise(128 * 1024), false);
            check(&[7; 128 * 1024], true);
            check(&b"some text, again and again ".repeat(5000)[..128 * 1024], true);
            check(&[0; 100], true);
        }
    }

    #[test]
    fn refuses_levels_and_ids_out_of_range() {
        for compressor in
            [Compressor::Gzip(0), Compressor::Gzip(10), Compressor::Zstd(0), Compressor::Zstd(20)]
        {
            assert_eq!(BlockCompressor::new(compressor).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        for id in [0, 7, u16::MAX] {
            assert!(!is_supported(id));
            assert_eq!(BlockDecompressor::new(id).unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
    }

    #[test]
    fn names_are_read_and_written() {
        let check = |text: &str, expected: Result<Compressor, NoCompressor>| {
            assert_eq!(text.parse(), expected, "{text}");
        };
        for compressor in [Compressor::Zstd(19), Compressor::Gzip(1), Compressor::Lz4, Compressor::None] {
            check(&compressor.to_string(), Ok(compressor));
        }
        check("zstd", Ok(Compressor::DEFAULT));
        check("gzip", Ok(Compressor::Gzip(6)));
        for text in
            ["", "xz", "zstd:", "zstd:0", "zstd:20", "gzip:10", "gzip:-1", "lz4:1", "none:", "zstd:1:1"]
        {
            check(text, Err(NoCompressor));
        }
    }

    #[test]
    fn without_a_compressor_nothing_shrinks() {
        let mut compress = BlockCompressor::new(Compressor::None).unwrap();
        assert!(!compress.compress(&[0; 4096], &mut Vec::new()).unwrap());
    }

    #[test]
    fn garbage_is_an_error() {
        for id in 1..=6 {
            assert!(is_supported(id));
            let mut decompress = BlockDecompressor::new(id).unwrap();
            for input in [&noise(1000)[..], b"", b"\x28\xb5\x2f\xfd", b"\x78\x9c"] {
                assert!(decompress.decompress(input, &mut [0; 4096]).is_err(), "{id} {input:?}");
            }
        }
    }
}
