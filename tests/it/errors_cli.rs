//! What a user reads when something is wrong: one message with the object and the cause, one hint, one exit code, and
//! nothing left behind.

use std::net::TcpListener;

use slipway::base::Digest;

use super::support::image::{Shape, TestImage, pack};
use super::support::layers::Tar;
use super::support::sandbox::{Output, Run, Sandbox};

/// Runs something that must fail with exactly this text, and looks for what it has left.
#[track_caller]
fn check(sandbox: &Sandbox, run: Run<'_>, code: i32, expected: &str) {
    let before = sandbox.files();
    let output = run.run();
    let Output { code: got, stdout, stderr, .. } = &output;
    assert_eq!((*got, stderr.as_str(), stdout.as_str()), (Some(code), expected, ""), "{output}");
    sandbox.assert_nothing_left();
    let new: Vec<_> = sandbox.files().into_iter().filter(|file| !before.contains(file)).collect();
    let images: Vec<_> = new.iter().filter(|file| file.extension().is_some_and(|ext| ext == "sif")).collect();
    assert!(images.is_empty(), "half an image: {images:?}");
}

/// An image without a program in it: enough for whatever fails before the start.
fn tiny() -> TestImage {
    let mut image = TestImage::busybox();
    image.layers = vec![
        Tar::new().directory("etc", 0o755).file("etc/a", 0o644, "a\n".repeat(3000)).finish(),
        Tar::new().file("etc/b", 0o644, "b\n").finish(),
    ];
    image
}

fn convert<'a>(sandbox: &'a Sandbox, source: &str) -> Run<'a> {
    sandbox.slipway(["convert", source, "out.sif"])
}

#[test]
fn an_archive_that_is_cut_off() {
    let sandbox = Sandbox::new();
    let bytes = pack(&tiny().archive_members(Shape::Oci));
    sandbox.write("home/image.tar", &bytes[..bytes.len() / 2]);
    check(&sandbox, convert(&sandbox, "docker-archive:image.tar"), 125, "");
    check(&sandbox, sandbox.slipway(["load", "-i", "image.tar"]), 125, "");
}

#[test]
fn an_archive_that_is_none() {
    let sandbox = Sandbox::new();
    sandbox.write("home/image.tar", "this is no tar archive\n".repeat(100));
    check(&sandbox, convert(&sandbox, "docker-archive:image.tar"), 125, "");
    let mut bytes = pack(&tiny().archive_members(Shape::Legacy));
    // Inside the name of the second member, whose checksum then is wrong.
    let second = 512 + tiny().layers[0].len();
    bytes[second + 5] ^= 0x40;
    sandbox.write("home/damaged.tar", &bytes);
    check(&sandbox, convert(&sandbox, "docker-archive:damaged.tar"), 125, "");
    check(&sandbox, convert(&sandbox, "docker-archive:absent.tar"), 125, "");
}

#[test]
fn a_layer_with_another_digest() {
    let sandbox = Sandbox::new();
    let image = tiny();
    let mut members = image.archive_members(Shape::Oci);
    let name = format!("blobs/sha256/{}", Digest::of(&image.layers[0]).hex());
    for (member, bytes) in &mut members {
        if *member == name {
            // In the content of a file, so that the tar itself stays sound.
            bytes[1024 + 7] ^= 1;
        }
    }
    sandbox.write("home/image.tar", pack(&members));
    check(&sandbox, convert(&sandbox, "docker-archive:image.tar"), 125, "");
    check(&sandbox, sandbox.slipway(["load", "-i", "image.tar"]), 125, "");
    let layout = image.write_layout(&sandbox, "layout");
    let mut bytes = image.layers[0].clone();
    bytes[1024 + 7] ^= 1;
    std::fs::write(layout.join(name), bytes).unwrap();
    check(&sandbox, convert(&sandbox, "oci:layout"), 125, "");
}

#[test]
fn a_layer_that_is_missing() {
    let sandbox = Sandbox::new();
    let image = tiny();
    let top = Digest::of(&image.layers[1]).hex();
    for (shape, file) in [(Shape::Oci, "oci.tar"), (Shape::Legacy, "legacy.tar")] {
        let mut members = image.archive_members(shape);
        members.retain(|(member, _)| !member.contains(&top));
        sandbox.write(&format!("home/{file}"), pack(&members));
    }
    check(&sandbox, convert(&sandbox, "docker-archive:oci.tar"), 125, "");
    check(&sandbox, convert(&sandbox, "docker-archive:legacy.tar"), 125, "");
    let layout = image.write_layout(&sandbox, "layout");
    std::fs::remove_file(layout.join("blobs/sha256").join(&top)).unwrap();
    check(&sandbox, convert(&sandbox, "oci:layout"), 125, "");
}

#[test]
fn an_image_for_another_machine() {
    need!(userns, fuse);
    let sandbox = Sandbox::new();
    let mut image = tiny();
    image.architecture = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" }.into();
    image.convert(&sandbox, "other.sif");
    check(&sandbox, sandbox.slipway(["run", "other.sif", "true"]), 125, "");
}

