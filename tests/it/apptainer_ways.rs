//! What users of Apptainer rely on (its end-to-end tests and issues), held against `slipway run`.

use super::support::image::{Shape, TestImage};
use super::support::layers::Tar;
use super::support::sandbox::{Output, Sandbox};

/// What Apptainer does and Slipway does not, and why not. What is not here and not below is held elsewhere: argument lists
/// in `run_cli`, writable roots in `run_flags`, GPUs in `gpu_cli`, images of Apptainer's own in `foreign_image`.
const NOT_OURS: &[(&str, &str)] = &[
    ("exit code 255 where the launcher fails", "docker's codes are used: 125, 126, 127"),
    ("PATH prepended and appended by APPTAINERENV_*", "`-e PATH=…` sets it; its variables are not read"),
    ("$UID in a value is evaluated by a shell", "no shell runs before the command (--no-eval is always so)"),
    ("LD_LIBRARY_PATH is /.singularity.d/libs", "drivers are found by the loader's cache"),
    ("`--writable` of a SIF fails without an overlay partition", "it is `--writable-tmpfs` here"),
    ("ext3 overlays", "no kernel mounts of files without root; directories take changes"),
    (
        "APPTAINER_BIND is seen inside",
        "`--explain` tells it to the user; the workload has /proc/self/mountinfo",
    ),
    ("nonested binds", "binds are recursive, as docker's"),
    ("HTTP Last-Modified cache", "images are known by digest"),
    ("network names of CNI", "without root there are host and none"),
    ("libs32 with --compat32", "32-bit libraries are not collected"),
    ("NVIDIA_VISIBLE_DEVICES unset means no device", "the job's devices are the default"),
];

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    let layer = Tar::new()
        .file("etc/closed", 0o000, "content\n")
        .directory("real", 0o755)
        .directory("real/deep", 0o755)
        .file("real/file", 0o644, "of the image\n")
        .symlink("one", "real")
        .symlink("two", "one")
        .symlink("one-file", "real/file");
    image.layers.push(layer.finish());
    image.convert(&sandbox, "box.sif");
    sandbox
}

fn run(sandbox: &Sandbox, flags: &[&str], words: &[&str]) -> Output {
    sandbox.slipway(["run"]).args(flags).args(["box.sif"]).args(words).run()
}

#[track_caller]
fn check(sandbox: &Sandbox, flags: &[&str], script: &str, expected: &str) {
    let output = run(sandbox, flags, &["sh", "-c", script]);
    assert_eq!((output.stdout.as_str(), output.code), (expected, Some(0)), "{flags:?} {script}: {output}");
}

#[test]
fn the_table_says_why() {
    assert!(NOT_OURS.iter().all(|(what, why)| !what.is_empty() && !why.is_empty()));
}

#[test]
fn exit_codes_and_signals_come_through() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    for (words, code, signal) in [
        (&["true"][..], Some(0), None),
        (&["false"], Some(1), None),
        (&["sh", "-c", "exit 77"], Some(77), None),
        (&["sh", "-c", "kill -ABRT $$"], None, Some(6)),
        (&["sh", "-c", "kill -KILL $$"], None, Some(9)),
        (&["sh", "-c", "no-such-command"], Some(127), None),
        (&["no-such-command"], Some(127), None),
        (&["/etc"], Some(126), None),
    ] {
        let output = run(&sandbox, &[], words);
        assert_eq!((output.code, output.signal), (code, signal), "{words:?}: {output}");
    }
    // A shell that started it sees 128 and the number, as Apptainer's users do.
    let script = "\"$SLIPWAY\" run box.sif sh -c 'kill -ABRT $$' 2>/dev/null; echo $?; exit 0";
    let output = sandbox.command("/bin/sh", ["-c", script]).env("SLIPWAY", sandbox.program()).succeed();
    assert_eq!(output, "134\n");
    sandbox.assert_nothing_left();
}

#[test]
fn values_of_variables_are_taken_as_they_are() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    for value in ["two\nlines", "a\\nb", "$UID", "a,b,", " blanks  kept ", "'quoted' \"twice\"", "", "="] {
        let output =
            run(&sandbox, &["-e", &format!("VALUE={value}")], &["sh", "-c", "printf '[%s]' \"$VALUE\""]);
        assert_eq!(output.stdout, format!("[{value}]"), "{output}");
    }
    let output = sandbox
        .slipway(["run", "box.sif", "env"])
        .env("BASH_FUNC_ml%%", "() { echo host; }")
        .env("MULTI", "one\ntwo")
        .succeed();
    assert!(!output.contains("BASH_FUNC") && output.contains("MULTI=one\ntwo\n"), "{output}");
}

