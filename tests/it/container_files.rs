//! The files of containers: cp, diff, commit, export, import; and that no link of a container leads to the host.

use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::Value;
use slipway::tarlayer::{EntryKind, TarReader};

use super::support::image::{Shape, TestImage};
use super::support::layers::Tar;
use super::support::registry::Registry;
use super::support::sandbox::wait_until;
use super::support::yard::Yard;

/// Names, kinds and contents of a tar.
fn members(bytes: &[u8]) -> Vec<(String, EntryKind, Vec<u8>)> {
    let mut reader = TarReader::new(bytes);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        reader.data().read_to_end(&mut content).unwrap();
        found.push((String::from_utf8(entry.path).unwrap(), entry.kind, content));
    }
    found
}

pub(super) fn names(bytes: &[u8]) -> Vec<String> {
    members(bytes).into_iter().map(|(name, ..)| name).collect()
}

/// A writable container that runs.
fn start_writable(yard: &Yard, name: &str, image: &str) {
    yard.start(&["--name", name, "--writable-tmpfs", image, "sleep", "1000"]);
}

#[test]
fn copies_as_docker_does() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    start_writable(&yard, "box", "box.sif");
    let sh = |script: &str| yard.ok(&["exec", "box", "sh", "-c", script]);
    let home = |name: &str| yard.sandbox.path(&format!("home/{name}"));
    let text = |name: &str| std::fs::read_to_string(home(name)).unwrap();
    let cp = |from: &str, to: &str| assert_eq!(yard.ok(&["cp", from, to]), "");
    yard.sandbox.write("home/one", "1\n");
    std::fs::set_permissions(home("one"), std::fs::Permissions::from_mode(0o751)).unwrap();
    yard.sandbox.make_directory("home/dir/sub");
    yard.sandbox.write("home/dir/sub/two", "2\n");
    std::os::unix::fs::symlink("sub/two", home("dir/link")).unwrap();
    // A file: to a new name, over a file, into a directory.
    cp("one", "box:/data/new");
    cp("one", "box:/data");
    assert_eq!(sh("cat /data/new /data/one; stat -c %a /data/one"), "1\n1\n751\n");
    cp("dir/sub/two", "box:data/one");
    assert_eq!(sh("cat /data/one"), "2\n");
    yard.fails(&["cp", "one", "box:/absent/"], 1, "the destination directory `/absent/` must exist");
    yard.fails(&["cp", "one", "box:/absent/x"], 1, "could not find the file `/absent` in container box");
    // A directory: as a new one, into one, its contents, on a file.
    cp("dir", "box:/data/made");
    cp("dir", "box:/data");
    cp("dir/.", "box:/data/made/sub");
    assert_eq!(
        sh("cd /data; find made dir | sort; readlink dir/link"),
        "dir\ndir/link\ndir/sub\ndir/sub/two\nmade\nmade/link\nmade/sub\nmade/sub/link\nmade/sub/sub\n\
         made/sub/sub/two\nmade/sub/two\nsub/two\n"
    );
    yard.fails(&["cp", "dir", "box:/data/new"], 1, "cannot copy directory: `/data/new` is a file");
    // Links: kept, or followed.
    cp("dir/link", "box:/data/kept");
    yard.ok(&["cp", "-L", "dir/link", "box:/data/followed"]);
    assert_eq!(sh("readlink /data/kept; cat /data/followed"), "sub/two\n2\n");
    // Out again.
    cp("box:/data/one", "out");
    cp("box:data/made", "back");
    cp("box:/data/made/.", "dir");
    assert_eq!(
        (text("out"), text("back/sub/two"), text("dir/sub/sub/two")),
        ("2\n".into(), "2\n".into(), "2\n".into())
    );
    assert_eq!(std::fs::metadata(home("back")).unwrap().uid(), yard.sandbox.user.uid);
    yard.fails(&["cp", "box:/nope", "."], 1, "could not find the file `/nope` in container box");
    yard.fails(&["cp", "nope", "box:/"], 1, "could not find the file `[DIR]/home/nope` in this host");
    yard.fails(&["cp", "box:/a", "box:/b"], 1, "copying between containers is not supported");
    yard.fails(&["cp", "one", "two"], 1, "must specify at least one container source");
    // As a tar.
    let tar = yard.run(&["cp", "box:/data/made/sub", "-"]).spawn().wait_with_output().unwrap().stdout;
    assert_eq!(names(&tar), ["sub/", "sub/link", "sub/sub/", "sub/sub/two", "sub/two"]);
    let tar = Tar::new().directory("t", 0o755).file("t/f", 0o644, "tarred\n").finish();
    assert_eq!(yard.run(&["cp", "-", "box:/data"]).stdin(tar.clone()).succeed(), "");
    assert_eq!(sh("cat /data/t/f"), "tarred\n");
    let output = yard.run(&["cp", "-", "box:/data/one"]).stdin(tar).run();
    assert!(output.stderr.contains("could not find") || output.stderr.contains("cannot copy"), "{output}");
    let output = yard
        .run(&["cp", "-", "box:/data"])
        .stdin("no tar at all, however long this text is".repeat(50))
        .run();
    assert!(output.code == Some(1) && output.stderr.contains("the archive cannot be unpacked"), "{output}");
    // Stopped, it has what it had; and takes more.
    yard.ok(&["stop", "box"]);
    cp("box:/data/one", "again");
    assert_eq!(text("again"), "2\n");
    cp("one", "box:/data/while-stopped");
    yard.ok(&["start", "box"]);
    assert_eq!(sh("cat /data/while-stopped /data/t/f"), "1\ntarred\n");
    yard.ok(&["rm", "-f", "box"]);
    // One that cannot be written to.
    yard.start(&["--name", "ro", "box.sif", "sleep", "1000"]);
    cp("ro:/etc/os-release", "release");
    yard.fails(&["cp", "one", "ro:/etc/x"], 1, "cannot write `x`: its place in the container is read-only");
    yard.ok(&["rm", "-f", "ro"]);
    yard.assert_empty();
}

