//! Groups 1 to 7: names, parents, links, and what replaces what.

use super::*;

#[test]
fn group_01_no_parent_entries() {
    case("a file").layer(&[file("a/b/c", "1")]).gives("d755 a\n d755 a/b\n f644 a/b/c `1`");
    case("a hard link").layer(&[file("f", "1"), hard_link("a/b/l", "f")]).gives(
        "d755 a
         d755 a/b
         f644 a/b/l `1`
         f644 f = a/b/l",
    );
    case("a whiteout")
        .layer(&[dir("a"), dir("a/b"), file("a/b/c", "1"), file("a/b/d", "2")])
        .layer(&[whiteout("a/b/c")])
        .gives("d755 a\n d755 a/b\n f644 a/b/d `2`");
    case("a whiteout where nothing is").layer(&[whiteout("x/y/z"), file("f", "")]).gives("f644 f ``");
    case("a parent keeps the mode of a lower layer")
        .layer(&[dir("a").mode(0o700)])
        .layer(&[file("a/f", "1")])
        .gives("d700 a\n f644 a/f `1`");
}

#[test]
fn group_02_order_and_duplicates() {
    case("a child before its parent")
        .layer(&[file("d/f", "1"), dir("d").mode(0o700)])
        .gives("d700 d\n f644 d/f `1`");
    case("a parent repeated with another mode")
        .layer(&[dir("d").mode(0o700), file("d/f", "1"), dir("d").mode(0o711)])
        .gives("d711 d\n f644 d/f `1`");
    case("a file twice").layer(&[file("f", "1"), file("f", "2").mode(0o600)]).gives("f600 f `2`");
    case("a file, then a directory")
        .layer(&[file("x", "1"), dir("x"), file("x/y", "2")])
        .gives("d755 x\n f644 x/y `2`");
    case("a directory, then a file").layer(&[dir("x"), file("x/y", "2"), file("x", "1")]).gives("f644 x `1`");
    case("a file, then a link").layer(&[file("x", "1"), symlink("x", "y")]).gives("l x -> y");
    case("a file that was linked, again")
        .layer(&[file("a", "1"), hard_link("b", "a"), file("a", "2")])
        .gives("f644 a `2`\n f644 b `1`");
}

#[test]
fn group_03_forms_of_a_name() {
    case("slashes and dots")
        .layer(&[
            dir("./"),
            file("./a", "1"),
            file("/b", "2"),
            dir("c//"),
            file("c/.//d", "3"),
            file("x/../e", "4"),
            file("//f", "5"),
        ])
        .gives("f644 a `1`\n f644 b `2`\n d755 c\n f644 c/d `3`\n f644 e `4`\n f644 f `5`");
    for name in ["/", "./", ".", ""] {
        assert_eq!(mode_of_root(&[&[dir(name).mode(0o700)], &[file("a", "")]]), 0o700, "{name}");
    }
    assert_eq!(
        mode_of_root(&[&[dir("/").mode(0o700)], &[dir("/").mode(0o755)], &[dir("./").mode(0o711)]]),
        0o711
    );
    case("a root in every layer")
        .layer(&[dir("/"), file("a", "1")])
        .layer(&[dir("./"), file("b", "2")])
        .gives("f644 a `1`\n f644 b `2`");
    for name in ["/", "", "a/.."] {
        case("a root that is a file")
            .layer(&[file(name, "")])
            .gives_error("layer 0 from the top lists the root as something that is no directory");
    }
}

