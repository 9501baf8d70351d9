//! The reader on images of our own writer; images of `mksquashfs` are in `tests/it/squashfs_read.rs`.

use std::io::Cursor;
use std::sync::Arc;

use super::*;
use crate::base::RelPath;
use crate::base::tree::{Node, NodeId, NodeKind, Tree};
use crate::squashfs::compress::Compressor;
use crate::squashfs::write::{Options, Writer};

fn node(kind: NodeKind) -> Node {
    Node { kind, mode: 0o750, uid: 7, gid: 9, mtime: 1000, xattrs: None }
}

/// An image with a directory of `names` files below `d`, each with its name as content, and one file of `large` bytes.
fn image(compressor: Compressor, names: u32, large: usize) -> Vec<u8> {
    let options = Options { compressor, threads: 1, mtime: 5 };
    let mut writer = Writer::new(Cursor::new(Vec::new()), options).unwrap();
    let mut nodes = Vec::new();
    let mut add = |node: Node| -> NodeId {
        nodes.push(node);
        u32::try_from(nodes.len() - 1).unwrap()
    };
    let mut children = Vec::new();
    for index in 0..names {
        let name = format!("name-{index}");
        let file = writer.add_file(name.len() as u64, &mut name.as_bytes()).unwrap();
        children.push((name.into_bytes().into(), add(node(NodeKind::File(file)))));
    }
    let content: Vec<u8> = (0..large).map(|at| u8::try_from(at / 1000 % 251).unwrap()).collect();
    let file = writer.add_file(large as u64, &mut content.as_slice()).unwrap();
    let mut with_xattr = node(NodeKind::File(file));
    with_xattr.xattrs = Some(Box::new(vec![(b"user.a".to_vec(), b"b".to_vec())]));
    let top = vec![
        (b"d".as_slice().into(), add(node(NodeKind::Directory(children)))),
        (b"large".as_slice().into(), add(with_xattr)),
        (b"link".as_slice().into(), add(node(NodeKind::Symlink(b"/d".as_slice().into())))),
        (b"null".as_slice().into(), add(node(NodeKind::CharDevice { major: 1, minor: 259 }))),
        (b"fifo".as_slice().into(), add(node(NodeKind::Fifo))),
    ];
    let root = add(node(NodeKind::Directory(top)));
    let (out, _) = writer.finish(&Tree { nodes, root }).unwrap();
    out.into_inner()
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

#[test]
fn reads_what_the_writer_writes() {
    for compressor in [Compressor::Gzip(1), Compressor::Zstd(1)] {
        let reader = Reader::open(Arc::new(image(compressor, 3000, 300_000))).unwrap();
        let find = |text: &str| reader.resolve(&path(text), true).unwrap().unwrap();
        assert_eq!(reader.read_dir(&find("d")).unwrap().len(), 3000);
        for index in (0..3000).step_by(7) {
            let name = format!("name-{index}");
            assert_eq!(reader.read_all(&find(&format!("link/{name}")), 100).unwrap(), name.as_bytes());
        }
        let large = find("large");
        assert_eq!((large.mode, large.uid, large.gid, large.mtime), (0o750, 7, 9, 1000));
        assert_eq!(reader.xattrs(&large).unwrap(), [(b"user.a".to_vec(), b"b".to_vec())]);
        let content = reader.read_all(&large, 300_000).unwrap();
        assert!(content.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / 1000 % 251));
        let mut buf = [0; 10];
        assert_eq!(reader.read_at(&large, 131_070, &mut buf).unwrap(), 10);
        assert_eq!(buf, [131, 131, 131, 131, 131, 131, 131, 131, 131, 131]);
        assert_eq!(reader.read_at(&large, 299_998, &mut buf).unwrap(), 2);
        assert_eq!(reader.read_at(&large, u64::MAX, &mut buf).unwrap(), 0);
        assert!(matches!(find("null").kind, InodeKind::CharDevice { major: 1, minor: 259 }));
        assert!(matches!(find("fifo").kind, InodeKind::Fifo));
        let missing = reader.resolve_path(&path("link/x/y")).unwrap();
        assert_eq!((missing.path, missing.inode.is_none()), (path("d/x/y"), true));
    }
}

#[test]
fn a_short_file_is_named_so() {
    let whole = image(Compressor::Gzip(1), 3, 10);
    for have in [0, 95, 96, whole.len() - 1] {
        let error = Reader::open(Arc::new(whole[..have].to_vec())).unwrap_err();
        assert!(
            matches!(error, ReadError::CutShort { have_bytes, .. } if have_bytes == have as u64),
            "{error}"
        );
    }
}

#[test]
fn a_check_reads_everything_and_names_what_is_damaged() {
    let check = |bytes: Vec<u8>| Reader::open(Arc::new(bytes)).unwrap().check(None, 2, &mut |_| {});
    let whole = image(Compressor::Zstd(1), 300, 300_000);
    let checked = check(whole.clone());
    assert_eq!((checked.entries, checked.fault_count), (305, 0), "{:?}", checked.faults);
    // Two blocks of `large`, and the fragment block with its tail and the small files.
    assert_eq!(checked.blocks, 3);

    // The first block begins behind the superblock; without its magic it is no zstd frame.
    let mut damaged = whole.clone();
    damaged[96] ^= 1;
    let checked = check(damaged);
    assert_eq!(checked.fault_count, 1);
    let text = checked.faults[0].to_string();
    assert!(text.starts_with("`/large`: the squashfs is damaged: data block at byte 96 does not"), "{text}");

    // A byte anywhere may go unseen in a block, since squashfs has no sums, but must never be a panic.
    let small = image(Compressor::Zstd(1), 20, 140_000);
    for at in (0..small.len()).step_by(7) {
        let mut damaged = small.clone();
        damaged[at] ^= 0x41;
        if let Ok(reader) = Reader::open(Arc::new(damaged)) {
            reader.check(None, 1, &mut |_| {});
        }
    }
}

