//! What users of docker rely on about stopping and naming containers, held against the docker profile.

use serde_json::json;

use super::support::image::TestImage;
use super::support::sandbox::wait_until;
use super::support::yard::Yard;

/// Says that it listens, and with which exit code a signal ends it.
const LISTENS: &str = "trap 'exit 3' USR1; trap 'exit 4' TERM; echo up; while :; do sleep 0.01; done";
const DEAF: &str = "trap '' TERM; echo up; while :; do sleep 0.01; done";

fn start(yard: &Yard, flags: &[&str], image: &str, script: &str) {
    yard.start(&[&["--profile", "docker", "--name", "box"], flags, &[image, "sh", "-c", script]].concat());
    wait_until("it listens", || yard.ok(&["logs", "box"]) == "up\n");
}

#[test]
fn stop_and_kill_in_a_pid_namespace_do_what_docker_does() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let mut image = TestImage::busybox();
    image.config["StopSignal"] = json!("SIGUSR1");
    image.convert(&yard.sandbox, "usr1.sif");
    for (flags, image, script, act, code) in [
        // A handler of the shell, the image's STOPSIGNAL, and the user's.
        (&[][..], "box.sif", LISTENS, &["stop", "box"][..], 4),
        (&["--init"], "box.sif", LISTENS, &["stop", "box"], 4),
        (&[], "usr1.sif", LISTENS, &["stop", "box"], 3),
        (&["--stop-signal", "TERM"], "usr1.sif", LISTENS, &["stop", "box"], 4),
        (&[], "usr1.sif", LISTENS, &["stop", "-s", "TERM", "box"], 4),
        (&[], "box.sif", LISTENS, &["kill", "-s", "USR1", "box"], 3),
        // Without a handler, and after the grace.
        (&[], "box.sif", "echo up; exec sleep 1000", &["stop", "box"], 143),
        (&[], "box.sif", DEAF, &["stop", "-t", "0", "box"], 137),
        (&["--stop-timeout", "0", "--init"], "box.sif", DEAF, &["stop", "box"], 137),
        (&[], "box.sif", DEAF, &["kill", "box"], 137),
    ] {
        start(&yard, flags, image, script);
        assert_eq!(yard.ok(act), "box\n", "{flags:?} {act:?}");
        // Of a signal that is not KILL nobody knows whether it ends anything.
        assert_eq!(yard.ok(&["wait", "box"]), format!("{code}\n"), "{flags:?} {act:?}");
        assert_eq!(yard.status("box"), ("exited".into(), code), "{flags:?} {image} {act:?}");
        yard.ok(&["rm", "box"]);
    }
    // One that does not look ends nothing of the container, and one that ends by itself is told as it was.
    start(&yard, &[], "box.sif", LISTENS);
    yard.ok(&["kill", "-s", "WINCH", "box"]);
    assert_eq!(yard.status("box").0, "running");
    yard.ok(&["rm", "-f", "box"]);
    yard.start(&["--profile", "docker", "--name", "box", "box.sif", "sh", "-c", "kill -SEGV $$"]);
    assert_eq!(yard.ok(&["wait", "box"]), "139\n");
    yard.ok(&["rm", "box"]);
    yard.assert_empty();
}

#[test]
fn without_a_proc_of_its_own_a_container_has_no_pid_namespace() {
    need!(userns, fuse, tool "busybox", tool "unshare");
    let yard = Yard::new();
    let hidden = |flags: &str| {
        let script = format!(
            "mount --bind /dev/null /proc/version; readlink /proc/self/ns/pid; \
             $SLIPWAY run {flags} box.sif sh -c 'readlink /proc/self/ns/pid; test -d /proc/$$ && echo itself'"
        );
        let words = ["-r", "-m", "--", "/bin/sh", "-euc", &script];
        let run = yard.sandbox.command("unshare", words).env("SLIPWAY", yard.sandbox.program());
        let output = run.env("SLIPWAY_RUNTIME_DIR", &yard.state).run();
        let lines: Vec<_> = output.stdout.lines().collect();
        assert!(lines.len() == 3 && lines[0] == lines[1] && lines[2] == "itself", "{output}");
        output.stderr
    };
    assert_eq!(
        hidden("--pid private"),
        "warning: `--pid private` has no effect: parts of `/proc` are hidden here, so that the container sees the host's \
         processes\n"
    );
    assert_eq!(
        hidden("--profile docker"),
        "warning: parts of `/proc` are hidden here, so that the container sees the host's processes\n"
    );
    assert_eq!(hidden("--profile docker --pid host"), "");
    yard.assert_empty();
}

