//! The flags of `slipway run` beyond the plain line, on a real kernel.

use super::support::image::TestImage;
use super::support::sandbox::Sandbox;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    sandbox
}

#[track_caller]
fn check(sandbox: &Sandbox, flags: &[&str], script: &str, expected: &str) {
    let output = sandbox.slipway(["run"]).args(flags).args(["box.sif", "sh", "-c", script]).run();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), (expected, ""), "{flags:?} {script}");
    assert_eq!(output.code, Some(0), "{flags:?} {script}");
    sandbox.assert_nothing_left();
}

#[track_caller]
fn refused(sandbox: &Sandbox, flags: &[&str], expected: &str) {
    let output = sandbox.slipway(["run"]).args(flags).args(["box.sif", "true"]).run();
    assert_eq!(output.code, Some(125), "{output}");
    assert_eq!(sandbox.normalise(output.stderr.lines().next().unwrap_or_default()), expected, "{flags:?}");
}

#[test]
fn the_root_can_be_written_to() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    check(
        &sandbox,
        &["--writable-tmpfs"],
        "echo x >/new; rm /bin/ls; cat /new; test -e /bin/ls || echo gone",
        "x\ngone\n",
    );
    check(
        &sandbox,
        &["--writable"],
        "test -e /new || echo fresh; ls -d /tmp/slipway-test*/home >/dev/null && echo host",
        "fresh\nhost\n",
    );
    sandbox.make_directory("home/changes");
    check(&sandbox, &["--overlay", "changes"], "echo kept >/kept; rm -r /etc/os-release", "");
    check(
        &sandbox,
        &["--overlay", "changes"],
        "cat /kept; test -e /etc/os-release || echo gone",
        "kept\ngone\n",
    );
    check(&sandbox, &["--read-only"], "touch /x 2>/dev/null || echo no", "no\n");
    refused(
        &sandbox,
        &["--overlay", "none"],
        "error: cannot use `--overlay none`: No such file or directory (os error 2)",
    );
    refused(
        &sandbox,
        &["--overlay", "box.sif"],
        "error: cannot use `--overlay [DIR]/home/box.sif`: it is not a directory",
    );
}

#[test]
fn one_can_be_root_or_oneself() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let script = "id -u; id -g; id -un; stat -c %u:%g /bin/busybox; : >file; stat -c %u file; rm file";
    check(&sandbox, &["--user", "0"], script, "0\n0\nroot\n0:0\n0\n");
    check(&sandbox, &["--fakeroot"], "id -u", "0\n");
    let own = format!("{}:{}", sandbox.user.uid, sandbox.user.gid);
    check(&sandbox, &["-u", &own], "id -u", &format!("{}\n", sandbox.user.uid));
    refused(
        &sandbox,
        &["--user", "4711"],
        "error: cannot be user `4711` inside: without root, one user can be mapped, yourself or root",
    );
}

#[test]
fn network_and_host_name_can_be_ones_own() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    check(
        &sandbox,
        &["--network", "none"],
        "ifconfig | grep -c '^[a-z]'; ifconfig lo | grep -o UP",
        "1\nUP\n",
    );
    check(&sandbox, &["--hostname", "box"], "hostname", "box\n");
    refused(
        &sandbox,
        &["--network", "bridge"],
        "error: there is no network `bridge`: without root there are `host` and `none`",
    );
}

#[test]
fn mounts_and_limits_have_dockers_forms() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    sandbox.write("home/data", "content\n");
    check(
        &sandbox,
        &["--mount", "type=bind,source=./data,target=/in,readonly"],
        "cat /in; echo 2>/dev/null >/in || echo ro",
        "content\nro\n",
    );
    check(
        &sandbox,
        &["--tmpfs", "/scratch:size=1m,mode=700"],
        "stat -c %a /scratch; df -k /scratch | tail -1 | awk '{print $2}'",
        "700\n1024\n",
    );
    check(&sandbox, &["--ulimit", "nofile=64:128"], "ulimit -n; ulimit -H -n", "64\n128\n");
    refused(&sandbox, &["--ulimit", "many=1"], "error: `--ulimit many=1`: there is no limit `many`");
    refused(
        &sandbox,
        &["--mount", "type=volume,src=x,dst=/y"],
        "error: `--mount type=volume,src=x,dst=/y`: `type=volume` has no meaning here",
    );
    refused(&sandbox, &["--tmpfs", "/x:big"], "error: `--tmpfs /x:big`: `big` has no meaning here");
}

#[test]
fn what_comes_in_from_the_caller_can_be_chosen() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    sandbox.write("home/vars", "# comment\nFROM_FILE=1 2\nBOTH=file\n");
    check(&sandbox, &["--env-file", "vars", "-e", "BOTH=flag"], "echo $FROM_FILE $BOTH", "1 2 flag\n");
    check(
        &sandbox,
        &["--contain"],
        "pwd; ls -A /tmp | wc -l; ls -d $HOME 2>/dev/null || echo no home",
        "/\n0\nno home\n",
    );
    check(&sandbox, &["--cwd", "/tmp"], "pwd", "/tmp\n");
    let output = sandbox
        .slipway(["run", "--cleanenv", "box.sif", "env"])
        .env("SECRET", "x")
        .env("TERM", "dumb")
        .env("https_proxy", "p")
        .succeed();
    assert!(output.contains("TERM=dumb\n") && output.contains("https_proxy=p\n"), "{output}");
    assert!(!output.contains("SECRET"), "{output}");
    refused(
        &sandbox,
        &["--env-file", "none"],
        "error: cannot read `--env-file none`: No such file or directory (os error 2)",
    );
}
