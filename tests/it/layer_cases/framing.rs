//! Groups 11 to 13: ends of archives, compressed streams, empty layers, and many of them.

use super::super::support::layers::gzip;
use super::*;

fn zeros(count: usize) -> Vec<u8> {
    vec![0; count]
}

#[test]
fn group_11_ends_of_archives() {
    let one = file("a", "1").bytes();
    let gives = |name, tar: &[u8]| case(name).raw(tar).gives("f644 a `1`");
    gives("both blocks of the end", &[one.clone(), zeros(1024)].concat());
    gives("no end", &one);
    gives("one block of the end", &[one.clone(), zeros(512)].concat());
    gives("blocks up to a record", &[one.clone(), zeros(10240)].concat());
    gives("garbage behind the end", &[one.clone(), zeros(1024), b"garbage".to_vec()].concat());
    gives(
        "another archive behind the end",
        &[one.clone(), zeros(1024), file("b", "2").bytes(), zeros(1024)].concat(),
    );
    case("a file without content").layer(&[file("a", ""), file("b", "")]).gives("f644 a ``\n f644 b ``");
    case("no bytes").raw(b"").gives("");
    case("nothing but the end").raw(&zeros(1024)).gives("");
    case("a block of zeros in the middle")
        .raw(&[one.clone(), zeros(512), file("b", "2").bytes(), zeros(1024)].concat())
        .gives_error(
            "layer 1 of 1 (`A`): one block of zeros stands alone at byte 1024: the archive is damaged",
        );
    case("an end inside of content").raw(&file("a", [b'x'; 2000]).bytes()[..1000]).gives_error(
        "layer 1 of 1 (`A`): the archive is truncated: it ends inside the data of `a`, at byte 1000",
    );
    case("an end inside of a header")
        .raw(&one[..100])
        .gives_error("layer 1 of 1 (`A`): the archive is truncated: it ends inside a header, at byte 100");
}

#[test]
fn group_11_more_than_8_gib() {
    // The content is a hole: what is tested is the number. GNU tar writes it in base 256, others in an extended header.
    let mut sparse = Member { magic: testing::GNU_MAGIC, data: b"x".to_vec(), ..member(b'S', "big") }
        .mode(0o644)
        .patch(386, format!("{:011o}\0{:011o}\0", 0, 1));
    let size: u64 = 9 << 30;
    let mut field = [0; 12];
    field[4..].copy_from_slice(&size.to_be_bytes());
    field[0] = 0x80;
    sparse = sparse.patch(483, field);
    let bytes = archive(&[sparse, file("next", "1")]);
    let mut tar = slipway::tarlayer::TarReader::new(bytes.as_slice());
    let entry = tar.next_entry().unwrap().unwrap();
    assert_eq!((entry.size_bytes, entry.path.as_slice()), (size, b"big".as_slice()));
    assert_eq!(tar.next_entry().unwrap().unwrap().path, b"next");

    let record = size.to_string();
    let head = [pax(&[("size", record.as_bytes())]).bytes(), file("big", "").bytes()].concat();
    let mut tar = slipway::tarlayer::TarReader::new(head.as_slice());
    assert_eq!(tar.next_entry().unwrap().unwrap().size_bytes, size);
    assert_eq!(
        tar.next_entry().unwrap_err().to_string(),
        "the archive is truncated: it ends inside the data of `big`, at byte 1536"
    );
}

