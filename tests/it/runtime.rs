//! Detached containers and the verbs that look after them, as an ordinary user on a real kernel.

use std::path::PathBuf;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::support::sandbox::{DEADLINE, wait_until};
use super::support::yard::{Yard, is_running};

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn kill_monitor(yard: &Yard, word: &str) {
    let monitor = yard.pid(word, "/Slipway/Monitor");
    signal(monitor, Signal::SIGKILL);
    wait_until("the monitor dies", || !is_running(monitor));
}

#[test]
fn a_container_lives_on_and_is_found_again() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let id = yard.start(&["--name", "web", "--label", "a=b", "box.sif", "sleep", "1000"]);
    let short = &id[..12];
    let table = yard.ok(&["ps"]);
    let mut lines = table.lines();
    let titles: Vec<_> =
        lines.next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(titles, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    let row = lines.next().unwrap();
    assert!(
        row.starts_with(short)
            && row.contains("\"sleep 1000\"")
            && row.contains("Up ")
            && row.ends_with("web")
    );
    let row: Value = serde_json::from_str(&yard.ok(&["ps", "--format", "json"])).unwrap();
    assert_eq!((row["ID"].as_str(), row["State"].as_str()), (Some(short), Some("running")));
    assert_eq!((row["Labels"].as_str(), row["JobID"].as_str()), (Some("a=b"), Some("")));
    assert!(!row["Node"].as_str().unwrap().is_empty());
    for word in ["web", "/web", &id, short, &id[..3]] {
        assert_eq!(yard.inspect(word, "/Id").as_str(), Some(id.as_str()), "{word}");
    }
    let message = "no such container: `absent`";
    yard.fails(&["stop", "absent"], 1, message);
    yard.fails(&["exec", "absent", "true"], 1, message);
    yard.fails(&["run", "-d", "--name", "web", "box.sif", "true"], 125, "is already in use by container");
    yard.fails(&["run", "-d", "--name", "-x", "box.sif", "true"], 125, "is not a container name");
    yard.fails(&["rm", "web"], 1, "is running");
    assert_eq!(yard.ok(&["rename", "web", "site"]), "");
    yard.fails(&["rename", "site", "site"], 1, "is already in use");
    assert_eq!(yard.ok(&["ps", "--format", "{{.Names}}"]), "site\n");
    assert_eq!(yard.ok(&["rm", "-f", "site"]), "site\n");
    assert_eq!(yard.ok(&["ps", "-aq"]), "");
    yard.assert_empty();
}

#[test]
fn stop_kill_wait_and_start_do_what_docker_does() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    yard.start(&["--name", "one", "box.sif", "sleep", "1000"]);
    assert_eq!(yard.ok(&["stop", "one"]), "one\n");
    assert_eq!(yard.status("one"), ("exited".into(), 143));
    assert_eq!(yard.ok(&["wait", "one"]), "143\n");
    assert_eq!(yard.ok(&["stop", "one"]), "one\n");
    yard.fails(&["kill", "one"], 1, "is not running");
    yard.fails(&["exec", "one", "true"], 1, "is not running");
    assert_eq!(yard.ok(&["start", "one"]), "one\n");
    assert_eq!(yard.status("one").0, "running");
    assert_eq!(yard.ok(&["kill", "one"]), "one\n");
    assert_eq!(yard.status("one"), ("exited".into(), 137));
    assert_eq!(yard.ok(&["restart", "one"]), "one\n");
    // A workload that will not end is killed after the grace.
    let deaf = "trap '' TERM; echo deaf; while :; do sleep 1; done";
    yard.start(&["--name", "deaf", "box.sif", "sh", "-c", deaf]);
    wait_until("it is deaf", || yard.ok(&["logs", "deaf"]) == "deaf\n");
    assert_eq!(yard.ok(&["stop", "-t", "0", "deaf"]), "deaf\n");
    assert_eq!(yard.status("deaf"), ("exited".into(), 137));
    // The signal that the user or the image names.
    let polite = "trap 'exit 9' USR1; echo polite; while :; do sleep 0.01; done";
    yard.start(&["--name", "polite", "--stop-signal", "USR1", "box.sif", "sh", "-c", polite]);
    wait_until("it listens", || yard.ok(&["logs", "polite"]) == "polite\n");
    yard.ok(&["stop", "polite"]);
    assert_eq!(yard.status("polite"), ("exited".into(), 9));
    yard.fails(&["kill", "-s", "NOSUCH", "one"], 1, "`NOSUCH` is not a signal");
    yard.ok(&["stop", "one"]);
    assert_eq!(yard.ok(&["ps", "-q"]), "");
    assert_eq!(yard.ok(&["ps", "-a", "--filter", "exited=9", "--format", "{{.Names}}"]), "polite\n");
    assert_eq!(yard.ok(&["ps", "--filter", "status=exited", "-q"]).lines().count(), 3);
    assert_eq!(yard.ok(&["ps", "-a", "--filter", "name=^one$", "--format", "{{.Names}}"]), "one\n");
    yard.fails(&["rm", "one", "absent", "deaf"], 1, "no such container: `absent`");
    yard.ok(&["rm", "polite"]);
    yard.assert_empty();
}

