//! What a user reads when something is wrong: one message with the object and the cause, one hint, one exit code, and
//! nothing left behind.

use std::net::TcpListener;

use slipway::base::Digest;

use super::support::image::{Shape, TestImage, goarch, pack};
use super::support::layers::Tar;
use super::support::registry::{OCI_INDEX, OCI_MANIFEST, OciImage, Packing, Registry};
use super::support::sandbox::{Output, Run, Sandbox};

/// Runs something that must fail with exactly this text, and looks for what it has left.
#[track_caller]
fn check(sandbox: &Sandbox, run: Run<'_>, code: i32, message: &str, hint: &str) {
    let before = sandbox.files();
    let output = run.run();
    let hint = if hint.is_empty() { String::new() } else { format!("  hint: {hint}\n") };
    let expected = format!("error: {message}\n{hint}");
    let Output { code: got, stdout, stderr, .. } = &output;
    // Lines of progress come before the error; nothing may come behind it.
    let stderr = stderr.find("error: ").map_or(stderr.as_str(), |start| &stderr[start..]);
    let stderr = without_key(&without_step_numbers(stderr));
    assert_eq!((*got, stderr.as_str(), stdout.as_str()), (Some(code), expected.as_str(), ""), "{output}");
    sandbox.assert_nothing_left();
    let new: Vec<_> = sandbox.files().into_iter().filter(|file| !before.contains(file)).collect();
    let images: Vec<_> = new.iter().filter(|file| file.extension().is_some_and(|ext| ext == "sif")).collect();
    assert!(images.is_empty(), "half an image: {images:?}");
}

/// `step 3 of 46` as `step N of M`: how many steps a plan has depends on what the host has.
fn without_step_numbers(text: &str) -> String {
    let Some((before, rest)) = text.split_once(": step ") else { return text.into() };
    let (_, rest) = rest.split_once(", ").unwrap();
    format!("{before}: step N of M, {rest}")
}

/// A run file has a name of a digest and the writer's version.
fn without_key(text: &str) -> String {
    let Some((before, rest)) = text.split_once("/slipway/images/") else { return text.into() };
    let (_, rest) = rest.split_once('`').unwrap();
    format!("{before}/slipway/images/KEY`{rest}")
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
    check(
        &sandbox,
        convert(&sandbox, "docker-archive:image.tar"),
        1,
        "`image.tar`: the archive is truncated: it ends inside a header, at byte 8960",
        "copy it again, or save the image again",
    );
    check(
        &sandbox,
        sandbox.slipway(["load", "-i", "image.tar"]),
        1,
        "`image.tar`: the archive is truncated: it ends inside a header, at byte 8960",
        "copy it again, or save the image again",
    );
}

