//! The store on a directory of the test.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::base::{Hint as _, ReadAt as _};

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("a/store")).unwrap();
    (root, store)
}

fn tmp_files(store: &Store) -> usize {
    fs::read_dir(store.tmp_directory()).unwrap().count()
}

#[test]
fn makes_private_directories() {
    let (_root, store) = store();
    for name in ["", "blobs", "blobs/sha256", "refs", "images", "tmp"] {
        let mode = fs::metadata(store.root().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{name}");
    }
    for (name, mode) in
        [("", 0o777), ("", 0o770), ("images", 0o702), ("refs", 0o720), ("blobs/sha256", 0o777)]
    {
        let path = store.root().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Store::open(store.root()).unwrap_err();
        assert!(error.to_string().ends_with("can be written by other users"), "{error}");
        assert!(error.hint().unwrap().starts_with("run `chmod go-w "));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Store::open(store.root()).unwrap();
    }
}

#[test]
fn a_blob_that_was_cut_short_is_replaced() {
    let (_root, store) = store();
    let digest = store.put_blob(b"hello").unwrap();
    assert!(store.has_blob_of(&digest, 5) && !store.has_blob_of(&digest, 4));
    fs::write(store.blob_path(&digest), "hel").unwrap();
    assert!(!store.has_blob_of(&digest, 5));
    let mut writer = store.blob_writer(Some(digest), Some(5)).unwrap();
    writer.append(b"hello").unwrap();
    writer.commit().unwrap();
    assert_eq!(fs::read(store.blob_path(&digest)).unwrap(), b"hello");
}

#[test]
fn only_a_damaged_blob_is_removed() {
    let (_root, store) = store();
    let digest = store.put_blob(b"hello").unwrap();
    assert!(!store.remove_if_damaged(&digest).unwrap() && store.has_blob(&digest));
    fs::write(store.blob_path(&digest), "hallo").unwrap();
    assert!(store.remove_if_damaged(&digest).unwrap() && !store.has_blob(&digest));
    assert!(!store.remove_if_damaged(&digest).unwrap());
}

#[test]
fn a_blob_appears_when_it_is_whole() {
    let (_root, store) = store();
    let digest = Digest::of(b"hello");
    let mut writer = store.blob_writer(Some(digest), Some(5)).unwrap();
    writer.write_all(b"hel").unwrap();
    assert_eq!((writer.written_bytes(), tmp_files(&store)), (3, 1));
    writer.restart().unwrap();
    writer.write_all(b"hello").unwrap();
    assert!(!store.has_blob(&digest) && store.open_blob(&digest).unwrap().is_none());
    assert_eq!(writer.commit().unwrap(), digest);
    assert_eq!(store.open_blob(&digest).unwrap().unwrap().size_bytes(), 5);
    assert_eq!(store.read_blob(&digest, 5).unwrap().unwrap(), b"hello");
    assert!(matches!(store.read_blob(&digest, 4), Err(StoreError::TooLarge { .. })));
    assert_eq!(store.put_blob(b"hello").unwrap(), digest);
    assert_eq!(tmp_files(&store), 0);
    fs::write(store.blob_path(&digest), "jello").unwrap();
    assert!(matches!(store.read_blob(&digest, 5), Err(StoreError::Damaged { .. })));
    store.remove_blob(&digest).unwrap();
    store.remove_blob(&digest).unwrap();
    assert!(!store.has_blob(&digest));
}

#[test]
fn a_wrong_blob_leaves_nothing() {
    let (_root, store) = store();
    let digest = Digest::of(b"hello");
    let check = |size: Option<u64>, bytes: &[u8], words: &str| {
        let mut writer = store.blob_writer(Some(digest), size).unwrap();
        let error = match writer.append(bytes) {
            Ok(()) => writer.commit().unwrap_err(),
            Err(error) => {
                drop(writer);
                error
            }
        };
        assert_eq!(error.to_string(), words);
        assert!(error.hint().is_some());
        assert_eq!((tmp_files(&store), store.has_blob(&digest)), (0, false));
    };
    check(
        None,
        b"jello",
        &format!("the blob {digest} arrived with other content: its sha256 is {}", Digest::of(b"jello")),
    );
    check(Some(5), b"hell", &format!("the blob {digest} should have 5 bytes, but 4 came"));
    check(Some(5), b"hello!", &format!("the blob {digest} should have 5 bytes, but more came"));

    let mut writer = store.blob_writer(None, Some(1)).unwrap();
    let error = writer.write_all(b"22").unwrap_err();
    assert_eq!(error.to_string(), "the blob without a digest should have 1 bytes, but more came");
}

#[test]
fn a_full_disk_is_told_from_a_quota() {
    let words = |code: i32| {
        let error = StoreError::of("write", Path::new("/s/tmp/x"), std::io::Error::from_raw_os_error(code));
        let (text, hint) = (error.to_string(), error.hint().unwrap_or_default());
        format!("{text} / {hint} / {:?}", error.into_io().kind())
    };
    assert_eq!(
        words(28),
        "cannot write `/s/tmp/x`: no space is left on that file system / free some space there, or put the store on another file system with the key `store.dir` / StorageFull"
    );
    assert_eq!(
        words(122),
        "cannot write `/s/tmp/x`: the disk quota is used up / delete something, ask for a larger quota, or put the store on another file system with the key `store.dir` / QuotaExceeded"
    );
    assert_eq!(words(13), "cannot write `/s/tmp/x`: Permission denied (os error 13) /  / PermissionDenied");
    assert_eq!(
        words(30),
        "cannot write `/s/tmp/x`: Read-only file system (os error 30) /  / ReadOnlyFilesystem"
    );
}

#[test]
fn an_image_is_published_once() {
    let (_root, store) = store();
    let key = ImageKey::new(&Digest::of(b"m"), 3, "zstd:19");
    assert_eq!(key.as_str(), format!("{}-3-zstd19", Digest::of(b"m").hex()));
    let target = store.image_target(&key);
    let mut fresh: Vec<_> = ["1", "2", "3"]
        .iter()
        .map(|content| {
            let (fresh, mut file) = target.create().unwrap();
            file.write_all(content.as_bytes()).unwrap();
            (fresh, file)
        })
        .collect();
    let third = fresh.pop();
    assert!(!store.has_image(&key));
    for (fresh, file) in fresh {
        fresh.publish(file).unwrap();
    }
    assert_eq!(target.path(), store.image_path(&key));
    assert_eq!(fs::read_to_string(store.image_path(&key)).unwrap(), "1");
    drop(third);
    assert_eq!(tmp_files(&store), 0);
    store.remove_image(&key).unwrap();
    assert!(!store.has_image(&key));

    for (text, good) in [
        (key.to_string(), true),
        (key.to_string().replace("-3-", "-03-"), false),
        (key.to_string() + "/..", false),
        ("../x".into(), false),
        (String::new(), false),
    ] {
        assert_eq!(ImageKey::try_from(text.clone()).is_ok(), good, "{text}");
    }
}

fn record(manifest: &[u8], config: &[u8]) -> RefRecord {
    RefRecord {
        manifest: Digest::of(manifest),
        config: Digest::of(config),
        image: Some(ImageKey::new(&Digest::of(manifest), 1, "zstd")),
        platform: crate::oci::Platform::host(),
        created: None,
        size_bytes: 1,
        top: None,
    }
}

#[test]
fn images_are_found_by_name_digest_and_prefix() {
    let (_root, store) = store();
    let (one, two) = (record(b"m1", b"c1"), record(b"m2", b"c2"));
    let top = Digest::of(b"index");
    store.set_ref("docker.io/library/a:1", &RefRecord { top: Some(top), ..one.clone() }).unwrap();
    store.set_ref("docker.io/library/a:2", &one).unwrap();
    store.set_ref("h:5000/b:1", &two).unwrap();
    store.keep_nameless(&record(b"m3", b"c3")).unwrap();
    // One that has a name stays as it is.
    store.keep_nameless(&one).unwrap();
    assert_eq!(store.list_refs().unwrap().len(), 4);
    let found =
        |word: &str| store.find_image(word).unwrap().map(|(image, meant)| (image.record.config, meant));
    let (first, second, third) = (Digest::of(b"c1"), Digest::of(b"c2"), Digest::of(b"c3"));
    for (word, expected) in [
        ("a:1".to_owned(), Some((first, Meant::Name("docker.io/library/a:1".into())))),
        ("a".into(), None),
        (format!("a@{top}"), Some((first, Meant::Digest))),
        (format!("a:9@{}", Digest::of(b"m1")), Some((first, Meant::Digest))),
        (format!("h:5000/b@{top}"), None),
        (second.to_string(), Some((second, Meant::Id))),
        (second.hex(), Some((second, Meant::Id))),
        (second.hex()[..5].to_owned(), Some((second, Meant::Id))),
        (format!("sha256:{}", &Digest::of(b"m3").hex()[..12]), Some((third, Meant::Id))),
        ("sha256:".into(), None),
        ("nothing".into(), None),
    ] {
        assert_eq!(found(&word), expected, "{word}");
    }
    let images = store.images().unwrap();
    assert_eq!(images[0].names, ["docker.io/library/a:1", "docker.io/library/a:2"]);
    assert_eq!(images[0].digests, [format!("docker.io/library/a@{top}")]);
    assert!(images[2].names.is_empty());
    // Ids that begin alike: hundreds of images, so that one digit cannot be unique.
    for number in 0..40_u8 {
        store.set_ref(&format!("x:{number}"), &record(&[number], &[number, 1])).unwrap();
    }
    let ambiguous = (0..16).map(|digit| store.find_image(&format!("sha256:{digit:x}")));
    assert!(ambiguous.into_iter().any(|found| matches!(found, Err(FindError::Ambiguous { .. }))));
}

#[test]
fn a_name_that_moves_keeps_its_image() {
    let (_root, store) = store();
    let (old, new) = (record(b"m1", b"c1"), record(b"m2", b"c2"));
    store.set_name("x:1", &old).unwrap();
    store.set_name("x:1", &old).unwrap();
    store.set_name("x:1", &new).unwrap();
    let names =
        |store: &Store| store.list_refs().unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&store), [old.manifest.to_string(), "x:1".into()]);
    // A new name for the old image takes the place of none.
    store.set_name("x:old", &old).unwrap();
    assert_eq!(names(&store), ["x:1", "x:old"]);
    store.set_name("x:old", &new).unwrap();
    store.set_name("x:1", &old).unwrap();
    assert_eq!(names(&store), ["x:1", "x:old"]);
}

