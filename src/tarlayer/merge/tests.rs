//! Named stacks of layers, and the helpers that the model's property uses too.

use std::collections::HashMap;
use std::io::Read;

use super::*;
use crate::base::tree::{NodeId, NodeKind};
use crate::tarlayer::testing::{Member, archive, dir, file, hard_link, member, pax, symlink};

/// An entry of a layer in few words.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) mode: u32,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    File(String),
    Directory,
    Symlink(String),
    Hard(String),
    Whiteout,
    Opaque,
}

impl Item {
    fn member(&self) -> Member {
        let hidden = || match self.path.rsplit_once('/') {
            Some((parent, name)) => format!("{parent}/.wh.{name}"),
            None => format!(".wh.{}", self.path),
        };
        match &self.kind {
            Kind::File(content) => file(&self.path, content),
            Kind::Directory => dir(format!("{}/", self.path)),
            Kind::Symlink(target) => symlink(&self.path, target),
            Kind::Hard(target) => hard_link(&self.path, target),
            Kind::Whiteout => file(hidden(), ""),
            Kind::Opaque => file(format!("{}/.wh..wh..opq", self.path), ""),
        }
        .mode(self.mode.into())
    }
}

/// Keeps contents in memory.
#[derive(Debug, Default)]
pub(super) struct Contents(pub(super) Vec<Vec<u8>>);

impl FileSink for Contents {
    fn add_file(&mut self, size_bytes: u64, content: &mut dyn Read) -> std::io::Result<FileId> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, size_bytes);
        self.0.push(bytes);
        Ok(FileId(u32::try_from(self.0.len() - 1).unwrap()))
    }
}

const LIMITS: Limits = Limits { max_entries: 10_000 };

/// Merges archives (oldest first) and prints the tree.
fn merge_archives(archives: &[Vec<u8>], is_lean: bool) -> Result<(Vec<String>, Contents), MergeError> {
    let mut merger = Merger::new(LIMITS);
    let mut contents = Contents::default();
    for bytes in archives.iter().rev() {
        let mut tar = TarReader::new(bytes.as_slice());
        if !is_lean {
            merger.add_layer(&mut tar, &mut contents)?;
        } else if merger.add_layer_lean(&mut tar, &mut contents)? == LayerRest::ReadAgain {
            merger.add_layer_again(&mut TarReader::new(bytes.as_slice()), &mut contents)?;
        }
    }
    let tree = merger.finish()?;
    Ok((dump(&tree, &contents), contents))
}

fn archives_of(stack: &[Vec<Item>]) -> Vec<Vec<u8>> {
    let members = |items: &Vec<Item>| items.iter().map(Item::member).collect::<Vec<_>>();
    stack.iter().map(|items| archive(&members(items))).collect()
}

pub(super) fn merge(stack: &[Vec<Item>]) -> Result<Vec<String>, MergeError> {
    merge_archives(&archives_of(stack), false).map(|(lines, _)| lines)
}

pub(super) fn merge_lean(stack: &[Vec<Item>]) -> Result<Vec<String>, MergeError> {
    merge_archives(&archives_of(stack), true).map(|(lines, _)| lines)
}

/// `path: kind mode content = first name of the same inode`, in the order of a walk.
fn dump(tree: &Tree, contents: &Contents) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first_names = HashMap::new();
    dump_directory(tree, contents, (tree.root, String::new()), &mut first_names, &mut lines);
    lines
}

fn dump_directory(
    tree: &Tree,
    contents: &Contents,
    (directory, prefix): (NodeId, String),
    first_names: &mut HashMap<NodeId, String>,
    lines: &mut Vec<String>,
) {
    let NodeKind::Directory(children) = &tree.nodes[directory as usize].kind else { panic!("no directory") };
    assert!(children.is_sorted_by(|left, right| left.0 < right.0), "sorted and unique");
    for (name, id) in children {
        let path = format!("{prefix}{}", name.escape_ascii());
        let node = &tree.nodes[*id as usize];
        let mode = node.mode;
        let what = match &node.kind {
            NodeKind::Directory(_) => format!("dir {mode:o}"),
            NodeKind::File(content) => {
                format!("file {mode:o} {}", contents.0[content.0 as usize].escape_ascii())
            }
            NodeKind::Symlink(target) => format!("link {}", target.escape_ascii()),
            other => format!("{other:?} {mode:o}"),
        };
        let same = first_names.get(id).map(|first| format!(" = {first}")).unwrap_or_default();
        first_names.entry(*id).or_insert_with(|| path.clone());
        lines.push(format!("{path}: {what}{same}"));
        if matches!(node.kind, NodeKind::Directory(_)) {
            dump_directory(tree, contents, (*id, format!("{path}/")), first_names, lines);
        }
    }
}