#[test]
fn no_link_of_a_container_leads_to_the_host() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    yard.sandbox.write("outside", "of the host\n");
    let outside = yard.sandbox.path("outside");
    // The sandbox lies below /tmp, which the container must not have in common with the host here.
    yard.start(&["--name", "box", "-C", "--writable-tmpfs", "box.sif", "sleep", "1000"]);
    let script = format!(
        "ln -s {} /file; ln -s {} /dir; ln -s ../../../../../../../../.. /up; ln -s /etc /absolute",
        outside.display(),
        yard.sandbox.path("").display()
    );
    yard.ok(&["exec", "box", "sh", "-c", &script]);
    yard.sandbox.write("home/evil", "evil\n");
    for target in ["box:/file", "box:/dir/outside"] {
        let output = yard.slipway(&["cp", "evil", target]);
        assert!(output.code == Some(1) && output.stderr.contains("could not find"), "{target}: {output}");
    }
    yard.ok(&["cp", "evil", "box:/absolute/evil"]);
    yard.ok(&["cp", "evil", "box:/up/evil"]);
    assert_eq!(yard.ok(&["exec", "box", "cat", "/etc/evil", "/evil"]), "evil\nevil\n");
    assert!(!Path::new("/etc/evil").exists() && !Path::new("/evil").exists());
    for source in ["box:/dir/outside", "box:/file/"] {
        let output = yard.slipway(&["cp", "-L", source, "got"]);
        assert_eq!(output.code, Some(1), "{source}: {output}");
    }
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "of the host\n");
    // The other way round: a tree of the container with a link does not lead the copy astray on the host.
    yard.ok(&["exec", "box", "sh", "-c", "mkdir /tree; ln -s /nowhere /tree/link"]);
    yard.ok(&["cp", "box:/tree", "tree"]);
    assert_eq!(std::fs::read_link(yard.sandbox.path("home/tree/link")).unwrap(), Path::new("/nowhere"));
    yard.ok(&["rm", "-f", "box"]);
    yard.assert_empty();
}

