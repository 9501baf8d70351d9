//! What containers of one user and job share, and what they do not.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::image::TestImage;
use super::support::sandbox::{Run, Sandbox, wait_until};

/// Long: what a test wants to end, it ends.
const LINGER: &str = "600";
const SAY_NAMESPACE: [&str; 2] = ["readlink", "/proc/self/ns/user"];

/// A sandbox with `box.sif`, and a directory for keepers that no other test uses.
struct Yard {
    sandbox: Sandbox,
    state: PathBuf,
}

impl Yard {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        TestImage::busybox().convert(&sandbox, "box.sif");
        let state = sandbox.make_directory("state");
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { sandbox, state }
    }

    /// A start that lingers.
    fn run<'a>(&'a self, words: &[&str]) -> Run<'a> {
        self.slipway(&[&["run"], words].concat()).env("SLIPWAY_LAUNCH_LINGER", LINGER)
    }

    fn slipway<'a>(&'a self, words: &[&str]) -> Run<'a> {
        self.sandbox.slipway(words).env("SLIPWAY_RUNTIME_DIR", &self.state)
    }

    /// The user namespace of a start with these flags.
    fn namespace(&self, flags: &[&str]) -> String {
        self.run(&[flags, &["box.sif"], &SAY_NAMESPACE].concat()).succeed()
    }

    /// The processes of that name. A spare has its server's name for a moment: one whose parent is listed is none.
    fn named(&self, wanted: &str) -> Vec<i32> {
        let found = self.sandbox.processes().into_iter().filter(|(_, name)| name == wanted);
        let found: Vec<i32> = found.map(|(pid, _)| pid).collect();
        let parent = |pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let behind = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
            behind.split(' ').nth(1).and_then(|word| word.parse::<i32>().ok())
        };
        found.iter().copied().filter(|pid| parent(pid).is_none_or(|above| !found.contains(&above))).collect()
    }

    fn kill(&self, name: &str) {
        for pid in self.named(name) {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        wait_until("the killed processes are gone", || self.named(name).is_empty());
    }

    /// Places of keepers.
    fn places(&self) -> usize {
        std::fs::read_dir(self.state.join("keepers")).map_or(0, Iterator::count)
    }

    /// Ends the keepers, after which nothing may be left.
    fn close(self) {
        self.kill("slipway-keeper");
        self.sandbox.assert_nothing_left();
    }
}

/// Waits until a started program has written a line.
fn line_of(child: &mut Child) -> String {
    use std::io::Read as _;
    let mut line = Vec::new();
    let mut byte = [0];
    let out = child.stdout.as_mut().unwrap();
    while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn a_second_start_joins_the_first() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let plan = |words: &[&str]| yard.run(&[&["--plan"], words].concat()).succeed();
    assert!(plan(&["box.sif", "true"]).contains(
        "note: keeps the user namespace and the mount of the image for later starts in this node, 600 s after the \
         last container (`launch.linger`)\n"
    ));
    let first = yard.namespace(&[]);
    let (keeper, server) = (yard.named("slipway-keeper"), yard.named("slipway-fuse"));
    assert_eq!((keeper.len(), server.len(), yard.places()), (1, 1, 1));
    assert!(plan(&["box.sif", "true"]).contains(
        "note: joins the containers of this node: their user namespace and mount of the image (`--no-join` starts \
         alone)\n"
    ));
    for flags in
        [&[][..], &["-e", "A=b"], &["--network", "none"], &["--hostname", "h"], &["--writable-tmpfs"]]
    {
        assert_eq!(yard.namespace(flags), first, "{flags:?}");
    }
    let detached =
        yard.run(&["-d", "--name", "kept", "box.sif", "sh", "-c", "readlink /proc/self/ns/user; sleep 100"]);
    detached.succeed();
    wait_until("the container says its namespace", || yard.slipway(&["logs", "kept"]).succeed() == first);
    assert_eq!((&yard.named("slipway-keeper"), &yard.named("slipway-fuse")), (&keeper, &server));
    yard.slipway(&["rm", "-f", "kept"]).succeed();
    // Other ids inside, another image, and a start that wants it so.
    for flags in [&["--user", "0"][..], &["--no-join"], &["--record-hot"]] {
        assert_ne!(yard.namespace(flags), first, "{flags:?}");
    }
    assert!(!plan(&["--no-join", "box.sif", "true"]).contains("joins"));
    yard.close();
}

