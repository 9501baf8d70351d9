//! Named stacks of layers, and the helpers that the model's property uses too.

use std::collections::HashMap;
use std::io::Read;

use super::model::{Item, Kind};
use super::*;
use crate::base::tree::{NodeId, NodeKind};
use crate::tarlayer::testing::{Member, archive, dir, file, hard_link, member, pax, symlink};

mod hiding;
mod links;
mod names;
mod storing;

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
    fn add_file(&mut self, _: &[u8], size_bytes: u64, content: &mut dyn Read) -> std::io::Result<FileId> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, size_bytes);
        self.0.push(bytes);
        Ok(FileId(u32::try_from(self.0.len() - 1).unwrap()))
    }
}

const LIMITS: Limits = Limits { max_entries: 10_000, max_bytes: 1 << 40 };

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
