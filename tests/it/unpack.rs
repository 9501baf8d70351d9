//! Starts from an unpacked tree, as the ordinary user, through the real launch.

use std::path::{Path, PathBuf};

use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::sandbox::{Run, Sandbox, wait_until};

/// A sandbox with an image, whose trees lie in its own directory.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    sandbox.make_directory("disk");
    sandbox
}

/// `slipway …` with trees in the sandbox.
fn slipway<'a>(sandbox: &'a Sandbox, args: &[&str]) -> Run<'a> {
    sandbox.slipway(args).env("SLIPWAY_LAUNCH_UNPACK_DIR", sandbox.path("disk"))
}

/// `slipway run --rootfs unpack …`.
fn run<'a>(sandbox: &'a Sandbox, args: &[&str]) -> Run<'a> {
    slipway(sandbox, &[&["run", "--rootfs", "unpack"], args].concat())
}

fn roots(sandbox: &Sandbox) -> PathBuf {
    sandbox.path(&format!("disk/slipway-{}/roots", sandbox.user.uid))
}

/// What lies in the directory of all trees, without the locks.
fn trees(sandbox: &Sandbox) -> Vec<String> {
    let entries = std::fs::read_dir(roots(sandbox)).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".lock"));
    names.sort();
    names
}

/// Runs a script in namespaces as root of them, and what `$AS_USER` stands before as the ordinary user again.
fn in_namespace(sandbox: &Sandbox, script: &str) -> String {
    let as_user =
        format!("unshare --user --map-user={} --map-group={} --", sandbox.user.uid, sandbox.user.gid);
    let script = format!("exec 2>&1; {script}");
    let run = sandbox.command("unshare", ["-Urm", "--propagation=private", "sh", "-c", &script]);
    run.env("AS_USER", as_user)
        .env("SLIPWAY", sandbox.program())
        .env("DISK", sandbox.path("disk"))
        .env("SLIPWAY_LAUNCH_UNPACK_DIR", sandbox.path("disk"))
        .succeed()
}

/// A `/dev` without the FUSE device.
const NO_FUSE: &str = r#"
mkdir -p stage; mount -t tmpfs -o mode=755 none stage
for name in null zero full random urandom tty; do : >stage/$name; mount --bind /dev/$name stage/$name; done
for name in pts shm; do mkdir stage/$name; mount --rbind /dev/$name stage/$name; done
ln -s /proc/self/fd stage/fd
mount --rbind stage /dev
"#;

#[test]
fn a_node_without_fuse_unpacks_and_says_so() {
    need!(userns, tool "busybox", tool "unshare");
    let sandbox = sandbox();
    let line = |why: &str, cure: &str| {
        format!(
            "warning: {why}, so images are unpacked to `[DIR]/disk`; an administrator can change that by {cure}, \
             `--rootfs unpack` silences this\n"
        )
    };
    let start = "$AS_USER $SLIPWAY run box.sif cat /etc/os-release; ";
    let has = "ID=boxtest\nPRETTY_NAME=\"Box of the tests\"\n";
    let said = in_namespace(&sandbox, &format!("{NO_FUSE} {start}"));
    assert_eq!(said, line("this node has no `/dev/fuse`", "`modprobe fuse`") + has);
    let denied = ": >closed; chmod 000 closed; mount --bind closed /dev/fuse; ";
    let said = in_namespace(&sandbox, &format!("{denied} {start}"));
    assert_eq!(said, line("`/dev/fuse` may not be opened by this user", "`chmod 0666 /dev/fuse`") + has);
    assert_eq!(trees(&sandbox).len(), 1, "the second start takes the first one's");
    // Who asks for it hears nothing.
    let said = in_namespace(
        &sandbox,
        &format!("{NO_FUSE} $AS_USER $SLIPWAY run --rootfs unpack box.sif echo quiet"),
    );
    assert_eq!(said, "quiet\n");
    sandbox.assert_nothing_left();
}

