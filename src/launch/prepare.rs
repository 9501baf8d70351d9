//! Reads the world once for a launch: who calls, what the image has, where paths lead. No thread, no network, no NVML.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::RelPath;
use crate::bundle::{Caller, ImageFiles, optional_host_paths};
use crate::plan::{Facts, HostPath, ImagePath, Needed, PathKind};
use crate::squashfs::read::{Inode, Reader};
use crate::sys::process;

use super::LaunchError;

/// Most bytes of an image's `/etc/passwd`, `/etc/group` or `/etc/ld.so.cache` that are read: far above any real one.
const MAX_SMALL_FILE_BYTES: u64 = 16 << 20;

/// The caller by the environment and procfs. The name comes from `USER` or `LOGNAME` before `/etc/passwd`: on a cluster a
/// name service may take seconds, and the shell or Slurm has asked it already.
#[must_use]
pub fn caller(env: &BTreeMap<OsString, OsString>) -> Caller {
    let (uid, gid) = process::real_ids();
    let text = |name: &str| {
        env.get(OsStr::new(name))
            .and_then(|value| value.to_str())
            .filter(|value| !value.is_empty())
            .map(String::from)
    };
    let name = text("USER").or_else(|| text("LOGNAME")).or_else(|| name_of("/etc/passwd", uid));
    let home = env.get(OsStr::new("HOME")).map(PathBuf::from).or_else(|| home_of(uid));
    Caller {
        uid,
        gid,
        name: name.unwrap_or_else(|| uid.to_string()),
        group: name_of("/etc/group", gid).unwrap_or_else(|| gid.to_string()),
        home: home.filter(|home| home.is_absolute() && home.is_dir()),
        cwd: std::env::current_dir().ok(),
        env: env.clone(),
        host_has: optional_host_paths().filter(|path| path.exists()).map(Path::to_path_buf).collect(),
    }
}

/// The name of an id in a file of `name:password:id:…` lines.
fn name_of(file: &str, id: u32) -> Option<String> {
    line_of(file, id).and_then(|line| line.split(':').next().map(String::from))
}

/// The home directory that `/etc/passwd` has for a user.
#[must_use]
pub fn home_of(uid: u32) -> Option<PathBuf> {
    line_of("/etc/passwd", uid).and_then(|line| line.split(':').nth(5).map(PathBuf::from))
}

fn line_of(file: &str, id: u32) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let id = id.to_string();
    text.lines().find(|line| line.split(':').nth(2) == Some(&id)).map(String::from)
}

/// The image's own files that a bundle is made from.
pub fn image_files(reader: &Reader, name: &str) -> Result<ImageFiles, LaunchError> {
    Ok(ImageFiles {
        passwd: small_file(reader, name, "etc/passwd")?,
        group: small_file(reader, name, "etc/group")?,
    })
}

/// A small file of the image; `None` if it is missing or no regular file.
pub fn small_file(reader: &Reader, image_name: &str, path: &str) -> Result<Option<Vec<u8>>, LaunchError> {
    let failed = |text: String| LaunchError::ImageRead {
        image: image_name.to_owned(),
        path: format!("/{path}"),
        text,
    };
    let path = RelPath::parse(path.as_bytes()).map_err(|error| failed(error.to_string()))?;
    match reader.resolve_path(&path).map_err(|error| failed(error.to_string()))?.inode {
        Some(inode) if inode.is_file() => {
            reader.read_all(&inode, MAX_SMALL_FILE_BYTES).map(Some).map_err(|error| failed(error.to_string()))
        }
        _ => Ok(None),
    }
}

/// Looks up the paths that a plan needs.
pub fn look_up(needed: &Needed, reader: &Reader, image_name: &str) -> Result<Facts, LaunchError> {
    let mut facts = Facts::default();
    for path in &needed.host {
        let Ok(canonical) = fs::canonicalize(path) else { continue };
        let Ok(data) = fs::metadata(&canonical) else { continue };
        let kind = if data.is_dir() { PathKind::Directory } else { PathKind::File };
        facts.host.insert(path.clone(), HostPath { canonical, kind });
    }
    for path in &needed.image {
        let found = reader.resolve_path(path).map_err(|error| LaunchError::ImageRead {
            image: image_name.to_owned(),
            path: path.to_absolute().to_string_lossy().into_owned(),
            text: error.to_string(),
        })?;
        let kind = found.inode.as_ref().map(kind_of);
        facts.image.insert(path.clone(), ImagePath { lands_at: found.path, kind });
    }
    Ok(facts)
}

fn kind_of(inode: &Inode) -> PathKind {
    if inode.is_directory() { PathKind::Directory } else { PathKind::File }
}
