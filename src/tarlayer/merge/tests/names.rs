//! Names, parents, symbolic links, and what replaces what.

use super::*;

#[test]
fn nothing_and_empty_layers() {
    check(&[], &[]);
    check(&[&[], &[], &[]], &[]);
    check(&[&[], &[file("only", "x")], &[]], &["only: file 644 x"]);
    let many: Vec<Vec<Member>> = (0..300).map(|number| vec![file("f", number.to_string())]).collect();
    let many: Vec<&[Member]> = many.iter().map(Vec::as_slice).collect();
    check(&many, &["f: file 644 299"]);
}

#[test]
fn parents_that_no_layer_lists() {
    check(
        &[&[file("a/b/c", "1"), hard_link("x/y", "a/b/c"), whiteout("gone/z")]],
        &["a: dir 755", "a/b: dir 755", "a/b/c: file 644 1", "x: dir 755", "x/y: file 644 1 = a/b/c"],
    );
    // What lies below keeps its metadata.
    check(&[&[dir("a").mode(0o700)], &[file("a/b", "1")]], &["a: dir 700", "a/b: file 644 1"]);
}

#[test]
fn order_and_duplicates_in_one_layer() {
    check(&[&[file("d/f", "1"), dir("d").mode(0o700)]], &["d: dir 700", "d/f: file 644 1"]);
    check(
        &[&[dir("d").mode(0o700), file("d/f", "1"), dir("d").mode(0o711)]],
        &["d: dir 711", "d/f: file 644 1"],
    );
    check(&[&[file("f", "1"), file("f", "2").mode(0o600)]], &["f: file 600 2"]);
    check(&[&[file("f", "1"), dir("f"), file("f/g", "2")]], &["f: dir 755", "f/g: file 644 2"]);
    check(&[&[dir("f"), file("f/g", "2"), file("f", "1")]], &["f: file 644 1"]);
}

#[test]
fn names_are_cleaned() {
    check(
        &[&[
            dir("./"),
            file("./a", "1"),
            file("/b", "2"),
            dir("c//"),
            file("c/.//d", "3"),
            file("x/../e", "4"),
        ]],
        &["a: file 644 1", "b: file 644 2", "c: dir 755", "c/d: file 644 3", "e: file 644 4"],
    );
    let name_255 = "n".repeat(255);
    check(
        &[&[file(b"\xff\n\\:", "1"), file(&name_255, "2"), file("a.wh.b", "3")]],
        &["a.wh.b: file 644 3", &format!("{name_255}: file 644 2"), "\\xff\\n\\\\:: file 644 1"],
    );
    check_error(
        &[&[file("n".repeat(256), "")]],
        &format!("layer 0 from the top: path `{}` is longer than Linux allows (255 bytes)", "n".repeat(120)),
    );
    check_error(
        &[&[file("n/".repeat(2100) + "f", "")]],
        &format!("layer 0 from the top: path `{}` is longer than Linux allows (4095 bytes)", "n/".repeat(60)),
    );
}

#[test]
fn the_root_is_a_directory() {
    let tree = |layers: &[&[Member]]| {
        let mut merger = Merger::new(LIMITS);
        for members in layers.iter().rev() {
            let bytes = archive(members);
            merger.add_layer(&mut TarReader::new(bytes.as_slice()), &mut Contents::default()).unwrap();
        }
        merger.finish().unwrap()
    };
    let mode = |layers: &[&[Member]]| {
        let tree = tree(layers);
        tree.nodes[tree.root as usize].mode
    };
    assert_eq!(mode(&[]), 0o755);
    for name in ["/", "./", ".", ""] {
        assert_eq!(mode(&[&[dir(name).mode(0o700)], &[file("a", "")]]), 0o700, "{name}");
    }
    assert_eq!(mode(&[&[dir("./").mode(0o700)], &[dir("./").mode(0o1777)]]), 0o1777);
    for name in ["/", "", "a/.."] {
        check_error(
            &[&[file(name, "")]],
            "layer 0 from the top lists the root as something that is no directory",
        );
    }
}

