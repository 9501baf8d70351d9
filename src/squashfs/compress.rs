//! Block compressors: one door to `zstd` and to `flate2`'s zlib side.

use std::io;

/// Which compressor an image uses, with the level of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressor {
    /// zlib streams (squashfs calls it gzip), level 1 to 9.
    Gzip(u32),
    /// zstd frames, level 1 to 19.
    Zstd(i32),
}

/// Compresses block after block with one warm context. One for each thread.
pub struct BlockCompressor {
    _private: (),
}

impl std::fmt::Debug for BlockCompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockCompressor")
    }
}

impl BlockCompressor {
    /// A warm context.
    pub fn new(_compressor: Compressor) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Compresses `input` into `output` (cleared first). `false`: it did not shrink, store it as it is.
    pub fn compress(&mut self, _input: &[u8], _output: &mut Vec<u8>) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Decompresses block after block with one warm context. One for each thread.
pub struct BlockDecompressor {
    _private: (),
}

impl std::fmt::Debug for BlockDecompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockDecompressor")
    }
}

impl BlockDecompressor {
    /// A context for the compressor id of a superblock (1 gzip, 6 zstd); another id is `Unsupported`.
    pub fn new(_compressor_id: u16) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Decompresses one block into `output` and says how many bytes it gave. More than fits is an error.
    pub fn decompress(&mut self, _input: &[u8], _output: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
