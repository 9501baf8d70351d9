//! The store under races, kills and full disks.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use slipway::base::{Digest, Hint as _};
use slipway::oci::Platform;
use slipway::store::{ImageKey, RefRecord, Store, StoreError};

/// Tells the re-executed test binary which store to work on.
const CHILD_STORE: &str = "SLIPWAY_TEST_CHILD_STORE";

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn blob_directory(store: &Store) -> PathBuf {
    store.root().join("blobs/sha256")
}

/// Runs one of the `child_…` functions below in a process of its own.
fn spawn(function: &str, store: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::{function}"), "--nocapture"])
        .env(CHILD_STORE, store)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn child_store() -> Option<Store> {
    std::env::var_os(CHILD_STORE).map(|root| Store::open(Path::new(&root)).unwrap())
}

fn record(number: u64) -> RefRecord {
    RefRecord {
        manifest: Digest::of(&number.to_le_bytes()),
        config: Digest::of(b"config"),
        image: None,
        platform: Platform::host(),
        created: None,
        size_bytes: number,
        top: None,
    }
}

#[test]
fn threads_that_store_the_same_all_succeed() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let key = ImageKey::new(&Digest::of(b"m"), 1, "zstd");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..20_u64 {
                    let content = vec![round.to_le_bytes()[0]; 100_000];
                    let mut writer = store.blob_writer(Some(Digest::of(&content)), Some(100_000)).unwrap();
                    writer.write_all(&content).unwrap();
                    writer.commit().unwrap();
                    store.set_ref("name", &record(round)).unwrap();
                    assert!(store.get_ref("name").unwrap().is_some());
                    let (fresh, mut file) = store.image_target(&key).create().unwrap();
                    file.write_all(b"image").unwrap();
                    fresh.publish(file).unwrap();
                }
            });
        }
    });
    assert_eq!(names(&blob_directory(&store)).len(), 20);
    assert_eq!(store.list_refs().unwrap().len(), 1);
    assert_eq!(std::fs::read_to_string(store.image_path(&key)).unwrap(), "image");
    assert!(names(&root.path().join("tmp")).is_empty());
}

/// Waits for a line, then stores a blob that every other child stores as well.
#[test]
fn child_stores_one_blob() {
    let Some(store) = child_store() else { return };
    println!("\nready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let content = vec![7; 3_000_000];
    let mut writer = store.blob_writer(Some(Digest::of(&content)), None).unwrap();
    for piece in content.chunks(10_000) {
        writer.append(piece).unwrap();
    }
    writer.commit().unwrap();
}

#[test]
fn processes_that_store_the_same_all_succeed() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let mut children: Vec<Child> = (0..4).map(|_| spawn("child_stores_one_blob", root.path())).collect();
    children.iter_mut().for_each(wait_until_ready);
    for child in &mut children {
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let digest = Digest::of(&vec![7; 3_000_000]);
    assert_eq!(names(&blob_directory(&store)), [digest.hex()]);
    assert!(names(&root.path().join("tmp")).is_empty());
}

/// Reads up to the child's line `ready`, byte by byte, since what follows belongs to the pipe.
fn wait_until_ready(child: &mut Child) {
    let stdout = child.stdout.as_mut().unwrap();
    let mut lines = BufReader::with_capacity(1, stdout).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"), "the child ended early");
}

/// Writes half a blob, a run file, and waits to be killed.
#[test]
fn child_is_killed_while_it_writes() {
    let Some(store) = child_store() else { return };
    let mut writer = store.blob_writer(None, None).unwrap();
    writer.append(&vec![1; 1_000_000]).unwrap();
    let target = store.image_target(&ImageKey::new(&Digest::of(b"m"), 1, "zstd"));
    let (_fresh, mut file) = target.create().unwrap();
    file.write_all(b"half").unwrap();
    println!("\nready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn a_killed_writer_leaves_only_what_the_next_open_removes() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let mut alive = store.blob_writer(None, None).unwrap();
    alive.append(b"mine").unwrap();
    let mut child = spawn("child_is_killed_while_it_writes", root.path());
    wait_until_ready(&mut child);
    let tmp = root.path().join("tmp");
    // A run file has no name yet, where the file system can do without.
    let before = names(&tmp).len();
    assert!((2..=3).contains(&before), "{before}");
    Store::open(root.path()).unwrap();
    assert_eq!(names(&tmp).len(), before, "a living writer lost its file");

    child.kill().unwrap();
    child.wait().unwrap();
    assert!(names(&blob_directory(&store)).is_empty() && names(&root.path().join("images")).is_empty());
    Store::open(root.path()).unwrap();
    assert_eq!(names(&tmp).len(), 1);
    assert_eq!(alive.commit().unwrap(), Digest::of(b"mine"));
    assert!(names(&tmp).is_empty());
}

/// A small tmpfs that goes with the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        slipway::sys::mount::tmpfs(directory.path(), 0o755, Some(size_bytes)).unwrap();
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        slipway::sys::mount::detach(self.0.path()).unwrap();
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    need!(root);
    let disk = SmallDisk::new(1 << 20);
    let store = Store::open(&disk.0.path().join("store")).unwrap();
    let mut writer = store.blob_writer(None, None).unwrap();
    let error = loop {
        if let Err(error) = writer.append(&[0; 100_000]) {
            break error;
        }
    };
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert!(error.hint().unwrap().contains("store.dir"));
    drop(writer);
    assert!(names(&store.root().join("tmp")).is_empty());

    // A few bytes only show at the end, and the same blob fits once there is room.
    let filler = disk.0.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let error = store.put_blob(b"small").unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    let error = store.set_ref("name", &record(1)).unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert!(names(&store.root().join("tmp")).is_empty() && names(&blob_directory(&store)).is_empty());
    drop(file);
    std::fs::remove_file(filler).unwrap();
    store.put_blob(b"small").unwrap();
}

#[test]
fn a_store_of_somebody_else_is_refused() {
    need!(root);
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(root.path(), Some(65534), None).unwrap();
    let error = Store::open(root.path()).unwrap_err();
    let expected =
        format!("the store's directory `{}` belongs to user 65534, not to user 0", root.path().display());
    assert_eq!(error.to_string(), expected);
}
