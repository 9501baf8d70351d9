//! Group 16: whiteouts and opaque directories.

use super::*;

fn base() -> Vec<Member> {
    vec![dir("d"), file("d/a", "a"), file("d/b", "b"), dir("d/e"), file("d/e/f", "f"), file("z", "z")]
}

#[test]
fn group_16_whiteouts() {
    case("of a file").layer(&base()).layer(&[whiteout("d/a")]).gives(
        "d755 d
         f644 d/b `b`
         d755 d/e
         f644 d/e/f `f`
         f644 z `z`",
    );
    case("of a directory").layer(&base()).layer(&[whiteout("d")]).gives("f644 z `z`");
    case("of a directory, and a child added again")
        .layer(&base())
        .layer(&[whiteout("d"), file("d/new", "n")])
        .gives(
            "d755 d
         f644 d/new `n`
         f644 z `z`",
        );
    let replaced = "d755 d\n f644 d/a `2`\n f644 d/b `b`\n d755 d/e\n f644 d/e/f `f`\n f644 z `z`";
    case("and a new file of that name")
        .layer(&base())
        .layer(&[whiteout("d/a"), file("d/a", "2")])
        .gives(replaced);
    case("behind the new file of that name")
        .layer(&base())
        .layer(&[file("d/a", "2"), whiteout("d/a")])
        .gives(replaced);
    case("of what is not there")
        .layer(&base())
        .layer(&[whiteout("gone"), whiteout("d/gone"), whiteout("d")])
        .gives("f644 z `z`");
    case("of any file type")
        .layer(&base())
        .layer(&[member(b'5', "d/.wh.e"), hard_link("d/.wh.a", "z")])
        .gives("d755 d\n f644 d/b `b`\n f644 z `z`");
    case("in the base layer").layer(&[file("x", "1"), whiteout("y"), whiteout("x")]).gives("f644 x `1`");
    let linked = [dir("r"), file("r/a", "1"), file("r/b", "2"), symlink("l", "/r")];
    case("under a linked parent")
        .layer(&linked)
        .layer(&[whiteout("l/a")])
        .gives("l l -> /r\n d755 r\n f644 r/b `2`");
    case("of a link").layer(&linked).layer(&[whiteout("l")]).gives("d755 r\n f644 r/a `1`\n f644 r/b `2`");
    case("of what is put back in a further layer")
        .layer(&base())
        .layer(&[whiteout("d")])
        .layer(&[dir("d").mode(0o700), file("d/a", "again")])
        .gives("d700 d\n f644 d/a `again`\n f644 z `z`");
    let nothing = |name| format!("layer 0 from the top: whiteout `{name}` names nothing");
    for name in [".wh.", "d/.wh..."] {
        case("of what is no name: umoci removes the root, or the directory above, and then fails")
            .layer(&[dir("d"), file(name, "")])
            .gives_error(&nothing(name));
    }
    case("of the directory itself")
        .layer(&[dir("d"), file("d/.wh..", "")])
        .unlike_umoci("umoci reads over it; a mark that hides nothing is a mistake of whoever wrote it")
        .gives_error(&nothing("d/.wh.."));
}

#[test]
fn group_16_opaque_directories() {
    let expected = "d755 d\n f644 d/new `n`\n f644 z `z`";
    case("before its siblings")
        .layer(&base())
        .layer(&[dir("d"), opaque("d"), file("d/new", "n")])
        .gives(expected);
    case("behind its siblings")
        .layer(&base())
        .layer(&[dir("d"), file("d/new", "n"), opaque("d")])
        .gives(expected);
    case("without an entry of the directory")
        .layer(&base())
        .layer(&[opaque("d"), file("d/new", "n")])
        .gives(expected);
    case("nested").layer(&base()).layer(&[opaque("d"), dir("d/e"), opaque("d/e"), file("d/e/g", "g")]).gives(
        "d755 d
         d755 d/e
         f644 d/e/g `g`
         f644 z `z`",
    );
    case("of an inner directory").layer(&base()).layer(&[opaque("d/e"), file("d/e/g", "g")]).gives(
        "d755 d
         f644 d/a `a`
         f644 d/b `b`
         d755 d/e
         f644 d/e/g `g`
         f644 z `z`",
    );
    case("in a directory that is nowhere below")
        .layer(&[file("z", "z")])
        .layer(&[dir("new"), opaque("new"), file("new/x", "x")])
        .gives(
            "d755 new
         f644 new/x `x`
         f644 z `z`",
        );
    case("in the root").layer(&base()).layer(&[opaque(""), file("n", "n")]).gives("f644 n `n`");
    case("as a hard link")
        .layer(&base())
        .layer(&[hard_link("d/.wh..wh..opq", "z"), file("d/new", "n")])
        .gives(expected);
    case("keeps the directory's mode")
        .layer(&[dir("d").mode(0o700), file("d/a", "1")])
        .layer(&[opaque("d"), file("d/b", "2")])
        .gives("d700 d\n f644 d/b `2`");
    case("what aufs left behind")
        .layer(&[
            dir(".wh..wh.aufs"),
            dir(".wh..wh.orph"),
            dir(".wh..wh.plnk"),
            file(".wh..wh.plnk/7.8", "linked"),
            hard_link("a", ".wh..wh.plnk/7.8"),
            hard_link("b", ".wh..wh.plnk/7.8"),
        ])
        .unlike_umoci("umoci keeps the directory of links as one of the image")
        .gives("f644 a `linked`\n f644 b = a");
}
