//! Named volumes: directories of the user's, each with what is known of it beside it.
//!
//! ```text
//! STORE/volumes/NAME/volume.json   when it was made, labels
//! STORE/volumes/NAME/data/         what a container sees
//! ```
//!
//! A volume that is being made lies in `STORE/tmp` and takes its name complete, by rename.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::{Hint, RelPath};
use crate::squashfs::read::{Inode, InodeKind, ReadError, Reader};
use crate::sys::tree::remove_tree;

use super::{Store, StoreError, tmp};

/// Bytes of a file that are copied at once.
const COPY_BYTES: usize = 1 << 20;
/// Longest name, far below what file systems take.
const MAX_NAME_BYTES: usize = 200;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// What is known of it.
    pub facts: VolumeFacts,
    /// Its directory: what is in it is the container's.
    pub data: PathBuf,
}

/// `volume.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFacts {
    /// When it was made, as an RFC 3339 time.
    #[serde(default)]
    pub created: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Made for one container, without a name of the user's.
    #[serde(default)]
    pub anonymous: bool,
}

/// Why a volume cannot be made, found or filled.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Not a name.
    #[error("`{name}` is not a volume name")]
    Name {
        /// The text.
        name: String,
    },
    /// No volume has it.
    #[error("no such volume: `{name}`")]
    Missing {
        /// The name.
        name: String,
    },
    /// The store's files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image's files could not be copied into it.
    #[error("cannot fill the volume `{name}` from the image: {text}")]
    Fill {
        /// The volume.
        name: String,
        /// Why.
        text: String,
    },
}

impl Hint for VolumeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Name { .. } => Some(
                "use letters, digits, `_`, `.` and `-`, two at least, the first a letter or digit".into(),
            ),
            Self::Missing { .. } => Some("`slipway volume ls` lists them".into()),
            Self::Store(error) => error.hint(),
            Self::Fill { .. } => Some("leave it empty with `-v NAME:PATH:nocopy`".into()),
        }
    }
}

