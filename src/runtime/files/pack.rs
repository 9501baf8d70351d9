//! A tree of files to a tar.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::sys::Errno;
use crate::sys::tree::{self, Directory, Facts, Kind};
use crate::tarlayer::{Entry, EntryKind, TarWriter};

use super::CopyError;

/// How deep directories may lie in each other: one fd is open for each.
const DEEPEST: usize = 900;

/// What is packed, found by a path whose links lead inside this process's root.
#[derive(Debug)]
pub(super) struct Source {
    /// The directory that holds it.
    directory: Directory,
    name: std::ffi::OsString,
    /// The name that it has in an archive; `.` stands for what is in it.
    pub(super) base: Vec<u8>,
    /// Whether it is a directory.
    pub(super) is_directory: bool,
}

/// Whether a link at the end of the path is meant itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastLink {
    /// The link.
    Keep,
    /// What it leads to.
    Follow,
}

impl Source {
    /// Finds it. A path that ends with `/` or `/.` means a directory, and follows a link to one.
    pub(super) fn find(path: &Path, last: LastLink, whose: &str) -> Result<Self, CopyError> {
        let bytes = path.as_os_str().as_bytes();
        let is_contents = bytes.ends_with(b"/.") || bytes == b".";
        let must_be_directory = is_contents || bytes.ends_with(b"/");
        let missing = || CopyError::Missing { path: path.into(), whose: whose.into() };
        let failed = |errno| match errno {
            Errno::ENOENT => missing(),
            errno => CopyError::step("read", path)(errno),
        };
        let name = path.file_name().filter(|_| !is_contents);
        let Some(name) = name else {
            // The root, a directory's contents, or `..`: what it is called does not matter.
            let directory = Directory::open(path).map_err(failed)?;
            return Ok(Self { directory, name: ".".into(), base: b".".to_vec(), is_directory: true });
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = Directory::open(parent).map_err(failed)?;
        let facts = directory.facts(name).map_err(failed)?;
        let base = name.as_bytes().to_vec();
        if facts.kind == Kind::Symlink && (last == LastLink::Follow || must_be_directory) {
            let (directory, name) = directory.resolve_link(name).map_err(failed)?;
            let facts = directory.facts(&name).map_err(failed)?;
            let is_directory = facts.kind == Kind::Directory;
            return Ok(Self { directory, name, base, is_directory });
        }
        let is_directory = facts.kind == Kind::Directory;
        if must_be_directory && !is_directory {
            return Err(failed(Errno::ENOTDIR));
        }
        Ok(Self { directory, name: name.into(), base, is_directory })
    }
}

/// Whose the files are in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// As they are.
    Own,
    /// Root's: one user stands for all.
    Root,
}

/// What goes into the archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    pub(super) owner: Owner,
    /// Mounts below are shown as the empty directories and files that they are mounted on.
    pub(super) one_mount: bool,
    /// Extended attributes of the user's go in, too.
    pub(super) xattrs: bool,
}

/// Names and values of extended attributes.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Packs trees into one archive.
#[derive(Debug)]
pub(super) struct Packer<W> {
    pub(super) writer: TarWriter<W>,
    packing: Packing,
    /// Files with several names that are in already.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    depth: usize,
}

impl<W: Write> Packer<W> {
    pub(super) fn new(out: W, packing: Packing) -> Self {
        Self { writer: TarWriter::new(out), packing, links: BTreeMap::new(), depth: 0 }
    }

    /// Packs a source under the name `root`.
    pub(super) fn pack(&mut self, source: &Source, root: &[u8]) -> Result<(), CopyError> {
        let mount = tree::mount_id(&source.directory, &source.name).filter(|_| self.packing.one_mount);
        if source.name == "." {
            let directory = source.directory.again().map_err(CopyError::step("open", shown(root)))?;
            return self.pack_directory(&directory, root, mount);
        }
        self.pack_name(&source.directory, &source.name, root, mount)
    }

    pub(super) fn pack_name(
        &mut self,
        directory: &Directory,
        name: &OsStr,
        path: &[u8],
        mount: Option<u64>,
    ) -> Result<(), CopyError> {
        let failed = |act: &'static str| CopyError::step(act, shown(path));
        let facts = match directory.facts(name) {
            // Somebody has removed it meanwhile.
            Err(Errno::ENOENT) => return Ok(()),
            other => other.map_err(failed("read"))?,
        };
        let is_other_mount = mount.is_some() && tree::mount_id(directory, name) != mount;
        match facts.kind {
            Kind::Directory if is_other_mount => self.add(&entry(path, &facts, EntryKind::Directory)),
            Kind::File if is_other_mount => {
                self.add(&Entry { size_bytes: 0, ..entry(path, &facts, EntryKind::File) })
            }
            Kind::Directory => {
                let inner = directory.open_directory(name).map_err(failed("open"))?;
                self.pack_directory(&inner, path, mount)
            }
            Kind::File => self.pack_file(directory, name, path, &facts),
            Kind::Symlink => {
                let link = directory.read_link(name).map_err(failed("read"))?;
                let link = link.as_bytes().to_vec();
                self.add(&Entry { link, ..entry(path, &facts, EntryKind::Symlink) })
            }
            Kind::Fifo => self.add(&entry(path, &facts, EntryKind::Fifo)),
            // A socket without its process is nothing, and tar has no form for it.
            Kind::Socket => Ok(()),
            Kind::CharDevice { major, minor } => {
                self.add(&entry(path, &facts, EntryKind::CharDevice { major, minor }))
            }
            Kind::BlockDevice { major, minor } => {
                self.add(&entry(path, &facts, EntryKind::BlockDevice { major, minor }))
            }
        }
    }

