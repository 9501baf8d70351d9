//! What the reader makes of archives, right and wrong, as tables.

use std::fmt::Write;
use std::io::Read;

use super::*;
use crate::tarlayer::testing::*;

/// Every entry with its content, one line each.
fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(Trickle(bytes));
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        let mut buf = [0; 100];
        loop {
            match reader.read_data(&mut buf)? {
                0 => break,
                count => content.extend(&buf[..count]),
            }
        }
        assert_eq!(content.len() as u64, entry.size_bytes);
        entries.push((entry, content));
    }
    assert!(reader.next_entry()?.is_none());
    Ok(entries)
}

/// A stream that gives odd amounts, as decompressors do.
struct Trickle<'b>(&'b [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let limit = buf.len().min(333);
        self.0.read(&mut buf[..limit])
    }
}

fn shown_entry((entry, content): &(Entry, Vec<u8>)) -> String {
    let Entry { path, kind, mode, uid, gid, mtime, size_bytes, link, xattrs } = entry;
    let mut line = format!("{} {kind:?} {mode:o} {uid}:{gid} @{mtime}", path.escape_ascii());
    if !link.is_empty() {
        write!(line, " -> {}", link.escape_ascii()).unwrap();
    }
    for (name, value) in xattrs {
        write!(line, " {}={}", name.escape_ascii(), value.escape_ascii()).unwrap();
    }
    if *size_bytes > 0 {
        write!(line, " {}", content.escape_ascii()).unwrap();
    }
    line
}

#[track_caller]
fn check_bytes(bytes: &[u8], expected: &[&str]) {
    let lines: Vec<String> = read_all(bytes).unwrap().iter().map(shown_entry).collect();
    assert_eq!(lines, expected);
}

#[track_caller]
fn check(members: &[Member], expected: &[&str]) {
    check_bytes(&archive(members), expected);
}

#[track_caller]
fn check_error(bytes: &[u8], expected: &str) {
    assert_eq!(read_all(bytes).unwrap_err().to_string(), expected);
}

const V7_MAGIC: [u8; 8] = [0; 8];

#[test]
fn kinds() {
    check(
        &[
            file("a", "data").mode(0o104_755),
            dir("d/"),
            symlink("s", "../x"),
            hard_link("h", "a"),
            Member { device: (1, 3), ..member(b'3', "null") },
            Member { device: (8, 1), ..member(b'4', "sda1") },
            member(b'6', "pipe"),
            Member { data: b"c".to_vec(), ..member(b'7', "contiguous") },
            Member { data: b"n".to_vec(), ..member(0, "nul") },
            member(0, "olddir/"),
            Member { magic: V7_MAGIC, ..file("v7", "7") },
            Member { magic: V7_MAGIC, ..member(0, "v7dir/") },
        ],
        &[
            "a File 4755 0:0 @0 data",
            "d/ Directory 755 0:0 @0",
            "s Symlink 755 0:0 @0 -> ../x",
            "h HardLink 755 0:0 @0 -> a",
            "null CharDevice { major: 1, minor: 3 } 755 0:0 @0",
            "sda1 BlockDevice { major: 8, minor: 1 } 755 0:0 @0",
            "pipe Fifo 755 0:0 @0",
            "contiguous File 755 0:0 @0 c",
            "nul File 755 0:0 @0 n",
            "olddir/ Directory 755 0:0 @0",
            "v7 File 644 0:0 @0 7",
            "v7dir/ Directory 755 0:0 @0",
        ],
    );
}