#[test]
fn group_04_nothing_leaves_the_root() {
    for (name, shown) in [("../x", "../x"), ("a/../../x", "a/../../x"), ("../root-evil/x", "../root-evil/x")]
    {
        case("`..` above the root")
            .layer(&[file(name, "evil")])
            .unlike_umoci("umoci takes the root for its own parent, as a kernel does; no builder writes such a name in good faith")
            .gives_error(&format!("layer 0 from the top: path `{shown}` leaves the image"));
    }
    for target in ["/etc", "etc", "../../../etc", "/../etc", "/etc/../etc/."] {
        let tree = format!("d755 etc\n f644 etc/x `1`\n l l -> {target}");
        case("through a link of a lower layer")
            .layer(&[dir("etc"), symlink("l", target)])
            .layer(&[file("l/x", "1")])
            .gives(&tree);
        case("through a link of its own layer")
            .layer(&[dir("etc"), symlink("l", target), file("l/x", "1")])
            .gives(&tree);
    }
    case("through links to the root")
        .layer(&[symlink("l", "/"), symlink("m", "l/l")])
        .layer(&[file("m/x", "1")])
        .gives("l l -> /\n l m -> l/l\n f644 x `1`");
    case("through a loop")
        .layer(&[symlink("a", "b"), symlink("b", "a")])
        .layer(&[file("a/x", "1")])
        .gives_error("the way to `a` of layer 0 from the top leads through too many symbolic links");
    case("a hard link to a symbolic link is the link")
        .layer(&[symlink("s", "/etc/shadow"), hard_link("h", "s")])
        .gives("l h -> /etc/shadow\n l s = h");
    case("a hard link through an absolute link")
        .layer(&[dir("d"), file("d/f", "1"), symlink("l", "/d")])
        .layer(&[hard_link("h", "l/f")])
        .gives("d755 d\n f644 d/f `1`\n f644 h = d/f\n l l -> /d");
    case("a hard link to a place outside").layer(&[hard_link("h", "../../etc/shadow")]).gives_error(
        "target of hard link `h` in layer 0 from the top: path `../../etc/shadow` leaves the image",
    );
    case("a name that begins as another one")
        .layer(&[dir("root"), file("root/a", "1"), dir("root-evil"), file("root-evil/a", "2")])
        .layer(&[whiteout("root")])
        .gives("d755 root-evil\n f644 root-evil/a `2`");
}

#[test]
fn group_05_hard_links() {
    for target in ["a", "/a", "./a", "x/../a"] {
        case("a target in any form")
            .layer(&[file("a", "1"), hard_link("b", target)])
            .gives("f644 a `1`\n f644 b = a");
    }
    case("a target later in the archive")
        .layer(&[hard_link("b", "a"), file("a", "1")])
        .unlike_umoci(
            "umoci links as it reads, and refuses; Docker's own archives are in order, others' are not",
        )
        .gives("f644 a `1`\n f644 b = a");
    case("a target in a lower layer")
        .layer(&[file("a", "1")])
        .layer(&[hard_link("b", "a")])
        .gives("f644 a `1`\n f644 b = a");
    case("a target that a later layer removes")
        .layer(&[file("a", "1"), hard_link("b", "a")])
        .layer(&[whiteout("a")])
        .gives("f644 b `1`");
    case("a target in a lower layer that a later layer removes")
        .layer(&[dir("d"), file("d/a", "1")])
        .layer(&[hard_link("b", "d/a")])
        .layer(&[whiteout("d")])
        .gives("f644 b `1`");
    case("a target that a later layer replaces")
        .layer(&[file("a", "1"), hard_link("b", "a")])
        .layer(&[file("a", "2")])
        .gives("f644 a `2`\n f644 b `1`");
    case("a target that is missing")
        .layer(&[hard_link("b", "a")])
        .gives_error("hard link `b` of layer 0 from the top: neither it nor a layer below has `a`");
    case("a link to itself")
        .layer(&[hard_link("a", "a")])
        .gives_error("hard link `a` of layer 0 from the top: neither it nor a layer below has `a`");
    case("a link to itself over a file")
        .layer(&[file("a", "1"), hard_link("a", "a")])
        .unlike_umoci("umoci removes the file first and finds no target; GNU tar leaves the file")
        .gives("f644 a `1`");
    case("a link to a directory")
        .layer(&[dir("d"), hard_link("b", "d")])
        .gives_error("hard link `b` of layer 0 from the top: `d` is a directory");
    case("across a link to a directory")
        .layer(&[dir("usr"), dir("usr/lib"), file("usr/lib/a", "1"), symlink("lib", "usr/lib")])
        .layer(&[hard_link("lib/b", "lib/a")])
        .gives(
            "l lib -> usr/lib\n d755 usr\n d755 usr/lib\n f644 usr/lib/a `1`\n f644 usr/lib/b = usr/lib/a",
        );
    case("an entry with a size and no data")
        .layer(&[file("a", "1234"), hard_link("b", "a").size_field(4), file("c", "3")])
        .gives("f644 a `1234`\n f644 b = a\n f644 c `3`");
    case("an entry that carries the data again")
        .layer(&[file("a", "1234"), Member { data: b"1234".to_vec(), ..hard_link("b", "a") }, file("c", "3")])
        .unlike_umoci("Go knows no data of a link and takes it for a header; `pax -o linkdata` writes it")
        .gives("f644 a `1234`\n f644 b = a\n f644 c `3`");
}

