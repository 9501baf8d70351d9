//! Writes a report to a file: the server has no standard streams.

#![expect(clippy::disallowed_methods, reason = "writes the report to where the user wants it")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::sys::file::NO_FOLLOW;

/// Adds a report to the file at `path`, which is made if it is missing. Nobody can be told that it failed.
pub(super) fn write(path: &Path, text: &str) {
    const OWNER_READS_AND_WRITES: u32 = 0o600;
    let file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(OWNER_READS_AND_WRITES)
        // The default path lies in a directory that others write to.
        .custom_flags(NO_FOLLOW)
        .open(path);
    if let Ok(mut file) = file {
        let _ = write!(file, "slipway-fuse {}\n{text}\n", std::process::id());
    }
}