#[test]
fn where_fuse_works_nothing_is_unpacked() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let output = slipway(&sandbox, &["run", "box.sif", "echo", "served"]).run();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("served\n", ""));
    assert!(std::fs::read_dir(sandbox.path("disk")).unwrap().next().is_none());
    let output = sandbox.slipway(["run", "box.sif", "true"]).env("SLIPWAY_LAUNCH_ROOTFS", "disk").run();
    assert_eq!(
        output.stderr.lines().next(),
        Some(
            "error: environment variable SLIPWAY_LAUNCH_ROOTFS: `launch.rootfs` is \"auto\", \"fuse\" or \"unpack\", not `disk`"
        )
    );
    let output =
        slipway(&sandbox, &["run", "box.sif", "echo", "x"]).env("SLIPWAY_LAUNCH_ROOTFS", "unpack").run();
    assert_eq!((output.stdout.as_str(), trees(&sandbox).len()), ("x\n", 1));
}

/// Busybox with a layer of what could go wrong.
fn with_oddities() -> TestImage {
    let noise: Vec<u8> =
        (0_u32..6 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    let mut layer = Tar::new()
        .directory("odd", 0o755)
        .directory("odd/closed", 0o000)
        .file("odd/closed/inner", 0o000, "inner")
        .file("odd/setuid", 0o4755, "#!/bin/sh\n")
        .file("odd/hard1", 0o640, "hard")
        .hard_link("odd/hard2", "odd/hard1")
        .symlink("odd/away", "../../../../etc/passwd")
        .symlink("odd/nowhere", "/nonexistent")
        .fifo("odd/pipe")
        .file("odd/\u{e4} b\\c", 0o644, "name")
        .file("odd/holes", 0o644, vec![0; 1 << 20])
        .file("odd/noise", 0o444, noise)
        .directory("odd/many", 0o1777);
    for index in 0..300 {
        layer = layer.file(&format!("odd/many/{index}"), 0o644, format!("file {index}"));
    }
    let mut image = TestImage::busybox();
    image.layers.push(layer.finish());
    image
}

/// Every name with its mode, time, size and links, and the sum of every file.
const LISTING: &str = r#"
cd /; find bin data odd | sort | while read -r name; do
    if [ -d "$name" ]; then stat -c "%n %f %Y %u:%g" "$name"; else stat -c "%n %f %Y %u:%g %s %h %N" "$name"; fi
done
find bin odd -type f | sort | while read -r name; do sha256sum "$name"; done
"#;

#[test]
fn the_unpacked_tree_is_the_served_one() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    with_oddities().convert(&sandbox, "odd.sif");
    let list =
        |how: &str| slipway(&sandbox, &["run", "--rootfs", how, "odd.sif", "sh", "-c", LISTING]).succeed();
    let (served, unpacked) = (list("fuse"), list("unpack"));
    assert!(served.lines().count() > 600 && served.contains("odd/setuid 89ed "));
    // On a disk of the node a setuid file would have an effect.
    let served = served.replace("odd/setuid 89ed ", "odd/setuid 81ed ");
    let differs = served.lines().zip(unpacked.lines()).find(|(served, unpacked)| served != unpacked);
    assert_eq!((differs, served.len()), (None, unpacked.len()));
}

#[test]
fn several_starts_at_once_share_one_tree() {
    need!(userns, tool "busybox");
    let sandbox = sandbox();
    let starts: Vec<_> =
        (0..8).map(|number| run(&sandbox, &["box.sif", "echo", &number.to_string()]).spawn()).collect();
    for (number, start) in starts.into_iter().enumerate() {
        let output = start.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{number}\n"), "{output:?}");
    }
    assert_eq!(trees(&sandbox).len(), 1, "{:?}", trees(&sandbox));
    sandbox.assert_nothing_left();
}

