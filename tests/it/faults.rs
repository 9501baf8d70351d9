//! kill -9 at every step: whatever process of a start is killed, and whenever, nothing is left after the next command.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::support::sandbox::{DEADLINE, wait_until};
use super::support::yard::{Yard, is_running};

/// Which process of a start is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The one that waits at the point.
    Waiting,
    /// The command that the user typed.
    Command,
    Server,
    Keeper,
    Monitor,
    /// The one outside of the pid namespace.
    Outside,
    /// The one before the workload.
    Init,
}

impl Victim {
    /// The name of its process, where that tells.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Waiting | Self::Command => None,
            Self::Server => Some("slipway-fuse"),
            Self::Keeper => Some("slipway-keeper"),
            Self::Monitor => Some("slipway-monitor"),
            Self::Outside => Some("slipway-outside"),
            Self::Init => Some("slipway-init"),
        }
    }
}

/// A variable that tells which processes are of a start: the workload has another program.
const MARK: &str = "SLIPWAY_TEST_START";
/// The words of a workload that stays, and of one that ends.
const STAYS: [&str; 2] = ["sleep", "1000"];
const ENDS: [&str; 1] = ["true"];
/// What a task of a step has: it shares with the others, and its keeper goes with the last of them.
const TASK: [(&str, &str); 3] = [("SLURM_JOB_ID", "7"), ("SLURM_STEP_ID", "0"), ("SLURM_NTASKS", "4")];

/// A kind of start.
struct Start<'a> {
    yard: &'a Yard,
    flags: &'a [&'a str],
    words: &'a [&'a str],
    env: &'a [(&'a str, &'a str)],
    /// Processes that were there before and stay.
    others: BTreeSet<i32>,
    /// What is kept of the containers that stay.
    kept: Vec<PathBuf>,
}

impl<'a> Start<'a> {
    fn new(yard: &'a Yard, flags: &'a [&'a str]) -> Self {
        Self { yard, flags, words: &STAYS, env: &[], others: BTreeSet::new(), kept: Vec::new() }
    }

    fn run(&self, more: &[&str]) -> super::support::sandbox::Run<'_> {
        let run = self.yard.run(&[&["run"], more, self.flags, &["box.sif"], self.words].concat());
        let run = run.env(MARK, self.yard.sandbox.path(""));
        self.env.iter().fold(run, |run, (name, value)| run.env(name, value))
    }

    /// The names of the steps.
    fn steps(&self) -> Vec<String> {
        let plan: Value = serde_json::from_str(&self.run(&["--plan", "--json"]).succeed()).unwrap();
        let ops = plan["ops"].as_array().unwrap();
        ops.iter().map(|op| op["op"].as_str().unwrap().to_owned()).collect()
    }

    fn named(&self, wanted: &str) -> Option<i32> {
        let of_start = |pid: &i32| !self.others.contains(pid);
        let found =
            self.yard.sandbox.processes().into_iter().find(|(pid, name)| name == wanted && of_start(pid));
        found.map(|(pid, _)| pid)
    }

    /// Everything that is there beside what was before.
    fn left(&self) -> Vec<String> {
        let yard = self.yard;
        let mut left: Vec<String> = Vec::new();
        let sandbox = yard.sandbox.path("");
        let place = sandbox.file_name().unwrap().to_str().unwrap();
        let programs: BTreeSet<i32> = yard.sandbox.processes().into_iter().map(|(pid, _)| pid).collect();
        for (pid, files) in processes().filter(|(pid, _)| !self.others.contains(pid)) {
            let name = std::fs::read_to_string(files.join("comm")).unwrap_or_default();
            // A server that lives may make itself a new spare.
            if !self.others.is_empty() && name == "slipway-spare\n" {
                continue;
            }
            if programs.contains(&pid) || is_marked(&files, &sandbox) {
                left.push(format!("process {pid} {}", name.trim()));
            }
            let mounts = std::fs::read_to_string(files.join("mountinfo")).unwrap_or_default();
            left.extend(
                mounts.lines().filter(|line| line.contains(place)).map(|line| format!("{pid} has {line}")),
            );
        }
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        left.extend(sockets.lines().filter(|line| line.contains(place)).map(str::to_owned));
        let files = if self.kept.is_empty() { files_below(&yard.state) } else { yard.state_files() };
        let new = files.iter().filter(|path| !self.kept.contains(path));
        left.extend(new.map(|path| path.display().to_string()));
        let shared = std::fs::read_dir("/dev/shm").unwrap().flatten();
        let own = shared.filter(|entry| entry.file_name().to_string_lossy().contains("slipway"));
        left.extend(own.map(|entry| entry.path().display().to_string()));
        left
    }

