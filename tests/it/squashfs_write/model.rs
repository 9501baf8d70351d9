//! What an image must hold, in plain lines, and the same lines from a directory.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use slipway::base::Digest;
use slipway::base::tree::{Node, NodeId, NodeKind, Tree};
use slipway::squashfs::compress::Compressor;
use slipway::squashfs::read::{InodeKind, Reader};
use slipway::squashfs::write::{Options, Writer};

use super::BLOCK;

/// Files larger than this are compared at three places, not as a whole.
const COMPARED_WHOLE_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone)]
pub(super) enum What {
    Directory,
    File(Content),
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
    /// A further name of the item of that path.
    Link(&'static str),
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    /// A hole of that many bytes, and some bytes behind it.
    Hole(u64, Vec<u8>),
}

impl Content {
    pub(super) fn size_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Hole(size, tail) => size + tail.len() as u64,
        }
    }

    pub(super) fn reader(&self) -> Box<dyn Read + '_> {
        match self {
            Self::Bytes(bytes) => Box::new(bytes.as_slice()),
            Self::Hole(size, tail) => Box::new(std::io::repeat(0).take(*size).chain(tail.as_slice())),
        }
    }

    pub(super) fn read_at(&self, offset: u64, size: usize) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes[usize::try_from(offset).unwrap()..][..size].to_vec(),
            Self::Hole(hole, tail) => (offset..offset + size as u64)
                .map(|at| at.checked_sub(*hole).map_or(0, |at| tail[usize::try_from(at).unwrap()]))
                .collect(),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) what: What,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u32,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A file tree by path; the order of the map is that of the listing, names compared as bytes.
#[derive(Debug, Default)]
pub(super) struct Model(pub(super) BTreeMap<Vec<Vec<u8>>, Item>);

pub(super) fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

impl Model {
    /// A root directory only.
    pub(super) fn new() -> Self {
        let mut model = Self::default();
        model.add("", What::Directory);
        model
    }

    pub(super) fn add(&mut self, path: impl AsRef<[u8]>, what: What) -> &mut Item {
        let mode = if matches!(what, What::Directory) { 0o755 } else { 0o644 };
        let item = Item { what, mode, uid: 0, gid: 0, mtime: 1_600_000_000, xattrs: Vec::new() };
        let path = components(path.as_ref());
        self.0.insert(path.clone(), item);
        self.0.get_mut(&path).unwrap()
    }

