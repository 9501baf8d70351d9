//! `slipway run` on a real kernel, as an ordinary user, with a busybox image.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::support::image::{Shape, TestImage};
use super::support::sandbox::{Sandbox, wait_until};

/// A sandbox with `box.sif` in its home.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    sandbox
}

/// Runs words behind `slipway run` and gives the standard output; nothing may be left afterwards.
#[track_caller]
fn check(sandbox: &Sandbox, words: &[&str], expected: &str) {
    let output = sandbox.slipway(["run"]).args(words).run();
    assert_eq!(output.stdout, expected, "{words:?}: {output}");
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{words:?}: {output}");
    sandbox.assert_nothing_left();
}

/// Waits until the child has become the workload.
fn wait_for_exec(sandbox: &Sandbox, child: &Child) {
    let exe = format!("/proc/{}/exe", child.id());
    wait_until("the launcher becomes the workload", || {
        std::fs::read_link(&exe).is_ok_and(|exe| exe != sandbox.program() && exe.ends_with("busybox"))
    });
}

#[test]
fn entrypoint_and_cmd_merge_as_docker_does() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let os_release = "ID=boxtest\nPRETTY_NAME=\"Box of the tests\"\n";
    check(&sandbox, &["box.sif"], os_release);
    check(&sandbox, &["box.sif", "echo", "-n", "--plan", "-v"], "--plan -v");
    check(&sandbox, &["--entrypoint", "echo", "box.sif"], "\n");
    check(&sandbox, &["--entrypoint", "echo", "box.sif", "a  b", "c"], "a  b c\n");
    let mut image = TestImage::busybox();
    image.config["Entrypoint"] = json!(["echo", "from", "entrypoint:"]);
    image.convert(&sandbox, "entry.sif");
    check(&sandbox, &["entry.sif"], "from entrypoint: cat /etc/os-release\n");
    check(&sandbox, &["entry.sif", "mine"], "from entrypoint: mine\n");
    check(&sandbox, &["--entrypoint", "", "entry.sif", "echo", "bare"], "bare\n");
}

#[test]
fn the_environment_is_asked_over_image_over_host() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let output = sandbox
        .slipway(["run", "-e", "ASKED=1", "-e", "KEPT", "-e", "ABSENT", "-e", "SPACED=a b", "box.sif", "env"])
        .env("KEPT", "caller")
        .env("FROM_IMAGE", "host")
        .env("FROM_HOST", "host")
        .env("LD_LIBRARY_PATH", "/host/lib")
        .succeed();
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort_unstable();
    let user = format!("USER={}", sandbox.user.name);
    assert_eq!(
        lines,
        [
            "ASKED=1",
            "FROM_HOST=host",
            "FROM_IMAGE=image",
            "HOME=[DIR]/home",
            "KEPT=caller",
            "LANG=C.UTF-8",
            "PATH=/bin",
            "PYTHONNOUSERSITE=1",
            "SPACED=a b",
            &user,
        ]
    );
    check(&sandbox, &["-e", "PATH=/x:/bin", "box.sif", "sh", "-c", "echo $PATH"], "/x:/bin\n");
}

#[test]
fn the_working_directory_is_the_callers_or_the_one_asked_for() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    sandbox.make_directory("home/deep/er");
    check(&sandbox, &["box.sif", "pwd"], "[DIR]/home\n");
    check(&sandbox, &["-w", "/data", "box.sif", "pwd"], "/data\n");
    let deep = sandbox.path("home/deep/er");
    let output =
        sandbox.slipway(["run", "../../box.sif", "sh", "-c", "pwd; touch here"]).cwd(&deep).succeed();
    assert_eq!(output, "[DIR]/home/deep/er\n");
    assert!(deep.join("here").exists());
}

#[test]
fn binds_show_the_hosts_files() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    sandbox.make_directory("given/sub");
    sandbox.write("given/file", "of the host\n");
    let given = sandbox.path("given").to_str().unwrap().to_owned();
    let both = format!("{given}:/mnt/given");
    let read_only = format!("{given}:/mnt/given:ro");
    let file = format!("{given}/file:/etc/one-file");
    check(&sandbox, &["-v", &both, "box.sif", "cat", "/mnt/given/file"], "of the host\n");
    check(&sandbox, &["-B", &both, "box.sif", "ls", "/mnt/given"], "file\nsub\n");
    check(&sandbox, &["-B", &given, "box.sif", "sh", "-c", &format!("cat {given}/file")], "of the host\n");
    check(&sandbox, &["-v", &file, "box.sif", "cat", "/etc/one-file"], "of the host\n");
    check(&sandbox, &["-v", &both, "box.sif", "sh", "-c", "echo new >/mnt/given/new"], "");
    assert_eq!(std::fs::read_to_string(sandbox.path("given/new")).unwrap(), "new\n");
    let refused = "touch /mnt/given/other 2>/dev/null || echo refused";
    check(&sandbox, &["-v", &read_only, "box.sif", "sh", "-c", refused], "refused\n");
    // A later bind lies over an earlier one, and below it where that is asked for.
    let below = format!("{given}/sub:/mnt/given/sub/../sub");
    check(&sandbox, &["-v", &both, "-v", &below, "box.sif", "ls", "/mnt/given/sub"], "");
}

