//! Trees of our own writer's images, in this process; the whole way through a launch is in `tests/it/unpack.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Cursor;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::tree::{Node, NodeId, NodeKind, Tree};
use crate::squashfs::compress::Compressor;
use crate::squashfs::read::Reader;
use crate::squashfs::write::{Options, Writer};
use crate::sys::file::{Sharing, lock};

const DAY: Duration = Duration::from_secs(24 * 3600);
const LARGE: usize = 20 << 20;

/// An image with some of everything, and its bytes.
fn image() -> Vec<u8> {
    let options = Options { compressor: Compressor::Zstd(1), threads: 1, mtime: 5 };
    let mut writer = Writer::new(Cursor::new(Vec::new()), options).unwrap();
    let mut nodes = Vec::new();
    let mut add = |kind: NodeKind, mode: u16, xattrs| -> NodeId {
        nodes.push(Node { kind, mode, uid: 7, gid: 9, mtime: 1000, xattrs });
        u32::try_from(nodes.len() - 1).unwrap()
    };
    let mut file =
        |content: &[u8]| NodeKind::File(writer.add_file(content.len() as u64, &mut { content }).unwrap());
    let name = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    let xattrs = || Some(Box::new(vec![(b"user.a".to_vec(), b"b".to_vec())]));
    let many = (0..700).map(|index| {
        let text = format!("small-{index}");
        (name(&text), add(file(text.as_bytes()), 0o644, None))
    });
    let many = many.collect();
    let shared = add(file(b"shared"), 0o4755, None);
    let pattern: Vec<u8> = (0..LARGE).map(|at| u8::try_from(at / 1000 % 251).unwrap()).collect();
    let mut sparse = vec![0; 3 << 20];
    sparse[1 << 20] = 1;
    let top = vec![
        (name("closed"), add(NodeKind::Directory(vec![(name("hard"), shared)]), 0o000, None)),
        (name("empty"), add(file(b""), 0o600, None)),
        (name("fifo"), add(NodeKind::Fifo, 0o640, None)),
        (name("hard"), shared),
        (name("large"), add(file(&pattern), 0o444, xattrs())),
        (name("link"), add(NodeKind::Symlink(name("/etc/shadow")), 0o777, None)),
        (name("many"), add(NodeKind::Directory(many), 0o1777, None)),
        (name("null"), add(NodeKind::CharDevice { major: 1, minor: 3 }, 0o666, None)),
        (name("sparse"), add(file(&sparse), 0o000, None)),
    ];
    let root = add(NodeKind::Directory(top), 0o755, None);
    writer.finish(&Tree { nodes, root }).unwrap().0.into_inner()
}

struct Place {
    base: tempfile::TempDir,
    roots: Roots,
}

impl Place {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let roots = Roots::open(base.path()).unwrap();
        Self { base, roots }
    }

    fn unpack(&self, image: Vec<u8>, key: &str) -> Result<Written, UnpackError> {
        let work = Unpacking {
            image: Path::new("test.sif"),
            partition: Arc::new(image),
            key,
            threads: 3,
            keep: DAY,
        };
        self.roots.unpack(&work, &self.name(key))
    }

    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.roots.boot)
    }

    fn tree(&self, key: &str) -> PathBuf {
        place(self.base.path(), key)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.roots.path).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_tree_is_what_the_image_holds() {
    let place = Place::new();
    let written = place.unpack(image(), "a").unwrap();
    assert_eq!(place.names(), [place.name("a")]);
    let tree = place.tree("a");
    let at = |name: &str| tree.join(name);
    let facts = |name: &str| fs::symlink_metadata(at(name)).unwrap();
    let mode = |name: &str| facts(name).permissions().mode() & 0o7777;
    // The owner is to the image what root is in Docker, and nobody gets another's id.
    let modes = ["closed", "empty", "fifo", "hard", "large", "many", "sparse"].map(|name| (name, mode(name)));
    let expected = [0o500, 0o600, 0o640, 0o755, 0o444, 0o1777, 0o400];
    assert_eq!(modes.map(|(_, mode)| mode), expected, "{modes:?}");
    assert_eq!(facts("many").mtime(), 1000);
    assert_eq!((facts("hard").nlink(), facts("hard").ino()), (2, facts("closed/hard").ino()));
    assert_eq!(fs::read(at("hard")).unwrap(), b"shared");
    assert!(facts("fifo").file_type().is_fifo());
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("/etc/shadow"));
    assert!(!at("null").exists());
    for index in 0..700 {
        let text = format!("small-{index}");
        assert_eq!(fs::read_to_string(at("many").join(&text)).unwrap(), text);
    }
    let large = fs::read(at("large")).unwrap();
    assert!(large.len() == LARGE && (0..LARGE).all(|at| usize::from(large[at]) == at / 1000 % 251));
    let sparse = fs::read(at("sparse")).unwrap();
    assert!(sparse.len() == 3 << 20 && sparse.iter().filter(|byte| **byte != 0).count() == 1);
    assert!(facts("sparse").blocks() * 512 < 1 << 20, "holes are kept");
    assert!(written.bytes < LARGE as u64 + (1 << 20), "{written:?}");
}

