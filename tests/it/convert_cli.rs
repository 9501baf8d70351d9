//! `slipway convert`, `load` and `image check` as a user meets them: flags, progress, warnings.

use serde_json::{Value, json};

use super::squashfs_read::Noise;
use super::support::image::{Shape, TestImage, goarch, pack};
use super::support::layers::Tar;
use super::support::sandbox::{Sandbox, wait_until};

/// An image with a file of several blocks and `more` behind it.
fn image(more: impl FnOnce(Tar) -> Tar) -> Vec<u8> {
    let text: String = (0..60_000).map(|line| format!("line {line}\n")).collect();
    let mut image = TestImage::busybox();
    image.layers = vec![
        Tar::new().directory("etc", 0o755).file("etc/text", 0o644, text).finish(),
        more(Tar::new().file("etc/b", 0o644, "b\n")).finish(),
    ];
    pack(&image.archive_members(Shape::Oci))
}

#[test]
fn every_compressor_can_be_asked_for_and_checked() {
    let sandbox = Sandbox::new();
    sandbox.write("home/image.tar", image(|tar| tar));
    for compression in ["zstd:19", "zstd", "gzip:9", "lz4", "none"] {
        let args = ["convert", "-F", "--compression", compression, "docker-archive:image.tar", "a.sif"];
        assert_eq!(sandbox.slipway(args).succeed(), "a.sif\n");
        let found = sandbox.slipway(["image", "check", "a.sif"]).succeed();
        assert!(found.starts_with("a.sif: ") && found.ends_with(": no fault\n"), "{compression}: {found}");
        assert!(found.contains(" blocks as they were written, "), "{compression}: {found}");
    }
    let output = sandbox.slipway(["convert", "--compression", "zstd:20", "oci:x", "a.sif"]).run();
    assert!(output.stderr.contains("'--compression <NAME[:LEVEL]>': not one of \"zstd:LEVEL\""), "{output}");
}

#[test]
fn a_check_names_the_damaged_file() {
    let sandbox = Sandbox::new();
    sandbox.write("home/image.tar", image(|tar| tar));
    sandbox.slipway(["convert", "-q", "docker-archive:image.tar", "a.sif"]).succeed();
    let path = sandbox.path("home/a.sif");
    let mut bytes = std::fs::read(&path).unwrap();
    // The file's first block begins behind the superblock: no zstd frame without its magic.
    let start = bytes.windows(4).position(|window| window == b"hsqs").unwrap() + 96;
    let magic = bytes[start..].windows(4).position(|window| window == [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    bytes[start + magic] ^= 0xff;
    std::fs::write(&path, &bytes).unwrap();
    let output = sandbox.slipway(["image", "check", "a.sif"]).run();
    assert_eq!(output.code, Some(1), "{output}");
    assert_eq!(output.stdout, "");
    let (fault, rest) = output.stderr.split_once('\n').unwrap();
    let place = magic + 96;
    assert_eq!(
        fault,
        format!("`/etc/text`: the squashfs is damaged: data block 0 at byte {place} is not what was written"),
        "{output}"
    );
    assert!(rest.starts_with("error: `a.sif` is damaged: 1 fault\n  hint: "), "{output}");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let output = sandbox.slipway(["image", "check", "a.sif"]).run();
    assert!(output.stderr.contains("file is cut short"), "{output}");
}

#[test]
fn what_builders_leave_behind_is_said() {
    let sandbox = Sandbox::new();
    let (mut foreign, number) = (b"\x7fELF\x02\x01\x01".to_vec(), if goarch() == "amd64" { 183 } else { 62 });
    foreign.resize(64, 0);
    foreign[18] = number;
    let bytes = image(|tar| {
        tar.directory("lib", 0o755)
            .file("lib/libcuda.so.1", 0o644, "")
            .file("lib/libnvidia-ml.so.1", 0o644, "")
            .file("lib/empty", 0o644, "")
            .file("lib/su", 0o4755, "x")
            .file("lib/other", 0o755, &foreign)
    });
    sandbox.write("home/image.tar", bytes);
    let output = sandbox.slipway(["load", "-q", "-i", "image.tar"]).run();
    let lines: Vec<_> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{output}");
    for start in [
        "warning: 2 files of the GPU driver are empty, such as `/lib/libcuda.so.1`",
        "warning: 1 file is setuid or setgid, such as `/lib/su`",
        "warning: 1 file is for ",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}: {output}");
    }
}

#[test]
fn progress_is_lines_or_json_or_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write("home/image.tar", image(|tar| tar));
    let convert = |flags: &[&str]| {
        let args = ["convert", "-F", "docker-archive:image.tar", "a.sif"];
        let output = sandbox.slipway(args.iter().chain(flags)).run();
        assert_eq!((output.code, output.stdout.as_str()), (Some(0), "a.sif\n"), "{output}");
        output.stderr
    };
    let lines = convert(&[]);
    assert!(lines.starts_with("Converted: 2 layers, 3 entries, ") && lines.lines().count() == 1, "{lines}");
    assert_eq!(convert(&["-q"]), "");
    let bars = convert(&["--progress", "tty"]);
    assert!(bars.contains(": Converting  [") && bars.contains("\x1b[1A\r\x1b[J"), "{bars:?}");
    let json = convert(&["--progress=json"]);
    let events: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<_> =
        events.iter().filter(|event| event["state"] != "progress").map(|event| &event["event"]).collect();
    assert_eq!(json!(states), json!(["layer", "layer", "layer", "layer", "converted"]), "{json}");
    assert_eq!(events.last().unwrap()["layers"], 2);
}