/// Layers, oldest first, and the tree they make; with and without passing hidden content by.
#[track_caller]
fn check(layers: &[&[Member]], expected: &[&str]) {
    let archives: Vec<_> = layers.iter().map(|members| archive(members)).collect();
    for is_lean in [false, true] {
        let (lines, _) = merge_archives(&archives, is_lean).unwrap();
        assert_eq!(lines, expected, "lean: {is_lean}");
    }
}

#[track_caller]
fn check_error(layers: &[&[Member]], expected: &str) {
    let archives: Vec<_> = layers.iter().map(|members| archive(members)).collect();
    for is_lean in [false, true] {
        let error = merge_archives(&archives, is_lean).unwrap_err();
        assert_eq!(error.to_string(), expected, "lean: {is_lean}");
    }
}

/// The contents that are stored where hidden ones are passed by, newest layer first.
#[track_caller]
fn check_stored(layers: &[&[Member]], expected: &[&str]) {
    let archives: Vec<_> = layers.iter().map(|members| archive(members)).collect();
    let (_, contents) = merge_archives(&archives, true).unwrap();
    let stored: Vec<_> =
        contents.0.iter().map(|content| String::from_utf8_lossy(content).into_owned()).collect();
    assert_eq!(stored, expected);
}

fn whiteout(hidden: &str) -> Member {
    let (parent, name) = hidden.rsplit_once('/').map_or(("", hidden), |(parent, name)| (parent, name));
    file(format!("{parent}/.wh.{name}"), "")
}

fn opaque(directory: &str) -> Member {
    file(format!("{directory}/.wh..wh..opq"), "")
}

#[test]
fn nothing_and_empty_layers() {
    check(&[], &[]);
    check(&[&[], &[], &[]], &[]);
    check(&[&[], &[file("only", "x")], &[]], &["only: file 644 x"]);
    let many: Vec<Vec<Member>> = (0..300).map(|number| vec![file("f", number.to_string())]).collect();
    let many: Vec<&[Member]> = many.iter().map(Vec::as_slice).collect();
    check(&many, &["f: file 644 299"]);
}

#[test]
fn parents_that_no_layer_lists() {
    check(
        &[&[file("a/b/c", "1"), hard_link("x/y", "a/b/c"), whiteout("gone/z")]],
        &["a: dir 755", "a/b: dir 755", "a/b/c: file 644 1", "x: dir 755", "x/y: file 644 1 = a/b/c"],
    );
    // What lies below keeps its metadata.
    check(&[&[dir("a").mode(0o700)], &[file("a/b", "1")]], &["a: dir 700", "a/b: file 644 1"]);
}

#[test]
fn order_and_duplicates_in_one_layer() {
    check(&[&[file("d/f", "1"), dir("d").mode(0o700)]], &["d: dir 700", "d/f: file 644 1"]);
    check(
        &[&[dir("d").mode(0o700), file("d/f", "1"), dir("d").mode(0o711)]],
        &["d: dir 711", "d/f: file 644 1"],
    );
    check(&[&[file("f", "1"), file("f", "2").mode(0o600)]], &["f: file 600 2"]);
    check(&[&[file("f", "1"), dir("f"), file("f/g", "2")]], &["f: dir 755", "f/g: file 644 2"]);
    check(&[&[dir("f"), file("f/g", "2"), file("f", "1")]], &["f: file 644 1"]);
}

