//! The processes of containers: their own pid namespace, the one that stands before them, signals, and health.

use std::os::unix::process::ExitStatusExt as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::image::TestImage;
use super::support::sandbox::wait_until;
use super::support::yard::{Yard, is_running};

fn pid_of(child: &std::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Says when it is ready, and what it gets.
const LISTEN: &str = "n=0; for s in TERM INT USR1 WINCH; do trap \"echo got $s; n=\\$((n+1))\" $s; done; echo ready; \
    while [ $n -lt 4 ]; do sleep 0.01; done; exit 6";

#[test]
fn a_pid_namespace_has_its_own_numbers_and_processes() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let script = "readlink /proc/self/ns/pid; echo $$; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'";
    let outside = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let text = yard.ok(&["run", "--rm", "--pid", "private", "box.sif", "sh", "-c", script]);
    let lines: Vec<_> = text.lines().collect();
    assert_ne!(lines[0], outside.to_str().unwrap());
    assert_eq!(lines[1..3], ["2", "slipway-init"]);
    assert!(lines[3].parse::<u32>().unwrap() < 8, "{text}");
    // In the hpc profile nothing of that is made, and the process stays the same.
    let text = yard.ok(&["run", "--rm", "box.sif", "readlink", "/proc/self/ns/pid"]);
    assert_eq!(text.trim(), outside.to_str().unwrap());
    let plan = yard.ok(&["run", "--plan", "--pid", "private", "box.sif"]);
    assert!(
        plan.contains("mount, pid") && plan.contains("processes   /proc") && plan.contains("init "),
        "{plan}"
    );
    yard.fails(&["run", "--pid", "container:x", "box.sif"], 125, "cannot take `--pid container:x`");
    yard.fails(&["run", "--pid", "private", "box.sif", "no-such"], 127, "command `no-such` not found");
    // exec, stop, top and rm know their way.
    yard.start(&["--name", "own", "--pid", "private", "box.sif", "sleep", "1000"]);
    let text = yard.ok(&["exec", "own", "sh", "-c", "cat /proc/1/comm /proc/2/cmdline | tr '\\0' ' '"]);
    assert_eq!(text, "slipway-init\nsleep 1000 ");
    yard.fails(&["exec", "own", "sh", "-c", "exit 9"], 9, "");
    let output = yard.slipway(&["exec", "own", "sh", "-c", "kill -KILL $$"]);
    assert_eq!((output.code, output.signal), (None, Some(9)), "{output}");
    assert!(yard.ok(&["top", "own"]).contains("sleep 1000"));
    yard.ok(&["stop", "own"]);
    assert_eq!(yard.status("own"), ("exited".into(), 143));
    yard.ok(&["rm", "own"]);
    yard.assert_empty();
}

#[test]
fn signals_reach_the_workload_and_its_end_is_told() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    for flags in [
        &[][..],
        &["--init"],
        &["--pid", "private"],
        &["--profile", "docker"],
        &["--profile", "docker", "--init", "--user", "0"],
    ] {
        let words = [&["run", "--rm"][..], flags, &["box.sif", "sh", "-c", LISTEN]].concat();
        let mut child = yard.run(&words).spawn();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut text = String::new();
            std::io::BufRead::read_line(&mut out, &mut text).unwrap();
            text
        };
        assert_eq!(line(), "ready\n", "{flags:?}");
        for signal in [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGWINCH, Signal::SIGINT] {
            kill(pid_of(&child), signal).unwrap();
            assert_eq!(line(), format!("got {}\n", &signal.as_str()[3..]), "{flags:?}");
        }
        assert_eq!(child.wait().unwrap().code(), Some(6), "{flags:?}");
        // One that is killed by a signal ends the launcher by the same.
        for (name, number) in [("KILL", 9), ("TERM", 15), ("SEGV", 11), ("USR1", 10)] {
            let script = format!("kill -{name} $$; sleep 1000");
            let words = [&["run", "--rm"][..], flags, &["box.sif", "sh", "-c", &script]].concat();
            let output = yard.run(&words).spawn().wait_with_output().unwrap();
            assert_eq!(output.status.signal(), Some(number), "{flags:?} {name}: {output:?}");
        }
        // Orphans are reaped, and end with the container where it has a pid namespace.
        let script = "(sleep 0.05 &) ; (sh -c 'exit 3' &); sleep 0.3; exit 5";
        let words = [&["run", "--rm"][..], flags, &["box.sif", "sh", "-c", script]].concat();
        assert_eq!(yard.slipway(&words).code, Some(5), "{flags:?}");
        yard.assert_empty();
    }
}