#[test]
fn the_caller_is_the_same_person_inside() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let user = &sandbox.user;
    check(&sandbox, &["box.sif", "id", "-u"], &format!("{}\n", user.uid));
    check(&sandbox, &["box.sif", "id", "-g"], &format!("{}\n", user.gid));
    check(&sandbox, &["box.sif", "whoami"], &format!("{}\n", user.name));
    let line = format!("{}:x:{}:{}", user.name, user.uid, user.gid);
    let script = format!("grep -c '^{line}:' /etc/passwd; grep -c '^root:' /etc/passwd");
    check(&sandbox, &["box.sif", "sh", "-c", &script], "1\n1\n");
    check(
        &sandbox,
        &["box.sif", "sh", "-c", "echo mine >$HOME/made; stat -c %u $HOME/made"],
        &format!("{}\n", user.uid),
    );
    assert_eq!(std::fs::read_to_string(sandbox.path("home/made")).unwrap(), "mine\n");
    check(&sandbox, &["box.sif", "grep", "NoNewPrivs", "/proc/self/status"], "NoNewPrivs:\t1\n");
}

#[test]
fn the_root_is_the_image_and_nothing_else() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let script = "while read -r source place kind options rest; do \
                  [ $place != / ] || { echo $kind; case $options in ro,*) echo read-only;; esac; }; done </proc/mounts";
    check(&sandbox, &["box.sif", "sh", "-c", script], "fuse.slipway\nread-only\n");
    check(&sandbox, &["box.sif", "sh", "-c", "touch /bin/x 2>/dev/null || echo refused"], "refused\n");
    check(&sandbox, &["box.sif", "sh", "-c", "ls -A /.slipway/host | wc -l"], "0\n");
    check(
        &sandbox,
        &["box.sif", "sh", "-c", "test -e /usr || echo 'of the host, and hidden'"],
        "of the host, and hidden\n",
    );
    for device in ["null", "zero", "full", "random", "urandom"] {
        check(
            &sandbox,
            &["box.sif", "sh", "-c", &format!("test -c /dev/{device} && echo device")],
            "device\n",
        );
    }
    check(&sandbox, &["box.sif", "readlink", "/dev/stdin"], "/proc/self/fd/0\n");
    check(
        &sandbox,
        &["box.sif", "sh", "-c", "test -d /proc/1 && test -d /sys/kernel && echo both"],
        "both\n",
    );
}

#[test]
fn standard_streams_pass_through() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let input: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    let output = sandbox.slipway(["run", "box.sif", "cat"]).stdin(input.clone()).succeed();
    assert!(output.as_bytes() == input, "{} of {} bytes came back", output.len(), input.len());
    let output = sandbox.slipway(["run", "box.sif", "sh", "-c", "echo out; echo err >&2"]).run();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    // PMI hands a rank its socket as an open fd.
    let script = "\"$SLIPWAY\" run box.sif sh -c 'echo through >&9' 9>ninth; cat ninth";
    assert_eq!(sandbox.shell(script).succeed(), "through\n");
    sandbox.assert_nothing_left();
}

#[test]
fn a_command_substitution_does_not_wait_for_the_server() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    // The container lives on in `sleep`, so its server does too; a server that held the pipe would keep `$(…)` waiting.
    let script =
        "text=$(\"$SLIPWAY\" run box.sif sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'); echo \"$text\"";
    let pid: i32 = sandbox.shell(script).succeed().trim().parse().unwrap();
    assert_eq!(servers(&sandbox), 1);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    sandbox.assert_nothing_left();
}

/// How many file servers run. Each may have a standby, which comes a little later.
fn servers(sandbox: &Sandbox) -> usize {
    sandbox.processes().iter().filter(|(_, name)| name == "slipway-fuse").count()
}

#[test]
fn the_started_process_becomes_the_application() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let child = sandbox.slipway(["run", "box.sif", "sh", "-c", "echo $$"]).spawn();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{pid}\n"));
    sandbox.assert_nothing_left();
}

#[test]
fn signals_reach_the_application() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let mut child = sandbox.slipway(["run", "box.sif", "sleep", "1000"]).spawn();
        wait_for_exec(&sandbox, &child);
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal as i32));
        sandbox.assert_nothing_left();
    }
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child = sandbox.slipway(["run", "box.sif", "sh", "-c", script]).spawn();
    let mut pipe = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut pipe, &mut ready).unwrap();
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut pipe, &mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("caught\n", Some(9)));
    // A shell reports a child that died of a signal as 128 + n.
    let script = "\"$SLIPWAY\" run box.sif sh -c 'kill -TERM $$' || echo $?";
    assert_eq!(sandbox.shell(script).succeed(), "143\n");
    sandbox.assert_nothing_left();
}

