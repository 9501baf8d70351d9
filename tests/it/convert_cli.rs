//! `slipway convert`, `load` and `image check` as a user meets them: flags, progress, warnings.

use serde_json::{Value, json};

use super::support::image::{Shape, TestImage, goarch, pack};
use super::support::layers::Tar;
use super::support::sandbox::Sandbox;

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
    assert!(fault.starts_with("`/etc/") && fault.contains("does not decompress"), "{output}");
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
