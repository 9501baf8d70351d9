//! umoci as the oracle of the merge: stacks of layers are unpacked by it and compared, name for name.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use slipway::base::Digest;
use slipway::base::tree::{FileId, NodeId, NodeKind, Tree};
use slipway::tarlayer::{FileSink, LayerRest, Limits, Merger, TarReader};

#[path = "../../src/tarlayer/testing.rs"]
pub(crate) mod testing;

use testing::{Member, archive, dir, file, hard_link, member, symlink};

/// Path to kind, mode and content; names of one inode say so.
type Found = BTreeMap<PathBuf, String>;

#[derive(Default)]
struct Contents(Vec<Vec<u8>>);

impl FileSink for Contents {
    fn add_file(&mut self, _: &[u8], _: u64, content: &mut dyn Read) -> std::io::Result<FileId> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.0.push(bytes);
        Ok(FileId(u32::try_from(self.0.len() - 1).unwrap()))
    }
}

/// Merges layers, oldest first.
fn merge(layers: &[Vec<u8>], is_lean: bool) -> Found {
    let mut merger = Merger::new(Limits { max_entries: 1000, max_bytes: 1 << 40 });
    let mut contents = Contents::default();
    for bytes in layers.iter().rev() {
        let mut tar = TarReader::new(bytes.as_slice());
        if !is_lean {
            merger.add_layer(&mut tar, &mut contents).unwrap();
        } else if merger.add_layer_lean(&mut tar, &mut contents).unwrap() == LayerRest::ReadAgain {
            merger.add_layer_again(&mut TarReader::new(bytes.as_slice()), &mut contents).unwrap();
        }
    }
    let tree = merger.finish().unwrap();
    let mut found = Found::new();
    let mut open = vec![(tree.root, PathBuf::new())];
    let mut inodes = HashMap::new();
    while let Some((directory, path)) = open.pop() {
        let NodeKind::Directory(children) = &tree.nodes[directory as usize].kind else { unreachable!() };
        for (name, child) in children {
            let path = path.join(std::ffi::OsStr::from_bytes(name));
            found.insert(path.clone(), describe(&tree, *child, &contents));
            if matches!(tree.nodes[*child as usize].kind, NodeKind::Directory(_)) {
                open.push((*child, path));
            } else {
                inodes.insert(path, u64::from(*child));
            }
        }
    }
    mark_links(&mut found, &inodes);
    found
}

fn describe(tree: &Tree, node: NodeId, contents: &Contents) -> String {
    let node = &tree.nodes[node as usize];
    let mode = node.mode;
    let mtime = node.mtime;
    match &node.kind {
        NodeKind::Directory(_) => format!("dir {mode:o}"),
        NodeKind::File(content) => {
            format!("file {mode:o} @{mtime} {}", contents.0[content.0 as usize].escape_ascii())
        }
        NodeKind::Symlink(target) => format!("link {}", target.escape_ascii()),
        NodeKind::Fifo => format!("fifo {mode:o}"),
        other => format!("{other:?}"),
    }
}

/// Says of each further name of an inode which name is the first.
fn mark_links(found: &mut Found, inodes: &HashMap<PathBuf, u64>) {
    let mut first_names = HashMap::new();
    for (path, line) in found {
        if let Some(inode) = inodes.get(path) {
            let first = first_names.entry(*inode).or_insert_with(|| path.clone());
            if first != path {
                write!(line, " = {}", first.display()).unwrap();
            }
        }
    }
}

/// Unpacks layers, oldest first, with umoci.
fn unpack(layers: &[Vec<u8>]) -> Found {
    let scratch = tempfile::tempdir().unwrap();
    let layout = scratch.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, bytes.len())
    };
    let tars: Vec<_> =
        layers.iter().map(|bytes| blob("application/vnd.oci.image.layer.v1.tar", bytes)).collect();
    let diff_ids: Vec<_> = layers.iter().map(|bytes| format!("\"{}\"", Digest::of(bytes))).collect();
    let config = blob(
        "application/vnd.oci.image.config.v1+json",
        format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        )
        .as_bytes(),
    );
    let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, tars.join(","));
    let manifest = blob("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    let named = manifest.replacen('{', r#"{"annotations":{"org.opencontainers.image.ref.name":"x"},"#, 1);
    fs::write(layout.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{named}]}}"#)).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();

    let root = scratch.path().join("root");
    let output = Command::new("umoci")
        .args(["raw", "unpack", "--rootless", "--image"])
        .arg(format!("{}:x", layout.display()))
        .arg(&root)
        .env("HOME", scratch.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = Found::new();
    let mut inodes = HashMap::new();
    walk(&root, Path::new(""), &mut found, &mut inodes);
    mark_links(&mut found, &inodes);
    found
}

