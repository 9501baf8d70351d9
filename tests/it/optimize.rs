//! `slipway convert --optimize`: the same tree, with what a start reads in front.

use std::path::Path;
use std::process::Command;

use slipway::image::Image;

use super::foreign_image::{LIST, parse};
use super::other_images::{make_root, old_sif};
use super::squashfs_read::{Noise, make_tree, pack};
use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::registry::run;
use super::support::sandbox::Sandbox;
use super::support::tree;

/// The blocks of a list in the order of the image: place and bytes.
fn blocks(list: &Path) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(list).unwrap();
    let block = |line: &str| {
        let (offset, size_word) = line.split_once(' ').unwrap();
        (offset.parse().unwrap(), size_word.parse::<u64>().unwrap() & !(1 << 24))
    };
    let mut blocks: Vec<_> = text.lines().skip(1).map(block).collect();
    blocks.sort_unstable();
    blocks
}

/// How many stretches of the image a list names.
fn stretches(blocks: &[(u64, u64)]) -> usize {
    1 + blocks.windows(2).filter(|pair| pair[0].0 + pair[0].1 != pair[1].0).count()
}

#[test]
fn a_start_reads_one_stretch() {
    need!(userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    let mut noise = Noise::new(11);
    let mut layer = Tar::new().directory("files", 0o755);
    for number in 0..120 {
        layer = layer.file(&format!("files/{number:03}"), 0o644, noise.bytes(200_000));
    }
    image.layers.push(layer.finish());
    image.convert(&sandbox, "a.sif");
    let script =
        "for n in 9 7 5 3 1; do sha256sum /files/0${n}0 /files/0${n}4 /files/1${n}0; done 2>/dev/null";
    let start = |image: &str, flags: &[&str]| {
        sandbox.slipway(["run"]).args(flags).args([image, "sh", "-c", script]).succeed()
    };
    let expected = start("a.sif", &["--record-hot"]);
    sandbox.assert_nothing_left();
    let old = blocks(&sandbox.path("home/a.sif.sh.hot"));
    assert!(old.len() > 16 && stretches(&old) > 10, "{old:?}");

    let output = sandbox.slipway(["convert", "--optimize", "a.sif", "b.sif"]).run();
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "b.sif\n"), "{output}");
    assert!(
        output.stderr.starts_with("Optimized for sh: ") && output.stderr.ends_with(" in front\n"),
        "{output}"
    );
    let new = blocks(&sandbox.path("home/b.sif.sh.hot"));
    assert_eq!(new.len(), old.len());
    assert_eq!(new[0].0, 96, "the first block is a hot one");
    // Files that the start reads in whole are side by side; between them and the program, of which it reads a part, is
    // a block or two that it does not.
    let end = new.iter().map(|(offset, size)| offset + size).max().unwrap();
    let read: u64 = new.iter().map(|(_, size)| size).sum();
    assert!(stretches(&new) <= 4 && end < read + 1_000_000, "{new:?}");
    assert_eq!(start("b.sif", &[]), expected);
    let found = sandbox.slipway(["image", "check", "b.sif"]).succeed();
    assert!(found.contains(" blocks as they were written"), "{found}");

    // The config and Apptainer's documents are the same.
    let both = ["a.sif", "b.sif"].map(|name| Image::open(&sandbox.path(&format!("home/{name}"))).unwrap());
    assert_eq!(both[0].raw_config(), both[1].raw_config());
    let names = |image: &Image| {
        let sif = slipway::sif::Sif::read(&*image.file).unwrap();
        sif.objects.iter().map(|object| String::from_utf8(object.name.clone()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names(&both[0]), names(&both[1]));
    sandbox.assert_nothing_left();
}

/// A hot list of some blocks of an image, and its own files once it was laid out anew for them.
fn assert_same_tree(directory: &Path, image: &Path, tree: &Path) {
    let opened = Image::open(image).unwrap();
    let offset = opened.offset_bytes.to_string();
    let expected = tree::walk(tree, &|_| true);
    let unpacked = directory.join("unpacked");
    let words = ["-quiet", "-no-progress", "-o", &offset, "-d"];
    run("unsquashfs", &[&words[..], &[unpacked.to_str().unwrap(), image.to_str().unwrap()]].concat());
    tree::assert_equal(("source", &expected), ("unsquashfs", &tree::walk(&unpacked, &|_| true)));
    std::fs::remove_dir_all(&unpacked).unwrap();
}

#[test]
fn the_tree_is_the_same_whatever_the_source() {
    need!(root, userns, fuse, loop, tool "mksquashfs", tool "unsquashfs");
    let sandbox = Sandbox::new();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = directory.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    make_tree(&root);
    // Names with a newline and sockets are not what `find` and `unsquashfs` agree on.
    for name in [std::ffi::OsStr::new("socket"), std::os::unix::ffi::OsStrExt::from_bytes(b"new\nline \xff")]
    {
        std::fs::remove_file(root.join(name)).unwrap();
    }
    for options in
        ["-comp gzip -b 64K", "-comp zstd", "-comp lz4", "-comp lzo -no-fragments", "-comp xz -Xbcj x86"]
    {
        let source = sandbox.path("home/source.squashfs");
        pack(&root, &source, &options.split(' ').collect::<Vec<_>>());
        let reader =
            slipway::squashfs::read::Reader::open(Image::open(&source).unwrap().partition()).unwrap();
        let superblock = reader.superblock();
        // Every third block of some files, in another order than they lie.
        let mut hot = Vec::new();
        for path in
            ["usr/bin/large", "usr/lib/megabyte", "sparse", "usr/bin/megabyte", "usr/bin/block-and-one"]
        {
            let path = slipway::base::RelPath::parse(path.as_bytes()).unwrap();
            let inode = reader.resolve(&path, true).unwrap().unwrap();
            let slipway::squashfs::read::InodeKind::File(file) = &inode.kind else { panic!() };
            let blocks = reader.blocks(file).unwrap().into_iter().filter(|place| place.size_word != 0);
            hot.extend(blocks.step_by(3));
            hot.extend(reader.tail(file).ok().map(|(place, _)| place));
        }
        let list = sandbox.path("home/list");
        slipway::fuse::write_hot_list(&list, superblock, &hot).unwrap();
        let args = ["convert", "-F", "-q", "--optimize", "--hot", "list", "source.squashfs", "new.sif"];
        let output = sandbox.slipway(args).run();
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{options}: {output}");
        let new = sandbox.path("home/new.sif");
        assert_same_tree(directory.path(), &new, &root);
        let found = sandbox.slipway(["image", "check", "new.sif"]).succeed();
        assert!(found.contains(" blocks as they were written"), "{options}: {found}");
        assert!(sandbox.path("home/new.sif.run.hot").exists());

        // The kernel has no lzo or lz4 everywhere; where it has, it must agree.
        let offset = Image::open(&new).unwrap().offset_bytes;
        let script = format!("mount -t squashfs -o ro,loop,offset={offset} \"$0\" /mnt && cd /mnt && {LIST}");
        let output =
            Command::new("unshare").args(["--mount", "sh", "-euc", &script]).arg(&new).output().unwrap();
        if output.status.success() {
            let found = parse(&String::from_utf8(output.stdout).unwrap());
            tree::assert_equal(("source", &tree::walk(&root, &|_| true)), ("the kernel", &found));
        } else {
            assert!(
                !options.contains("gzip") && !options.contains("zstd"),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        std::fs::remove_file(source).unwrap();
    }
    sandbox.assert_nothing_left();
}

#[test]
fn what_cannot_be_optimized() {
    need!(userns, fuse, tool "mksquashfs", tool "busybox");
    let sandbox = Sandbox::new();
    make_root(&sandbox);
    let squashfs = sandbox.path("home/bare.sqsh");
    pack(&sandbox.path("root"), &squashfs, &["-comp", "gzip"]);
    let check = |args: &[&str], message: &str| {
        let output = sandbox.slipway(["convert", "--optimize"]).args(args).run();
        let hint = "  hint: record one with `slipway run --record-hot IMAGE COMMAND`\n";
        assert_eq!(output.stderr, format!("error: {message}\n{hint}"));
        assert_eq!(output.code, Some(1));
        assert!(!sandbox.path("home/b.sif").exists());
    };
    check(&["bare.sqsh", "b.sif"], "cannot optimize `bare.sqsh`: no start of it was recorded");
    sandbox.write("home/list", "slipway-hot 1 1 2 3\n96 7\n");
    check(&["--hot", "list", "bare.sqsh", "b.sif"], "cannot use `list`: it is no hot list of `bare.sqsh`");
    let output = sandbox.slipway(["convert", "--hot", "list", "oci:x", "b.sif"]).run();
    assert!(output.stderr.contains("--optimize"), "{output}");

    // A signature speaks of the old file.
    let signed = sandbox.write("home/old.sif", old_sif(&std::fs::read(&squashfs).unwrap(), "{}"));
    let list_for = |image: &Path| {
        let reader = slipway::squashfs::read::Reader::open(Image::open(image).unwrap().partition()).unwrap();
        let hot = [reader.fragment(0).unwrap()];
        slipway::fuse::write_hot_list(&sandbox.path("home/list"), reader.superblock(), &hot).unwrap();
    };
    list_for(&signed);
    let output = sandbox.slipway(["convert", "-q", "--optimize", "--hot", "list", "old.sif", "b.sif"]).run();
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (Some(0), "warning: left out: a signature, which is of the old file\n"),
        "{output}"
    );
    assert_eq!(sandbox.slipway(["run", "b.sif", "/bin/cat", "/data/small"]).succeed(), "a small file\n");

    // A damaged block must not be made anew with a sum that fits it.
    let mut image = TestImage::busybox();
    image.layers.push(Tar::new().file("etc/noise", 0o644, Noise::new(3).bytes(300_000)).finish());
    let path = image.convert(&sandbox, "a.sif");
    list_for(&path);
    let mut bytes = std::fs::read(&path).unwrap();
    let start = usize::try_from(Image::open(&path).unwrap().offset_bytes).unwrap() + 96;
    bytes[start + 1000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let output = sandbox.slipway(["convert", "-F", "--optimize", "--hot", "list", "a.sif", "b.sif"]).run();
    assert_eq!(
        output.stderr,
        "error: optimizing `[DIR]/home/a.sif`: the squashfs is damaged: block 0 at byte 96 is not what was written\n  \
         hint: copy or pull the image again; the copy at hand is not what was written\n"
    );
    sandbox.assert_nothing_left();
}
