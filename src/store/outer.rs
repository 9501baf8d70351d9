//! The compression around a whole archive, told by its first bytes.

use std::io::{self, BufReader, Cursor, Read};

use crate::tarlayer::Encoding;

use super::ArchiveFault;

/// Enough to see the magic of a tar, which stands at 257.
const HEAD_BYTES: usize = 512;
/// Read calls to a file or pipe are this large.
const BUFFER_BYTES: usize = 256 << 10;
/// The tar inside `stream`.
pub(super) fn open_outer<'a>(mut stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ArchiveFault> {
    let read = |source| ArchiveFault::Read { source };
    let mut head = Vec::with_capacity(HEAD_BYTES);
    stream.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(read)?;
    if head.is_empty() {
        return Err(ArchiveFault::Empty);
    }
    let encoding = Encoding::of(&head);
    let whole = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(head).chain(stream));
    match encoding {
        Encoding::Plain => Ok(Box::new(whole)),
        Encoding::Foreign(kind) => Err(ArchiveFault::Compression { kind }),
        _ => Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, encoding.decode(whole).map_err(read)?))),
    }
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
        let padded = [&gzip[..], &[0; 700]].concat();
        for input in [&tar, &gzip, &padded, &zstd] {
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
