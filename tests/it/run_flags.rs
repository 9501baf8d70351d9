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
fn told(sandbox: &Sandbox, flags: &[&str], script: &str, expected: &str) {
    let output = sandbox.slipway(["run"]).args(flags).args(["box.sif", "sh", "-c", script]).run();
    assert_eq!((output.stderr.as_str(), output.code), (expected, Some(0)), "{flags:?} {script}");
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
    check(&sandbox, &["--user", "4711"], "id -u; id -g; id -un", "4711\n0\n4711\n");
    check(&sandbox, &["--user", "root:4712"], "id -u; id -g", "0\n4712\n");
    refused(
        &sandbox,
        &["--user", "eve"],
        "error: cannot be user `eve`: the image's /etc/passwd has no user `eve`",
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
    check(
        &sandbox,
        &["-h", "box", "--domainname", "cluster"],
        "hostname; cat /proc/sys/kernel/domainname",
        "box\ncluster\n",
    );
    check(&sandbox, &["-p", "80:80", "-p", "127.0.0.1:53:53/udp", "-P", "--expose", "1"], "true", "");
    told(
        &sandbox,
        &["--network", "bridge"],
        "true",
        "warning: there is no bridge without root: the network is the host's\n",
    );
    for (flags, expected) in [
        (
            &["--network", "mine"][..],
            "error: there is no network `mine`: without root there are `host` and `none`",
        ),
        (
            &["-p", "8080:80"],
            "error: cannot have `-p 8080:80`: the network is the host's, where port 80 is port 80 and not 8080",
        ),
        (
            &["--uts", "host", "--hostname", "x"],
            "error: `--uts host` is the host's name, and another was given",
        ),
        (&["--uts", "mine"], "error: cannot have `--uts mine`: there are `host` and `private`"),
        (&["--hostname", "a b"], "error: `a b` cannot be the name of a host"),
    ] {
        refused(&sandbox, flags, expected);
    }
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
        &["--mount", "type=npipe,src=x,dst=/y"],
        "error: `--mount type=npipe,src=x,dst=/y`: `type=npipe` has no meaning here",
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

#[test]
fn hosts_and_name_servers_can_be_added() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let lines = "tail -n 2 /etc/hosts";
    check(&sandbox, &["--add-host", "db:10.0.0.5", "--add-host", "v6=::1"], lines, "10.0.0.5\tdb\n::1\tv6\n");
    check(
        &sandbox,
        &["--dns", "10.1.1.1,10.1.1.2", "--dns-search", "a.example", "--dns-opt", "ndots:2"],
        "grep -E '^(nameserver|search|options)' /etc/resolv.conf",
        "nameserver 10.1.1.1\nnameserver 10.1.1.2\nsearch a.example\noptions ndots:2\n",
    );
    refused(&sandbox, &["--add-host", "db"], "error: `--add-host db` is not of the form NAME:ADDRESS");
    refused(&sandbox, &["--add-host", "db:x"], "error: `--add-host db:x`: `x` is not an IP address");
}

#[test]
fn apptainers_flags_have_their_effect() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    sandbox.make_directory("other");
    sandbox.write("other/mine", "x");
    let other = format!("{}:/home/me", sandbox.path("other").display());
    check(&sandbox, &["--home", &other], "echo $HOME; ls $HOME", "/home/me\nmine\n");
    check(&sandbox, &["-H", &other], "grep -c :/home/me: /etc/passwd", "1\n");
    check(
        &sandbox,
        &["-S", "/scratch", "--scratch", "more"],
        "touch /scratch/x /more/y; ls /scratch /more",
        "/more:\ny\n\n/scratch:\nx\n",
    );
    let home = sandbox.path("home").display().to_string();
    let script = format!("ls -d {home} /sys/kernel 2>/dev/null; test -s /etc/hosts && echo hosts; echo end");
    check(
        &sandbox,
        &["-w", "/", "--no-mount", "home,cwd,tmp,sys", "--no-mount", "/etc/hosts"],
        &script,
        "end\n",
    );
    refused(&sandbox, &["--no-mount", "all"], "error: `--no-mount all`: there is no such default");
    let script =
        "umask 077; \"$SLIPWAY\" run --no-umask box.sif sh -c umask; \"$SLIPWAY\" run box.sif sh -c umask";
    assert_eq!(sandbox.shell(script).succeed(), "0022\n0077\n");
    for flag in ["--nv", "--rocm", "--nvccli", "--no-nv", "--no-init", "--no-eval", "--no-privs", "--sharens"]
    {
        check(&sandbox, &[flag], "echo ran", "ran\n");
    }
    refused(
        &sandbox,
        &["--fusemount", "x"],
        "error: cannot have `--fusemount x`: a FUSE program is not started from the host",
    );
}