fn walk(root: &Path, directory: &Path, found: &mut Found, inodes: &mut HashMap<PathBuf, u64>) {
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let path = directory.join(entry.unwrap().file_name());
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap();
        let kind = meta.file_type();
        let (mode, mtime) = (meta.mode() & 0o7777, meta.mtime());
        let line = if kind.is_dir() {
            walk(root, &path, found, inodes);
            format!("dir {mode:o}")
        } else if kind.is_symlink() {
            format!("link {}", fs::read_link(&full).unwrap().as_os_str().as_bytes().escape_ascii())
        } else if kind.is_fifo() {
            format!("fifo {mode:o}")
        } else {
            format!("file {mode:o} @{mtime} {}", fs::read(&full).unwrap().escape_ascii())
        };
        if !kind.is_dir() {
            inodes.insert(path.clone(), meta.ino());
        }
        found.insert(path, line);
    }
}

fn whiteout(hidden: &str) -> Member {
    let (parent, name) = hidden.rsplit_once('/').unwrap_or((".", hidden));
    file(format!("{parent}/.wh.{name}"), "")
}

#[test]
fn equals_umoci() {
    need!(tool "umoci");
    let base: &[Member] = &[
        dir("./"),
        dir("usr/"),
        dir("usr/lib/"),
        file("usr/lib/libc.so", "libc"),
        symlink("lib", "usr/lib"),
        symlink("var/run", "/run"),
        dir("run/").mode(0o700),
        dir("etc/"),
        Member { mtime: 1_600_000_000, ..file("etc/passwd", "root") },
        hard_link("etc/passwd-", "etc/passwd"),
        dir("opt/app/").mode(0o750),
        file("opt/app/a", "a"),
        file("opt/app/b", "b").mode(0o4755),
        dir("opt/app/sub/"),
        file("opt/app/sub/c", "c"),
        member(b'6', "opt/pipe"),
    ];
    let stacks: &[&[&[Member]]] = &[
        &[base],
        // Through symbolic links of the layer below.
        &[base, &[file("lib/new.so", "new"), file("var/run/pid", "7")]],
        &[base, &[file("lib/libc.so", "2")], &[file("usr/lib/libc.so", "3")]],
        &[base, &[dir("lib/"), file("lib/own", "x")]],
        // Whiteouts.
        &[base, &[whiteout("opt/app/a"), whiteout("etc/passwd")]],
        &[base, &[whiteout("opt/app")], &[file("opt/app/new", "n")]],
        &[base, &[dir("opt/app/"), file("opt/app/.wh..wh..opq", ""), file("opt/app/new", "n")]],
        &[base, &[dir("opt/app/"), file("opt/app/new", "n"), file("opt/app/.wh..wh..opq", "")]],
        &[base, &[file("opt/app/a", "2"), whiteout("opt/app/a")]],
        &[base, &[whiteout("lib/libc.so")]],
        // Flips.
        &[base, &[file("opt/app", "now a file")], &[dir("opt/app/"), file("opt/app/x", "again")]],
        &[base, &[symlink("opt/app", "/usr/lib")], &[file("opt/app/through", "t")]],
        &[base, &[whiteout("lib"), dir("lib/"), file("lib/x", "x")]],
        // Hard links within and across layers, whose targets go away later.
        &[
            base,
            &[hard_link("usr/lib/copy", "etc/passwd")],
            &[whiteout("etc/passwd"), whiteout("etc/passwd-")],
        ],
        &[base, &[hard_link("x", "/lib/libc.so")], &[file("lib/libc.so", "2")]],
        &[base, &[hard_link("l2", "lib")], &[file("l2/y", "y")]],
        // Metadata of the newest, children of all.
        &[base, &[dir("opt/app/").mode(0o711)], &[dir("run/").mode(0o1777), file("run/x", "1")]],
        &[base, &[file("etc/passwd", "new").mode(0o600)], &[hard_link("etc/shadow", "etc/passwd")]],
    ];
    for (number, stack) in stacks.iter().enumerate() {
        let layers: Vec<_> = stack.iter().map(|members| archive(members)).collect();
        let expected = unpack(&layers);
        assert_eq!(merge(&layers, false), expected, "stack {number}");
        assert_eq!(merge(&layers, true), expected, "stack {number}, lean");
    }
}