#[test]
fn names() {
    let long = "n/".repeat(300);
    let name_100 = "x".repeat(100);
    let old_go = Member { magic: GNU_MAGIC, ..file("f", "") }.patch(345, "old/go");
    check(
        &[
            file(b"\xff\n\\:", ""),
            file("f", "").patch(345, "a/prefix"),
            file(&name_100, ""),
            file(&long, "1"),
            symlink("l", &long),
            // star: 131 bytes of prefix, then times.
            file("f", "").patch(345, "star").patch(476, "00000000000 00000000000 ").patch(508, "tar\0"),
            // GNU: a time in the place of the prefix, and Go before 1.8 with a prefix there.
            Member { magic: GNU_MAGIC, ..file("f", "") }.patch(345, "14000000000\0"),
            old_go,
            Member { magic: V7_MAGIC, ..file("f", "") }.patch(345, "junk"),
            // POSIX magic without the version.
            Member { magic: *b"ustar\0\0\0", ..file("f", "") }.patch(345, "p"),
        ],
        &[
            "\\xff\\n\\\\: File 644 0:0 @0",
            "a/prefix/f File 644 0:0 @0",
            &format!("{name_100} File 644 0:0 @0"),
            &format!("{long} File 644 0:0 @0 1"),
            &format!("l Symlink 755 0:0 @0 -> {long}"),
            "star/f File 644 0:0 @0",
            "f File 644 0:0 @0",
            "old/go/f File 644 0:0 @0",
            "f File 644 0:0 @0",
            "p/f File 644 0:0 @0",
        ],
    );
}