#[test]
fn names_are_cleaned() {
    check(
        &[&[
            dir("./"),
            file("./a", "1"),
            file("/b", "2"),
            dir("c//"),
            file("c/.//d", "3"),
            file("x/../e", "4"),
        ]],
        &["a: file 644 1", "b: file 644 2", "c: dir 755", "c/d: file 644 3", "e: file 644 4"],
    );
    let name_255 = "n".repeat(255);
    check(
        &[&[file(b"\xff\n\\:", "1"), file(&name_255, "2"), file("a.wh.b", "3")]],
        &["a.wh.b: file 644 3", &format!("{name_255}: file 644 2"), "\\xff\\n\\\\:: file 644 1"],
    );
    check_error(
        &[&[file("n".repeat(256), "")]],
        &format!("layer 0 from the top: path `{}` is longer than Linux allows (255 bytes)", "n".repeat(120)),
    );
    check_error(
        &[&[file("n/".repeat(2100) + "f", "")]],
        &format!("layer 0 from the top: path `{}` is longer than Linux allows (4095 bytes)", "n/".repeat(60)),
    );
}

#[test]
fn the_root_is_a_directory() {
    let tree = |layers: &[&[Member]]| {
        let mut merger = Merger::new(LIMITS);
        for members in layers.iter().rev() {
            let bytes = archive(members);
            merger.add_layer(&mut TarReader::new(bytes.as_slice()), &mut Contents::default()).unwrap();
        }
        merger.finish().unwrap()
    };
    let mode = |layers: &[&[Member]]| {
        let tree = tree(layers);
        tree.nodes[tree.root as usize].mode
    };
    assert_eq!(mode(&[]), 0o755);
    for name in ["/", "./", ".", ""] {
        assert_eq!(mode(&[&[dir(name).mode(0o700)], &[file("a", "")]]), 0o700, "{name}");
    }
    assert_eq!(mode(&[&[dir("./").mode(0o700)], &[dir("./").mode(0o1777)]]), 0o1777);
    for name in ["/", "", "a/.."] {
        check_error(
            &[&[file(name, "")]],
            "layer 0 from the top lists the root as something that is no directory",
        );
    }
}

#[test]
fn nothing_leaves_the_root() {
    check_error(&[&[file("../x", "")]], "layer 0 from the top: path `../x` leaves the image");
    check_error(&[&[file("a/../../x", "")]], "layer 0 from the top: path `a/../../x` leaves the image");
    check_error(
        &[&[file("../root-evil/x", "")]],
        "layer 0 from the top: path `../root-evil/x` leaves the image",
    );
    check_error(
        &[&[hard_link("x", "../etc/shadow")]],
        "target of hard link `x` in layer 0 from the top: path `../etc/shadow` leaves the image",
    );
    // Links are root-relative, and the root is its own parent.
    let expected = ["etc: dir 755", "etc/x: file 644 1"];
    for target in ["/etc", "etc", "./etc/", "../../../etc", "/../etc", "/etc/../etc/."] {
        let link = format!("l: link {target}");
        let expected = [expected[0], expected[1], &link];
        check(&[&[symlink("l", target), file("l/x", "1")]], &expected);
        check(&[&[symlink("l", target)], &[file("l/x", "1")]], &expected);
        check(
            &[
                &[symlink("l", target)],
                &[file("etc/y", "0"), whiteout("etc/y")],
                &[file("l/x", "1"), whiteout("etc/y")],
            ],
            &expected,
        );
    }
    check(
        &[&[symlink("l", "/"), symlink("m", "l/l")], &[file("m/x", "1")]],
        &["l: link /", "m: link l/l", "x: file 644 1"],
    );
}

#[test]
fn symlink_loops() {
    for members in [[symlink("a", "b"), symlink("b", "a")], [symlink("a", "a/a"), symlink("b", "b")]] {
        check_error(
            &[&members, &[file("a/x", "")]],
            "the way to `a` of layer 0 from the top leads through too many symbolic links",
        );
    }
    let chain: Vec<_> =
        (0..40).map(|number| symlink(format!("l{number}"), format!("l{}", number + 1))).collect();
    let archives = [archive(&chain), archive(&[file("l0/x", "1")])];
    let (lines, _) = merge_archives(&archives, false).unwrap();
    assert_eq!(lines.last().unwrap(), "l9: link l10");
    assert!(lines.contains(&"l40/x: file 644 1".to_owned()));
    // A link nobody goes through may be anything.
    check(&[&[symlink("a", "a")]], &["a: link a"]);
    check_error(
        &[&[symlink("a", "")]],
        "symbolic link `a` of layer 0 from the top has an empty or too long target",
    );
}