/// Deletes, replaces, changes and adds in every way that an overlay tells apart.
const CHANGES: &str = "cd /data; echo new >/etc/os-release; rm /etc/not-executable; mkdir /added; echo in >/added/file; \
    chmod 700 /data; rm -r /old; mkdir /old; echo opaque >/old/fresh; rm /gone; mkdir /gone; echo was >/gone/a-file; \
    ln -s os-release /etc/link; ln /added/file /added/hard; mkdir -m 0 /added/closed; touch -d '2001-02-03' /added/dated";

fn image_with_more() -> TestImage {
    let mut image = TestImage::busybox();
    image.layers.push(
        Tar::new()
            .directory("old", 0o755)
            .file("old/below", 0o644, "below")
            .file("old/below2", 0o644, "below")
            .file("gone", 0o644, "gone")
            .finish(),
    );
    image
}

#[test]
fn diff_lists_what_has_changed() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    image_with_more().convert(&yard.sandbox, "more.sif");
    start_writable(&yard, "box", "more.sif");
    assert_eq!(yard.ok(&["diff", "box"]), "");
    yard.ok(&["exec", "box", "sh", "-c", CHANGES]);
    let expected = "A /added\nA /added/closed\nA /added/dated\nA /added/file\nA /added/hard\nC /data\nC /etc\n\
                    A /etc/link\nD /etc/not-executable\nC /etc/os-release\nC /gone\nA /gone/a-file\nC /old\nD /old/below\nD /old/below2\nA /old/fresh\n";
    assert_eq!(yard.ok(&["diff", "box"]), expected);
    yard.ok(&["stop", "box"]);
    assert_eq!(yard.ok(&["diff", "box"]), expected);
    yard.start(&["--name", "ro", "box.sif", "sleep", "1000"]);
    yard.fails(&["diff", "ro"], 1, "the changes of container `ro` are not kept: its root is read-only");
    yard.ok(&["rm", "-f", "box", "ro"]);
    yard.assert_empty();
}

