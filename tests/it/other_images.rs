//! Images that others have made, from a run to a check: every compressor of `mksquashfs`, enroot's `.sqsh`, and the SIFs of
//! Apptainer and of Singularity before it.

use super::foreign_image::{LIST, parse};
use super::squashfs_read::{Noise, pack};
use super::support::image::{Shape, TestImage};
use super::support::layers::Tar;
use super::support::registry::run;
use super::support::sandbox::Sandbox;
use super::support::tree;

/// A root with busybox and files of several blocks, below the sandbox.
pub(super) fn make_root(sandbox: &Sandbox) {
    for directory in ["bin", "etc", "data", "dev", "proc", "sys", "tmp"] {
        sandbox.make_directory(&format!("root/{directory}"));
    }
    let busybox = sandbox.path("root/bin/busybox");
    std::fs::copy("/bin/busybox", busybox).unwrap();
    for applet in ["sh", "cat", "sha256sum", "true"] {
        std::os::unix::fs::symlink("busybox", sandbox.path(&format!("root/bin/{applet}"))).unwrap();
    }
    let lines: String = (0..60_000).map(|line| format!("line {line}\n")).collect();
    sandbox.write("root/data/text", lines);
    sandbox.write("root/data/noise", Noise::new(5).bytes(300_000));
    sandbox.write("root/data/zeros", vec![0; 400_000]);
    sandbox.write("root/data/small", "a small file\n");
}

const FILES: [&str; 5] = ["bin/busybox", "data/text", "data/noise", "data/zeros", "data/small"];

/// What `sha256sum` prints of [`FILES`].
fn sums(sandbox: &Sandbox) -> String {
    let sum = |file: &&str| {
        let digest = tree::digest_of(&sandbox.path(&format!("root/{file}")));
        format!("{}  /{file}\n", digest.hex())
    };
    FILES.iter().map(sum).collect()
}

/// Runs an image, which must show the files of the root, and checks it.
#[track_caller]
fn assert_runs(sandbox: &Sandbox, image: &str, expected: &str) {
    let files = FILES.map(|file| format!("/{file}"));
    let output = sandbox.slipway(["run", image, "/bin/sha256sum"]).args(files).succeed();
    assert_eq!(output, expected, "{image}");
    let found = sandbox.slipway(["image", "check", image]).succeed();
    assert!(found.ends_with(": no fault\n"), "{image}: {found}");
}

/// Whether this `mksquashfs` has a compressor.
fn has_compressor(name: &str) -> bool {
    let output = std::process::Command::new("mksquashfs").arg("-help").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().any(|line| line.trim().split(' ').next() == Some(name))
}

#[test]
fn every_compressor_of_mksquashfs_runs() {
    need!(userns, fuse, tool "mksquashfs", tool "busybox");
    let sandbox = Sandbox::new();
    make_root(&sandbox);
    let expected = sums(&sandbox);
    for options in [
        "-comp gzip",
        "-comp gzip -Xwindow-size 9 -b 16K",
        "-comp zstd -Xcompression-level 3",
        "-comp lz4 -Xhc",
        "-comp lzo",
        "-comp lzo -Xalgorithm lzo1x_1 -b 1M",
        // As enroot does.
        "-comp lzo -noD -all-root -no-xattrs",
        "-comp xz",
        "-comp xz -Xbcj x86,arm -b 1M -Xdict-size 100%",
        "-comp xz -Xdict-size 8K",
        "-comp lzma",
    ] {
        let words: Vec<_> = options.split(' ').collect();
        if !has_compressor(words[1]) {
            super::support::need::tell_skipped(&format!("mksquashfs has no {}", words[1]));
            continue;
        }
        let image = sandbox.path("home/image.sqsh");
        pack(&sandbox.path("root"), &image, &words);
        assert_runs(&sandbox, "image.sqsh", &expected);
        std::fs::remove_file(image).unwrap();
    }
    sandbox.assert_nothing_left();
}

/// One object of [`old_sif`]: type, group, link, name, extra, data.
struct Object<'a>(i32, u32, u32, &'a str, Vec<u8>, &'a [u8]);

const GROUP: u32 = 0xf000_0001;
const NO_GROUP: u32 = 0xf000_0000;

/// A SIF as Singularity 3 wrote it: the data from 32768 on, each object on a multiple of 4096, owners, random names, and a
/// signature that is in no group. From the description of the format, not with our own writer.
pub(super) fn old_sif(squashfs: &[u8], run_config: &str) -> Vec<u8> {
    const DATA: usize = 32_768;
    let architecture = if cfg!(target_arch = "aarch64") { b"04\0" } else { b"02\0" };
    let partition = [&1_i32.to_le_bytes()[..], &2_i32.to_le_bytes(), architecture].concat();
    let signature = [&1_i32.to_le_bytes()[..], &[0x5a; 20]].concat();
    let objects = [
        Object(0x4001, GROUP, 0, ".", vec![], b"bootstrap: docker\nfrom: busybox\n"),
        Object(0x4006, GROUP, 0, "oci-config.json", vec![], run_config.as_bytes()),
        Object(0x4006, GROUP, 0, "inspect-metadata.json", vec![], b"{\"data\":{},\"type\":\"container\"}"),
        Object(0x4004, GROUP, 0, "ab3f-11", partition, squashfs),
        Object(0x4005, NO_GROUP, GROUP, "part-signature", signature, b"-----BEGIN PGP SIGNED MESSAGE-----\n"),
    ];
    let (mut table, mut data) = (Vec::new(), Vec::new());
    for (id, Object(kind, group, link, name, extra, bytes)) in (1_u32..).zip(&objects) {
        let end: usize = DATA + data.len();
        let start = end.next_multiple_of(4096);
        data.resize(start - DATA, 0);
        data.extend_from_slice(bytes);
        table.extend(kind.to_le_bytes());
        table.push(1);
        table.extend([id, *group, *link].iter().flat_map(|word| word.to_le_bytes()));
        let numbers =
            [start, bytes.len(), start - end + bytes.len(), 1_600_000_000, 1_600_000_000, 1000, 1001];
        table.extend(numbers.iter().flat_map(|number| (*number as u64).to_le_bytes()));
        let slot = table.len();
        table.extend_from_slice(name.as_bytes());
        table.resize(slot + 128, 0);
        table.extend_from_slice(extra);
        table.resize(slot + 128 + 384, 0);
    }
    let mut file = b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\x0001\0".to_vec();
    file.extend_from_slice(architecture);
    file.extend([7; 16]);
    let numbers = [1_600_000_000, 1_600_000_001, 43, 48, 4096, 48 * 585, DATA, data.len()];
    file.extend(numbers.iter().flat_map(|number| (*number as u64).to_le_bytes()));
    assert_eq!((file.len(), table.len()), (128, 5 * 585));
    file.resize(4096, 0);
    file.extend(table);
    file.resize(DATA, 0);
    file.extend(data);
    file
}