#[test]
fn sizes_are_known_beforehand() {
    let reader = Reader::open(Arc::new(image())).unwrap();
    let needs = measure(&reader, 4096).unwrap();
    // The root, two directories, what lies at the top, and the small files; a file with two names is one.
    assert_eq!(needs.files, 3 + 8 - 1 + 700);
    let blocks = 3 + (LARGE as u64).div_ceil(4096) + 1 + 32 + 700;
    assert_eq!(needs.bytes, blocks * 4096);
}

#[test]
fn damage_is_named_and_leaves_nothing() {
    let place = Place::new();
    let mut bytes = image();
    bytes[200..20_000].fill(0x55);
    let error = place.unpack(bytes, "a").unwrap_err().to_string();
    assert!(error.starts_with("cannot unpack `test.sif`: reading `/"), "{error}");
    assert!(place.names().is_empty(), "{:?}", place.names());
    let error = place.unpack(b"no squashfs".repeat(100), "b").unwrap_err().to_string();
    assert!(error.starts_with("cannot unpack `test.sif`: reading `/`: "), "{error}");
}

#[test]
fn what_a_killed_process_left_is_replaced() {
    let place = Place::new();
    for suffix in [".new", ".links", ".old"] {
        let part = place.roots.path.join(format!("{}{suffix}", place.name("a")));
        fs::create_dir_all(part.join("deep")).unwrap();
        fs::set_permissions(&part, fs::Permissions::from_mode(0o0)).unwrap();
    }
    place.unpack(image(), "a").unwrap();
    assert_eq!(place.names(), [place.name("a")]);
}

#[test]
fn only_what_nobody_needs_is_removed() {
    let place = Place::new();
    let add = |name: &str| fs::create_dir(place.roots.path.join(name)).unwrap();
    let touch = |name: &str| drop(place.roots.open_lock(name).unwrap());
    let (held, fresh, earlier) = (place.name("held"), place.name("fresh"), "00000000.earlier".to_owned());
    let part = place.name("part");
    for name in [&held, &fresh, &earlier] {
        add(name);
        touch(name);
    }
    add(&format!("{part}.new"));
    add("not-ours");
    let holder = place.roots.open_lock(&held).unwrap();
    lock(holder.as_fd(), Sharing::Together).unwrap();
    assert_eq!(place.roots.remove_unused(DAY).unwrap().names.len(), 2, "the earlier boot's, and the part");
    let mut expected = vec![held.clone(), format!("{held}.lock"), fresh.clone(), format!("{fresh}.lock")];
    expected.push("not-ours".into());
    expected.sort();
    assert_eq!(place.names(), expected);
    let listed = place.roots.list().unwrap();
    assert_eq!(listed.iter().map(|root| root.is_used).collect::<Vec<_>>(), [false, true]);
    place.roots.remove_unused(Duration::ZERO).unwrap();
    assert_eq!(place.names(), [held.clone(), format!("{held}.lock"), "not-ours".into()]);
    drop(holder);
    place.roots.remove_unused(Duration::ZERO).unwrap();
    assert_eq!(place.names(), ["not-ours"]);
}

#[test]
fn the_place_is_the_jobs_own_disk_or_tmp() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().to_str().unwrap();
    let check = |pairs: &[(&str, &str)], expected: &str| {
        let env: BTreeMap<OsString, OsString> =
            pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
        assert_eq!(default_base(&env), Path::new(expected), "{pairs:?}");
    };
    check(&[], "/tmp");
    check(&[("TMPDIR", text)], text);
    check(&[("TMPDIR", "/nonexistent"), ("SLURM_TMPDIR", text)], text);
    check(&[("TMPDIR", "relative")], "/tmp");
    check(&[("TMPDIR", "")], "/tmp");
}

#[test]
fn a_directory_of_others_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let (uid, _) = crate::sys::process::own_ids();
    let own = base.path().join(format!("slipway-{uid}"));
    fs::create_dir(&own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    let error = Roots::open(base.path()).unwrap_err();
    let expected = format!(
        "cannot unpack images on this node: `{}` cannot be trusted: others may enter it (mode 755)",
        own.display()
    );
    assert_eq!(error.to_string(), expected);
    assert!(crate::base::Hint::hint(&error).unwrap().contains("SLIPWAY_LAUNCH_UNPACK_DIR"));
    assert!(Roots::find(base.path()).is_none());
}
