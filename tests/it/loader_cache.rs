//! The loader's cache that a conversion prepares, against the one that `ldconfig` makes of the same tree.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use slipway::elf::cache::{Cache, flags_for};
use slipway::image::Image;
use slipway::sif::{self, Sif};
use slipway::squashfs::read::Reader;

use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::sandbox::Sandbox;
use super::support::tiny_elf::shared_library;

const ARCH: &str = std::env::consts::ARCH;
const LOADER: &str =
    if cfg!(target_arch = "aarch64") { "lib/ld-linux-aarch64.so.1" } else { "lib64/ld-linux-x86-64.so.2" };

/// Files of an image: path and content.
type Files = Vec<(&'static str, Vec<u8>)>;

/// The cache that the image carries for its own.
fn prepared(image: &Path) -> Option<Cache> {
    let image = Image::open(image).unwrap();
    let reader = Reader::open(image.partition()).unwrap();
    image.loader_cache(&reader).unwrap().map(|bytes| Cache::parse(&bytes).unwrap())
}

/// SONAME and path of every library for this machine.
fn names(cache: &Cache) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut names = BTreeMap::new();
    for entry in cache.entries.iter().filter(|entry| Some(entry.flags) == flags_for(ARCH)) {
        // Of two entries the loader takes the first.
        names.entry(text(&entry.soname)).or_insert_with(|| text(&entry.path));
    }
    names
}

/// Libraries in the places where loaders look, by path.
fn libraries() -> Files {
    let library = |name: &str| shared_library(name, &[]);
    vec![
        (LOADER, library(LOADER.rsplit('/').next().unwrap())),
        ("usr/lib/liba.so.1", library("liba.so.1")),
        // The file has a longer name than what programs ask for.
        ("opt/tool/lib/libtool.so.2.3.4", library("libtool.so.2")),
        // Two of one name: the first directory of the configuration counts.
        ("opt/tool/lib/libtwice.so.1", library("libtwice.so.1")),
        ("usr/lib/libtwice.so.1", library("libtwice.so.1")),
        ("usr/lib/libtext.so", b"INPUT(-la)".to_vec()),
        ("usr/lib/other.so.1", library("other.so.1")),
    ]
}

fn layer(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Tar::new()
        .file("etc/ld.so.conf", 0o644, "# comment\ninclude /etc/ld.so.conf.d/*.conf\n")
        .file("etc/ld.so.conf.d/tool.conf", 0o644, "/opt/tool/lib\n/none\n")
        .file("etc/ld.so.conf.d/x.conf.bak", 0o644, "/usr/share\n");
    for (path, bytes) in files {
        tar = tar.file(path, 0o755, bytes);
    }
    tar.finish()
}

#[test]
fn a_missing_cache_is_made_as_ldconfig_makes_it() {
    need!(tool "ldconfig", tool "unsquashfs", tool "busybox");
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    image.layers.push(layer(&libraries()));
    let sif = image.convert(&sandbox, "a.sif");
    let ours = names(&prepared(&sif).expect("the image has no cache of its own"));

    let offset = Image::open(&sif).unwrap().offset_bytes.to_string();
    let (tree, cache) = (sandbox.path("tree"), sandbox.path("cache"));
    let words = ["-quiet", "-no-progress", "-no-xattrs", "-o", &offset, "-d"];
    let status = Command::new("unsquashfs").args(words).arg(&tree).arg(&sif).status().unwrap();
    assert!(status.success());
    // -X makes no links; the root stays as the image has it.
    let status = Command::new("ldconfig").arg("-r").arg(&tree).args(["-X", "-C", "/cache"]).status().unwrap();
    assert!(status.success());
    std::fs::rename(tree.join("cache"), &cache).unwrap();
    let mut theirs = names(&Cache::parse(&std::fs::read(&cache).unwrap()).unwrap());
    // ldconfig names the link that it would make; in an image that nobody writes to, only the file is there.
    assert_eq!(
        theirs.insert("libtool.so.2".into(), "/opt/tool/lib/libtool.so.2.3.4".into()).as_deref(),
        Some("/opt/tool/lib/libtool.so.2")
    );
    assert_eq!(ours, theirs);
    assert_eq!(ours["libtwice.so.1"], "/opt/tool/lib/libtwice.so.1");
}

#[test]
fn only_a_stale_cache_is_replaced() {
    need!(tool "ldconfig", tool "busybox");
    let sandbox = Sandbox::new();
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path();
    for (path, bytes) in libraries().into_iter().filter(|(path, _)| !path.contains("libtool")) {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::create_dir_all(tree.join("etc")).unwrap();
    std::fs::write(tree.join("etc/ld.so.conf"), "/opt/tool/lib\n").unwrap();
    let status = Command::new("ldconfig").arg("-r").arg(tree).args(["-X", "-C", "/cache"]).status().unwrap();
    assert!(status.success());
    let own = std::fs::read(tree.join("cache")).unwrap();
    let convert = |change: &dyn Fn(&mut Files)| {
        let mut files = libraries();
        files.retain(|(path, _)| !path.contains("libtool"));
        files.push(("etc/ld.so.cache", own.clone()));
        change(&mut files);
        let mut image = TestImage::busybox();
        image.layers.push(layer(&files));
        let sif = image.convert(&sandbox, "a.sif");
        let prepared = prepared(&sif);
        std::fs::remove_file(sif).unwrap();
        prepared.map(|cache| names(&cache))
    };
    assert_eq!(convert(&|_| {}), None, "the image's own cache is as it should be");
    let original = names(&Cache::parse(&own).unwrap());
    let mut more = original.clone();
    more.insert("libnew.so.1".into(), "/usr/lib/libnew.so.1".into());
    assert_eq!(
        convert(&|files| files.push(("usr/lib/libnew.so.1", shared_library("libnew.so.1", &[])))),
        Some(more)
    );
    let mut fewer = original;
    fewer.remove("liba.so.1");
    assert_eq!(convert(&|files| files.retain(|(path, _)| *path != "usr/lib/liba.so.1")), Some(fewer));
    // Without a loader of glibc there is nobody who would read one.
    assert_eq!(
        convert(&|files| files.retain(|(path, _)| *path != LOADER && *path != "etc/ld.so.cache")),
        None
    );
}

/// A cache of another squashfs, or a damaged one, is an error and no second truth.
#[test]
fn a_cache_must_belong_to_its_image() {
    need!(tool "busybox");
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    image.layers.push(layer(&libraries()));
    let sif = image.convert(&sandbox, "a.sif");
    let whole = std::fs::read(&sif).unwrap();
    let object = |name: &str| {
        let table = Sif::read(&whole).unwrap();
        usize::try_from(table.find_raw(name).unwrap().offset_bytes).unwrap()
    };
    let check = |at: usize, expected: &str| {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&sif, &changed).unwrap();
        let image = Image::open(&sif).unwrap();
        let error = image.loader_cache(&Reader::open(image.partition()).unwrap()).unwrap_err();
        let text = error.to_string();
        assert_eq!(text.split_once("/a.sif`: ").unwrap().1, expected);
        let output = sandbox.slipway(["image", "check", "a.sif"]).run();
        assert_eq!(output.code, Some(1), "{output}");
        assert!(output.stderr.contains("  hint: "), "{output}");
    };
    check(object(sif::LOADER_CACHE) + 100, "object `slipway-ld.so.cache` is damaged");
    // The squashfs's own time of making.
    let start = usize::try_from(Image::open(&sif).unwrap().offset_bytes).unwrap();
    check(start + 8, "object `slipway-ld.so.cache` belongs to another squashfs than the one in the file");
}