    /// A directory, and all that is in it.
    pub(super) fn pack_directory(
        &mut self,
        directory: &Directory,
        path: &[u8],
        mount: Option<u64>,
    ) -> Result<(), CopyError> {
        self.add_directory(directory, path)?;
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(CopyError::step("open", shown(path))(Errno::ENAMETOOLONG));
        }
        for name in directory.names().map_err(CopyError::step("read", shown(path)))? {
            self.pack_name(directory, &name, &join(path, &name), mount)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// A directory alone.
    pub(super) fn add_directory(&mut self, directory: &Directory, path: &[u8]) -> Result<(), CopyError> {
        let failed = |act: &'static str| CopyError::step(act, shown(path));
        let facts = directory.own_facts().map_err(failed("read"))?;
        let xattrs = self.xattrs(directory, path)?;
        self.add(&Entry { xattrs, ..entry(path, &facts, EntryKind::Directory) })
    }

    /// A regular file, or a further name of one that is in already.
    pub(super) fn pack_file(
        &mut self,
        directory: &Directory,
        name: &OsStr,
        path: &[u8],
        facts: &Facts,
    ) -> Result<(), CopyError> {
        let failed = |act: &'static str| CopyError::step(act, shown(path));
        if facts.names > 1 {
            if let Some(first) = self.links.get(&facts.identity) {
                let link = first.clone();
                return self.add(&Entry { link, size_bytes: 0, ..entry(path, facts, EntryKind::HardLink) });
            }
            self.links.insert(facts.identity, path.to_vec());
        }
        let mut file = directory.open_file(name).map_err(failed("open"))?;
        let xattrs = self.xattrs(&file, path)?;
        let entry = self.owned(Entry { xattrs, ..entry(path, facts, EntryKind::File) });
        self.writer.add_file(&entry, &mut file).map_err(|error| CopyError::stream(&error))
    }

    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), CopyError> {
        let entry = self.owned(entry.clone());
        self.writer.add(&entry).map_err(|error| CopyError::stream(&error))
    }

    fn owned(&self, entry: Entry) -> Entry {
        match self.packing.owner {
            Owner::Own => entry,
            Owner::Root => Entry { uid: 0, gid: 0, ..entry },
        }
    }

    fn xattrs(&self, fd: impl std::os::fd::AsFd, path: &[u8]) -> Result<Attributes, CopyError> {
        if !self.packing.xattrs {
            return Ok(Vec::new());
        }
        let failed = || CopyError::step("read the attributes of", shown(path));
        let mut found = Vec::new();
        for name in tree::user_xattrs(fd.as_fd()).map_err(failed())? {
            // The overlay's own marks are no one's attributes.
            if name.starts_with("user.overlay.") {
                continue;
            }
            if let Some(value) = tree::xattr(fd.as_fd(), &name).map_err(failed())? {
                found.push((name.into_bytes(), value));
            }
        }
        Ok(found)
    }

    pub(super) fn finish(self) -> Result<(), CopyError> {
        self.writer.finish().map(drop).map_err(|error| CopyError::stream(&error))
    }
}

/// An entry with what is known of a file.
pub(super) fn entry(path: &[u8], facts: &Facts, kind: EntryKind) -> Entry {
    let path = match kind {
        EntryKind::Directory => [path, b"/"].concat(),
        _ => path.to_vec(),
    };
    let size_bytes = if kind == EntryKind::File { facts.size_bytes } else { 0 };
    Entry {
        path,
        kind,
        mode: facts.mode,
        uid: facts.uid.into(),
        gid: facts.gid.into(),
        mtime: facts.mtime,
        size_bytes,
        link: Vec::new(),
        xattrs: Vec::new(),
    }
}

pub(super) fn join(path: &[u8], name: &OsStr) -> Vec<u8> {
    match path {
        b"" => name.as_bytes().to_vec(),
        path => [path, b"/", name.as_bytes()].concat(),
    }
}

pub(super) fn shown(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}