#[test]
fn removes_itself_and_says_how_it_ended() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let script = "until [ -e go ]; do sleep 0.01; done; exit 3";
    let id = yard.start(&["--rm", "box.sif", "sh", "-c", script]);
    let waiter = yard.sandbox.slipway(["wait", &id]).env("SLIPWAY_RUNTIME_DIR", &yard.state).spawn();
    wait_until("it is waited for", || {
        let held = std::fs::read_dir(format!("/proc/{}/fd", waiter.id())).unwrap();
        held.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|path| path.ends_with("exit")))
    });
    yard.sandbox.write("home/go", "");
    let output = waiter.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3\n");
    assert_eq!(yard.ok(&["ps", "-aq"]), "");
    yard.assert_empty();
}

#[test]
fn the_launch_error_is_told_and_nothing_is_kept() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    yard.fails(&["run", "-d", "box.sif", "no-such-command"], 127, "command `no-such-command` not found");
    yard.fails(&["run", "-d", "box.sif", "/etc/not-executable"], 126, "cannot be executed");
    yard.fails(&["run", "-d", "-v", "/no/such:/x", "box.sif", "true"], 125, "does not exist on this host");
    yard.fails(&["run", "-d", "absent.sif"], 125, "absent.sif");
    yard.fails(
        &["run", "--name", "mine", "box.sif", "no-such-command"],
        127,
        "command `no-such-command` not found",
    );
    assert_eq!(yard.ok(&["ps", "-aq"]), "");
    yard.assert_empty();
}

#[test]
fn logs_keep_both_streams_and_end_with_the_container() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let id = yard.start(&[
        "--name",
        "talk",
        "box.sif",
        "sh",
        "-c",
        "for n in 1 2 3; do echo out $n; echo err $n >&2; done; printf open",
    ]);
    yard.ok(&["wait", "talk"]);
    let output = yard.slipway(&["logs", "talk"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out 1\nout 2\nout 3\nopen", "err 1\nerr 2\nerr 3\n")
    );
    assert_eq!(yard.slipway(&["logs", "--tail", "1", "talk"]).stdout, "open");
    assert_eq!(yard.slipway(&["logs", "-f", "talk"]).stdout, output.stdout);
    assert_eq!(yard.slipway(&["logs", "--since", "1h", "talk"]).stdout, output.stdout);
    assert_eq!(yard.slipway(&["logs", "--until", "1h", "talk"]).stdout, "");
    let stamped = yard.slipway(&["logs", "-t", "--tail", "1", "talk"]).stdout;
    let (stamp, text) = stamped.split_once(' ').unwrap();
    assert!(stamp.len() == 30 && stamp.ends_with('Z') && text == "open", "{stamped}");
    let path = yard.state.join("containers").join(&id).join("log");
    let first = std::fs::read_to_string(path).unwrap().lines().next().unwrap().to_owned();
    let first: Value = serde_json::from_str(&first).unwrap();
    assert!(first["log"].is_string() && first["stream"].is_string() && first["time"].is_string(), "{first}");
    // Followed while it runs.
    yard.start(&["--name", "slow", "box.sif", "sh", "-c", "echo one; sleep 0.2; echo two"]);
    assert_eq!(yard.ok(&["logs", "-f", "slow"]), "one\ntwo\n");
    assert_eq!(yard.ok(&["start", "-a", "slow"]), "one\ntwo\n");
    yard.ok(&["rm", "talk", "slow"]);
    yard.assert_empty();
}