#[test]
fn images_have_a_mount_each_and_one_user_namespace() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    TestImage::busybox().convert(&yard.sandbox, "other.sif");
    let first = yard.namespace(&[]);
    assert_eq!(yard.run(&[&["other.sif"][..], &SAY_NAMESPACE].concat()).succeed(), first);
    assert_eq!((yard.named("slipway-keeper").len(), yard.named("slipway-fuse").len()), (2, 2));
    // The same file with other content is another image.
    let path = yard.sandbox.path("home/box.sif");
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(yard.namespace(&[]), first);
    assert_eq!(yard.named("slipway-keeper").len(), 3);
    yard.close();
}

#[test]
fn containers_have_binds_and_mount_points_of_their_own() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    for name in ["one", "two"] {
        yard.sandbox.make_directory(name);
        yard.sandbox.write(&format!("{name}/file"), format!("{name}\n"));
    }
    let bind = |name: &str, target: &str| format!("{}:{target}", yard.sandbox.path(name).display());
    let script =
        "ls -d /lacks /lacks/it 2>/dev/null; cat /data/file; echo; read go; cat /data/file; ls -d /lacks";
    let one = bind("one", "/data");
    let mut first = yard.run(&["-v", &one, "box.sif", "sh", "-c", script]).stdin_open().spawn();
    assert_eq!(line_of(&mut first), "one");

    let (two, lacking) = (bind("two", "/data"), bind("two/file", "/lacks/it"));
    let script = "cat /data/file /lacks/it; ls /; readlink /proc/self/ns/user";
    let second = yard.run(&["-v", &two, "-v", &lacking, "box.sif", "sh", "-c", script]).succeed();
    assert!(second.starts_with("two\ntwo\n") && second.contains("\nlacks\n"), "{second}");
    assert!(second.ends_with(&yard.namespace(&[])), "{second}");
    // Where the one has a file no other can have a directory: that container starts alone.
    let directory = bind("two", "/lacks/it");
    let script = "cat /lacks/it/file; readlink /proc/self/ns/user";
    let alone = yard.run(&["-v", &directory, "box.sif", "sh", "-c", script]).succeed();
    assert!(alone.starts_with("two\n") && !alone.ends_with(&yard.namespace(&[])), "{alone}");

    drop(first.stdin.take());
    let output = first.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\none\n/lacks\n");
    yard.close();
}

#[test]
fn a_start_in_a_container_does_not_join_it() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let outer = yard.namespace(&[]);
    let program = yard.sandbox.program().display().to_string();
    let libraries = ["-v", "/lib:/lib", "-v", "/lib64:/lib64"];
    let inner = [&libraries[..], &["box.sif", &program, "run", "box.sif"], &SAY_NAMESPACE].concat();
    let inner = yard.run(&inner).succeed();
    assert!(inner.starts_with("user:") && inner != outer, "{inner} {outer}");
    yard.close();
}

#[test]
fn mount_points_survive_a_killed_server() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let home = yard.sandbox.make_directory("home/bound");
    let bind = |target: &str| format!("{}:{target}", home.display());
    let first = yard.namespace(&[]);
    wait_until("a spare", || !yard.named("slipway-spare").is_empty());
    yard.run(&["-v", &bind("/lacks/a"), "box.sif", "ls", "/lacks/a"]).succeed();
    let server = yard.named("slipway-fuse");
    kill(Pid::from_raw(server[0]), Signal::SIGKILL).unwrap();
    wait_until("the spare has become the server", || {
        let now = yard.named("slipway-fuse");
        !now.is_empty() && now != server
    });
    let (a, b) = (bind("/lacks/a"), bind("/lacks/b"));
    let script = "ls /lacks; readlink /proc/self/ns/user";
    let later = yard.run(&["-v", &a, "-v", &b, "box.sif", "sh", "-c", script]).succeed();
    assert_eq!(later, format!("a\nb\n{first}"));
    yard.close();
}

#[test]
fn a_start_can_be_captured_and_has_no_child() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    for _ in 0..2 {
        let script = "x=$($SLIPWAY run box.sif cat /proc/thread-self/children) 2>&1; echo \"<$x>\"";
        let shell = yard.sandbox.shell(script).env("SLIPWAY_RUNTIME_DIR", &yard.state);
        assert_eq!(shell.env("SLIPWAY_LAUNCH_LINGER", LINGER).succeed(), "<>\n");
        assert_eq!(yard.named("slipway-keeper").len(), 1);
    }
    // What the keeper and the server hold: no fd, directory, session or terminal of the caller's.
    for name in ["slipway-keeper", "slipway-fuse", "slipway-spare"] {
        wait_until("the spare is there", || !yard.named(name).is_empty());
        let pid = yard.named(name)[0];
        let link = |what: &str| std::fs::read_link(format!("/proc/{pid}/{what}")).unwrap();
        assert_eq!(link("cwd"), PathBuf::from("/"), "{name}");
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let target = std::fs::read_link(fd.path()).unwrap().display().to_string();
            let own = ["/dev/null", "socket:", "anon_inode:", "user:"]
                .iter()
                .any(|start| target.starts_with(start));
            let is_served = target.ends_with("/box.sif") || target.ends_with("/fuse");
            let is_place = target.ends_with("/keepers") || target == "/";
            assert!(
                own || (is_served && name != "slipway-keeper") || (is_place && name == "slipway-keeper"),
                "{name} holds {target}"
            );
        }
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(line.iter().all(|byte| *byte == 0), "{name}: {line:?}");
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    }
    assert_eq!(yard.named("slipway-keeper").len(), 1);
    let mounts =
        std::fs::read_to_string(format!("/proc/{}/mountinfo", yard.named("slipway-keeper")[0])).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    yard.close();
}