    pub(super) fn bytes(&mut self, path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> &mut Item {
        self.add(path, What::File(Content::Bytes(bytes.as_ref().to_vec())))
    }

    /// Whether something is a directory; `None` if it is not there.
    pub(super) fn is_directory_at(&self, path: &str) -> Option<bool> {
        self.0.get(&components(path.as_bytes())).map(|item| matches!(item.what, What::Directory))
    }

    pub(super) fn image(&self, compressor: Compressor, threads: usize) -> Vec<u8> {
        let options = Options { compressor, threads, mtime: 1_700_000_000 };
        let mut writer = Writer::new(Cursor::new(Vec::new()), options).unwrap();
        let mut nodes = Vec::new();
        let mut ids: HashMap<Vec<Vec<u8>>, NodeId> = HashMap::new();
        for (path, item) in &self.0 {
            let kind = match &item.what {
                What::Directory => NodeKind::Directory(Vec::new()),
                What::File(content) => {
                    NodeKind::File(writer.add_file(content.size_bytes(), &mut content.reader()).unwrap())
                }
                What::Symlink(target) => NodeKind::Symlink(target.clone().into()),
                &What::Char(major, minor) => NodeKind::CharDevice { major, minor },
                &What::Block(major, minor) => NodeKind::BlockDevice { major, minor },
                What::Fifo => NodeKind::Fifo,
                What::Socket => NodeKind::Socket,
                What::Link(_) => continue,
            };
            let xattrs = (!item.xattrs.is_empty()).then(|| Box::new(item.xattrs.clone()));
            ids.insert(path.clone(), u32::try_from(nodes.len()).unwrap());
            let &Item { mode, uid, gid, mtime, .. } = item;
            nodes.push(Node { kind, mode, uid, gid, mtime, xattrs });
        }
        for (path, item) in self.0.iter().rev() {
            let Some((name, parent)) = path.split_last() else { continue };
            let id = match item.what {
                What::Link(target) => ids[&components(target.as_bytes())],
                _ => ids[path],
            };
            let parent = usize::try_from(ids[parent]).unwrap();
            let NodeKind::Directory(children) = &mut nodes[parent].kind else { panic!("no directory") };
            children.push((name.as_slice().into(), id));
        }
        let tree = Tree { nodes, root: 0 };
        let (cursor, size) = writer.finish(&tree).unwrap();
        let bytes = cursor.into_inner();
        assert_eq!(bytes.len() as u64, size);
        bytes
    }

    pub(super) fn resolve<'a>(&'a self, item: &'a Item) -> &'a Item {
        match item.what {
            What::Link(target) => &self.0[&components(target.as_bytes())],
            _ => item,
        }
    }

    /// Hard links by path.
    pub(super) fn links(&self) -> HashMap<Vec<Vec<u8>>, usize> {
        let mut links: HashMap<_, usize> = HashMap::new();
        for (path, item) in &self.0 {
            match item.what {
                What::Directory => {
                    *links.entry(path.clone()).or_default() += 2;
                    if let Some((_, parent)) = path.split_last() {
                        *links.entry(parent.to_vec()).or_default() += 1;
                    }
                }
                What::Link(target) => *links.entry(components(target.as_bytes())).or_default() += 1,
                _ => *links.entry(path.clone()).or_default() += 1,
            }
        }
        links
    }

    /// One line for each item, as [`lines_of_directory`] makes them.
    pub(super) fn lines(&self) -> Vec<String> {
        let links = self.links();
        let line = |(path, item): (&Vec<Vec<u8>>, &Item)| {
            let shown = self.resolve(item);
            let links = match item.what {
                What::Link(target) => links[&components(target.as_bytes())],
                _ => links[path],
            };
            let mut line = head(&path.join(&b'/'), shown, links);
            match &shown.what {
                What::File(content) => {
                    let size = content.size_bytes();
                    line.push_str(&content_word(size, |offset, size| content.read_at(offset, size)));
                }
                What::Symlink(target) => write!(line, "-> {}", target.escape_ascii()).unwrap(),
                What::Char(major, minor) => write!(line, "char {major}:{minor}").unwrap(),
                What::Block(major, minor) => write!(line, "block {major}:{minor}").unwrap(),
                What::Fifo => line.push_str("fifo"),
                What::Socket => line.push_str("socket"),
                What::Directory => line.push_str("directory"),
                What::Link(_) => panic!("a link to a link"),
            }
            line
        };
        self.0.iter().map(line).collect()
    }
}

pub(super) fn head(path: &[u8], item: &Item, links: usize) -> String {
    let &Item { mode, uid, gid, mtime, .. } = item;
    format!("/{} {mode:04o} {uid}/{gid} {mtime} links={links} ", path.escape_ascii())
}

pub(super) fn content_word(size: u64, read: impl Fn(u64, usize) -> Vec<u8>) -> String {
    let spot = BLOCK.min(usize::try_from(size).unwrap());
    let bytes = if size <= COMPARED_WHOLE_BYTES {
        read(0, usize::try_from(size).unwrap())
    } else {
        [0, size / 2, size - spot as u64].into_iter().flat_map(|offset| read(offset, spot)).collect()
    };
    format!("{size} bytes {}", Digest::of(&bytes).short())
}

/// What a directory holds, in the order and the lines of [`Model::lines`].
pub(super) fn lines_of_directory(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut stack = vec![root.to_path_buf()];
    while let Some(path) = stack.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let item = Item {
            what: What::Directory,
            mode: u16::try_from(meta.mode() & 0o7777).unwrap(),
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: u32::try_from(meta.mtime()).unwrap(),
            xattrs: Vec::new(),
        };
        let inside = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let mut line = head(inside, &item, usize::try_from(meta.nlink()).unwrap());
        let (major, minor) = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
        if kind.is_dir() {
            line.push_str("directory");
            let mut below: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort_by(|a, b| b.as_os_str().as_bytes().cmp(a.as_os_str().as_bytes()));
            stack.extend(below);
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            write!(line, "-> {}", target.as_os_str().as_bytes().escape_ascii()).unwrap();
        } else if kind.is_file() {
            let file = fs::File::open(&path).unwrap();
            line.push_str(&content_word(meta.len(), |offset, size| {
                let mut buf = vec![0; size];
                file.read_exact_at(&mut buf, offset).unwrap();
                buf
            }));
        } else if kind.is_char_device() {
            write!(line, "char {major}:{minor}").unwrap();
        } else if kind.is_block_device() {
            write!(line, "block {major}:{minor}").unwrap();
        } else {
            line.push_str(if kind.is_fifo() { "fifo" } else { "socket" });
        }
        lines.push(line);
    }
    lines
}

/// What our own reader finds in an image, in the order and the lines of [`Model::lines`].
pub(super) fn lines_of_image(image: Vec<u8>) -> Vec<String> {
    let reader = Reader::open(Arc::new(image)).unwrap();
    let mut lines = Vec::new();
    let mut stack = vec![(Vec::new(), reader.root().unwrap(), reader.superblock().inode_count + 1)];
    while let Some((path, inode, parent)) = stack.pop() {
        let item = Item {
            what: What::Directory,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            xattrs: Vec::new(),
        };
        let mut line = head(&path, &item, usize::try_from(inode.link_count).unwrap());
        match &inode.kind {
            InodeKind::Directory(directory) => {
                assert_eq!(directory.parent, parent);
                line.push_str("directory");
                for entry in reader.read_dir(&inode).unwrap().into_iter().rev() {
                    let below = if path.is_empty() { Vec::new() } else { [path.as_slice(), b"/"].concat() };
                    let child = reader.inode(entry.reference).unwrap();
                    stack.push(([below.as_slice(), &entry.name].concat(), child, inode.number));
                }
            }
            InodeKind::File(data) => {
                line.push_str(&content_word(data.size_bytes, |offset, size| {
                    let mut buf = vec![0; size];
                    let mut filled = 0;
                    while filled < size {
                        let count =
                            reader.read_at(&inode, offset + filled as u64, &mut buf[filled..]).unwrap();
                        assert!(count > 0, "an early end");
                        filled += count;
                    }
                    buf
                }));
            }
            InodeKind::Symlink(target) => write!(line, "-> {}", target.escape_ascii()).unwrap(),
            InodeKind::CharDevice { major, minor } => write!(line, "char {major}:{minor}").unwrap(),
            InodeKind::BlockDevice { major, minor } => write!(line, "block {major}:{minor}").unwrap(),
            InodeKind::Fifo => line.push_str("fifo"),
            InodeKind::Socket => line.push_str("socket"),
        }
        lines.push(line);
    }
    lines
}

pub(super) fn assert_same_lines(actual: &[String], expected: &[String], what: &str) {
    for (actual, expected) in actual.iter().zip(expected) {
        assert_eq!(actual, expected, "{what}");
    }
    assert_eq!(actual.len(), expected.len(), "{what}");
}
