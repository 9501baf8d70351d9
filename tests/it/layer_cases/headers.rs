//! Groups 8 to 10: headers of all ages, extended headers, sparse files.

use super::testing::{GNU_MAGIC, pax_record};
use super::*;

const V7_MAGIC: [u8; 8] = [0; 8];

#[test]
fn group_08_headers_of_all_ages() {
    case("Unix 7th edition")
        .layer(&[
            Member { magic: V7_MAGIC, ..file("v7", "7") },
            Member { magic: V7_MAGIC, ..member(0, "dir/") },
        ])
        .gives(
            "d755 dir
         f644 v7 `7`",
        );
    case("old GNU, with a time where POSIX has a prefix")
        .layer(&[Member { magic: GNU_MAGIC, ..file("f", "1") }.patch(345, "14000000000\0")])
        .gives("f644 f `1`");
    case("star, with times behind the prefix")
        .layer(&[file("f", "1")
            .patch(345, "star")
            .patch(476, "00000000000 00000000000 ")
            .patch(508, "tar\0")])
        .gives("d755 star\n f644 star/f `1`");
    case("POSIX magic with GNU's binary numbers and a prefix")
        .layer(&[file("f", "1").patch(345, "some/where").patch(108, b"\x80\0\0\0\x7e\x56\x0f\x7c")])
        .gives("d755 some\n d755 some/where\n f644 some/where/f `1`");
    case("type NUL, version NUL, type 7")
        .layer(&[
            Member { data: b"1".to_vec(), ..member(0, "nul") },
            Member { magic: *b"ustar\0\0\0", ..file("version", "2") },
            Member { data: b"3".to_vec(), ..member(b'7', "contiguous") },
        ])
        .unlike_umoci("umoci refuses type 7; POSIX has it read as a file by whoever knows no better")
        .gives("f755 contiguous `3`\n f755 nul `1`\n f644 version `2`");
    case("numbers with blanks, NULs, or nothing")
        .layer(&[
            file("blanks", "abc").patch(124, b"         3 \0"),
            file("none", "").patch(100, b"      0\0").patch(136, [b' '; 12]),
        ])
        .gives("f644 blanks `abc`\n f0 none ``");
    case("sizes in base 256")
        .layer(&[file("f", "abc").patch(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x03"), file("g", "1")])
        .gives("f644 f `abc`\n f644 g `1`");
    case("times before 1970")
        .layer(&[file("f", "").patch(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")])
        .unlike_umoci("a squashfs has no time before 1970, and ours are cut to it")
        .gives("f644 f ``");
    case("times after 2038 and 2106")
        .layer(&[file("f", "").patch(136, b"20000000000\0"), file("g", "").patch(136, b"77777777777\0")])
        .unlike_umoci("a squashfs has no time after 2106, and ours are cut to it")
        .gives("f644 f `` @2147483648\n f644 g `` @4294967295");
    case("times of a billionth, and of access before change")
        .layer(&[pax(&[("mtime", b"1600000000.999999999"), ("atime", b"1"), ("ctime", b"2")]), file("f", "")])
        .gives("f644 f `` @1600000000");
    case("no times at all")
        .layer(&[file("f", ""), dir("d"), symlink("l", "f")])
        .gives("d755 d\n f644 f ``\n l l -> f");

    let mut signed = archive(&[file(b"\xe9\xe8", "x")]);
    let sum: i64 = signed[..512]
        .iter()
        .enumerate()
        .map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { i64::from(byte.cast_signed()) })
        .sum();
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    case("a signed checksum").raw(&signed).gives("f644 \\xe9\\xe8 `x`");
    signed[0] ^= 1;
    case("a wrong checksum").raw(&signed).gives_error(
        "layer 1 of 1 (`A`): the header at byte 0 has a wrong checksum: the archive is damaged or not a tar",
    );
}

#[test]
fn group_09_extended_headers() {
    let global = |records: &[(&str, &[u8])]| Member { typeflag: b'g', ..pax(records) };
    case("a global header makes no file and no parent")
        .layer(&[global(&[("comment", b"a commit"), ("path", b"never")]), file("a", "1")])
        .unlike_umoci("umoci refuses global headers; `git archive` writes one, and Docker passes it by")
        .gives("f644 a `1`");
    case("a key twice: the last counts")
        .layer(&[pax(&[("path", b"first"), ("path", b"second")]), file("a", "1")])
        .gives("f644 second `1`");
    case("an empty value deletes")
        .layer(&[pax(&[("path", b"x"), ("path", b"")]), file("a", "1")])
        .gives("f644 a `1`");
    case("the size of the header where the field says 0 (TARmageddon)")
        .layer(&[
            pax(&[("size", b"2048")]),
            file("inner.tar", archive(&[file("evil", "")])[..1024].repeat(2)).size_field(0),
            file("z", "last"),
        ])
        .gives("f644 inner.tar 2048 bytes 80e41c0f4cd168e4\n f644 z `last`");
    case("names and targets")
        .layer(&[
            pax(&[("path", b"long/name")]),
            file("short", "1"),
            pax(&[("linkpath", b"long/name")]),
            hard_link("h", "none"),
            pax(&[("linkpath", b"target")]),
            symlink("s", "none"),
        ])
        .gives("f644 h `1`\n d755 long\n f644 long/name = h\n l s -> target");
    case("attributes of any bytes, and those of bsdtar")
        .layer(&[
            pax(&[("SCHILY.xattr.user.a", b"1\n\0=2")]),
            file("f", ""),
            pax(&[("LIBARCHIVE.xattr.user.b", b"AAEC")]),
            file("g", ""),
        ])
        .unlike_umoci("Go does not know libarchive's form, which bsdtar writes beside star's")
        .gives("f644 f `` user.a=1\\n\\x00=2\n f644 g `` user.b=\\x00\\x01\\x02");
    let bad = |data: &[u8]| Member { data: data.to_vec(), ..member(b'x', "x") };
    case("a malformed length").layer(&[bad(b"7 a=b\n"), file("a", "")]).gives_error(
        "layer 1 of 1 (`A`): the extension header `x` before byte 518 is malformed: a record has no valid length",
    );
    case("no newline at the end of a record").layer(&[bad(b"6 a=b,"), file("a", "")]).gives_error(
        "layer 1 of 1 (`A`): the extension header `x` before byte 518 is malformed: a record does not end with a newline",
    );
    case("more than 1 MiB")
        .layer(&[
            Member { data: pax_record(b"comment", &vec![b'x'; 1 << 20]), ..member(b'x', "x") },
            file("a", ""),
        ])
        .gives_error(
            "layer 1 of 1 (`A`): the extension header `x` at byte 0 has 1048593 bytes, the limit is 1048576",
        );
    case("a GNU long name behind it: the extended header counts")
        .layer(&[pax(&[("path", b"pax")]), file("g".repeat(101), "1")])
        .gives(&format!("f644 {} `1`", "g".repeat(101)));
    case("nothing behind it")
        .layer(&[file("a", ""), pax(&[("mtime", b"1")])])
        .unlike_umoci("Go reads over it; what it belonged to is lost")
        .gives_error("layer 1 of 1 (`A`): an extension header is followed by no member, at byte 1536");
    case("one behind the other")
        .layer(&[pax(&[("mtime", b"1")]), pax(&[("path", b"x")]), file("a", "")])
        .unlike_umoci("Go takes the last; readers disagree, and no writer makes it")
        .gives_error(
            "layer 1 of 1 (`A`): two extension headers of type `x` describe one member, at byte 1024",
        );
}

#[test]
fn group_10_sparse_files() {
    let entry = |offset: u64, length: u64| format!("{offset:011o}\0{length:011o}\0");
    let expanded = "`\\x00\\x00\\x00\\x00\\x00abc\\x00\\x00de\\x00\\x00\\x00`";
    let old_gnu = Member { magic: GNU_MAGIC, data: b"abcde".to_vec(), ..member(b'S', "s") }
        .mode(0o644)
        .patch(386, entry(5, 3))
        .patch(410, entry(10, 2))
        .patch(483, format!("{:011o}\0", 15));
    case("old GNU")
        .layer(&[old_gnu, file("z", "")])
        .unlike_umoci("umoci refuses type S, which GNU tar writes where asked for sparse files")
        .gives(&format!("f644 s {expanded}\n f644 z ``"));
    let v0_0: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"15"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"5"),
        ("GNU.sparse.numbytes", b"3"),
        ("GNU.sparse.offset", b"10"),
        ("GNU.sparse.numbytes", b"2"),
    ];
    let v0_1: &[(&str, &[u8])] = &[
        ("GNU.sparse.size", b"15"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.map", b"5,3,10,2"),
    ];
    let v1: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"15"),
    ];
    let mut with_map = b"2\n5\n3\n10\n2\n".to_vec();
    with_map.resize(512, 0);
    with_map.extend(b"abcde");
    case("PAX 0.0")
        .layer(&[pax(v0_0), file("s", "abcde"), file("z", "")])
        .gives(&format!("f644 s {expanded}\n f644 z ``"));
    case("PAX 0.1")
        .layer(&[pax(v0_1), file("GNUSparseFile.1/s", "abcde"), file("z", "")])
        .gives(&format!("f644 s {expanded}\n f644 z ``"));
    case("PAX 1.0")
        .layer(&[pax(v1), file("GNUSparseFile.1/s", &with_map), file("z", "")])
        .gives(&format!("f644 s {expanded}\n f644 z ``"));
    let huge: &[(&str, &[u8])] =
        &[("GNU.sparse.size", b"1152921504606846976"), ("GNU.sparse.name", b"s"), ("GNU.sparse.map", b"5,3")];
    case("a hole of an exabyte").layer(&[pax(huge), file("s", "abc")]).without_umoci().gives_error(
        "the files of the image have more than 1099511627776 bytes (holes and hidden files count too)",
    );
    let long_map = format!("9999999\n{}", "0\n0\n".repeat(200));
    case("a map of ten million segments").layer(&[pax(v1), file("s", long_map)]).gives_error(
        "layer 1 of 1 (`A`): the sparse map of `s` (before byte 2048) is wrong: the sparse map is too long",
    );
}

/// What each writer makes of one directory.
fn written_by(program: &str, arguments: &[&str], directory: &Path) -> Vec<u8> {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn group_08_real_writers() {
    need!(tool "tar", tool "python3");
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    let deep = format!("{}/{}", "d".repeat(90), "e".repeat(90));
    std::fs::create_dir_all(root.join(&deep)).unwrap();
    std::fs::write(root.join("f"), "1").unwrap();
    std::fs::hard_link(root.join("f"), root.join("g")).unwrap();
    std::os::unix::fs::symlink("f", root.join("l")).unwrap();
    for path in [".", "f", &deep[..90], deep.as_str()] {
        let mode = if path == "f" { 0o640 } else { 0o750 };
        std::fs::set_permissions(root.join(path), std::os::unix::fs::PermissionsExt::from_mode(mode))
            .unwrap();
    }
    let plain = "f640 f `1`\n f640 g = f\n l l -> f";
    let all = format!("d750 {}\n d750 {deep}\n {plain}", &deep[..90]);
    for format in ["oldgnu", "gnu", "ustar", "pax"] {
        let words = ["--mtime=@0", "-c", ".", "--format", format];
        case("by GNU tar").raw(&written_by("tar", &words, &root)).gives(&all);
    }
    let words = ["--mtime=@0", "-c", "f", "g", "l", "--format", "v7"];
    case("by GNU tar, as in 1979").raw(&written_by("tar", &words, &root)).gives(plain);
    for format in ["USTAR", "GNU", "PAX"] {
        let script = format!(
            "import sys, tarfile\n\
             def at_zero(member): member.mtime = 0; return member\n\
             with tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.{format}_FORMAT) as tar:\n \
             tar.add('.', filter=at_zero)\n"
        );
        case("by Python").raw(&written_by("python3", &["-c", &script], &root)).gives(&all);
    }
}
