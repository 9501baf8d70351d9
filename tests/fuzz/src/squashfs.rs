//! Squashfs images: read, written, and read again.

use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use slipway::base::tree::{FileId, Node, NodeId, NodeKind, Tree};
use slipway::base::{Digest, RelPath};
use slipway::squashfs::compress::{BlockCompressor, BlockDecompressor, Compressor, is_supported};
use slipway::squashfs::read::{Inode, InodeKind, Reader};
use slipway::squashfs::sums::Sums;
use slipway::squashfs::write::{Options, Storing, Writer};

use crate::fuse;

/// Most names that are looked at.
const NAMES: usize = 500;
/// Most content that is read of one file and of all, in bytes.
const FILE_BYTES: u64 = 1 << 20;
const ALL_BYTES: u64 = 4 << 20;

/// What reading everything came to.
#[derive(Default)]
struct Seen {
    names: usize,
    content_bytes: u64,
    is_whole: bool,
    faults: Vec<String>,
}

/// Reads every directory, inode, attribute and file, within bounds.
fn read_everything(reader: &Reader) -> Seen {
    let mut seen = Seen { is_whole: true, ..Seen::default() };
    let mut known = HashSet::new();
    let Ok(root) = reader.root() else {
        seen.faults.push("root".into());
        return seen;
    };
    let mut open = vec![(RelPath::root(), root)];
    while let Some((path, directory)) = open.pop() {
        let listing = match reader.read_dir(&directory) {
            Ok(listing) => listing,
            Err(error) => {
                seen.faults.push(error.to_string());
                continue;
            }
        };
        for entry in listing {
            seen.names += 1;
            if seen.names > NAMES {
                seen.is_whole = false;
                return seen;
            }
            assert!(!matches!(&entry.name[..], b"" | b"." | b"..") && !entry.name.contains(&b'/'));
            let inode = match reader.inode(entry.reference) {
                Ok(inode) => inode,
                Err(error) => {
                    seen.faults.push(error.to_string());
                    continue;
                }
            };
            let Ok(child) = path.join(&entry.name) else {
                seen.is_whole = false;
                continue;
            };
            if let Ok(place) = reader.resolve_path(&child) {
                assert!(RelPath::parse(place.path.as_bytes()).as_ref() == Ok(&place.path));
            }
            // An image may have a name twice; then any of the two is found.
            let _ = reader.resolve(&child, false);
            look_at(reader, &inode, &mut seen);
            if inode.is_directory() && known.insert(entry.reference) {
                open.push((child, inode));
            }
        }
    }
    seen
}

fn look_at(reader: &Reader, inode: &Inode, seen: &mut Seen) {
    if let Err(error) = reader.xattrs(inode) {
        seen.faults.push(error.to_string());
    }
    match &inode.kind {
        InodeKind::Symlink(target) => assert!(reader.read_link(inode).is_ok_and(|text| text == &target[..])),
        InodeKind::File(file) => {
            if file.size_bytes > FILE_BYTES || seen.content_bytes > ALL_BYTES {
                seen.is_whole = false;
                // Its far end must do no harm either.
                let _ = reader.read_at(inode, file.size_bytes.saturating_sub(10), &mut [0; 64]);
                assert!(reader.read_all(inode, FILE_BYTES).is_err() || seen.content_bytes > ALL_BYTES);
                return;
            }
            match reader.read_all(inode, FILE_BYTES) {
                Ok(content) => {
                    assert_eq!(content.len() as u64, file.size_bytes);
                    seen.content_bytes += file.size_bytes;
                    let mut middle = [0; 100];
                    let at = content.len() / 2;
                    let count = reader.read_at(inode, at as u64, &mut middle).expect("read before");
                    assert!(
                        content[at..].starts_with(&middle[..count])
                            && count == middle.len().min(content.len() - at)
                    );
                }
                Err(error) => seen.faults.push(error.to_string()),
            }
        }
        _ => assert!(reader.read_all(inode, FILE_BYTES).is_err() && reader.read_link(inode).is_err()),
    }
}