#[test]
fn no_space_for_the_image() {
    need!(userns);
    let sandbox = Sandbox::new();
    TestImage::busybox().save(&sandbox, "image.tar", Shape::Oci);
    sandbox.make_directory("home/full");
    // A mount of the test's own: a file system that is too small.
    let script = "mount -t tmpfs -o size=256k tmpfs full && exec \"$SLIPWAY\" \"$@\"";
    let full = |words: &[&str]| {
        sandbox
            .command("unshare", ["--user", "--map-root-user", "--mount", "/bin/sh", "-euc", script, "sh"])
            .env("SLIPWAY", sandbox.program())
            .args(words)
    };
    check(&sandbox, full(&["convert", "docker-archive:image.tar", "full/out.sif"]), 125, "");
    let load = full(&["load", "-i", "image.tar"]).env("XDG_DATA_HOME", sandbox.path("home/full"));
    check(&sandbox, load, 125, "");
}

/// `slipway run box.sif true` in a namespace where `prepare` was run as its root.
fn run_where<'a>(sandbox: &'a Sandbox, prepare: &str) -> Run<'a> {
    let script = format!("{prepare} && exec \"$SLIPWAY\" run box.sif true");
    sandbox
        .command("unshare", ["--user", "--map-root-user", "--mount", "/bin/sh", "-euc", &script])
        .env("SLIPWAY", sandbox.program())
}

#[test]
fn no_user_namespaces() {
    need!(userns, tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    // The limit of a user namespace is its own root's to set.
    check(&sandbox, run_where(&sandbox, "echo 0 >/proc/sys/user/max_user_namespaces"), 125, "");
}

#[test]
fn no_fuse_device() {
    need!(userns, tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    check(&sandbox, run_where(&sandbox, "mount -t tmpfs tmpfs /dev"), 125, "");
    // A file that only root may open stands for a device node with mode 0600.
    check(&sandbox, run_where(&sandbox, "mount --bind /etc/shadow /dev/fuse"), 125, "");
}

#[test]
fn binds_that_cannot_be() {
    need!(userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    sandbox.write("home/file", "x");
    let run = |bind: &str| sandbox.slipway(["run", "-v", bind, "box.sif", "true"]);
    check(&sandbox, run("./absent:/mnt/x"), 125, "");
    check(&sandbox, run("./file:/data"), 125, "");
    check(&sandbox, run("/tmp:/etc/os-release"), 125, "");
    check(&sandbox, run("./file:relative"), 125, "");
    check(&sandbox, run("./file:/etc/x:wo"), 125, "");
}

#[test]
fn commands_that_cannot_be() {
    need!(userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    let run = |command: &str| sandbox.slipway(["run", "box.sif", command]);
    check(&sandbox, run("no-such-command"), 127, "");
    check(&sandbox, run("/no/such/command"), 127, "");
    check(&sandbox, run("/etc/not-executable"), 126, "");
    check(&sandbox, run("/etc/not-a-program"), 126, "");
    check(&sandbox, run("/data"), 126, "");
    check(&sandbox, sandbox.slipway(["run", "-w", "/no/such", "box.sif", "true"]), 125, "");
    check(&sandbox, sandbox.slipway(["run", "-w", "data", "box.sif", "true"]), 125, "");
    let mut image = TestImage::busybox();
    image.config = serde_json::json!({"Env": ["PATH=/bin"]});
    image.convert(&sandbox, "mute.sif");
    check(&sandbox, sandbox.slipway(["run", "mute.sif"]), 125, "");
}

#[test]
fn images_that_are_not_there() {
    let sandbox = Sandbox::new();
    check(&sandbox, sandbox.slipway(["run", "absent.sif", "true"]), 125, "");
    check(&sandbox, sandbox.slipway(["run", "never-pulled", "true"]), 125, "");
    sandbox.write("home/broken.sif", "no image at all\n".repeat(1000));
    check(&sandbox, sandbox.slipway(["run", "broken.sif", "true"]), 125, "");
    check(&sandbox, sandbox.slipway(["run", "Not A Name", "true"]), 125, "");
}

#[test]
fn gpus_where_there_are_none() {
    need!(tool "busybox");
    if std::path::Path::new("/proc/driver/nvidia").exists() {
        return;
    }
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    check(&sandbox, sandbox.slipway(["run", "--gpus", "all", "box.sif", "true"]), 125, "");
    check(&sandbox, sandbox.slipway(["run", "--gpus", "some", "box.sif", "true"]), 125, "");
}

#[test]
fn a_registry_that_does_not_answer() {
    let sandbox = Sandbox::new();
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = sandbox.slipway(["pull", &format!("{address}/app:1")]).run();
    let stderr = output.stderr.replace(&address.to_string(), "[REGISTRY]");
    assert_eq!((output.code, stderr.as_str(), output.stdout.as_str()), (Some(125), "", ""));
    sandbox.assert_nothing_left();
}
