//! kill -9 at every step: whatever process of a start is killed, and whenever, nothing is left after the next command.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::sandbox::{DEADLINE, wait_until};
use super::support::yard::Yard;

/// Which process of a start is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Launcher,
    Server,
    Monitor,
    /// The command that the user typed.
    Command,
}

fn state_of(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// Starts a container that stops itself before step `step`, kills one of its processes, and lets the rest go on. False if
/// there is no such step.
fn kill_at(yard: &Yard, flags: &[&str], step: usize, victim: Victim) -> bool {
    let words = [&["run"][..], flags, &["box.sif", "sleep", "1000"]].concat();
    let mut command = yard.run(&words).env("SLIPWAY_STOP_AT", step.to_string()).spawn();
    let own = i32::try_from(command.id()).unwrap();
    let processes = || yard.sandbox.processes();
    let named = |wanted: &str| processes().into_iter().find(|(_, name)| name == wanted).map(|(pid, _)| pid);
    let start = std::time::Instant::now();
    let launcher = loop {
        if let Some(pid) = named("slipway-stopped") {
            break pid;
        }
        if command.try_wait().unwrap().is_some() {
            return false;
        }
        // In the foreground the workload runs, and is not the program any more.
        let is_server = |name: &str| ["slipway-fuse", "slipway-spare"].contains(&name);
        if processes().iter().all(|(_, name)| is_server(name)) && state_of(own) == Some('S') {
            command.kill().unwrap();
            command.wait().unwrap();
            return false;
        }
        assert!(start.elapsed() < DEADLINE, "step {step}: it does not stop: {:?}", processes());
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    let is_detached = flags.contains(&"-d");
    let target = match victim {
        Victim::Launcher => Some(launcher),
        Victim::Server => named("slipway-fuse"),
        Victim::Monitor => parent_of(launcher).filter(|_| is_detached),
        Victim::Command => Some(own),
    };
    if let Some(target) = target {
        kill(Pid::from_raw(target), Signal::SIGKILL).unwrap();
    }
    // It may have been the one.
    let _ = kill(Pid::from_raw(launcher), Signal::SIGCONT);
    if !is_detached && victim == Victim::Server {
        // A server that ended early is an error; one whose spare took over leaves a workload that runs.
        let start = std::time::Instant::now();
        while command.try_wait().unwrap().is_none() && start.elapsed() < std::time::Duration::from_millis(700)
        {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _ = command.kill();
    }
    command.wait().unwrap();
    // The next command that looks puts the rest right.
    let start = std::time::Instant::now();
    loop {
        for id in yard.slipway(&["ps", "-aq"]).stdout.split_whitespace() {
            yard.slipway(&["rm", "-f", id]);
        }
        let left = (yard.state_files(), processes());
        if left.0.is_empty() && left.1.is_empty() {
            return true;
        }
        assert!(start.elapsed() < DEADLINE, "step {step}, {victim:?} killed, {flags:?}: {left:?}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn kill_at_every_step(flags: &[&str], victims: &[Victim]) {
    let yard = Yard::new();
    for victim in victims {
        let mut step = 0;
        while kill_at(&yard, flags, step, *victim) {
            step += 1;
        }
        assert!(step > 30, "{victim:?}: only {step} steps");
        for id in yard.slipway(&["ps", "-aq"]).stdout.split_whitespace() {
            yard.slipway(&["rm", "-f", id]);
        }
        wait_until("all have ended", || yard.sandbox.processes().is_empty());
    }
    yard.assert_empty();
}

#[test]
fn a_detached_start_killed_at_any_step_leaves_nothing() {
    need!(userns, fuse, tool "busybox");
    kill_at_every_step(
        &["-d", "--name", "hit", "--writable-tmpfs"],
        &[Victim::Launcher, Victim::Server, Victim::Monitor, Victim::Command],
    );
}

#[test]
fn a_start_in_the_foreground_killed_at_any_step_leaves_nothing() {
    need!(userns, fuse, tool "busybox");
    kill_at_every_step(&["--rm"], &[Victim::Launcher, Victim::Server]);
    kill_at_every_step(&["--name", "hit"], &[Victim::Command]);
}

#[test]
fn a_start_in_a_pid_namespace_killed_at_any_step_leaves_nothing() {
    need!(userns, fuse, tool "busybox");
    kill_at_every_step(&["-d", "--name", "hit", "--pid", "private"], &[Victim::Launcher, Victim::Command]);
}
