//! The nasty list: layers that real builders have written and that appliers disagree about, group by group, each with the
//! tree that comes of it. `README.md` beside this file lists the groups and says where umoci does otherwise, and why.
//!
//! A case is data: members of layers, oldest layer first, and the expected tree as text. Each is converted, and the image is
//! read back; then umoci unpacks the same layers, and has the same tree, or the case says what it does instead.
//!
//! ```text
//! d755 etc                     directory, mode, path
//! f644 etc/x `content`         file; longer content as `N bytes DIGEST`
//! f644 etc/y = etc/x           further name of the same inode
//! l etc/z -> target            symbolic link
//! c600 dev/null 1,3            devices (c, b) with their numbers; p and s are pipe and socket
//! @7, user.a=b                 behind any of them: time, where it is not 0, and attributes
//! ```
//!
//! The owner is not shown: everything in an image is root's, and the test asserts that.

mod documents;
mod framing;
mod headers;
mod names;
mod places;
mod whiteouts;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use slipway::base::{Digest, RelPath};
use slipway::convert::{Options, convert};
use slipway::image::Image;
use slipway::squashfs::compress::Compressor;
use slipway::squashfs::read::{Inode, InodeKind, Reader};

use super::convert::{ADDED, is_ours};
use super::support::layers::{StoredLayer, config_of, layer_set, write_layout};
use super::support::need::has_tool;

use super::merge::testing;
use testing::{Member, archive, dir, file, hard_link, member, pax, symlink};

/// Content up to this length is shown, in bytes.
const SHOWN_BYTES: usize = 40;

/// What umoci makes of the same layers.
#[derive(Debug, Clone, Copy)]
enum Umoci {
    /// The same tree.
    Agrees,
    /// Another tree, or an error; the words say which, and why we do otherwise.
    Differs(&'static str),
    /// It cannot say: what is shown needs root, or takes too long.
    NotAsked,
}

/// Layers, and what is known about them.
#[derive(Debug)]
struct Case {
    name: &'static str,
    layers: Vec<StoredLayer>,
    umoci: Umoci,
}

fn case(name: &'static str) -> Case {
    Case { name, layers: Vec::new(), umoci: Umoci::Agrees }
}

impl Case {
    /// One more layer, on top.
    fn layer(self, members: &[Member]) -> Self {
        self.raw(&archive(members))
    }

    /// One more layer, as the bytes of its tar.
    fn raw(self, tar: &[u8]) -> Self {
        self.stored(tar, <[u8]>::to_vec)
    }

    /// One more layer, stored by `store`.
    fn stored(mut self, tar: &[u8], store: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        self.layers.push(StoredLayer::new(tar, store));
        self
    }

    /// umoci does otherwise, in these words.
    fn unlike_umoci(self, why: &'static str) -> Self {
        Self { umoci: Umoci::Differs(why), ..self }
    }

    /// umoci cannot say.
    fn without_umoci(self) -> Self {
        Self { umoci: Umoci::NotAsked, ..self }
    }

    fn convert(&self, directory: &Path) -> Result<PathBuf, String> {
        let set = layer_set(directory, &self.layers, config_of(&self.layers, "{}"));
        let sif = directory.join("image.sif");
        let options =
            Options { compressor: Compressor::Zstd(1), threads: 1, max_entries: 100_000, max_bytes: 1 << 40 };
        convert(&set, &sif, &options).map(|_| sif).map_err(|error| error.to_string())
    }

    /// The layers make this tree.
    #[track_caller]
    fn gives(self, expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let sif = self.convert(directory.path()).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let named: Vec<String> = expected.iter().map(|line| path_of(line)).collect();
        let found = tree_of_image(&sif, &named);
        assert_eq!(found.lines(), expected, "{}", self.name);
        if has_tool("umoci") {
            self.compare(&found, directory.path());
        }
    }

    /// The layers are refused in these words; `A`, `B` … stand for their digests.
    #[track_caller]
    fn gives_error(self, expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let mut error = self.convert(directory.path()).expect_err(self.name);
        for (layer, name) in self.layers.iter().zip(["A", "B", "C", "D"]) {
            for digest in layer.digest.iter().chain([&layer.diff_id]) {
                error = error.replace(&digest.to_string(), name);
            }
        }
        // The merge counts from the top; the words behind say which layer that is.
        let error = error.split("; layer ").next().unwrap_or_default();
        assert_eq!(error, expected, "{}", self.name);
        if has_tool("umoci") {
            let unpacked = self.unpack(directory.path());
            match self.umoci {
                Umoci::Agrees => assert!(unpacked.is_err(), "{}: umoci takes it", self.name),
                Umoci::Differs(why) => {
                    assert!(unpacked.is_ok(), "{}: umoci refuses it too, not: {why}", self.name);
                }
                Umoci::NotAsked => {}
            }
        }
    }

