use super::*;
use crate::sif::{Draft, DraftObject, IMAGE_CONFIG, OCI_CONFIG, ObjectKind};

/// A superblock that says `bytes_used`, in a file of 4096 bytes.
fn squashfs(bytes_used: u64) -> Vec<u8> {
    let mut out = crate::squashfs::format::MAGIC.to_le_bytes().to_vec();
    out.resize(40, 0);
    out.extend_from_slice(&bytes_used.to_le_bytes());
    out.resize(4096, 0);
    out
}

fn sif(objects: &[(&'static str, &str)], partition: &[u8]) -> Vec<u8> {
    let json = |&(name, text): &(&'static str, &str)| DraftObject {
        kind: ObjectKind::GenericJson,
        name,
        data: text.as_bytes().to_vec(),
    };
    let draft = Draft::new(objects.iter().map(json).collect(), "arm64", 0).unwrap();
    let mut file = draft.head(partition.len() as u64).unwrap();
    file.extend_from_slice(partition);
    file
}

fn open(bytes: &[u8]) -> Result<Image, ImageError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    std::fs::write(&path, bytes).unwrap();
    Image::open(&path)
}

#[test]
fn our_config_comes_before_apptainers() {
    let whole = r#"{"architecture":"arm64","config":{"Cmd":["ours"]}}"#;
    let image = open(&sif(&[(OCI_CONFIG, r#"{"Cmd":["theirs"]}"#), (IMAGE_CONFIG, whole)], &squashfs(96)));
    let image = image.unwrap();
    assert_eq!(image.config.config.cmd, ["ours"]);
    assert_eq!(image.raw_config(), Some(whole.as_bytes()));
    assert_eq!(image.architecture.as_deref(), Some("arm64"));
    assert_eq!((image.offset_bytes, image.size_bytes), (32_768, 4096));
    let mut magic = [0; 4];
    image.partition().read_exact_at(&mut magic, 0).unwrap();
    assert_eq!(&magic, b"hsqs");
}

#[test]
fn a_config_may_be_apptainers_or_absent() {
    let image = open(&sif(&[(OCI_CONFIG, r#"{"Cmd":["theirs"],"Env":["A=b"]}"#)], &squashfs(96))).unwrap();
    assert_eq!(image.config.config.cmd, ["theirs"]);
    assert_eq!(image.config.config.env, ["A=b"]);
    assert!(image.raw_config().is_none());
    assert!(open(&sif(&[], &squashfs(96))).unwrap().config.config.cmd.is_empty());
    assert!(open(&sif(&[(OCI_CONFIG, "null")], &squashfs(96))).unwrap().config.config.cmd.is_empty());
    let bare = open(&squashfs(4096)).unwrap();
    assert_eq!((bare.offset_bytes, bare.size_bytes, bare.architecture), (0, 4096, None));
}

#[test]
fn what_is_no_image_is_named() {
    let check = |bytes: &[u8], expected: &str| {
        let text = open(bytes).unwrap_err().to_string();
        let (_, what) = text.split_once("/x` ").or_else(|| text.split_once("/x`: ")).unwrap();
        assert_eq!(what, expected);
    };
    let at = |offset: usize, magic: &[u8]| [vec![0; offset].as_slice(), magic, &[0; 100]].concat();
    check(b"", "is not an image: it is an empty file");
    check(b"hello", "is not an image: it is neither a SIF nor a squashfs");
    check(&at(257, b"ustar"), "is not an image: it is a tar archive");
    check(&at(0, b"\x1f\x8b"), "is not an image: it is a gzip file");
    check(&at(1080, b"\x53\xef"), "is not an image: it is an ext file system");
    check(&squashfs(96)[..60], "file is cut short: have 60 bytes of the squashfs, needs 96");
    check(&squashfs(4097), "file is cut short: have 4096 bytes of the squashfs, needs 4097");
    check(&sif(&[], &squashfs(9000)), "file is cut short: have 4096 bytes of the squashfs, needs 9000");
    check(&sif(&[], &squashfs(96))[..36_000], "file is cut short: have 36000 bytes, needs 36864");
    check(&sif(&[], &[1; 4096]), "there is no squashfs at byte 32768");
    check(
        &sif(&[(IMAGE_CONFIG, "{")], &squashfs(96)),
        "object `slipway-image-config.json` is not a valid image config: EOF while parsing an object at line 1 column 1",
    );
}

#[test]
fn a_directory_and_a_missing_file_have_hints() {
    let directory = tempfile::tempdir().unwrap();
    let error = Image::open(directory.path()).unwrap_err();
    assert!(error.to_string().ends_with("is not an image: it is a directory"));
    assert!(error.hint().unwrap().contains(&format!("slipway load -i {}", directory.path().display())));
    let error = Image::open(&directory.path().join("none.sif")).unwrap_err();
    assert!(error.to_string().starts_with("cannot open image"));
    assert!(error.hint().is_some());
}