#[test]
fn parents_through_lower_symlinks() {
    let base: &[Member] = &[dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib"), file("usr/lib/a", "a")];
    check(
        &[base, &[file("lib/z", "z")]],
        &[
            "lib: link usr/lib",
            "usr: dir 755",
            "usr/lib: dir 755",
            "usr/lib/a: file 644 a",
            "usr/lib/z: file 644 z",
        ],
    );
    // A layer that lists the directory replaces the link, also where it lists it after its children.
    let replaced =
        ["lib: dir 755", "lib/z: file 644 z", "usr: dir 755", "usr/lib: dir 755", "usr/lib/a: file 644 a"];
    check(&[base, &[dir("lib"), file("lib/z", "z")]], &replaced);
    check(&[base, &[file("lib/z", "z"), dir("lib")]], &replaced);
    // Newer layers win over older ones whichever name they use.
    let last = |content: &str| {
        [
            "lib: link usr/lib".to_owned(),
            "usr: dir 755".to_owned(),
            "usr/lib: dir 755".to_owned(),
            format!("usr/lib/a: file 644 {content}"),
        ]
    };
    for (older, newer) in [("lib/a", "usr/lib/a"), ("usr/lib/a", "lib/a")] {
        let expected = last("2");
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        check(&[base, &[file(older, "1")], &[file(newer, "2")]], &expected);
    }
    // The entry of the middle layer lies behind the link, though a newer layer has a directory there.
    check(
        &[base, &[file("lib/y", "y")], &[dir("lib")]],
        &[
            "lib: dir 755",
            "usr: dir 755",
            "usr/lib: dir 755",
            "usr/lib/a: file 644 a",
            "usr/lib/y: file 644 y",
        ],
    );
    // A link into nowhere makes its directory.
    check(
        &[&[symlink("run", "/var/run")], &[file("run/x", "1")]],
        &["run: link /var/run", "var: dir 755", "var/run: dir 755", "var/run/x: file 644 1"],
    );
}

#[test]
fn hard_links() {
    let one = ["a: file 644 1", "b: file 644 1 = a"];
    for target in ["a", "/a", "./a", "x/../a"] {
        check(&[&[file("a", "1"), hard_link("b", target)]], &one);
        check(&[&[file("a", "1")], &[hard_link("b", target)]], &one);
    }
    check(&[&[hard_link("b", "a"), file("a", "1")]], &one);
    check(&[&[file("a", "1"), hard_link("a", "a"), hard_link("b", "a")]], &one);
    // Chains, in any order.
    let chain = [file("a", "1"), hard_link("b", "a"), hard_link("c", "b")];
    let chained = ["a: file 644 1", "b: file 644 1 = a", "c: file 644 1 = a"];
    check(&[&chain], &chained);
    let [a, b, c] = chain;
    check(&[&[c.clone(), b.clone(), a.clone()]], &chained);
    check(&[&[b.clone(), c.clone(), a.clone()]], &chained);
    check(&[&[a], &[b], &[c]], &chained);
    // To a symbolic link: the link itself.
    check(&[&[symlink("s", "gone"), hard_link("t", "s")]], &["s: link gone", "t: link gone = s"]);
    // Through links to directories.
    check(
        &[&[file("d/a", "1"), symlink("l", "/d")], &[hard_link("l/b", "l/a")]],
        &["d: dir 755", "d/a: file 644 1", "d/b: file 644 1 = d/a", "l: link /d"],
    );
    // Whiteout and link of one layer: whiteouts are about names below.
    check(&[&[file("a", "0")], &[whiteout("a"), file("a", "1"), hard_link("b", "a")]], &one);
    check(&[&[file("a", "1")], &[Member { data: b"1".to_vec(), ..hard_link("b", "a") }]], &one);
}

#[test]
fn hard_links_outlive_their_target() {
    let base: &[Member] = &[file("a", "1"), hard_link("b", "a"), file("z", "z")];
    check(&[base, &[whiteout("a")]], &["b: file 644 1", "z: file 644 z"]);
    check(&[base, &[file("a", "2")]], &["a: file 644 2", "b: file 644 1", "z: file 644 z"]);
    check(&[base, &[dir("a")]], &["a: dir 755", "b: file 644 1", "z: file 644 z"]);
    // A link of a newer layer to an older file that a still newer layer removes.
    check(&[&[dir("d"), file("d/a", "1")], &[hard_link("b", "d/a")], &[whiteout("d")]], &["b: file 644 1"]);
    check(
        &[
            &[dir("d"), file("d/a", "1")],
            &[hard_link("b", "d/a")],
            &[dir("d"), opaque("d"), file("d/a", "2")],
        ],
        &["b: file 644 1", "d: dir 755", "d/a: file 644 2"],
    );
    // Each link means what its own layer saw.
    check(
        &[&[file("a", "1")], &[hard_link("b", "a")], &[file("a", "2")], &[hard_link("c", "a")]],
        &["a: file 644 2", "b: file 644 1", "c: file 644 2 = a"],
    );
}

#[test]
fn hard_links_that_cannot_be() {
    check_error(
        &[&[file("a", "1")], &[file("x", ""), hard_link("b", "no/a")]],
        "hard link `b` of layer 0 from the top: neither it nor a layer below has `no/a`",
    );
    check_error(
        &[&[hard_link("b", "a")], &[file("a", "1")]],
        "hard link `b` of layer 1 from the top: neither it nor a layer below has `a`",
    );
    check_error(
        &[&[file("a", "1")], &[whiteout("a"), hard_link("b", "a")]],
        "hard link `b` of layer 0 from the top: neither it nor a layer below has `a`",
    );
    check_error(
        &[&[hard_link("a", "a")]],
        "hard link `a` of layer 0 from the top: neither it nor a layer below has `a`",
    );
    check_error(
        &[&[dir("d"), hard_link("b", "d")]],
        "hard link `b` of layer 0 from the top: `d` is a directory",
    );
    check_error(&[&[hard_link("b", "/")]], "hard link `b` of layer 0 from the top: `` is a directory");
}

#[test]
fn flips() {
    let with_child: &[Member] = &[dir("x"), file("x/old", "0")];
    let as_file: &[Member] = &[file("x", "1")];
    let as_link: &[Member] = &[symlink("x", "y")];
    let as_dir: &[Member] = &[dir("x").mode(0o700), file("x/new", "2")];
    check(&[with_child, as_file], &["x: file 644 1"]);
    check(&[with_child, as_link], &["x: link y"]);
    check(&[with_child, as_dir], &["x: dir 700", "x/new: file 644 2", "x/old: file 644 0"]);
    check(&[with_child, as_file, as_dir], &["x: dir 700", "x/new: file 644 2"]);
    check(&[with_child, as_link, as_dir], &["x: dir 700", "x/new: file 644 2"]);
    check(&[as_file, as_link], &["x: link y"]);
    check(&[as_file, as_dir, as_link, as_file, with_child], &["x: dir 755", "x/old: file 644 0"]);
    // Something that is no directory in the middle of a path: of a lower layer it gives way.
    check(&[as_file, &[file("x/y", "1")]], &["x: dir 755", "x/y: file 644 1"]);
    check_error(
        &[&[file("x", "1"), file("x/y", "1")]],
        "`x` of layer 0 from the top lies below `x`, which is no directory",
    );
    check_error(
        &[&[file("f", ""), symlink("x", "f")], &[file("x/y/z", "1")]],
        "`x/y` of layer 0 from the top lies below `x/y`, which is no directory",
    );
}

#[test]
fn whiteouts() {
    let base: &[Member] = &[dir("d"), file("d/a", "a"), file("d/b", "b"), dir("d/e"), file("d/e/f", "f")];
    check(
        &[base, &[whiteout("d/a")]],
        &["d: dir 755", "d/b: file 644 b", "d/e: dir 755", "d/e/f: file 644 f"],
    );
    check(&[base, &[whiteout("d")]], &[]);
    check(
        &[base, &[member(b'5', "d/.wh.e"), hard_link("d/.wh.a", "d/b")]],
        &["d: dir 755", "d/b: file 644 b"],
    );
    check(
        &[
            base,
            &[whiteout("gone"), whiteout("d/gone/x"), whiteout("d/a/x"), whiteout("d/b"), whiteout("d/e")],
        ],
        &["d: dir 755", "d/a: file 644 a"],
    );
    check(&[&[whiteout("x"), opaque("d"), file("x", "1")]], &["x: file 644 1"]);
    // They hide only what is below, wherever they stand.
    let replaced = ["d: dir 755", "d/a: file 644 2", "d/b: file 644 b", "d/e: dir 755", "d/e/f: file 644 f"];
    check(&[base, &[whiteout("d/a"), file("d/a", "2")]], &replaced);
    check(&[base, &[file("d/a", "2"), whiteout("d/a")]], &replaced);
    for layer in [[whiteout("d"), file("d/a", "2")], [file("d/a", "2"), whiteout("d")]] {
        check(&[base, &layer], &["d: dir 755", "d/a: file 644 2"]);
    }
    // A directory that is hidden and made again unlisted has lost its mode.
    check(&[&[dir("d").mode(0o700)], &[whiteout("d"), file("d/x", "1")]], &["d: dir 755", "d/x: file 644 1"]);
    // Through a link of a lower layer; not through one that its own layer replaces by a directory.
    let linked: &[Member] = &[dir("r"), file("r/a", "1"), symlink("l", "/r")];
    check(&[linked, &[whiteout("l/a")]], &["l: link /r", "r: dir 755"]);
    check(&[linked, &[opaque("l")]], &["l: link /r", "r: dir 755"]);
    check(&[linked, &[dir("l"), whiteout("l/a")]], &["l: dir 755", "r: dir 755", "r/a: file 644 1"]);
    check(&[linked, &[opaque("l"), dir("l")]], &["l: dir 755", "r: dir 755", "r/a: file 644 1"]);
    check(&[linked, &[whiteout("l")]], &["r: dir 755", "r/a: file 644 1"]);
    check(
        &[linked, &[whiteout("l"), file("l/x", "2")]],
        &["l: dir 755", "l/x: file 644 2", "r: dir 755", "r/a: file 644 1"],
    );
}

#[test]
fn opaque_directories() {
    let base: &[Member] = &[dir("d"), file("d/a", "a"), dir("d/e"), file("d/e/f", "f"), file("z", "z")];
    for layer in [[opaque("d"), file("d/new", "n")], [file("d/new", "n"), opaque("d")]] {
        check(&[base, &layer], &["d: dir 755", "d/new: file 644 n", "z: file 644 z"]);
    }
    check(&[base, &[opaque("")]], &[]);
    check(&[base, &[file("n", "n"), opaque(".")]], &["n: file 644 n"]);
    check(
        &[base, &[opaque("d/e"), file("d/e/g", "g")]],
        &["d: dir 755", "d/a: file 644 a", "d/e: dir 755", "d/e/g: file 644 g", "z: file 644 z"],
    );
    check(
        &[base, &[opaque("d"), opaque("d/e"), file("d/e/g", "g")]],
        &["d: dir 755", "d/e: dir 755", "d/e/g: file 644 g", "z: file 644 z"],
    );
    check(&[base, &[hard_link("d/.wh..wh..opq", "z")]], &["d: dir 755", "z: file 644 z"]);
    check(&[&[file("z", "")], &[opaque("gone"), opaque("z")]], &["z: file 644 "]);
    // Metadata stays, and so does what comes later.
    check(
        &[&[dir("d").mode(0o700), file("d/a", "1")], &[opaque("d")], &[file("d/b", "2")]],
        &["d: dir 700", "d/b: file 644 2"],
    );
}

#[test]
fn names_of_whiteouts() {
    for name in ["d/.wh.", "d/.wh..", "d/.wh..."] {
        check_error(&[&[file(name, "")]], &format!("layer 0 from the top: whiteout `{name}` names nothing"));
    }
    check_error(&[&[file(".wh.d/f", "")]], "layer 0 from the top: `.wh.d/f` lies below a whiteout");
    // What aufs left behind, except that its files can be linked.
    check(
        &[&[
            dir(".wh..wh.aufs"),
            dir(".wh..wh.orph"),
            file(".wh..wh.orph/1", "1"),
            dir(".wh..wh.plnk"),
            file(".wh..wh.plnk/7.8", "linked"),
            hard_link("a", ".wh..wh.plnk/7.8"),
            hard_link("b", ".wh..wh.plnk/7.8"),
            file("d/.wh..wh.other", ""),
        ]],
        &["a: file 644 linked", "b: file 644 linked = a"],
    );
}

#[test]
fn special_files_and_metadata() {
    let device = Member { device: (1, 3), ..member(b'3', "dev/null") };
    let disk = Member { device: (8, 300), ..member(b'4', "dev/disk") };
    let suid = file("bin/su", "s").mode(0o4755);
    check(
        &[&[
            device,
            disk,
            member(b'6', "pipe"),
            suid,
            dir("tmp").mode(0o1777),
            symlink("etc/mtab", "/proc/mounts"),
        ]],
        &[
            "bin: dir 755",
            "bin/su: file 4755 s",
            "dev: dir 755",
            "dev/disk: BlockDevice { major: 8, minor: 300 } 755",
            "dev/null: CharDevice { major: 1, minor: 3 } 755",
            "etc: dir 755",
            "etc/mtab: link /proc/mounts",
            "pipe: Fifo 755",
            "tmp: dir 1777",
        ],
    );
    let members = [
        pax(&[
            ("SCHILY.xattr.user.b", b"2\n\0"),
            ("SCHILY.xattr.user.a", b"1"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.capability", b"c"),
            ("SCHILY.xattr.system.posix_acl_access", b"c"),
            ("uid", b"99999999999"),
            ("gid", b"4294967295"),
            ("mtime", b"-5"),
        ]),
        file("f", ""),
        pax(&[("mtime", b"9999999999.5")]),
        file("g", ""),
    ];
    let bytes = archive(&members);
    let mut merger = Merger::new(LIMITS);
    merger.add_layer(&mut TarReader::new(bytes.as_slice()), &mut Contents::default()).unwrap();
    assert_eq!(merger.entries(), 2);
    let tree = merger.finish().unwrap();
    let NodeKind::Directory(children) = &tree.nodes[tree.root as usize].kind else { panic!("no directory") };
    let [f, g] = [0, 1].map(|index: usize| &tree.nodes[children[index].1 as usize]);
    let expected = vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), b"2\n\0".to_vec())];
    assert_eq!(f.xattrs.as_deref(), Some(&expected));
    assert_eq!((f.uid, f.gid, f.mtime), (u32::MAX, u32::MAX, 0));
    assert_eq!((g.mtime, g.xattrs.is_none()), (u32::MAX, true));
    check_error(
        &[&[pax(&[("SCHILY.xattr.user.big", &[b'x'; 65537])]), file("f", "")]],
        "attribute `user.big` of `f` in layer 0 from the top is larger than Linux allows",
    );
}