/// Docker's rule for names of volumes.
#[must_use]
pub fn is_volume_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (2..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(is_plain)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

impl Store {
    fn volumes_directory(&self) -> PathBuf {
        self.root().join("volumes")
    }

    /// The volume of a name; it is made if there is none.
    pub fn create_volume(&self, name: &str, facts: &VolumeFacts) -> Result<Volume, VolumeError> {
        if !is_volume_name(name) {
            return Err(VolumeError::Name { name: name.into() });
        }
        match self.volume(name) {
            Err(VolumeError::Missing { .. }) => {}
            other => return other,
        }
        let volumes = self.volumes_directory();
        make_private(&volumes)?;
        let new = tmp::fresh_path(&self.tmp_directory());
        make_private(&new.join("data"))?;
        let text = serde_json::to_vec(facts).unwrap_or_default();
        let path = new.join("volume.json");
        fs::write(&path, text).map_err(|error| StoreError::of("write", &path, error))?;
        let place = volumes.join(name);
        if let Err(error) = fs::rename(&new, &place) {
            // Somebody else was faster, and theirs is as good; whatever it is, ours must go.
            let _ = remove_tree(&new);
            if !place.is_dir() {
                return Err(StoreError::of("create", &place, error).into());
            }
        }
        self.volume(name)
    }

    /// The volume of a name.
    pub fn volume(&self, name: &str) -> Result<Volume, VolumeError> {
        let missing = || VolumeError::Missing { name: name.into() };
        if !is_volume_name(name) {
            return Err(missing());
        }
        let place = self.volumes_directory().join(name);
        let path = place.join("volume.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            other => other.map_err(|error| StoreError::of("read", &path, error))?,
        };
        // A damaged file costs the labels, not the data.
        let facts = serde_json::from_slice(&text).unwrap_or_default();
        Ok(Volume { name: name.into(), facts, data: place.join("data") })
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<Volume>, VolumeError> {
        let directory = self.volumes_directory();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| StoreError::of("read", &directory, error))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut found: Vec<Volume> = names.filter_map(|name| self.volume(&name).ok()).collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Removes a volume with what is in it.
    pub fn remove_volume(&self, volume: &Volume) -> Result<(), VolumeError> {
        let place = self.volumes_directory().join(&volume.name);
        Ok(remove_tree(&place).map_err(|error| StoreError::of("remove", &place, error))?)
    }
}

impl Volume {
    /// Copies what the image has at `path` into the volume, if that is empty, as docker does.
    pub fn fill(&self, store: &Store, reader: &Reader, path: &RelPath) -> Result<(), VolumeError> {
        let failed = |text: String| VolumeError::Fill { name: self.name.clone(), text };
        let is_empty = fs::read_dir(&self.data).is_ok_and(|mut entries| entries.next().is_none());
        let found = reader.resolve(path, true).map_err(|error| failed(error.to_string()))?;
        let Some(inode) = found.filter(|inode| is_empty && inode.is_directory()) else { return Ok(()) };
        // Complete or not at all: the directory takes the place of the empty one.
        let new = tmp::fresh_path(&store.tmp_directory());
        let copied =
            copy_tree(reader, inode, &new).and_then(|()| fs::rename(&new, &self.data).map_err(Copy::from));
        copied.or_else(|error| {
            let _ = remove_tree(&new);
            match error {
                // Another container was faster, and what it has put there stays.
                Copy::File(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                error => Err(failed(error.to_string())),
            }
        })
    }
}

fn make_private(path: &Path) -> Result<(), StoreError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| StoreError::of("create", path, error))
}

#[derive(Debug, thiserror::Error)]
enum Copy {
    #[error(transparent)]
    Image(#[from] ReadError),
    #[error(transparent)]
    File(#[from] io::Error),
}

/// Writes a directory of the image. Devices, pipes and sockets are left out; all is the caller's.
fn copy_tree(reader: &Reader, root: Inode, target: &Path) -> Result<(), Copy> {
    let mut open = vec![(root, target.to_path_buf())];
    let mut modes = Vec::new();
    while let Some((directory, place)) = open.pop() {
        fs::DirBuilder::new().mode(0o700).create(&place)?;
        for entry in reader.read_dir(&directory)? {
            let inode = reader.inode(entry.reference)?;
            let path = place.join(std::ffi::OsStr::from_bytes(&entry.name));
            match &inode.kind {
                InodeKind::Directory(_) => open.push((inode, path)),
                InodeKind::File(_) => copy_file(reader, &inode, &path)?,
                InodeKind::Symlink(to) => {
                    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(to), &path)?;
                }
                _ => {}
            }
        }
        modes.push((place, u32::from(directory.mode) & 0o7777 | 0o700));
    }
    // Last, the innermost first: a mode may forbid what is still to be done.
    for (place, mode) in modes.into_iter().rev() {
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn copy_file(reader: &Reader, inode: &Inode, path: &Path) -> Result<(), Copy> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    loop {
        let count = reader.read_at(inode, offset, &mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        file.write_all(bytes)?;
        offset += count as u64;
    }
    let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(inode.mtime.into());
    file.set_times(fs::FileTimes::new().set_modified(modified))?;
    file.set_permissions(fs::Permissions::from_mode(u32::from(inode.mode) & 0o7777 | 0o600))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_come_and_go() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(&base.path().join("store")).unwrap();
        assert!(store.volumes().unwrap().is_empty());
        let facts =
            VolumeFacts { labels: BTreeMap::from([("a".into(), "b".into())]), ..VolumeFacts::default() };
        let made = store.create_volume("data", &facts).unwrap();
        assert_eq!(made.facts, facts);
        fs::write(made.data.join("file"), "x").unwrap();
        // A second time it is the same one.
        assert_eq!(store.create_volume("data", &VolumeFacts::default()).unwrap(), made);
        assert_eq!(
            fs::metadata(base.path().join("store/volumes")).unwrap().permissions().mode() & 0o777,
            0o700
        );
        store.create_volume("b2", &VolumeFacts::default()).unwrap();
        let names: Vec<_> = store.volumes().unwrap().into_iter().map(|volume| volume.name).collect();
        assert_eq!(names, ["b2", "data"]);
        store.remove_volume(&made).unwrap();
        assert_eq!(store.volume("data").unwrap_err().to_string(), "no such volume: `data`");
        for bad in ["", "a", "../x", ".x", "a/b", "a b"] {
            let error = store.create_volume(bad, &VolumeFacts::default()).unwrap_err().to_string();
            assert_eq!(error, format!("`{bad}` is not a volume name"));
        }
    }
}
