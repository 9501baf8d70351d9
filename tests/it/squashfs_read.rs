//! The reader against images of `mksquashfs`: equal to the tree they were made from, and unharmed by damage.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use slipway::base::{ReadAt, RelPath};
use slipway::squashfs::read::{Inode, InodeKind, ReadError, Reader};

/// Bytes that look random and are the same in every run (xorshift).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

/// A tree with one of everything that an ordinary user can make.
pub(crate) fn make_tree(root: &Path) {
    let mut noise = Noise::new(7);
    for directory in ["usr/bin", "usr/lib", "empty", "many", "deep/a/b/c/d/e", "mode"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let text = |count: usize| {
        b"all work and no play makes jack a dull boy\n".repeat(count / 43 + 1)[..count].to_vec()
    };
    for (name, size) in [
        ("nothing", 0),
        ("one", 1),
        ("small", 4000),
        ("page", 4096),
        ("block", 128 * 1024),
        ("block-and-one", 128 * 1024 + 1),
        ("large", 3_000_001),
        ("megabyte", 1 << 20),
    ] {
        fs::write(root.join("usr/lib").join(name), text(size)).unwrap();
        fs::write(root.join("usr/bin").join(name), noise.bytes(size)).unwrap();
    }
    let mut sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all(b"head").unwrap();
    sparse.set_len(2_500_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"island", 1_200_000).unwrap();
    for index in 0..3000 {
        let name = format!("a-rather-long-name-of-a-module-{}-{index}.py", index % 7);
        fs::write(root.join("many").join(name), format!("print({index})\n")).unwrap();
    }
    fs::write(root.join("deep/a/b/c/d/e/leaf"), "leaf").unwrap();
    fs::hard_link(root.join("usr/bin/small"), root.join("usr/bin/small-again")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    symlink("/usr/lib", root.join("lib")).unwrap();
    symlink("../../deep/./a/b", root.join("usr/lib/b")).unwrap();
    symlink("../../../../../usr/lib/one", root.join("deep/climb")).unwrap();
    symlink("loop-b", root.join("loop-a")).unwrap();
    symlink("loop-a", root.join("loop-b")).unwrap();
    symlink("/run/nowhere/file", root.join("dangling")).unwrap();
    symlink(format!("/{}", "x/".repeat(1000)), root.join("long-target")).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"new\nline \xff")), "odd").unwrap();
    for mode in [0o4755, 0o1777, 0o640, 0o444] {
        let path = root.join(format!("mode/{mode:o}"));
        fs::write(&path, "m").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
}

/// Packs `tree` with `mksquashfs` and these options.
pub(crate) fn pack(tree: &Path, image: &Path, options: &[&str]) {
    let output = Command::new("mksquashfs")
        .args([tree, image])
        .args(["-noappend", "-no-progress", "-quiet"])
        .args(options)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn open(image: &Path) -> Result<Reader, ReadError> {
    Reader::open(Arc::new(fs::read(image).unwrap()) as Arc<dyn ReadAt>)
}

/// Every path below `root`, relative to it.
pub(crate) fn paths_below(root: &Path) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::new()];
    let mut done = 0;
    while let Some(path) = paths.get(done).cloned() {
        done += 1;
        if root.join(&path).symlink_metadata().unwrap().is_dir() {
            for entry in fs::read_dir(root.join(&path)).unwrap() {
                paths.push(path.join(entry.unwrap().file_name()));
            }
        }
    }
    paths
}

/// Every inode of an image by its path.
fn inodes_of(reader: &Reader) -> BTreeMap<PathBuf, Inode> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![(PathBuf::new(), reader.root().unwrap())];
    while let Some((path, inode)) = ahead.pop() {
        if inode.is_directory() {
            for entry in reader.read_dir(&inode).unwrap() {
                let child = reader.inode(entry.reference).unwrap();
                let looked_up = reader.lookup(&inode, &entry.name).unwrap().expect("a listed name is found");
                assert_eq!(looked_up.number, child.number, "{path:?} {:?}", entry.name);
                ahead.push((path.join(std::ffi::OsStr::from_bytes(&entry.name)), child));
            }
            for absent in [b"".as_slice(), b"!", b"a-rather-long-name-of-a-module-3", b"zzz"] {
                assert!(reader.lookup(&inode, absent).unwrap().is_none());
            }
        }
        found.insert(path, inode);
    }
    found
}