#[test]
fn number_fields() {
    let blank = file("blank", "").patch(100, [0; 24]).patch(136, [b' '; 12]);
    check(
        &[
            file("n", "")
                .patch(108, b"\x80\0\0\0\x7e\x56\x0f\x7c")
                .patch(116, b"\xff\xff\xff\xff\xff\xff\xff\xfe"),
            file("t", "").patch(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            file("s", "abc").patch(124, b"         3 \0"),
            blank,
        ],
        &[
            "n File 644 2119569276:4294967294 @0",
            "t File 644 0:0 @-1",
            "s File 644 0:0 @0 abc",
            "blank File 0 0:0 @0",
        ],
    );
    check_error(
        &archive(&[file("a", "").patch(124, b"0000000000x\0")]),
        "the size of `a` (header at byte 0) is not a valid number",
    );
    check_error(
        &archive(&[
            file("a", ""),
            file("b", "").patch(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ]),
        "the size of `b` (header at byte 512) is not a valid number",
    );
    check_error(
        &archive(&[file("a", "").patch(108, "zzz")]),
        "the owner of `a` (header at byte 0) is not a valid number",
    );
}

#[test]
fn signed_checksum() {
    let mut bytes = archive(&[file(b"\xe9\xe8", "x")]);
    let signed: i64 = bytes[..512]
        .iter()
        .enumerate()
        .map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { i64::from(byte.cast_signed()) })
        .sum();
    bytes[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    check_bytes(&bytes, &["\\xe9\\xe8 File 644 0:0 @0 x"]);
    bytes[0] ^= 1;
    check_error(&bytes, "the header at byte 0 has a wrong checksum: the archive is damaged or not a tar");
    check_error(
        &[b'x'; 600],
        "the header at byte 0 has a wrong checksum: the archive is damaged or not a tar",
    );
}

#[test]
fn pax_headers() {
    let global = |records| Member { typeflag: b'g', ..pax(records) };
    check(
        &[
            global(&[("comment", b"a commit"), ("mtime", b"7"), ("path", b"ignored"), ("size", b"9")]),
            file("a", "1"),
            pax(&[("path", b"long/name"), ("uid", b"1516583083"), ("mtime", b"-1.5")]),
            file("b", "2"),
            pax(&[("linkpath", b"target"), ("SCHILY.xattr.user.x", b"\0\n"), ("mtime", b"")]),
            symlink("c", "short"),
            // The size of the extended header counts, also where the field says 0 (TARmageddon).
            pax(&[("size", b"600")]),
            file("d", [b'd'; 600]).size_field(0),
            pax(&[("path", b"pax")]),
            file("g".repeat(101), ""),
            global(&[("mtime", b"")]),
            file("last", ""),
        ],
        &[
            "a File 644 0:0 @7 1",
            "long/name File 644 1516583083:0 @-2 2",
            "c Symlink 755 0:0 @0 -> target user.x=\\x00\\n",
            &format!("d File 644 0:0 @7 {}", "d".repeat(600)),
            &format!("{} File 644 0:0 @7", "g".repeat(101)),
            "last File 644 0:0 @0",
        ],
    );
}

#[test]
fn tarmageddon_inner_archive_stays_data() {
    let inner = archive(&[file("evil", "payload")]);
    let size = inner.len().to_string();
    let outer = [pax(&[("size", size.as_bytes())]), file("inner.tar", &inner).size_field(0), file("z", "")];
    let entries = read_all(&archive(&outer)).unwrap();
    let names: Vec<_> = entries.iter().map(|(entry, _)| entry.path.as_slice()).collect();
    assert_eq!(names, [b"inner.tar".as_slice(), b"z"]);
    assert_eq!(entries[0].1, inner);
}

#[test]
fn refuses_bad_extensions() {
    let bad = |data: &[u8]| Member { data: data.to_vec(), ..member(b'x', "x") };
    check_error(
        &archive(&[bad(b"7 a=b\n"), file("a", "")]),
        "the extension header `x` before byte 518 is malformed: a record has no valid length",
    );
    check_error(
        &archive(&[pax(&[("mtime", b"1")]), pax(&[("mtime", b"2")]), file("a", "")]),
        "two extension headers of type `x` describe one member, at byte 1024",
    );
    check_error(
        &archive(&[pax(&[("mtime", b"1")])]),
        "an extension header is followed by no member, at byte 1024",
    );
    check_error(
        &pax(&[("mtime", b"1")]).bytes(),
        "an extension header is followed by no member, at byte 1024",
    );
    check_error(
        &archive(&[pax(&[("mtime", b"1")]), Member { typeflag: b'g', ..pax(&[]) }, file("a", "")]),
        "an extension header is followed by no member, at byte 1024",
    );
    check_error(
        &archive(&[member(b'L', "L").size_field((1 << 20) + 1)]),
        "the extension header `L` at byte 0 has 1048577 bytes, the limit is 1048576",
    );
    check_error(
        &archive(&[member(b'V', "volume")]),
        "`volume` (header at byte 0) has the type `V`, which is no file of an image",
    );
}

#[test]
fn ends() {
    let one = file("a", "x").bytes();
    let expected = ["a File 644 0:0 @0 x"];
    let zeros = |count: usize| vec![0; count];
    check_bytes(&[], &[]);
    check_bytes(&zeros(1024), &[]);
    check_bytes(&one, &expected);
    check_bytes(&[one.clone(), zeros(512)].concat(), &expected);
    check_bytes(&[one.clone(), zeros(1024), b"garbage".to_vec()].concat(), &expected);
    check_bytes(&[one.clone(), zeros(1024), one.clone()].concat(), &expected);
    check_bytes(&[one.clone(), zeros(10240)].concat(), &expected);
    check_bytes(&[one.clone(), zeros(700)].concat(), &expected);
    for behind in [one.clone(), b"x".to_vec()] {
        check_error(
            &[one.clone(), zeros(512), behind].concat(),
            "one block of zeros stands alone at byte 1024: the archive is damaged",
        );
    }
    check_error(&one[..100], "the archive is truncated: it ends inside a header, at byte 100");
    check_error(&one[..512], "the archive is truncated: it ends inside the data of `a`, at byte 512");
    // umoci 0.4.7 `insert` leaves the last member's padding out.
    check_bytes(&one[..513], &expected);
    check_bytes(&one[..700], &expected);
    check_error(
        &[&one[..], &[1]].concat(),
        "the archive is truncated: it ends inside a header, at byte 1025",
    );
    check_error(
        &file("l".repeat(101), "").bytes()[..600],
        "the archive is truncated: it ends inside the data of `././@LongLink`, at byte 600",
    );
}

#[test]
fn skips_unread_data() {
    let bytes = archive(&[file("a", [1; 200_000]), file("b", "b")]);
    let mut reader = TarReader::new(bytes.as_slice());
    reader.next_entry().unwrap().unwrap();
    let mut buf = [0; 10];
    assert_eq!(reader.read_data(&mut buf).unwrap(), 10);
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"b");
    assert_eq!(reader.next_entry().unwrap(), None);
    assert_eq!(reader.into_inner().len(), 0);
}

#[test]
fn hard_links_with_a_size() {
    let sized = |magic| Member { magic, ..hard_link("h", "a") }.size_field(4);
    let linked = |magic| Member { magic, data: b"data".to_vec(), ..hard_link("h", "a") };
    let without_data = ["h HardLink 755 0:0 @0 -> a", "b File 644 0:0 @0 b"];
    check(&[sized(POSIX_MAGIC), file("b", "b")], &without_data);
    check(&[sized(GNU_MAGIC), file("b", "b")], &without_data);
    check(&[sized(V7_MAGIC), file("b", "b")], &without_data);
    check(&[sized(POSIX_MAGIC)], &without_data[..1]);
    check_bytes(&sized(POSIX_MAGIC).bytes(), &without_data[..1]);
    check(
        &[linked(POSIX_MAGIC), file("b", "b")],
        &["h HardLink 755 0:0 @0 -> a data", "b File 644 0:0 @0 b"],
    );
    check_error(
        &archive(&[linked(GNU_MAGIC), file("b", "b")]),
        "the header at byte 512 has a wrong checksum: the archive is damaged or not a tar",
    );
}

#[test]
fn sizes_without_data() {
    for typeflag in [b'2', b'3', b'4', b'5', b'6'] {
        let bytes = archive(&[member(typeflag, "x").size_field(5), file("b", "b")]);
        assert_eq!(read_all(&bytes).unwrap().len(), 2, "{typeflag}");
    }
}

const EXPANDED: &str = "\\x00\\x00\\x00\\x00\\x00abc\\x00\\x00de\\x00\\x00\\x00";

#[test]
fn sparse_pax() {
    let line = format!("s File 644 0:0 @0 {EXPANDED}");
    let v0_0: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"15"),
        ("GNU.sparse.numblocks", b"3"),
        ("GNU.sparse.offset", b"5"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"10"),
        ("GNU.sparse.numbytes", b"2"),
        ("GNU.sparse.offset", b"15"),
        ("GNU.sparse.numbytes", b"0"),
    ];
    check(&[pax(v0_0), file("s", "abcde"), file("b", "")], &[&line, "b File 644 0:0 @0"]);
    let v0_1: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"15"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.map", b"5,3,10,2"),
    ];
    check(&[pax(v0_1), file("GNUSparseFile.1/s", "abcde"), file("b", "")], &[&line, "b File 644 0:0 @0"]);
    let v1: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"15"),
    ];
    let mut data = b"2\n5\n3\n10\n2\n".to_vec();
    data.resize(512, 0);
    data.extend(b"abcde");
    check(&[pax(v1), file("GNUSparseFile.1/s", &data), file("b", "")], &[&line, "b File 644 0:0 @0"]);
    check_error(
        &archive(&[pax(v1), file("x", &data[..516])]),
        "the sparse map of `x` (before byte 2048) is wrong: the segments are not as long as the stored data",
    );
    check_error(
        &archive(&[pax(v1), file("x", "9")]),
        "the sparse map of `x` (before byte 1536) is wrong: it is longer than the stored data",
    );
    check_error(
        &archive(&[pax(v1), file("x", [b"9999999\n".as_slice(), &[0; 600]].concat())]),
        "the sparse map of `x` (before byte 2048) is wrong: the sparse map is too long",
    );
    let bad_map = |map: &[u8]| {
        let records: &[(&str, &[u8])] = &[("GNU.sparse.size", b"15"), ("GNU.sparse.map", map)];
        read_all(&archive(&[pax(records), file("x", "abcde")])).unwrap_err().to_string()
    };
    let reason = |reason| format!("the sparse map of `x` (before byte 1536) is wrong: {reason}");
    assert_eq!(bad_map(b"5,3,7,2"), reason("segments overlap or do not ascend"));
    assert_eq!(bad_map(b"5,3,14,2"), reason("a segment lies behind the end of the file"));
    assert_eq!(bad_map(b"5,3"), reason("the segments are not as long as the stored data"));
    assert_eq!(bad_map(b"0,18446744073709551615,18446744073709551615,6"), reason("a segment is too long"));
}

