//! A tar to a tree of files. Every name is made in an opened directory; what the archive itself brings is never followed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::sys::tree::{Directory, Kind};
use crate::sys::{Errno, to_errno};
use crate::tarlayer::{Entry, EntryKind, TarReader};

use super::CopyError;

/// Where an archive's tree goes.
#[derive(Debug)]
pub(super) enum Target {
    /// The root of the archive's tree gets this name in this directory.
    Named { directory: Directory, name: OsString },
    /// What is in the root of the archive's tree goes into this directory.
    Into(Directory),
}

/// What is at hand of the source before the first byte comes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Head {
    pub(super) is_directory: bool,
    /// Its name; `.` stands for what is in it.
    pub(super) base: Vec<u8>,
}

impl Target {
    /// docker's rules for where a copy goes. Links in `path` are followed, inside this process's root.
    pub(super) fn find(path: &Path, head: &Head, whose: &str) -> Result<Self, CopyError> {
        let must_be_directory = path.as_os_str().as_bytes().ends_with(b"/");
        let missing = |path: &Path| CopyError::Missing { path: path.into(), whose: whose.into() };
        match Directory::open(path) {
            Ok(directory) if head.base == b"." => return Ok(Self::Into(directory)),
            Ok(directory) => {
                let name = OsStr::from_bytes(&head.base).to_owned();
                return Ok(Self::Named { directory, name });
            }
            // A file, or a link to one.
            Err(Errno::ENOTDIR) if !must_be_directory => {
                if head.is_directory {
                    return Err(CopyError::DirectoryOnFile { path: path.into() });
                }
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                if must_be_directory && !head.is_directory {
                    return Err(CopyError::NoDirectory { path: path.into() });
                }
            }
            Err(errno) => return Err(CopyError::step("open", path)(errno)),
        }
        let name = path.file_name().ok_or_else(|| missing(path))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = Directory::open(parent).map_err(|errno| match errno {
            Errno::ENOENT | Errno::ENOTDIR => missing(parent),
            errno => CopyError::step("open", parent)(errno),
        })?;
        // A link to a file, or to where one could be, is written through.
        match directory.facts(name) {
            Ok(facts) if facts.kind == Kind::Symlink => {
                let (directory, name) = directory.resolve_link(name).map_err(|errno| match errno {
                    Errno::ENOENT | Errno::ENOTDIR => missing(path),
                    errno => CopyError::step("follow", path)(errno),
                })?;
                Ok(Self::Named { directory, name })
            }
            _ => Ok(Self::Named { directory, name: name.to_owned() }),
        }
    }
}

/// Whether the first part of every name is the root's, as in our own archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// It stands for the root.
    Rooted,
    /// It is a name like the others.
    Plain,
}

/// Unpacks everything.
pub(super) fn unpack(stream: &mut dyn Read, target: &Target, names: Names) -> Result<(), CopyError> {
    let archive = |words: String| CopyError::Archive { words };
    let mut reader = TarReader::new(io::BufReader::with_capacity(64 << 10, stream));
    let mut unpacker = Unpacker { target, made: BTreeSet::new(), directories: Vec::new() };
    while let Some(entry) = reader.next_entry().map_err(|error| archive(error.to_string()))? {
        let parts = parts(&entry.path, names)?;
        unpacker.add(&entry, &parts, names, &mut reader.data())?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    target: &'a Target,
    /// Links that came with the archive, by their places.
    made: BTreeSet<Vec<OsString>>,
    /// Modes and times of directories, which are set when everything is in them.
    directories: Vec<(Vec<OsString>, u32, i64)>,
}

impl Unpacker<'_> {
    fn add(
        &mut self,
        entry: &Entry,
        parts: &[OsString],
        names: Names,
        data: &mut dyn Read,
    ) -> Result<(), CopyError> {
        let place = self.shown(parts);
        let failed = |act: &'static str| CopyError::step(act, &place);
        let Some((directory, name)) = self.locate(parts)? else {
            // The root of an archive that goes into a directory.
            return Ok(());
        };
        let name = name.as_os_str();
        let found = match directory.facts(name) {
            Ok(facts) => Some(facts.kind),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(failed("read")(errno)),
        };
        if entry.kind == EntryKind::Directory {
            match found {
                None => directory.make_directory(name, entry.mode | 0o700).map_err(failed("make"))?,
                Some(Kind::Directory) => {}
                Some(_) => {
                    let why = "it is no directory, and a directory was to come".into();
                    return Err(CopyError::InTheWay { path: place, why });
                }
            }
            self.directories.push((parts.to_vec(), entry.mode, entry.mtime));
            return Ok(());
        }
        match found {
            Some(Kind::Directory) => {
                let why = "it is a directory, and something else was to come".into();
                return Err(CopyError::InTheWay { path: place, why });
            }
            Some(_) => directory.remove(name).map_err(failed("replace"))?,
            None => {}
        }
        match &entry.kind {
            EntryKind::Directory => {}
            EntryKind::File => {
                let mut file = directory.create_file(name, 0o600).map_err(failed("make"))?;
                io::copy(data, &mut file)
                    .and_then(|_| file.flush())
                    .map_err(|error| failed("write")(to_errno(error)))?;
                directory.set_mode(name, entry.mode).map_err(failed("set the mode of"))?;
            }
            EntryKind::Symlink => {
                directory.make_symlink(name, OsStr::from_bytes(&entry.link)).map_err(failed("make"))?;
                self.made.insert(parts.to_vec());
            }
            EntryKind::HardLink => {
                let other = self::parts(&entry.link, names)?;
                let found = self.locate(&other)?;
                let (from, other) = found.ok_or_else(|| failed("link")(Errno::EISDIR))?;
                directory.make_hard_link(name, &from, &other).map_err(failed("link"))?;
                return Ok(());
            }
            EntryKind::Fifo => {
                directory.make_node(name, Kind::Fifo, entry.mode).map_err(failed("make"))?;
            }
            EntryKind::CharDevice { major, minor } => {
                let kind = Kind::CharDevice { major: *major, minor: *minor };
                directory.make_node(name, kind, entry.mode).map_err(failed("make"))?;
            }
            EntryKind::BlockDevice { major, minor } => {
                let kind = Kind::BlockDevice { major: *major, minor: *minor };
                directory.make_node(name, kind, entry.mode).map_err(failed("make"))?;
            }
        }
        directory.set_mtime(name, entry.mtime).map_err(failed("set the time of"))
    }

    /// The directory that holds a place, and its name there. Directories on the way are made where they are missing. Links
    /// that were there before are followed inside this process's root; those of the archive are not.
    fn locate(&self, parts: &[OsString]) -> Result<Option<(Directory, OsString)>, CopyError> {
        let place = self.shown(parts);
        let failed = |act: &'static str| CopyError::step(act, &place);
        let again = |directory: &Directory| directory.again().map_err(failed("open"));
        let (mut at, rest, root): (Directory, &[OsString], &[OsString]) = match (self.target, parts) {
            (Target::Named { directory, name }, []) => return Ok(Some((again(directory)?, name.clone()))),
            (Target::Into(_), []) => return Ok(None),
            (Target::Named { directory, name }, rest) => {
                (enter(directory, name, true).map_err(failed("open"))?, rest, &[])
            }
            (Target::Into(directory), rest) => (again(directory)?, rest, &[]),
        };
        let Some((last, way)) = rest.split_last() else { return Ok(None) };
        let mut path = root.to_vec();
        for name in way {
            path.push(name.clone());
            at = enter(&at, name, !self.made.contains(&path)).map_err(failed("open"))?;
        }
        Ok(Some((at, last.clone())))
    }

    fn shown(&self, parts: &[OsString]) -> PathBuf {
        let root = match self.target {
            Target::Named { name, .. } => Path::new(name),
            Target::Into(_) => Path::new(""),
        };
        parts.iter().fold(root.to_path_buf(), |path, part| path.join(part))
    }

    fn finish(self) -> Result<(), CopyError> {
        // Those inside before those around: a closed directory cannot be entered.
        for (parts, mode, mtime) in self.directories.iter().rev() {
            let place = self.shown(parts);
            let failed = |act: &'static str| CopyError::step(act, &place);
            let Some((directory, name)) = self.locate(parts)? else { continue };
            directory.set_mtime(&name, *mtime).map_err(failed("set the time of"))?;
            directory.set_mode(&name, *mode).map_err(failed("set the mode of"))?;
        }
        Ok(())
    }
}