#[test]
fn what_a_container_left_running_keeps_its_root() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let script =
        "(while [ ! -e go ]; do sleep 0.01; done; cat /etc/os-release >told) >/dev/null 2>&1 </dev/null &";
    yard.run(&["box.sif", "sh", "-c", script]).succeed();
    yard.kill("slipway-keeper");
    yard.sandbox.write("home/go", "");
    let told = yard.sandbox.path("home/told");
    wait_until("the child has read its root", || {
        std::fs::read_to_string(&told).is_ok_and(|text| text.contains("boxtest"))
    });
    yard.close();
}

#[test]
fn what_was_killed_is_replaced_and_swept() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let first = yard.namespace(&[]);
    yard.kill("slipway-keeper");
    yard.sandbox.assert_nothing_left();
    // Its place is there until somebody looks.
    assert_eq!(yard.places(), 1);
    yard.slipway(&["ps"]).succeed();
    assert_eq!(yard.places(), 0);

    let second = yard.namespace(&[]);
    assert_ne!(first, second);
    // The spare first, or it would take over.
    wait_until("a spare", || !yard.named("slipway-spare").is_empty());
    yard.kill("slipway-spare");
    yard.kill("slipway-fuse");
    yard.sandbox.assert_nothing_left();
    assert_eq!(yard.places(), 0);
    yard.namespace(&[]);
    assert_eq!((yard.named("slipway-keeper").len(), yard.places()), (1, 1));
    yard.kill("slipway-keeper");

    // A launcher that is killed at any moment.
    for step in 0..25 {
        let mut child = yard.run(&["box.sif", "true"]).spawn();
        std::thread::sleep(std::time::Duration::from_micros(400 * step));
        child.kill().unwrap();
        child.wait().unwrap();
        if step % 5 == 4 {
            assert_eq!(yard.run(&["box.sif", "echo", "works"]).succeed(), "works\n");
            yard.kill("slipway-keeper");
        }
    }
    yard.slipway(&["ps"]).succeed();
    assert_eq!(yard.places(), 0);
    yard.close();
}

#[test]
fn ranks_share_as_long_as_one_lives() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let rank = |words: &[&str]| {
        let run = yard.run(words).env("SLURM_JOB_ID", "7").env("SLURM_STEP_ID", "0");
        run.env("SLURM_NTASKS", "4")
    };
    let script = "readlink /proc/self/ns/user; read go; true";
    let mut ranks: Vec<Child> =
        (0..4).map(|_| rank(&["box.sif", "sh", "-c", script]).stdin_open().spawn()).collect();
    let namespaces: Vec<String> = ranks.iter_mut().map(line_of).collect();
    assert!(namespaces.iter().all(|namespace| *namespace == namespaces[0]), "{namespaces:?}");
    assert_eq!((yard.named("slipway-keeper").len(), yard.named("slipway-fuse").len()), (1, 1));
    // The first may go.
    drop(ranks[0].stdin.take());
    assert!(ranks[0].wait().unwrap().success());
    let late = rank(&[&["box.sif"][..], &SAY_NAMESPACE].concat()).succeed();
    assert_eq!(late.trim(), namespaces[0]);
    for mut rank in ranks {
        drop(rank.stdin.take());
        rank.wait().unwrap();
    }
    // A step never lingers, whatever the settings say.
    yard.sandbox.assert_nothing_left();
    assert_eq!(yard.places(), 0);
    // One task has nobody to share with.
    let mut one = yard
        .run(&["box.sif", "sh", "-c", script])
        .env("SLURM_JOB_ID", "7")
        .env("SLURM_STEP_ID", "1")
        .env("SLURM_NTASKS", "1")
        .stdin_open()
        .spawn();
    line_of(&mut one);
    assert!(yard.named("slipway-keeper").is_empty());
    drop(one.stdin.take());
    one.wait().unwrap();
    yard.close();
}