#[test]
fn mount_points_do_not_touch_the_shared_tree() {
    need!(userns, tool "busybox");
    let sandbox = sandbox();
    for name in ["one", "two"] {
        sandbox.make_directory(&format!("home/{name}"));
        sandbox.write(&format!("home/{name}/name"), name);
    }
    let volume = |name: &str| format!("{}:/data/deep/place", sandbox.path("home").join(name).display());
    let (one, two) = (volume("one"), volume("two"));
    let mut first =
        run(&sandbox, &["-v", &one, "box.sif", "sh", "-c", "read x; cat /data/deep/place/name; ls /data"])
            .stdin_open()
            .spawn();
    wait_until("the tree is there", || trees(&sandbox).iter().any(|name| !name.contains(".new")));
    assert_eq!(run(&sandbox, &["-v", &two, "box.sif", "cat", "/data/deep/place/name"]).succeed(), "two");
    assert_eq!(run(&sandbox, &["box.sif", "ls", "-A", "/data"]).succeed(), "", "nothing of others' binds");
    drop(first.stdin.take());
    let output = first.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "onedeep\n");
    let tree = roots(&sandbox).join(&trees(&sandbox)[0]);
    assert!(!tree.join(".slipway").exists() && !tree.join("data/deep").exists());
    // A mount point shows the image's own mode and time above it.
    let stat = run(&sandbox, &["-v", &one, "box.sif", "stat", "-c", "%a %Y", "/data"]).succeed();
    assert_eq!(stat, "755 1600000000\n");
    sandbox.assert_nothing_left();
}

#[test]
fn the_root_is_read_only_unless_asked() {
    need!(userns, tool "busybox");
    let sandbox = sandbox();
    sandbox.make_directory("home/changes");
    let sh = |flags: &[&str], script: &str| {
        run(&sandbox, &[flags, &["box.sif", "sh", "-c", script]].concat()).succeed()
    };
    assert_eq!(sh(&[], "echo x 2>/dev/null >/new || echo no; rm /bin/ls 2>/dev/null || echo no"), "no\nno\n");
    assert_eq!(
        sh(&["--writable-tmpfs"], "echo x >/new; rm /bin/ls; cat /new; test -e /bin/ls || echo gone"),
        "x\ngone\n"
    );
    sh(&["--overlay", "changes"], "echo kept >/kept; rm -r /etc/os-release");
    assert_eq!(
        sh(&["--overlay", "changes"], "cat /kept; test -e /etc/os-release || echo gone"),
        "kept\ngone\n"
    );
    assert_eq!(sh(&["--user", "0"], "id -u; mount -o remount,rw / 2>/dev/null || echo no"), "0\nno\n");
    assert_eq!(sh(&[], "test -e /new || test -e /kept || ls /bin/ls"), "/bin/ls\n");
    assert_eq!(trees(&sandbox).len(), 1);
    sandbox.assert_nothing_left();
}

#[test]
fn a_tree_in_use_is_not_removed() {
    need!(userns, tool "busybox", tool "setsid");
    let sandbox = sandbox();
    TestImage { name: "other:latest".into(), ..with_oddities() }.convert(&sandbox, "other.sif");
    let pid_file = sandbox.path("home/pid");
    // What the command leaves behind still has the root, long after the command itself.
    let script = format!("sleep 1000 >/dev/null 2>&1 & echo $! >{}", pid_file.display());
    let left = run(&sandbox, &["box.sif", "sh", "-c", &script]).succeed();
    assert_eq!(left, "");
    let first = trees(&sandbox);
    let sweep = |image: &str| {
        let start = run(&sandbox, &[image, "true"]).env("SLIPWAY_LAUNCH_UNPACK_KEEP_HOURS", "0");
        start.succeed();
    };
    sweep("other.sif");
    let both = trees(&sandbox);
    assert!(both.len() == 2 && both.contains(&first[0]), "{both:?}");
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("it has ended", || !Path::new(&format!("/proc/{pid}/ns/mnt")).exists());
    // A new file is a new image, and a start that unpacks cleans up.
    std::fs::copy(sandbox.path("home/other.sif"), sandbox.path("home/third.sif")).unwrap();
    sandbox.user.give(&sandbox.path("home/third.sif"));
    sweep("third.sif");
    let third = trees(&sandbox);
    assert!(third.len() == 1 && !both.contains(&third[0]), "{third:?}");
    sandbox.assert_nothing_left();
}

