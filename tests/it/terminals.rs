//! Terminals of containers: attach, exec, window sizes, detaching, and that nothing is lost.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::sandbox::wait_until;
use super::support::yard::Yard;

/// The shell of a container, ready when it says so.
const SHELL: &str = "PS1='<> ' exec sh -i";

#[test]
fn a_container_has_a_terminal_of_its_own() {
    need!(userns, fuse, tool "busybox", tool "setsid");
    let yard = Yard::new();
    yard.start(&["-it", "--name", "pt", "box.sif", "sh", "-c", SHELL]);
    let mut terminal = yard.terminal(&["attach", "pt"]);
    terminal.type_in(b"\r");
    terminal.expect("<> ");
    assert!(!terminal.has_echo(), "the caller's terminal is raw");
    terminal.type_in(b"busybox tty; busybox stty size; echo $TERM\r");
    terminal.expect("/dev/pts/0\r\n24 80\r\nxterm\r\n");
    terminal.forget();
    terminal.resize(40, 100);
    // SIGWINCH to attach, a message to the monitor: asked until it has come.
    wait_until("the window has the new size", || {
        terminal.forget();
        terminal.type_in(b"busybox stty size; echo do''ne\r");
        terminal.expect("done");
        terminal.text().contains("40 100")
    });
    // ^C goes to the container's own foreground, and the shell stays.
    terminal.forget();
    terminal.type_in(b"sleep 1000\r");
    terminal.expect("sleep 1000");
    wait_until("sleep runs", || yard.ok(&["top", "pt"]).contains("sleep 1000"));
    terminal.type_in(b"\x03");
    wait_until("sleep ends", || !yard.ok(&["top", "pt"]).contains("sleep 1000"));
    terminal.type_in(b"\x10\x11");
    terminal.expect("read escape sequence");
    assert!(terminal.end().success());
    assert!(terminal.has_echo(), "the terminal is put back");
    assert_eq!(yard.status("pt").0, "running");
    // Attached again, with other keys; the end of the container is that of attach.
    let mut terminal = yard.terminal(&["attach", "--detach-keys", "ctrl-x,y", "pt"]);
    terminal.type_in(b"\x10\x11\x18y");
    terminal.expect("read escape sequence");
    assert!(terminal.end().success());
    let mut terminal = yard.terminal(&["attach", "pt"]);
    terminal.expect("<> ");
    terminal.type_in(b"\x03\rexit 5\r");
    assert_eq!(terminal.end().code(), Some(5), "{}", terminal.text());
    assert!(terminal.has_echo(), "the terminal is put back");
    assert!(yard.ok(&["logs", "pt"]).contains("/dev/pts/0"));
    yard.ok(&["rm", "pt"]);
    yard.fails(&["attach", "--detach-keys", "ctrl-", "pt"], 1, "invalid detach keys (`ctrl-`) provided");
    yard.assert_empty();
}

#[test]
fn exec_makes_a_terminal_and_puts_the_callers_back() {
    need!(userns, fuse, tool "busybox", tool "setsid");
    let yard = Yard::new();
    yard.start(&["--name", "host", "box.sif", "sleep", "1000"]);
    let mut terminal = yard.terminal(&["exec", "-it", "host", "sh", "-c", SHELL]);
    terminal.expect("<> ");
    terminal.type_in(b"busybox tty; busybox stty size\r");
    terminal.expect("/dev/pts/0\r\n24 80\r\n");
    terminal.forget();
    terminal.resize(50, 132);
    wait_until("the window has the new size", || {
        terminal.forget();
        terminal.type_in(b"busybox stty size; echo do''ne\r");
        terminal.expect("done");
        terminal.text().contains("50 132")
    });
    terminal.type_in(b"exit 7\r");
    assert_eq!(terminal.end().code(), Some(7));
    assert!(terminal.has_echo());
    // A command that does not exist is told on a terminal that is as it was.
    let mut terminal = yard.terminal(&["exec", "-it", "host", "no-such-command"]);
    assert_eq!(terminal.end().code(), Some(127));
    assert!(terminal.text().contains("error: command `no-such-command` not found"), "{}", terminal.text());
    // The other side is killed: the terminal is put back.
    let mut terminal = yard.terminal(&["exec", "-it", "host", "sh", "-c", SHELL]);
    terminal.expect("<> ");
    let top = yard.ok(&["top", "host"]);
    let pid = top.lines().find(|line| line.contains("sh -i")).unwrap().split_whitespace().nth(1).unwrap();
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(terminal.end().code(), Some(137));
    assert!(terminal.has_echo());
    // The whole container, too.
    let mut terminal = yard.terminal(&["exec", "-it", "host", "sh", "-c", SHELL]);
    terminal.expect("<> ");
    // A command that is left alone goes on.
    let mut left = yard.terminal(&["exec", "-it", "host", "sh", "-c", "sleep 3000; exit"]);
    wait_until("it runs", || yard.ok(&["top", "host"]).contains("sleep 3000"));
    // Before, the terminal itself takes ^Q.
    wait_until("keys are taken as they are", || !left.has_echo());
    left.type_in(b"\x10\x11");
    assert!(left.end().success(), "{}", left.text());
    assert!(yard.ok(&["top", "host"]).contains("sleep 3000"));
    yard.ok(&["rm", "-f", "host"]);
    assert_eq!(terminal.end().code(), Some(137));
    assert!(terminal.has_echo());
    yard.assert_empty();
}