/// Opens a directory in another one, and makes it where it is missing.
fn enter(directory: &Directory, name: &OsStr, follow: bool) -> Result<Directory, Errno> {
    match directory.open_directory(name) {
        Err(Errno::ENOENT) => {
            directory.make_directory(name, 0o755)?;
            directory.open_directory(name)
        }
        Err(Errno::ENOTDIR | Errno::ELOOP) if follow => directory.open_through_link(name),
        other => other,
    }
}

/// The names of a path of an archive.
fn parts(path: &[u8], names: Names) -> Result<Vec<OsString>, CopyError> {
    let mut parts = Vec::new();
    let words = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    for part in words.skip(usize::from(names == Names::Rooted)) {
        match part {
            b"." => {}
            b".." => {
                let path = String::from_utf8_lossy(path).into_owned();
                return Err(CopyError::Archive { words: format!("the name `{path}` leads out of it") });
            }
            part => parts.push(OsStr::from_bytes(part).to_owned()),
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarlayer::TarWriter;

    fn entry(path: &str, kind: EntryKind, link: &str) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 1,
            size_bytes: 0,
            link: link.into(),
            xattrs: Vec::new(),
        }
    }

    fn unpack_into(place: &Path, entries: &[Entry]) -> Result<(), CopyError> {
        let mut writer = TarWriter::new(Vec::new());
        for entry in entries {
            writer.add(entry).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let target = Target::Into(Directory::open(place).unwrap());
        unpack(&mut bytes.as_slice(), &target, Names::Plain)
    }

    #[test]
    fn an_archive_s_own_links_lead_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        let place = tempfile::tempdir().unwrap();
        let away = outside.path().to_str().unwrap();
        let error = unpack_into(
            place.path(),
            &[entry("a", EntryKind::Symlink, away), entry("a/file", EntryKind::File, "")],
        );
        assert!(error.is_err(), "{error:?}");
        assert!(outside.path().read_dir().unwrap().next().is_none());
        for bad in ["../x", "a/../../x", "/.."] {
            let error = unpack_into(place.path(), &[entry(bad, EntryKind::File, "")]).unwrap_err();
            assert!(error.to_string().contains("leads out of it"), "{error}");
        }
        let error = unpack_into(place.path(), &[entry("h", EntryKind::HardLink, "../x")]).unwrap_err();
        assert!(error.to_string().contains("leads out of it"), "{error}");
    }

    #[test]
    fn closed_directories_are_filled_first() {
        let place = tempfile::tempdir().unwrap();
        let closed = Entry { mode: 0o555, ..entry("d/", EntryKind::Directory, "") };
        unpack_into(place.path(), &[closed.clone(), entry("d/e/f", EntryKind::File, "")]).unwrap();
        assert!(place.path().join("d/e/f").is_file());
        unpack_into(place.path(), &[closed]).unwrap();
        let error = unpack_into(place.path(), &[entry("d", EntryKind::File, "")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot overwrite `d`: it is a directory, and something else was to come"
        );
    }
}
