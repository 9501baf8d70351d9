//! What the writer refuses, and that it leaves nothing behind when it does.

use std::io::{self, Cursor, SeekFrom};
use std::sync::Arc;

use super::*;
use crate::base::Hint;
use crate::base::tree::{Node, NodeId, NodeKind};
use crate::squashfs::read::Reader;

fn options(threads: usize) -> Options {
    Options { compressor: Compressor::Zstd(1), threads, mtime: 0 }
}

fn writer() -> Writer<Cursor<Vec<u8>>> {
    Writer::new(Cursor::new(Vec::new()), options(2)).unwrap()
}

fn node(kind: NodeKind) -> Node {
    Node { kind, mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: None }
}

fn directory(children: &[(&[u8], NodeId)]) -> Node {
    node(NodeKind::Directory(children.iter().map(|&(name, child)| (name.into(), child)).collect()))
}

/// The message about a tree whose node 0 is the root.
fn refusal(nodes: Vec<Node>) -> String {
    writer().finish(&Tree { nodes, root: 0 }).unwrap_err().to_string()
}

#[test]
fn refuses_names() {
    let check = |name: &[u8], expected: &str| {
        let nodes = vec![directory(&[(b"usr", 1)]), directory(&[(name, 2)]), node(NodeKind::Fifo)];
        assert_eq!(refusal(nodes), expected);
    };
    check(b"", "`usr/` cannot be stored: its name is empty");
    check(b".", "`usr/.` cannot be stored: its name is the directory itself or the one above");
    check(b"..", "`usr/..` cannot be stored: its name is the directory itself or the one above");
    check(b"a/b", "`usr/a/b` cannot be stored: its name holds a slash");
    check(b"a\0", "`usr/a\0` cannot be stored: its name holds a NUL byte");
    let long = [b'x'; 256];
    let expected = format!("`usr/{}` cannot be stored: its name is longer than 255 bytes", "x".repeat(256));
    check(&long, &expected);
    let nodes = vec![directory(&[(&long[..255], 1)]), node(NodeKind::Fifo)];
    assert!(writer().finish(&Tree { nodes, root: 0 }).is_ok());
}

#[test]
fn refuses_trees_that_are_none() {
    let check = |nodes: Vec<Node>, expected: &str| assert_eq!(refusal(nodes), expected);
    let fifo = || node(NodeKind::Fifo);
    check(vec![], "the root of the tree is not a directory");
    check(vec![fifo()], "the root of the tree is not a directory");
    check(vec![directory(&[(b"a", 1), (b"b", 1), (b"a", 1)]), fifo()], "`a` is there twice");
    check(vec![directory(&[(b"a", 7)])], "`a` is node 7, which the tree of 1 nodes does not have");
    check(vec![directory(&[(b"a", 0)])], "directory `a` has a second name");
    let twice = vec![directory(&[(b"a", 1), (b"b", 2)]), directory(&[]), directory(&[(b"c", 1)])];
    check(twice, "directory `b/c` has a second name");
    // A ring that hangs on nothing is not reached.
    let ring = vec![directory(&[]), directory(&[(b"x", 2)]), directory(&[(b"y", 1)])];
    assert!(writer().finish(&Tree { nodes: ring, root: 0 }).is_ok());
    check(
        vec![directory(&[(b"a", 1)]), node(NodeKind::File(FileId(3)))],
        "`a` has content 3, but only 0 files were added",
    );
}

