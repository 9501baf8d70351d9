//! What Linux can hold in names, paths and attributes (linux/limits.h). Images with more are refused where they come in.

/// Longest name of one file, in bytes: `NAME_MAX`.
pub const NAME_BYTES: usize = 255;
/// Longest path, and longest target of a symbolic link, in bytes: `PATH_MAX` without its NUL.
pub const PATH_BYTES: usize = 4095;
/// Longest name of an extended attribute with its prefix, in bytes: `XATTR_NAME_MAX`.
pub const XATTR_NAME_BYTES: usize = 255;
/// Longest value of an extended attribute, in bytes: `XATTR_SIZE_MAX`.
pub const XATTR_VALUE_BYTES: usize = 65_536;