#[test]
fn exec_joins_the_container() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    yard.start(&["--name", "host", "-e", "GIVEN=1", "-w", "/data", "box.sif", "sleep", "1000"]);
    let user = &yard.sandbox.user;
    assert_eq!(
        yard.ok(&["exec", "host", "cat", "/etc/os-release"]),
        "ID=boxtest\nPRETTY_NAME=\"Box of the tests\"\n"
    );
    assert_eq!(yard.ok(&["exec", "host", "pwd"]), "/data\n");
    assert_eq!(yard.ok(&["exec", "-w", "/etc", "host", "pwd"]), "/etc\n");
    let script = "echo $GIVEN $FROM_IMAGE $MORE; id -u; grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status";
    assert_eq!(
        yard.ok(&["exec", "-e", "MORE=2", "host", "sh", "-c", script]),
        format!("1 image 2\n{}\nNoNewPrivs:\t1\nCapEff:\t0000000000000000\n", user.uid)
    );
    let output = yard.sandbox.slipway(["exec", "-i", "host", "cat"]).env("SLIPWAY_RUNTIME_DIR", &yard.state);
    assert_eq!(output.stdin("through").succeed(), "through");
    let output = yard.sandbox.slipway(["exec", "host", "cat"]).env("SLIPWAY_RUNTIME_DIR", &yard.state);
    assert_eq!(output.stdin("not through").succeed(), "");
    assert_eq!(
        yard.ok(&["exec", "-u", &user.uid.to_string(), "host", "id", "-u"]),
        format!("{}\n", user.uid)
    );
    yard.fails(&["exec", "-u", "12345", "host", "true"], 1, "it holds the user");
    yard.fails(&["exec", "host", "no-such-command"], 127, "not found");
    yard.fails(&["exec", "host", "/etc/not-executable"], 126, "cannot be executed");
    yard.fails(&["exec", "-d", "host", "no-such-command"], 127, "not found");
    yard.fails(&["exec", "-w", "/absent", "host", "true"], 1, "working directory");
    yard.fails(&["exec", "host", "sh", "-c", "exit 7"], 7, "");
    let same = "[ $(readlink /proc/self/ns/mnt) = $(readlink /proc/$1/ns/mnt) ] && echo same";
    let pid = yard.pid("host", "/State/Pid").to_string();
    assert_eq!(yard.ok(&["exec", "host", "sh", "-c", same, "sh", &pid]), "same\n");
    // One in the background ends with the container.
    yard.ok(&["exec", "-d", "host", "sleep", "2000"]);
    let top = yard.ok(&["top", "host"]);
    assert!(top.contains("sleep 1000") && top.contains("sleep 2000"), "{top}");
    let more: i32 = top
        .lines()
        .find(|line| line.contains("2000"))
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    yard.ok(&["rm", "-f", "host"]);
    wait_until("what exec started ends too", || !is_running(more));
    yard.assert_empty();
}

#[test]
fn no_fd_leaks_into_a_workload() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let list = "echo $(ls /proc/self/fd)";
    let script =
        format!("\"$SLIPWAY\" run -d --name fds box.sif sh -c '{list}; exec sleep 1000' 9>ninth >id");
    let shell = |script: &str| yard.sandbox.shell(script).env("SLIPWAY_RUNTIME_DIR", &yard.state).succeed();
    shell(&script);
    // The last is the listing's own.
    wait_until("the workload lists its files", || yard.ok(&["logs", "fds"]) == "0 1 2 3\n");
    let monitor = yard.pid("fds", "/Slipway/Monitor");
    let targets: Vec<_> = std::fs::read_dir(format!("/proc/{monitor}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .collect();
    let foreign = |path: &&PathBuf| path.ends_with("ninth") || path.ends_with("id");
    assert!(!targets.iter().any(|path| foreign(&path)), "{targets:?}");
    // What the caller of exec has is inherited, as with `run`; nothing of ours is added.
    let outside = shell(list);
    assert_eq!(yard.ok(&["exec", "fds", "sh", "-c", list]), outside);
    let id = shell("id=$(\"$SLIPWAY\" run -d box.sif sleep 1000); echo $id");
    yard.ok(&["rm", "-f", "fds", id.trim()]);
    yard.assert_empty();
}

#[test]
fn a_named_container_in_the_foreground_is_the_process_itself() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let mut child: Child = yard
        .sandbox
        .slipway(["run", "--name", "front", "--cidfile", "cid", "box.sif", "sleep", "1000"])
        .env("SLIPWAY_RUNTIME_DIR", &yard.state)
        .spawn();
    wait_until("it is listed", || yard.ok(&["ps", "--format", "{{.Names}}"]) == "front\n");
    assert_eq!(yard.pid("front", "/State/Pid"), i32::try_from(child.id()).unwrap());
    wait_until("it runs", || yard.slipway(&["exec", "front", "true"]).code == Some(0));
    let id = std::fs::read_to_string(yard.sandbox.path("home/cid")).unwrap();
    assert_eq!(yard.ok(&["stop", &id]), format!("{id}\n"));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(15));
    assert_eq!(yard.ok(&["ps", "-aq"]), "");
    yard.assert_empty();
}