#[test]
fn refuses_what_inodes_cannot_hold() {
    let check = |node: Node, expected: &str| {
        assert_eq!(refusal(vec![directory(&[(b"d", 1)]), directory(&[(b"it", 2)]), node]), expected);
    };
    let symlink = |target: &[u8]| node(NodeKind::Symlink(target.into()));
    check(symlink(b""), "symbolic link `d/it` cannot be stored: its target is empty");
    check(symlink(b"a\0b"), "symbolic link `d/it` cannot be stored: its target holds a NUL byte");
    check(
        symlink(&[b'x'; 4096]),
        "symbolic link `d/it` cannot be stored: its target is longer than 4095 bytes",
    );
    check(
        node(NodeKind::CharDevice { major: 4096, minor: 0 }),
        "device `d/it` cannot be stored: 4096:0 is more than 12 bits of major and 20 of minor",
    );
    let mut odd = node(NodeKind::Fifo);
    odd.xattrs = Some(Box::new(vec![(b"nfs4.acl".to_vec(), Vec::new())]));
    check(
        odd,
        "extended attribute `nfs4.acl` of `d/it` cannot be stored: it has none of the prefixes user., trusted. and \
         security.",
    );
}

#[test]
fn refuses_more_ids_than_the_format_numbers() {
    let names: Vec<_> = (0..40_000_u32).map(|number| number.to_string()).collect();
    let children: Vec<_> = (1..).zip(&names).map(|(child, name)| (name.as_bytes(), child)).collect();
    let owned = |number: u32| Node { uid: 2 * number, gid: 2 * number + 1, ..node(NodeKind::Fifo) };
    let nodes = std::iter::once(directory(&children)).chain((0..40_000).map(owned)).collect();
    let expected = "more than 65535 different owners and groups, which squashfs cannot number";
    assert_eq!(refusal(nodes), expected);
}

#[test]
fn content_must_have_the_announced_size() {
    let check = |size_bytes: u64, content: &[u8], expected: &str| {
        let mut writer = writer();
        assert_eq!(writer.add_file(size_bytes, &mut &*content).unwrap_err().to_string(), expected);
        // What is missing stays missing.
        assert!(matches!(writer.add_file(0, &mut io::empty()), Err(WriteError::GivenUp)));
        let tree = Tree { nodes: vec![directory(&[])], root: 0 };
        assert!(matches!(writer.finish(&tree), Err(WriteError::GivenUp)));
    };
    check(4, b"abc", "file content ends after 3 bytes, 4 bytes were announced");
    check(2, b"abc", "file content goes on after the 2 bytes that were announced");
    check(0, b"a", "file content goes on after the 0 bytes that were announced");
    let large = vec![7; 300_000];
    check(300_001, &large, "file content ends after 300000 bytes, 300001 bytes were announced");
    check(262_144, &large, "file content goes on after the 262144 bytes that were announced");
    check(
        u64::MAX,
        &large,
        "a file of 18446744073709551615 bytes is larger than the 549755813888 bytes that one file may have",
    );
}

/// Content that fails after some bytes, interrupted before.
struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0 += 1;
        match self.0 {
            1 => Err(io::ErrorKind::Interrupted.into()),
            2 => {
                let count = buf.len().min(10);
                buf[..count].fill(1);
                Ok(count)
            }
            _ => Err(io::Error::other("the archive is torn")),
        }
    }
}

#[test]
fn content_errors_surface() {
    let error = writer().add_file(20, &mut Failing(0)).unwrap_err();
    assert_eq!(error.to_string(), "reading file content: the archive is torn");
}

/// An output with room for some bytes.
#[derive(Debug)]
struct Full(Cursor<Vec<u8>>, usize);