/// A mebibyte of every byte but none that a terminal acts on.
fn much() -> Vec<u8> {
    (0_u32..1 << 20).map(|at| b"0123456789abcdefghijklmnopqrstuvwxyz"[(at % 36) as usize]).collect()
}

#[test]
fn nothing_is_lost_on_a_terminal() {
    need!(userns, fuse, tool "busybox", tool "setsid");
    let yard = Yard::new();
    let echo = "busybox stty raw -echo; echo READY; exec busybox cat";
    yard.start(&["-it", "--name", "echo", "box.sif", "sh", "-c", echo]);
    let text = much();
    for words in [&["attach", "echo"][..], &["exec", "-it", "echo", "sh", "-c", echo]] {
        let mut terminal = yard.terminal(words);
        if words[0] == "exec" {
            terminal.expect("READY");
        }
        wait_until("the caller's terminal is raw", || !terminal.has_echo());
        wait_until("echo is ready", || yard.ok(&["logs", "echo"]).contains("READY"));
        // What was printed before is read, too, once this comes back.
        terminal.type_in(b"<go>");
        terminal.expect("<go>");
        terminal.forget();
        terminal.type_much(&text);
        terminal.wait("all of it", |seen| seen.len() >= text.len());
        let first = terminal.seen.iter().zip(&text).position(|(seen, typed)| seen != typed);
        assert_eq!((terminal.seen.len(), first), (text.len(), None), "{words:?}");
        terminal.type_in(b"\x10\x11");
        terminal.end();
    }
    yard.ok(&["rm", "-f", "echo"]);
    yard.assert_empty();
}

#[test]
fn pipes_are_attached_without_a_terminal() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    // Made for one who types: the end of that input is the workload's.
    yard.ok(&["create", "-i", "--name", "sum", "box.sif", "sh", "-c", "busybox cat; echo end >&2; exit 3"]);
    let text = much();
    let output = yard.run(&["start", "-ai", "sum"]).stdin(text.clone()).run();
    assert_eq!((output.code, output.stderr.as_str()), (Some(3), "end\n"));
    assert!(output.stdout.as_bytes() == text, "{} bytes came back", output.stdout.len());
    // One in the background keeps its input open for the next who is attached.
    yard.start(&["-i", "--name", "cat", "box.sif", "sh", "-c", "while read line; do echo got $line; done"]);
    for word in ["one", "two"] {
        let mut child = yard.run(&["attach", "cat"]).stdin(format!("{word}\n")).spawn();
        wait_until("it is read", || yard.ok(&["logs", "cat"]).contains(word));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(yard.ok(&["logs", "cat"]), "got one\ngot two\n");
    assert_eq!(yard.status("cat").0, "running");
    // Signals go to the container, unless that is not wanted.
    let attached = yard.run(&["attach", "--sig-proxy=false", "cat"]).stdin_open().spawn();
    let pid = Pid::from_raw(i32::try_from(attached.id()).unwrap());
    // Signals wait to be passed on as soon as they are blocked.
    let is_attached = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        !status.contains("SigBlk:\t0000000000000000")
    };
    wait_until("it is attached", || is_attached(attached.id()));
    kill(pid, Signal::SIGTERM).unwrap();
    let status = attached.wait_with_output().unwrap().status;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    assert_eq!(yard.status("cat").0, "running");
    let attached = yard.run(&["attach", "cat"]).stdin_open().spawn();
    wait_until("it is attached", || is_attached(attached.id()));
    kill(Pid::from_raw(i32::try_from(attached.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(attached.wait_with_output().unwrap().status.code(), Some(143));
    yard.ok(&["rm", "cat", "sum"]);
    yard.assert_empty();
}

#[test]
fn without_a_terminal_a_job_goes_on() {
    need!(userns, fuse, tool "busybox");
    let yard = Yard::new();
    yard.start(&["--name", "host", "box.sif", "sleep", "1000"]);
    let message = "the input device is not a TTY";
    yard.fails(&["exec", "-it", "host", "true"], 1, message);
    let in_job = |words: &[&str]| yard.run(words).env("SLURM_JOB_ID", "7").env("SLURM_STEP_ID", "0").run();
    let output = in_job(&["exec", "-it", "host", "echo", "on"]);
    assert_eq!(output.stdout, "on\n");
    assert_eq!(output.stderr, "warning: there is no terminal: `-t` is left out\n");
    let output = in_job(&["run", "--rm", "-it", "box.sif", "echo", "on"]);
    assert_eq!(output.stdout, "on\n");
    assert_eq!(output.stderr, "warning: there is no terminal: `-t` is left out\n");
    yard.ok(&["rm", "-f", "host"]);
    yard.start(&["-it", "--name", "pt", "box.sif", "sh", "-c", "exec busybox cat"]);
    yard.fails(&["attach", "pt"], 1, message);
    yard.ok(&["rm", "-f", "pt"]);
    yard.assert_empty();
}