/// Any bytes are an image or an error. Names are whole, content is as long as its inode says, a path resolves to a clean
/// place below the root, and where the check of a whole image finds no fault, reading finds none.
pub(crate) fn image(data: &[u8]) {
    let Ok(reader) = Reader::open(Arc::new(data.to_vec())) else { return };
    let seen = read_everything(&reader);
    // Blocks are content that is decompressed, so few files can be much work; the check has no bound of its own.
    if seen.is_whole
        && seen.names < 50
        && seen.content_bytes < 1 << 20
        && reader.superblock().fragment_count < 20
    {
        let checked = reader.check(None, 1, &mut |_| {});
        assert!(checked.fault_count > 0 || seen.faults.is_empty(), "only reading found: {:?}", seen.faults);
    }
}

/// `compressor id, length of the block in units of 16 bytes (2 bytes), packed bytes`: a block gives at most the bytes that
/// there is room for, and the same with a context that was used before. The bytes as content: what shrinks comes back.
pub(crate) fn block(data: &[u8]) {
    let [id, low, high, input @ ..] = data else { return };
    let id = u16::from(*id);
    let Ok(mut fresh) = BlockDecompressor::new(id) else {
        assert!(!is_supported(id));
        return;
    };
    assert!(is_supported(id));
    let room = (usize::from(u16::from_le_bytes([*low, *high])) + 1) * 16;
    let mut output = vec![0; room];
    let first = fresh.decompress(input, &mut output).map(|count| {
        assert!(count <= room);
        output[..count].to_vec()
    });
    let mut again = vec![0xff; room];
    let second = fresh.decompress(input, &mut again).map(|count| again[..count].to_vec());
    assert_eq!(first.ok(), second.ok());

    let compressor = match id {
        1 => Compressor::Gzip(1),
        5 => Compressor::Lz4,
        6 => Compressor::Zstd(1),
        // Read, but not written.
        _ => return,
    };
    let mut packed = Vec::new();
    if BlockCompressor::new(compressor).unwrap().compress(input, &mut packed).unwrap() {
        assert!(packed.len() < input.len());
        let mut back = vec![0; input.len()];
        assert_eq!(fresh.decompress(&packed, &mut back).unwrap(), input.len());
        assert!(back == input);
    }
}

/// Any bytes are a list of sums or an error, with their own sum behind them too; what is read is written as it was, and an
/// image that is checked against a list of another one has faults, and no more of them than it may.
pub(crate) fn sums(data: &[u8]) {
    static READER: OnceLock<Reader> = OnceLock::new();
    let reader = READER.get_or_init(|| Reader::open(Arc::new(fuse::sample())).expect("our own image"));
    assert!(Sums::parse(data).is_err() || data.len() >= 104);
    let bytes = [data, Digest::of(data).as_bytes()].concat();
    let Ok(sums) = Sums::parse(&bytes) else { return };
    assert!(sums.to_bytes() == bytes && sums.tables_start() >= sums.first_block);
    let checked = reader.check(Some(&sums), 1, &mut |_| {});
    assert!(checked.faults.len() <= 100 && checked.fault_count >= checked.faults.len() as u64);
}

fn any_content(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    // A tail, whole blocks and a tail, or a hole; bytes that repeat so that a short input makes a long file.
    let length = match u.int_in_range(0..=39)? {
        0 => 128 << 10,
        1 => (128 << 10) + u.int_in_range(1..=300_000)?,
        2 => 0,
        _ => u.int_in_range(1..=3000)?,
    };
    let seed = u.bytes(u.len().min(4))?.to_vec();
    let seed = if seed.is_empty() { vec![0] } else { seed };
    Ok(seed.iter().copied().cycle().take(length).collect())
}