#[test]
fn containers_of_an_unpacked_tree_are_managed_as_any() {
    need!(userns, tool "busybox");
    let sandbox = sandbox();
    let state = sandbox.make_directory("state");
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let slipway = |args: &[&str]| slipway(&sandbox, args).env("SLIPWAY_RUNTIME_DIR", &state);
    let words = [
        "run",
        "-d",
        "--name",
        "kept",
        "--rootfs",
        "unpack",
        "box.sif",
        "sh",
        "-c",
        "echo out; exec sleep 1000",
    ];
    slipway(&words).succeed();
    wait_until("it has printed", || slipway(&["logs", "kept"]).succeed() == "out\n");
    assert_eq!(slipway(&["exec", "kept", "cat", "/etc/not-a-program"]).succeed(), "just text\n");
    let other = run(&sandbox, &["box.sif", "true"]).env("SLIPWAY_LAUNCH_UNPACK_KEEP_HOURS", "0");
    other.succeed();
    assert_eq!(trees(&sandbox).len(), 1);
    slipway(&["stop", "-t", "0", "kept"]).succeed();
    slipway(&["start", "kept"]).succeed();
    slipway(&["rm", "-f", "kept"]).succeed();
    sandbox.assert_nothing_left();
}

#[test]
fn a_killed_start_leaves_nothing_that_stays() {
    need!(userns, tool "busybox");
    let sandbox = sandbox();
    with_oddities().convert(&sandbox, "odd.sif");
    let kill = |pid: i32| {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok()
    };
    let unpacker =
        || sandbox.processes().into_iter().find(|(_, name)| name == "slipway-unpack").map(|(pid, _)| pid);
    // It may be done before the signal comes; then once more.
    let mut caught = 0;
    for _ in 0..50 {
        let both = caught == 1;
        let _ = std::fs::remove_dir_all(roots(&sandbox));
        let mut child = run(&sandbox, &["odd.sif", "true"]).spawn();
        wait_until("a tree is begun", || !trees(&sandbox).is_empty());
        let Some(pid) = unpacker() else {
            child.wait().unwrap();
            continue;
        };
        if both {
            child.kill().unwrap();
        }
        kill(pid);
        let output = child.wait_with_output().unwrap();
        if trees(&sandbox).iter().any(|name| !name.contains(".new") && !name.contains(".links")) {
            continue;
        }
        caught += 1;
        if both {
            assert!(!trees(&sandbox).is_empty(), "both were killed: the part is still there");
            break;
        }
        assert_eq!(output.status.code(), Some(125));
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "error: cannot unpack `odd.sif`: the process that does it was ended by signal 9\n  hint: start it again\n"
        );
        assert_eq!(trees(&sandbox), Vec::<String>::new());
    }
    assert_eq!(caught, 2, "no start could be killed in time");
    let sum = run(&sandbox, &["odd.sif", "sh", "-c", "ls /odd/many | wc -l"]).succeed();
    assert_eq!(sum, "300\n");
    assert_eq!(trees(&sandbox).len(), 1, "{:?}", trees(&sandbox));
    sandbox.assert_nothing_left();
}

