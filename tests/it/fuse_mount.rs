//! The file server on a real mount, as an ordinary user in a user and mount namespace.
//!
//! Each test starts this binary again under `unshare` (and, where root runs the tests, as an ordinary user first), with a
//! variable that says which scenario [`inside`] is to play there.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use slipway::base::RelPath;
use slipway::fuse::{ServeError, Server, ServerSpec, Synthetic, SyntheticKind, Tuning};
use slipway::sys::file::ReadFile;
use slipway::sys::fuse_dev;

use crate::squashfs_read::{Noise, make_tree, pack, pack_tar, paths_below, tar_entry, tar_xattr};
use crate::support::sandbox::place;

/// Names the scenario for [`inside`].
const SCENARIO: &str = "SLIPWAY_TEST_SCENARIO";
/// Longest that a scenario may take before it counts as hanging, in seconds.
const LIMIT_SECONDS: &str = "300";
/// An ordinary user, for tests that root runs.
const NOBODY: &str = "65534";

/// Plays a scenario in namespaces of its own.
fn play(scenario: &str) {
    let mut words = vec!["timeout", "-s", "KILL", LIMIT_SECONDS];
    if nix::unistd::geteuid().is_root() {
        words.extend(["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    }
    words.extend(["unshare", "--user", "--map-root-user", "--mount"]);
    let reachable = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(reachable.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let myself = place(&std::env::current_exe().unwrap(), reachable.path());
    let output = Command::new(words[0])
        .args(&words[1..])
        .arg(myself)
        .args(["--exact", "fuse_mount::inside", "--nocapture"])
        .env(SCENARIO, scenario)
        .current_dir("/")
        .output()
        .unwrap();
    let played = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(
        output.status.success() && played,
        "{scenario}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                need!(userns, fuse, tool "unshare", tool "setpriv", tool "mksquashfs", tool "sqfstar");
                play(stringify!($name));
            }
        )+

        /// The inner side of every test of this file; alone it does nothing.
        #[test]
        fn inside() {
            match std::env::var(SCENARIO).as_deref() {
                $(Ok(stringify!($name)) => scenario::$name(),)+
                Ok(other) => panic!("no scenario `{other}`"),
                Err(_) => {}
            }
        }
    };
}

scenarios![
    shows_the_tree_as_it_was_packed,
    shows_attributes_and_devices,
    adds_mount_points,
    many_readers_see_the_same,
    damage_is_an_error_for_who_reads_it,
    an_image_that_shrinks_is_an_error_too,
    lists_a_huge_directory,
    the_owner_reads_what_root_would,
];

/// A served image; unmounted by [`Mounted::end`].
struct Mounted {
    place: PathBuf,
    server: JoinHandle<Result<(), ServeError>>,
}

/// Variants of a mount that a scenario tries.
#[derive(Clone, Copy)]
struct Variant {
    no_open: bool,
    cache_bytes: usize,
    threads: usize,
}

const VARIANTS: [Variant; 3] = [
    Variant { no_open: true, cache_bytes: 64 << 20, threads: 3 },
    Variant { no_open: false, cache_bytes: 1 << 20, threads: 2 },
    Variant { no_open: true, cache_bytes: 0, threads: 1 },
];

fn spec(image: &Path, variant: Variant, synthetic: Vec<Synthetic>) -> ServerSpec {
    ServerSpec {
        image: Arc::new(ReadFile::new(fs::File::open(image).unwrap()).unwrap()),
        synthetic,
        uid: 0,
        gid: 0,
        cache_bytes: variant.cache_bytes,
        no_open: variant.no_open,
        tuning: Tuning::default(),
    }
}

impl Mounted {
    fn new(image: &Path, place: &Path, variant: Variant, synthetic: Vec<Synthetic>) -> Self {
        fs::create_dir_all(place).unwrap();
        let server = Server::load(spec(image, variant, synthetic)).unwrap();
        let device = fuse_dev::open_device().unwrap();
        fuse_dev::mount_read_only(&device, place, 0, 0).unwrap();
        let mut devices: Vec<OwnedFd> =
            (1..variant.threads).map(|_| fuse_dev::clone_device(&device).unwrap()).collect();
        devices.push(device);
        Self { place: place.to_owned(), server: std::thread::spawn(move || server.run(devices, None)) }
    }

    /// Unmounts; the server must end by that alone.
    fn end(self) {
        nix::mount::umount(&self.place).unwrap();
        self.server.join().unwrap().unwrap();
    }
}

/// Content that is not in the page cache of the mount any more.
fn read_cold(path: &Path) -> std::io::Result<Vec<u8>> {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    let file = fs::File::open(path)?;
    posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut &file, &mut content)?;
    Ok(content)
}

fn assert_equal(tree: &Path, mount: &Path) {
    let mut expected = paths_below(tree);
    let mut found = paths_below(mount);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    for path in &expected {
        let (here, there) = (tree.join(path), mount.join(path));
        let (source, shown) = (here.symlink_metadata().unwrap(), there.symlink_metadata().unwrap());
        assert_eq!(shown.file_type(), source.file_type(), "{path:?}");
        let added = if source.is_dir() { 0o500 } else { 0o400 };
        let mode = if source.is_symlink() { 0o777 } else { source.mode() & 0o7777 | added };
        assert_eq!(shown.mode() & 0o7777, mode, "{path:?}");
        assert_eq!((shown.uid(), shown.gid()), (0, 0), "{path:?}");
        assert_eq!(shown.mtime(), source.mtime(), "{path:?}");
        assert_eq!(shown.blksize(), 128 * 1024);
        if source.is_symlink() {
            assert_eq!(fs::read_link(&there).unwrap(), fs::read_link(&here).unwrap());
        } else if source.is_file() {
            assert_eq!(shown.len(), source.len(), "{path:?}");
            assert_eq!(shown.nlink(), source.nlink(), "{path:?}");
            assert!(read_cold(&there).unwrap() == fs::read(&here).unwrap(), "{path:?}");
        }
    }
}

/// The error number of a failing call.
fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

fn directory(path: &str) -> Synthetic {
    Synthetic { path: RelPath::parse(path.as_bytes()).unwrap(), kind: SyntheticKind::Directory }
}

fn file(path: &str) -> Synthetic {
    Synthetic { path: RelPath::parse(path.as_bytes()).unwrap(), kind: SyntheticKind::File }
}

/// What happens in the namespaces.
mod scenario {
    use super::*;

    pub(super) fn shows_the_tree_as_it_was_packed() {
        let place = tempfile::tempdir().unwrap();
        let (tree, image, mount) =
            (place.path().join("tree"), place.path().join("i"), place.path().join("m"));
        make_tree(&tree);
        fs::copy("/usr/bin/sha256sum", tree.join("usr/bin/sum")).unwrap();
        for (options, variant) in
            ["-comp zstd -Xcompression-level 1", "-comp gzip -b 4K", "-comp zstd -noI -noD -b 1M"]
                .iter()
                .zip(VARIANTS)
        {
            pack(&tree, &image, &options.split(' ').collect::<Vec<_>>());
            let mounted = Mounted::new(&image, &mount, variant, Vec::new());
            assert_equal(&tree, &mount);
            assert_equal(&tree, &mount);
            // A program is mapped, and maps.
            let sum =
                |program: &Path| Command::new(program).arg(mount.join("usr/bin/large")).output().unwrap();
            let (ours, theirs) = (sum(&mount.join("usr/bin/sum")), sum(Path::new("/usr/bin/sha256sum")));
            assert!(ours.status.success() && ours.stdout == theirs.stdout);
            for name in ["absent", "usr/absent", "usr/lib/one/below", "\u{fffd}"] {
                assert!(!mount.join(name).exists());
                assert!(!mount.join(name).exists());
            }
            assert_eq!(errno(fs::write(mount.join("new"), "")), libc::EROFS);
            assert_eq!(errno(fs::remove_file(mount.join("usr/lib/one"))), libc::EROFS);
            let facts = nix::sys::statvfs::statvfs(&mount).unwrap();
            assert_eq!((facts.blocks_free(), facts.name_max()), (0, 255));
            assert!(facts.files() >= 3000);
            mounted.end();
        }
    }

    pub(super) fn shows_attributes_and_devices() {
        let place = tempfile::tempdir().unwrap();
        let (image, mount) = (place.path().join("i"), place.path().join("m"));
        let mut tar = Vec::new();
        tar_xattr(&mut tar, "user.long", &[b'v'; 5000]);
        tar_xattr(&mut tar, "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        tar_entry(&mut tar, "file", b'0', 0, (0, 0), b"content");
        tar_entry(&mut tar, "plain", b'0', 0o600, (0, 0), b"");
        tar_entry(&mut tar, "null", b'3', 0o666, (1, 3), b"");
        pack_tar(tar, &image, &["-comp", "gzip"]);
        let mounted = Mounted::new(&image, &mount, VARIANTS[0], Vec::new());
        let getfattr = |name: &str| {
            let program = "import os, sys\nfor n in sorted(os.listxattr(sys.argv[1])): print(n, len(os.getxattr(sys.argv[1], n)))";
            let output =
                Command::new("python3").args(["-c", program]).arg(mount.join(name)).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        if crate::support::need::has_tool("python3") {
            assert_eq!(getfattr("file"), "user.long 5000\n");
            assert_eq!(getfattr("plain"), "");
        }
        let null = mount.join("null").symlink_metadata().unwrap();
        assert!(null.file_type().is_char_device());
        assert_eq!(null.rdev(), nix::sys::stat::makedev(1, 3));
        assert_eq!(errno(fs::File::open(mount.join("null"))), libc::EACCES, "devices of an image are dead");
        mounted.end();
    }

    pub(super) fn adds_mount_points() {
        let place = tempfile::tempdir().unwrap();
        let (tree, image, mount) =
            (place.path().join("tree"), place.path().join("i"), place.path().join("m"));
        make_tree(&tree);
        pack(&tree, &image, &["-comp", "gzip", "-Xcompression-level", "1"]);
        let points = vec![
            directory("proc"),
            directory("usr/lib"),
            directory("usr/lib/x86/deep/er"),
            file("usr/lib/x86/libcuda.so.1"),
            file("usr/lib/one"),
            file("many/zzz"),
            file("many/0"),
        ];
        let mounted = Mounted::new(&image, &mount, VARIANTS[0], points);
        for (name, mode) in [("proc", 0o40_755), ("usr/lib/x86", 0o40_755), ("usr/lib/x86/deep/er", 0o40_755)]
        {
            let shown = mount.join(name).metadata().unwrap();
            assert_eq!((shown.mode(), shown.uid()), (mode, 0), "{name}");
        }
        for name in ["usr/lib/x86/libcuda.so.1", "many/zzz", "many/0"] {
            let shown = mount.join(name).metadata().unwrap();
            assert_eq!((shown.mode(), shown.len()), (0o100_644, 0), "{name}");
            assert_eq!(fs::read(mount.join(name)).unwrap(), b"");
        }
        let mut expected = paths_below(&tree);
        for new in ["proc", "usr/lib/x86", "usr/lib/x86/deep", "usr/lib/x86/deep/er"] {
            expected.push(new.into());
        }
        for new in ["usr/lib/x86/libcuda.so.1", "many/zzz", "many/0"] {
            expected.push(new.into());
        }
        let mut found = paths_below(&mount);
        expected.sort();
        found.sort();
        assert!(found == expected);
        // They are for this: binding over them.
        use nix::mount::{MsFlags, mount as bind};
        for (source, target) in [("/etc", "usr/lib/x86/deep/er"), ("/etc/passwd", "many/0")] {
            bind(Some(source), &mount.join(target), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        }
        assert!(mount.join("usr/lib/x86/deep/er/passwd").exists());
        assert!(!fs::read(mount.join("many/0")).unwrap().is_empty());
        for target in ["usr/lib/x86/deep/er", "many/0"] {
            nix::mount::umount(&mount.join(target)).unwrap();
        }
        mounted.end();
        let refused = |point: Synthetic| match Server::load(spec(&image, VARIANTS[0], vec![point])) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("this cannot be served"),
        };
        assert_eq!(
            refused(directory("usr/lib/one/x")),
            "`/usr/lib/one/x` cannot be a mount point: the image has a regular file at `/usr/lib/one`"
        );
        assert_eq!(
            refused(file("usr/lib")),
            "`/usr/lib` cannot be a mount point: the image has a directory at `/usr/lib`"
        );
        assert_eq!(
            refused(file("dangling")),
            "`/dangling` cannot be a mount point: the image has a symbolic link at `/dangling`"
        );
    }

    pub(super) fn many_readers_see_the_same() {
        let place = tempfile::tempdir().unwrap();
        let (tree, image, mount) =
            (place.path().join("tree"), place.path().join("i"), place.path().join("m"));
        make_tree(&tree);
        pack(&tree, &image, &["-comp", "zstd", "-Xcompression-level", "1"]);
        let files: Vec<PathBuf> = paths_below(&tree)
            .into_iter()
            .filter(|path| tree.join(path).symlink_metadata().unwrap().is_file())
            .collect();
        for variant in VARIANTS {
            let mounted = Mounted::new(&image, &mount, variant, Vec::new());
            std::thread::scope(|scope| {
                for reader in 0..8 {
                    let (files, tree, mount) = (&files, &tree, &mount);
                    scope.spawn(move || {
                        let mut noise = Noise::new(reader);
                        for _ in 0..400 {
                            let path = &files[noise.below(files.len())];
                            assert!(
                                read_cold(&mount.join(path)).unwrap() == fs::read(tree.join(path)).unwrap()
                            );
                            for large in ["usr/bin/large", "usr/lib/large", "sparse"] {
                                let file = fs::File::open(mount.join(large)).unwrap();
                                let source = fs::File::open(tree.join(large)).unwrap();
                                let (mut got, mut expected) = ([1; 9000], [2; 9000]);
                                let at = noise.below(2_400_000) as u64;
                                std::os::unix::fs::FileExt::read_exact_at(&file, &mut got, at).unwrap();
                                std::os::unix::fs::FileExt::read_exact_at(&source, &mut expected, at)
                                    .unwrap();
                                assert!(got == expected, "{large} at {at}");
                            }
                        }
                    });
                }
            });
            mounted.end();
        }
    }

    pub(super) fn damage_is_an_error_for_who_reads_it() {
        let place = tempfile::tempdir().unwrap();
        let (tree, image, mount) =
            (place.path().join("tree"), place.path().join("i"), place.path().join("m"));
        make_tree(&tree);
        pack(&tree, &image, &["-comp", "gzip"]);
        let mut bytes = fs::read(&image).unwrap();
        let inode_table = usize::try_from(u64::from_le_bytes(bytes[64..72].try_into().unwrap())).unwrap();
        // The stored blocks of noise read as other noise; the compressed ones fail.
        let mut noise = Noise::new(5);
        for _ in 0..400 {
            let at = 96 + noise.below(inode_table - 96);
            bytes[at] ^= 0x55;
        }
        fs::write(&image, bytes).unwrap();
        for variant in VARIANTS {
            let mounted = Mounted::new(&image, &mount, variant, Vec::new());
            let mut failed = 0;
            for path in paths_below(&tree) {
                if tree.join(&path).symlink_metadata().unwrap().is_file() {
                    match fs::read(mount.join(&path)) {
                        Ok(content) => {
                            assert_eq!(content.len() as u64, tree.join(&path).metadata().unwrap().len())
                        }
                        Err(error) => {
                            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{path:?}");
                            failed += 1;
                        }
                    }
                }
            }
            assert!(failed > 0);
            mounted.end();
        }
    }

    pub(super) fn an_image_that_shrinks_is_an_error_too() {
        let place = tempfile::tempdir().unwrap();
        let (tree, image, mount) =
            (place.path().join("tree"), place.path().join("i"), place.path().join("m"));
        make_tree(&tree);
        pack(&tree, &image, &["-comp", "gzip"]);
        for variant in VARIANTS {
            let whole = fs::read(&image).unwrap();
            let mounted = Mounted::new(&image, &mount, variant, Vec::new());
            fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(4096).unwrap();
            assert_eq!(errno(fs::read(mount.join("usr/lib/one"))), libc::EIO);
            assert_eq!(errno(fs::read_dir(mount.join("many")).map(drop)), libc::EIO);
            mounted.end();
            fs::write(&image, whole).unwrap();
        }
    }

    pub(super) fn lists_a_huge_directory() {
        let place = tempfile::tempdir().unwrap();
        let (tree, image, mount) =
            (place.path().join("tree"), place.path().join("i"), place.path().join("m"));
        fs::create_dir_all(tree.join("huge")).unwrap();
        let names: Vec<String> =
            (0..30_000).map(|index| format!("{index:x}-{}", "n".repeat(index % 200))).collect();
        for name in &names {
            fs::write(tree.join("huge").join(name), name).unwrap();
        }
        pack(&tree, &image, &["-comp", "zstd", "-Xcompression-level", "1"]);
        for variant in VARIANTS {
            let mounted = Mounted::new(&image, &mount, variant, Vec::new());
            for _ in 0..2 {
                let listed = fs::read_dir(mount.join("huge")).unwrap();
                let mut found: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
                found.sort();
                let mut expected: Vec<_> = names.iter().map(|name| OsStr::new(name).to_owned()).collect();
                expected.sort();
                assert!(found == expected);
            }
            for name in names.iter().step_by(1001) {
                assert_eq!(fs::read_to_string(mount.join("huge").join(name)).unwrap(), *name);
            }
            mounted.end();
        }
    }

    /// Without capabilities, which would hide what the modes say.
    pub(super) fn the_owner_reads_what_root_would() {
        let place = tempfile::tempdir().unwrap();
        let (tree, image, mount) =
            (place.path().join("tree"), place.path().join("i"), place.path().join("m"));
        fs::create_dir_all(tree.join("closed")).unwrap();
        for (name, mode) in [("closed/shadow", 0), ("closed/key", 0o200), ("closed", 0)] {
            if name != "closed" {
                fs::write(tree.join(name), "secret").unwrap();
            }
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        pack(&tree, &image, &["-comp", "gzip"]);
        let mounted = Mounted::new(&image, &mount, VARIANTS[0], Vec::new());
        for path in [mount.join("closed/shadow"), mount.join("closed/key")] {
            let output = Command::new("setpriv")
                .args(["--bounding-set", "-all", "--inh-caps", "-all", "cat"])
                .arg(path)
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "secret", "{output:?}");
        }
        mounted.end();
    }
}
