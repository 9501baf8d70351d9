//! What a workload cannot do, and what a launch leaves it.

use std::os::unix::fs::PermissionsExt as _;

use super::support::image::TestImage;
use super::support::sandbox::{Sandbox, wait_until};
use super::support::yard::Yard;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    sandbox
}

fn run(sandbox: &Sandbox, flags: &[&str], script: &str) -> String {
    let output = sandbox.slipway(["run"]).args(flags).args(["box.sif", "sh", "-c", script]).run();
    assert_eq!(output.code, Some(0), "{flags:?}: {output}");
    output.stdout
}

/// Lines of `/proc/self/status`.
const HELD: &str = "grep -E '^(CapEff|CapBnd|CapAmb|NoNewPrivs):' /proc/self/status | tr '\\t\\n' '  '";

#[test]
fn capabilities_are_dropped_unless_asked_for() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let none = "0000000000000000";
    // Not root: none, whatever the bounding set says.
    let held = run(&sandbox, &[], HELD);
    assert!(held.contains(&format!("CapEff: {none}")) && held.contains("NoNewPrivs: 1"), "{held}");
    // Root inside: docker's.
    let held = run(&sandbox, &["--user", "0"], HELD);
    assert!(held.contains("CapEff: 00000000a80425fb CapBnd: 00000000a80425fb"), "{held}");
    let held = run(&sandbox, &["--user", "0", "--cap-drop", "all", "--cap-add", "CHOWN"], HELD);
    assert!(held.contains("CapEff: 0000000000000001 CapBnd: 0000000000000001"), "{held}");
    // By name also without being root: SYS_PTRACE is number 19.
    let held = run(&sandbox, &["--cap-add=SYS_PTRACE"], HELD);
    assert!(held.contains("CapEff: 0000000000080000") && held.contains("CapAmb: 0000000000080000"), "{held}");
    let output = sandbox.slipway(["run", "--cap-add", "SYS_PTRACE", "box.sif", "true"]).run();
    assert_eq!(
        output.stderr,
        "warning: `--cap-add SYS_PTRACE`: capabilities hold inside the container only, over what is yours\n"
    );
    let output = sandbox.slipway(["run", "--cap-add", "FLY", "box.sif", "true"]).run();
    assert!(output.stderr.starts_with("error: `--cap-add FLY`: there is no such capability\n"), "{output}");
    // Everything, and still no new privileges.
    let held = run(&sandbox, &["--privileged", "--user", "0"], HELD);
    assert!(!held.contains(&format!("CapBnd: {none}")) && held.contains("NoNewPrivs: 1"), "{held}");
    let mounts = run(&sandbox, &["--privileged", "--user", "0"], "mount -t tmpfs none /data && echo mounted");
    assert_eq!(mounts, "mounted\n");
    let mounts = run(&sandbox, &["--user", "0"], "mount -t tmpfs none /data 2>/dev/null || echo refused");
    assert_eq!(mounts, "refused\n");
    sandbox.assert_nothing_left();
}

#[test]
fn devices_are_given_by_name() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let script = "echo x >/dev/sink && ls -d /dev/sink";
    assert_eq!(run(&sandbox, &["--device", "/dev/null:/dev/sink"], script), "/dev/sink\n");
    assert_eq!(run(&sandbox, &["--device=/dev/null:/dev/sink:rwm"], script), "/dev/sink\n");
    // A directory, as /dev/dri is one.
    assert_eq!(run(&sandbox, &["--device", "/dev/pts:/dev/other"], "ls /dev/other | grep -c ptmx"), "1\n");
    assert_eq!(run(&sandbox, &["--profile=docker"], "ls /dev/fuse 2>/dev/null || echo none"), "none\n");
    assert_eq!(run(&sandbox, &["--profile=docker", "--device", "/dev/fuse"], "ls /dev/fuse"), "/dev/fuse\n");
    assert_eq!(run(&sandbox, &["--profile=docker", "--privileged"], "ls /dev/fuse"), "/dev/fuse\n");
    for (text, expected) in [
        ("/dev/none", "error: cannot give the device `/dev/none`: No such file or directory (os error 2)"),
        ("/etc/hosts", "error: cannot give `/etc/hosts` as a device: it is none"),
        ("null", "error: `--device null`: `null` is not the path of a device"),
        ("/dev/null:sink", "error: `--device /dev/null:sink`: `sink` cannot be a place inside"),
        ("/dev/null:/a:/b", "error: `--device /dev/null:/a:/b` is not of the form HOST[:INSIDE[:rwm]]"),
    ] {
        let output = sandbox.slipway(["run", "--device", text, "box.sif", "true"]).run();
        assert_eq!(output.stderr.lines().next(), Some(expected), "{output}");
    }
    let output = sandbox
        .slipway(["run", "--group-add", "no-such-group", "--group-add", "keep-groups", "box.sif", "true"])
        .run();
    assert_eq!(
        output.stderr,
        "warning: `--group-add no-such-group` has no effect: you are not in that group\n"
    );
    let own = sandbox.user.gid.to_string();
    assert_eq!(run(&sandbox, &["--group-add", &own], "echo ran"), "ran\n");
    sandbox.assert_nothing_left();
}

