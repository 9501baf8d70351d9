//! squashfs 4.0: superblock and tables ([`format`]), our writer and our reader. Pure: bytes come and go through
//! [`crate::base::ReadAt`] and [`std::io::Write`].
//!
//! Format: <https://dr-emann.github.io/squashfs/> and Linux `fs/squashfs/squashfs_fs.h`.

pub mod bound;
pub mod compress;
pub mod format;
pub mod read;
pub mod sums;
pub mod write;