#[test]
fn binds_go_where_links_of_the_image_lead() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    sandbox.make_directory("given/sub");
    sandbox.write("given/file", "of the host\n");
    sandbox.make_directory("with,comma");
    let given = sandbox.path("given").display().to_string();
    let at = |target: &str| format!("{given}:{target}");
    let file = |target: &str| format!("{given}/file:{target}");
    for target in ["/one", "/two", "/one/deep", "/real/../one", "/new/place/deep"] {
        check(&sandbox, &["-B", &at(target)], &format!("cat {target}/file"), "of the host\n");
    }
    check(&sandbox, &["-B", &file("/one-file")], "cat /real/file", "of the host\n");
    // Nested, in either order, and one place twice: the later one counts.
    let nested = format!("{given}/sub:/real/sub");
    for flags in [["-B", &at("/real"), "-B", &nested], ["-B", &nested, "-B", &at("/real")]] {
        check(&sandbox, &flags, "cat /real/file; ls -d /real/sub", "of the host\n/real/sub\n");
    }
    check(&sandbox, &["-B", &at("/real"), "-B", &format!("{given}/sub:/real")], "ls /real | wc -l", "0\n");
    check(
        &sandbox,
        &["-B", &format!("{given},{}", at("/real"))],
        &format!("cat {given}/file /real/file"),
        "of the host\nof the host\n",
    );
    let comma = format!("{}\\,comma:/real", sandbox.path("with").display());
    check(&sandbox, &["-B", &comma], "ls /real | wc -l", "0\n");
    for place in ["/tmp/x", "/var/tmp/x", "/home/x"] {
        check(&sandbox, &["--contain", "-B", &at(place)], &format!("cat {place}/file"), "of the host\n");
    }
    for (bind, words) in [
        (format!("{given}:relative"), "is not absolute"),
        (format!("{given}/none:/x"), "does not exist on this host"),
    ] {
        let output = run(&sandbox, &["-B", &bind], &["true"]);
        assert!(output.code == Some(125) && output.stderr.contains(words), "{output}");
    }
    sandbox.assert_nothing_left();
}

#[test]
fn home_and_directory_may_be_links_or_the_root() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    sandbox.make_directory("home/deep");
    std::os::unix::fs::symlink(sandbox.path("home/deep"), sandbox.path("home/link")).unwrap();
    let image = sandbox.path("home/box.sif").display().to_string();
    // The directory is where the link leads, and is the same inside.
    let script = "cd link && \"$SLIPWAY\" run ../box.sif sh -c 'touch here'; ls ../deep";
    assert_eq!(sandbox.shell(script).succeed(), "here\n");
    let output = sandbox.slipway(["run", &image, "sh", "-c", "echo $HOME"]).env("HOME", "/").succeed();
    assert_eq!(output, "/\n");
    let output = sandbox.slipway(["run", &image, "pwd"]).cwd("/").succeed();
    assert_eq!(output, "/\n");
    // A file that its own mode closes to everybody can be read by whoever the image belongs to.
    check(&sandbox, &[], "cat /etc/closed", "content\n");
    check(&sandbox, &["--fakeroot"], "cat /etc/closed", "content\n");
    // The line of passwd: one for the caller, whose shell is the image's where it lists one.
    check(&sandbox, &[], "grep -c \"^$(id -un):\" /etc/passwd", "1\n");
    sandbox.assert_nothing_left();
}

#[test]
fn odd_places_of_an_image_are_no_obstacle() {
    need!(userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    let layer = Tar::new()
        .directory("var", 0o755)
        .symlink("var/tmp", "/tmp")
        .directory("etc/hosts", 0o755)
        .symlink("etc/localtime", "localtime")
        .symlink("etc/resolv.conf", "/no/such/place")
        .symlink("gone", "etc/passwd")
        .symlink("stays", "etc/passwd");
    image.layers.push(layer.finish());
    // A whiteout of a link removes the link and not what it leads to.
    image.layers.push(Tar::new().file(".wh.gone", 0o644, "").finish());
    image.convert(&sandbox, "box.sif");
    let name = format!("slipway-odd-{}", std::process::id());
    check(&sandbox, &[], &format!("echo x >/var/tmp/{name}; cat /tmp/{name}; rm /tmp/{name}"), "x\n");
    check(&sandbox, &["--contain"], "echo x >/var/tmp/x; cat /tmp/x; ls -d /etc/hosts", "x\n/etc/hosts\n");
    let script = "test -e /gone || test -L /gone || echo gone; grep -c root /stays";
    check(&sandbox, &[], script, "gone\n1\n");
    sandbox.assert_nothing_left();
}

#[test]
fn the_result_has_the_mode_that_the_mask_leaves() {
    need!(tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().save(&sandbox, "box.tar", Shape::Oci);
    for (mask, expected) in [("022", "755"), ("027", "750"), ("077", "700")] {
        let script = format!(
            "umask {mask}; $SLIPWAY convert -q docker-archive:box.tar {mask}.sif >told; stat -c %a {mask}.sif"
        );
        assert_eq!(sandbox.shell(&script).succeed().trim(), expected, "{mask}");
    }
}

#[test]
fn one_place_takes_the_changes() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    sandbox.make_directory("home/changes");
    sandbox.make_directory("home/more");
    for flags in
        [&["--overlay", "changes", "--writable-tmpfs"][..], &["--overlay", "changes", "--overlay", "more"]]
    {
        let output = run(&sandbox, flags, &["true"]);
        assert!(output.code == Some(125) && output.stderr.contains("--overlay"), "{flags:?}: {output}");
    }
}
