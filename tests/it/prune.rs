//! `prune` and `system df`: docker's words, and what stays.

use std::path::PathBuf;

use super::support::image::{Shape, TestImage};
use super::support::layers::Tar;
use super::support::sandbox::{Run, Sandbox};

struct Yard {
    sandbox: Sandbox,
    state: PathBuf,
}

impl Yard {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let state = sandbox.make_directory("state");
        std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        sandbox.make_directory("disk");
        Self { sandbox, state }
    }

    fn slipway(&self, args: &[&str]) -> Run<'_> {
        let run = self.sandbox.slipway(args).env("SLIPWAY_RUNTIME_DIR", &self.state);
        run.env("SLIPWAY_LAUNCH_UNPACK_DIR", self.sandbox.path("disk"))
    }

    fn ok(&self, args: &[&str]) -> String {
        self.slipway(args).succeed()
    }

    /// Loads busybox with a file of that text in it, and gives its id.
    fn load(&self, name: &str, text: &str) -> String {
        let mut image = TestImage::busybox();
        image.name = name.into();
        image.config["Labels"] = serde_json::json!({ "text": text });
        image.layers.push(Tar::new().file("data/text", 0o644, text).finish());
        image.save(&self.sandbox, "image.tar", Shape::Oci);
        self.ok(&["load", "-q", "-i", "image.tar"]);
        self.ok(&["images", "-q", "--no-trunc", name]).trim().to_owned()
    }

    fn ids(&self) -> Vec<String> {
        self.ok(&["images", "-q", "--no-trunc"]).lines().map(str::to_owned).collect()
    }
}

const NOTHING: &str = "Total reclaimed space: 0B\n";

#[test]
fn images_without_a_name_go() {
    need!(tool "busybox");
    let yard = Yard::new();
    let first = yard.load("box:1", "first");
    let second = yard.load("box:1", "second");
    assert_eq!(yard.ids().len(), 2);
    let asked = yard.slipway(&["image", "prune"]).run();
    assert_eq!(asked.code, Some(1));
    assert_eq!(
        asked.stderr,
        "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] error: image prune has \
         been cancelled\n  hint: answer `y`, or add `-f`\n"
    );
    for (filter, expected) in [
        ("until=2020-01-01", NOTHING),
        ("label=text=second", NOTHING),
        ("label!=text", NOTHING),
        ("label=none", NOTHING),
    ] {
        assert_eq!(yard.ok(&["image", "prune", "-f", "--filter", filter]), expected, "{filter}");
    }
    let removed = yard.slipway(&["image", "prune", "--filter", "until=24h"]).stdin("y\n").succeed();
    let start = format!("Deleted Images:\ndeleted: {first}\ndeleted: sha256:");
    assert!(removed.starts_with(&start), "{removed}");
    let last = removed.lines().last().unwrap();
    assert!(
        last.starts_with("Total reclaimed space: ") && last.ends_with('B') && last != NOTHING.trim(),
        "{removed}"
    );
    assert_eq!(yard.ids(), [second]);
    assert_eq!(yard.ok(&["image", "prune", "-f"]), NOTHING);
    let unknown = yard.slipway(&["image", "prune", "-f", "--filter", "age=1"]).run();
    assert_eq!(unknown.stderr, "error: invalid filter `age`\n  hint: there are until, label and label!\n");
    let unknown = yard.slipway(&["image", "prune", "-f", "--filter", "until=soon"]).run();
    assert!(unknown.stderr.starts_with("error: `--filter until=soon` is neither a time nor a duration\n"));
}