fn assert_equal(tree: &Path, reader: &Reader) {
    let found = inodes_of(reader);
    let mut expected = paths_below(tree);
    expected.sort();
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), expected);
    for (path, inode) in &found {
        let on_disk = tree.join(path);
        let data = on_disk.symlink_metadata().unwrap();
        let kind = data.file_type();
        assert_eq!(u32::from(inode.mode), data.mode() & 0o7777, "{path:?}");
        assert_eq!((inode.uid, inode.gid), (data.uid(), data.gid()), "{path:?}");
        assert_eq!(i64::from(inode.mtime), data.mtime(), "{path:?}");
        if !path.as_os_str().is_empty() {
            assert_eq!(u64::from(inode.link_count), data.nlink(), "{path:?}");
        }
        match &inode.kind {
            InodeKind::Directory(_) => assert!(kind.is_dir()),
            InodeKind::File(_) => {
                assert!(kind.is_file());
                let content = fs::read(&on_disk).unwrap();
                assert_eq!(inode.size_bytes(), data.len(), "{path:?}");
                assert!(reader.read_all(inode, u64::MAX).unwrap() == content, "{path:?}");
                for offset in [1, 4095, 131_071, 131_072, 1_199_990, 2_499_999] {
                    let mut buf = [1; 50];
                    let count = reader.read_at(inode, offset, &mut buf).unwrap();
                    let start = content.len().min(usize::try_from(offset).unwrap());
                    assert!(
                        buf[..count] == content[start..content.len().min(start + 50)],
                        "{path:?} {offset}"
                    );
                }
            }
            InodeKind::Symlink(target) => {
                assert_eq!(fs::read_link(&on_disk).unwrap().as_os_str().as_bytes(), &**target);
            }
            InodeKind::Fifo => assert!(kind.is_fifo()),
            InodeKind::Socket => assert!(kind.is_socket()),
            other => panic!("{path:?} is {other:?}"),
        }
    }
}

#[test]
fn equals_the_tree_whatever_the_options() {
    need!(tool "mksquashfs");
    let place = tempfile::tempdir().unwrap();
    let (tree, image) = (place.path().join("tree"), place.path().join("image"));
    make_tree(&tree);
    for options in [
        "-comp gzip",
        "-comp zstd -Xcompression-level 1",
        "-comp zstd -Xcompression-level 1 -b 4K",
        "-comp gzip -Xcompression-level 1 -b 1M",
        "-comp zstd -Xcompression-level 1 -no-fragments",
        "-comp lz4",
        "-comp lz4 -Xhc -b 256K",
        "-comp gzip -noI -noD",
        "-comp zstd -noI -noD -noF -noX",
        "-comp zstd -Xcompression-level 1 -always-use-fragments -no-exports",
        "-comp gzip -no-xattrs -no-duplicates -nopad",
        "-comp gzip -Xcompression-level 1 -no-sparse",
        "-comp lzo",
        "-comp lzo -Xalgorithm lzo1x_1_15 -b 4K",
        "-comp lzo -noD -b 1M",
        "-comp xz",
        "-comp xz -Xbcj x86 -b 1M",
    ] {
        pack(&tree, &image, &options.split(' ').collect::<Vec<_>>());
        assert_equal(&tree, &open(&image).unwrap_or_else(|error| panic!("{options}: {error}")));
    }
}

