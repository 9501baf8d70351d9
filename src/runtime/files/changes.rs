//! What a container has changed: the directory that its overlay writes to, read as a list and as a layer.
//!
//! The kernel's marks (`Documentation/filesystems/overlayfs.rst`): a character device 0:0 hides what is below, and a
//! directory with `user.overlay.opaque = y` hides all that is below in it. A layer says the same with `.wh.NAME` and
//! `.wh..wh..opq` (image-spec `layer.md`).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{BufWriter, PipeReader, Write};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use serde::{Deserialize, Serialize};

use crate::base::RelPath;
use crate::launch::{self, PrivateView};
use crate::squashfs::read::Reader;
use crate::sys::tree::{self, Directory, Facts, Kind};
use crate::tarlayer::{Entry, EntryKind};

use super::super::container::Container;
use super::super::error::RuntimeError;
use super::CopyError;
use super::pack::{Owner, Packer, Packing, entry, join, shown};

/// A container's change of one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The path from the root, with a `/` before it.
    pub path: OsString,
    /// What has become of it.
    pub kind: ChangeKind,
}

/// What has become of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It, or something in it, is not what the image has.
    Changed,
    /// It is gone.
    Deleted,
}

/// Lists what a container has changed, as docker does, against the files of its image.
pub fn changes(container: &Container, image: &Reader) -> Result<Vec<Change>, RuntimeError> {
    let upper = open_upper(container)?;
    let name = container.record.name.clone();
    let view = launch::private_view(|| {
        let mut found = Vec::new();
        let listed = list(&upper, &[], image, &mut found).map(|()| found);
        serde_json::to_vec(&listed).unwrap_or_default()
    });
    let view = view.map_err(|errno| RuntimeError::Enter { name, act: "starting a process", errno })?;
    let text = view.finish().ok_or(CopyError::Killed)?;
    let listed: Result<Vec<(ChangeKind, Vec<u8>)>, CopyError> =
        serde_json::from_slice(&text).map_err(|_| CopyError::Killed)?;
    let change = |(kind, path): (ChangeKind, Vec<u8>)| Change { path: OsString::from_vec(path), kind };
    let mut found: Vec<Change> = listed?.into_iter().map(change).collect();
    found.sort();
    Ok(found)
}

/// Bytes of the files that a container has added or changed; 0 where none are kept.
pub fn changed_bytes(container: &Container) -> Result<u64, RuntimeError> {
    let Ok(upper) = open_upper(container) else { return Ok(0) };
    let name = container.record.name.clone();
    let view = launch::private_view(|| {
        let mut seen = BTreeSet::new();
        sum(&upper, &mut seen).to_le_bytes().to_vec()
    });
    let view = view.map_err(|errno| RuntimeError::Enter { name, act: "starting a process", errno })?;
    let text = view.finish().ok_or(CopyError::Killed)?;
    Ok(u64::from_le_bytes(text.try_into().map_err(|_| CopyError::Killed)?))
}

/// A file with several names counts once. What ends meanwhile, or cannot be looked at, counts nothing.
fn sum(directory: &Directory, seen: &mut BTreeSet<(u64, u64)>) -> u64 {
    let mut bytes: u64 = 0;
    for name in directory.names().unwrap_or_default() {
        let Ok(facts) = directory.facts(&name) else { continue };
        match facts.kind {
            Kind::Directory => {
                let inner = directory.open_directory(&name).map_or(0, |inner| sum(&inner, seen));
                bytes = bytes.saturating_add(inner);
            }
            Kind::File if facts.names == 1 || seen.insert(facts.identity) => {
                bytes = bytes.saturating_add(facts.size_bytes);
            }
            _ => {}
        }
    }
    bytes
}

/// Changes on their way: what has become of a path.
type Found = Vec<(ChangeKind, Vec<u8>)>;

fn list(directory: &Directory, path: &[u8], image: &Reader, found: &mut Found) -> Result<(), CopyError> {
    let failed = |act: &'static str, path: &[u8]| CopyError::step(act, shown(path));
    let names = directory.names().map_err(failed("read", path))?;
    if is_opaque(directory, path)? {
        let here: BTreeSet<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        for name in image_names(image, path) {
            if !here.contains(name.as_slice()) {
                add(found, &join(path, OsStr::from_bytes(&name)), ChangeKind::Deleted);
            }
        }
    }
    for name in names {
        let path = join(path, &name);
        let facts = directory.facts(&name).map_err(failed("read", &path))?;
        if is_whiteout(&facts) {
            add(found, &path, ChangeKind::Deleted);
            continue;
        }
        let kind = if image_has(image, &path) { ChangeKind::Changed } else { ChangeKind::Added };
        add(found, &path, kind);
        if facts.kind == Kind::Directory {
            let inner = directory.open_directory(&name).map_err(failed("open", &path))?;
            list(&inner, &path, image, found)?;
        }
    }
    Ok(())
}

fn add(found: &mut Found, path: &[u8], kind: ChangeKind) {
    found.push((kind, [b"/", path].concat()));
}