fn any_xattrs(u: &mut Unstructured<'_>) -> Result<Option<Box<slipway::base::tree::Xattrs>>> {
    if !u.ratio(1, 4)? {
        return Ok(None);
    }
    let mut xattrs = Vec::new();
    for number in 0..u.int_in_range(0..=3)? {
        let prefix = u.choose(&["user.", "security.", "trusted."])?;
        let length = *u.choose(&[0, 3, 300])?;
        xattrs.push((format!("{prefix}{number}").into_bytes(), vec![u.arbitrary()?; length]));
    }
    Ok(Some(Box::new(xattrs)))
}

/// A tree in which each node has a name in one directory made before it, and some that are no directory have a second one.
fn any_tree(u: &mut Unstructured<'_>) -> Result<(Tree, Vec<Vec<u8>>)> {
    let mut contents = Vec::new();
    let mut nodes = vec![Node {
        kind: NodeKind::Directory(Vec::new()),
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        xattrs: any_xattrs(u)?,
    }];
    let mut directories = vec![0_usize];
    while !u.is_empty() && nodes.len() < 100 {
        let parent = *u.choose(&directories)?;
        let id = nodes.len();
        let kind = match u.int_in_range(0..=8)? {
            0 | 1 => {
                directories.push(id);
                NodeKind::Directory(Vec::new())
            }
            2..=4 => {
                contents.push(any_content(u)?);
                NodeKind::File(FileId(u32::try_from(contents.len() - 1).expect("few")))
            }
            5 => NodeKind::Symlink(vec![b'x'; u.int_in_range(1..=4095)?].into()),
            6 => NodeKind::CharDevice {
                major: u.int_in_range(0..=4095)?,
                minor: u.int_in_range(0..=0xf_ffff)?,
            },
            7 => NodeKind::BlockDevice {
                major: u.int_in_range(0..=4095)?,
                minor: u.int_in_range(0..=0xf_ffff)?,
            },
            _ => u.choose(&[NodeKind::Fifo, NodeKind::Socket])?.clone(),
        };
        let is_directory = matches!(kind, NodeKind::Directory(_));
        let owner = |u: &mut Unstructured<'_>| u.choose(&[0, 1, 1000, u32::MAX - 1]).copied();
        let (mode, uid, gid) = (u.int_in_range(0..=0o7777)?, owner(u)?, owner(u)?);
        nodes.push(Node { kind, mode, uid, gid, mtime: u.arbitrary()?, xattrs: any_xattrs(u)? });
        let mut names = vec![parent];
        if !is_directory && u.ratio(1, 5)? {
            names.push(*u.choose(&directories)?);
        }
        for (index, parent) in names.into_iter().enumerate() {
            // Lengths that put the end of a directory's block anywhere.
            let length = *u.choose(&[0, 0, 0, 5, 200])?;
            let name = format!("{id}.{index}{}", "n".repeat(length)).into_bytes().into();
            let NodeKind::Directory(children) = &mut nodes[parent].kind else {
                unreachable!("chosen of those")
            };
            children.push((name, u32::try_from(id).expect("few")));
        }
    }
    Ok((Tree { nodes, root: 0 }, contents))
}

/// Any tree, written with any compressor, comes back name for name, with every field and all content, its image has no fault,
/// and its sums are those of its blocks and tables.
pub(crate) fn round_trip(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let choice = [Compressor::Zstd(1), Compressor::Gzip(1), Compressor::Lz4, Compressor::None];
    let Ok(compressor) = u.choose(&choice).copied() else { return };
    let Ok((tree, contents)) = any_tree(&mut u) else { return };
    assert_read_back(&tree, &contents, compressor);
}

/// As [`round_trip`], for a tree that a merge has made.
pub(crate) fn assert_written(tree: &Tree, contents: &[Vec<u8>]) {
    assert_read_back(tree, contents, Compressor::None);
}

