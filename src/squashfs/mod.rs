//! squashfs 4.0: superblock and tables ([`format`]), the tree a writer takes ([`tree`]), our writer and our reader. Pure.
//!
//! Format: <https://dr-emann.github.io/squashfs/> and Linux `fs/squashfs/squashfs_fs.h`.

pub mod tree;
