//! One 512-byte header block: fields, numbers, checksum.
//!
//! ```text
//!   0 name[100]  100 mode[8]  108 uid[8]  116 gid[8]  124 size[12]  136 mtime[12]  148 checksum[8]  156 typeflag
//! 157 linkname[100]  257 magic[6] version[2]  265 uname[32]  297 gname[32]  329 major[8]  337 minor[8]
//! 345 prefix[155]                  (POSIX)
//! 345 prefix[131] atime ctime      (star; "tar\0" at 508)
//! 345 atime[12] ctime[12] … 386 sparse[4 x 24]  482 isextended  483 realsize[12]      (GNU)
//! ```

use std::ops::Range;

/// Size of every block of a tar.
pub(super) const BLOCK_BYTES: usize = 512;

/// One block.
pub(super) type Block = [u8; BLOCK_BYTES];

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPEFLAG: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TRAILER: Range<usize> = 508..512;
const GNU_ATIME: Range<usize> = 345..357;

/// Which fields behind the magic a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// No magic: Unix 7th edition.
    V7,
    /// `ustar\0`: POSIX, with a prefix.
    Posix,
    /// `ustar  \0`: GNU.
    Gnu,
}

/// A header block with a right checksum.
#[derive(Debug)]
pub(super) struct Header<'b> {
    block: &'b Block,
    pub(super) format: Format,
}

impl<'b> Header<'b> {
    /// Accepts a block whose checksum is right.
    pub(super) fn new(block: &'b Block) -> Option<Self> {
        if !checksum_matches(block) {
            return None;
        }
        let magic = &block[MAGIC];
        let format = if magic == b"ustar  \0" {
            Format::Gnu
        } else if magic.starts_with(b"ustar\0") {
            Format::Posix
        } else {
            Format::V7
        };
        Some(Self { block, format })
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.block[TYPEFLAG]
    }

    /// The name with its prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.block[NAME]);
        let prefix = self.prefix();
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    fn prefix(&self) -> &'b [u8] {
        match self.format {
            Format::V7 => b"",
            Format::Posix if &self.block[STAR_TRAILER] == b"tar\0" => until_nul(&self.block[STAR_PREFIX]),
            Format::Posix => until_nul(&self.block[PREFIX]),
            // Go before 1.8, and so every Docker of that time, could write a POSIX prefix under the GNU magic. Where
            // the access time is no number, it is such a prefix.
            Format::Gnu if self.block[GNU_ATIME.start] != 0 && number(&self.block[GNU_ATIME]).is_none() => {
                until_nul(&self.block[PREFIX])
            }
            Format::Gnu => b"",
        }
    }

    pub(super) fn link(&self) -> &'b [u8] {
        until_nul(&self.block[LINK])
    }

    pub(super) fn size(&self) -> Option<u64> {
        u64::try_from(number(&self.block[SIZE])?).ok()
    }

    pub(super) fn mode(&self) -> Option<u32> {
        u32::try_from(number(&self.block[MODE])? & 0o7777).ok()
    }

    pub(super) fn uid(&self) -> Option<u64> {
        id(&self.block[UID])
    }

    pub(super) fn gid(&self) -> Option<u64> {
        id(&self.block[GID])
    }

    pub(super) fn mtime(&self) -> Option<i64> {
        number(&self.block[MTIME])
    }

    /// Major and minor number; formats without these fields have zeros.
    pub(super) fn device(&self) -> Option<(u32, u32)> {
        if self.format == Format::V7 {
            return Some((0, 0));
        }
        let major = u32::try_from(number(&self.block[MAJOR])?).ok()?;
        let minor = u32::try_from(number(&self.block[MINOR])?).ok()?;
        Some((major, minor))
    }

    pub(super) fn block(&self) -> &'b Block {
        self.block
    }
}

/// An owner. Old systems wrote `nobody` as -2: it means the 32-bit number with these bits.
fn id(field: &[u8]) -> Option<u64> {
    let value = number(field)?;
    if value < i64::from(i32::MIN) {
        return None;
    }
    u64::try_from(if value < 0 { value.rem_euclid(1 << 32) } else { value }).ok()
}

/// The bytes before the first NUL.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number field: octal text with leading spaces or NULs, ended by a space, a NUL or the field; or big-endian two's
/// complement behind a first byte of 0x80 or 0xff. An empty field is 0.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(&first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

fn base256(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    // Bit 7 is the mark, bit 6 the sign.
    let start = i64::from(first & 0x3f) - i64::from(first & 0x40);
    rest.iter().try_fold(start, |value, &byte| value.checked_mul(256)?.checked_add(i64::from(byte)))
}

fn octal(field: &[u8]) -> Option<i64> {
    let start = field.iter().position(|byte| !matches!(byte, b' ' | 0)).unwrap_or(field.len());
    let mut value = 0_i64;
    for &byte in &field[start..] {
        match byte {
            b'0'..=b'7' => value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?,
            b' ' | 0 => break,
            _ => return None,
        }
    }
    Some(value)
}

/// The checksum is the sum of all bytes with the field itself as spaces. Some old writers summed signed bytes.
fn checksum_matches(block: &Block) -> bool {
    let Some(stored) = octal(&block[CHECKSUM]) else { return false };
    let spaces = 8 * i64::from(b' ');
    let sum = |bytes: &[u8]| i64::from(bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>());
    if stored == sum(block) - sum(&block[CHECKSUM]) + spaces {
        return true;
    }
    let signed = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte.cast_signed())).sum::<i64>();
    stored == signed(block) - signed(&block[CHECKSUM]) + spaces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"  644 \0\0", Some(0o644)),
            (b"\0\x30644 \0", Some(0o644)),
            (b"77777777", Some(0o7777_7777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"", Some(0)),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"0x1", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\x80\0\0\0\0\0\x01\0\0\0\0\0", Some(1 << 40)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
        assert_eq!(id(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(u64::from(u32::MAX) - 1));
    }
}