#[test]
fn hidden_content_is_passed_by() {
    let base: &[Member] =
        &[dir("d"), file("d/a", "old a"), dir("d/e"), file("d/e/f", "f"), file("z", "old z")];
    check_stored(&[base, &[file("z", "new z")]], &["new z", "old a", "f"]);
    check_stored(&[base, &[dir("d"), file("d/a", "new a")]], &["new a", "f", "old z"]);
    check_stored(&[base, &[whiteout("d")]], &["old z"]);
    check_stored(&[base, &[whiteout("d/e"), symlink("z", "x")]], &["old a"]);
    check_stored(&[base, &[opaque("d")]], &["old z"]);
    check_stored(&[base, &[opaque("")]], &[]);
    check_stored(&[base, &[dir("z")]], &["old a", "f"]);
    check_stored(&[base, &[dir("d"), dir("d/e")]], &["old a", "f", "old z"]);
    check_stored(&[base, &[file("x", "x")], &[whiteout("d")]], &["x", "old z"]);
    // Not certain: without its directory listed, the path may lead through a link.
    check_stored(&[&[file("d/a", "old")], &[file("d/a", "new")]], &["new", "old"]);
    // Claimed by a newer layer.
    check_stored(&[base, &[hard_link("b", "z")], &[whiteout("z")]], &["old a", "f", "old z"]);
    check_stored(&[base, &[symlink("l", "d"), hard_link("b", "l/a")], &[opaque("d")]], &["old a", "old z"]);
    // Claimed later in the same layer, which is read once more.
    check_stored(
        &[
            &[file("a", "1"), file("b", "2"), hard_link("c", "b"), file("e", "3")],
            &[opaque("")],
            &[file("x", "x")],
        ],
        &["x", "2"],
    );
    check(&[&[file("a", "1"), hard_link("b", "a")], &[whiteout("a")]], &["b: file 644 1"]);
}

