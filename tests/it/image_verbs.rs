//! `tag`, `rmi`, `images`, `history`, `inspect`, `save` and `load` with docker's words, and archives crosswise with other
//! tools.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use slipway::base::Digest;

use crate::support::image::{Shape, TestImage, pack};
use crate::support::layers::Tar;
use crate::support::registry::run;
use crate::support::sandbox::Sandbox;

/// An image without a program; `seed` makes its top layer another one.
fn tiny(name: &str, seed: &str) -> TestImage {
    let mut image = TestImage::busybox();
    image.name = name.into();
    image.layers = vec![
        Tar::new().directory("etc", 0o755).file("etc/base", 0o644, "base\n".repeat(3000)).finish(),
        Tar::new().file("etc/top", 0o644, seed).finish(),
    ];
    image
}

fn load(sandbox: &Sandbox, image: &TestImage, shape: Shape) -> String {
    image.save(sandbox, "load.tar", shape);
    sandbox.slipway(["load", "-q", "-i", "load.tar"]).succeed();
    Digest::of(&image.config_document()).hex()
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    let text = sandbox.slipway(["images", "--format", "{{.Repository}}:{{.Tag}}"]).succeed();
    let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
    names.sort();
    names
}

fn blobs(sandbox: &Sandbox) -> usize {
    sandbox.files().iter().filter(|path| path.to_string_lossy().contains("blobs/sha256/")).count()
}

#[test]
fn names_come_and_go_and_shared_layers_stay() {
    let sandbox = Sandbox::new();
    let one = load(&sandbox, &tiny("one:1", "1"), Shape::Oci);
    let two = load(&sandbox, &tiny("two:1", "2"), Shape::Legacy);
    sandbox.slipway(["tag", "one:1", "one:again"]).succeed();
    sandbox.slipway(["tag", &two[..6], "registry.example:5000/x/two"]).succeed();
    assert_eq!(names(&sandbox), ["one:1", "one:again", "registry.example:5000/x/two:latest", "two:1"]);
    // Two manifests, two configs, a base and two tops.
    assert_eq!(blobs(&sandbox), 7);
    assert_eq!(sandbox.slipway(["rmi", "one:1"]).succeed(), "Untagged: one:1\n");
    let refused = sandbox.slipway(["rmi", &two[..12]]).run();
    assert_eq!(
        (refused.code, refused.stderr.lines().next().unwrap()),
        (
            Some(1),
            format!("error: conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories", &two[..12]).as_str()
        )
    );
    let removed = sandbox.slipway(["image", "rm", "one:again"]).succeed();
    assert!(
        removed.starts_with(&format!("Untagged: one:again\nDeleted: sha256:{one}\nDeleted: sha256:")),
        "{removed}"
    );
    // The base stays for the other.
    assert_eq!((removed.lines().count(), blobs(&sandbox)), (3, 4));
    let missing = sandbox.slipway(["rmi", "one:again", &format!("sha256:{two}"), "-f"]).run();
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.starts_with("error: no such image: `one:again`\n"), "{missing}");
    assert!(
        missing.stdout.contains("Untagged: two:1\n")
            && missing.stdout.contains(&format!("Deleted: sha256:{two}\n"))
    );
    assert_eq!((blobs(&sandbox), names(&sandbox)), (0, Vec::<String>::new()));
    let left: Vec<_> =
        sandbox.files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "sif")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_run_file_in_use_stays() {
    let sandbox = Sandbox::new();
    load(&sandbox, &tiny("one:1", "1"), Shape::Oci);
    let run_file = sandbox.slipway(["inspect", "-f", "{{.Slipway.RunFile}}", "one:1"]).succeed();
    let key = Path::new(run_file.trim()).file_stem().unwrap().to_str().unwrap().to_owned();
    let leases = format!("home/.local/share/slipway/leases/{key}");
    sandbox.make_directory(&leases);
    sandbox.write(&format!("{leases}/job"), "");
    let output = sandbox.slipway(["rmi", "one:1"]).run();
    assert!(output.stderr.contains("stays until the last container"), "{output}");
    assert!(sandbox.files().iter().any(|path| path.extension().is_some_and(|end| end == "sif")));
}

#[test]
fn a_name_that_moves_leaves_a_dangling_image() {
    let sandbox = Sandbox::new();
    let old = load(&sandbox, &tiny("app:1", "old"), Shape::Oci);
    let new = load(&sandbox, &tiny("app:1", "new"), Shape::Oci);
    let list = |filter: &str| sandbox.slipway(["images", "-q", "--filter", filter]).succeed();
    assert_eq!(list("dangling=true"), format!("{}\n", &old[..12]));
    assert_eq!(list("dangling=false"), format!("{}\n", &new[..12]));
    assert_eq!(names(&sandbox), ["<none>:<none>", "app:1"]);
    sandbox.slipway(["tag", &old[..8], "app:old"]).succeed();
    assert_eq!(list("dangling=true"), "");
    assert_eq!(list("reference=app:o*"), format!("{}\n", &old[..12]));
    sandbox.slipway(["rmi", "app:old"]).succeed();
    assert_eq!(sandbox.slipway(["images", "-q", "--no-trunc"]).succeed(), format!("sha256:{new}\n"));
}