#[test]
fn an_idle_keeper_ends_by_itself() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let run = |words: &[&str]| yard.slipway(&[&["run"], words].concat()).env("SLIPWAY_LAUNCH_LINGER", "1");
    let mut child = run(&["box.sif", "cat"]).stdin_open().spawn();
    wait_until("a keeper", || !yard.named("slipway-keeper").is_empty());
    drop(child.stdin.take());
    child.wait().unwrap();
    yard.sandbox.assert_nothing_left();
    assert_eq!(yard.places(), 0);
    // By default none is made.
    let mut child = yard.slipway(&["run", "box.sif", "cat"]).stdin_open().spawn();
    wait_until("a server", || !yard.named("slipway-fuse").is_empty());
    assert!(yard.named("slipway-keeper").is_empty());
    drop(child.stdin.take());
    child.wait().unwrap();
    yard.close();
}

#[test]
fn a_keeper_ends_with_its_job() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    // What Slurm's own process of a step is called is all that a keeper knows of it.
    let daemon = yard.sandbox.path("bin/slurmstepd");
    std::fs::copy("/bin/sh", &daemon).unwrap();
    let script = "(sh -c '$SLIPWAY run box.sif echo ran'); read go; true";
    let job = yard.sandbox.command(&daemon, ["-c", script]).env("SLIPWAY", yard.sandbox.program());
    let job = job.env("SLIPWAY_RUNTIME_DIR", &yard.state).env("SLURM_JOB_ID", "7");
    let mut job = job.env("SLIPWAY_LAUNCH_LINGER", LINGER).stdin_open().spawn();
    assert_eq!(line_of(&mut job), "ran");
    assert_eq!(yard.named("slipway-keeper").len(), 1);
    drop(job.stdin.take());
    job.wait().unwrap();
    yard.sandbox.assert_nothing_left();
    assert_eq!(yard.places(), 0);
}

#[test]
fn many_starts_at_once_make_one_keeper() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    let children: Vec<Child> =
        (0..32).map(|_| yard.run(&[&["box.sif"][..], &SAY_NAMESPACE].concat()).spawn()).collect();
    let mut said: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    said.dedup_by(|a, b| a.stdout == b.stdout);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].status.success(), "{said:?}");
    assert_eq!((yard.named("slipway-keeper").len(), yard.named("slipway-fuse").len()), (1, 1));
    yard.close();
}

/// A name that several look up for the first time at once can be dropped by the kernel under who mounts on it (6.16).
#[test]
fn mount_points_looked_up_at_once_stay() {
    const POINTS: usize = 40;
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    yard.sandbox.make_directory("shared");
    yard.sandbox.write("shared/file", "here\n");
    let shared = yard.sandbox.path("shared");
    let binds: Vec<String> = (0..POINTS).map(|n| format!("{}:/lacks/{n}", shared.display())).collect();
    let flags: Vec<&str> = binds.iter().flat_map(|bind| ["-v", bind]).collect();
    let words = [&flags[..], &["box.sif", "sh", "-c", "cat /lacks/*/file | wc -l"]].concat();
    for _ in 0..16 {
        let children: Vec<Child> = (0..4).map(|_| yard.run(&words).spawn()).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!((&*error, &*output.stdout), ("", format!("{POINTS}\n").as_bytes()));
        }
        yard.kill("slipway-keeper");
        wait_until("the server is gone", || yard.named("slipway-fuse").is_empty());
    }
    yard.close();
}

#[test]
fn users_never_meet() {
    need!(root, userns, fuse, tool "busybox");
    let yard = Yard::new();
    let own = yard.namespace(&[]);
    // Another user who names the same directory, or has put one of its own in the way, is alone.
    let other = |state: &std::path::Path| {
        let mut command = std::process::Command::new(yard.sandbox.program());
        command
            .args(["run", "--no-home", "-w", "/"])
            .arg(yard.sandbox.path("home/box.sif"))
            .args(SAY_NAMESPACE);
        command.uid(64_001).gid(64_001).env_clear().current_dir("/").stdin(Stdio::null());
        command.env("SLIPWAY_LAUNCH_LINGER", LINGER).env("SLIPWAY_RUNTIME_DIR", state);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_ne!(other(&yard.state), own);
    assert_eq!(yard.named("slipway-keeper").len(), 1);
    let trap = yard.sandbox.path("trap");
    std::fs::create_dir(&trap).unwrap();
    std::fs::set_permissions(&trap, std::fs::Permissions::from_mode(0o777)).unwrap();
    other(&trap);
    assert_eq!(yard.named("slipway-keeper").len(), 1);
    yard.close();
}