#[test]
fn only_what_nothing_else_needs_is_removed() {
    let (_root, store) = store();
    let put = |text: &str| store.put_blob(text.as_bytes()).unwrap();
    let image = |name: &str, layers: &[Digest]| {
        let config = put(&format!("{{\"config of\":\"{name}\"}}"));
        let layers: Vec<String> =
            layers.iter().map(|digest| format!(r#"{{"digest":"{digest}","size":1}}"#)).collect();
        let manifest =
            put(&format!(r#"{{"config":{{"digest":"{config}","size":1}},"layers":[{}]}}"#, layers.join(",")));
        let image = Some(ImageKey::new(&manifest, 1, "zstd"));
        let record = RefRecord { manifest, config, image, ..record(b"", b"") };
        fs::write(store.image_path(record.image.as_ref().unwrap()), "").unwrap();
        store.set_ref(name, &record).unwrap();
        record
    };
    let (base, top_1, top_2) = (put("base"), put("top 1"), put("top 2"));
    let one = image("one", &[base, top_1]);
    let two = image("two", &[base, top_2]);
    store.set_ref("one more", &one).unwrap();
    store.remove_ref("one").unwrap();
    assert_eq!(store.remove_parts(&one).unwrap(), Removed::default());
    store.remove_ref("one more").unwrap();
    let removed = store.remove_parts(&one).unwrap();
    assert_eq!(removed.blobs, [one.manifest, top_1, one.config]);
    assert_eq!((removed.image, removed.in_use), (one.image, false));
    assert!(store.has_blob(&base));
    // A manifest that is damaged keeps nothing alive, and its image can be removed.
    fs::write(store.blob_path(&two.manifest), "{").unwrap();
    let key = two.image.clone().unwrap();
    fs::create_dir_all(store.root().join("leases").join(key.as_str())).unwrap();
    fs::write(store.root().join("leases").join(key.as_str()).join("job"), "").unwrap();
    store.remove_ref("two").unwrap();
    let removed = store.remove_parts(&two).unwrap();
    assert_eq!(removed.blobs, [two.manifest, two.config]);
    assert!(removed.in_use && store.has_image(&key));
}
