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
    let (first, second, third) =
        (store.image_writer(&key), store.image_writer(&key), store.image_writer(&key));
    fs::write(first.path(), "1").unwrap();
    fs::write(second.path(), "2").unwrap();
    assert!(!store.has_image(&key));
    assert_eq!(first.publish().unwrap(), store.image_path(&key));
    assert_eq!(second.publish().unwrap(), store.image_path(&key));
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
