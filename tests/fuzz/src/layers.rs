//! Tars, their compression, and the merge of layers.

use std::collections::HashMap;
use std::io::{self, BufReader, Read};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use slipway::base::tree::{FileId, NodeId, NodeKind, Tree};
use slipway::tarlayer::{Encoding, Entry, FileSink, LayerRest, Limits, MergeError, Merger, TarReader};

use crate::squashfs;

#[path = "../../../src/tarlayer/merge/model.rs"]
mod model;
#[path = "../../../src/tarlayer/testing.rs"]
#[expect(dead_code, reason = "the unit tests of the reader use the rest")]
pub(crate) mod testing;

use model::{Item, Kind};

/// Most content that is read of one entry, in bytes: a sparse file may claim to be of any length.
const CONTENT_BYTES: u64 = 256 << 10;
/// Most entries that are read.
const ENTRIES: usize = 2000;

/// Gives a few bytes at a time, as a pipe may.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = buf.len().min(7);
        self.0.read(&mut buf[..count])
    }
}

/// All entries, whether the last one is followed by an error, and how many bytes are left.
fn entries(
    stream: impl Read,
    mut each: impl FnMut(&mut TarReader<&mut dyn Read>, &Entry),
) -> (Vec<Entry>, bool) {
    let mut stream = stream;
    let mut tar = TarReader::new(&mut stream as &mut dyn Read);
    let mut found = Vec::new();
    while found.len() < ENTRIES {
        match tar.next_entry() {
            Ok(Some(entry)) => {
                assert!(entry.mode <= 0o7777, "{:o}", entry.mode);
                each(&mut tar, &entry);
                found.push(entry);
            }
            Ok(None) => {
                assert!(matches!(tar.next_entry(), Ok(None)), "there is nothing behind the end");
                return (found, true);
            }
            Err(_) => break,
        }
    }
    (found, false)
}

/// An archive is a list of entries, whatever is done with their content and however the bytes arrive: skipping the content,
/// reading it, and reading it byte by byte from a pipe give the same entries. Content that is read to its end has the length
/// that the entry told.
pub(crate) fn tar(data: &[u8]) {
    let skipped = entries(data, |_, _| {});
    let mut went_wrong = false;
    let read = entries(data, |tar, entry| {
        let mut content = tar.data();
        let mut out = Vec::new();
        match (&mut content).take(CONTENT_BYTES).read_to_end(&mut out) {
            Ok(count) => assert_eq!(count as u64, entry.size_bytes.min(CONTENT_BYTES)),
            Err(_) => went_wrong = true,
        }
    });
    if !went_wrong {
        assert_eq!(skipped, read);
    }
    assert_eq!(skipped, entries(Dribble(data), |_, _| {}));
}

/// Compressed data is what its own bytes say. Read in large and in tiny pieces it gives the same bytes and the same end,
/// and a compression that we do not read is refused by name.
pub(crate) fn encoding(data: &[u8]) {
    const MOST_BYTES: u64 = 2 << 20;
    let encoding = Encoding::of(data);
    let inflate = |piece_bytes: usize| -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let input = BufReader::with_capacity(piece_bytes, data);
        encoding.decode(input)?.take(MOST_BYTES).read_to_end(&mut out)?;
        Ok(out)
    };
    let whole = inflate(1 << 16);
    match encoding {
        Encoding::Plain => assert_eq!(whole.as_ref().unwrap(), data),
        Encoding::Foreign(name) => assert!(!name.is_empty() && whole.is_err()),
        Encoding::Gzip | Encoding::Zstd => {}
    }
    match (whole, inflate(3)) {
        (Ok(whole), Ok(pieces)) => assert!(whole == pieces),
        (whole, pieces) => assert_eq!(whole.is_ok(), pieces.is_ok()),
    }
}

/// Keeps contents in memory.
#[derive(Default)]
pub(crate) struct Contents(pub(crate) Vec<Vec<u8>>);

impl FileSink for Contents {
    fn add_file(&mut self, _: &[u8], size_bytes: u64, content: &mut dyn Read) -> io::Result<FileId> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, size_bytes, "what a layer holds too little of is its error");
        self.0.push(bytes);
        Ok(FileId(u32::try_from(self.0.len() - 1).expect("few files")))
    }
}

/// Merges layers, oldest first.
pub(crate) fn merged(layers: &[&[u8]], is_lean: bool) -> std::result::Result<(Tree, Contents), MergeError> {
    let mut merger = Merger::new(Limits { max_entries: 5000, max_bytes: 1 << 20 });
    let mut contents = Contents::default();
    for bytes in layers.iter().rev() {
        let mut tar = TarReader::new(*bytes);
        if !is_lean {
            merger.add_layer(&mut tar, &mut contents)?;
        } else if merger.add_layer_lean(&mut tar, &mut contents)? == LayerRest::ReadAgain {
            merger.add_layer_again(&mut TarReader::new(*bytes), &mut contents)?;
        }
    }
    Ok((merger.finish()?, contents))
}