#[test]
fn a_sif_of_the_old_shape_runs() {
    need!(userns, fuse, tool "mksquashfs", tool "busybox");
    let sandbox = Sandbox::new();
    make_root(&sandbox);
    let expected = sums(&sandbox);
    let squashfs = sandbox.path("old.squashfs");
    let config = r#"{"Env":["PATH=/bin","FROM=image"],"Cmd":["sh","-c","echo $FROM"]}"#;
    for options in [["-comp", "gzip"], ["-comp", "zstd"]] {
        pack(&sandbox.path("root"), &squashfs, &options);
        sandbox.write("home/old.sif", old_sif(&std::fs::read(&squashfs).unwrap(), config));
        assert_runs(&sandbox, "old.sif", &expected);
        assert_eq!(sandbox.slipway(["run", "old.sif"]).succeed(), "image\n");
    }
    sandbox.assert_nothing_left();
}

/// What a cut file says, before anything is started or mounted: at the ends of the table, of an object, of the partition,
/// and within each.
#[test]
fn a_truncated_file_is_refused_before_the_start() {
    need!(userns, fuse, tool "mksquashfs", tool "busybox");
    let sandbox = Sandbox::new();
    make_root(&sandbox);
    let squashfs = sandbox.path("home/whole.squashfs");
    pack(&sandbox.path("root"), &squashfs, &["-comp", "gzip", "-nopad"]);
    let bare = std::fs::read(&squashfs).unwrap();
    let sif = old_sif(&bare, "{}");
    let check = |file: &str, whole: &[u8], length: usize, need: &str| {
        sandbox.write(&format!("home/{file}"), &whole[..length]);
        let hint = "\n  hint: download or copy the file again\n";
        for words in [&["run", file, "true"][..], &["run", "--plan", file], &["image", "check", file]] {
            let output = sandbox.slipway(words).run();
            assert!(output.stderr.contains(need) && output.stderr.ends_with(hint), "{length}: {output}");
            assert_eq!(output.stderr.lines().count(), 2, "{output}");
            assert_eq!(output.stdout, "");
        }
        assert_eq!(sandbox.processes(), []);
    };
    let end = sif.len();
    for length in [128, 4096, 20_000, 32_768, 40_000, end / 2, end - 4000, end - 1] {
        let need = format!("cannot use SIF `cut.sif`: file is cut short: have {length} bytes, needs ");
        check("cut.sif", &sif, length, &need);
    }
    for length in [60, 96, bare.len() / 2, bare.len() - 1] {
        let need = format!(
            "cannot use squashfs `cut.sqsh`: file is cut short: have {length} bytes of the squashfs, needs "
        );
        check("cut.sqsh", &bare, length, &need);
    }
    sandbox.assert_nothing_left();
}

/// The other way round: what Apptainer mounts images with sees in ours what we see.
#[test]
fn squashfuse_reads_what_we_write() {
    need!(root, fuse, tool "squashfuse", tool "unsquashfs", tool "busybox");
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    image.layers.push(Tar::new().file("etc/noise", 0o640, Noise::new(3).bytes(500_000)).finish());
    for compression in ["zstd", "gzip"] {
        let archive = image.save(&sandbox, "image.tar", Shape::Oci);
        let args = ["convert", "-F", "-q", "--compression", compression, "docker-archive:image.tar", "a.sif"];
        sandbox.slipway(args).succeed();
        std::fs::remove_file(archive).unwrap();
        let sif = sandbox.path("home/a.sif");
        let offset = slipway::image::Image::open(&sif).unwrap().offset_bytes;
        let unpacked = sandbox.path("unpacked");
        let words = ["-quiet", "-no-progress", "-o", &offset.to_string(), "-d"];
        run("unsquashfs", &[&words[..], &[unpacked.to_str().unwrap(), sif.to_str().unwrap()]].concat());
        // In a mount namespace of its own; the server ends with the mount.
        let script = format!("squashfuse -o offset={offset} \"$0\" /mnt; cd /mnt; {LIST}\ncd /; umount /mnt");
        let output = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-euc", &script])
            .arg(&sif)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found = parse(&String::from_utf8(output.stdout).unwrap());
        tree::assert_equal(("unsquashfs", &tree::walk(&unpacked, &|_| true)), ("squashfuse", &found));
        std::fs::remove_dir_all(unpacked).unwrap();
    }
}