    /// Starts a container that waits at a point, kills one of its processes, lets the rest go on, and looks for what is
    /// left when another command has been there.
    fn kill_at(&self, point: &str, victim: Victim) {
        let about = format!("{victim:?} killed at {point}, {:?}", self.flags);
        let mut command = self.run(&[]).env("SLIPWAY_STOP_AT", point).spawn();
        let own = i32::try_from(command.id()).unwrap();
        let waiting = until(&about, "the point is reached", || self.named("slipway-stopped"));
        let target = match (victim, victim.name()) {
            (Victim::Waiting, _) => waiting,
            (Victim::Command, _) => own,
            (_, name) => until(&about, "the victim is there", || self.named(name.unwrap())),
        };
        assert!(is_running(target), "{about}: it has ended before");
        kill(Pid::from_raw(target), Signal::SIGKILL).unwrap();
        until(&about, "the victim is dead", || (!is_running(target)).then_some(()));
        // It may have been the one.
        let _ = kill(Pid::from_raw(waiting), Signal::SIGCONT);
        if self.flags.contains(&"-d") {
            // Nobody types a key: it ends by itself.
            command.wait().unwrap();
        } else {
            // It has failed, or the workload runs, since nothing of importance was killed.
            let sandbox = self.yard.sandbox.path("");
            let program = self.yard.sandbox.program();
            let runs = || {
                processes().any(|(_, files)| {
                    is_marked(&files, &sandbox)
                        && std::fs::read_link(files.join("exe")).is_ok_and(|exe| exe != program)
                })
            };
            until(&about, "the command ends or runs", || {
                (command.try_wait().unwrap().is_some() || runs()).then_some(())
            });
            // It may have ended.
            let _ = command.kill();
            command.wait().unwrap();
        }
        let mut left = Vec::new();
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            for id in self.yard.slipway(&["ps", "-aq"]).stdout.split_whitespace() {
                let stays = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(id);
                if !self.kept.iter().any(stays) {
                    self.yard.slipway(&["rm", "-f", id]);
                }
            }
            left = self.left();
            if left.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("{about}: {left:#?}");
    }

    /// At each step of the plan, from the first at which the victim is there.
    fn kill_at_every_step(&self, victim: Victim) {
        let steps = self.steps();
        assert_eq!(steps.last().map(String::as_str), Some("exec"));
        assert!(steps.len() > 20, "{steps:?}");
        // Servers and those outside are made by the first step.
        let is_later = matches!(victim, Victim::Server | Victim::Outside) && self.env.is_empty();
        let namespaces = steps.iter().position(|step| step == "new-namespaces").unwrap();
        for step in if is_later { namespaces + 1 } else { 0 }..steps.len() {
            self.kill_at(&step.to_string(), victim);
        }
    }
}

/// All processes, with their directories.
fn processes() -> impl Iterator<Item = (i32, PathBuf)> {
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    })
}

fn is_marked(files: &Path, sandbox: &Path) -> bool {
    let mark = format!("{MARK}={}", sandbox.display());
    std::fs::read(files.join("environ"))
        .is_ok_and(|text| text.split(|byte| *byte == 0).any(|line| line == mark.as_bytes()))
}

/// Every file below a directory; directories are none.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let is_container = entry.path().parent().is_some_and(|parent| parent.ends_with("containers"));
            if is_directory && !is_container {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}

#[track_caller]
fn until<T>(about: &str, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "{about}: {what}: not so after {} s", DEADLINE.as_secs());
        std::thread::sleep(Duration::from_micros(500));
    }
}

#[test]
fn a_detached_start_killed_at_any_step_leaves_nothing() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let start = Start::new(&yard, &["-d", "--name", "hit", "--writable-tmpfs"]);
    for victim in [Victim::Waiting, Victim::Server, Victim::Monitor, Victim::Command] {
        start.kill_at_every_step(victim);
    }
    yard.assert_empty();
}