/// One line for each path, as the model writes it; checks the form of the tree on the way.
fn dump(tree: &Tree, contents: &Contents) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first_names: HashMap<NodeId, String> = HashMap::new();
    let mut open: Vec<(NodeId, String)> = vec![(tree.root, String::new())];
    while let Some((id, path)) = open.pop() {
        let node = &tree.nodes[id as usize];
        assert!(node.mode <= 0o7777);
        let mode = node.mode;
        let what = match &node.kind {
            NodeKind::Directory(_) => format!("dir {mode:o}"),
            NodeKind::File(content) => {
                format!("file {mode:o} {}", contents.0[content.0 as usize].escape_ascii())
            }
            NodeKind::Symlink(target) => format!("link {}", target.escape_ascii()),
            other => format!("{other:?} {mode:o}"),
        };
        if !path.is_empty() {
            let same = first_names.get(&id).map(|first| format!(" = {first}")).unwrap_or_default();
            first_names.entry(id).or_insert_with(|| path.clone());
            lines.push(format!("{path}: {what}{same}"));
        }
        let NodeKind::Directory(children) = &node.kind else { continue };
        assert!(
            id == tree.root || !lines.last().unwrap().contains(" = "),
            "a directory has one name: {lines:?}"
        );
        assert!(children.is_sorted_by(|left, right| left.0 < right.0), "names are sorted and unique");
        for (name, child) in children.iter().rev() {
            assert!(!matches!(&name[..], b"" | b"." | b"..") && name.len() <= 255);
            assert!(!name.contains(&b'/') && !name.contains(&0) && !name.starts_with(b".wh."));
            let separator = if path.is_empty() { "" } else { "/" };
            open.push((*child, format!("{path}{separator}{}", name.escape_ascii())));
        }
    }
    lines
}

/// Layers (archives one behind the other, the oldest first) make a tree in which every directory has one name, names are
/// whole, and nothing leaves the root; passing by what is hidden changes nothing of it.
pub(crate) fn merge(data: &[u8]) {
    let mut layers = Vec::new();
    let mut rest = data;
    while !rest.is_empty() && layers.len() < 4 {
        let mut tar = TarReader::new(rest);
        let mut count = 0;
        while count < ENTRIES && matches!(tar.next_entry(), Ok(Some(_))) {
            count += 1;
        }
        let left = tar.into_inner().len();
        let (layer, next) = rest.split_at(rest.len() - left);
        layers.push(layer);
        rest = next;
    }
    match (merged(&layers, false), merged(&layers, true)) {
        (Ok((tree, contents)), Ok((lean_tree, lean_contents))) => {
            assert_eq!(dump(&tree, &contents), dump(&lean_tree, &lean_contents));
        }
        // Content that is passed by is not counted, so that the lean way takes more.
        (Err(MergeError::TooManyBytes { .. }), _) => {}
        (full, lean) => {
            let words =
                |result: std::result::Result<_, MergeError>| result.err().map(|error| error.to_string());
            let (full, lean) = (words(full), words(lean));
            assert_eq!(full.is_some(), lean.is_some(), "{full:?} and {lean:?}");
        }
    }
}

fn any_path(u: &mut Unstructured<'_>) -> Result<String> {
    let names: Vec<&str> =
        (0..u.int_in_range(1..=3)?).map(|_| u.choose(&["a", "b", "l"]).copied()).collect::<Result<_>>()?;
    Ok(names.join("/"))
}

fn any_item(u: &mut Unstructured<'_>) -> Result<Item> {
    let path = any_path(u)?;
    let kind = match u.int_in_range(0..=10)? {
        0..=2 => Kind::File(format!("content{}", u.int_in_range(0..=999)?)),
        3..=4 => Kind::Directory,
        5 => Kind::Symlink(any_path(u)?),
        6 => Kind::Symlink(format!("{}{}", u.choose(&["/", "../", "../../"])?, any_path(u)?)),
        7 => Kind::Symlink((*u.choose(&["/", ".", "..", "../../..", "gone", "/gone/x"])?).to_owned()),
        8 => Kind::Hard(any_path(u)?),
        9 => Kind::Whiteout,
        _ => Kind::Opaque,
    };
    Ok(Item { path, kind, mode: *u.choose(&[0o644, 0o755, 0o4711])? })
}

fn any_stack(u: &mut Unstructured<'_>) -> Result<Vec<Vec<Item>>> {
    let mut stack = vec![Vec::new()];
    while !u.is_empty() && stack.len() <= 5 {
        if u.int_in_range(0..=3)? == 0 {
            stack.push(Vec::new());
        }
        let item = any_item(u)?;
        stack.last_mut().expect("never empty").push(item);
    }
    Ok(stack)
}

fn member(item: &Item) -> testing::Member {
    let hidden = || match item.path.rsplit_once('/') {
        Some((parent, name)) => format!("{parent}/.wh.{name}"),
        None => format!(".wh.{}", item.path),
    };
    match &item.kind {
        Kind::File(content) => testing::file(&item.path, content),
        Kind::Directory => testing::dir(format!("{}/", item.path)),
        Kind::Symlink(target) => testing::symlink(&item.path, target),
        Kind::Hard(target) => testing::hard_link(&item.path, target),
        Kind::Whiteout => testing::file(hidden(), ""),
        Kind::Opaque => testing::file(format!("{}/.wh..wh..opq", item.path), ""),
    }
    .mode(item.mode.into())
}

/// Layers of few names, in which everything meets everything: tars of them, merged newest first, written as a squashfs and
/// read back, hold what a naive model makes of them, oldest first; and what the model cannot apply is refused.
pub(crate) fn model(data: &[u8]) {
    let Ok(stack) = any_stack(&mut Unstructured::new(data)) else { return };
    let layers: Vec<Vec<u8>> =
        stack.iter().map(|items| testing::archive(&items.iter().map(member).collect::<Vec<_>>())).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let found = merged(&layers, true);
    match model::apply_all(&stack) {
        Err(_) => assert!(found.is_err(), "must be refused: {stack:#?}"),
        Ok(expected) => {
            let (tree, contents) = found.unwrap_or_else(|error| panic!("{error}: {stack:#?}"));
            assert_eq!(dump(&tree, &contents), expected, "{stack:#?}");
            squashfs::assert_written(&tree, &contents.0);
        }
    }
}
