//! The OCI bundle: crun starts it, and what is inside is what `slipway run` shows.

use serde_json::Value;

use super::support::image::{Shape, TestImage};
use super::support::yard::Yard;

/// Everything that a program can see of its container, in a form that does not depend on the runtime.
const LOOK: &str = "echo env; env | sort; echo id; id; echo cwd; pwd; echo name; busybox hostname; echo caps; \
    grep -E 'Cap(Eff|Prm|Inh|Amb)|NoNewPrivs' /proc/self/status; echo limits; ulimit -n; echo tree; ls -la /data /etc/os-release; \
    cat /etc/passwd; echo mounts; busybox cut -d' ' -f5 /proc/self/mountinfo | sort -u | grep -vE '^/(proc|sys)/'";

#[test]
fn crun_shows_what_run_shows() {
    need!(userns, fuse, tool "busybox", tool "crun");
    let yard = Yard::new();
    let mut image = TestImage::busybox();
    image.config["Cmd"] = serde_json::json!(["sh", "-c", LOOK]);
    image.save(&yard.sandbox, "look.tar", Shape::Oci);
    let printed = yard.ok(&["convert", "-q", "docker-archive:look.tar", "bundle:look"]);
    assert_eq!(printed, "look\n");
    let spec: Value =
        serde_json::from_slice(&std::fs::read(yard.sandbox.path("home/look/config.json")).unwrap()).unwrap();
    assert_eq!((spec["root"]["path"].as_str(), spec["ociVersion"].is_string()), (Some("rootfs"), true));
    yard.ok(&["convert", "-q", "docker-archive:look.tar", "look.sif"]);
    let ours = yard.ok(&["run", "--rm", "look.sif"]);
    let root = yard.sandbox.make_directory("crun");
    let line = format!("crun --root {} --cgroup-manager=disabled run --bundle look looked", root.display());
    let theirs = yard.sandbox.shell(&line).run();
    assert_eq!(theirs.code, Some(0), "{theirs}");
    let part = |text: &str, name: &str| -> Vec<String> {
        let after = text.split(&format!("{name}\n")).nth(1).unwrap_or_default().to_owned();
        after.lines().map(str::to_owned).collect()
    };
    for (name, next) in [
        ("env", "id"),
        ("id", "cwd"),
        ("cwd", "name"),
        ("name", "caps"),
        ("caps", "limits"),
        ("limits", "tree"),
        ("tree", "mounts"),
    ] {
        let cut = |text: &str| -> Vec<String> {
            part(text, name).into_iter().take_while(|line| line != next).collect()
        };
        assert_eq!(cut(&theirs.stdout), cut(&ours), "{name}");
    }
    // crun adds nothing but what it hides or shows by itself.
    let (ours, theirs) = (part(&ours, "mounts"), part(&theirs.stdout, "mounts"));
    for mount in &ours {
        assert!(theirs.contains(mount), "{mount} is missing: {theirs:?}");
    }
    let more: Vec<_> = theirs.iter().filter(|mount| !ours.contains(mount)).collect();
    assert!(more.iter().all(|mount| mount.starts_with("/dev/")), "{more:?}");
    // From a file, an existing directory, and where something is wrong nothing stays.
    yard.ok(&["convert", "-q", "look.sif", "bundle:again"]);
    assert!(yard.sandbox.path("home/again/rootfs/bin/busybox").is_file());
    yard.fails(&["convert", "-q", "look.sif", "bundle:again"], 1, "cannot make `again`: it exists");
    yard.fails(&["convert", "-q", "absent.sif", "bundle:other"], 1, "absent.sif");
    assert!(!yard.sandbox.path("home/other").exists());
    yard.assert_empty();
}
