//! Answers without a kernel. Real mounts are in `tests/it/fuse_mount.rs`.

use std::io::Cursor;

use super::serve::Shared;
use super::wire::{Request, opcode};
use super::*;
use crate::base::tree::{Node, NodeKind, Tree};
use crate::squashfs::compress::Compressor;
use crate::squashfs::write::{Options, Writer};

/// `file` with content, and an empty directory `d`.
fn shared(no_open: bool) -> Shared {
    serve_image(image(), no_open)
}

fn image() -> Vec<u8> {
    let options = Options { compressor: Compressor::Zstd(1), threads: 1, mtime: 5 };
    let mut writer = Writer::new(Cursor::new(Vec::new()), options).unwrap();
    let file = writer.add_file(7, &mut b"content".as_slice()).unwrap();
    let node = |kind| Node { kind, mode: 0o600, uid: 0, gid: 0, mtime: 1, xattrs: None };
    let root = vec![(b"file".as_slice().into(), 1), (b"d".as_slice().into(), 2)];
    let nodes = vec![
        node(NodeKind::Directory(root)),
        node(NodeKind::File(file)),
        node(NodeKind::Directory(Vec::new())),
    ];
    writer.finish(&Tree { nodes, root: 0 }).unwrap().0.into_inner()
}

fn serve_image(image: Vec<u8>, no_open: bool) -> Shared {
    let synthetic = vec![Synthetic { path: RelPath::parse(b"a/b").unwrap(), kind: SyntheticKind::File }];
    let image = Arc::new(image);
    let spec = ServerSpec {
        image,
        synthetic,
        uid: 3,
        gid: 4,
        cache_bytes: 1 << 20,
        no_open,
        tuning: Tuning::default(),
    };
    Server::load(spec).unwrap().shared
}

/// The bytes of an answer; `None` for silence.
fn ask(shared: &Shared, opcode: u32, node_id: u64, body: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let (mut out, mut pieces) = (Vec::new(), Vec::new());
    let replied = shared.answer(&Request { opcode, unique: 1, node_id, body }, &mut out, &mut pieces)?;
    let parts = content::to_parts(&[], &out, &pieces);
    Ok((replied == serve::Answer::Reply).then(|| parts.iter().flat_map(|part| part.to_vec()).collect()))
}

fn id_of(shared: &Shared, parent: u64, name: &[u8]) -> u64 {
    let answer = ask(shared, opcode::LOOKUP, parent, &[name, b"\0"].concat()).unwrap().unwrap();
    u64::from_ne_bytes(answer[..8].try_into().unwrap())
}

fn read_in(offset: u64, size: u32) -> Vec<u8> {
    let mut body = vec![0; 40];
    body[8..16].copy_from_slice(&offset.to_ne_bytes());
    body[16..20].copy_from_slice(&size.to_ne_bytes());
    body
}

#[test]
fn answers_lookups_and_reads() {
    let shared = shared(false);
    let file = id_of(&shared, 1, b"file");
    assert_eq!(ask(&shared, opcode::READ, file, &read_in(0, 100)).unwrap().unwrap(), b"content");
    assert_eq!(ask(&shared, opcode::READ, file, &read_in(3, 2)).unwrap().unwrap(), b"te");
    assert_eq!(ask(&shared, opcode::READ, file, &read_in(7, 2)).unwrap().unwrap(), b"");
    assert_eq!(ask(&shared, opcode::READ, 1, &read_in(0, 2)), Err(Errno::EISDIR));
    assert_eq!(
        id_of(&shared, 1, b"absent"),
        0,
        "an absent name is an entry without a node, to be remembered"
    );
    let added = id_of(&shared, id_of(&shared, 1, b"a"), b"b");
    assert_eq!(ask(&shared, opcode::READ, added, &read_in(0, 2)).unwrap().unwrap(), b"");
    let attr = ask(&shared, opcode::GETATTR, file, &[0; 16]).unwrap().unwrap();
    assert_eq!(
        attr[16 + 60..16 + 76],
        [[0o600 | 0o100_000, 1], [3, 4]]
            .concat()
            .iter()
            .flat_map(|v: &u32| v.to_ne_bytes())
            .collect::<Vec<_>>()
    );
}

#[test]
fn lists_a_few_names_at_a_time() {
    let shared = shared(false);
    for plus in [opcode::READDIR, opcode::READDIRPLUS] {
        let (mut names, mut from) = (Vec::new(), 0_u64);
        loop {
            let page = ask(&shared, plus, 1, &read_in(from, 170)).unwrap().unwrap();
            let mut rest = page.as_slice();
            if rest.is_empty() {
                break;
            }
            while !rest.is_empty() {
                let dirent = if plus == opcode::READDIR { rest } else { &rest[128..] };
                let field = |at: usize| u32::from_ne_bytes(dirent[at..at + 4].try_into().unwrap()) as usize;
                from = u64::from_ne_bytes(dirent[8..16].try_into().unwrap());
                names.push(String::from_utf8(dirent[24..24 + field(16)].to_vec()).unwrap());
                rest = &dirent[(24 + field(16)).next_multiple_of(8)..];
            }
        }
        assert_eq!(names, [".", "..", "d", "file", "a"]);
    }
}