#[test]
fn what_a_killed_process_leaves_is_put_right() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    // The workload: the monitor tells.
    yard.start(&["--name", "work", "box.sif", "sh", "-c", "sleep 3000 & exec sleep 1000"]);
    let pid = yard.pid("work", "/State/Pid");
    signal(pid, Signal::SIGKILL);
    assert_eq!(yard.ok(&["wait", "work"]), "137\n");
    assert_eq!(yard.status("work"), ("exited".into(), 137));
    yard.ok(&["rm", "work"]);
    yard.assert_empty();
    // The monitor: the next command that looks ends the workload and what it has started.
    yard.start(&["--name", "lone", "box.sif", "sh", "-c", "sleep 3000 & exec sleep 1000"]);
    let pid = yard.pid("lone", "/State/Pid");
    kill_monitor(&yard, "lone");
    assert_eq!(yard.status("lone"), ("exited".into(), 137));
    wait_until("the workload ends", || !is_running(pid));
    yard.ok(&["rm", "lone"]);
    yard.assert_empty();
    // The monitor of one that removes itself, and the workload too.
    yard.start(&["--rm", "--name", "both", "box.sif", "sleep", "1000"]);
    let pid = yard.pid("both", "/State/Pid");
    kill_monitor(&yard, "both");
    signal(pid, Signal::SIGKILL);
    assert_eq!(yard.ok(&["ps", "-aq"]), "");
    yard.assert_empty();
    // The monitor ignores what a terminal or a careless user sends.
    yard.start(&["--name", "firm", "box.sif", "sleep", "1000"]);
    for number in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        signal(yard.pid("firm", "/Slipway/Monitor"), number);
    }
    assert_eq!(yard.status("firm").0, "running");
    yard.ok(&["rm", "-f", "firm"]);
    // Half a container of a process that is gone.
    let half = yard.state.join("containers/.new-999999999-abc");
    yard.sandbox.make_directory("state/containers/.new-999999999-abc");
    yard.ok(&["ps"]);
    assert!(!half.exists());
    yard.assert_empty();
}

#[test]
fn a_start_killed_anywhere_leaves_nothing() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    for delay_us in (0..30_000).step_by(1500) {
        let mut child = yard
            .sandbox
            .slipway(["run", "-d", "--name", "hit", "box.sif", "sleep", "1000"])
            .env("SLIPWAY_RUNTIME_DIR", &yard.state)
            .spawn();
        std::thread::sleep(std::time::Duration::from_micros(delay_us));
        child.kill().unwrap();
        child.wait().unwrap();
        // Killing the command does not kill a container that its monitor has taken over, so it is there whole or not at all.
        wait_until("the container is there whole or not at all", || {
            let output = yard.slipway(&["rm", "-f", "hit"]);
            output.code == Some(0) || output.stderr.contains("no such container")
        });
        let start = std::time::Instant::now();
        loop {
            for id in yard.slipway(&["ps", "-aq"]).stdout.split_whitespace() {
                yard.slipway(&["rm", "-f", id]);
            }
            let left = (yard.state_files(), yard.sandbox.processes());
            if left.0.is_empty() && left.1.is_empty() {
                break;
            }
            assert!(start.elapsed() < DEADLINE, "after {delay_us} µs: {left:?}");
        }
    }
}

#[test]
fn nobody_elses_directory_is_believed() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let id = yard.start(&["--name", "mine", "box.sif", "sleep", "1000"]);
    let place = yard.state.clone();
    let open = |mode: u32| {
        std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    open(0o755);
    assert_eq!(yard.ok(&["ps", "-q"]), "");
    yard.fails(&["stop", "mine"], 1, "no such container");
    yard.fails(&["run", "-d", "box.sif", "true"], 125, "others may enter it (mode 755)");
    open(0o700);
    assert_eq!(yard.ok(&["ps", "-q"]), format!("{}\n", &id[..12]));
    if nix::unistd::getuid().is_root() {
        let theirs = std::process::Command::new(yard.sandbox.program())
            .args(["ps", "-aq"])
            .env_clear()
            .env("SLIPWAY_RUNTIME_DIR", &yard.state)
            .output()
            .unwrap();
        assert!(theirs.stdout.is_empty(), "another user sees it: {theirs:?}");
    }
    yard.ok(&["rm", "-f", "mine"]);
    yard.assert_empty();
}

