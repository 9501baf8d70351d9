//! GNU tar as the oracle: what it archives is read back as it was on disk, in each of its formats.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use slipway::base::tree::Xattrs;
use slipway::tarlayer::{Entry, EntryKind, TarReader};

/// What there is at a path: kind, metadata and content in one line.
type Found = BTreeMap<PathBuf, String>;

struct Archive {
    found: Found,
    /// Each hard link and its target.
    links: Vec<(PathBuf, PathBuf)>,
    xattrs: BTreeMap<PathBuf, Xattrs>,
    bytes: usize,
}

/// Archives `directory` and reads the archive.
fn archive(directory: &Path, options: &[&str]) -> Archive {
    let output = Command::new("tar")
        .args(["--create", "--numeric-owner", "--sort=name", "--directory"])
        .arg(directory)
        .args(options)
        .arg(".")
        .output()
        .unwrap();
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    let mut archive = Archive {
        found: Found::new(),
        links: Vec::new(),
        xattrs: BTreeMap::new(),
        bytes: output.stdout.len(),
    };
    let mut reader = TarReader::new(output.stdout.as_slice());
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        std::io::copy(&mut reader.data(), &mut content).unwrap();
        assert_eq!(content.len() as u64, entry.size_bytes);
        let path = clean(&entry.path);
        if entry.kind == EntryKind::HardLink {
            let target = clean(&entry.link);
            archive.found.insert(path.clone(), archive.found[&target].clone());
            archive.links.push((path, target));
            continue;
        }
        archive.found.insert(path.clone(), describe_entry(&entry, &content));
        if !entry.xattrs.is_empty() {
            archive.xattrs.insert(path, entry.xattrs);
        }
    }
    archive
}

fn clean(path: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(path)).components().filter(|name| name.as_os_str() != ".").collect()
}

fn describe_entry(entry: &Entry, content: &[u8]) -> String {
    let what = match entry.kind {
        EntryKind::File => format!("file {}", slipway::base::Digest::of(content)),
        EntryKind::Directory => "dir".to_owned(),
        EntryKind::Symlink => format!("link {}", entry.link.escape_ascii()),
        EntryKind::CharDevice { major, minor } => format!("char {major}:{minor}"),
        EntryKind::BlockDevice { major, minor } => format!("block {major}:{minor}"),
        EntryKind::Fifo => "fifo".to_owned(),
        EntryKind::HardLink => unreachable!(),
    };
    format!("{what} {:o} {}:{} @{}", entry.mode, entry.uid, entry.gid, entry.mtime)
}

/// What is on disk below `directory`.
fn on_disk(directory: &Path) -> Found {
    let mut found = Found::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let full = directory.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            open.extend(fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("link {}", fs::read_link(&full).unwrap().as_os_str().as_bytes().escape_ascii())
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else if kind.is_char_device() {
            format!("char {}:{}", nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()))
        } else {
            format!("file {}", slipway::base::Digest::of(&fs::read(&full).unwrap()))
        };
        let line =
            format!("{what} {:o} {}:{} @{}", meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime());
        found.insert(path, line);
    }
    found
}

fn set_times(directory: &Path) {
    for (number, path) in on_disk(directory).into_keys().enumerate() {
        let full = directory.join(path);
        if fs::symlink_metadata(&full).unwrap().is_file() {
            let time =
                SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_500 + number as u64 * 7_777_777);
            fs::File::options().write(true).open(&full).unwrap().set_modified(time).unwrap();
        }
    }
}