impl Write for Full {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.0.position() + buf.len() as u64 > self.1 as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Full {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for Full {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn output_errors_surface_wherever_they_happen() {
    let write = |room: usize| {
        let mut writer = Writer::new(Full(Cursor::new(Vec::new()), room), options(3))?;
        for number in 0..100_u8 {
            let block = [number.wrapping_mul(7); 200_000];
            writer.add_file(block.len() as u64, &mut block.as_slice())?;
        }
        let mut nodes = vec![directory(&[(b"a", 1)])];
        nodes.push(node(NodeKind::File(FileId(99))));
        writer.finish(&Tree { nodes, root: 0 })
    };
    let (_, size_bytes) = write(usize::MAX).unwrap();
    let size_bytes = usize::try_from(size_bytes).unwrap();
    assert!(write(size_bytes).is_ok());
    for room in [0, 95, 96, 200, size_bytes / 2, size_bytes - 200, size_bytes - 1] {
        let error = write(room).unwrap_err();
        assert!(matches!(&error, WriteError::Output { .. }), "{room}: {error}");
        assert!(error.hint().unwrap().contains("free space"));
    }
}

#[test]
fn an_image_starts_where_the_output_stood() {
    let image = |head: &[u8]| {
        let mut out = Cursor::new(head.to_vec());
        out.set_position(head.len() as u64);
        let mut writer = Writer::new(out, options(1)).unwrap();
        let file = writer.add_file(200_000, &mut [5; 200_000].as_slice()).unwrap();
        let nodes = vec![directory(&[(b"a", 1)]), node(NodeKind::File(file))];
        let (out, size_bytes) = writer.finish(&Tree { nodes, root: 0 }).unwrap();
        assert_eq!(out.position(), head.len() as u64 + size_bytes);
        out.into_inner()
    };
    let head = [b'h'; 1000];
    assert!(image(&head)[1000..] == image(b""));
    assert!(image(&head)[..1000] == head);
}

/// Bytes that no compressor shrinks (xorshift).
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

/// Packs the files, returns their handles and the image's length, and checks that all come back as they were.
fn pack(compressor: Compressor, files: &[Vec<u8>]) -> (Vec<u32>, u64) {
    pack_as(compressor, files, &[Storing::Packed])
}

/// As [`pack`], with ways to store that take turns.
fn pack_as(compressor: Compressor, files: &[Vec<u8>], ways: &[Storing]) -> (Vec<u32>, u64) {
    let options = Options { compressor, threads: 3, mtime: 0 };
    let mut writer = Writer::new(Cursor::new(Vec::new()), options).unwrap();
    let handles: Vec<_> = files
        .iter()
        .zip(ways.iter().cycle())
        .map(|(file, way)| writer.add_file_as(*way, file.len() as u64, &mut file.as_slice()).unwrap())
        .collect();
    let names: Vec<_> = (0..files.len()).map(|number| format!("{number:03}").into_bytes()).collect();
    let entries: Vec<_> = names.iter().zip(1..).map(|(name, id)| (name.as_slice(), id)).collect();
    let mut nodes = vec![directory(&entries)];
    nodes.extend(handles.iter().map(|&handle| node(NodeKind::File(handle))));
    let (out, size_bytes) = writer.finish(&Tree { nodes, root: 0 }).unwrap();
    let reader = Reader::open(Arc::new(out.into_inner())).unwrap();
    let root = reader.root().unwrap();
    for (number, (name, file)) in names.iter().zip(files).enumerate() {
        let inode = reader.lookup(&root, name).unwrap().unwrap();
        assert!(reader.read_all(&inode, u64::MAX).unwrap() == *file, "{compressor}: file {number}");
    }
    (handles.iter().map(|handle| handle.0).collect(), size_bytes)
}

#[test]
fn equal_files_are_stored_once_and_almost_equal_ones_twice() {
    const BLOCK: usize = 128 * 1024;
    let changed = |file: &[u8], at: usize| {
        let mut file = file.to_vec();
        file[at] ^= 1;
        file
    };
    let tailed = noise(3 * BLOCK + 5000, 1);
    let even = noise(2 * BLOCK, 2);
    let holes = [&vec![0; BLOCK], &even[..], &vec![0; BLOCK], b"tail"].concat();
    let text = b"the same, again and again. ".repeat(20_000);
    let filler = noise(BLOCK - 1, 9);
    let mut files = Vec::new();
    for file in [&tailed, &even, &holes, &text] {
        files.push(file.clone());
        files.push(file.clone());
        for at in [0, BLOCK - 1, BLOCK, 2 * BLOCK - 1, file.len() - 1] {
            files.push(changed(file, at));
        }
        // The open fragment is closed, so that the tail has to be read again.
        files.push(filler.clone());
        files.push(file.clone());
        files.push(changed(file, file.len() - 1));
    }
    // However they are to be stored: of two ways, and of three so that a file is asked for in all of them.
    let ways = [Storing::Packed, Storing::Plain, Storing::Plain];
    for (compressor, ways) in [
        (Compressor::Zstd(1), &ways[..1]),
        (Compressor::Gzip(1), &ways[..1]),
        (Compressor::Lz4, &ways[..2]),
        (Compressor::None, &ways[..2]),
        (Compressor::Zstd(1), &ways[..2]),
        (Compressor::Gzip(1), &ways),
        (Compressor::Lz4, &ways[1..]),
    ] {
        let (handles, _) = pack_as(compressor, &files, ways);
        for group in handles.chunks(10) {
            assert_eq!((group[1], group[8]), (group[0], group[0]), "{compressor}: {group:?}");
            let mut others = group[2..7].to_vec();
            others.dedup();
            assert!(others.len() >= 4 && !others.contains(&group[0]), "{compressor}: {group:?}");
        }
    }
    let (_, once) = pack(Compressor::Zstd(1), std::slice::from_ref(&tailed));
    let (_, often) = pack(Compressor::Zstd(1), &vec![tailed; 50]);
    assert!(often - once < 4000, "{once} {often}");
}

#[test]
fn plain_files_are_not_compressed() {
    let files = [vec![b'x'; 300_000], b"root:x:0:0\n".repeat(100)];
    let (_, packed) = pack_as(Compressor::Zstd(1), &files, &[Storing::Packed]);
    let (_, plain) = pack_as(Compressor::Zstd(1), &files, &[Storing::Plain]);
    assert!(packed < 1000 && plain > 301_100, "{packed} {plain}");
}

#[test]
fn kinds_of_file_do_not_share_fragments() {
    let compiled = |byte| [b"\xa7\x0d\r\n\0\0\0\0".as_slice(), &[byte; 60_000]].concat();
    let code = |byte| [b"\x7fELF\x02\x01\x01\0".as_slice(), &[byte; 128 * 1024]].concat();
    let text = |byte: u8| format!("{byte} ").repeat(20_000).into_bytes();
    let mut writer = writer();
    let mut add = |bytes: &[u8]| writer.add_file(bytes.len() as u64, &mut &*bytes).unwrap();
    let mut ids = Vec::new();
    for byte in 1..=6 {
        ids.push(add(&text(byte)));
        ids.push(add(&compiled(byte)));
        ids.push(add(&code(byte)));
        // A fragment that begins with a file that is there already has that place free again.
        assert_eq!(
            (add(&text(byte)), add(&compiled(1)), add(&code(1))),
            (ids[ids.len() - 3], ids[1], ids[2])
        );
    }
    let names: Vec<[u8; 1]> = (b'a'..).take(ids.len()).map(|name| [name]).collect();
    let children: Vec<(&[u8], NodeId)> =
        names.iter().zip(1..).map(|(name, node)| (name.as_slice(), node)).collect();
    let nodes = std::iter::once(directory(&children)).chain(ids.iter().map(|id| node(NodeKind::File(*id))));
    let (out, _) = writer.finish(&Tree { nodes: nodes.collect(), root: 0 }).unwrap();
    let reader = Reader::open(Arc::new(out.into_inner())).unwrap();
    let root = reader.root().unwrap();
    let mut fragments = [(); 3].map(|()| std::collections::HashSet::new());
    for (index, name) in names.iter().enumerate() {
        let inode = reader.lookup(&root, name).unwrap().unwrap();
        let byte = u8::try_from(index / 3 + 1).unwrap();
        let expected = vec![text(byte), compiled(byte), code(byte)].swap_remove(index % 3);
        assert!(reader.read_all(&inode, 1 << 20).unwrap() == expected, "{index}");
        let crate::squashfs::read::InodeKind::File(data) = &inode.kind else { panic!("{index}") };
        fragments[index % 3].insert(data.fragment.unwrap().index);
    }
    assert_eq!(fragments.each_ref().map(|set| set.len()), [2, 3, 1]);
    assert_eq!(reader.superblock().fragment_count, 6);
}