#[test]
fn names_ids_and_prefixes_resolve_as_docker_s_do() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let create = |name: &str| yard.ok(&["create", "--name", name, "box.sif", "true"]).trim().to_owned();
    let first = create("first");
    // A name that is the beginning of another's id wins over that.
    let second = create(&first[..12]);
    let id = |word: &str| yard.ok(&["container", "inspect", "--format", "{{.Id}}", word]).trim().to_owned();
    assert_eq!(id("first"), first);
    assert_eq!(id("/first"), first);
    assert_eq!(id(&first), first);
    assert_eq!(id(&first[..13]), first);
    assert_eq!(id(&first[..12]), second);
    // A whole id wins over a name.
    let third = create(&first);
    assert_eq!(id(&first), first);
    assert_eq!(id(&third), third);
    // Of two that begin alike neither is meant.
    let last = if first.ends_with('0') { "1" } else { "0" };
    let twin = yard.state.join("containers").join(format!("{}{last}", &first[..63]));
    std::fs::create_dir(&twin).unwrap();
    let alike = &first[..40];
    yard.fails(&["rm", alike], 1, &format!("`{alike}` is the beginning of more than one container's id"));
    std::fs::remove_dir(&twin).unwrap();
    for word in ["firs", "FIRST", "zz", "firstly"] {
        yard.fails(&["rm", word], 1, "no such container");
    }
    yard.fails(&["create", "--name", "first", "box.sif"], 1, "is already in use");
    yard.ok(&["rm", &third, &second, "first"]);
    assert_eq!(yard.ok(&["ps", "-aq"]), "");
    yard.assert_empty();
}

#[test]
fn what_a_container_has_of_its_own_is_told_as_docker_does() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let told = |word: &str| {
        let at = |pointer: &str| yard.inspect(word, pointer);
        let host = at("/HostConfig");
        json!([
            host["NetworkMode"],
            host["PidMode"],
            host["IpcMode"],
            host["ReadonlyRootfs"],
            at("/NetworkSettings/Networks"),
        ])
    };
    let format = ["ps", "--format", "{{.Names}} {{.Networks}} {{.Size}}"];
    yard.start(&["--name", "hpc", "box.sif", "sleep", "1000"]);
    assert_eq!(told("hpc"), json!(["host", "host", "host", true, {"host": {}}]));
    let image = std::fs::metadata(yard.sandbox.path("home/box.sif")).unwrap().len();
    let image = slipway::base::sizes::human_size(image);
    assert_eq!(yard.ok(&format), format!("hpc host 0B (virtual {image})\n"));
    yard.ok(&["rm", "-f", "hpc"]);
    let flags = ["--profile=docker", "--network=none", "--hostname=far", "--name=own"];
    yard.start(&[&flags[..], &["box.sif", "sleep", "1000"]].concat());
    assert_eq!(told("own"), json!(["none", "", "private", false, {"none": {}}]));
    assert_eq!(yard.inspect("own", "/Config/Hostname"), "far");
    let script = "head -c 1200000 /dev/zero >/big; ln /big /twin; mkdir -m 0 /closed";
    yard.slipway(&["exec", "own", "sh", "-c", script]);
    assert!(yard.ok(&format).starts_with("own none 1.2MB (virtual "));
    let table = yard.ok(&["ps", "-s"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].ends_with("SIZE") && lines[1].contains("1.2MB (virtual "), "{table}");
    yard.ok(&["rm", "-f", "own"]);
    yard.assert_empty();
}
