//! Hard links: a second name is a claim on what its own layer saw.

use super::*;

#[test]
fn hard_links() {
    let one = ["a: file 644 1", "b: file 644 1 = a"];
    for target in ["a", "/a", "./a", "x/../a"] {
        check(&[&[file("a", "1"), hard_link("b", target)]], &one);
        check(&[&[file("a", "1")], &[hard_link("b", target)]], &one);
    }
    check(&[&[hard_link("b", "a"), file("a", "1")]], &one);
    check(&[&[file("a", "1"), hard_link("a", "a"), hard_link("b", "a")]], &one);
    // Chains, in any order.
    let chain = [file("a", "1"), hard_link("b", "a"), hard_link("c", "b")];
    let chained = ["a: file 644 1", "b: file 644 1 = a", "c: file 644 1 = a"];
    check(&[&chain], &chained);
    let [a, b, c] = chain;
    check(&[&[c.clone(), b.clone(), a.clone()]], &chained);
    check(&[&[b.clone(), c.clone(), a.clone()]], &chained);
    check(&[&[a], &[b], &[c]], &chained);
    // To a symbolic link: the link itself.
    check(&[&[symlink("s", "gone"), hard_link("t", "s")]], &["s: link gone", "t: link gone = s"]);
    // Through links to directories.
    check(
        &[&[file("d/a", "1"), symlink("l", "/d")], &[hard_link("l/b", "l/a")]],
        &["d: dir 755", "d/a: file 644 1", "d/b: file 644 1 = d/a", "l: link /d"],
    );
    // Whiteout and link of one layer: whiteouts are about names below.
    check(&[&[file("a", "0")], &[whiteout("a"), file("a", "1"), hard_link("b", "a")]], &one);
    check(&[&[file("a", "1")], &[Member { data: b"1".to_vec(), ..hard_link("b", "a") }]], &one);
}

#[test]
fn hard_links_outlive_their_target() {
    let base: &[Member] = &[file("a", "1"), hard_link("b", "a"), file("z", "z")];
    check(&[base, &[whiteout("a")]], &["b: file 644 1", "z: file 644 z"]);
    check(&[base, &[file("a", "2")]], &["a: file 644 2", "b: file 644 1", "z: file 644 z"]);
    check(&[base, &[dir("a")]], &["a: dir 755", "b: file 644 1", "z: file 644 z"]);
    // A link of a newer layer to an older file that a still newer layer removes.
    check(&[&[dir("d"), file("d/a", "1")], &[hard_link("b", "d/a")], &[whiteout("d")]], &["b: file 644 1"]);
    check(
        &[
            &[dir("d"), file("d/a", "1")],
            &[hard_link("b", "d/a")],
            &[dir("d"), opaque("d"), file("d/a", "2")],
        ],
        &["b: file 644 1", "d: dir 755", "d/a: file 644 2"],
    );
    // Each link means what its own layer saw.
    check(
        &[&[file("a", "1")], &[hard_link("b", "a")], &[file("a", "2")], &[hard_link("c", "a")]],
        &["a: file 644 2", "b: file 644 1", "c: file 644 2 = a"],
    );
}

#[test]
fn hard_links_to_what_their_own_layer_hides() {
    let base: &[Member] = &[dir("d"), file("d/a", "1")];
    let expected = ["b: file 644 1", "c: file 644 1 = b", "d: dir 755"];
    for layer in [
        [hard_link("b", "d/a"), hard_link("c", "b"), whiteout("d/a")],
        [whiteout("d/a"), hard_link("c", "b"), hard_link("b", "d/a")],
        [opaque("d"), hard_link("b", "d/a"), hard_link("c", "b")],
    ] {
        check(&[base, &layer], &expected);
    }
    check(
        &[base, &[whiteout("d"), hard_link("b", "d/a"), file("d/new", "2")]],
        &["b: file 644 1", "d: dir 755", "d/new: file 644 2"],
    );
    // What the layer puts there itself comes first.
    check(
        &[base, &[hard_link("b", "d/a"), whiteout("d/a"), file("d/a", "2")]],
        &["b: file 644 2", "d: dir 755", "d/a: file 644 2 = b"],
    );
}

#[test]
fn hard_links_that_cannot_be() {
    check_error(
        &[&[file("a", "1")], &[file("x", ""), hard_link("b", "no/a")]],
        "hard link `b` of layer 0 from the top: neither it nor a layer below has `no/a`",
    );
    check_error(
        &[&[hard_link("b", "a")], &[file("a", "1")]],
        "hard link `b` of layer 1 from the top: neither it nor a layer below has `a`",
    );
    check_error(
        &[&[hard_link("a", "a")]],
        "hard link `a` of layer 0 from the top: neither it nor a layer below has `a`",
    );
    check_error(
        &[&[dir("d"), hard_link("b", "d")]],
        "hard link `b` of layer 0 from the top: `d` is a directory",
    );
    check_error(&[&[hard_link("b", "/")]], "hard link `b` of layer 0 from the top: `` is a directory");
}