#[test]
fn a_damaged_inode_costs_its_own_name_only() {
    let mut image = image();
    // In the root's listing: where the inode lies in its block, number, kind, length of the name less one, name.
    let name = image.windows(6).rposition(|bytes| bytes == b"\x03\0file").unwrap();
    image[name - 6..name - 4].copy_from_slice(&8191_u16.to_le_bytes());
    let shared = serve_image(image, false);
    let page = ask(&shared, opcode::READDIRPLUS, 1, &read_in(2, 4096)).unwrap().unwrap();
    let of = |name: &[u8]| {
        let at = page.windows(name.len()).position(|bytes| bytes == name).unwrap() - 24 - 128;
        u64::from_ne_bytes(page[at..at + 8].try_into().unwrap())
    };
    assert_eq!(of(b"file\0"), 0, "no attributes");
    assert_ne!(of(b"d\0\0"), 0);
    assert_eq!(ask(&shared, opcode::LOOKUP, 1, b"file\0"), Err(Errno::EIO));
    assert_ne!(id_of(&shared, 1, b"d"), 0);
}

#[test]
fn names_that_no_file_can_have_are_too_long() {
    let shared = shared(false);
    assert_eq!(id_of(&shared, 1, &[b'x'; 255]), 0);
    let long = [&[b'x'; 256][..], b"\0"].concat();
    assert_eq!(ask(&shared, opcode::LOOKUP, 1, &long), Err(Errno::ENAMETOOLONG));
}

#[test]
fn the_kernel_decides_whether_open_may_be_missing() {
    let init =
        |flags: u32| [7_u32, 31, 1 << 20, flags].iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
    let shared = shared(true);
    assert!(ask(&shared, opcode::OPEN, 1, &[0; 8]).is_ok());
    ask(&shared, opcode::INIT, 0, &init(wire::init::NO_OPEN_SUPPORT)).unwrap();
    assert_eq!(ask(&shared, opcode::OPEN, 1, &[0; 8]), Err(Errno::ENOSYS));
    assert!(ask(&shared, opcode::OPENDIR, 1, &[0; 8]).is_ok());
    let old = [7_u32, 25, 0, 0].iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<_>>();
    assert_eq!(ask(&shared, opcode::INIT, 0, &old), Err(Errno::EPROTO));
    for missing in [25, 34, 46, 52, 9999] {
        assert_eq!(ask(&shared, missing, 1, &[0; 64]), Err(Errno::ENOSYS));
    }
    assert_eq!(ask(&shared, opcode::GETXATTR, 1, &[0; 64]), Err(Errno::ENOSYS), "this image has none");
    assert_eq!(ask(&shared, opcode::MKDIR, 1, &[0; 64]), Err(Errno::EROFS));
    assert_eq!(ask(&shared, opcode::FORGET, 1, &[]), Ok(None));
}

#[test]
fn no_request_panics() {
    let shared = shared(false);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let opcode = u32::try_from(next() % 55).unwrap();
        let node_id = match next() % 4 {
            0 => next(),
            1 => (1 << 62) + next() % 4,
            _ => next() % 200,
        };
        let body: Vec<u8> =
            (0..next() % 64).map(|_| if next() % 2 == 0 { 0 } else { next().to_le_bytes()[0] }).collect();
        let _ = ask(&shared, opcode, node_id, &body);
    }
}

#[test]
fn a_keeper_can_add_mount_points_later() {
    let shared = shared(true);
    let add = |points: &[u8]| control::add(&shared, points);
    let root = nodes::Nodes::root();
    assert_eq!(id_of(&shared, root, b"new"), 0);
    assert_eq!(
        add(b"dnew/er\0fd/x\0"),
        Ok(vec![(root, b"new".as_slice().into()), (id_of(&shared, root, b"d"), b"x".as_slice().into())])
    );
    let new = id_of(&shared, root, b"new");
    assert_ne!(id_of(&shared, new, b"er"), 0);
    // What is there already is no news, and what cannot be there is an error.
    assert_eq!(add(b"dnew/er\0dnew\0da\0"), Ok(Vec::new()));
    assert_eq!(
        add(b"ffile/x\0"),
        Err("`/file/x` cannot be a mount point: the image has a regular file at `/file`".to_owned())
    );
    assert_eq!(add(b"nonsense"), Err("not understood".to_owned()));
    let many: Vec<u8> = (0..1 << 12).flat_map(|number| format!("dm{number}\0").into_bytes()).collect();
    assert_eq!(add(&many), Err("too many mount points".to_owned()));
}