/// The bytes of an image with that tree, and their sums.
pub(crate) fn write(tree: &Tree, contents: &[Vec<u8>], compressor: Compressor) -> (Vec<u8>, Sums) {
    let options = Options { compressor, threads: 1, mtime: 7 };
    let mut writer = Writer::new(Cursor::new(Vec::new()), options).unwrap();
    let ids: Vec<FileId> = contents
        .iter()
        .map(|bytes| {
            let storing = if bytes.len() % 3 == 1 { Storing::Plain } else { Storing::Packed };
            writer.add_file_as(storing, bytes.len() as u64, &mut bytes.as_slice()).unwrap()
        })
        .collect();
    let mut tree = tree.clone();
    for node in &mut tree.nodes {
        if let NodeKind::File(content) = &mut node.kind {
            // Content that a merge has passed by belongs to nodes that have no name.
            *content = ids.get(content.0 as usize).copied().unwrap_or(FileId(u32::MAX));
        }
    }
    let finished = writer.finish_with_sums(&tree).unwrap();
    (finished.out.into_inner(), finished.sums)
}

fn assert_read_back(tree: &Tree, contents: &[Vec<u8>], compressor: Compressor) {
    let (image, sums) = write(tree, contents, compressor);
    assert_eq!(Sums::parse(&sums.to_bytes()).as_ref(), Ok(&sums));
    let reader = Reader::open(Arc::new(image)).unwrap();
    let mut numbers: HashMap<NodeId, u32> = HashMap::new();
    let mut names: HashMap<NodeId, u32> = HashMap::new();
    let mut open = vec![(tree.root, reader.root().unwrap())];
    while let Some((id, inode)) = open.pop() {
        let node = &tree.nodes[id as usize];
        assert_eq!(
            (inode.mode, inode.uid, inode.gid, inode.mtime),
            (node.mode, node.uid, node.gid, node.mtime)
        );
        let mut xattrs = reader.xattrs(&inode).unwrap();
        let mut expected = node.xattrs.as_deref().cloned().unwrap_or_default();
        xattrs.sort();
        expected.sort();
        assert_eq!(xattrs, expected);
        *names.entry(id).or_default() += 1;
        assert_eq!(
            *numbers.entry(id).or_insert(inode.number),
            inode.number,
            "names of one node lead to one inode"
        );
        match (&node.kind, &inode.kind) {
            (NodeKind::Directory(children), InodeKind::Directory(_)) => {
                let mut children: Vec<_> = children.iter().collect();
                children.sort();
                let listing = reader.read_dir(&inode).unwrap();
                assert!(
                    listing
                        .iter()
                        .map(|entry| &entry.name[..])
                        .eq(children.iter().map(|(name, _)| &name[..]))
                );
                for ((name, child), entry) in children.into_iter().zip(listing) {
                    assert_eq!(reader.lookup_reference(&inode, name).unwrap(), Some(entry.reference));
                    open.push((*child, reader.inode(entry.reference).unwrap()));
                }
                assert!(reader.lookup(&inode, b"absent").unwrap().is_none());
            }
            (NodeKind::File(content), InodeKind::File(_)) => {
                let content = &contents[content.0 as usize];
                assert!(reader.read_all(&inode, 1 << 20).unwrap() == *content);
            }
            (NodeKind::Symlink(target), InodeKind::Symlink(found)) => assert_eq!(target, found),
            (NodeKind::CharDevice { major, minor }, InodeKind::CharDevice { major: a, minor: b })
            | (NodeKind::BlockDevice { major, minor }, InodeKind::BlockDevice { major: a, minor: b }) => {
                assert_eq!((major, minor), (a, b));
            }
            (NodeKind::Fifo, InodeKind::Fifo) | (NodeKind::Socket, InodeKind::Socket) => {}
            (written, read) => panic!("{written:?} came back as {read:?}"),
        }
    }
    let checked = reader.check(Some(&sums), 1, &mut |_| {});
    assert!(checked.faults.is_empty(), "{:?}", checked.faults);
}
