//! A directory for the targets whose parser takes a path. The script gives one in memory, by `TMPDIR`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The directory of this process.
pub(crate) fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("slipway-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the scratch directory can be made");
        path
    })
}

/// A file of that content. There is one, made anew by each call with its name.
pub(crate) fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = directory().join(name);
    std::fs::write(&path, content).expect("the scratch directory can be written");
    path
}