#[test]
fn paths_that_only_seem_certain_are_stored() {
    // `b/a` puts a link where the layer lists `a` as a directory, and in the end `a` is a link indeed.
    check(
        &[
            &[dir("a"), symlink("b", "."), symlink("b/a", "c"), file("a/x", "old"), symlink("a", "c")],
            &[dir("a"), opaque("a")],
        ],
        &["a: dir 755", "b: link .", "c: dir 755", "c/x: file 644 old"],
    );
    // The target of `l` is there only when `a` has become a link.
    check(
        &[
            &[dir("c"), file("c/x", "old")],
            &[dir("a"), hard_link("l", "a/x"), symlink("a", "c")],
            &[dir("c"), whiteout("c/x")],
        ],
        &["a: link c", "c: dir 755", "l: file 644 old"],
    );
}

#[test]
fn a_second_reading_is_demanded() {
    let base = archive(&[file("a", "1"), hard_link("b", "a")]);
    let top = archive(&[whiteout("a")]);
    let merger = || {
        let mut merger = Merger::new(LIMITS);
        let rest = merger.add_layer_lean(&mut TarReader::new(top.as_slice()), &mut Contents::default());
        assert_eq!(rest.unwrap(), LayerRest::Nothing);
        let rest = merger.add_layer_lean(&mut TarReader::new(base.as_slice()), &mut Contents::default());
        assert_eq!(rest.unwrap(), LayerRest::ReadAgain);
        merger
    };
    assert_eq!(
        merger().finish().unwrap_err().to_string(),
        "the content of `b` was passed by, but a hard link needs it: read its layer once more"
    );
    for other in [archive(&[]), archive(&[dir("a")]), archive(&[file("a", "11")])] {
        let error = merger().add_layer_again(&mut TarReader::new(other.as_slice()), &mut Contents::default());
        assert_eq!(
            error.unwrap_err().to_string(),
            "layer 1 from the top was not the same when it was read once more"
        );
    }
}

