//! What a launch owes its caller, its workload and the host beside running the command.

use std::process::Stdio;

use super::support::image::TestImage;
use super::support::sandbox::{Sandbox, wait_until};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    TestImage::busybox().convert(&sandbox, "box.sif");
    sandbox
}

fn run_in_shell(sandbox: &Sandbox, script: &str) -> String {
    let program = sandbox.program().display().to_string();
    sandbox.shell(&script.replace("SLIPWAY", &program)).succeed()
}

#[test]
fn a_caller_that_ignores_its_children_can_start() {
    need!(userns, fuse, tool "busybox");
    assert_eq!(run_in_shell(&sandbox(), "trap '' CHLD; SLIPWAY run box.sif echo started"), "started\n");
}

#[test]
fn programs_can_open_terminals() {
    need!(userns, fuse, tool "busybox");
    let script = "SLIPWAY run box.sif sh -c 'exec 5<>/dev/ptmx && ls /dev/pts/0'";
    assert_eq!(run_in_shell(&sandbox(), script), "/dev/pts/0\n");
}

#[test]
fn the_callers_umask_reaches_the_workload_and_not_our_files() {
    need!(userns, fuse, tool "busybox");
    let script = "umask 077; SLIPWAY run box.sif sh -c 'umask; stat -c %a /etc/passwd /dev/shm/../null'";
    assert_eq!(run_in_shell(&sandbox(), script), "0077\n644\n666\n");
}

#[test]
fn no_fd_of_ours_reaches_the_workload() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    // What the caller has open is the workload's too; nothing comes to it.
    let listed = |command: &str| run_in_shell(&sandbox, &format!("{command} ls /proc/self/fd 7</dev/null"));
    let (outside, inside) = (listed("busybox"), listed("SLIPWAY run box.sif"));
    assert!(outside.contains("7\n"), "{outside}");
    assert_eq!(inside, outside);
}

#[test]
fn the_server_does_not_show_the_callers_words() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let mut child =
        sandbox.slipway(["run", "-e", "TOKEN=planted-secret", "box.sif", "cat"]).stdin_open().spawn();
    let server = || {
        let named = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "slipway-fuse\n")
        };
        sandbox.processes().into_iter().map(|(pid, _)| pid).find(named)
    };
    wait_until("the server is there", || server().is_some());
    let line = std::fs::read(format!("/proc/{}/cmdline", server().unwrap())).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains("planted-secret"), "{line:?}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    sandbox.assert_nothing_left();
}

#[test]
fn root_inside_cannot_undo_a_mount() {
    need!(userns, fuse, root, tool "busybox");
    let sandbox = sandbox();
    sandbox.make_directory("data");
    let run = |words: &[&str]| {
        let mut command = std::process::Command::new(sandbox.program());
        command.arg("run").args(words).current_dir("/").env_clear().env("HOME", "/root");
        command.stdin(Stdio::null()).output().unwrap()
    };
    let (image, volume) = (sandbox.path("home/box.sif"), format!("{}:/x:ro", sandbox.path("data").display()));
    let script = "id -u; mount -o remount,rw,bind /x; umount /x; touch /x/new; echo x >>/etc/hosts; true";
    let output = run(&["-v", &volume, image.to_str().unwrap(), "sh", "-c", script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 4, "{output:?}");
    assert!(!sandbox.path("data/new").exists());
}

#[test]
fn control_characters_of_an_image_stay_off_the_terminal() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let script = sandbox.write("script", "#!/x\x1b]0;pwned\x07\n");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = sandbox.slipway(["run", "box.sif", script.to_str().unwrap()]).run();
    assert_eq!(output.code, Some(127));
    assert!(output.stderr.contains(r"needs the interpreter `/x\u{1b}]0;pwned\u{7}`"), "{output}");
}

#[test]
fn what_cannot_be_had_is_told() {
    need!(userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let output = sandbox
        .slipway(["run"])
        .args([sandbox.path("home/box.sif").to_str().unwrap(), "pwd"])
        .cwd("/usr")
        .run();
    assert_eq!(output.stdout, "/\n", "{output}");
    assert_eq!(
        output.stderr,
        "warning: the current directory `/usr` is not inside, since that is the image's own place; the command \
         starts in `/`\n"
    );
    for (words, expected) in [
        (&["--no-such", "x", "box.sif"][..], "error: unknown flag `--no-such`\n"),
        (&["-v", "/data:/", "box.sif"], "error: `-v /data:/`: `/` cannot be a mount point\n"),
    ] {
        let output = sandbox.slipway(["run"]).args(words).run();
        assert_eq!(output.code, Some(125), "{output}");
        assert!(output.stderr.starts_with(expected), "{output}");
    }
    let script = "mkdir gone && cd gone && rmdir ../gone && SLIPWAY run -v ./x:/x $HOME/box.sif true";
    let program = sandbox.program().display().to_string();
    let output = sandbox.shell(&script.replace("SLIPWAY", &program)).run();
    assert!(output.stderr.contains("the current directory does not exist any more"), "{output}");
}
