//! Named volumes, volumes of images, and those of other containers.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::sandbox::{Run, Sandbox};

struct Place {
    sandbox: Sandbox,
}

impl Place {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let mut image = TestImage::busybox();
        let layer = Tar::new()
            .directory("data/sub", 0o750)
            .file("data/seed", 0o640, "of the image\n")
            .file("data/sub/deep", 0o444, vec![b'x'; 3_000_000])
            .symlink("data/link", "seed");
        image.layers.push(layer.finish());
        image.convert(&sandbox, "box.sif");
        image.config["Volumes"] = json!({"/data": {}});
        image.convert(&sandbox, "vol.sif");
        let state = sandbox.make_directory("state");
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { sandbox }
    }

    fn slipway(&self, words: &[&str]) -> Run<'_> {
        self.sandbox.slipway(words).env("SLIPWAY_RUNTIME_DIR", self.sandbox.path("state"))
    }

    fn run(&self, words: &[&str]) -> String {
        self.slipway(&[&["run"], words].concat()).succeed()
    }

    fn volumes(&self) -> Vec<String> {
        self.slipway(&["volume", "ls", "-q"]).succeed().lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_named_volume_outlives_its_containers() {
    need!(userns, fuse, tool "busybox");
    let place = Place::new();
    let script = "cat /data/link; stat -c %a /data/seed /data/sub /data/sub/deep; wc -c </data/sub/deep; echo new >/data/new";
    assert_eq!(
        place.run(&["-v", "seeded:/data", "box.sif", "sh", "-c", script]),
        "of the image\n640\n750\n644\n3000000\n"
    );
    // The second one finds what the first has left, at another place, and docker's profile the same.
    assert_eq!(
        place.run(&[
            "-v",
            "seeded:/other:ro",
            "box.sif",
            "sh",
            "-c",
            "cat /other/new; touch /other/x 2>/dev/null || echo ro"
        ]),
        "new\nro\n"
    );
    assert_eq!(
        place.run(&[
            "--profile",
            "docker",
            "--mount",
            "type=volume,src=seeded,dst=/x",
            "box.sif",
            "cat",
            "/x/new"
        ]),
        "new\n"
    );
    assert_eq!(place.run(&["-v", "bare:/data:nocopy", "box.sif", "ls", "-A", "/data"]), "");
    assert_eq!(place.volumes(), ["bare", "seeded"]);
    let mode = std::fs::metadata(place.sandbox.path("home/.local/share/slipway/volumes"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    place.sandbox.assert_nothing_left();
}

#[test]
fn volumes_are_made_listed_and_removed() {
    need!(userns, fuse, tool "busybox");
    let place = Place::new();
    let slipway = |words: &[&str]| place.slipway(words).succeed();
    assert_eq!(slipway(&["volume", "create", "--label", "a=b", "data"]), "data\n");
    assert_eq!(slipway(&["volume", "create", "data"]), "data\n");
    let unnamed = slipway(&["volume", "create"]);
    assert_eq!(unnamed.trim().len(), 64);
    let list = slipway(&["volume", "ls"]);
    assert!(list.starts_with("DRIVER    VOLUME NAME\nlocal     "), "{list}");
    assert_eq!(
        slipway(&["volume", "ls", "--filter", "label=a=b", "--format", "{{.Name}} {{.Driver}}"]),
        "data local\n"
    );
    assert_eq!(slipway(&["volume", "inspect", "-f", "{{.Labels.a}}", "data"]), "b\n");
    let json: serde_json::Value = serde_json::from_str(&slipway(&["volume", "inspect", "data"])).unwrap();
    assert!(json[0]["Mountpoint"].as_str().unwrap().ends_with("/volumes/data/data"), "{json}");
    // One that a container has stays.
    slipway(&["run", "-d", "--name", "user", "-v", "data:/x", "box.sif", "sleep", "1000"]);
    let output = place.slipway(&["volume", "rm", "data", "none"]).run();
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("cannot remove the volume `data`: the container "), "{output}");
    assert!(output.stderr.contains("no such volume: `none`"), "{output}");
    assert_eq!(
        slipway(&["volume", "prune"]),
        format!("Deleted Volumes:\n{unnamed}\nTotal reclaimed space: 0B\n")
    );
    slipway(&["rm", "-f", "user"]);
    assert_eq!(slipway(&["volume", "rm", "data"]), "data\n");
    slipway(&["volume", "rm", "-f", "none"]);
    assert!(place.volumes().is_empty());
    let output = place.slipway(&["volume", "create", "-d", "nfs", "x1"]).run();
    assert!(output.stderr.starts_with("error: there is no volume driver `nfs`"), "{output}");
    let output = place.slipway(&["volume", "create", ".x"]).run();
    assert!(output.stderr.starts_with("error: `.x` is not a volume name"), "{output}");
    place.sandbox.assert_nothing_left();
}

#[test]
fn volumes_of_an_image_are_the_containers_own() {
    need!(userns, fuse, tool "busybox");
    let place = Place::new();
    // Gone with the process: memory, with the image's files where the root is memory too.
    assert_eq!(
        place.run(&["--profile", "docker", "vol.sif", "sh", "-c", "cat /data/seed; echo x >/data/x"]),
        "of the image\n"
    );
    assert_eq!(
        place.run(&[
            "--profile",
            "docker",
            "--read-only",
            "vol.sif",
            "sh",
            "-c",
            "echo x >/data/x && ls /data"
        ]),
        "x\n"
    );
    assert_eq!(
        place.run(&[
            "--profile",
            "docker",
            "-v",
            "/fresh",
            "vol.sif",
            "sh",
            "-c",
            "echo x >/fresh/x && ls /fresh"
        ]),
        "x\n"
    );
    assert!(place.volumes().is_empty());
    // Kept: a volume of its own, which `rm -v` removes and `rm` does not.
    for (words, left) in [(&["rm", "-v", "kept"][..], 0), (&["rm", "kept"], 1)] {
        let script = "cat /data/seed; echo once >>/data/count; wc -l </data/count";
        place.run(&["--profile", "docker", "-d", "--name", "kept", "vol.sif", "sh", "-c", script]);
        place.slipway(&["wait", "kept"]).succeed();
        place.slipway(&["start", "-a", "kept"]).succeed();
        assert!(place.slipway(&["logs", "kept"]).succeed().ends_with("of the image\n2\n"));
        assert_eq!(place.volumes().len(), 1);
        let from = place.run(&[
            "--volumes-from",
            "kept:ro",
            "box.sif",
            "sh",
            "-c",
            "cat /data/count; touch /data/x 2>/dev/null || echo ro",
        ]);
        assert_eq!(from, "once\nonce\nro\n");
        place.slipway(words).succeed();
        assert_eq!(place.volumes().len(), left);
    }
    // --rm removes it with the container.
    place.run(&["--profile", "docker", "-d", "--rm", "--name", "brief", "vol.sif", "true"]);
    super::support::sandbox::wait_until("the volume goes with its container", || place.volumes().len() == 1);
    let output = place.slipway(&["run", "--volumes-from", "none", "box.sif", "true"]).run();
    assert_eq!(output.code, Some(125), "{output}");
    let output = place.slipway(&["run", "--volumes-from", "kept:no", "box.sif", "true"]).run();
    assert!(output.stderr.starts_with("error: `--volumes-from kept:no`: unknown option `no`"), "{output}");
    place.sandbox.assert_nothing_left();
}