#[test]
fn nothing_leaves_the_root() {
    check_error(&[&[file("../x", "")]], "layer 0 from the top: path `../x` leaves the image");
    check_error(&[&[file("a/../../x", "")]], "layer 0 from the top: path `a/../../x` leaves the image");
    check_error(
        &[&[file("../root-evil/x", "")]],
        "layer 0 from the top: path `../root-evil/x` leaves the image",
    );
    check_error(
        &[&[hard_link("x", "../etc/shadow")]],
        "target of hard link `x` in layer 0 from the top: path `../etc/shadow` leaves the image",
    );
    // Links are root-relative, and the root is its own parent.
    let expected = ["etc: dir 755", "etc/x: file 644 1"];
    for target in ["/etc", "etc", "./etc/", "../../../etc", "/../etc", "/etc/../etc/."] {
        let link = format!("l: link {target}");
        let expected = [expected[0], expected[1], &link];
        check(&[&[symlink("l", target), file("l/x", "1")]], &expected);
        check(&[&[symlink("l", target)], &[file("l/x", "1")]], &expected);
        check(
            &[
                &[symlink("l", target)],
                &[file("etc/y", "0"), whiteout("etc/y")],
                &[file("l/x", "1"), whiteout("etc/y")],
            ],
            &expected,
        );
    }
    check(
        &[&[symlink("l", "/"), symlink("m", "l/l")], &[file("m/x", "1")]],
        &["l: link /", "m: link l/l", "x: file 644 1"],
    );
}

#[test]
fn symlink_loops() {
    for members in [[symlink("a", "b"), symlink("b", "a")], [symlink("a", "a/a"), symlink("b", "b")]] {
        check_error(
            &[&members, &[file("a/x", "")]],
            "the way to `a` of layer 0 from the top leads through too many symbolic links",
        );
    }
    let chain: Vec<_> =
        (0..40).map(|number| symlink(format!("l{number}"), format!("l{}", number + 1))).collect();
    let archives = [archive(&chain), archive(&[file("l0/x", "1")])];
    let (lines, _) = merge_archives(&archives, false).unwrap();
    assert_eq!(lines.last().unwrap(), "l9: link l10");
    assert!(lines.contains(&"l40/x: file 644 1".to_owned()));
    // A link nobody goes through may be anything.
    check(&[&[symlink("a", "a")]], &["a: link a"]);
    check_error(
        &[&[symlink("a", "")]],
        "symbolic link `a` of layer 0 from the top has an empty or too long target",
    );
}