#[test]
fn a_start_in_the_foreground_killed_at_any_step_leaves_nothing() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    for victim in [Victim::Waiting, Victim::Server] {
        Start::new(&yard, &["--rm"]).kill_at_every_step(victim);
    }
    Start::new(&yard, &["--name", "hit"]).kill_at_every_step(Victim::Command);
    yard.assert_empty();
}

#[test]
fn a_start_in_a_pid_namespace_killed_at_any_step_leaves_nothing() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let start = Start::new(&yard, &["-d", "--name", "hit", "--pid", "private"]);
    for victim in [Victim::Waiting, Victim::Outside, Victim::Server, Victim::Monitor] {
        start.kill_at_every_step(victim);
    }
    yard.assert_empty();
}

#[test]
fn a_start_with_a_process_before_it_killed_at_any_step_leaves_nothing() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let start = Start::new(&yard, &["--rm", "--init"]);
    start.kill_at_every_step(Victim::Server);
    for flags in [&["--rm", "--init"][..], &["--rm", "--pid", "private"], &["-d", "--name", "hit", "--init"]]
    {
        for victim in [Victim::Waiting, Victim::Init, Victim::Server, Victim::Command] {
            Start::new(&yard, flags).kill_at("init", victim);
        }
    }
    yard.assert_empty();
}

#[test]
fn a_monitor_killed_at_any_step_of_its_own_leaves_nothing() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    for flags in
        [&["-d", "--name", "hit"][..], &["-d", "--rm", "--name", "hit"], &["-d", "-i", "--profile=docker"]]
    {
        let mut start = Start::new(&yard, flags);
        for point in ["made", "nameless", "prepared"] {
            start.kill_at(point, Victim::Command);
        }
        for point in
            ["monitor-begins", "monitor-listens", "monitor-forked", "monitor-written", "monitor-answers"]
        {
            for victim in [Victim::Waiting, Victim::Command] {
                start.kill_at(point, victim);
            }
        }
        start.words = &ENDS;
        for point in ["monitor-ends", "monitor-told"] {
            start.kill_at(point, Victim::Waiting);
        }
    }
    yard.assert_empty();
}

#[test]
fn a_start_that_leads_killed_at_any_step_leaves_nothing() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let mut start = Start::new(&yard, &["--rm"]);
    start.env = &TASK;
    for point in ["keeper-elected", "keeper-begins", "keeper-mounted", "keeper-answers"] {
        start.kill_at(point, Victim::Waiting);
    }
    for point in ["keeper-begins", "keeper-mounted", "keeper-answers"] {
        start.kill_at(point, Victim::Server);
        start.kill_at(point, Victim::Command);
    }
    for victim in [Victim::Waiting, Victim::Server, Victim::Keeper] {
        start.kill_at_every_step(victim);
    }
    start.words = &ENDS;
    start.kill_at("keeper-leaves", Victim::Waiting);
    yard.assert_empty();
}

#[test]
fn a_start_that_joins_killed_at_any_step_leaves_the_others_alone() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let stays = ["run", "-d", "--name", "stays", "box.sif", "sleep", "1000"];
    TASK.iter().fold(yard.run(&stays), |run, (name, value)| run.env(name, value)).succeed();
    let names = || yard.sandbox.processes().into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    wait_until("the keeper is there", || names().iter().any(|name| name == "slipway-keeper"));
    let mut others: BTreeSet<i32> = yard.sandbox.processes().into_iter().map(|(pid, _)| pid).collect();
    others.insert(yard.pid("stays", "/State/Pid"));
    let kept = yard.state_files();
    for flags in [&["--rm"][..], &["-d", "--name", "hit"]] {
        let start = Start {
            yard: &yard,
            flags,
            words: &STAYS,
            env: &TASK,
            others: others.clone(),
            kept: kept.clone(),
        };
        start.kill_at_every_step(Victim::Waiting);
        if flags.contains(&"-d") {
            start.kill_at_every_step(Victim::Monitor);
        }
        assert_eq!(names().iter().filter(|name| *name == "slipway-keeper").count(), 1);
        assert_eq!(yard.ok(&["exec", "stays", "head", "-n", "1", "/etc/os-release"]), "ID=boxtest\n");
    }
    yard.ok(&["rm", "-f", "stays"]);
    wait_until("all have ended", || yard.sandbox.processes().is_empty());
    yard.assert_empty();
}