#[test]
fn limits() {
    let merge = |max_entries, members: &[Member]| {
        let bytes = archive(members);
        let mut merger = Merger::new(Limits { max_entries });
        merger.add_layer(&mut TarReader::new(bytes.as_slice()), &mut Contents::default())?;
        merger.finish()
    };
    let too_many = "the image has more than 2 entries (large attributes and unlisted directories count too)";
    assert!(merge(2, &[file("a", ""), file("b", "")]).is_ok());
    assert!(merge(0, &[]).is_ok());
    let refused = |members: &[Member]| assert_eq!(merge(2, members).unwrap_err().to_string(), too_many);
    refused(&[file("a", ""), file("b", ""), file("b", "")]);
    refused(&[file("a", ""), whiteout("b"), file("c", "")]);
    refused(&[symlink("a", "x".repeat(600)), file("b", "")]);
    // Directories that nobody lists are free only up to a number.
    let deep = ["1/", "2/", "3/"].map(|name| file(name.repeat(2000) + "f", ""));
    assert!(merge(3, &deep[..2]).is_ok());
    assert!(merge(3, &deep).unwrap_err().to_string().contains("more than 3 entries"));
    assert!(merge(2, &[file("1/".repeat(2000) + "f", "")]).is_ok());
    // Directories behind links are counted too, though no entry names them.
    let mut members = Vec::new();
    for number in 0..5 {
        members.push(symlink(format!("l{number}"), format!("{number}/").repeat(2000)));
        members.push(file(format!("l{number}/f"), ""));
    }
    assert!(merge(100, &members).unwrap_err().to_string().contains("more than 100 entries"));
}

#[test]
fn errors_below_are_passed_on() {
    struct Full;
    impl FileSink for Full {
        fn add_file(&mut self, _: u64, _: &mut dyn Read) -> std::io::Result<FileId> {
            Err(std::io::Error::other("no space"))
        }
    }
    let bytes = archive(&[file("d/f", "content")]);
    let mut merger = Merger::new(LIMITS);
    let error = merger.add_layer(&mut TarReader::new(bytes.as_slice()), &mut Full).unwrap_err();
    assert_eq!(error.to_string(), "storing `d/f` of layer 0 from the top: no space");
    let error = merger.add_layer(&mut TarReader::new(&bytes[..515]), &mut Contents::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer 0 from the top: the archive is truncated: it ends inside the data of `d/f`, at byte 515"
    );
    assert!(crate::base::Hint::hint(&error).is_some());
}