#[test]
fn too_little_room_is_said_with_figures_and_leaves_nothing() {
    need!(userns, tool "busybox", tool "unshare");
    let sandbox = sandbox();
    with_oddities().convert(&sandbox, "odd.sif");
    let on_tmpfs = |options: &str, command: &str| {
        let script = format!(
            "mount -t tmpfs -o mode=1777,{options} none $DISK; {command}; echo \"code $?\"; \
             find $DISK/slipway-*/roots -mindepth 1"
        );
        in_namespace(&sandbox, &script)
    };
    let said = on_tmpfs("size=1m", "$AS_USER $SLIPWAY run --rootfs unpack odd.sif true");
    let roots = sandbox.normalise(roots(&sandbox).to_str().unwrap());
    let need = said.split("it takes ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
    assert!(need.ends_with("MB"), "{said}");
    assert_eq!(
        said,
        format!(
            "error: cannot unpack `odd.sif` to `{roots}`: it takes {need}, and 1.05MB are free there\n  hint: set \
             `launch.unpack_dir` (SLIPWAY_LAUNCH_UNPACK_DIR) to a directory on a local disk with more room\ncode 125\n"
        )
    );
    let said = on_tmpfs("size=100m,nr_inodes=100", "$AS_USER $SLIPWAY run --rootfs unpack odd.sif true");
    assert!(said.contains(" files, and there is room for 9"), "{said}");
    assert!(said.ends_with("code 125\n"), "{said}");
    // A limit that no figure tells is met in the middle.
    let said = on_tmpfs("size=100m", "ulimit -f 1000; $AS_USER $SLIPWAY run --rootfs unpack odd.sif true");
    assert!(said.contains(": File too large (EFBIG)\n  hint: raise `ulimit -f`\ncode 125\n"), "{said}");
    // Room that an unused tree takes is had again.
    let one = "$AS_USER $SLIPWAY run --rootfs unpack odd.sif true; cp odd.sif again.sif";
    let said =
        on_tmpfs("size=14m", &format!("{one}; $AS_USER $SLIPWAY run --rootfs unpack again.sif echo again"));
    assert!(said.starts_with("again\ncode 0\n"), "{said}");
}

#[test]
fn the_plan_shows_the_tree_and_makes_none() {
    need!(userns, tool "busybox");
    let sandbox = sandbox();
    let plan = run(&sandbox, &["--plan", "box.sif", "true"]).succeed();
    let line = plan.lines().find(|line| line.contains("  image  ")).unwrap();
    assert!(line.starts_with("  3  image       unpacked in [DIR]/disk/slipway-"), "{line}");
    assert!(line.ends_with(" mount points added"), "{line}");
    let json = run(&sandbox, &["--plan", "--json", "--writable-tmpfs", "box.sif", "true"]).succeed();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["ops"][2]["op"], &json["ops"][2]["upper"]["kind"]),
        (&"mount-directory".into(), &"memory".into())
    );
    assert!(std::fs::read_dir(sandbox.path("disk")).unwrap().next().is_none());
}

#[test]
fn no_fd_of_the_lease_reaches_the_workload() {
    need!(userns, tool "busybox");
    let sandbox = sandbox();
    let listed = |command: &str| {
        sandbox
            .shell(&format!("{command} ls /proc/self/fd 7</dev/null"))
            .env("SLIPWAY_LAUNCH_UNPACK_DIR", sandbox.path("disk"))
            .succeed()
    };
    assert_eq!(listed("$SLIPWAY run --rootfs unpack box.sif"), listed("busybox"));
}

#[test]
fn a_directory_that_others_may_enter_is_refused() {
    need!(userns, tool "busybox");
    let sandbox = sandbox();
    let own = sandbox.make_directory(&format!("disk/slipway-{}", sandbox.user.uid));
    let output = run(&sandbox, &["box.sif", "true"]).run();
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            Some(125),
            format!(
                "error: cannot unpack images on this node: `{}` cannot be trusted: others may enter it (mode 755)\n  hint: \
                 set `launch.unpack_dir` (SLIPWAY_LAUNCH_UNPACK_DIR) to a directory on a local disk\n",
                sandbox.normalise(own.to_str().unwrap())
            )
            .as_str()
        )
    );
}