#[test]
fn group_11_compressed_streams() {
    let tar = archive(&[file("a", [b'x'; 100])]);
    let tree = "f644 a 100 bytes 09ecb6ebc8bcefc7";
    let gives = |name, store: &dyn Fn(&[u8]) -> Vec<u8>| case(name).stored(&tar, store).gives(tree);
    gives("gzip", &gzip);
    gives("gzip of several members", &|tar| [gzip(&tar[..700]), gzip(b""), gzip(&tar[700..])].concat());
    gives("plain", &<[u8]>::to_vec);
    let zstd = |tar: &[u8]| zstd::encode_all(tar, 1).unwrap();
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
    case("zstd").stored(&tar, zstd).without_umoci().gives(tree);
    case("zstd of several frames, some to be skipped")
        .stored(&tar, |tar| [&skippable[..], &zstd(&tar[..700]), &skippable, &zstd(&tar[700..])].concat())
        .without_umoci()
        .gives(tree);
    case("gzip with zeros behind it")
        .stored(&tar, |tar| [gzip(tar), zeros(700)].concat())
        .unlike_umoci(
            "Go takes the zeros for a broken header; gzip itself passes them by, and tapes and pads had them",
        )
        .gives(tree);
    case("gzip with other bytes behind it")
        .stored(&tar, |tar| [gzip(tar), b"junk".to_vec()].concat())
        .gives_error("layer 1 of 1 (`A`): the gzip data is broken: unexpected end of file");
    let cut = |tar: &[u8]| {
        let mut packed = gzip(tar);
        packed.truncate(packed.len() - 3);
        packed
    };
    case("gzip that is cut off, with the right digest")
        .stored(&tar, cut)
        .gives_error("layer 1 of 1 (`A`): the gzip data is broken: unexpected end of file");
    let wrong_length = |tar: &[u8]| {
        let mut packed = gzip(tar);
        let last = packed.len() - 4;
        packed[last] ^= 1;
        packed
    };
    case("gzip that tells another length").stored(&tar, wrong_length).gives_error(
        "layer 1 of 1 (`A`): the gzip data is broken: corrupt gzip stream does not have a matching checksum",
    );
    // A frame without content whose header asks for a window of 2^27 bytes, and one for 2^28.
    let window = |exponent: u8| {
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, (exponent - 10) << 3, 1, 0, 0][..], &zstd(&tar)].concat()
    };
    case("zstd with the longest window").stored(&tar, |_| window(27)).without_umoci().gives(tree);
    case("zstd with a longer one").stored(&tar, |_| window(28)).without_umoci().gives_error(
        "layer 1 of 1 (`A`): the zstd data is broken: Frame requires too much memory for decoding",
    );
    case("xz")
        .stored(&tar, |_| b"\xfd7zXZ\0 and so on".to_vec())
        .gives_error("layer 1 of 1 (`A`) is compressed with xz, only gzip and zstd are supported");
}

/// The empty layer that Docker wrote for each step without files until 2016, byte for byte.
const DOCKERS_EMPTY_LAYER: [u8; 32] = [
    31, 139, 8, 0, 0, 9, 110, 136, 0, 255, 98, 24, 5, 163, 96, 20, 140, 88, 0, 8, 0, 0, 255, 255, 46, 175,
    181, 239, 0, 4, 0, 0,
];

#[test]
fn group_12_empty_layers_and_bare_images() {
    // BuildKit's differs in the time of the gzip header.
    let mut buildkits = DOCKERS_EMPTY_LAYER;
    buildkits[4..8].fill(0);
    for (packed, digest) in [
        (DOCKERS_EMPTY_LAYER, "a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"),
        (buildkits, "4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1"),
    ] {
        let layer = StoredLayer::new(&zeros(1024), |_| packed.to_vec());
        assert_eq!(layer.digest.unwrap().hex(), digest);
        assert_eq!(layer.diff_id.hex(), "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
        let empty = |case: Case| case.stored(&zeros(1024), |_| packed.to_vec());
        let first = empty(empty(case("empty layers below, between and above"))).layer(&[file("a", "1")]);
        empty(empty(first).layer(&[file("b", "2")])).gives("f644 a `1`\n f644 b `2`");
        empty(case("nothing else")).gives("");
    }
    case("no layers").gives("");
    case("one program and nothing else")
        .layer(&[file("server", "ELF").mode(0o755)])
        .gives("f755 server `ELF`");
    let same = [dir("d"), file("d/f", "1")];
    case("one layer several times").layer(&same).layer(&same).layer(&same).gives("d755 d\n f644 d/f `1`");
}

#[test]
fn group_13_many_layers() {
    let many = |count: usize| {
        let mut stack = case("one file of each, and one of all");
        for number in 0..count {
            stack = stack.layer(&[file(format!("{number:03}"), ""), file("all", number.to_string())]);
        }
        let mut tree: String = (0..count).fold(String::new(), |mut text, number| {
            writeln!(text, "f644 {number:03} ``").unwrap();
            text
        });
        writeln!(tree, "f644 all `{}`", count - 1).unwrap();
        (stack, tree)
    };
    let (stack, tree) = many(130);
    stack.gives(&tree);
    // More than a kernel's overlay takes (500).
    let (stack, tree) = many(600);
    stack.without_umoci().gives(&tree);
}
