//! Images of our squashfs writer, as others see them: `unsquashfs`, and the kernel's driver.
//!
//! A [`Model`] says in plain lines what must be there; both sides are turned into such lines and compared.

mod model;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use slipway::base::Digest;
use slipway::base::tree::{FileId, Node, NodeKind, Tree};
use slipway::squashfs::compress::Compressor;
use slipway::squashfs::read::Reader;
use slipway::squashfs::write::{Options, Writer};

use self::model::{Content, Item, Model, What, assert_same_lines, lines_of_directory, lines_of_image};

const BLOCK: usize = 128 * 1024;
const COMPRESSORS: [Compressor; 4] =
    [Compressor::Zstd(1), Compressor::Gzip(6), Compressor::Lz4, Compressor::None];

/// Bytes without a pattern that a compressor could find (xorshift).
fn noise(size_bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..size_bytes).map(|_| next()).collect()
}

fn text(size_bytes: usize) -> Vec<u8> {
    (0_u32..).flat_map(|line| format!("line {line} of some text\n").into_bytes()).take(size_bytes).collect()
}

/// Everything that the format can hold, in small.
fn everything() -> Model {
    let mut model = Model::new();
    model.add("", What::Directory).mode = 0o1777;
    model.add("dev", What::Directory);
    model.add("dev/null", What::Char(1, 3)).mode = 0o666;
    model.add("dev/big", What::Char(4095, 0xf_ffff));
    model.add("dev/disk", What::Block(259, 300)).gid = 6;
    model.add("dev/pipe", What::Fifo).mode = 0o600;
    model.add("dev/socket", What::Socket).mode = 0o755;
    model.add("empty directory", What::Directory).mode = 0o700;
    model.add("links", What::Directory).mtime = 0;
    model.add("links/relative", What::Symlink(b"../files/one".to_vec())).mode = 0o777;
    model.add("links/long", What::Symlink(vec![b'x'; 4095])).mode = 0o777;
    model.add("links/odd", What::Symlink(b"\xff\n ->".to_vec())).mode = 0o777;
    model.add("links/hard", What::Link("files/one"));
    model.add("links/harder", What::Link("files/one"));
    model.add("links/soft and hard", What::Link("links/relative"));
    model.add("links/null", What::Link("dev/null"));

    model.add("files", What::Directory);
    model.bytes("files/empty", "").mtime = u32::MAX;
    model.bytes("files/also empty", "");
    model.bytes("files/one", "1").mode = 0o6711;
    for (name, uid, gid) in [("files/uid", 100_000, 5), ("files/gid", 5, u32::MAX - 1)] {
        let item = model.bytes(name, name);
        (item.uid, item.gid) = (uid, gid);
    }
    for blocks in [1, 2, 5] {
        for (name, extra) in [("less", -1), ("exact", 0), ("more", 1), ("half", 60_000)] {
            let size = (blocks * BLOCK).checked_add_signed(extra).unwrap();
            model.bytes(format!("files/noise {blocks} {name}"), noise(size, size as u64));
            model.bytes(format!("files/text {blocks} {name}"), text(size));
        }
    }
    model.add("duplicates", What::Directory);
    for number in 0..20 {
        model.bytes(format!("duplicates/small {number}"), "the same");
        model.bytes(format!("duplicates/large {number}"), text(BLOCK * 2 + 7));
    }
    model.add("many", What::Directory);
    for number in 0..700_usize {
        model.bytes(format!("many/{number}"), noise(number * 13, 7 + number as u64));
    }
    model.add("holes", What::Directory);
    let block = noise(BLOCK, 99);
    let zeros = vec![0; BLOCK];
    model.bytes("holes/only", &zeros);
    model.bytes("holes/short", &zeros[..100]);
    model.bytes("holes/first", [zeros.as_slice(), &block].concat());
    model.bytes("holes/middle", [block.as_slice(), &zeros, &block, b"tail"].concat());
    model.bytes("holes/last", [block.as_slice(), &zeros].concat());
    model.bytes("holes/tail", [block.as_slice(), &zeros[..5000]].concat());
    model.bytes("holes/almost", [&zeros[1..], b"x"].concat());
    model.add("names", What::Directory);
    for name in [b"\x01\n\t".as_slice(), b"\xff\xfe", "grüße".as_bytes(), b" ", b"...", b"-", &[b'n'; 255]]
    {
        model.bytes([b"names/", name].concat(), name);
    }
    model
}