#[test]
fn sparse_old_gnu() {
    let entry = |offset: u64, length: u64| format!("{offset:011o}\0{length:011o}\0");
    let sparse = |extended: &str| {
        Member { magic: GNU_MAGIC, data: b"abcde".to_vec(), ..member(b'S', "s") }
            .mode(0o644)
            .patch(386, entry(5, 3))
            .patch(482, extended)
            .patch(483, format!("{:011o}\0", 15))
    };
    let line = format!("s File 644 0:0 @0 {EXPANDED}");
    check(&[sparse("").patch(410, entry(10, 2)), file("b", "")], &[&line, "b File 644 0:0 @0"]);
    // The second segment in an extension block between header and data.
    let mut bytes = archive(&[sparse("\x01"), file("b", "")]);
    let mut block = entry(10, 2).into_bytes();
    block.resize(512, 0);
    bytes.splice(512..512, block);
    check_bytes(&bytes, &[&line, "b File 644 0:0 @0"]);
    check_error(&bytes[..600], "the archive is truncated: it ends inside a header, at byte 600");
}

#[test]
fn a_failing_stream_is_named() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("no network"))
        }
    }
    let bytes = file("a", "abc").bytes();
    let mut reader = TarReader::new(bytes[..512].chain(Broken));
    reader.next_entry().unwrap();
    let mut data = reader.data();
    assert!(data.read(&mut [0; 8]).is_err());
    assert_eq!(data.into_error().unwrap().to_string(), "reading the archive at byte 512: no network");
}