#[test]
fn follows_links_beneath_the_root() {
    need!(tool "mksquashfs");
    let place = tempfile::tempdir().unwrap();
    let (tree, image) = (place.path().join("tree"), place.path().join("image"));
    make_tree(&tree);
    pack(&tree, &image, &["-comp", "gzip"]);
    let reader = open(&image).unwrap();
    let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
    let check = |input: &str, expected: &str, exists: bool| {
        let resolved = reader.resolve_path(&path(input)).unwrap();
        assert_eq!(
            (resolved.path.to_string().as_str(), resolved.inode.is_some()),
            (expected, exists),
            "{input}"
        );
        assert_eq!(reader.resolve(&path(input), true).unwrap().is_some(), exists, "{input}");
    };
    check("", "", true);
    check("bin/one", "usr/bin/one", true);
    check("lib", "usr/lib", true);
    check("lib/b/c/d/e/leaf", "deep/a/b/c/d/e/leaf", true);
    check("deep/climb", "usr/lib/one", true);
    check("deep/climb/x", "usr/lib/one/x", false);
    check("dangling", "run/nowhere/file", false);
    check("lib/cuda/new", "usr/lib/cuda/new", false);
    check("absent", "absent", false);
    for input in ["loop-a", "loop-a/x", "deep/../loop-b"] {
        let error = reader.resolve_path(&path(input)).unwrap_err();
        assert!(matches!(error, ReadError::LinkLoop { .. }), "{error}");
    }
    let last = reader.resolve(&path("bin"), false).unwrap().unwrap();
    assert_eq!(reader.read_link(&last).unwrap(), b"usr/bin");
    assert!(reader.resolve(&path("loop-a"), false).unwrap().is_some());
    assert!(
        reader.read_all(&reader.root().unwrap(), 1).unwrap_err().to_string().ends_with("is no regular file")
    );
    let small = reader.resolve(&path("usr/lib/small"), true).unwrap().unwrap();
    let error = reader.read_all(&small, 3999).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bytes of a file that is read whole: 4000 is more than the 3999 that can be read"
    );
}

