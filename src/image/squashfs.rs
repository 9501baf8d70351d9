//! A bare squashfs, and the check that a partition is one.

use crate::base::ReadAt;
use crate::squashfs::format;

use super::{Contents, Format, FormatError};

/// Where the superblock holds the length of the image.
const BYTES_USED_OFFSET_BYTES: usize = 40;

pub(super) const FORMAT: Format =
    Format { name: "squashfs", matches: |head| head.starts_with(&format::MAGIC.to_le_bytes()), read };

fn read(file: &dyn ReadAt) -> Result<Contents, FormatError> {
    let size_bytes = file.size_bytes();
    check(file, 0, size_bytes)?;
    Ok(Contents { size_bytes, ..Contents::default() })
}

/// Checks that a squashfs begins at `offset_bytes` and that the `have_bytes` from there hold all of it.
pub(super) fn check(file: &dyn ReadAt, offset_bytes: u64, have_bytes: u64) -> Result<(), FormatError> {
    let mut superblock = [0; format::SUPERBLOCK_BYTES];
    let need_bytes = superblock.len() as u64;
    if have_bytes < need_bytes {
        return Err(FormatError::CutShort { have_bytes, need_bytes });
    }
    file.read_exact_at(&mut superblock, offset_bytes)
        .map_err(|source| FormatError::Read { offset_bytes, source })?;
    if !superblock.starts_with(&format::MAGIC.to_le_bytes()) {
        return Err(FormatError::NoSquashfs { offset_bytes });
    }
    let (_, rest) = superblock.split_at(BYTES_USED_OFFSET_BYTES);
    let bytes_used = rest.first_chunk().expect("a superblock is 96 bytes long");
    let need_bytes = u64::from_le_bytes(*bytes_used);
    if have_bytes < need_bytes {
        return Err(FormatError::CutShort { have_bytes, need_bytes });
    }
    Ok(())
}
