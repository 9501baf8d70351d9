//! The docker profile of `slipway run`, on a real kernel.

use serde_json::json;

use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::sandbox::Sandbox;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    image.layers.push(
        Tar::new()
            .file(
                "etc/passwd",
                0o644,
                "root:x:0:0:root:/root:/bin/sh\napp:x:1500:1600:App:/srv/app:/bin/sh\n",
            )
            .file("data/seed", 0o640, "of the image\n")
            .finish(),
    );
    image.convert(&sandbox, "box.sif");
    image.config["User"] = json!("app");
    image.config["WorkingDir"] = json!("/made/for/it");
    image.config["Volumes"] = json!({"/data": {}});
    image.convert(&sandbox, "app.sif");
    sandbox
}

#[track_caller]
fn check(sandbox: &Sandbox, words: &[&str], expected: &str) {
    let output = sandbox.slipway(["run", "--profile", "docker"]).args(words).run();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), (expected, ""), "{words:?}");
    assert_eq!(output.code, Some(0), "{words:?}");
    sandbox.assert_nothing_left();
}

#[test]
fn user_and_directory_are_the_images() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let script = "id -u; id -g; pwd; echo $HOME; stat -c %u /bin/busybox";
    check(&sandbox, &["app.sif", "sh", "-c", script], "1500\n1600\n/made/for/it\n/srv/app\n1500\n");
    check(&sandbox, &["box.sif", "sh", "-c", script], "0\n0\n/data\n/root\n0\n");
    check(&sandbox, &["-w", "/not/there", "box.sif", "pwd"], "/not/there\n");
    check(
        &sandbox,
        &["-u", "4711:4712", "box.sif", "sh", "-c", "id -u; id -g; echo $HOME"],
        "4711\n4712\n/\n",
    );
    check(&sandbox, &["-u", "app:0", "box.sif", "sh", "-c", "id -u; id -g"], "1500\n0\n");
    let output = sandbox.slipway(["run", "--compat", "-u", "eve", "box.sif", "true"]).run();
    assert_eq!(output.code, Some(125));
    assert!(
        output.stderr.starts_with("error: cannot be user `eve`: the image's /etc/passwd has no user `eve`\n"),
        "{output}"
    );
}

#[test]
fn the_environment_is_the_images_alone() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let run = |words: &[&str]| {
        let output = sandbox
            .slipway(["run", "--profile", "docker", "--hostname", "box"])
            .args(words)
            .env("FROM_HOST", "1")
            .env("SLURM_JOB_ID", "7")
            .succeed();
        let mut lines: Vec<_> = output.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let plain = ["FROM_IMAGE=image", "HOME=/root", "HOSTNAME=box", "PATH=/bin"];
    assert_eq!(run(&["box.sif", "env"]), plain);
    let asked =
        ["-e", "FROM_HOST", "-e", "FROM_IMAGE=mine", "-e", "ABSENT", "-e", "PATH", "box.sif", "/bin/env"];
    let lines = run(&asked);
    assert!(
        lines.contains(&"FROM_HOST=1".to_owned()) && lines.contains(&"FROM_IMAGE=mine".to_owned()),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line.starts_with("PATH=/usr/local/sbin")), "{lines:?}");
    assert_eq!(run(&["-e", "FROM_IMAGE", "box.sif", "env"]), ["HOME=/root", "HOSTNAME=box", "PATH=/bin"]);
    sandbox.make_directory("home/.docker");
    let proxies = json!({"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "a"}}});
    sandbox.write("home/.docker/config.json", proxies.to_string());
    let lines = run(&["-e", "NO_PROXY=mine", "box.sif", "env"]);
    for line in ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1", "NO_PROXY=mine", "no_proxy=a"] {
        assert!(lines.contains(&line.to_owned()), "{line}: {lines:?}");
    }
}

