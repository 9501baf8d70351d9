//! The door to `lzma-rust2`: blocks as `mksquashfs -comp xz` makes them, each an .xz stream of its own, maybe with a
//! filter for machine code, and as `-comp lzma` does, each in the older .lzma form.

use std::io::{self, Read};

use lzma_rust2::{LzmaReader, XzReader};

/// Memory that a block may ask for, in KiB: a dictionary as long as the longest block, and the decoder's own.
const MEMORY_KIB: u32 = 4096;

/// Unpacks an .xz stream.
pub(super) fn decompress_xz(input: &[u8], output: &mut [u8]) -> io::Result<usize> {
    read_all(&mut XzReader::new_mem_limit(input, false, MEMORY_KIB), output)
}

/// Unpacks an .lzma stream.
pub(super) fn decompress_lzma(input: &[u8], output: &mut [u8]) -> io::Result<usize> {
    read_all(&mut LzmaReader::new_mem_limit(input, MEMORY_KIB, None)?, output)
}

fn read_all(reader: &mut dyn Read, output: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < output.len() {
        match reader.read(&mut output[done..])? {
            0 => return Ok(done),
            count => done += count,
        }
    }
    // The end must be asked for: only then are the sums behind it compared.
    match reader.read(&mut [0])? {
        0 => Ok(done),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the LZMA data is longer than its block")),
    }
}
