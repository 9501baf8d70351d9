//! What is stored, what is refused.

use super::*;

#[test]
fn hidden_content_is_passed_by() {
    let base: &[Member] =
        &[dir("d"), file("d/a", "old a"), dir("d/e"), file("d/e/f", "f"), file("z", "old z")];
    check_stored(&[base, &[file("z", "new z")]], &["new z", "old a", "f"]);
    check_stored(&[base, &[dir("d"), file("d/a", "new a")]], &["new a", "f", "old z"]);
    check_stored(&[base, &[whiteout("d")]], &["old z"]);
    check_stored(&[base, &[whiteout("d/e"), symlink("z", "x")]], &["old a"]);
    check_stored(&[base, &[opaque("d")]], &["old z"]);
    check_stored(&[base, &[opaque("")]], &[]);
    check_stored(&[base, &[dir("z")]], &["old a", "f"]);
    check_stored(&[base, &[dir("d"), dir("d/e")]], &["old a", "f", "old z"]);
    check_stored(&[base, &[file("x", "x")], &[whiteout("d")]], &["x", "old z"]);
    // Not certain: without its directory listed, the path may lead through a link.
    check_stored(&[&[file("d/a", "old")], &[file("d/a", "new")]], &["new", "old"]);
    // Claimed by a newer layer.
    check_stored(&[base, &[hard_link("b", "z")], &[whiteout("z")]], &["old a", "f", "old z"]);
    check_stored(&[base, &[symlink("l", "d"), hard_link("b", "l/a")], &[opaque("d")]], &["old a", "old z"]);
    // Claimed later in the same layer, which is read once more.
    check_stored(
        &[
            &[file("a", "1"), file("b", "2"), hard_link("c", "b"), file("e", "3")],
            &[opaque("")],
            &[file("x", "x")],
        ],
        &["x", "2"],
    );
    check(&[&[file("a", "1"), hard_link("b", "a")], &[whiteout("a")]], &["b: file 644 1"]);
}

#[test]
fn paths_that_only_seem_certain_are_stored() {
    // `b/a` puts a link where the layer lists `a` as a directory, and in the end `a` is a link indeed.
    check(
        &[
            &[dir("a"), symlink("b", "."), symlink("b/a", "c"), file("a/x", "old"), symlink("a", "c")],
            &[dir("a"), opaque("a")],
        ],
        &["a: dir 755", "b: link .", "c: dir 755", "c/x: file 644 old"],
    );
    // The target of `l` is there only when `a` has become a link.
    check(
        &[
            &[dir("c"), file("c/x", "old")],
            &[dir("a"), hard_link("l", "a/x"), symlink("a", "c")],
            &[dir("c"), whiteout("c/x")],
        ],
        &["a: link c", "c: dir 755", "l: file 644 old"],
    );
}

#[test]
fn a_second_reading_is_demanded() {
    let base = archive(&[file("a", "1"), hard_link("b", "a")]);
    let top = archive(&[whiteout("a")]);
    let merger = || {
        let mut merger = Merger::new(LIMITS);
        let rest = merger.add_layer_lean(&mut TarReader::new(top.as_slice()), &mut Contents::default());
        assert_eq!(rest.unwrap(), LayerRest::Nothing);
        let rest = merger.add_layer_lean(&mut TarReader::new(base.as_slice()), &mut Contents::default());
        assert_eq!(rest.unwrap(), LayerRest::ReadAgain);
        merger
    };
    assert_eq!(
        merger().finish().unwrap_err().to_string(),
        "the content of `b` was passed by, but a hard link needs it: read its layer once more"
    );
    for other in [archive(&[]), archive(&[dir("a")]), archive(&[file("a", "11")])] {
        let error = merger().add_layer_again(&mut TarReader::new(other.as_slice()), &mut Contents::default());
        assert_eq!(
            error.unwrap_err().to_string(),
            "layer 1 from the top was not the same when it was read once more"
        );
    }
}

#[test]
fn limits() {
    let merge = |max_entries, members: &[Member]| {
        let bytes = archive(members);
        let mut merger = Merger::new(Limits { max_entries, ..LIMITS });
        merger.add_layer(&mut TarReader::new(bytes.as_slice()), &mut Contents::default())?;
        merger.finish()
    };
    let too_many = "the image has more than 2 entries (large attributes and unlisted directories count too)";
    assert!(merge(2, &[file("a", ""), file("b", "")]).is_ok());
    assert!(merge(0, &[]).is_ok());
    let refused = |members: &[Member]| {
        let error = merge(2, members).unwrap_err();
        assert_eq!(error.to_string(), too_many);
        let hint = crate::base::Hint::hint(&error).unwrap();
        assert_eq!(hint, "set `convert.max_entries` above 2 if you trust this image");
    };
    refused(&[file("a", ""), file("b", ""), file("b", "")]);
    refused(&[file("a", ""), whiteout("b"), file("c", "")]);
    refused(&[symlink("a", "x".repeat(600)), file("b", "")]);
    // Directories that nobody lists are free only up to a number.
    let deep = ["1/", "2/", "3/"].map(|name| file(name.repeat(2000) + "f", ""));
    assert!(merge(3, &deep[..2]).is_ok());
    assert!(merge(3, &deep).unwrap_err().to_string().contains("more than 3 entries"));
    assert!(merge(2, &[file("1/".repeat(2000) + "f", "")]).is_ok());
    // Directories behind links are counted too, though no entry names them.
    let mut members = Vec::new();
    for number in 0..5 {
        members.push(symlink(format!("l{number}"), format!("{number}/").repeat(2000)));
        members.push(file(format!("l{number}/f"), ""));
    }
    assert!(merge(100, &members).unwrap_err().to_string().contains("more than 100 entries"));
}

#[test]
fn errors_below_are_passed_on() {
    struct Full;
    impl FileSink for Full {
        fn add_file(&mut self, _: &[u8], _: u64, _: &mut dyn Read) -> std::io::Result<FileId> {
            Err(std::io::Error::other("no space"))
        }
    }
    let bytes = archive(&[file("d/f", "content")]);
    let mut merger = Merger::new(LIMITS);
    let error = merger.add_layer(&mut TarReader::new(bytes.as_slice()), &mut Full).unwrap_err();
    assert_eq!(error.to_string(), "storing `d/f` of layer 0 from the top: no space");
    let error = merger.add_layer(&mut TarReader::new(&bytes[..515]), &mut Contents::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer 0 from the top: the archive is truncated: it ends inside the data of `d/f`, at byte 515"
    );
    assert!(crate::base::Hint::hint(&error).is_some());
}

#[test]
fn content_has_a_limit() {
    let merge = |layers: &[&[Member]]| {
        let mut merger = Merger::new(Limits { max_bytes: 1000, ..LIMITS });
        layers.iter().try_for_each(|members| {
            merger.add_layer(&mut TarReader::new(archive(members).as_slice()), &mut Contents::default())
        })
    };
    merge(&[&[file("a", [1; 500])], &[file("a", [2; 500])]]).unwrap();
    let error = merge(&[&[file("a", [1; 500])], &[file("a", [2; 501])]]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the files of the image have more than 1000 bytes (holes and hidden files count too)"
    );
    let hint = crate::base::Hint::hint(&error).unwrap();
    assert_eq!(hint, "set `convert.max_bytes` above 1000 if you trust this image");
    let records =
        [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1001")];
    let hole = Member { data: [&b"0\n"[..], &[0; 510]].concat(), ..member(b'0', "hole") };
    assert!(matches!(merge(&[&[pax(&records), hole]]), Err(MergeError::TooManyBytes { limit_bytes: 1000 })));
}