#[test]
fn commit_makes_a_layer_of_exactly_the_changes() {
    need!(userns, fuse, tool "busybox", tool "umoci", tool "skopeo");
    let yard = Yard::new();
    let image = image_with_more();
    image.save(&yard.sandbox, "image.tar", Shape::Oci);
    yard.ok(&["load", "-q", "-i", "image.tar"]);
    start_writable(&yard, "box", "boxtest");
    yard.ok(&["exec", "box", "sh", "-c", CHANGES]);
    let id = yard.ok(&[
        "commit",
        "-a",
        "Me <me@x>",
        "-m",
        "what I did",
        "-c",
        "ENV ADDED=\"a b\"",
        "-c",
        "CMD [\"cat\", \"/added/file\"]",
        "box",
        "made:v1",
    ]);
    assert!(id.starts_with("sha256:") && id.trim().len() == 71, "{id}");
    assert!(yard.ok(&["exec", "box", "true"]).is_empty(), "the container goes on");
    assert_eq!(yard.ok(&["run", "--rm", "made:v1"]), "in\n");
    assert_eq!(
        yard.ok(&[
            "run",
            "--rm",
            "made:v1",
            "sh",
            "-c",
            "echo $ADDED $FROM_IMAGE; cat /etc/os-release; ls /old /gone"
        ]),
        "a b image\nnew\n/gone:\na-file\n\n/old:\nfresh\n"
    );
    let config: Value = serde_json::from_str(&yard.ok(&["image", "inspect", "made:v1"])).unwrap();
    assert_eq!(
        (config[0]["Author"].as_str(), config[0]["Id"].as_str()),
        (Some("Me <me@x>"), Some(id.trim()))
    );
    // The base's layers are the same, byte for byte, and the new one holds what diff lists and no more.
    yard.ok(&["save", "-o", "made.tar", "made:v1"]);
    let sandbox = &yard.sandbox;
    let script = "mkdir unpacked layout && tar -xf made.tar -C layout && \
                  skopeo copy -q oci:layout:docker.io/library/made:v1 oci:checked:v1 2>/dev/null || skopeo copy -q docker-archive:made.tar oci:checked:v1";
    sandbox.shell(script).succeed();
    let read = |path: &str| std::fs::read(sandbox.path(&format!("home/layout/{path}"))).unwrap();
    let index: Value = serde_json::from_slice(&read("index.json")).unwrap();
    let blob = |digest: &Value| read(&format!("blobs/{}", digest.as_str().unwrap().replace(':', "/")));
    let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), image.layers.len() + 1);
    for (layer, expected) in layers.iter().zip(&image.layers) {
        assert_eq!(blob(&layer["digest"]), *expected);
    }
    let top = blob(&layers[3]["digest"]);
    let mut tar = Vec::new();
    slipway::tarlayer::Encoding::Gzip.decode(top.as_slice()).unwrap().read_to_end(&mut tar).unwrap();
    let mut found = names(&tar);
    found.sort();
    assert_eq!(
        found,
        [
            "added/",
            "added/closed/",
            "added/dated",
            "added/file",
            "added/hard",
            "data/",
            "etc/",
            "etc/.wh.not-executable",
            "etc/link",
            "etc/os-release",
            "gone/",
            "gone/.wh..wh..opq",
            "gone/a-file",
            "old/",
            "old/.wh..wh..opq",
            "old/fresh",
        ]
    );
    // Another program unpacks the same tree.
    sandbox.shell("umoci unpack --rootless --image checked:v1 unpacked/bundle >/dev/null 2>&1").succeed();
    let list = "find . -path ./.slipway -prune -o -mindepth 1 -printf '%y %m %p %l\\n' | grep -vE ' ./(proc|sys|dev|run|home|tmp|var|root|usr|lib|\\.singularity|singularity|environment|\\.exec|\\.run|\\.shell|\\.test)' | grep -v closed | sort";
    let theirs = sandbox.shell(&format!("cd unpacked/bundle/rootfs && {list}")).succeed();
    yard.ok(&["create", "--name", "all", "made:v1"]);
    yard.ok(&["export", "-o", "all.tar", "all"]);
    let ours =
        sandbox.shell(&format!("mkdir ours && tar -xf all.tar -C ours && cd ours && {list}")).succeed();
    for line in theirs.lines() {
        assert!(ours.lines().any(|our| our == line), "`{line}` is missing:\n{ours}");
    }
    assert!(!ours.contains("below"), "{ours}");
    sandbox.shell("chmod -R u+rwx unpacked ours; rm -r unpacked ours layout checked").succeed();
    yard.fails(
        &["commit", "-c", "RUN x", "box"],
        1,
        "`--change RUN x`: it is no instruction that an image keeps",
    );
    yard.fails(
        &["commit", "box", "x@sha256:0000000000000000000000000000000000000000000000000000000000000000"],
        1,
        "cannot name an image",
    );
    // One that was started with words of its own passes them on.
    yard.start(&[
        "--name",
        "own",
        "--writable-tmpfs",
        "-e",
        "MINE=1",
        "-w",
        "/etc",
        "boxtest",
        "sleep",
        "1000",
    ]);
    yard.ok(&["commit", "--pause=false", "own", "own"]);
    let config: Value = serde_json::from_str(&yard.ok(&["image", "inspect", "own"])).unwrap();
    let run = &config[0]["Config"];
    assert_eq!(
        (run["Cmd"].to_string(), run["WorkingDir"].as_str()),
        (r#"["sleep","1000"]"#.into(), Some("/etc"))
    );
    assert!(run["Env"].as_array().unwrap().contains(&"MINE=1".into()));
    yard.ok(&["rm", "-f", "box", "all", "own"]);
    yard.assert_empty();
}

