//! The loader's cache against the real `ldconfig` and the real loader.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use slipway::elf::cache::{Cache, flags_for, merge};

use crate::support::tiny_elf::shared_library;

const ARCH: &str = std::env::consts::ARCH;

/// The `name (…) => path` lines that `ldconfig -p` prints for a cache file.
fn listing(cache: &Path) -> Vec<String> {
    let output = Command::new(ldconfig()).args(["-p", "-C"]).arg(cache).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| line.contains("=>")).map(|line| line.trim().to_owned()).collect()
}

fn ldconfig() -> PathBuf {
    ["/sbin/ldconfig", "/usr/sbin/ldconfig"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
        .unwrap()
}

/// A cache of three libraries made by the real `ldconfig`; one of them for a better machine too.
fn made_by_ldconfig(directory: &Path, format: &str) -> Vec<u8> {
    let libraries = directory.join("lib");
    let better = match ARCH {
        "x86_64" => "glibc-hwcaps/x86-64-v3",
        _ => "glibc-hwcaps/atomics",
    };
    fs::create_dir_all(libraries.join(better)).unwrap();
    for name in ["liba.so.9", "liba.so.10", "libcuda.so.1"] {
        fs::write(libraries.join(name), shared_library(name, &[])).unwrap();
    }
    fs::write(libraries.join(better).join("liba.so.10"), shared_library("liba.so.10", &[])).unwrap();
    let (conf, cache) = (directory.join("conf"), directory.join(format!("cache.{format}")));
    fs::write(&conf, format!("{}\n", libraries.display())).unwrap();
    let status = Command::new(ldconfig())
        .args(["-X", "-c", format, "-f"])
        .arg(&conf)
        .arg("-C")
        .arg(&cache)
        .status()
        .unwrap();
    assert!(status.success());
    fs::read(cache).unwrap()
}

#[test]
fn rewritten_cache_of_the_host_says_the_same() {
    need!(tool "ldconfig");
    let host = Path::new("/etc/ld.so.cache");
    let cache = Cache::parse(&fs::read(host).unwrap()).unwrap();
    let mut sorted = cache.clone();
    sorted.sort();
    assert_eq!(sorted, cache, "our order is glibc's");

    let directory = tempfile::tempdir().unwrap();
    let ours = directory.path().join("cache");
    fs::write(&ours, cache.to_bytes()).unwrap();
    assert_eq!(listing(&ours), listing(host));
    assert_eq!(Cache::parse(&fs::read(&ours).unwrap()).unwrap(), cache);
}

#[test]
fn both_formats_of_ldconfig_are_read() {
    need!(tool "ldconfig");
    let directory = tempfile::tempdir().unwrap();
    let new = made_by_ldconfig(directory.path(), "new");
    let both = made_by_ldconfig(directory.path(), "compat");
    assert!(both.starts_with(b"ld.so-1.7.0") && new.starts_with(b"glibc-ld.so.cache1.1"));
    let cache = Cache::parse(&new).unwrap();
    assert_eq!(Cache::parse(&both).unwrap(), cache);
    let mut sorted = cache.clone();
    sorted.sort();
    assert_eq!(sorted, cache);
    assert!(!cache.hwcaps.is_empty() && cache.generator.is_some());

    let rewritten = directory.path().join("rewritten");
    fs::write(&rewritten, cache.to_bytes()).unwrap();
    assert_eq!(listing(&rewritten), listing(&directory.path().join("cache.new")));
}

#[test]
fn merged_cache_lists_ours_instead_of_the_images() {
    need!(tool "ldconfig");
    let directory = tempfile::tempdir().unwrap();
    let image = made_by_ldconfig(directory.path(), "new");
    let ours = [("libcuda.so.1", "/ours/libcuda.so.1"), ("libcuda.so", "/ours/libcuda.so")]
        .map(|(name, path)| (name.to_owned(), path.to_owned()));
    let merged = directory.path().join("merged");
    fs::write(&merged, merge(Some(&image), &ours, ARCH)).unwrap();

    let before: BTreeSet<String> = listing(&directory.path().join("cache.new")).into_iter().collect();
    let after: BTreeSet<String> = listing(&merged).into_iter().collect();
    let gone: Vec<_> = before.difference(&after).collect();
    let new: Vec<_> = after.difference(&before).map(|line| line.split(" => ").nth(1).unwrap()).collect();
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert!(gone[0].starts_with("libcuda.so.1 "), "{gone:?}");
    assert_eq!(new, ["/ours/libcuda.so", "/ours/libcuda.so.1"]);
}

/// A preloaded library without a slash is looked up as any dependency is, and `LD_DEBUG` says where it was found.
#[test]
fn real_loader_finds_a_library_by_our_cache_alone() {
    need!(userns, tool "ldconfig", tool "unshare", tool "setpriv");
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(directory.path(), Some(65_534), None).ok();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let names = [
        "libcuda.so.1",
        "libnvidia-ml.so.1",
        "libnvidia-ptxjitcompiler.so.1",
        "libslipway-9.so",
        "libslipway-10.so",
    ];
    let ours: Vec<(String, String)> = names
        .iter()
        .map(|name| {
            let path = directory.path().join(name);
            fs::write(&path, shared_library(name, &[])).unwrap();
            ((*name).to_owned(), path.to_str().unwrap().to_owned())
        })
        .collect();
    let cache = directory.path().join("cache");
    let host = fs::read("/etc/ld.so.cache").ok();
    assert!(flags_for(ARCH).is_some());
    fs::write(&cache, merge(host.as_deref(), &ours, ARCH)).unwrap();

    let run = |script: &str| {
        let mut command = Command::new(if nix::unistd::geteuid().is_root() { "setpriv" } else { "unshare" });
        if nix::unistd::geteuid().is_root() {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare"]);
        }
        let output = command.args(["-Urm", "sh", "-ec", script, "sh"]).arg(&cache).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let preload = format!("LD_PRELOAD='{}' LD_DEBUG=libs /bin/true", names.join(" "));
    let without = run(&preload);
    let with = run(&format!("mount --bind \"$1\" /etc/ld.so.cache; {preload}"));
    for (name, path) in &ours {
        assert!(
            without.contains(&format!("object '{name}' from LD_PRELOAD cannot be preloaded")),
            "{without}"
        );
        assert!(with.contains(&format!("calling init: {path}")), "{with}");
    }
    assert!(!with.contains("cannot be preloaded"), "{with}");
}
