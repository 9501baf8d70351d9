//! Whiteouts and opaque directories.

use super::*;

#[test]
fn whiteouts() {
    let base: &[Member] = &[dir("d"), file("d/a", "a"), file("d/b", "b"), dir("d/e"), file("d/e/f", "f")];
    check(
        &[base, &[whiteout("d/a")]],
        &["d: dir 755", "d/b: file 644 b", "d/e: dir 755", "d/e/f: file 644 f"],
    );
    check(&[base, &[whiteout("d")]], &[]);
    check(
        &[base, &[member(b'5', "d/.wh.e"), hard_link("d/.wh.a", "d/b")]],
        &["d: dir 755", "d/b: file 644 b"],
    );
    check(
        &[
            base,
            &[whiteout("gone"), whiteout("d/gone/x"), whiteout("d/a/x"), whiteout("d/b"), whiteout("d/e")],
        ],
        &["d: dir 755", "d/a: file 644 a"],
    );
    check(&[&[whiteout("x"), opaque("d"), file("x", "1")]], &["x: file 644 1"]);
    // They hide only what is below, wherever they stand.
    let replaced = ["d: dir 755", "d/a: file 644 2", "d/b: file 644 b", "d/e: dir 755", "d/e/f: file 644 f"];
    check(&[base, &[whiteout("d/a"), file("d/a", "2")]], &replaced);
    check(&[base, &[file("d/a", "2"), whiteout("d/a")]], &replaced);
    for layer in [[whiteout("d"), file("d/a", "2")], [file("d/a", "2"), whiteout("d")]] {
        check(&[base, &layer], &["d: dir 755", "d/a: file 644 2"]);
    }
    // A directory that is hidden and made again unlisted has lost its mode.
    check(&[&[dir("d").mode(0o700)], &[whiteout("d"), file("d/x", "1")]], &["d: dir 755", "d/x: file 644 1"]);
    // Through a link of a lower layer; not through one that its own layer replaces by a directory.
    let linked: &[Member] = &[dir("r"), file("r/a", "1"), symlink("l", "/r")];
    check(&[linked, &[whiteout("l/a")]], &["l: link /r", "r: dir 755"]);
    check(&[linked, &[opaque("l")]], &["l: link /r", "r: dir 755"]);
    check(&[linked, &[dir("l"), whiteout("l/a")]], &["l: dir 755", "r: dir 755", "r/a: file 644 1"]);
    check(&[linked, &[opaque("l"), dir("l")]], &["l: dir 755", "r: dir 755", "r/a: file 644 1"]);
    check(&[linked, &[whiteout("l")]], &["r: dir 755", "r/a: file 644 1"]);
    check(
        &[linked, &[whiteout("l"), file("l/x", "2")]],
        &["l: dir 755", "l/x: file 644 2", "r: dir 755", "r/a: file 644 1"],
    );
}

#[test]
fn opaque_directories() {
    let base: &[Member] = &[dir("d"), file("d/a", "a"), dir("d/e"), file("d/e/f", "f"), file("z", "z")];
    for layer in [[opaque("d"), file("d/new", "n")], [file("d/new", "n"), opaque("d")]] {
        check(&[base, &layer], &["d: dir 755", "d/new: file 644 n", "z: file 644 z"]);
    }
    check(&[base, &[opaque("")]], &[]);
    check(&[base, &[file("n", "n"), opaque(".")]], &["n: file 644 n"]);
    check(
        &[base, &[opaque("d/e"), file("d/e/g", "g")]],
        &["d: dir 755", "d/a: file 644 a", "d/e: dir 755", "d/e/g: file 644 g", "z: file 644 z"],
    );
    check(
        &[base, &[opaque("d"), opaque("d/e"), file("d/e/g", "g")]],
        &["d: dir 755", "d/e: dir 755", "d/e/g: file 644 g", "z: file 644 z"],
    );
    check(&[base, &[hard_link("d/.wh..wh..opq", "z")]], &["d: dir 755", "z: file 644 z"]);
    check(&[&[file("z", "")], &[opaque("gone"), opaque("z")]], &["z: file 644 "]);
    // Metadata stays, and so does what comes later.
    check(
        &[&[dir("d").mode(0o700), file("d/a", "1")], &[opaque("d")], &[file("d/b", "2")]],
        &["d: dir 700", "d/b: file 644 2"],
    );
}

#[test]
fn names_of_whiteouts() {
    for name in ["d/.wh.", "d/.wh..", "d/.wh..."] {
        check_error(&[&[file(name, "")]], &format!("layer 0 from the top: whiteout `{name}` names nothing"));
    }
    check_error(&[&[file(".wh.d/f", "")]], "layer 0 from the top: `.wh.d/f` lies below a whiteout");
    // What aufs left behind, except that its files can be linked.
    check(
        &[&[
            dir(".wh..wh.aufs"),
            dir(".wh..wh.orph"),
            file(".wh..wh.orph/1", "1"),
            dir(".wh..wh.plnk"),
            file(".wh..wh.plnk/7.8", "linked"),
            hard_link("a", ".wh..wh.plnk/7.8"),
            hard_link("b", ".wh..wh.plnk/7.8"),
            file("d/.wh..wh.other", ""),
        ]],
        &["a: file 644 linked", "b: file 644 linked = a"],
    );
}
