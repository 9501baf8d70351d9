//! An image that is not of our making, from a Debian root to a run, and in every view the same files.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::convert::{ADDED, is_ours};
use super::support::image::debian_root;
use super::support::registry::{Registry, run};
use super::support::sandbox::Sandbox;
use super::support::tree::{self, Entry};

/// Places where a container has the host's files, or ours, over the image's.
const COVERED: [&str; 10] = [
    "dev",
    "proc",
    "sys",
    "tmp",
    "var/tmp",
    "etc/passwd",
    "etc/group",
    "etc/hosts",
    "etc/resolv.conf",
    ".slipway",
];

/// Lists the current directory in the form that [`parse`] reads: what GNU find knows of each path, and the digests. Names
/// may hold anything but NUL and newline.
pub(super) const LIST: &str = r"find . -xdev -mindepth 1 -printf '%y\t%m\t%s\t%i\t%n\t%l\t%P\n'
printf '\n'
find . -xdev -type f -exec sha256sum -z {} +";

pub(super) fn parse(text: &str) -> BTreeMap<PathBuf, Entry> {
    let (paths, digests) = text.split_once("\n\n").unwrap();
    let mut found: BTreeMap<PathBuf, Entry> = BTreeMap::new();
    let mut names: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
    for line in paths.lines() {
        let fields: Vec<_> = line.splitn(7, '\t').collect();
        let [kind, mode, size, inode, links, link, path] = fields[..] else { panic!("`{line}`") };
        let path = PathBuf::from(path);
        if kind != "d" && links != "1" {
            names.entry(inode).or_default().push(path.clone());
        }
        let entry = Entry {
            kind: kind.chars().next().unwrap(),
            mode: u32::from_str_radix(mode, 8).unwrap(),
            size_bytes: if kind == "f" { size.parse().unwrap() } else { 0 },
            link: (kind == "l").then(|| link.into()),
            digest: None,
            first_name: path.clone(),
        };
        found.insert(path, entry);
    }
    for paths in names.values_mut() {
        paths.sort();
        for path in paths.iter() {
            found.get_mut(path).unwrap().first_name.clone_from(&paths[0]);
        }
    }
    for line in digests.split_terminator('\0') {
        let (digest, path) = line.split_once("  ./").unwrap();
        found.get_mut(Path::new(path)).unwrap().digest = Some(format!("sha256:{digest}").parse().unwrap());
    }
    found
}

/// An OCI layout of three layers, made by umoci: Debian, changes to it, and a directory that hides the one below.
fn pack_with_umoci(directory: &Path) -> PathBuf {
    let layout = directory.join("layout");
    let image = format!("{}:latest", layout.display());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    run("umoci", &["init", "--layout", &text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    let step = |name: &str, change: &dyn Fn(&Path)| {
        let bundle = directory.join(name);
        run("umoci", &["unpack", "--image", &image, &text(&bundle)]);
        change(&bundle.join("rootfs"));
        run("umoci", &["repack", "--image", &image, &text(&bundle)]);
        std::fs::remove_dir_all(&bundle).unwrap();
    };
    step("first", &|root| run("tar", &["-C", &text(root), "--xattrs", "-xpf", &text(&debian_root())]));
    step("second", &|root| {
        std::fs::remove_dir_all(root.join("usr/share/doc")).unwrap();
        std::fs::remove_file(root.join("etc/issue")).unwrap();
        std::fs::write(root.join("etc/motd"), "made by the tests\n").unwrap();
        std::fs::set_permissions(root.join("opt"), std::fs::Permissions::from_mode(0o750)).unwrap();
        std::fs::hard_link(root.join("usr/bin/perl"), root.join("opt/perl")).unwrap();
        std::os::unix::fs::symlink("../usr/bin/env", root.join("opt/env")).unwrap();
    });
    let insert = directory.join("insert");
    std::fs::create_dir(&insert).unwrap();
    std::fs::write(insert.join("only"), "only this is left\n").unwrap();
    run("umoci", &["insert", "--image", &image, "--opaque", &text(&insert), "/usr/share/zoneinfo"]);
    run("umoci", &["config", "--image", &image, "--config.cmd", "cat", "--config.cmd", "/etc/motd"]);
    layout
}

/// Without what a conversion adds, and without the places of `without`.
fn only_original(
    mut tree: BTreeMap<PathBuf, Entry>,
    original: &BTreeMap<PathBuf, Entry>,
    without: &[&str],
) -> BTreeMap<PathBuf, Entry> {
    tree.retain(|path, _| {
        let added = is_ours(path) || ADDED.iter().any(|name| Path::new(name) == path);
        (original.contains_key(path) || !added) && !without.iter().any(|place| tree::is_below(path, place))
    });
    tree
}

#[test]
fn a_debian_image_is_the_same_in_every_view() {
    need!(root, registry, loop, userns, fuse);
    need!(tool "debootstrap", tool "umoci", tool "skopeo", tool "unsquashfs");
    let sandbox = Sandbox::new();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let layout = pack_with_umoci(directory.path());
    let registry = Registry::start();
    let name = format!("{}/debian:bookworm", registry.host);
    let source = format!("oci:{}:latest", layout.display());
    run("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &source, &format!("docker://{name}")]);

    sandbox.slipway(["pull", &name]).succeed();
    assert_eq!(sandbox.slipway(["run", &name]).succeed(), "made by the tests\n");
    sandbox.slipway(["convert", &format!("docker://{name}"), "debian.sif"]).succeed();
    let sif = sandbox.path("home/debian.sif");

    let unpacked = directory.path().join("umoci");
    run("umoci", &["unpack", "--image", &format!("{}:latest", layout.display()), unpacked.to_str().unwrap()]);
    let expected = tree::walk(&unpacked.join("rootfs"), &|path| !is_ours(path));
    assert!(
        expected.len() > 3000 && expected.contains_key(Path::new("opt/perl")),
        "{} paths",
        expected.len()
    );

    let offset = slipway::image::Image::open(&sif).unwrap().offset_bytes.to_string();
    let squashed = directory.path().join("unsquashfs");
    let words = ["-quiet", "-no-progress", "-o", &offset, "-d"];
    run("unsquashfs", &[&words[..], &[squashed.to_str().unwrap(), sif.to_str().unwrap()]].concat());
    let found = only_original(tree::walk(&squashed, &|_| true), &expected, &[]);
    tree::assert_equal(("umoci", &expected), ("unsquashfs", &found));

    // In a mount namespace of its own, so that the mount ends with it whatever happens.
    let script = format!("mount -t squashfs -o ro,loop,offset={offset} \"$0\" /mnt && cd /mnt && {LIST}");
    let output = Command::new("unshare").args(["--mount", "sh", "-euc", &script]).arg(&sif).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = only_original(parse(&String::from_utf8(output.stdout).unwrap()), &expected, &[]);
    tree::assert_equal(("umoci", &expected), ("the kernel", &found));

    let text = sandbox.slipway(["run", "debian.sif", "sh", "-euc", &format!("cd /; {LIST}")]).succeed();
    let found = only_original(parse(&text), &expected, &COVERED);
    let uncovered = only_original(expected.clone(), &expected, &COVERED);
    assert!(expected.len() - uncovered.len() < 100);
    tree::assert_equal(("umoci", &uncovered), ("slipway run", &found));
    sandbox.assert_nothing_left();
}