#[test]
fn an_archive_that_is_none() {
    let sandbox = Sandbox::new();
    sandbox.write("home/image.tar", "this is no tar archive\n".repeat(100));
    check(
        &sandbox,
        convert(&sandbox, "docker-archive:image.tar"),
        1,
        "`image.tar`: the header at byte 0 has a wrong checksum: the archive is damaged or not a tar",
        "copy it again, or save the image again",
    );
    let mut bytes = pack(&tiny().archive_members(Shape::Legacy));
    // Inside the name of the second member, whose checksum then is wrong.
    let second = 512 + tiny().layers[0].len();
    bytes[second + 5] ^= 0x40;
    sandbox.write("home/damaged.tar", &bytes);
    check(
        &sandbox,
        convert(&sandbox, "docker-archive:damaged.tar"),
        1,
        "`damaged.tar`: the header at byte 8704 has a wrong checksum: the archive is damaged or not a tar",
        "copy it again, or save the image again",
    );
    check(
        &sandbox,
        convert(&sandbox, "docker-archive:absent.tar"),
        1,
        "`absent.tar`: it cannot be read: No such file or directory (os error 2)",
        "check the path: it counts from the current directory",
    );
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
    check(
        &sandbox,
        convert(&sandbox, "docker-archive:image.tar"),
        1,
        "layer 1 of 2 (`sha256:1b6c82a19540d4fdf34dbd3627e227578d7e5737c4959d2f4849f88039b1870b`): content does not match its digest, it has `sha256:cdb3ba0601362690d2cfa0e38119c07d3eb562907b6f98f4c39f9fe94630b697`",
        "pull or load the image again; if it stays, whoever made the image has to make it again",
    );
    check(
        &sandbox,
        sandbox.slipway(["load", "-i", "image.tar"]),
        1,
        "layer 1 of 2 (`sha256:1b6c82a19540d4fdf34dbd3627e227578d7e5737c4959d2f4849f88039b1870b`): content does not match its digest, it has `sha256:cdb3ba0601362690d2cfa0e38119c07d3eb562907b6f98f4c39f9fe94630b697`",
        "pull or load the image again; if it stays, whoever made the image has to make it again",
    );
    let layout = image.write_layout(&sandbox, "layout");
    let mut bytes = image.layers[0].clone();
    bytes[1024 + 7] ^= 1;
    std::fs::write(layout.join(name), bytes).unwrap();
    check(
        &sandbox,
        convert(&sandbox, "oci:layout"),
        1,
        "layer 1 of 2 (`sha256:1b6c82a19540d4fdf34dbd3627e227578d7e5737c4959d2f4849f88039b1870b`): content does not match its digest, it has `sha256:cdb3ba0601362690d2cfa0e38119c07d3eb562907b6f98f4c39f9fe94630b697`",
        "pull or load the image again; if it stays, whoever made the image has to make it again",
    );
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
    check(
        &sandbox,
        convert(&sandbox, "docker-archive:oci.tar"),
        1,
        "`oci.tar`: the layer `blobs/sha256/a19d536fb95059bb57babc280b8fb59614912f71f8409b9ef64d3178a3751ffd` is missing",
        "copy it again, or save the image again",
    );
    check(
        &sandbox,
        convert(&sandbox, "docker-archive:legacy.tar"),
        1,
        "`legacy.tar`: the layer `a19d536fb95059bb57babc280b8fb59614912f71f8409b9ef64d3178a3751ffd/layer.tar` is missing",
        "copy it again, or save the image again",
    );
    let layout = image.write_layout(&sandbox, "layout");
    std::fs::remove_file(layout.join("blobs/sha256").join(&top)).unwrap();
    check(
        &sandbox,
        convert(&sandbox, "oci:layout"),
        1,
        "`layout`: the layer `sha256:a19d536fb95059bb57babc280b8fb59614912f71f8409b9ef64d3178a3751ffd` is missing",
        "copy it again, or save the image again",
    );
}

#[test]
fn an_image_for_another_machine() {
    need!(userns, fuse);
    let sandbox = Sandbox::new();
    let mut image = tiny();
    let (host, other) = if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
    image.architecture = other.into();
    image.convert(&sandbox, "other.sif");
    check(
        &sandbox,
        sandbox.slipway(["run", "other.sif", "true"]),
        125,
        &format!("cannot run `other.sif`: the image is for {other} and this host is {host}"),
        "get the image for this host: `slipway pull --platform` says which there are",
    );
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
    check(
        &sandbox,
        full(&["convert", "docker-archive:image.tar", "full/out.sif"]),
        1,
        "converting to `full/out.sif`: writing the squashfs: No space left on device (os error 28)",
        "free space where the image is written, or write it elsewhere",
    );
    let load = full(&["load", "-i", "image.tar"]).env("HOME", sandbox.path("home/full"));
    check(
        &sandbox,
        load,
        1,
        "converting to `[DIR]/home/full/.local/share/slipway/images/KEY`: writing the squashfs: No space left on device (os error 28)",
        "free space where the image is written, or write it elsewhere",
    );
}