#[test]
fn a_path_costs_a_bounded_effort() {
    let mut nodes: Vec<Node> = Vec::new();
    let mut add = |node: Node| -> NodeId {
        nodes.push(node);
        u32::try_from(nodes.len() - 1).unwrap()
    };
    let (empty, filler) = (add(node(NodeKind::Directory(Vec::new()))), add(node(NodeKind::Fifo)));
    let mut top: Vec<(Box<[u8]>, NodeId)> = vec![(b"d".as_slice().into(), empty)];
    for (name, rounds) in [("short", 10), ("long", 800)] {
        let target = "d/../".repeat(rounds).trim_end_matches('/').as_bytes().into();
        top.push((name.as_bytes().into(), add(node(NodeKind::Symlink(target)))));
    }
    for index in 0..3000 {
        top.push((format!("{index:0200}").into_bytes().into(), filler));
    }
    let root = add(node(NodeKind::Directory(top)));
    let options = Options { compressor: Compressor::Zstd(1), threads: 1, mtime: 5 };
    let writer = Writer::new(Cursor::new(Vec::new()), options).unwrap();
    let image = writer.finish(&Tree { nodes, root }).unwrap().0.into_inner();
    let reader = Reader::open(Arc::new(image)).unwrap();
    assert!(reader.resolve(&path("short"), true).unwrap().unwrap().is_directory());
    let error = reader.resolve(&path("long"), true).unwrap_err();
    assert!(error.to_string().starts_with("bytes of directories on one path: "), "{error}");
}

#[test]
fn every_byte_of_an_image_has_a_sum() {
    let options = Options { compressor: Compressor::Lz4, threads: 1, mtime: 5 };
    let mut writer = Writer::new(Cursor::new(Vec::new()), options).unwrap();
    let mut nodes = Vec::new();
    let mut children: Vec<(Box<[u8]>, NodeId)> = Vec::new();
    for (name, length) in [("large", 300_000_usize), ("small", 10), ("more", 200)] {
        let content: Vec<u8> = (0..length).map(|at| (at * at / 7 % 251).try_into().unwrap()).collect();
        let file = writer.add_file(length as u64, &mut content.as_slice()).unwrap();
        children.push((name.as_bytes().into(), u32::try_from(nodes.len()).unwrap()));
        nodes.push(node(NodeKind::File(file)));
    }
    nodes.push(node(NodeKind::Directory(children)));
    let finished = writer.finish_with_sums(&Tree { root: 3, nodes }).unwrap();
    let (whole, sums) = (finished.out.into_inner(), finished.sums);
    let check = |bytes: &[u8]| {
        let reader = Reader::open(Arc::new(bytes.to_vec())).ok()?;
        let checked = reader.check(Some(&sums), 2, &mut |_| {});
        Some((checked.summed_blocks, checked.faults.iter().map(Fault::to_string).collect::<Vec<_>>()))
    };
    assert_eq!(check(&whole), Some((3, Vec::new())));
    assert_eq!(sums.first_block, 96 + 10);
    // One bit anywhere: it is either no image any more, or there is a fault.
    for at in (0..whole.len()).step_by(if whole.len() > 5000 { 97 } else { 1 }).chain(0..106) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        assert!(check(&damaged).is_none_or(|(_, faults)| !faults.is_empty()), "byte {at}");
    }
    let faults = |at: usize| {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        check(&damaged).unwrap().1
    };
    let place = |number: usize| {
        let before = &sums.blocks[..number];
        106 + before.iter().map(|block| block.packed_bytes as usize).sum::<usize>()
    };
    assert_eq!(
        faults(place(1) + 50),
        [format!(
            "`/large`: the squashfs is damaged: data block 1 at byte {} is not what was written",
            place(1)
        )]
    );
    let fragment = place(2);
    let tail = format!(
        "the squashfs is damaged: fragment block at byte {fragment} cannot be used and holds the end of this file"
    );
    assert_eq!(
        faults(fragment + 50),
        [
            format!(
                "fragment block 0: the squashfs is damaged: fragment block 2 at byte {fragment} is not what was written"
            ),
            format!("`/large`: {tail}"),
            format!("`/more`: {tail}"),
            format!("`/small`: {tail}"),
        ]
    );
    // The time of making: nothing depends on it but the sum.
    assert_eq!(
        faults(8),
        ["superblock: the squashfs is damaged: superblock at byte 0 is not what was written"]
    );
    // Sums of another image.
    let other = image(Compressor::Lz4, 3, 10);
    let reader = Reader::open(Arc::new(other)).unwrap();
    let checked = reader.check(Some(&sums), 1, &mut |_| {});
    assert_eq!(
        checked.faults[0].to_string(),
        "sums: the list of sums is of another squashfs: its blocks do not end where the tables of this one begin"
    );
}