#[test]
fn images_of_containers_stay() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let used = yard.load("used:1", "used");
    let unused = yard.load("unused:1", "unused");
    let container = yard.ok(&["create", "--name", "one", "used:1", "true"]);
    let removed = yard.ok(&["image", "prune", "-a", "-f"]);
    assert!(
        removed.starts_with(&format!("Deleted Images:\nuntagged: unused:1\ndeleted: {unused}\n")),
        "{removed}"
    );
    assert_eq!(yard.ids(), std::slice::from_ref(&used));
    assert_eq!(yard.ok(&["container", "prune", "-f", "--filter", "until=2020-01-01"]), NOTHING);
    let removed = yard.ok(&["container", "prune", "-f"]);
    assert!(
        removed.starts_with(&format!("Deleted Containers:\n{container}\nTotal reclaimed space: ")),
        "{removed}"
    );
    assert_eq!(yard.ok(&["container", "prune", "-f"]), NOTHING);
    let removed = yard.ok(&["image", "prune", "-a", "-f"]);
    assert!(removed.contains(&format!("deleted: {used}\n")), "{removed}");
    // Nothing of them is left in the store.
    let files = yard.sandbox.files();
    let left: Vec<_> = files.iter().filter(|path| path.starts_with(".local")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_no_image_has_goes_when_it_is_old() {
    need!(tool "busybox");
    let yard = Yard::new();
    yard.load("box:1", "kept");
    let store = yard.sandbox.path("home/.local/share/slipway");
    let (young, old) = ("0".repeat(64), "1".repeat(64));
    for (name, days) in [(&young, 0), (&old, 4)] {
        let file = std::fs::File::create(store.join("blobs/sha256").join(name)).unwrap();
        file.set_len(5000).unwrap();
        let day = std::time::Duration::from_secs(24 * 3600);
        file.set_modified(std::time::SystemTime::now() - day * days).unwrap();
    }
    let before =
        yard.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Reclaimable}}"]);
    assert!(
        before.starts_with("Images 1 0 ") && before.lines().next().unwrap().ends_with(" (100%)"),
        "{before}"
    );
    assert_eq!(yard.ok(&["image", "prune", "-f"]), "Total reclaimed space: 5kB\n");
    assert!(store.join("blobs/sha256").join(young).exists());
    assert_eq!(yard.ok(&["run", "--rootfs", "unpack", "box:1", "cat", "/data/text"]), "kept");
    // Hot lists go with their image.
    let image = std::fs::read_dir(store.join("images")).unwrap().next().unwrap().unwrap().file_name();
    std::fs::create_dir_all(store.join("hot")).unwrap();
    let list = store.join("hot").join(format!("{}.cat", image.to_str().unwrap()));
    std::fs::write(&list, "x").unwrap();
    yard.sandbox.user.give(&store.join("hot"));
    yard.ok(&["rmi", "box:1"]);
    assert!(!list.exists());
}

#[test]
fn the_whole_is_shown_and_cleaned() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let df = |format: &str| yard.ok(&["system", "df", "--format", format]);
    assert_eq!(
        yard.ok(&["system", "df"]),
        "TYPE              TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
         Images            0         0         0B        0B\n\
         Containers        0         0         0B        0B\n\
         Local Volumes     0         0         0B        0B\n\
         Build Cache       0         0         0B        0B\n\
         Unpacked Images   0         0         0B        0B\n"
    );
    yard.load("box:1", "one");
    let words = ["run", "-d", "--name", "one", "--rootfs", "unpack", "box:1", "sleep", "1000"];
    yard.ok(&words);
    let counts = "{{.Type}}: {{.TotalCount}}, {{.Active}}";
    let expected =
        "Images: 1, 1\nContainers: 1, 1\nLocal Volumes: 0, 0\nBuild Cache: 0, 0\nUnpacked Images: 1, 1\n";
    assert_eq!(df(counts), expected);
    assert!(df("json").contains(r#""Type":"Unpacked Images""#));
    // What runs stays, whatever is asked.
    assert_eq!(yard.ok(&["system", "prune", "-a", "-f"]), NOTHING);
    yard.ok(&["stop", "-t", "0", "one"]);
    let asked = yard.slipway(&["system", "prune", "-a"]).stdin("n\n").run();
    assert_eq!(
        asked.stderr,
        "WARNING! This will remove:\n  - all stopped containers\n  - all images without at least one container associated \
         to them\n  - all unpacked images that nothing runs from\n\nAre you sure you want to continue? [y/N] error: \
         system prune has been cancelled\n  hint: answer `y`, or add `-f`\n"
    );
    let removed = yard.ok(&["system", "prune", "-a", "-f"]);
    for head in
        ["Deleted Containers:\n", "\n\nDeleted Images:\nuntagged: box:1\n", "\n\nDeleted Unpacked Images:\n"]
    {
        assert!(removed.contains(head), "{removed}");
    }
    assert!(df(counts).starts_with("Images: 0, 0\nContainers: 0, 0\n"), "{}", df(counts));
    assert!(yard.ok(&["system", "info"]).contains("Store: "));
    yard.sandbox.assert_nothing_left();
}