/// A tar entry, as far as `sqfstar` looks at it.
pub(crate) fn tar_entry(
    out: &mut Vec<u8>,
    name: &str,
    kind: u8,
    mode: u32,
    device: (u32, u32),
    content: &[u8],
) {
    let mut header = vec![0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, &format!("{:07o}", 1234));
    put(116, &format!("{:07o}", 5678));
    put(124, &format!("{:011o}", content.len()));
    put(136, &format!("{:011o}", 1_500_000_000));
    put(148, "        ");
    put(257, "ustar\x0000");
    put(329, &format!("{:07o}", device.0));
    put(337, &format!("{:07o}", device.1));
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out.extend(header);
    out.extend(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// An extended attribute of the entry that follows.
pub(crate) fn tar_xattr(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let rest = name.len() + value.len() + " SCHILY.xattr.=\n".len();
    let length = (1..).find(|length| length == &(rest + length.to_string().len())).unwrap_or(rest);
    let mut record = format!("{length} SCHILY.xattr.{name}=").into_bytes();
    record.extend(value);
    record.push(b'\n');
    tar_entry(out, "pax", b'x', 0o644, (0, 0), &record);
}

/// Packs a tar with `sqfstar`, which takes devices and attributes from any user.
pub(crate) fn pack_tar(mut tar: Vec<u8>, image: &Path, options: &[&str]) {
    tar.extend([0; 1024]);
    let mut child = Command::new("sqfstar")
        .args(options)
        .arg(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&tar).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn reads_devices_owners_and_attributes() {
    need!(tool "sqfstar");
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    let mut tar = Vec::new();
    tar_xattr(&mut tar, "user.long", &[b'v'; 5000]);
    tar_entry(&mut tar, "file", b'0', 0o600, (0, 0), b"content");
    for name in ["twin-a", "twin-b"] {
        tar_xattr(&mut tar, "user.color", b"blue\0\xff");
        tar_entry(&mut tar, name, b'0', 0o600, (0, 0), b"");
    }
    tar_xattr(&mut tar, "user.on-a-directory", b"");
    tar_entry(&mut tar, "directory/", b'5', 0o755, (0, 0), b"");
    tar_entry(&mut tar, "null", b'3', 0o666, (1, 3), b"");
    tar_entry(&mut tar, "disk", b'4', 0o660, (259, 70_000), b"");
    pack_tar(tar, &image, &["-comp", "gzip"]);
    let reader = open(&image).unwrap();
    assert!(reader.has_xattrs());
    let find =
        |name: &str| reader.resolve(&RelPath::parse(name.as_bytes()).unwrap(), false).unwrap().unwrap();
    let xattrs = |name: &str| reader.xattrs(&find(name)).unwrap();
    assert_eq!(xattrs("file"), [(b"user.long".to_vec(), vec![b'v'; 5000])]);
    for name in ["twin-a", "twin-b"] {
        assert_eq!(xattrs(name), [(b"user.color".to_vec(), b"blue\0\xff".to_vec())]);
    }
    assert_eq!(xattrs("directory"), [(b"user.on-a-directory".to_vec(), Vec::new())]);
    assert_eq!(xattrs("null"), []);
    assert!(matches!(find("null").kind, InodeKind::CharDevice { major: 1, minor: 3 }));
    assert!(matches!(find("disk").kind, InodeKind::BlockDevice { major: 259, minor: 70_000 }));
    let file = find("file");
    assert_eq!((file.uid, file.gid, file.mode, file.mtime), (1234, 5678, 0o600, 1_500_000_000));
}

/// Reads all that can be read, as far as it goes, with an eye on the clock of loops: the work is bounded.
fn read_through(image: Vec<u8>) {
    let Ok(reader) = Reader::open(Arc::new(image)) else { return };
    let mut ahead: Vec<Inode> = reader.root().into_iter().collect();
    let mut budget = 2000;
    while let Some(inode) = ahead.pop() {
        let _ = reader.xattrs(&inode);
        let mut buf = [0; 600];
        for offset in [0, inode.size_bytes().saturating_sub(300), 131_000] {
            let _ = reader.read_at(&inode, offset, &mut buf);
        }
        let _ = reader.read_all(&inode, 200_000);
        for entry in reader.read_dir(&inode).unwrap_or_default() {
            budget -= 1;
            if budget == 0 {
                return;
            }
            ahead.extend(reader.inode(entry.reference));
            let _ = reader.lookup(&inode, &entry.name);
        }
    }
    for path in ["usr/bin/one", "lib/b/c", "loop-a", "many/a"] {
        let _ = reader.resolve_path(&RelPath::parse(path.as_bytes()).unwrap());
    }
}

#[test]
fn damage_never_panics_or_hangs() {
    need!(tool "mksquashfs", tool "sqfstar");
    let place = tempfile::tempdir().unwrap();
    let (tree, image) = (place.path().join("tree"), place.path().join("image"));
    for directory in ["usr/bin", "many"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    let mut noise = Noise::new(3);
    fs::write(tree.join("usr/bin/one"), noise.bytes(5000)).unwrap();
    fs::write(tree.join("usr/bin/two"), [7; 9000]).unwrap();
    symlink("usr/bin", tree.join("lib")).unwrap();
    for index in 0..400 {
        fs::write(tree.join(format!("many/a-rather-long-name-of-a-module-{index}")), [1]).unwrap();
    }
    let mut images = Vec::new();
    // Stored tables, so that a flipped bit reaches the parsers and does not end in the decompressor.
    for options in ["-comp gzip -noI -noD -noF -b 4K -nopad", "-comp zstd -Xcompression-level 1 -b 4K -nopad"]
    {
        pack(&tree, &image, &options.split(' ').collect::<Vec<_>>());
        images.push(fs::read(&image).unwrap());
    }
    let mut tar = Vec::new();
    tar_xattr(&mut tar, "user.long", &[b'v'; 5000]);
    tar_entry(&mut tar, "file", b'0', 0o600, (0, 0), b"content");
    tar_xattr(&mut tar, "user.color", b"blue");
    tar_entry(&mut tar, "null", b'3', 0o666, (1, 3), b"");
    fs::remove_file(&image).unwrap();
    pack_tar(tar, &image, &["-comp", "gzip", "-noI", "-noX", "-noId"]);
    images.push(fs::read(&image).unwrap());
    for original in &images {
        read_through(original.clone());
        for _ in 0..1500 {
            let mut image = original.clone();
            for _ in 0..=noise.below(3) {
                // Half of the damage goes where it hurts: into the superblock and the tables at the end.
                let at = match noise.below(4) {
                    0 => noise.below(96),
                    1 => image.len() - 1 - noise.below(image.len().min(4000)),
                    _ => noise.below(image.len()),
                };
                match noise.below(3) {
                    0 => image[at] ^= 1 << noise.below(8),
                    1 => image[at] = 0xff,
                    _ => image[at] = noise.next().to_le_bytes()[0],
                }
            }
            read_through(image);
        }
        for _ in 0..200 {
            let mut image = original.clone();
            // Without the padding to 4 KiB, which nobody misses.
            let used = u64::from_le_bytes(original[40..48].try_into().unwrap());
            image.truncate(noise.below(usize::try_from(used).unwrap()));
            let have = image.len();
            match Reader::open(Arc::new(image)) {
                Err(ReadError::CutShort { have_bytes, .. }) => assert_eq!(have_bytes, have as u64),
                other => panic!("{have} of {} bytes: {other:?}", original.len()),
            }
        }
    }
}