#[test]
fn a_limit_of_file_sizes_is_told() {
    need!(userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    let image = TestImage::busybox();
    image.convert(&sandbox, "box.sif");
    image.save(&sandbox, "image.tar", Shape::Oci);
    check(
        &sandbox,
        sandbox.shell("ulimit -f 0; exec $SLIPWAY convert docker-archive:image.tar small.sif"),
        1,
        "converting to `small.sif`: writing the squashfs: File too large (os error 27)",
        "raise `ulimit -f`, or write the image where larger files can be",
    );
    let load = sandbox.shell("ulimit -f 0; exec $SLIPWAY load -i image.tar").run();
    assert!(load.stderr.contains("File too large (os error 27)\n  hint: raise `ulimit -f`"), "{load}");
    check(
        &sandbox,
        sandbox.shell("ulimit -f 0; exec $SLIPWAY run box.sif true"),
        125,
        "cannot start `box.sif`: step N of M, make file `/.slipway/run/files/etc-passwd`: the limit of file sizes is \
         too low (EFBIG)",
        "raise `ulimit -f`",
    );
    // The workload meets its limit as outside.
    let script = "ulimit -f 8; exec $SLIPWAY run box.sif sh -c 'exec cat box.sif >large'";
    let output = sandbox.shell(script).run();
    assert_eq!((output.code, output.signal), (None, Some(25)), "{output}");
    let script = "trap '' XFSZ; ulimit -f 8; exec $SLIPWAY run box.sif sh -c 'cat box.sif 2>/dev/null >large; echo not killed'";
    assert_eq!(sandbox.shell(script).run().stdout, "not killed\n");
}

/// `slipway run box.sif true` in a namespace where `prepare` was run as its root.
fn run_where<'a>(sandbox: &'a Sandbox, prepare: &str) -> Run<'a> {
    let script = format!("{prepare} && exec \"$SLIPWAY\" run --rootfs fuse box.sif true");
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
    check(
        &sandbox,
        run_where(&sandbox, "echo 0 >/proc/sys/user/max_user_namespaces"),
        125,
        "cannot start `box.sif`: step N of M, new user namespace: limit reached (ENOSPC)",
        "this node has user.max_user_namespaces = 0; an administrator must set `sysctl user.max_user_namespaces=15000`",
    );
}