#[test]
fn nothing_of_the_callers_is_inside() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    sandbox.write("home/private", "x");
    let home = sandbox.path("home").display().to_string();
    let script =
        format!("ls -A /tmp | wc -l; ls -d {home} 2>/dev/null || echo no home; ls /dev; cat /etc/hostname");
    let output = sandbox
        .slipway(["run", "--profile=docker", "--hostname=box", "box.sif", "sh", "-c", &script])
        .succeed();
    let mut lines: Vec<_> = output.lines().filter(|line| !matches!(*line, "mqueue" | "core")).collect();
    lines.retain(|line| !line.is_empty());
    assert_eq!(
        lines,
        [
            "0", "no home", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
            "stdout", "tty", "urandom", "zero", "box"
        ]
    );
    // The host's name is the beginning of an id, and can be looked up.
    let script = "hostname; grep -c \"$(hostname)\" /etc/hosts; echo \"$HOSTNAME\"";
    let output = sandbox.slipway(["run", "--profile", "docker", "box.sif", "sh", "-c", script]).succeed();
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].len() == 12 && lines[0].bytes().all(|byte| byte.is_ascii_hexdigit()), "{output}");
    assert_eq!(&lines[1..], ["1", lines[0]]);
    check(
        &sandbox,
        &["box.sif", "sh", "-c", "echo x >>/etc/hosts; echo x >>/etc/resolv.conf; umask"],
        "0022\n",
    );
    check(
        &sandbox,
        &[
            "--uts",
            "host",
            "box.sif",
            "sh",
            "-c",
            "test \"$(hostname)\" = \"$(cat /proc/sys/kernel/hostname)\" && echo same",
        ],
        "same\n",
    );
}

#[test]
fn a_directory_that_v_names_is_made() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    check(&sandbox, &["-v", "./fresh/deep:/x", "box.sif", "touch", "/x/made"], "");
    assert!(sandbox.path("home/fresh/deep/made").exists());
    let output = sandbox.slipway(["run", "-v", "./other:/x", "box.sif", "true"]).run();
    assert!(output.stderr.contains("does not exist on this host"), "{output}");
    let output = sandbox
        .slipway(["run", "--profile", "docker", "--mount", "type=bind,src=./other,dst=/x", "box.sif", "true"])
        .run();
    assert!(output.stderr.contains("does not exist on this host"), "{output}");
}

#[test]
fn shared_memory_is_the_containers_own() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let size = "df -k /dev/shm | tail -1 | awk '{print $2}'; echo x >/dev/shm/x; ls /dev/shm";
    check(&sandbox, &["box.sif", "sh", "-c", size], "65536\nx\n");
    check(&sandbox, &["--shm-size", "1m", "box.sif", "sh", "-c", size], "1024\nx\n");
    check(
        &sandbox,
        &["--ipc", "none", "box.sif", "sh", "-c", "ls -d /dev/shm 2>/dev/null || echo none"],
        "none\n",
    );
    let namespace = std::fs::read_link("/proc/self/ns/ipc").unwrap().display().to_string();
    let is_hosts = format!("test $(readlink /proc/self/ns/ipc) = {namespace} && echo host || echo own");
    check(&sandbox, &["box.sif", "sh", "-c", &is_hosts], "own\n");
    check(&sandbox, &["--ipc=host", "box.sif", "sh", "-c", &is_hosts], "host\n");
    let output = sandbox.slipway(["run", "--ipc", "container:x", "box.sif", "true"]).run();
    assert!(output.stderr.starts_with("error: cannot have `--ipc container:x`"), "{output}");
}

#[test]
fn the_root_is_written_to_and_kept_with_the_container() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let state = sandbox.make_directory("state");
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let slipway = |words: &[&str]| sandbox.slipway(words).env("SLIPWAY_RUNTIME_DIR", &state).succeed();
    check(&sandbox, &["box.sif", "sh", "-c", "echo x >/new; rm /bin/ls; cat /new"], "x\n");
    check(&sandbox, &["--read-only", "box.sif", "sh", "-c", "touch /x 2>/dev/null || echo no"], "no\n");
    // Detached: kept over its end, and there again at the next start.
    let script = "test -e /kept && echo again; echo x >>/kept; chmod 0 /etc; mkdir /closed; chmod 0 /closed";
    slipway(&["run", "--profile", "docker", "-d", "--name", "one", "box.sif", "sh", "-c", script]);
    slipway(&["wait", "one"]);
    slipway(&["start", "-a", "one"]);
    assert!(slipway(&["logs", "one"]).contains("again\n"));
    // In the foreground with a name: it stays too, and --rm has it go.
    slipway(&["run", "--profile", "docker", "--name", "two", "box.sif", "sh", "-c", "echo two >/kept"]);
    assert!(slipway(&["ps", "-a", "--format", "{{.Names}}"]).contains("two\n"));
    slipway(&["run", "--profile", "docker", "--rm", "--name", "three", "box.sif", "true"]);
    assert!(!slipway(&["ps", "-a", "--format", "{{.Names}}"]).contains("three\n"));
    slipway(&["rm", "one", "two"]);
    let left: Vec<_> = std::fs::read_dir(state.join("containers")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    sandbox.assert_nothing_left();
}