#[test]
fn listings_look_like_dockers() {
    let sandbox = Sandbox::new();
    let mut image = tiny("app:1", "x");
    image.config["Labels"] = serde_json::json!({"team": "a"});
    let id = load(&sandbox, &image, Shape::Oci);
    let table = sandbox.slipway(["images"]).succeed();
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("REPOSITORY   TAG       IMAGE ID       CREATED       SIZE"));
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().take(3).collect();
    assert_eq!(row, ["app", "1", &id[..12]]);
    let digests = sandbox.slipway(["images", "--digests", "--no-trunc", "app"]).succeed();
    assert!(digests.lines().next().unwrap().starts_with("REPOSITORY   TAG       DIGEST   "), "{digests}");
    assert!(digests.contains(&format!("sha256:{id}")));
    let json: Value =
        serde_json::from_str(&sandbox.slipway(["image", "ls", "--format", "json"]).succeed()).unwrap();
    assert_eq!(
        (json["Repository"].as_str(), json["CreatedAt"].as_str()),
        (Some("app"), Some("2024-05-06 07:08:09 +0000 UTC"))
    );
    let listed =
        |args: &[&str]| sandbox.slipway([&["images", "-q"], args].concat()).succeed().lines().count();
    for (args, expected) in [
        (&["app"][..], 1),
        (&["app:2"], 0),
        (&["--filter", "label=team"], 1),
        (&["--filter", "label=team=b"], 0),
        (&["--filter", "since=app:1"], 0),
        (&["-f", "reference=docker.io/library/app"], 1),
    ] {
        assert_eq!(listed(args), expected, "{args:?}");
    }
    let wrong = sandbox.slipway(["images", "--filter", "colour=red"]).run();
    assert!(wrong.stderr.starts_with("error: invalid filter `colour`\n"), "{wrong}");
    let wrong = sandbox.slipway(["images", "--format", "{{.Nope}}"]).run();
    assert_eq!(
        wrong.stderr,
        "error: template parsing error: `{{.Nope}}`: can't evaluate field Nope\n  hint: `--format json` shows every field\n"
    );

    let inspected: Value =
        serde_json::from_str(&sandbox.slipway(["inspect", &id[..4], "app:1"]).succeed()).unwrap();
    assert_eq!(inspected.as_array().unwrap().len(), 2);
    let first = &inspected[0];
    assert_eq!(first["Id"], format!("sha256:{id}"));
    assert_eq!(first["RepoTags"], serde_json::json!(["app:1"]));
    assert_eq!(first["Config"]["Env"][1], "FROM_IMAGE=image");
    assert_eq!(first["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let cmd = sandbox.slipway(["image", "inspect", "-f", "{{json .Config.Cmd}}", "app:1"]).succeed();
    assert_eq!(cmd, "[\"cat\",\"/etc/os-release\"]\n");
    let missing = sandbox.slipway(["inspect", "nope"]).run();
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(1), "[]\n"), "{missing}");
}