#[test]
fn a_committed_image_goes_to_a_registry_and_back() {
    need!(userns, fuse, registry, tool "busybox", tool "skopeo");
    let yard = Yard::new();
    let registry = Registry::start();
    let name = format!("{}/made:v1", registry.host);
    TestImage::busybox().save(&yard.sandbox, "image.tar", Shape::Oci);
    yard.ok(&["load", "-q", "-i", "image.tar"]);
    start_writable(&yard, "box", "boxtest");
    yard.ok(&["exec", "box", "sh", "-c", "echo new >/data/made"]);
    let id = yard.ok(&["commit", "box", &name]);
    yard.ok(&["rm", "-f", "box"]);
    let pushed = yard.slipway(&["push", &name]);
    assert_eq!(pushed.code, Some(0), "{pushed}");
    let digest = pushed.stdout.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap();
    let script = format!("skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{name}");
    assert_eq!(yard.sandbox.shell(&script).succeed().trim(), digest);
    yard.ok(&["rmi", &name]);
    let pulled = yard.slipway(&["pull", &name]);
    assert!(pulled.code == Some(0) && pulled.stdout.contains(digest), "{pulled}");
    assert_eq!(yard.ok(&["images", "-q", "--no-trunc", &name]).trim(), id.trim());
    assert_eq!(yard.ok(&["run", &name, "cat", "/data/made"]), "new\n");
    yard.assert_empty();
}

#[test]
fn pull_always_asks_the_registry_each_time() {
    need!(userns, fuse, registry, tool "busybox", tool "skopeo");
    let yard = Yard::new();
    let mut registry = Registry::start();
    let name = format!("{}/moving:latest", registry.host);
    let publish = |content: &str| {
        let mut image = TestImage::busybox();
        image.layers.push(Tar::new().file("data/version", 0o644, content).finish());
        image.name = "moving:latest".into();
        image.save(&yard.sandbox, "image.tar", Shape::Legacy);
        let copy = format!("skopeo copy -q --dest-tls-verify=false docker-archive:image.tar docker://{name}");
        yard.sandbox.shell(&copy).succeed();
    };
    let run = |when: &str| {
        let output = yard.slipway(&["run", "--pull", when, &name, "cat", "/data/version"]);
        assert_eq!(output.code, Some(0), "{when}: {output}");
        output.stdout
    };
    publish("one\n");
    assert!(run("missing").ends_with("one\n"));
    publish("two\n");
    assert!(run("missing").ends_with("one\n"));
    assert!(run("always").ends_with("two\n"));
    // What cannot be asked is an error, although the image is here.
    registry.stop();
    let refused = yard.slipway(&["run", "--pull", "always", &name, "true"]);
    assert!(refused.code == Some(125) && refused.stderr.contains(&registry.host), "{refused}");
    assert!(run("never").ends_with("two\n"));
    yard.assert_empty();
}

#[test]
fn labels_come_from_files_too() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    std::fs::write(yard.sandbox.path("home/labels"), "# who\norg.owner=ada\nplain\nstage=test\n").unwrap();
    let words = ["--name", "box", "--label-file", "labels", "--label", "stage=live", "box.sif", "sleep", "9"];
    yard.start(&words);
    let labels = yard.inspect("box", "/Config/Labels");
    assert_eq!(labels, serde_json::json!({"org.owner": "ada", "plain": "", "stage": "live"}));
    yard.fails(
        &["run", "-d", "--label-file", "absent", "box.sif"],
        125,
        "error: cannot read `--label-file absent`: No such file or directory",
    );
    yard.ok(&["rm", "-f", "box"]);
    yard.assert_empty();
}

#[test]
fn commit_stops_the_processes_meanwhile() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    TestImage::busybox().save(&yard.sandbox, "image.tar", Shape::Oci);
    yard.ok(&["load", "-q", "-i", "image.tar"]);
    let script = "while :; do echo x >>/data/grows; done";
    yard.start(&["--name", "busy", "--writable-tmpfs", "boxtest", "sh", "-c", script]);
    yard.ok(&["commit", "busy", "busy"]);
    let pid = yard.pid("busy", "/State/Pid");
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(!state.rsplit(')').next().unwrap().trim_start().starts_with('T'), "{state}");
    yard.ok(&["rm", "-f", "busy"]);
    yard.fails(&["commit", "busy"], 1, "no such container");
    yard.start(&[
        "--name",
        "file",
        "--writable-tmpfs",
        &yard.sandbox.path("home/box.sif").display().to_string(),
        "sleep",
        "1000",
    ]);
    yard.ok(&["rm", "-f", "file"]);
    yard.assert_empty();
}