#[test]
fn parents_through_lower_symlinks() {
    let base: &[Member] = &[dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib"), file("usr/lib/a", "a")];
    check(
        &[base, &[file("lib/z", "z")]],
        &[
            "lib: link usr/lib",
            "usr: dir 755",
            "usr/lib: dir 755",
            "usr/lib/a: file 644 a",
            "usr/lib/z: file 644 z",
        ],
    );
    // A layer that lists the directory replaces the link, also where it lists it after its children.
    let replaced =
        ["lib: dir 755", "lib/z: file 644 z", "usr: dir 755", "usr/lib: dir 755", "usr/lib/a: file 644 a"];
    check(&[base, &[dir("lib"), file("lib/z", "z")]], &replaced);
    check(&[base, &[file("lib/z", "z"), dir("lib")]], &replaced);
    // Newer layers win over older ones whichever name they use.
    let last = |content: &str| {
        [
            "lib: link usr/lib".to_owned(),
            "usr: dir 755".to_owned(),
            "usr/lib: dir 755".to_owned(),
            format!("usr/lib/a: file 644 {content}"),
        ]
    };
    for (older, newer) in [("lib/a", "usr/lib/a"), ("usr/lib/a", "lib/a")] {
        let expected = last("2");
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        check(&[base, &[file(older, "1")], &[file(newer, "2")]], &expected);
    }
    // The entry of the middle layer lies behind the link, though a newer layer has a directory there.
    check(
        &[base, &[file("lib/y", "y")], &[dir("lib")]],
        &[
            "lib: dir 755",
            "usr: dir 755",
            "usr/lib: dir 755",
            "usr/lib/a: file 644 a",
            "usr/lib/y: file 644 y",
        ],
    );
    // A link into nowhere makes its directory.
    check(
        &[&[symlink("run", "/var/run")], &[file("run/x", "1")]],
        &["run: link /var/run", "var: dir 755", "var/run: dir 755", "var/run/x: file 644 1"],
    );
}

#[test]
fn flips() {
    let with_child: &[Member] = &[dir("x"), file("x/old", "0")];
    let as_file: &[Member] = &[file("x", "1")];
    let as_link: &[Member] = &[symlink("x", "y")];
    let as_dir: &[Member] = &[dir("x").mode(0o700), file("x/new", "2")];
    check(&[with_child, as_file], &["x: file 644 1"]);
    check(&[with_child, as_link], &["x: link y"]);
    check(&[with_child, as_dir], &["x: dir 700", "x/new: file 644 2", "x/old: file 644 0"]);
    check(&[with_child, as_file, as_dir], &["x: dir 700", "x/new: file 644 2"]);
    check(&[with_child, as_link, as_dir], &["x: dir 700", "x/new: file 644 2"]);
    check(&[as_file, as_link], &["x: link y"]);
    check(&[as_file, as_dir, as_link, as_file, with_child], &["x: dir 755", "x/old: file 644 0"]);
    // Something that is no directory in the middle of a path: of a lower layer it gives way.
    check(&[as_file, &[file("x/y", "1")]], &["x: dir 755", "x/y: file 644 1"]);
    check_error(
        &[&[file("x", "1"), file("x/y", "1")]],
        "`x` of layer 0 from the top lies below `x`, which is no directory",
    );
    check_error(
        &[&[file("f", ""), symlink("x", "f")], &[file("x/y/z", "1")]],
        "`x/y` of layer 0 from the top lies below `x/y`, which is no directory",
    );
}

#[test]
fn special_files_and_metadata() {
    let device = Member { device: (1, 3), ..member(b'3', "dev/null") };
    let disk = Member { device: (8, 300), ..member(b'4', "dev/disk") };
    let suid = file("bin/su", "s").mode(0o4755);
    check(
        &[&[
            device,
            disk,
            member(b'6', "pipe"),
            suid,
            dir("tmp").mode(0o1777),
            symlink("etc/mtab", "/proc/mounts"),
        ]],
        &[
            "bin: dir 755",
            "bin/su: file 4755 s",
            "dev: dir 755",
            "dev/disk: BlockDevice { major: 8, minor: 300 } 755",
            "dev/null: CharDevice { major: 1, minor: 3 } 755",
            "etc: dir 755",
            "etc/mtab: link /proc/mounts",
            "pipe: Fifo 755",
            "tmp: dir 1777",
        ],
    );
    let members = [
        pax(&[
            ("SCHILY.xattr.user.b", b"2\n\0"),
            ("SCHILY.xattr.user.a", b"1"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.capability", b"c"),
            ("SCHILY.xattr.system.posix_acl_access", b"c"),
            ("uid", b"99999999999"),
            ("gid", b"4294967295"),
            ("mtime", b"-5"),
        ]),
        file("f", ""),
        pax(&[("mtime", b"9999999999.5")]),
        file("g", ""),
    ];
    let bytes = archive(&members);
    let mut merger = Merger::new(LIMITS);
    merger.add_layer(&mut TarReader::new(bytes.as_slice()), &mut Contents::default()).unwrap();
    assert_eq!(merger.entries(), 2);
    let tree = merger.finish().unwrap();
    let NodeKind::Directory(children) = &tree.nodes[tree.root as usize].kind else { panic!("no directory") };
    let [f, g] = [0, 1].map(|index: usize| &tree.nodes[children[index].1 as usize]);
    let expected = vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), b"2\n\0".to_vec())];
    assert_eq!(f.xattrs.as_deref(), Some(&expected));
    assert_eq!((f.uid, f.gid, f.mtime), (u32::MAX, u32::MAX, 0));
    assert_eq!((g.mtime, g.xattrs.is_none()), (u32::MAX, true));
    check_error(
        &[&[pax(&[("SCHILY.xattr.user.big", &[b'x'; 65537])]), file("f", "")]],
        "attribute `user.big` of `f` in layer 0 from the top is larger than Linux allows",
    );
}
