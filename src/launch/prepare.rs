//! Reads the world once for a launch: who calls, what the image has, where paths lead. No thread, no network, no NVML.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::base::RelPath;
use crate::bundle::{Bundle, Caller, ImageFiles, optional_host_paths};
use crate::plan::{self, Facts, HostPath, ImagePath, PathKind};
use crate::squashfs::read::{Inode, ReadError, Reader};
use crate::sys::process;

use super::LaunchError;

/// Most bytes of an image's `/etc/passwd`, `/etc/group` or `/etc/ld.so.cache` that are read: far above any real one.
const MAX_SMALL_FILE_BYTES: u64 = 16 << 20;

/// The caller by the environment and procfs. The name comes from `USER` or `LOGNAME` before `/etc/passwd`: on a cluster a
/// name service may take seconds, and the shell or Slurm has asked it already.
#[must_use]
pub fn caller(env: &BTreeMap<OsString, OsString>) -> Caller {
    let (uid, gid) = process::own_ids();
    let text = |name: &str| {
        env.get(OsStr::new(name))
            .and_then(|value| value.to_str())
            .filter(|value| !value.is_empty())
            .map(String::from)
    };
    let name = text("USER").or_else(|| text("LOGNAME")).or_else(|| name_of("/etc/passwd", uid));
    let home = env.get(OsStr::new("HOME")).filter(|home| !home.is_empty()).map(PathBuf::from);
    let home = home.or_else(|| home_of(uid)).and_then(|home| clean(&home));
    Caller {
        uid,
        gid,
        name: name.unwrap_or_else(|| uid.to_string()),
        group: name_of("/etc/group", gid).unwrap_or_else(|| gid.to_string()),
        home: home.filter(|home| home.is_dir()),
        cwd: std::env::current_dir().ok(),
        env: env.clone(),
        host_has: optional_host_paths().filter(|path| path.exists()).map(Path::to_path_buf).collect(),
    }
}

/// The same path without `.`, `..` and doubled slashes, which a mount point may not have. `..` is followed by name, as a
/// shell does it. `None` if it is not absolute or climbs out.
fn clean(path: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    path.is_absolute()
        .then(|| RelPath::parse(path.as_os_str().as_bytes()).ok())
        .flatten()
        .map(|path| path.to_absolute())
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

/// Looks up the paths that a plan for `bundle` needs.
pub fn look_up(bundle: &Bundle, reader: &Reader, image_name: &str) -> Result<Facts, LaunchError> {
    let needed = plan::needed(bundle)?;
    let mut facts = Facts::default();
    for path in &needed.image {
        let fact = image_path(path, reader).map_err(|error| LaunchError::ImageRead {
            image: image_name.to_owned(),
            path: path.to_absolute().to_string_lossy().into_owned(),
            text: error.to_string(),
        })?;
        facts.image.insert(path.clone(), fact);
    }
    let below = plan::needed_below(bundle, &facts)?;
    for path in needed.host.into_iter().chain(below) {
        match host_path(&path) {
            Ok(found) => drop(facts.host.insert(path, found)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => drop(facts.unreachable.insert(path, error.to_string())),
        }
    }
    Ok(facts)
}

fn host_path(path: &Path) -> io::Result<HostPath> {
    let canonical = fs::canonicalize(path)?;
    let data = fs::metadata(&canonical)?;
    Ok(HostPath { canonical, kind: if data.is_dir() { PathKind::Directory } else { PathKind::File } })
}

fn image_path(path: &RelPath, reader: &Reader) -> Result<ImagePath, ReadError> {
    let found = reader.resolve_path(path)?;
    let kind = found.inode.as_ref().map(kind_of);
    let mut blocked_by = None;
    let mut above = if kind.is_none() { found.path.parent() } else { None };
    while let Some(directory) = above {
        if let Some(inode) = reader.resolve_path(&directory)?.inode {
            blocked_by = (!inode.is_directory()).then_some(directory);
            break;
        }
        above = directory.parent();
    }
    Ok(ImagePath { lands_at: found.path, kind, blocked_by })
}

fn kind_of(inode: &Inode) -> PathKind {
    if inode.is_directory() { PathKind::Directory } else { PathKind::File }
}
