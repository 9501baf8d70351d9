//! The file server, without a kernel.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use slipway::base::RelPath;
use slipway::base::tree::{FileId, Node, NodeKind, Tree};
use slipway::fuse::{Server, ServerSpec, Synthetic, SyntheticKind, Tuning};
use slipway::squashfs::compress::Compressor;

use crate::{scratch, squashfs};

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const READLINK: u32 = 5;
const READ: u32 = 15;
const STATFS: u32 = 17;
const GETXATTR: u32 = 22;
const LISTXATTR: u32 = 23;
const READDIR: u32 = 28;
const READDIRPLUS: u32 = 44;

const REQUEST_BYTES: usize = 40;
const ANSWER_BYTES: usize = 16;

fn load(image: Vec<u8>, tuning: Tuning) -> Option<Server> {
    let point = |path: &str, kind| Synthetic { path: RelPath::parse(path.as_bytes()).unwrap(), kind };
    let synthetic = vec![point("proc", SyntheticKind::Directory), point("run/x/file", SyntheticKind::File)];
    let spec = ServerSpec {
        image: Arc::new(image),
        synthetic,
        uid: 1,
        gid: 2,
        cache_bytes: 1 << 20,
        no_open: true,
        tuning,
    };
    Server::load(spec).ok()
}

/// A small image with a node of each kind, a file of three blocks, and attributes.
pub(crate) fn sample() -> Vec<u8> {
    let node = |kind, xattrs: &[(&str, &str)]| {
        let xattrs: Vec<_> = xattrs
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        Node {
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 5,
            xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
        }
    };
    let name = |name: &str| Box::<[u8]>::from(name.as_bytes());
    let many = (0..300).map(|number| (name(&format!("name{number}")), 2)).collect();
    let nodes = vec![
        node(
            NodeKind::Directory(vec![
                (name("file"), 1),
                (name("tail"), 2),
                (name("d"), 3),
                (name("link"), 4),
                (name("pipe"), 5),
            ]),
            &[],
        ),
        node(NodeKind::File(FileId(0)), &[("user.a", "value"), ("security.capability", "x")]),
        node(NodeKind::File(FileId(1)), &[]),
        node(NodeKind::Directory(many), &[("user.b", "")]),
        node(NodeKind::Symlink(name("d/name1")), &[]),
        node(NodeKind::Fifo, &[]),
    ];
    squashfs::write(&Tree { nodes, root: 0 }, &[vec![7; 300_000], b"tail".to_vec()], Compressor::Zstd(1)).0
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

/// Asks, and checks the form of the answer; its error (0 or -errno) and body.
fn ask(server: &Server, request: &[u8]) -> Option<(i32, Vec<u8>)> {
    let answer = server.answer(request)?;
    assert_eq!(word(&answer, 0).map(|length| length as usize), Some(answer.len()));
    assert_eq!(long(&answer, 8), long(request, 8), "the answer to another request");
    let error = i32::from_ne_bytes(answer[4..8].try_into().unwrap());
    assert!((-511..=0).contains(&error), "the kernel takes no such error: {error}");
    let body = answer[ANSWER_BYTES..].to_vec();
    assert!(error == 0 || body.is_empty());
    if let (READ | READDIR | READDIRPLUS, Some(most)) = (word(request, 4)?, word(request, REQUEST_BYTES + 16))
    {
        assert!(body.len() <= most as usize, "more than was asked for");
    }
    Some((error, body))
}

fn request(opcode: u32, node_id: u64, body: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(REQUEST_BYTES + body.len()).unwrap().to_ne_bytes().to_vec();
    out.extend(opcode.to_ne_bytes());
    out.extend(9_u64.to_ne_bytes());
    out.extend(node_id.to_ne_bytes());
    out.resize(REQUEST_BYTES, 0);
    out.extend(body);
    out
}

fn read_in(offset: u64, size: u32) -> Vec<u8> {
    let mut body = vec![0; 40];
    body[8..16].copy_from_slice(&offset.to_ne_bytes());
    body[16..20].copy_from_slice(&size.to_ne_bytes());
    body
}

/// Requests as they follow each other, each cut off by its own length. Every answer is whole, goes to its question, holds an
/// error that the kernel knows, and no more than was asked for.
pub(crate) fn requests(data: &[u8]) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(|| load(sample(), Tuning::default()).expect("our own image"));
    let mut rest = data;
    for _ in 0..64 {
        let Some(length) = word(rest, 0) else { return };
        let length = (length as usize).clamp(4, rest.len());
        let (request, next) = rest.split_at(length);
        // Short in the input, right on the wire: else hardly any request would be whole.
        let mut request = request.to_vec();
        request[..4].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
        ask(server, &request);
        rest = next;
    }
}

/// Any bytes that are taken as an image are served: what a kernel would ask to see everything gets an answer, and a listing
/// goes forwards, in whole entries.
pub(crate) fn image(data: &[u8]) {
    let Some(server) = load(data.to_vec(), Tuning::default()) else { return };
    ask(&server, &request(STATFS, 1, &[]));
    let mut known = HashSet::from([1]);
    let mut open = vec![1_u64];
    let mut budget = 200;
    while let Some(id) = open.pop() {
        budget -= 1;
        if budget == 0 {
            return;
        }
        ask(&server, &request(GETATTR, id, &[0; 16]));
        ask(&server, &request(READLINK, id, &[]));
        for offset in [0, 100_000, u64::MAX - 5] {
            ask(&server, &request(READ, id, &read_in(offset, 70_000)));
        }
        let list = ask(&server, &request(LISTXATTR, id, &[0xff, 0xff, 0, 0, 0, 0, 0, 0])).expect("an answer");
        for name in list.1.split(|byte| *byte == 0).filter(|name| !name.is_empty()).take(5) {
            let body = [&[0, 0, 1, 0, 0, 0, 0, 0], name, b"\0"].concat();
            ask(&server, &request(GETXATTR, id, &body));
        }
        ask(&server, &request(LOOKUP, id, b"x\0"));
        let mut offset = 0;
        for _ in 0..3 {
            let Some((0, listing)) = ask(&server, &request(READDIRPLUS, id, &read_in(offset, 4096))) else {
                break;
            };
            let mut rest = &listing[..];
            while !rest.is_empty() {
                let (node, next) = (long(rest, 0).unwrap(), long(rest, 128 + 8).unwrap());
                let name_bytes = word(rest, 128 + 16).unwrap() as usize;
                let length = 128 + (24 + name_bytes).next_multiple_of(8);
                assert!(next > offset && rest.len() >= length, "{next} after {offset}");
                let name = &rest[128 + 24..128 + 24 + name_bytes];
                assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0));
                offset = next;
                rest = &rest[length..];
                if node != 0 && known.insert(node) {
                    open.push(node);
                }
            }
        }
    }
}

/// Any file beside an image is taken as its hot list or passed by; the image is served all the same.
pub(crate) fn hot_list(data: &[u8]) {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    let path = scratch::file("hot", data);
    let image = IMAGE.get_or_init(sample).clone();
    let server = load(image, Tuning { hot_list: Some(path), ..Tuning::default() }).expect("our own image");
    let (error, body) = ask(&server, &request(LOOKUP, 1, b"file\0")).expect("an answer");
    assert_eq!(error, 0);
    let id = long(&body, 0).unwrap();
    let (error, body) = ask(&server, &request(READ, id, &read_in(131_000, 200))).expect("an answer");
    assert!(error == 0 && body == [7; 200]);
}