/// One of everything, so that random damage meets every parser.
fn assorted() -> Vec<u8> {
    let sparse: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"15"),
        ("mtime", b"1.5"),
    ];
    let mut map = b"2\n5\n3\n10\n2\n".to_vec();
    map.resize(512, 0);
    map.extend(b"abcde");
    archive(&[
        pax(&[("path", b"p"), ("SCHILY.xattr.user.a", b"1"), ("size", b"3")]),
        file("a", "abc"),
        pax(sparse),
        file("s", map),
        Member { magic: GNU_MAGIC, data: b"abc".to_vec(), ..member(b'S', "o") }
            .patch(386, "00000000001\x0000000000003\0")
            .patch(483, "00000000010\0"),
        file("l".repeat(120), ""),
        hard_link("h", "a").size_field(3),
        Member { device: (1, 3), ..member(b'3', "null") },
    ])
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn damage_never_panics(
        edits in proptest::collection::vec((0..16_384_usize, proptest::num::u8::ANY), 1..8),
        cut in 0..40_000_usize,
    ) {
        let mut bytes = assorted();
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        // Right checksums, so that the damage is found behind them.
        for block in bytes.chunks_exact_mut(512) {
            let block: &mut [u8; 512] = block.try_into().unwrap();
            if block[257..].starts_with(b"ustar") {
                set_checksum(block);
            }
        }
        bytes.truncate(cut);
        let mut reader = TarReader::new(bytes.as_slice());
        while let Ok(Some(entry)) = reader.next_entry() {
            let mut left = entry.size_bytes.min(100_000);
            let mut buf = [0; 1000];
            while left > 0 {
                match reader.read_data(&mut buf) {
                    Ok(count) if count > 0 => left = left.saturating_sub(count as u64),
                    _ => break,
                }
            }
        }
    }
}