#[test]
fn group_06_flips() {
    let merged: &[Member] = &[dir("usr"), dir("usr/lib"), file("usr/lib/a", "a"), symlink("lib", "usr/lib")];
    let split: &[Member] = &[dir("lib"), file("lib/b", "b")];
    case("a directory becomes a link").layer(split).layer(merged).gives(
        "l lib -> usr/lib
         d755 usr
         d755 usr/lib
         f644 usr/lib/a `a`",
    );
    case("a link becomes a directory").layer(merged).layer(split).gives(
        "d755 lib
         f644 lib/b `b`
         d755 usr
         d755 usr/lib
         f644 usr/lib/a `a`",
    );
    case("a file below a link that its layer does not list")
        .layer(merged)
        .layer(&[file("lib/b", "b")])
        .gives(
            "l lib -> usr/lib
         d755 usr
         d755 usr/lib
         f644 usr/lib/a `a`
         f644 usr/lib/b `b`",
        );
    case("/var/run")
        .layer(&[dir("var"), dir("var/run"), file("var/run/old", "1")])
        .layer(&[dir("run"), symlink("var/run", "/run")])
        .layer(&[file("var/run/new", "2")])
        .gives("d755 run\n f644 run/new `2`\n d755 var\n l var/run -> /run");
    case("a link into nowhere is followed")
        .layer(&[symlink("run", "/var/run")])
        .layer(&[file("run/x", "1")])
        .gives("l run -> /var/run\n d755 var\n d755 var/run\n f644 var/run/x `1`");
    case("a file becomes a directory")
        .layer(&[file("x", "1")])
        .layer(&[dir("x"), file("x/y", "2")])
        .gives("d755 x\n f644 x/y `2`");
    case("a directory becomes a file")
        .layer(&[dir("x"), file("x/y", "2")])
        .layer(&[file("x", "1")])
        .gives("f644 x `1`");
    case("… and a directory again, without what was in it")
        .layer(&[dir("x"), file("x/old", "0")])
        .layer(&[file("x", "1")])
        .layer(&[dir("x").mode(0o700), file("x/new", "2")])
        .gives("d700 x\n f644 x/new `2`");
    case("a file of a lower layer in the middle of a path")
        .layer(&[file("x", "1")])
        .layer(&[file("x/y", "2")])
        .unlike_umoci("umoci refuses; a layer says what its own view is, in which `x` is a directory")
        .gives("d755 x\n f644 x/y `2`");
    case("a file of the same layer in the middle of a path")
        .layer(&[file("x", "1"), file("x/y", "2")])
        .gives_error("`x` of layer 0 from the top lies below `x`, which is no directory");
}

#[test]
fn group_07_odd_names() {
    let name_255 = "n".repeat(255);
    case("bytes that are no text")
        .layer(&[file(b"\xff\xfe", "1"), file("new\nline", "2"), file("back\\slash", "3"), file("c:d", "4"), file(&name_255, "5")])
        .gives(&format!("f644 back\\\\slash `3`\n f644 c:d `4`\n f644 new\\nline `2`\n f644 {name_255} `5`\n f644 \\xff\\xfe `1`"));
    case("a component of 256 bytes").layer(&[file("n".repeat(256), "")]).gives_error(&format!(
        "layer 0 from the top: path `{}` is longer than Linux allows (255 bytes)",
        "n".repeat(120)
    ));
    case("a path of more than 4095 bytes").layer(&[file("n/".repeat(2100) + "f", "")]).gives_error(&format!(
        "layer 0 from the top: path `{}` is longer than Linux allows (4095 bytes)",
        "n/".repeat(60)
    ));
    let deep = "d".repeat(60);
    case("a name split between prefix and name field")
        .layer(&[file("file", "1").patch(345, format!("{deep}/{deep}"))])
        .gives(&format!("d755 {deep}\n d755 {deep}/{deep}\n f644 {deep}/{deep}/file `1`"));
    let long = format!("{deep}/{deep}/{deep}");
    case("a GNU long name")
        .layer(&[file(format!("{long}/x"), "1")])
        .gives(&format!("d755 {deep}\n d755 {deep}/{deep}\n d755 {long}\n f644 {long}/x `1`"));
    case("a mark inside a name")
        .layer(&[file("a.wh.b", "1"), file(".whx", "2")])
        .gives("f644 .whx `2`\n f644 a.wh.b `1`");
    case("names that differ in case only")
        .layer(&[file("Makefile", "1"), file("makefile", "2")])
        .gives("f644 Makefile `1`\n f644 makefile `2`");
}