#[test]
fn history_is_told_newest_first() {
    let sandbox = Sandbox::new();
    let image = tiny("app:1", "x");
    let mut config: Value = serde_json::from_slice(&image.config_document()).unwrap();
    config["history"] = serde_json::json!([
        {"created": "2024-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:0123456789abcdef in / # a long line"},
        {"created": "2024-01-02T00:00:00Z", "created_by": "ENV A=b", "empty_layer": true, "comment": "buildkit"},
        {"created": "2024-01-03T00:00:00Z", "created_by": "RUN make\n\tall"},
    ]);
    let config = config.to_string().into_bytes();
    let old = format!("{}.json", Digest::of(&image.config_document()).hex());
    let new = format!("{}.json", Digest::of(&config).hex());
    let members: Vec<(String, Vec<u8>)> = image
        .archive_members(Shape::Legacy)
        .into_iter()
        .map(|(name, bytes)| match name.as_str() {
            "manifest.json" => (name, String::from_utf8(bytes).unwrap().replace(&old, &new).into_bytes()),
            _ if name == old => (new.clone(), config.clone()),
            _ => (name, bytes),
        })
        .collect();
    sandbox.write("home/h.tar", pack(&members));
    sandbox.slipway(["load", "-q", "-i", "h.tar"]).succeed();
    let id = &new[..12];
    assert_eq!(
        sandbox
            .slipway(["history", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}", "app:1"])
            .succeed(),
        format!(
            "{id}|RUN make  all|2.05kB|\n<missing>|ENV A=b|0B|buildkit\n<missing>|/bin/sh -c #(nop) ADD file:0123456789abcdef …|{}|\n",
            "17.4kB"
        )
    );
    let table = sandbox.slipway(["history", "app:1"]).succeed();
    assert!(table.starts_with("IMAGE          CREATED       CREATED BY"), "{table}");
    assert_eq!(
        sandbox.slipway(["history", "-q", "--no-trunc", "app:1"]).succeed().lines().next().unwrap(),
        format!("sha256:{}", &new[..64])
    );
}

#[test]
fn an_id_runs_as_well_as_a_name() {
    need!(fuse, userns);
    let sandbox = Sandbox::new();
    let id = load(&sandbox, &TestImage::busybox(), Shape::Oci);
    for word in [&id[..12], &id, "boxtest"] {
        assert_eq!(sandbox.slipway(["run", word, "echo", "ran"]).succeed(), "ran\n", "{word}");
    }
}

/// Archives of both kinds, of one image and of several, come back with the same ids; equal images give equal bytes.
#[test]
fn what_is_saved_loads_again() {
    let sandbox = Sandbox::new();
    let one = load(&sandbox, &tiny("one:1", "1"), Shape::Oci);
    let two = load(&sandbox, &tiny("two:1", "2"), Shape::Legacy);
    sandbox.slipway(["tag", "two:1", "two:2"]).succeed();
    sandbox.slipway(["save", "-o", "all.tar", "one:1", "two"]).succeed();
    sandbox.shell("$SLIPWAY save one:1 two > again.tar; cmp all.tar again.tar; $SLIPWAY save one:1 | head -c 1000 >/dev/null").succeed();

    let other = Sandbox::new();
    std::fs::copy(sandbox.path("home/all.tar"), other.path("home/all.tar")).unwrap();
    let loaded = other.shell("cat all.tar | $SLIPWAY load").succeed();
    assert_eq!(loaded, "Loaded image: one:1\nLoaded image: two:1\nLoaded image: two:2\n");
    let ids =
        other.slipway(["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]).succeed();
    for line in
        [format!("one:1 sha256:{one}\n"), format!("two:1 sha256:{two}\n"), format!("two:2 sha256:{two}\n")]
    {
        assert!(ids.contains(&line), "{ids}");
    }
    other.slipway(["save", "-o", "back.tar", "one:1", "two"]).succeed();
    assert!(
        std::fs::read(sandbox.path("home/all.tar")).unwrap()
            == std::fs::read(other.path("home/back.tar")).unwrap()
    );

    // By id there is no name, and it comes back without one.
    sandbox.slipway(["save", "-o", "id.tar", &one[..10]]).succeed();
    let third = Sandbox::new();
    std::fs::copy(sandbox.path("home/id.tar"), third.path("home/id.tar")).unwrap();
    assert_eq!(third.slipway(["load", "-i", "id.tar"]).succeed(), format!("Loaded image ID: sha256:{one}\n"));
    assert_eq!(names(&third), ["<none>:<none>"]);
    let missing = sandbox.slipway(["save", "-o", "none.tar", "nope"]).run();
    assert_eq!((missing.code, sandbox.path("home/none.tar").exists()), (Some(1), false));
}

#[test]
fn other_tools_read_what_is_saved() {
    need!(tool "skopeo", tool "umoci");
    let sandbox = Sandbox::new();
    let id = load(&sandbox, &tiny("one:1", "1"), Shape::Legacy);
    sandbox.slipway(["save", "-o", "one.tar", "one:1"]).succeed();
    let archive = sandbox.path("home/one.tar");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    for (number, source) in [
        format!("docker-archive:{}:docker.io/library/one:1", archive.display()),
        format!("oci-archive:{}:1", archive.display()),
    ]
    .iter()
    .enumerate()
    {
        let config = Command::new("skopeo").args(["inspect", "--config", "--raw", source]).output().unwrap();
        assert_eq!(Digest::of(&config.stdout).hex(), id, "{source}");
        run("skopeo", &["copy", "--quiet", source, &format!("oci:{}:x", at(&number.to_string()))]);
    }
    // A plain layout once it is unpacked.
    std::fs::create_dir(directory.path().join("layout")).unwrap();
    run("tar", &["-xf", &archive.display().to_string(), "-C", &at("layout")]);
    run("umoci", &["unpack", "--rootless", "--image", &format!("{}:1", at("layout")), &at("bundle")]);
    assert_eq!(std::fs::read_to_string(directory.path().join("bundle/rootfs/etc/top")).unwrap(), "1");

    // And what skopeo writes comes in by a pipe.
    let written = at("written.tar");
    run(
        "skopeo",
        &[
            "copy",
            "--quiet",
            &format!("oci:{}:x", at("0")),
            &format!("docker-archive:{written}:from/skopeo:1"),
        ],
    );
    let other = Sandbox::new();
    std::fs::copy(&written, other.path("home/w.tar")).unwrap();
    assert_eq!(other.shell("$SLIPWAY load < w.tar").succeed(), "Loaded image: from/skopeo:1\n");
}