#[test]
fn the_profile_comes_from_flag_variable_or_file() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let uid = |output: String| output.trim().to_owned();
    assert_eq!(uid(sandbox.slipway(["run", "app.sif", "id", "-u"]).succeed()), sandbox.user.uid.to_string());
    assert_eq!(
        uid(sandbox.slipway(["run", "app.sif", "id", "-u"]).env("SLIPWAY_PROFILE", "docker").succeed()),
        "1500"
    );
    sandbox.make_directory("home/.config/slipway");
    sandbox.write("home/.config/slipway/slipway.toml", "[run]\nprofile = \"docker\"\n");
    assert_eq!(uid(sandbox.slipway(["run", "app.sif", "id", "-u"]).succeed()), "1500");
    let by_flag = sandbox.slipway(["run", "--profile", "hpc", "app.sif", "id", "-u"]).succeed();
    assert_eq!(uid(by_flag), sandbox.user.uid.to_string());
}

#[test]
fn system_calls_are_filtered_as_docker_does() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let script = "grep -c 'Seccomp:.2' /proc/self/status; unshare -r true 2>/dev/null || echo refused";
    check(&sandbox, &["box.sif", "sh", "-c", script], "1\nrefused\n");
    check(
        &sandbox,
        &["--security-opt", "seccomp=unconfined", "box.sif", "grep", "Seccomp:", "/proc/self/status"],
        "Seccomp:\t0\n",
    );
    // hpc has none, and takes one.
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
    sandbox.write("home/profile.json", profile.to_string());
    let output = sandbox
        .slipway(["run", "--security-opt", "seccomp=profile.json", "box.sif", "mkdir", "/tmp/slipway-never"])
        .run();
    assert!(output.stderr.contains("No space left"), "{output}");
    sandbox.write("home/bad.json", "{");
    let output = sandbox.slipway(["run", "--security-opt", "seccomp=bad.json", "box.sif", "true"]).run();
    assert!(output.stderr.starts_with("error: `bad.json` is not a seccomp profile: "), "{output}");
    let output = sandbox.slipway(["run", "--security-opt", "seccomp=none.json", "box.sif", "true"]).run();
    assert!(output.stderr.starts_with("error: cannot read the seccomp profile `none.json`: "), "{output}");
    assert_eq!(
        sandbox.slipway(["run", "box.sif", "grep", "Seccomp:", "/proc/self/status"]).succeed(),
        "Seccomp:\t0\n"
    );
}

#[test]
fn a_further_command_is_held_as_the_first_one() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let state = sandbox.make_directory("state");
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let slipway = |words: &[&str]| sandbox.slipway(words).env("SLIPWAY_RUNTIME_DIR", &state).succeed();
    let held = "grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/self/status";
    let script = format!("{held}; sleep 1000");
    slipway(&[
        "run",
        "--profile",
        "docker",
        "--cap-drop",
        "ALL",
        "-d",
        "--name",
        "held",
        "box.sif",
        "sh",
        "-c",
        &script,
    ]);
    let inside = slipway(&["exec", "held", "sh", "-c", held]);
    assert!(inside.contains("Seccomp:\t2") && inside.contains("CapBnd:\t0000000000000000"), "{inside}");
    slipway(&["rm", "-f", "held"]);
    sandbox.assert_nothing_left();
}

#[test]
fn processes_are_the_containers_own() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let count = "ls -d /proc/[0-9]* | wc -l; [ -d /proc/self ] && echo there";
    let own = sandbox.slipway(["run", "--profile", "docker", "box.sif", "sh", "-c", count]).succeed();
    let seen: u32 = own.lines().next().unwrap().parse().unwrap();
    assert!(seen < 8 && own.ends_with("there\n"), "{own}");
    // The host's, when asked for.
    let script = format!("[ -d /proc/{} ] && echo seen", std::process::id());
    check(&sandbox, &["--pid", "host", "box.sif", "sh", "-c", &script], "seen\n");
    check(&sandbox, &["box.sif", "sh", "-c", &format!("{script} || echo hidden")], "hidden\n");
}

#[test]
fn short_flags_take_attached_values() {
    need!(userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    let script = "echo $A $(id -u) $(pwd) -u1";
    let output = sandbox.slipway(["run", "-eA=1", "-u0", "-w/etc", "box.sif", "sh", "-c", script]).succeed();
    assert_eq!(output, "1 0 /etc -u1\n");
}