#[test]
fn flags_without_an_effect_are_told_or_refused() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    check(
        &sandbox,
        &["--restart", "no", "--userns=host", "--cgroupns", "host", "--quiet"],
        "echo ran",
        "ran\n",
    );
    told(
        &sandbox,
        &["--mac-address", "02:42:ac:11:00:02"],
        "true",
        "warning: `--mac-address` has no effect: the network is the host's, with its addresses and names\n",
    );
    // A user of the tests has no control group of its own.
    let limits = ["--cpus", "1.5", "-m", "2g", "--pids-limit", "100", "--cpuset-cpus=0"];
    let output = sandbox.slipway(["run"]).args(limits).args(["box.sif", "true"]).run();
    let told = "warning: limits of CPU, memory and processes are those of the job or session, since ";
    assert!(output.code == Some(0) && output.stderr.starts_with(told), "{output}");
    check(&sandbox, &["--memory-swap", "0", "--pids-limit", "-1"], "echo ran", "ran\n");
    for (flags, expected) in [
        (
            &["--restart", "always"][..],
            "error: cannot have `--restart always`: there is no daemon that could start a container again",
        ),
        (
            &["--sysctl", "net.ipv4.ip_forward=1"],
            "error: cannot have `--sysctl net.ipv4.ip_forward=1`: kernel parameters are the host's, and only its administrator may set them",
        ),
        (
            &["--runtime", "runsc"],
            "error: cannot have `--runtime runsc`: containers are started by slipway itself",
        ),
        (&["--security-opt", "what=ever"], "error: `--security-opt what=ever` is not known"),
        (
            &["--security-opt", "apparmor=mine"],
            "error: cannot have `--security-opt apparmor=mine`: AppArmor profiles are not set",
        ),
        (&["--json"], "error: `--json` says how to print, and nothing is printed"),
        (
            &["--platform", "linux/s390x"],
            "error: cannot run `box.sif` as `--platform s390x`: the image is for ",
        ),
    ] {
        let output = sandbox.slipway(["run"]).args(flags).args(["box.sif", "true"]).run();
        assert_eq!(output.code, Some(125), "{output}");
        assert!(output.stderr.starts_with(expected), "{output}");
    }
    let output = sandbox.slipway(["run", "--pull", "never", "no/such:image", "true"]).run();
    assert!(
        output.stderr.starts_with(
            "error: no such image: `no/such:image`, and `--pull never` forbids to download it\n"
        ),
        "{output}"
    );
    for flags in [
        &["--security-opt", "label=disable"][..],
        &["--security-opt=no-new-privileges"],
        &["--runtime", "runc"],
    ] {
        check(&sandbox, flags, "echo ran", "ran\n");
    }
}

#[test]
fn limits_go_as_far_as_they_can() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let script =
        "ulimit -n 100; \"$SLIPWAY\" run --ulimit nofile=200 box.sif sh -c 'ulimit -n; ulimit -H -n'";
    let output = sandbox.shell(script).run();
    assert_eq!(output.stdout, "100\n100\n", "{output}");
    assert_eq!(
        output.stderr,
        "warning: `--ulimit nofile=200`: the hard limit of this session, 100, is what it gets\n"
    );
    let script =
        "ulimit -n 100; \"$SLIPWAY\" run --ulimit nofile=50:200 box.sif sh -c 'ulimit -n; ulimit -H -n'";
    assert_eq!(sandbox.shell(script).succeed(), "50\n100\n");
    check(&sandbox, &["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500\n");
    let output = sandbox.slipway(["run", "--oom-score-adj", "-900", "box.sif", "true"]).run();
    assert!(output.stderr.contains("set the out-of-memory score: only root may make it smaller"), "{output}");
}

#[test]
fn shared_memory_of_the_host_is_used_and_its_size_told() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    check(&sandbox, &["--ipc=host", "--shm-size", "1k"], "echo ran", "ran\n");
    let output = sandbox.slipway(["run", "--shm-size", "8000t", "box.sif", "true"]).run();
    assert!(
        output.stderr.starts_with("warning: `--shm-size` asks for 8.8PB, but the host's `/dev/shm`"),
        "{output}"
    );
    check(
        &sandbox,
        &["--ipc", "private", "--shm-size=2m"],
        "df -k /dev/shm | tail -1 | awk '{print $2}'",
        "2048\n",
    );
}

#[test]
fn each_thing_inside_is_explained() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    sandbox.write("home/data", "");
    sandbox.make_directory("home/.config/slipway");
    sandbox.write("home/.config/slipway/slipway.toml", "\n[run]\nbinds = [\"$HOME/data:/site\"]\n");
    let explain = |more: &[&str]| {
        sandbox
            .slipway(["run", "--explain", "-e", "ASKED=secret-value", "-v", "./data:/in:ro"])
            .args(more)
            .args(["box.sif"])
            .env("LD_PRELOAD", "x")
            .succeed()
    };
    let text = explain(&[]);
    for line in [
        "  ASKED             asked    -e, --env or --env-file\n",
        "  FROM_IMAGE        image    ENV of the image\n",
        "  USER              host     the caller's environment\n",
        "  PYTHONNOUSERSITE  default  packages below the home directory are for another Python\n",
        "variables that are not inside:\n",
        "  LD_PRELOAD  host     it names libraries of the host, which do not fit the image; `-e` brings it in\n",
        "  /in <- [DIR]/home/data (ro)  asked  -v ./data:/in:ro\n",
        "  /site <- [DIR]/home/data (rw)  asked  [DIR]/home/data:/site (run.binds, [DIR]/home/.config/slipway/slipway.toml:3)\n",
        "  /dev/null (rw)  host  every container has it\n",
        "  /etc/passwd  default  made for this container\n",
        "libraries: none\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(!text.contains("secret-value"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&explain(&["--json"])).unwrap();
    let asked = json["variables"].as_array().unwrap().iter().find(|row| row["name"] == "ASKED").unwrap();
    assert_eq!(asked["source"], "asked");
    let place = json["mounts"].as_array().unwrap().iter().find(|row| row["target"] == "/in").unwrap();
    assert_eq!((&place["read_only"], &place["why"]), (&true.into(), &"-v ./data:/in:ro".into()));
    let docker = sandbox.slipway(["run", "--explain", "--profile", "docker", "box.sif"]).succeed();
    assert!(
        docker.contains(
            "  HOME  host     the docker profile takes nothing from the caller; `-e NAME` brings one in\n"
        ),
        "{docker}"
    );
    assert!(
        docker.contains("  HOME        image    home of the user in the image's /etc/passwd\n"),
        "{docker}"
    );
}
