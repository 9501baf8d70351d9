//! Block compressors: one door to `zstd` and to `flate2`'s zlib side.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use zstd::zstd_safe;

/// Superblock id of zlib streams.
const GZIP_ID: u16 = 1;
/// Superblock id of zstd frames.
const ZSTD_ID: u16 = 6;

/// Which compressor an image uses, with the level of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressor {
    /// zlib streams (squashfs calls it gzip), level 1 to 9.
    Gzip(u32),
    /// zstd frames, level 1 to 19.
    Zstd(i32),
}

impl std::fmt::Display for Compressor {
    /// As the configuration writes it: `zstd:1`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gzip(level) => write!(f, "gzip:{level}"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

impl Compressor {
    /// The compressor's number in a superblock.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Self::Gzip(_) => GZIP_ID,
            Self::Zstd(_) => ZSTD_ID,
        }
    }
}

/// Compresses block after block with one warm context. One for each thread.
pub struct BlockCompressor(CompressContext);

enum CompressContext {
    Gzip(Compress),
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
        match compressor {
            Compressor::Gzip(level @ 1..=9) => {
                Ok(Self(CompressContext::Gzip(Compress::new(Compression::new(level), true))))
            }
            Compressor::Zstd(level @ 1..=19) => {
                Ok(Self(CompressContext::Zstd(zstd::bulk::Compressor::new(level)?)))
            }
            Compressor::Gzip(_) | Compressor::Zstd(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{compressor:?} is out of range, gzip has levels 1 to 9 and zstd 1 to 19"),
            )),
        }
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
    Zstd(zstd::bulk::Decompressor<'static>),
}

impl std::fmt::Debug for BlockDecompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockDecompressor")
    }
}

impl BlockDecompressor {
    /// A context for the compressor id of a superblock (1 gzip, 6 zstd); another id is `Unsupported`.
    pub fn new(compressor_id: u16) -> io::Result<Self> {
        match compressor_id {
            GZIP_ID => Ok(Self(DecompressContext::Gzip(Decompress::new(true)))),
            ZSTD_ID => Ok(Self(DecompressContext::Zstd(zstd::bulk::Decompressor::new()?))),
            other => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("compressor {other} of squashfs is not supported, only 1 (gzip) and 6 (zstd) are"),
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
        for compressor in
            [Compressor::Gzip(1), Compressor::Gzip(9), Compressor::Zstd(1), Compressor::Zstd(19)]
        {
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
        for id in [0, 2, 3, 4, 5, 7] {
            assert_eq!(BlockDecompressor::new(id).unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for id in [1, 6] {
            let mut decompress = BlockDecompressor::new(id).unwrap();
            for input in [&noise(1000)[..], b"", b"\x28\xb5\x2f\xfd", b"\x78\x9c"] {
                assert!(decompress.decompress(input, &mut [0; 4096]).is_err(), "{id} {input:?}");
            }
        }
    }
}