/// CVE-2024-21626: a directory fd of the host, left open over the start, leads out of the container.
#[test]
fn no_way_leads_back_to_the_host() {
    need!(userns, fuse, tool "busybox", tool "bash");
    let sandbox = sandbox();
    sandbox.write("home/of-the-host", "secret");
    for flags in
        [&["-C"][..], &["-C", "--user", "0"], &["--profile=docker"], &["--profile=docker", "--privileged"]]
    {
        // Neither the directory nor any fd is outside of the root, by whatever path; what the caller has open beside its
        // streams is closed before, since that is the workload's by right.
        let script = "ls /proc/self/fd; for fd in /proc/self/fd/*; do ls $fd/.. >/dev/null 2>&1 && echo $fd; done; \
                      pwd; ls /proc/self/cwd/../../../../../../of-the-host 2>/dev/null; \
                      cat ../../../../../../..$OUTSIDE 2>/dev/null; cat /proc/self/root$OUTSIDE 2>/dev/null; true";
        let closing = "for fd in /proc/self/fd/*; do fd=${fd##*/}; [ $fd -le 2 ] || eval \"exec $fd>&-\"; done; exec \"$@\"";
        let outside = format!("OUTSIDE={}", sandbox.path("home/of-the-host").display());
        let program = sandbox.program();
        let words = ["-c", closing, "bash", program.to_str().unwrap(), "run", "-w", "/", "-e", &outside];
        let output = sandbox.command("bash", words).args(flags).args(["box.sif", "sh", "-c", script]).run();
        assert_eq!(output.stdout, "0\n1\n2\n3\n/\n", "{flags:?}: {output}");
    }
    // A working directory that is a fd of the launcher is no directory of the host.
    for path in ["/proc/self/fd/7", "/proc/self/fd/8", "/proc/self/fd/9"] {
        let output = sandbox.slipway(["run", "-C", "-w", path, "box.sif", "sh", "-c", "pwd; ls"]).run();
        assert_eq!(output.code, Some(125), "{output}");
    }
    sandbox.assert_nothing_left();
}

/// CVE-2019-5736: the program that starts containers, overwritten from inside through `/proc/PID/exe`.
#[test]
fn our_program_cannot_be_reached_from_inside() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let before = std::fs::read(sandbox.program()).unwrap();
    // The file is the user's own to write to, so that only the container is in the way.
    std::fs::set_permissions(sandbox.program(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = "for exe in /proc/[0-9]*/exe; do case $(readlink $exe) in *slipway*) \
                  (echo broken >$exe) 2>/dev/null && echo overwrote $exe; \
                  ls ${exe%exe}fd/ ${exe%exe}root/ >/dev/null 2>&1 && echo looked into $exe;; esac; done; true";
    for flags in
        [&["-C"][..], &["-C", "--user", "0"], &["--profile=docker"], &["-C", "--privileged", "--user", "0"]]
    {
        assert_eq!(run(&sandbox, flags, script), "", "{flags:?}");
    }
    assert!(std::fs::read(sandbox.program()).unwrap() == before);
    // The launcher itself is gone by then.
    assert_eq!(run(&sandbox, &["-C"], "readlink /proc/$$/exe"), "/bin/busybox\n");
    sandbox.assert_nothing_left();
}

/// The same, through a command that comes in while somebody inside looks for it.
#[test]
fn our_program_cannot_be_reached_while_it_comes_in() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let before = std::fs::read(yard.sandbox.program()).unwrap();
    let script = "echo up; while :; do for exe in /proc/[0-9]*/exe; do case $(readlink $exe) in *slipway*) \
                  echo saw $exe; (echo broken >$exe) 2>/dev/null && echo overwrote $exe;; esac; done; done";
    for flags in
        [&["-C"][..], &["-C", "--user", "0"], &["--profile=docker"], &["--profile=docker", "--privileged"]]
    {
        let words = [&["run", "-d", "--name", "box"], flags, &["box.sif", "sh", "-c", script]].concat();
        yard.run(&words).succeed();
        wait_until("it looks", || yard.ok(&["logs", "box"]).starts_with("up\n"));
        for _ in 0..20 {
            yard.ok(&["exec", "box", "true"]);
        }
        let said = yard.ok(&["logs", "box"]);
        // Whoever may trace every process inside can look at ours, and still not write to a program that runs.
        let may_look = flags.contains(&"--privileged");
        assert!(if may_look { !said.contains("overwrote") } else { said == "up\n" }, "{flags:?}: {said}");
        yard.ok(&["rm", "-f", "box"]);
    }
    assert!(std::fs::read(yard.sandbox.program()).unwrap() == before);
    yard.assert_empty();
}