    #[track_caller]
    fn compare(&self, ours: &Found, directory: &Path) {
        let theirs = match self.umoci {
            Umoci::NotAsked => return,
            _ => self.unpack(directory).map(|root| tree_of_directory(&root)),
        };
        let ours = ours.without_times_of_directories();
        match (self.umoci, theirs) {
            (Umoci::Agrees, Ok(theirs)) => {
                let theirs = theirs.without_times_of_directories();
                assert_eq!(ours, theirs, "{}: ours, and umoci's", self.name);
            }
            (Umoci::Agrees, Err(error)) => panic!("{}: umoci: {error}", self.name),
            (Umoci::Differs(why), Ok(theirs)) => {
                let theirs = theirs.without_times_of_directories();
                assert_ne!(ours, theirs, "{}: umoci agrees, not: {why}", self.name);
            }
            _ => {}
        }
    }

    fn unpack(&self, directory: &Path) -> Result<PathBuf, String> {
        let layout = directory.join("layout");
        write_layout(&layout, &self.layers, &config_of(&self.layers, "{}"));
        let root = directory.join("unpacked");
        let output = Command::new("umoci")
            .args(["raw", "unpack", "--rootless", "--image", &format!("{}:latest", layout.display())])
            .arg(&root)
            .env("HOME", directory)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(root)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// The path of an expected line.
fn path_of(line: &str) -> String {
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// A tree: path to what it is, and the inode with its first name.
#[derive(Debug, Default, PartialEq)]
struct Found(BTreeMap<Vec<Vec<u8>>, One>);

#[derive(Debug, Clone, PartialEq)]
struct One {
    /// `f644`.
    kind: String,
    /// Content, target, numbers.
    what: String,
    /// First name of the inode, if it is another one.
    same: Option<String>,
    mtime: i64,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn shown(path: &[Vec<u8>]) -> String {
    path.join(&b'/').escape_ascii().to_string()
}

fn shown_content(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN_BYTES {
        format!(" `{}`", bytes.escape_ascii())
    } else {
        format!(" {} bytes {}", bytes.len(), &Digest::of(bytes).hex()[..16])
    }
}

impl Found {
    fn lines(&self) -> Vec<String> {
        let line = |(path, one): (&Vec<Vec<u8>>, &One)| {
            let mut line = format!("{} {}", one.kind, shown(path));
            match &one.same {
                Some(first) => write!(line, " = {first}").unwrap(),
                None => line.push_str(&one.what),
            }
            if one.mtime != 0 {
                write!(line, " @{}", one.mtime).unwrap();
            }
            for (name, value) in &one.xattrs {
                write!(line, " {}={}", name.escape_ascii(), value.escape_ascii()).unwrap();
            }
            line
        };
        self.0.iter().map(line).collect()
    }

    /// As lines; umoci sets the times of directories before it has written into all of them, and those of links nowhere.
    fn without_times_of_directories(&self) -> Vec<String> {
        let mut copy = Self(self.0.clone());
        for one in copy.0.values_mut().filter(|one| one.kind.starts_with(['d', 'l'])) {
            one.mtime = 0;
        }
        copy.lines()
    }

    /// Says of each further name of an inode which name is the first.
    fn mark_links(&mut self, inodes: &BTreeMap<Vec<Vec<u8>>, u64>) {
        let mut first_names: HashMap<u64, String> = HashMap::new();
        for (path, one) in &mut self.0 {
            let Some(inode) = inodes.get(path) else { continue };
            let first = first_names.entry(*inode).or_insert_with(|| shown(path));
            if *first != shown(path) {
                one.same = Some(first.clone());
            }
        }
    }
}

/// Paths of `named`, and all others that a conversion did not add.
fn tree_of_image(sif: &Path, named: &[String]) -> Found {
    let reader = Reader::open(Image::open(sif).unwrap().partition()).unwrap();
    let mut found = Found::default();
    let mut inodes = BTreeMap::new();
    let mut open = vec![(Vec::new(), reader.root().unwrap())];
    while let Some((path, directory)) = open.pop() {
        for entry in reader.read_dir(&directory).unwrap() {
            let inode = reader.inode(entry.reference).unwrap();
            let mut child: Vec<Vec<u8>> = path.clone();
            child.push(entry.name.to_vec());
            let text = shown(&child);
            let is_added = is_ours(Path::new(&text)) || ADDED.contains(&text.as_str());
            if is_added && !named.contains(&text) {
                continue;
            }
            assert_eq!((inode.uid, inode.gid), (0, 0), "{text}");
            found.0.insert(child.clone(), describe(&reader, &inode));
            if inode.is_directory() {
                open.push((child, inode));
            } else {
                inodes.insert(child, entry.reference);
            }
        }
    }
    found.mark_links(&inodes);
    found
}

fn describe(reader: &Reader, inode: &Inode) -> One {
    let (letter, what) = match &inode.kind {
        InodeKind::Directory(_) => ('d', String::new()),
        InodeKind::File(_) => ('f', shown_content(&reader.read_all(inode, 64 << 20).unwrap())),
        InodeKind::Symlink(target) => ('l', format!(" -> {}", target.escape_ascii())),
        InodeKind::CharDevice { major, minor } => ('c', format!(" {major},{minor}")),
        InodeKind::BlockDevice { major, minor } => ('b', format!(" {major},{minor}")),
        InodeKind::Fifo => ('p', String::new()),
        InodeKind::Socket => ('s', String::new()),
    };
    let mode = if letter == 'l' { String::new() } else { format!("{:o}", inode.mode) };
    let xattrs = reader.xattrs(inode).unwrap();
    One { kind: format!("{letter}{mode}"), what, same: None, mtime: inode.mtime.into(), xattrs }
}

fn tree_of_directory(root: &Path) -> Found {
    let mut found = Found::default();
    let mut inodes = BTreeMap::new();
    let mut open = vec![(Vec::new(), root.to_owned())];
    while let Some((path, directory)) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let full = entry.unwrap().path();
            let mut child: Vec<Vec<u8>> = path.clone();
            child.push(full.file_name().unwrap().as_bytes().to_vec());
            let facts = std::fs::symlink_metadata(&full).unwrap();
            let kind = facts.file_type();
            let (letter, what) = match () {
                () if kind.is_dir() => ('d', String::new()),
                () if kind.is_symlink() => (
                    'l',
                    format!(
                        " -> {}",
                        std::fs::read_link(&full).unwrap().as_os_str().as_bytes().escape_ascii()
                    ),
                ),
                () if kind.is_file() => ('f', shown_content(&std::fs::read(&full).unwrap())),
                () => ('p', String::new()),
            };
            let mode = if letter == 'l' { String::new() } else { format!("{:o}", facts.mode() & 0o7777) };
            let one = One {
                kind: format!("{letter}{mode}"),
                what,
                same: None,
                mtime: facts.mtime(),
                xattrs: user_xattrs(&full),
            };
            found.0.insert(child.clone(), one);
            if kind.is_dir() {
                open.push((child, full));
            } else {
                inodes.insert(child, facts.ino());
            }
        }
    }
    found.mark_links(&inodes);
    found
}

/// `user.*` but what umoci notes for itself.
fn user_xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let output = Command::new("getfattr")
        .args(["--absolute-names", "-h", "-d", "-e", "hex", "-m", "^user\\."])
        .arg(path)
        .output();
    let Ok(output) = output else { return Vec::new() };
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once("=0x"));
    pairs
        .filter(|(name, _)| *name != "user.rootlesscontainers")
        .map(|(name, hex)| {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (name.as_bytes().to_vec(), (0..hex.len()).step_by(2).map(byte).collect())
        })
        .collect()
}

fn whiteout(hidden: &str) -> Member {
    let (parent, name) = hidden.rsplit_once('/').map_or(("", hidden), |(parent, name)| (parent, name));
    file(format!("{parent}{}.wh.{name}", if parent.is_empty() { "" } else { "/" }), "")
}

fn opaque(directory: &str) -> Member {
    file(format!("{directory}{}.wh..wh..opq", if directory.is_empty() { "" } else { "/" }), "")
}

/// What an image's path is after the conversion, for cases about one file.
#[track_caller]
fn mode_of_root(members: &[&[Member]]) -> u16 {
    let directory = tempfile::tempdir().unwrap();
    let case = members.iter().fold(case("the root"), |case, members| case.layer(members));
    let sif = case.convert(directory.path()).unwrap();
    let reader = Reader::open(Image::open(&sif).unwrap().partition()).unwrap();
    reader.resolve(&RelPath::root(), true).unwrap().unwrap().mode
}