#[test]
fn a_root_goes_out_and_comes_in_as_a_tar() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    yard.sandbox.make_directory("home/bound");
    yard.sandbox.write("home/bound/of-the-host", "x");
    let bind = format!("{}:/data", yard.sandbox.path("home/bound").display());
    yard.start(&["--name", "box", "--writable-tmpfs", "-v", &bind, "box.sif", "sleep", "1000"]);
    yard.ok(&["exec", "box", "sh", "-c", "echo mine >/etc/mine"]);
    let tar = yard.run(&["export", "box"]).spawn().wait_with_output().unwrap().stdout;
    let found = names(&tar);
    for name in ["bin/busybox", "bin/sh", "etc/mine", "data/"] {
        assert!(found.iter().any(|found| found.trim_start_matches("./") == name), "{name}: {found:?}");
    }
    assert!(!found.iter().any(|name| name.contains("of-the-host") || name.contains("proc/1")), "{found:?}");
    yard.ok(&["export", "-o", "root.tar", "box"]);
    yard.fails(&["export", "-o", "/nonexistent/x", "box"], 1, "cannot write `/nonexistent/x`");
    let id = yard.ok(&["import", "-c", "CMD [\"cat\", \"/etc/mine\"]", "-m", "mine", "root.tar", "imported"]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(yard.ok(&["run", "--rm", "-e", "PATH=/bin", "imported"]), "mine\n");
    let piped = yard.run(&["import", "-", "piped"]).stdin(tar).succeed();
    assert!(piped.starts_with("sha256:"));
    yard.fails(&["import", "http://x/y.tar"], 1, "only files are imported");
    yard.fails(&["import", "absent.tar"], 1, "cannot read `absent.tar`");
    yard.ok(&["rm", "-f", "box"]);
    yard.assert_empty();
}

#[test]
fn says_what_containers_use() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let id = yard.start(&["--name", "busy", "box.sif", "sh", "-c", "while :; do :; done"]);
    wait_until("it uses the CPU", || {
        let text = yard.ok(&["stats", "--no-stream", "--format", "json", "busy"]);
        let row: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (row["ID"].as_str(), row["Name"].as_str(), row["PIDs"].as_str()),
            (Some(&id[..12]), Some("busy"), Some("1"))
        );
        let percent: f64 = row["CPUPerc"].as_str().unwrap().trim_end_matches('%').parse().unwrap();
        percent > 1.0
    });
    let text = yard.ok(&["stats", "--no-stream"]);
    assert!(text.starts_with("CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT"), "{text}");
    assert!(yard.ok(&["info"]).contains("Containers:       1 (1 running, 0 stopped)\n"));
    let info: Value = serde_json::from_str(&yard.ok(&["info", "--json"])).unwrap();
    assert_eq!(info["containers"]["running"], 1);
    yard.fails(&["update", "--memory", "1g", "busy"], 1, "cannot change the limits of a container");
    yard.ok(&["rm", "-f", "busy"]);
    yard.assert_empty();
}

#[test]
fn shell_is_the_image_s_or_the_host_s() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let in_shell = |words: &[&str]| {
        yard.run(words)
            .env("SLURM_JOB_ID", "1")
            .env("SLURM_STEP_ID", "0")
            .stdin("cat /etc/os-release; exit 4\n")
            .run()
    };
    let output = in_shell(&["shell", "box.sif"]);
    assert!(output.code == Some(4) && output.stdout.contains("ID=boxtest"), "{output}");
    let mut bare = TestImage::busybox();
    bare.layers =
        vec![Tar::new().directory("etc", 0o755).file("etc/os-release", 0o644, "ID=bare\n").finish()];
    bare.convert(&yard.sandbox, "bare.sif");
    let output = in_shell(&["shell", "--no-home", "bare.sif"]);
    assert!(output.stderr.contains("note: the image has no shell"), "{output}");
    yard.fails(&["shell", "box.sif", "ls"], 125, "a shell takes an image and nothing behind it");
    yard.assert_empty();
}