#[test]
fn the_server_has_no_rights_on_files() {
    need!(userns, fuse, tool "busybox");
    if slipway::sys::landlock::version().is_none() {
        println!("skipped: the kernel has no Landlock");
        return;
    }
    let sandbox = sandbox();
    let mut child = sandbox.slipway(["run", "box.sif", "cat"]).stdin_open().spawn();
    let server =
        || sandbox.processes().into_iter().find(|(_, name)| name == "slipway-fuse").map(|(pid, _)| pid);
    wait_until("the server runs", || server().is_some());
    let pid = server().unwrap();
    // Whoever is behind such a fence has given up gaining privileges for it.
    wait_until("the server is fenced in", || {
        std::fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|text| text.contains("NoNewPrivs:\t1"))
    });
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    sandbox.assert_nothing_left();
}

#[test]
fn conversions_write_to_their_target_only() {
    need!(userns, tool "busybox");
    if slipway::sys::landlock::version().is_none() {
        println!("skipped: the kernel has no Landlock");
        return;
    }
    let sandbox = Sandbox::new();
    let image = TestImage::busybox();
    // A target in a directory that a link leads to, and one beside the source: both are written.
    sandbox.make_directory("home/deep");
    std::os::unix::fs::symlink(sandbox.path("home/deep"), sandbox.path("home/link")).unwrap();
    image.convert(&sandbox, "link/box.sif");
    image.convert(&sandbox, "box.sif");
    assert!(sandbox.path("home/deep/box.sif").exists());
    image.save(&sandbox, "box.tar", super::support::image::Shape::Oci);
    sandbox.slipway(["load", "-q", "-i", "box.tar"]).succeed();
    assert!(sandbox.slipway(["images", "-q"]).succeed().lines().count() == 1);
    // A directory of the store that leads elsewhere is a place of the store too.
    std::fs::rename(sandbox.path("home/.local/share/slipway/images"), sandbox.path("home/other")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("home/other"), sandbox.path("home/.local/share/slipway/images"))
        .unwrap();
    sandbox.slipway(["load", "-q", "-i", "box.tar"]).succeed();
    sandbox.assert_nothing_left();
}

#[test]
fn pushes_and_pulls_have_no_rights_on_other_files() {
    need!(tool "busybox");
    if slipway::sys::landlock::version().is_none() {
        println!("skipped: the kernel has no Landlock");
        return;
    }
    let sandbox = Sandbox::new();
    TestImage::busybox().save(&sandbox, "box.tar", super::support::image::Shape::Oci);
    sandbox.slipway(["load", "-q", "-i", "box.tar"]).succeed();
    let is_fenced = |verb: &str| {
        // A registry that takes calls and says nothing.
        let registry = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("{}/box:1", registry.local_addr().unwrap());
        sandbox.slipway(["tag", "boxtest", &name]).succeed();
        let mut child = sandbox.slipway([verb, &name]).spawn();
        let call = registry.accept().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        drop(call);
        // Whoever is behind such a fence has given up gaining privileges for it.
        status.contains("NoNewPrivs:\t1")
    };
    assert!(is_fenced("push") && is_fenced("pull"));
    // A login helper is a program of others, and may need what we do not.
    sandbox.make_directory("home/.docker");
    sandbox.write("home/.docker/config.json", r#"{"credsStore": "absent"}"#);
    assert!(!is_fenced("push") && !is_fenced("pull"));
}