/// Things that every format can hold.
fn plain_tree(directory: &Path) {
    fs::create_dir_all(directory.join("sub/deep")).unwrap();
    fs::write(directory.join("empty"), "").unwrap();
    fs::write(directory.join("one block"), [b'x'; 512]).unwrap();
    fs::write(directory.join("sub/over\na block"), [b'y'; 513]).unwrap();
    fs::write(directory.join(OsString::from_vec(b"sub/\xff\xfe".to_vec())), "not text").unwrap();
    fs::write(
        directory.join("sub/deep/large"),
        (0..300_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>(),
    )
    .unwrap();
    fs::hard_link(directory.join("one block"), directory.join("sub/same")).unwrap();
    fs::hard_link(directory.join("one block"), directory.join("zz same")).unwrap();
    std::os::unix::fs::symlink("../one block", directory.join("sub/relative")).unwrap();
    std::os::unix::fs::symlink("/absolute/target", directory.join("absolute")).unwrap();
    fs::set_permissions(directory.join("empty"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(directory.join("sub/deep"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(directory.join("n".repeat(90)), "long for v7").unwrap();
}

/// Checks that the archive holds what is on disk.
fn check(directory: &Path, options: &[&str]) -> Archive {
    let archive = archive(directory, options);
    assert_eq!(archive.found, on_disk(directory), "{options:?}");
    for (link, target) in &archive.links {
        let inode = |path| fs::symlink_metadata(directory.join(path)).unwrap().ino();
        assert_eq!(inode(link), inode(target), "{options:?}");
    }
    archive
}

#[test]
fn every_format() {
    need!(tool "tar");
    let scratch = tempfile::tempdir().unwrap();
    plain_tree(scratch.path());
    set_times(scratch.path());
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        let archive = check(scratch.path(), &["--format", format]);
        assert_eq!(archive.links.len(), 2, "{format}");
    }

    // A prefix, from here on.
    nix::unistd::mkfifo(&scratch.path().join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o640))
        .unwrap();
    let below = scratch.path().join("d".repeat(99)).join("e".repeat(50));
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("f".repeat(95)), "split").unwrap();
    for format in ["oldgnu", "gnu", "ustar", "posix"] {
        check(scratch.path(), &["--format", format]);
    }

    // Names, targets and times that only extensions hold.
    let deep = scratch.path().join(["long"; 60].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("g".repeat(255)), "deep").unwrap();
    fs::hard_link(deep.join("g".repeat(255)), deep.join("h".repeat(255))).unwrap();
    std::os::unix::fs::symlink("t/".repeat(1000), deep.join("far")).unwrap();
    let old = scratch.path().join("before 1970");
    fs::write(&old, "").unwrap();
    let time = SystemTime::UNIX_EPOCH - Duration::from_millis(86_400_500);
    fs::File::options().write(true).open(&old).unwrap().set_modified(time).unwrap();
    for format in ["oldgnu", "gnu", "posix"] {
        let archive = check(scratch.path(), &["--format", format]);
        assert_eq!(archive.links.len(), 3, "{format}");
    }
}

#[test]
fn owners_and_devices() {
    need!(root, tool "tar");
    let scratch = tempfile::tempdir().unwrap();
    for (name, uid) in [("small", 1000), ("large", 2_119_470_584), ("largest", u32::MAX - 1)] {
        let path = scratch.path().join(name);
        fs::write(&path, name).unwrap();
        if std::os::unix::fs::chown(&path, Some(uid), Some(uid)).is_err() {
            println!("skipped: this user namespace does not map {uid}");
            return;
        }
    }
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    let device = nix::sys::stat::makedev(1, 3);
    let is_device = nix::sys::stat::SFlag::S_IFCHR;
    if nix::sys::stat::mknod(&scratch.path().join("null"), is_device, mode, device).is_err() {
        println!("device nodes are not allowed here: left out");
    }
    for format in ["oldgnu", "gnu", "posix"] {
        check(scratch.path(), &["--format", format]);
    }
}

#[test]
fn sparse_files() {
    need!(tool "tar");
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str, size: u64, pieces: &[(u64, u64)]| {
        let file = fs::File::create(scratch.path().join(name)).unwrap();
        file.set_len(size).unwrap();
        for &(offset, length) in pieces {
            let bytes: Vec<u8> = (0..length).map(|byte| u8::try_from(byte % 251 + 1).unwrap()).collect();
            file.write_all_at(&bytes, offset).unwrap();
        }
    };
    file("hole only", 5_000_000, &[]);
    file("data at the end", 1_048_576 + 3, &[(1_048_576, 3)]);
    file("data at the start", 1_000_000, &[(0, 100)]);
    // More pieces than the header and one extension block hold.
    let pieces: Vec<_> = (0..60).map(|number| (number * 65536 + 4096, 5000)).collect();
    file("many pieces", 60 * 65536 + 1, &pieces);
    fs::write(scratch.path().join("zz not sparse"), "x").unwrap();
    for options in [
        &["--format=oldgnu"][..],
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let options = [&["--sparse", "--hole-detection=raw"], options].concat();
        let archive = check(scratch.path(), &options);
        assert!(archive.bytes < 1_000_000, "{options:?}: {} bytes are not sparse", archive.bytes);
    }
}

#[test]
fn extended_attributes() {
    need!(tool "tar", tool "setfattr");
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("f");
    fs::write(&path, "x").unwrap();
    for (name, value) in [("user.text", "some text"), ("user.raw", "0x000a3dff")] {
        let output = Command::new("setfattr").args(["-n", name, "-v", value]).arg(&path).output().unwrap();
        if !output.status.success() {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return;
        }
    }
    let archive = check(scratch.path(), &["--format=posix", "--xattrs", "--xattrs-include=user.*"]);
    let mut xattrs = archive.xattrs[Path::new("f")].clone();
    xattrs.sort();
    assert_eq!(
        xattrs,
        [(b"user.raw".to_vec(), b"\x00\n=\xff".to_vec()), (b"user.text".to_vec(), b"some text".to_vec()),]
    );
}