#[test]
fn two_users_do_not_meet() {
    need!(userns, fuse, root, tool "busybox", tool "setpriv");
    let yard = Yard::new();
    yard.start(&["--name", "mine", "box.sif", "sleep", "1000"]);
    let pid = yard.pid("mine", "/State/Pid");
    let image = yard.sandbox.path("home/box.sif");
    let place = tempfile::Builder::new().prefix("slipway-other.").tempdir_in("/tmp").unwrap();
    std::os::unix::fs::chown(place.path(), Some(54321), Some(54321)).unwrap();
    // Another user, once with the first one's directory and once with its own.
    let other = |state: &std::path::Path, words: &[&str]| {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid", "54321", "--regid", "54321", "--clear-groups", "--"])
            .arg(yard.sandbox.program())
            .args(words)
            .env_clear()
            .env("HOME", place.path())
            .env("SLIPWAY_RUNTIME_DIR", state)
            .current_dir(place.path())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let own = place.path().join("state");
    for state in [&yard.state, &own] {
        assert_eq!(other(state, &["ps", "-aq"]).1, "");
        for verb in [
            &["exec", "mine", "true"][..],
            &["stop", "mine"],
            &["rm", "-f", "mine"],
            &["cp", "mine:/etc", "x"],
        ] {
            let (code, _, message) = other(state, verb);
            assert!(code == Some(1) && message.contains("no such container"), "{verb:?}: {message}");
        }
    }
    // The same name is free for both.
    let image = image.to_str().unwrap();
    let (code, _, message) =
        other(&own, &["run", "-d", "--name", "mine", "--no-home", image, "sleep", "1000"]);
    assert_eq!((code, message.as_str()), (Some(0), ""));
    assert_eq!(yard.ok(&["ps", "-q"]).lines().count(), 1);
    let (_, theirs, _) = other(&own, &["container", "inspect", "--format", "{{.State.Pid}}", "mine"]);
    assert_ne!(theirs.trim(), pid.to_string());
    assert_eq!(other(&own, &["rm", "-f", "mine"]).0, Some(0));
    assert!(is_running(pid));
    yard.ok(&["rm", "-f", "mine"]);
    yard.assert_empty();
}

#[test]
fn a_step_is_told_what_becomes_of_its_containers() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let start = |name: &str, step: &str| {
        let words = ["run", "-d", "--name", name, "box.sif", "sleep", "1000"];
        let run = yard.sandbox.slipway(words).env("SLIPWAY_RUNTIME_DIR", &yard.state);
        let run = run.env("SLIPWAY_LAUNCH_LINGER", "0");
        run.env("SLURM_JOB_ID", "17").env("SLURM_STEP_ID", step).run()
    };
    let output = start("step", "0");
    assert!(output.stderr.contains("note: the container ends with this job step"), "{output}");
    let output = start("batch", "4294967291");
    assert_eq!(output.stderr, "");
    let rows = yard.ok(&["ps", "--format", "{{.Names}} {{.JobID}} {{.StepID}}"]);
    assert!(rows.contains("step 17 0\n") && rows.contains("batch 17 4294967291\n"), "{rows}");
    // A command of another job would have neither the job's devices nor its limits.
    let exec = |job: &str| {
        let run = yard.run(&["exec", "batch", "true"]).env("SLURM_JOB_ID", job).env("SLURM_STEP_ID", "0");
        run.run()
    };
    assert_eq!(exec("17").code, Some(0));
    let output = exec("18");
    assert!(
        output.code == Some(1)
            && output.stderr.contains("container `batch` belongs to job 17 on node ")
            && output.stderr.contains("`srun --jobid=17 --overlap -w ")
            && output.stderr.contains(" slipway exec batch …` runs a command in it"),
        "{output}"
    );
    yard.ok(&["rm", "-f", "step", "batch"]);
    yard.assert_empty();
}

#[test]
fn create_makes_what_start_starts() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    yard.ok(&["create", "--name", "made", "box.sif", "sh", "-c", "echo hello; exit 4"]);
    assert_eq!(yard.status("made").0, "created");
    let output = yard.slipway(&["start", "-a", "made"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(4), "hello\n"), "{output}");
    assert_eq!(yard.status("made"), ("exited".into(), 4));
    assert!(yard.ok(&["container", "prune", "-f"]).starts_with("Deleted Containers:\n"));
    yard.assert_empty();
}