#[test]
fn no_fuse_device() {
    need!(userns, tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    check(
        &sandbox,
        run_where(&sandbox, "mount -t tmpfs tmpfs /dev"),
        125,
        "cannot start `box.sif`: step N of M, mount the image: this host has no `/dev/fuse` (ENOENT)",
        "an administrator must load the module: `modprobe fuse`",
    );
    // A file that only root may open stands for a device node with mode 0600.
    check(
        &sandbox,
        run_where(&sandbox, "mount --bind /etc/shadow /dev/fuse"),
        125,
        "cannot start `box.sif`: step N of M, mount the image: `/dev/fuse` may not be opened by this user (EACCES)",
        "an administrator must allow it: `chmod 0666 /dev/fuse`, the mode that udev gives it",
    );
}

#[test]
fn binds_that_cannot_be() {
    need!(userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    sandbox.write("home/file", "x");
    let run = |bind: &str| sandbox.slipway(["run", "-v", bind, "box.sif", "true"]);
    check(
        &sandbox,
        run("./absent:/mnt/x"),
        125,
        "cannot bind `-v ./absent:/mnt/x`: `[DIR]/home/./absent` does not exist on this host",
        "create it with `mkdir -p [DIR]/home/./absent`, or correct the path",
    );
    check(
        &sandbox,
        run("./file:/data"),
        125,
        "cannot bind `-v ./file:/data`: the source is a file but `/data` in the image is a directory",
        "bind a file on a file and a directory on a directory",
    );
    check(
        &sandbox,
        run("/tmp:/etc/os-release"),
        125,
        "cannot bind `-v /tmp:/etc/os-release`: the source is a directory but `/etc/os-release` in the image is a file",
        "bind a file on a file and a directory on a directory",
    );
    check(
        &sandbox,
        sandbox.slipway(["run", "--device", "/dev/null:/.slipway/run", "box.sif", "true"]),
        125,
        "cannot mount `--device /dev/null:/.slipway/run`: Slipway's own files lie in `/.slipway`",
        "mount to another place",
    );
    check(
        &sandbox,
        run("./file:relative"),
        125,
        "`-v ./file:relative`: the path inside the container, `relative`, is not absolute",
        "begin the second part with `/`",
    );
    check(
        &sandbox,
        run("fi le:/mnt/x"),
        125,
        "`-v fi le:/mnt/x`: `fi le` is neither a path nor a name that a volume may have",
        "for a directory of that name write `-v ./fi le:…`",
    );
    check(
        &sandbox,
        run("./file:/etc/x:wo"),
        125,
        "`-v ./file:/etc/x:wo`: unknown option `wo`",
        "the options are ro and rw",
    );
}

#[test]
fn commands_that_cannot_be() {
    need!(userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    let run = |command: &str| sandbox.slipway(["run", "box.sif", command]);
    check(
        &sandbox,
        run("no-such-command"),
        127,
        "command `no-such-command` not found in the image: its PATH is `/bin`",
        "`slipway run IMAGE ls /usr/bin` shows what the image has",
    );
    check(
        &sandbox,
        run("/no/such/command"),
        127,
        "command `/no/such/command` not found in the image: no such file",
        "`slipway run IMAGE ls /usr/bin` shows what the image has",
    );
    check(
        &sandbox,
        run("/etc/not-executable"),
        126,
        "command `/etc/not-executable` cannot be executed: `/etc/not-executable` may not be executed (check its mode)",
        "",
    );
    check(
        &sandbox,
        run("/etc/not-a-program"),
        126,
        "command `/etc/not-a-program` cannot be executed: `/etc/not-a-program` is neither a program nor a script that begins with `#!` (ENOEXEC)",
        "",
    );
    check(&sandbox, run("/data"), 126, "command `/data` cannot be executed: `/data` is a directory", "");
    check(
        &sandbox,
        sandbox.slipway(["run", "-w", "/no/such", "box.sif", "true"]),
        125,
        "cannot start `box.sif`: step N of M, enter directory `/no/such`: no such directory in the container (ENOENT)",
        "choose another with `-w`, or bind it with `-v`",
    );
    check(
        &sandbox,
        sandbox.slipway(["run", "-w", "data", "box.sif", "true"]),
        125,
        "working directory `data` is not absolute",
        "give `-w` a path that starts with `/`",
    );
    let mut image = TestImage::busybox();
    image.config = serde_json::json!({"Env": ["PATH=/bin"]});
    image.convert(&sandbox, "mute.sif");
    check(
        &sandbox,
        sandbox.slipway(["run", "mute.sif"]),
        125,
        "no command specified: the image has no ENTRYPOINT and no CMD",
        "name a command behind the image: `slipway run IMAGE COMMAND`",
    );
}

#[test]
fn images_that_are_not_there() {
    let sandbox = Sandbox::new();
    check(
        &sandbox,
        sandbox.slipway(["run", "absent.sif", "true"]),
        125,
        "cannot open image `absent.sif`: No such file or directory (os error 2)",
        "check the path; an image of a registry is named without `/` or `./` before it",
    );
    sandbox.write("home/broken.sif", "no image at all\n".repeat(1000));
    check(
        &sandbox,
        sandbox.slipway(["run", "broken.sif", "true"]),
        125,
        "`broken.sif` is not an image: it is neither a SIF nor a squashfs",
        "give a .sif or squashfs file, or the name of an image",
    );
    check(
        &sandbox,
        sandbox.slipway(["run", "Not A Name", "true"]),
        125,
        "`Not A Name` is not an image name: the repository must be lower case",
        "write `not a name`",
    );
}

#[test]
fn gpus_where_there_are_none() {
    need!(tool "busybox");
    if std::path::Path::new("/proc/driver/nvidia").exists() {
        return;
    }
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    check(
        &sandbox,
        sandbox.slipway(["run", "--gpus", "all", "box.sif", "true"]),
        125,
        "--gpus all: this node has no GPU that can be used: no NVIDIA driver is loaded (neither /sys/module/nvidia nor /proc/driver/nvidia nor /dev/nvidiactl exists); no AMD GPU (/sys/class/kfd); no discrete Intel GPU; no Gaudi",
        "leave out --gpus to run the same command on nodes with and without GPUs, or start it on a GPU node",
    );
    check(
        &sandbox,
        sandbox.slipway(["run", "--gpus", "some", "box.sif", "true"]),
        125,
        "invalid value `some` for --gpus: `some` is no number of GPUs",
        "use `--gpus all`, `none`, `job`, a number, or `device=` with indices or UUIDs, as in `--gpus device=0,2`",
    );
}

#[test]
fn a_registry_that_does_not_answer() {
    let sandbox = Sandbox::new();
    // A port that was free a moment ago.
    let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let message = format!("cannot reach `{host}`: connection refused");
    let hint = "check the port, and that the registry is running";
    check(&sandbox, sandbox.slipway(["pull", &format!("{host}/app:1")]), 1, &message, hint);
    check(&sandbox, sandbox.slipway(["run", &format!("{host}/app:1"), "true"]), 125, &message, hint);
    check(
        &sandbox,
        sandbox.slipway(["convert", &format!("docker://{host}/app:1"), "a.sif"]),
        1,
        &message,
        hint,
    );
}

#[test]
fn what_a_registry_does_not_have() {
    need!(registry, tool "skopeo");
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let host = &registry.host;
    let image = OciImage::new(goarch(), &[(Packing::Gzip, b"content"), (Packing::Zstd, b"more")]);
    registry.push(&image, "app:1");
    let pull = |name: &str| sandbox.slipway(["pull", &format!("{host}/{name}")]);
    let absent = |name: &str| format!("`{host}` has no image `{host}/{name}`");
    let hint = "check the tag; tags are case sensitive";
    check(&sandbox, pull("app:2"), 1, &absent("app:2"), hint);
    check(&sandbox, pull("nobody/nothing"), 1, &absent("nobody/nothing:latest"), hint);

    let blob = registry.blob_file(image.layers[1]);
    let mut bytes = std::fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let (has, said) = (Digest::of(&bytes), image.layers[1]);
    std::fs::write(&blob, bytes).unwrap();
    check(
        &sandbox,
        pull("app:1"),
        1,
        &format!("the layer {said} from `{host}` is damaged: its digest is {has}, not {said}"),
        "nothing was kept; if it happens again, the registry or a proxy on the way holds a damaged copy",
    );
}

#[test]
fn an_index_without_an_image_for_this_machine() {
    need!(registry, tool "skopeo");
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let host = &registry.host;
    let (own, other) = if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
    let image = OciImage::new(other, &[(Packing::Gzip, b"elsewhere")]);
    registry.push(&image, "app:1");
    let entry = serde_json::json!({
        "mediaType": OCI_MANIFEST,
        "digest": image.manifest.to_string(),
        "size": image.manifest_bytes,
        "platform": {"os": "linux", "architecture": other},
    });
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]});
    registry.put_manifest("/v2/app/manifests/many", OCI_INDEX, &index.to_string());
    let pull = sandbox.slipway(["pull", &format!("{host}/app:many")]);
    let message = format!(
        "cannot use `{host}/app:many`: the image is not there for linux/{own}, only for linux/{other}"
    );
    let hint = format!("ask for one that is there, such as `--platform linux/{other}`");
    check(&sandbox, pull, 1, &message, &hint);
}

#[test]
fn a_layer_that_was_damaged_in_the_store_is_fetched_again() {
    need!(registry, tool "skopeo");
    let sandbox = Sandbox::new();
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.host);
    let image = OciImage::new(goarch(), &[(Packing::Gzip, b"content"), (Packing::Zstd, b"more")]);
    registry.push(&image, "app:1");
    sandbox.slipway(["pull", &name]).succeed();
    let files = sandbox.files();
    let find = |ending: &str| {
        let found = files.iter().find(|file| file.to_string_lossy().ends_with(ending)).unwrap();
        sandbox.path("home").join(found)
    };
    let (blob, run_file) = (find(image.layers[1].hex().as_str()), find(".sif"));
    let whole = std::fs::read(&blob).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&flipped[..], &whole[..whole.len() - 1]] {
        std::fs::write(&blob, damaged).unwrap();
        std::fs::remove_file(&run_file).unwrap();
        sandbox.slipway(["pull", &name]).succeed();
        assert_eq!(std::fs::read(&blob).unwrap(), whole);
        assert!(run_file.exists());
    }
}
