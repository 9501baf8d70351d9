//! What a look into a stopped container sees: its files and mounts, and nothing that only a running one has.

use super::container_files::names;
use super::support::image::{Shape, TestImage};
use super::support::yard::Yard;

/// What a container does to its files before it is looked at.
const WORK: &str = "echo kept >/etc/kept; echo bound >/bound/from-inside; echo named >/named/file; \
                    echo memory >/memory/file; rm /etc/not-executable; chmod 000 /data";

/// A container that has ended, with a bind, a read-only one, a volume, memory, and everything that a visit leaves out.
fn ended(yard: &Yard) {
    yard.sandbox.make_directory("home/bound");
    yard.sandbox.write("home/bound/of-the-host", "host\n");
    let bind = format!("{}:/bound", yard.sandbox.path("home/bound").display());
    let read_only = format!("{}:/closed:ro", yard.sandbox.path("home/bound").display());
    let flags = [
        "--profile=docker",
        "--name=box",
        "-v",
        &bind,
        "-v",
        &read_only,
        "-v",
        "things:/named",
        "--tmpfs",
        "/memory",
        "--init",
        "--network=none",
        "--hostname=far",
        "--ulimit",
        "nofile=64",
        "--user=0",
    ];
    TestImage::busybox().save(&yard.sandbox, "box.tar", Shape::Oci);
    yard.ok(&["load", "-q", "-i", "box.tar"]);
    yard.start(&[&flags[..], &["boxtest", "sh", "-c", WORK]].concat());
    assert_eq!(yard.ok(&["wait", "box"]), "0\n");
}

#[test]
fn a_stopped_container_shows_its_root_and_its_mounts() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    ended(&yard);
    let copy = |from: &str| {
        yard.ok(&["cp", from, "copied"]);
        std::fs::read_to_string(yard.sandbox.path("home/copied")).unwrap()
    };
    assert_eq!(copy("box:/etc/kept"), "kept\n");
    assert_eq!(copy("box:/bound/from-inside"), "bound\n");
    assert_eq!(copy("box:/closed/of-the-host"), "host\n");
    assert_eq!(copy("box:/named/file"), "named\n");
    assert!(copy("box:/etc/os-release").contains("boxtest"));
    // Of memory and processes nothing is left.
    yard.fails(&["cp", "box:/memory/file", "copied"], 1, "/memory/file");
    yard.fails(&["cp", "box:/proc/self/status", "copied"], 1, "/proc/self");
    // What is copied in is there for the next start, and a read-only mount stays read-only.
    yard.sandbox.write("home/given", "given\n");
    yard.ok(&["cp", "given", "box:/etc/given"]);
    yard.ok(&["cp", "given", "box:/named/given"]);
    yard.fails(
        &["cp", "given", "box:/closed/given"],
        1,
        "cannot write `given`: its place in the container is read-only",
    );
    assert!(!yard.sandbox.path("home/bound/given").exists());
    let changes = "C /data\nC /etc\nA /etc/given\nA /etc/kept\nD /etc/not-executable\n";
    assert_eq!(yard.ok(&["diff", "box"]), changes);
    let tar = yard.run(&["export", "box"]).spawn().wait_with_output().unwrap().stdout;
    let names = names(&tar);
    let has = |name: &str| names.iter().any(|found| found.trim_start_matches("./") == name);
    assert!(has("etc/kept") && has("etc/given") && has("bin/busybox"), "{names:?}");
    assert!(!has("etc/not-executable") && !has("bound/of-the-host") && !has("named/file"), "{names:?}");
    yard.ok(&["commit", "box", "seen"]);
    let script =
        "cat /etc/kept /etc/given; ls /etc/not-executable /bound/of-the-host /named/file 2>/dev/null; true";
    assert_eq!(yard.ok(&["run", "--rm", "-C", "seen", "sh", "-c", script]), "kept\ngiven\n");
    // No visit has started it, or left a process or a mount.
    assert_eq!(yard.status("box"), ("exited".into(), 0));
    yard.ok(&["rm", "box"]);
    yard.ok(&["volume", "rm", "things"]);
    yard.assert_empty();
}
