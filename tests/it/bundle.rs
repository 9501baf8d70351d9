//! The OCI bundle: crun starts it, and what is inside is what `slipway run` shows.

use serde_json::Value;

use super::support::image::{Shape, TestImage};
use super::support::yard::Yard;

/// Everything that a program can see of its container, in a form that does not depend on the runtime.
const LOOK: &str = "echo env; env | sort; echo id; id; echo cwd; pwd; echo name; busybox hostname; echo caps; \
    grep -E 'Cap(Eff|Prm|Inh|Amb)|NoNewPrivs' /proc/self/status; echo limits; ulimit -n; echo tree; busybox stat -c '%A %u %g %n' /data /etc/os-release /bin/sh; \
    cat /etc/passwd; echo mounts; busybox cut -d' ' -f5 /proc/self/mountinfo | sort -u | grep -vE '^/(proc|sys)/'";

#[test]
fn crun_shows_what_run_shows() {
    need!(userns, fuse, root, tool "busybox", tool "crun", tool "setpriv");
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
    // Where version 2 of the control groups is mounted beside version 1, crun does not start; without it, it does.
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; cd \"$HOME\" && exec setpriv --reuid \"$1\" --regid \"$2\" \
                  --clear-groups crun --root \"$3\" --cgroup-manager=disabled run --bundle look looked";
    let user = &yard.sandbox.user;
    let theirs = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", &user.uid.to_string(), &user.gid.to_string()])
        .arg(&root)
        .env_clear()
        .env("HOME", yard.sandbox.path("home"))
        .env("PATH", super::support::sandbox::PATH)
        .output()
        .unwrap();
    assert!(theirs.status.success(), "{theirs:?}");
    let theirs = yard.sandbox.normalise(&String::from_utf8_lossy(&theirs.stdout));
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
        assert_eq!(cut(&theirs), cut(&ours), "{name}");
    }
    // crun adds nothing but device nodes, and the root where the home shows it.
    let (ours, theirs) = (part(&ours, "mounts"), part(&theirs, "mounts"));
    for mount in &ours {
        assert!(theirs.contains(mount), "{mount} is missing: {theirs:?}");
    }
    let more: Vec<_> = theirs.iter().filter(|mount| !ours.contains(mount)).collect();
    assert!(
        more.iter().all(|mount| mount.starts_with("/dev/") || mount.contains("/look/rootfs")),
        "{more:?}"
    );
    // From a file, an existing directory, and where something is wrong nothing stays.
    yard.ok(&["convert", "-q", "look.sif", "bundle:again"]);
    assert!(yard.sandbox.path("home/again/rootfs/bin/busybox").is_file());
    yard.fails(&["convert", "-q", "look.sif", "bundle:again"], 1, "cannot make `again`: it exists");
    yard.fails(&["convert", "-q", "absent.sif", "bundle:other"], 1, "absent.sif");
    assert!(!yard.sandbox.path("home/other").exists());
    yard.assert_empty();
}