/// An image that cannot be read there tells nothing of the path: then it is new.
fn image_has(image: &Reader, path: &[u8]) -> bool {
    RelPath::parse(path).ok().and_then(|path| image.resolve(&path, false).ok()).flatten().is_some()
}

fn image_names(image: &Reader, path: &[u8]) -> Vec<Vec<u8>> {
    let directory = RelPath::parse(path).ok().and_then(|path| image.resolve(&path, false).ok()).flatten();
    let entries = directory.and_then(|inode| image.read_dir(&inode).ok());
    entries.unwrap_or_default().into_iter().map(|entry| entry.name.into_vec()).collect()
}

fn is_whiteout(facts: &Facts) -> bool {
    facts.kind == Kind::CharDevice { major: 0, minor: 0 }
}

fn is_opaque(directory: &Directory, path: &[u8]) -> Result<bool, CopyError> {
    let failed = || CopyError::step("read the attributes of", shown(path));
    let mark = tree::xattr(directory.as_fd(), "user.overlay.opaque").map_err(failed())?;
    Ok(mark.as_deref() == Some(b"y"))
}

fn open_upper(container: &Container) -> Result<Directory, RuntimeError> {
    let name = &container.record.name;
    let none = |why: &str| CopyError::NoChanges { name: name.clone(), why: why.into() };
    let Some(place) = &container.record.changes else {
        return Err(none("its root is read-only, or writes to memory").into());
    };
    let upper = place.join(launch::UPPER);
    // Made by the first start.
    match Directory::open(&upper) {
        Err(crate::sys::Errno::ENOENT) => Err(none("it was never started").into()),
        other => Ok(other.map_err(CopyError::step("open", &upper))?),
    }
}

/// A layer that is being packed by a child.
#[derive(Debug)]
pub struct ChangeStream {
    /// The uncompressed tar.
    pub tar: PipeReader,
    view: PrivateView,
}

impl ChangeStream {
    /// Waits for the child, once the tar is read, and says how it went.
    pub fn finish(self) -> Result<(), RuntimeError> {
        drop(self.tar);
        match self.view.finish() {
            Some(text) => match serde_json::from_slice::<Option<CopyError>>(&text) {
                Ok(None) => Ok(()),
                Ok(Some(error)) => Err(error.into()),
                Err(_) => Err(CopyError::Killed.into()),
            },
            None => Err(CopyError::Killed.into()),
        }
    }
}

/// Packs what a container has changed as a layer. A child does it that is root of its own files: a mode of 0 keeps it from
/// none of them.
pub fn pack_changes(container: &Container) -> Result<ChangeStream, RuntimeError> {
    let upper = open_upper(container)?;
    let name = container.record.name.clone();
    let (reader, writer) = std::io::pipe().map_err(|error| CopyError::stream(&error))?;
    let mut ends = (Some(reader), Some(writer));
    let view = launch::private_view(|| {
        drop(ends.0.take());
        let packed = ends.1.take().ok_or(CopyError::Killed).and_then(|writer| pack_layer(&upper, writer));
        serde_json::to_vec(&packed.err()).unwrap_or_default()
    });
    let view = view.map_err(|errno| RuntimeError::Enter { name, act: "starting a process", errno })?;
    drop(ends.1.take());
    let tar = ends.0.take().ok_or(CopyError::Killed)?;
    Ok(ChangeStream { tar, view })
}

fn pack_layer(upper: &Directory, out: impl Write) -> Result<(), CopyError> {
    let packing = Packing { owner: Owner::Root, one_mount: false, xattrs: true };
    let mut packer = Packer::new(BufWriter::with_capacity(64 << 10, out), packing);
    pack_inner(upper, b"", &mut packer)?;
    packer.finish()
}

fn pack_inner<W: Write>(directory: &Directory, path: &[u8], packer: &mut Packer<W>) -> Result<(), CopyError> {
    let failed = |act: &'static str, path: &[u8]| CopyError::step(act, shown(path));
    let own = directory.own_facts().map_err(failed("read", path))?;
    let mark = |path: &[u8]| Entry {
        size_bytes: 0,
        mode: 0o644,
        ..entry(path, &Facts { mtime: own.mtime, ..own }, EntryKind::File)
    };
    if is_opaque(directory, path)? {
        packer.add(&mark(&join(path, OsStr::new(".wh..wh..opq"))))?;
    }
    for name in directory.names().map_err(failed("read", path))? {
        let inner_path = join(path, &name);
        let facts = directory.facts(&name).map_err(failed("read", &inner_path))?;
        match facts.kind {
            _ if is_whiteout(&facts) => {
                let hidden = [b".wh.", name.as_bytes()].concat();
                packer.add(&mark(&join(path, OsStr::from_bytes(&hidden))))?;
            }
            Kind::Directory => {
                let inner = directory.open_directory(&name).map_err(failed("open", &inner_path))?;
                packer.add_directory(&inner, &inner_path)?;
                pack_inner(&inner, &inner_path, packer)?;
            }
            _ => packer.pack_name(directory, &name, &inner_path, None)?,
        }
    }
    Ok(())
}
