//! Compares directory trees: every path with its type, mode, size, link target and content.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use slipway::base::{Digest, Hasher};

/// One path of a tree; everything that must be equal in two copies of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `f`, `d`, `l`, `c`, `b`, `p` or `s`.
    pub(crate) kind: char,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Length of a regular file, in bytes.
    pub(crate) size_bytes: u64,
    /// Target of a symbolic link.
    pub(crate) link: Option<PathBuf>,
    /// Digest of a regular file.
    pub(crate) digest: Option<Digest>,
    /// First path, in sorted order, of the group of hard links that this file belongs to.
    pub(crate) first_name: PathBuf,
}

/// All paths below `root` that `is_wanted` takes; it is given paths relative to `root`.
pub(crate) fn walk(root: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> BTreeMap<PathBuf, Entry> {
    let mut open = vec![root.to_owned()];
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    while let Some(directory) = open.pop() {
        for child in std::fs::read_dir(&directory).unwrap() {
            let path = child.unwrap().path();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            if !is_wanted(&relative) {
                continue;
            }
            let facts = std::fs::symlink_metadata(&path).unwrap();
            let kind = facts.file_type();
            if kind.is_dir() {
                open.push(path.clone());
            } else if facts.nlink() > 1 {
                inodes.entry(facts.ino()).or_insert_with(Vec::new).push(relative.clone());
            }
            let entry = Entry {
                kind: match () {
                    () if kind.is_file() => 'f',
                    () if kind.is_dir() => 'd',
                    () if kind.is_symlink() => 'l',
                    () if kind.is_char_device() => 'c',
                    () if kind.is_block_device() => 'b',
                    () if kind.is_fifo() => 'p',
                    () => 's',
                },
                mode: facts.mode() & 0o7777,
                size_bytes: if kind.is_file() { facts.size() } else { 0 },
                link: kind.is_symlink().then(|| std::fs::read_link(&path).unwrap()),
                digest: kind.is_file().then(|| digest_of(&path)),
                first_name: relative.clone(),
            };
            found.insert(relative, entry);
        }
    }
    for names in inodes.values_mut() {
        names.sort();
        for name in names.iter() {
            found.get_mut(name).unwrap().first_name.clone_from(&names[0]);
        }
    }
    found
}

/// Digest of a file, read in pieces.
pub(crate) fn digest_of(path: &Path) -> Digest {
    let mut file = std::fs::File::open(path).unwrap();
    let mut hasher = Hasher::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        match file.read(&mut buf).unwrap() {
            0 => return hasher.finish(),
            count => hasher.update(&buf[..count]),
        }
    }
}

/// Fails with the paths that differ; `left` and `right` say in words what the trees are.
pub(crate) fn assert_equal(
    (left, left_tree): (&str, &BTreeMap<PathBuf, Entry>),
    (right, right_tree): (&str, &BTreeMap<PathBuf, Entry>),
) {
    let mut differences = Vec::new();
    for (path, entry) in left_tree {
        match right_tree.get(path) {
            None => differences.push(format!("only in {left}: {}", path.display())),
            Some(other) if other != entry => {
                let path = path.display();
                differences.push(format!("{path}:\n  {left}: {entry:?}\n  {right}: {other:?}"));
            }
            Some(_) => {}
        }
    }
    for path in right_tree.keys().filter(|path| !left_tree.contains_key(*path)) {
        differences.push(format!("only in {right}: {}", path.display()));
    }
    let count = differences.len();
    differences.truncate(20);
    assert!(count == 0, "{count} differences, the first ones:\n{}", differences.join("\n"));
}

/// Whether `path` is `other` or lies below it.
pub(crate) fn is_below(path: &Path, other: &str) -> bool {
    path == Path::new(other) || path.as_os_str().as_bytes().starts_with(format!("{other}/").as_bytes())
}