/// Sums that are not those of the file's squashfs, and a list that is damaged itself.
#[test]
fn a_list_of_sums_must_fit() {
    let sandbox = Sandbox::new();
    sandbox.write("home/image.tar", image(|tar| tar));
    sandbox.slipway(["convert", "-q", "docker-archive:image.tar", "a.sif"]).succeed();
    sandbox.write("home/image.tar", image(|tar| tar.file("etc/c", 0o644, "c\n".repeat(90_000))));
    sandbox.slipway(["convert", "-q", "docker-archive:image.tar", "b.sif"]).succeed();
    let read = |name: &str| std::fs::read(sandbox.path(&format!("home/{name}"))).unwrap();
    let list_of = |bytes: &[u8]| {
        let sif = slipway::sif::Sif::read(&bytes.to_vec()).unwrap();
        let list = sif.find_raw(slipway::sif::SUMS).unwrap();
        let start = usize::try_from(list.offset_bytes).unwrap();
        start..start + usize::try_from(list.size_bytes).unwrap()
    };
    let (mut a, b) = (read("a.sif"), read("b.sif"));
    let (own, other) = (list_of(&a), list_of(&b));
    assert!(own.end == a.len() && own.len() + 20 <= other.len(), "{own:?} {other:?}: a block more");

    // The other list in place of the own one: the table is told its length.
    let sif = slipway::sif::Sif::read(&a).unwrap();
    let slot = sif.objects.iter().position(|object| object.name == slipway::sif::SUMS.as_bytes()).unwrap();
    let size_at = 4096 + slot * 585 + 25;
    a.truncate(own.start);
    a.extend_from_slice(&b[other.clone()]);
    a[size_at..size_at + 8].copy_from_slice(&(other.len() as u64).to_le_bytes());
    sandbox.write("home/foreign.sif", &a);
    let output = sandbox.slipway(["image", "check", "foreign.sif"]).run();
    assert_eq!(
        output.stderr,
        "sums: the list of sums is of another squashfs: its blocks do not end where the tables of this one begin\n\
         error: `foreign.sif` is damaged: 1 fault\n  \
         hint: make the image again, or copy it again; if its file system was exchanged on purpose, remove the list\n"
    );

    let mut damaged = read("a.sif");
    damaged[own.start + 100] ^= 1;
    sandbox.write("home/damaged.sif", &damaged);
    let output = sandbox.slipway(["image", "check", "damaged.sif"]).run();
    assert_eq!(
        output.stderr,
        "error: cannot use SIF `[DIR]/home/damaged.sif`: object `slipway-sums` cannot be used: it is damaged itself\n  \
         hint: download or copy the file again\n"
    );
}

#[test]
fn a_killed_conversion_leaves_nothing() {
    let sandbox = Sandbox::new();
    if let Err(error) = slipway::sys::nameless::create(&sandbox.path("home"), 0o600) {
        return super::support::need::tell_skipped(&format!("no files without a name here: {error}"));
    }
    let noise = Noise::new(9).bytes(48 << 20);
    sandbox.write("home/image.tar", image(|tar| tar.file("etc/noise", 0o644, noise)));
    let args = ["convert", "--compression", "zstd:19", "docker-archive:image.tar", "a.sif"];
    let before = sandbox.files();
    let mut child = sandbox.slipway(args).spawn();
    let home = sandbox.path("home");
    let is_writing = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        let size = std::fs::metadata(entry.path()).map_or(0, |facts| facts.len());
        target.starts_with(&home) && target.to_string_lossy().ends_with(" (deleted)") && size > 40_000
    };
    let fds = format!("/proc/{}/fd", child.id());
    wait_until("the image is being written", || std::fs::read_dir(&fds).unwrap().flatten().any(is_writing));
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(sandbox.files(), before);
}