#[test]
fn nothing_outlives_a_launcher_that_stands_before() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    // Numbers that no other run of this test has.
    let (behind, before) = (format!("1{:07}", std::process::id()), format!("2{:07}", std::process::id()));
    for flags in [&["--init"][..], &["--pid", "private"]] {
        let script = format!("sleep {behind} & echo up; exec sleep {before}");
        let words = [&["run", "--rm"][..], flags, &["box.sif", "sh", "-c", &script]].concat();
        let mut child = yard.run(&words).spawn();
        let mut text = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut text)
            .unwrap();
        assert_eq!(text, "up\n");
        let count = |name: &str| {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            processes
                .filter(|entry| {
                    std::fs::read(entry.path().join("cmdline"))
                        .is_ok_and(|line| line == format!("sleep\0{name}\0").as_bytes())
                })
                .count()
        };
        wait_until("both are there", || count(&before) == 1 && count(&behind) == 1);
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("the workload ends", || count(&before) == 0);
        if flags[0] == "--pid" {
            wait_until("all in the namespace ends", || count(&behind) == 0);
        } else {
            // Without a namespace what the workload has started is its own, as with `run` alone.
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                if std::fs::read(entry.path().join("cmdline"))
                    .is_ok_and(|line| line == format!("sleep\0{behind}\0").as_bytes())
                {
                    let pid = entry.file_name().to_str().unwrap().parse().unwrap();
                    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
                }
            }
        }
        yard.assert_empty();
    }
    // The monitor's own child, too: kill -9 of any of the processes ends the container.
    yard.start(&["--name", "mon", "--pid", "private", "box.sif", "sleep", "1000"]);
    let pid = yard.pid("mon", "/State/Pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(yard.ok(&["wait", "mon"]), "137\n");
    wait_until("it is gone", || !is_running(pid));
    yard.ok(&["rm", "mon"]);
    yard.assert_empty();
}

#[test]
fn health_is_looked_after() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    yard.sandbox.make_directory("home/shared");
    let flags = |name: &'static str, command: &'static str| {
        ["--name", name, "--health-interval", "30ms", "--health-retries", "2", "--health-cmd", command]
    };
    let health = |name: &str, field: &str| yard.inspect(name, &format!("/State/Health/{field}"));
    let words = [
        &flags("well", "echo fine; cat shared/bad 2>/dev/null && exit 1; exit 0")[..],
        &["box.sif", "sleep", "1000"],
    ]
    .concat();
    yard.start(&words);
    let status = yard.ok(&["ps", "--format", "{{.Status}}"]);
    assert!(status.contains("(health: starting)") || status.contains("(healthy)"), "{status}");
    wait_until("it is well", || health("well", "Status") == "healthy");
    assert_eq!(yard.inspect("well", "/State/Health/Log/0/Output"), "fine\n");
    assert_eq!(yard.inspect("well", "/State/Health/Log/0/ExitCode"), 0);
    assert!(yard.ok(&["ps"]).contains("(healthy)"));
    assert_eq!(
        yard.ok(&["ps", "--filter", "health=healthy", "--format", "{{.Names}} {{.HealthStatus}}"]),
        "well healthy\n"
    );
    yard.sandbox.write("home/shared/bad", "bad\n");
    wait_until("it is not well", || health("well", "Status") == "unhealthy");
    assert!(health("well", "FailingStreak").as_u64().unwrap() >= 2);
    std::fs::remove_file(yard.sandbox.path("home/shared/bad")).unwrap();
    wait_until("it is well again", || health("well", "Status") == "healthy");
    // One that takes too long; in its start period that does not count.
    let words = [&flags("slow", "sleep 1000")[..], &["--health-timeout", "50ms", "box.sif", "sleep", "1000"]]
        .concat();
    yard.start(&words);
    wait_until("it is not well", || health("slow", "Status") == "unhealthy");
    assert_eq!(yard.inspect("slow", "/State/Health/Log/0/ExitCode"), -1);
    let start =
        ["--health-start-period", "1h", "--health-start-interval", "10ms", "box.sif", "sleep", "1000"];
    let words = [&flags("young", "exit 1")[..], &start].concat();
    yard.start(&words);
    wait_until("it was looked at", || {
        !yard.inspect("young", "/State/Health/Log").as_array().unwrap().is_empty()
    });
    assert_eq!((health("young", "Status"), health("young", "FailingStreak")), ("starting".into(), 0.into()));
    // A monitor that looks after health still ends with its container, and takes a running check with it.
    yard.ok(&["rm", "-f", "well", "slow", "young"]);
    yard.fails(
        &["run", "-d", "--health-cmd", "x", "--health-interval", "5", "box.sif"],
        125,
        "`--health-interval 5` is no duration",
    );
    yard.assert_empty();
}

#[test]
fn health_of_an_image_in_the_docker_profile() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let mut image = TestImage::busybox();
    image.config["Healthcheck"] = serde_json::json!({
        "Test": ["CMD-SHELL", "test ! -e /data/ill"], "Interval": 20_000_000, "Retries": 2,
    });
    image.convert(&yard.sandbox, "checked.sif");
    yard.start(&["--profile", "docker", "--name", "dock", "checked.sif", "sleep", "1000"]);
    let health = || yard.inspect("dock", "/State/Health/Status");
    wait_until("it is well", || health() == "healthy");
    yard.ok(&["exec", "dock", "touch", "/data/ill"]);
    wait_until("it is not well", || health() == "unhealthy");
    assert!(yard.ok(&["ps"]).contains("(unhealthy)"));
    yard.ok(&["exec", "dock", "rm", "/data/ill"]);
    wait_until("it is well again", || health() == "healthy");
    yard.start(&["--profile", "docker", "--name", "un", "--no-healthcheck", "checked.sif", "sleep", "1000"]);
    assert!(yard.ok(&["container", "inspect", "un"]).find("\"Health\":").is_none());
    yard.ok(&["rm", "-f", "dock", "un"]);
    yard.assert_empty();
}
