//! Facts that are slow to get, kept for one boot: where the driver's files are, and what NVML said.
//!
//! The file is the user's own (0600, owner checked) and is thrown away whole when anything in its key has changed: a
//! driver update, a reboot, a new library, another `LD_LIBRARY_PATH`.
#![expect(clippy::disallowed_methods, reason = "reads and writes the cache file")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::process;

use super::super::host_root::Stamp;
use super::super::{Hints, HostRoot, Inventory};
use super::libs::LOADER_CACHE;

/// Format of the file; another number is another key.
const FORMAT: u32 = 3;
/// Most bytes that are read; a real file has about 20 KiB.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Key {
    format: u32,
    boot_id: String,
    module_version: Option<String>,
    module_source: Option<String>,
    loader_cache: Option<Stamp>,
    library_directory: Option<(PathBuf, Option<Stamp>)>,
    library_path: Vec<PathBuf>,
    search: Vec<PathBuf>,
    driver_root: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    key: Key,
    inventory: Inventory,
}

/// What was kept, if it still holds.
pub(super) fn load(root: &HostRoot, hints: &Hints, module_version: Option<&str>) -> Option<Inventory> {
    let text = read_own_file(hints.cache_file.as_deref()?)?;
    let remembered: Remembered = serde_json::from_slice(&text).ok()?;
    let directory = remembered.inventory.files.directory.as_deref();
    let key = current_key(root, hints, module_version, directory)?;
    (remembered.key == key).then_some(remembered.inventory)
}

/// Keeps an inventory. What goes wrong here costs time at the next start and nothing else.
pub(super) fn save(root: &HostRoot, hints: &Hints, inventory: &Inventory) {
    let Some(path) = hints.cache_file.as_deref() else { return };
    let directory = inventory.files.directory.as_deref();
    let Some(key) = current_key(root, hints, inventory.driver_version.as_deref(), directory) else { return };
    let kept = Inventory { findings: Vec::new(), ..inventory.clone() };
    if let Ok(text) = serde_json::to_vec(&Remembered { key, inventory: kept }) {
        // Nothing to tell: see above.
        let _ = write_own_file(path, &text);
    }
}

fn current_key(
    root: &HostRoot,
    hints: &Hints,
    module_version: Option<&str>,
    directory: Option<&Path>,
) -> Option<Key> {
    Some(Key {
        format: FORMAT,
        boot_id: root.read("/proc/sys/kernel/random/boot_id")?,
        module_version: module_version.map(str::to_owned),
        module_source: root.read("/sys/module/nvidia/srcversion"),
        loader_cache: root.stamp(Path::new(LOADER_CACHE)),
        library_directory: directory.map(|path| (path.to_path_buf(), root.stamp(path))),
        library_path: hints.library_path.clone(),
        search: hints.search.clone(),
        driver_root: hints.driver_root.clone(),
    })
}

/// The bytes of a regular file that only this user can have written.
fn read_own_file(path: &Path) -> Option<Vec<u8>> {
    // Looked at before it is opened: opening a pipe would wait.
    if !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let file = fs::File::open(path).ok()?;
    let facts = file.metadata().ok()?;
    if !facts.is_file() || facts.uid() != process::own_ids().0 || facts.mode() & 0o077 != 0 {
        return None;
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Replaced in one step, so that a reader never sees a half.
fn write_own_file(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(name);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let result = file.write_all(text).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        fs::remove_file(&temporary)?;
    }
    result
}