#[test]
fn exit_codes_are_dockers() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let check = |words: &[&str], code: i32| {
        let output = sandbox.slipway(["run"]).args(words).run();
        assert_eq!(output.code, Some(code), "{words:?}: {output}");
        sandbox.assert_nothing_left();
    };
    check(&["box.sif", "true"], 0);
    check(&["box.sif", "sh", "-c", "exit 3"], 3);
    check(&["box.sif", "sh", "-c", "exit 255"], 255);
    check(&["--no-such-flag", "box.sif"], 125);
    check(&["absent.sif"], 125);
    check(&["box.sif", "/etc/not-executable"], 126);
    check(&["box.sif", "/etc/not-a-program"], 126);
    check(&["box.sif", "/data"], 126);
    check(&["box.sif", "no-such-command"], 127);
    check(&["box.sif", "/no/such/command"], 127);
}

#[test]
fn two_containers_run_at_once() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let mut first = sandbox.slipway(["run", "box.sif", "cat"]).stdin_open().spawn();
    let mut second = sandbox.slipway(["run", "box.sif", "cat"]).stdin_open().spawn();
    wait_for_exec(&sandbox, &first);
    wait_for_exec(&sandbox, &second);
    assert_eq!(servers(&sandbox), 2);
    for child in [&mut first, &mut second] {
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"both\n").unwrap();
    }
    for child in [first, second] {
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"both\n".as_slice()));
    }
    sandbox.assert_nothing_left();
}

#[test]
fn a_plan_runs_nothing() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let words = ["run", "--plan", "-v", "./home:/mnt/x", "box.sif", "touch", "made"];
    sandbox.make_directory("home/home");
    let text = sandbox.slipway(words).succeed();
    let steps: Vec<_> = text.lines().filter(|line| !line.starts_with("note:")).collect();
    let starts = |line: &str, word: &str| line.split_whitespace().nth(1) == Some(word);
    assert!(starts(steps[0], "namespaces"), "{text}");
    assert!(starts(steps[steps.len() - 1], "exec"), "{text}");
    assert!(steps.iter().any(|line| starts(line, "image") && line.contains("[DIR]/home/box.sif")), "{text}");
    assert!(
        steps.iter().any(|line| line.contains("/mnt/x <- host directory [DIR]/home/home (rw, by ")),
        "{text}"
    );
    let json = sandbox.slipway(["run", "--plan", "--json", "box.sif"]).succeed();
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    let ops = plan["ops"].as_array().unwrap();
    assert_eq!(ops[0]["op"], "new-namespaces");
    assert_eq!(ops[0]["uid"], sandbox.user.uid);
    assert_eq!(ops[ops.len() - 1]["op"], "exec");
    assert_eq!(ops[ops.len() - 1]["argv"], json!(["cat", "/etc/os-release"]));
    assert!(!sandbox.path("home/made").exists());
    sandbox.assert_nothing_left();
}

#[test]
fn a_loaded_image_runs_by_its_name() {
    need!(userns, fuse, tool "busybox");
    for (shape, file) in [(Shape::Legacy, "legacy.tar"), (Shape::Oci, "oci.tar")] {
        let sandbox = Sandbox::new();
        TestImage::busybox().save(&sandbox, file, shape);
        sandbox.slipway(["load", "-i", file]).succeed();
        let images = sandbox.slipway(["images"]).succeed();
        assert!(images.contains("boxtest"), "{images}");
        check(&sandbox, &["boxtest", "echo", "by name"], "by name\n");
        check(&sandbox, &["boxtest:latest", "sh", "-c", "echo $FROM_IMAGE"], "image\n");
    }
}

#[test]
fn every_source_gives_the_same_bytes() {
    need!(tool "busybox");
    let sandbox = Sandbox::new();
    let image = TestImage::busybox();
    image.save(&sandbox, "legacy.tar", Shape::Legacy);
    image.save(&sandbox, "oci.tar", Shape::Oci);
    image.write_layout(&sandbox, "layout");
    for (source, target) in [
        ("docker-archive:oci.tar", "a.sif"),
        ("docker-archive:oci.tar", "b.sif"),
        ("oci:layout", "c.sif"),
        ("oci:layout:latest", "d.sif"),
    ] {
        sandbox.slipway(["convert", source, target]).succeed();
    }
    let bytes = |name: &str| std::fs::read(sandbox.path(&format!("home/{name}"))).unwrap();
    assert!(bytes("a.sif") == bytes("b.sif"), "one source gave two results");
    assert!(
        bytes("a.sif") == bytes("c.sif") && bytes("c.sif") == bytes("d.sif"),
        "two sources of one image differ"
    );
    sandbox.slipway(["convert", "docker-archive:legacy.tar", "legacy.sif"]).succeed();
    sandbox.assert_nothing_left();
}

#[test]
fn closed_standard_streams_are_no_trap() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let script = "\"$SLIPWAY\" run box.sif sh -c 'echo fine >\"$HOME/result\"' <&- >&- 2>&-; cat result";
    assert_eq!(sandbox.shell(script).succeed(), "fine\n");
    let child = sandbox.user.command(sandbox.program()).stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert_eq!(child.unwrap().code(), Some(125));
    sandbox.assert_nothing_left();
}