fn deep(levels: usize) -> Model {
    let mut model = Model::new();
    let mut path = String::new();
    for level in 0..levels {
        write!(path, "/{level}").unwrap();
        model.add(&path, What::Directory);
    }
    model.bytes(format!("{path}/end"), "here");
    model
}

fn wide(entries: usize) -> Model {
    let mut model = Model::new();
    model.add("wide", What::Directory);
    for number in 0..entries {
        model.bytes(
            format!("wide/a name of an entry that is not short {number:06}"),
            format!("{}", number % 10),
        );
    }
    model.add("wide/a name of an entry that is not short 000500/", What::Directory);
    model
}

/// An image in a file, padded so that a loop device shows all of it.
struct ImageFile {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl ImageFile {
    fn new(mut image: Vec<u8>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.sqsh");
        image.resize(image.len().next_multiple_of(4096), 0);
        fs::write(&path, image).unwrap();
        Self { directory, path }
    }

    fn extract(&self) -> PathBuf {
        let target = self.directory.path().join("extracted");
        run(Command::new("unsquashfs")
            .args(["-quiet", "-no-progress", "-strict-errors", "-dest"])
            .args([&target, &self.path]));
        target
    }

    fn mount(&self) -> Mounted {
        let target = self.directory.path().join("mounted");
        fs::create_dir(&target).unwrap();
        run(Command::new("mount").args(["-t", "squashfs", "-o", "loop,ro"]).args([&self.path, &target]));
        Mounted(target)
    }
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Runs a program that must succeed; its output.
fn run(command: &mut Command) -> Vec<u8> {
    let output = command.env("TZ", "UTC").env("LC_ALL", "C").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {error}", output.status);
    output.stdout
}

#[test]
fn unsquashfs_lists_every_kind() {
    need!(tool "unsquashfs");
    let mut model = everything();
    // unsquashfs shows device numbers as Linux packed them before 2.6.
    model.0.retain(|_, item| !matches!(item.what, What::Char(4095, _) | What::Block(..)));
    let mut expected = Vec::new();
    for (path, item) in &model.0 {
        let shown = model.resolve(item);
        let &Item { mode, uid, gid, mtime, .. } = shown;
        let letter = match shown.what {
            What::Directory => 'd',
            What::Symlink(_) => 'l',
            What::Char(..) => 'c',
            What::Block(..) => 'b',
            What::Fifo => 'p',
            What::Socket => 's',
            What::File(_) | What::Link(_) => '-',
        };
        let mut words = vec![letter.to_string() + &permissions(mode), format!("{uid}/{gid}")];
        match &shown.what {
            What::File(content) => words.push(content.size_bytes().to_string()),
            What::Symlink(target) => words.push(target.len().to_string()),
            What::Char(major, minor) | What::Block(major, minor) => {
                words.extend([format!("{major},"), minor.to_string()]);
            }
            // The size of a directory is that of its listing, which is an affair of the writer.
            What::Directory => words.push("*".to_owned()),
            _ => words.push("0".to_owned()),
        }
        let time = jiff::Timestamp::from_second(i64::from(mtime)).unwrap();
        words.push(time.strftime("%Y-%m-%d").to_string());
        words.push(time.strftime("%H:%M").to_string());
        let mut name = [
            b"root".as_slice(),
            &path.iter().flat_map(|name| [b"/", name.as_slice()].concat()).collect::<Vec<_>>(),
        ]
        .concat();
        if let What::Symlink(target) = &shown.what {
            name.extend([b" -> ", target.as_slice()].concat());
        }
        expected.push((words, name));
    }
    for compressor in COMPRESSORS {
        let image = ImageFile::new(model.image(compressor, 2));
        let listing = run(Command::new("unsquashfs").args(["-lln", "-dest", "root"]).arg(&image.path));
        // Names may hold line ends, so the listing is eaten up from the left instead of cut into lines.
        let mut rest = listing.as_slice();
        for (words, name) in &expected {
            let shown = || rest[..rest.len().min(200)].escape_ascii().to_string();
            for word in words {
                rest = rest.trim_ascii_start();
                rest = if word == "*" {
                    rest.trim_ascii_start_matches_digits()
                } else {
                    rest.strip_prefix(word.as_bytes()).unwrap_or_else(|| panic!("no {word} at {}", shown()))
                };
            }
            let line = [b" ", name.as_slice(), b"\n"].concat();
            rest = rest
                .strip_prefix(line.as_slice())
                .unwrap_or_else(|| panic!("no {} at {}", name.escape_ascii(), shown()));
        }
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }
}

trait TrimDigits {
    fn trim_ascii_start_matches_digits(&self) -> &Self;
}

impl TrimDigits for [u8] {
    fn trim_ascii_start_matches_digits(&self) -> &Self {
        let count = self.iter().take_while(|byte| byte.is_ascii_digit()).count();
        &self[count..]
    }
}

fn permissions(mode: u16) -> String {
    let mut letters: Vec<char> =
        (0..9).map(|bit| if mode & (0o400 >> bit) == 0 { '-' } else { ['r', 'w', 'x'][bit % 3] }).collect();
    for (bit, at, letter) in [(0o4000, 2, 's'), (0o2000, 5, 's'), (0o1000, 8, 't')] {
        if mode & bit != 0 {
            letters[at] = if letters[at] == 'x' { letter } else { letter.to_ascii_uppercase() };
        }
    }
    letters.into_iter().collect()
}

#[test]
fn unsquashfs_extracts_every_kind() {
    need!(root, tool "unsquashfs");
    let model = everything();
    for compressor in COMPRESSORS {
        let image = ImageFile::new(model.image(compressor, 2));
        let lines = lines_of_directory(&image.extract());
        assert_same_lines(&lines, &model.lines(), &format!("{compressor:?}"));
    }
}

#[test]
fn the_kernel_shows_every_kind() {
    need!(root, loop);
    let model = everything();
    for compressor in COMPRESSORS {
        let image = ImageFile::new(model.image(compressor, 2));
        let mounted = image.mount();
        assert_same_lines(&lines_of_directory(&mounted.0), &model.lines(), &format!("{compressor:?}"));
    }
}

#[test]
fn our_reader_shows_every_kind() {
    for model in [everything(), Model::new(), deep(300), wide(3000)] {
        for compressor in COMPRESSORS {
            let lines = lines_of_image(model.image(compressor, 2));
            assert_same_lines(&lines, &model.lines(), &format!("{compressor:?}"));
        }
    }
}

#[test]
fn our_reader_finds_names_through_the_index() {
    let reader = Reader::open(Arc::new(wide(20_000).image(Compressor::Zstd(1), 1))).unwrap();
    let root = reader.root().unwrap();
    let directory = reader.lookup(&root, b"wide").unwrap().unwrap();
    let find = |name: &str| reader.lookup(&directory, name.as_bytes()).unwrap();
    for number in (0..20_000).step_by(37).chain([500, 19_999]) {
        let found = find(&format!("a name of an entry that is not short {number:06}")).unwrap();
        assert_eq!(found.is_directory(), number == 500);
    }
    for missing in ["", "a", "a name of an entry that is not short 012345x", "z"] {
        assert!(find(missing).is_none(), "{missing}");
    }
}

/// What an item of a random tree is, by number, and its bytes.
fn random_what(kind: usize, seed: u64) -> What {
    let sizes = [0, 1, 100, 70_000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 5];
    let size = sizes[usize::try_from(seed % 8).unwrap()];
    match kind {
        0..=3 => What::Directory,
        4 => What::File(Content::Bytes(noise(size, seed))),
        5 => What::File(Content::Bytes(text(size))),
        6 => What::File(Content::Hole(size as u64, noise(usize::try_from(seed % 500).unwrap(), seed))),
        7 => What::File(Content::Bytes([noise(BLOCK, 1), vec![0; size], text(size)].concat())),
        8 => What::Symlink(format!("../{seed}").into_bytes()),
        9 => What::Char(u32::try_from(seed % 4096).unwrap(), u32::try_from(seed % 0x10_0000).unwrap()),
        10 => What::Fifo,
        _ => What::Socket,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back_as_it_was(
        items in vec((vec("[ab\u{80}]{1,2}", 1..4), 0..12_usize, any::<u64>(), any::<(u16, u32, u32, u32)>()), 0..30),
        threads in 1..4_usize,
    ) {
        let mut model = Model::new();
        for (path, kind, seed, (mode, uid, gid, mtime)) in items {
            // Directories that are missing are made; below anything else nothing can be.
            let parents: Vec<_> = (1..path.len()).map(|end| path[..end].join("/")).collect();
            if parents.iter().any(|parent| model.is_directory_at(parent) == Some(false)) {
                continue;
            }
            for parent in &parents {
                if model.is_directory_at(parent).is_none() {
                    model.add(parent, What::Directory);
                }
            }
            if model.is_directory_at(&path.join("/")).is_none() {
                let item = model.add(path.join("/"), random_what(kind, seed));
                (item.mode, item.uid, item.gid, item.mtime) = (mode & 0o7777, uid, gid, mtime);
            }
        }
        for compressor in COMPRESSORS {
            assert_same_lines(&lines_of_image(model.image(compressor, threads)), &model.lines(), "reader");
        }
    }
}

#[test]
fn names_and_parents_agree_on_inode_numbers() {
    need!(root, loop);
    let model = everything();
    let image = ImageFile::new(model.image(Compressor::Zstd(1), 2));
    let mounted = image.mount();
    let number = |path: &str| fs::symlink_metadata(mounted.0.join(path)).unwrap().ino();
    assert_eq!(number("links/hard"), number("files/one"));
    assert_eq!(number("links/harder"), number("files/one"));
    assert_eq!(number("links/soft and hard"), number("links/relative"));
    assert_ne!(number("files/empty"), number("files/also empty"));
    for directory in ["dev", "files", "empty directory"] {
        let mut listing = nix::dir::Dir::open(
            &mounted.0.join(directory),
            nix::fcntl::OFlag::O_DIRECTORY,
            nix::sys::stat::Mode::empty(),
        )
        .unwrap();
        let listed: Vec<_> = listing.iter().map(|entry| entry.unwrap()).collect();
        let listed_number = |name: &std::ffi::CStr| {
            listed.iter().find(|entry| entry.file_name() == name).map(nix::dir::Entry::ino)
        };
        assert_eq!(listed_number(c"."), Some(number(directory)));
        assert_eq!(listed_number(c".."), Some(number("")));
    }
}

#[test]
fn deep_and_empty_trees() {
    need!(root, tool "unsquashfs", loop);
    for model in [Model::new(), deep(300)] {
        let image = ImageFile::new(model.image(Compressor::Zstd(1), 1));
        assert_same_lines(&lines_of_directory(&image.extract()), &model.lines(), "unsquashfs");
        assert_same_lines(&lines_of_directory(&image.mount().0), &model.lines(), "kernel");
    }
}

#[test]
fn a_tree_of_5000_levels_does_not_overflow_the_stack() {
    let work = || deep_image(5000);
    // Half a megabyte, of which a call for each level would not leave much.
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(work).unwrap();
    assert!(thread.join().unwrap() > 0);
}

/// A chain of directories without their paths, whose lengths add up; the image's size.
fn deep_image(levels: u32) -> u64 {
    let node = |kind| Node { kind, mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: None };
    let mut nodes: Vec<_> =
        (1..levels).map(|child| node(NodeKind::Directory(vec![(b"d".as_slice().into(), child)]))).collect();
    nodes.push(node(NodeKind::Directory(Vec::new())));
    let options = Options { compressor: Compressor::Zstd(1), threads: 1, mtime: 0 };
    let writer = Writer::new(Cursor::new(Vec::new()), options).unwrap();
    writer.finish(&Tree { nodes, root: 0 }).unwrap().1
}

#[test]
fn a_directory_of_70000_entries() {
    need!(root, tool "unsquashfs", loop);
    let model = wide(70_000);
    let image = ImageFile::new(model.image(Compressor::Zstd(1), 2));
    let mounted = image.mount();
    let mut listed: Vec<_> =
        fs::read_dir(mounted.0.join("wide")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    listed.sort();
    let expected: Vec<_> =
        model.0.keys().filter(|path| path.len() == 2).map(|path| OsStr::from_bytes(&path[1])).collect();
    assert!(listed == expected);
    // Lookups go through the index of the directory.
    for number in (0..70_000).step_by(97).filter(|&number| number != 500) {
        let name = format!("wide/a name of an entry that is not short {number:06}");
        assert_eq!(fs::read(mounted.0.join(name)).unwrap(), format!("{}", number % 10).as_bytes());
    }
    for missing in ["wide/a", "wide/a name of an entry that is not short 034567x", "wide/z"] {
        assert!(!mounted.0.join(missing).exists());
    }
    assert_same_lines(&lines_of_directory(&image.extract()), &model.lines(), "unsquashfs");
}

#[test]
fn files_beyond_4_gib_of_holes() {
    need!(root, tool "unsquashfs", loop);
    let mut model = Model::new();
    let hole = 4 << 30;
    model.add("hole", What::File(Content::Hole(hole, Vec::new())));
    model.add("tail", What::File(Content::Hole(hole, b"the tail".to_vec())));
    model.add("block", What::File(Content::Hole(hole + 1, noise(BLOCK * 2, 3))));
    let image = model.image(Compressor::Zstd(1), 2);
    assert!(image.len() < 1 << 20, "{}", image.len());
    let image = ImageFile::new(image);
    let mounted = image.mount();
    assert_same_lines(&lines_of_directory(&mounted.0), &model.lines(), "kernel");
    let allocated = |name: &str| fs::metadata(mounted.0.join(name)).unwrap().blocks() * 512;
    assert_eq!(allocated("hole"), 0);
    assert!(allocated("block") <= 4 * BLOCK as u64);
    assert_same_lines(&lines_of_directory(&image.extract()), &model.lines(), "unsquashfs");
}

#[test]
fn extended_attributes_of_every_kind() {
    need!(root, tool "unsquashfs", tool "getfattr", loop);
    let set = |pairs: &[(&str, &[u8])]| {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect::<Vec<_>>()
    };
    let mut model = Model::new();
    let large = text(3000);
    model.add("", What::Directory).xattrs = set(&[("user.root", b"1")]);
    model.add("directory", What::Directory).xattrs = set(&[("user.b", b"2"), ("user.a", b"1")]);
    model.bytes("directory/file", "content").xattrs = set(&[("user.a", b"1"), ("user.b", b"2")]);
    model.bytes("directory/plain", "");
    model.bytes("large", "").xattrs = set(&[("user.large", &large), ("user.empty", b"")]);
    for number in 0..500_usize {
        let value = noise(10, number as u64);
        model.bytes(format!("directory/{number}"), "").xattrs = set(&[("user.number", &value)]);
    }
    // Linux takes no user attributes on these, but the format does and must not get out of step.
    model.add("link", What::Symlink(b"directory".to_vec())).xattrs = set(&[("trusted.x", b"y")]);
    model.add("null", What::Char(1, 3)).xattrs = set(&[("trusted.x", b"y")]);
    model.add("pipe", What::Fifo).xattrs = set(&[("trusted.z", b"\0\n")]);
    let mut expected = Vec::new();
    for (path, item) in &model.0 {
        let mut xattrs = item.xattrs.clone();
        xattrs.sort();
        for (name, value) in xattrs {
            let hex = value.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            let path = String::from_utf8(path.join(&b'/')).unwrap();
            expected.push(format!("{path}: {}=0x{hex}", String::from_utf8(name).unwrap()));
        }
    }
    for compressor in COMPRESSORS {
        let image = ImageFile::new(model.image(compressor, 2));
        let mounted = image.mount();
        assert_same_lines(&attributes_of(&mounted.0, &model), &expected, "kernel");
        assert_same_lines(&lines_of_directory(&mounted.0), &model.lines(), "kernel");
        assert_same_lines(&attributes_of(&image.extract(), &model), &expected, "unsquashfs");
    }
}

/// `path: name=0xvalue` for every attribute of the model's paths below `root`.
fn attributes_of(root: &Path, model: &Model) -> Vec<String> {
    let mut lines = Vec::new();
    for path in model.0.keys() {
        let path = String::from_utf8(path.join(&b'/')).unwrap();
        let output = run(Command::new("getfattr")
            .args(["--no-dereference", "--dump", "--match=-", "--encoding=hex", "--absolute-names", "--"])
            .arg(root.join(&path)));
        let output = String::from_utf8(output).unwrap();
        let mut found: Vec<_> =
            output.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        found.sort_unstable();
        lines.extend(found.into_iter().map(|line| format!("{path}: {line}")));
    }
    lines
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let model = everything();
    for compressor in COMPRESSORS {
        let images: Vec<_> =
            [1, 4, 4, 2].map(|threads| Digest::of(&model.image(compressor, threads))).into_iter().collect();
        assert!(images.iter().all(|image| *image == images[0]), "{compressor:?}: {images:?}");
    }
}

#[test]
fn duplicates_of_small_files_take_no_room() {
    let image = |names: usize| {
        let mut model = Model::new();
        for number in 0..names {
            model.bytes(format!("{number:03}"), noise(50_000, 1));
        }
        model.image(Compressor::Zstd(1), 1).len()
    };
    assert!(image(100) - image(1) < 4000);
    let options = Options { compressor: Compressor::Zstd(1), threads: 1, mtime: 0 };
    let mut writer = Writer::new(Cursor::new(Vec::new()), options).unwrap();
    let mut add = |bytes: &[u8]| writer.add_file(bytes.len() as u64, &mut &*bytes).unwrap();
    assert_eq!([add(b"a"), add(b"b"), add(b"a"), add(b""), add(b"")], [0, 1, 0, 2, 2].map(FileId));
}
