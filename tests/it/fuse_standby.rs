//! What happens to a job when its file server is killed, and what the server tells about itself.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};

use super::squashfs_read::Noise;
use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::need::tell_skipped;
use super::support::sandbox::{Sandbox, wait_until};

const FILES: usize = 6;
const FILE_BYTES: usize = 6 << 20;

/// A sandbox with `box.sif`: busybox, and files `/data/0` … that do not compress well.
fn sandbox() -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    let mut noise = Noise::new(7);
    let mut tar = Tar::new();
    let mut sums = Vec::new();
    for name in 0..FILES {
        let words =
            (0..FILE_BYTES / 8).map(|at| if at % 3 == 0 { name } else { noise.below(1 << 20) } as u64);
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let sum = Sha256::digest(&bytes);
        sums.push(sum.iter().map(|byte| format!("{byte:02x}")).collect());
        tar = tar.file(&format!("data/{name}"), 0o644, bytes);
    }
    image.layers.push(tar.finish());
    image.convert(&sandbox, "box.sif");
    (sandbox, sums)
}

/// FUSE_NOTIFY_RESEND is there since Linux 6.9.
pub(crate) fn kernel_resends() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|text| text.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(9))
}

fn named(sandbox: &Sandbox, wanted: &str) -> Option<Pid> {
    let found = sandbox.processes().into_iter().find(|(_, name)| name == wanted);
    found.map(|(pid, _)| Pid::from_raw(pid))
}

/// The server and its spare, once both are there and the server is not `old`.
pub(crate) fn pair(sandbox: &Sandbox, old: Option<Pid>) -> (Pid, Pid) {
    let mut found = None;
    wait_until("a server and a spare", || {
        let server = named(sandbox, "slipway-fuse").filter(|pid| Some(*pid) != old);
        found = server.zip(named(sandbox, "slipway-spare"));
        found.is_some()
    });
    found.unwrap()
}

fn say_go(child: &mut Child) {
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
}

#[test]
fn a_killed_server_is_replaced_and_two_killed_are_an_error() {
    need!(userns, fuse, tool "busybox");
    if !kernel_resends() {
        tell_skipped("this kernel has no FUSE_NOTIFY_RESEND (6.9)");
        return;
    }
    let (sandbox, sums) = sandbox();
    let script = "read go; for n in 0 1 2 3 4; do sha256sum /data/$n & done; wait; echo all; \
                  read go; if read -r line </data/5; then echo readable; else echo unreadable; fi";
    let mut child = sandbox.slipway(["run", "box.sif", "sh", "-c", script]).stdin_open().spawn();
    let (mut server, mut spare) = pair(&sandbox, None);
    say_go(&mut child);
    // While five readers wait for their bytes.
    for _ in 0..2 {
        kill(server, Signal::SIGKILL).unwrap();
        (server, spare) = pair(&sandbox, Some(server));
    }
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut found: Vec<String> = lines.by_ref().take_while(|line| line != "all").collect();
    found.sort_by_key(|line| line.chars().last());
    let expected: Vec<_> = (0..5).map(|name| format!("{}  /data/{name}", sums[name])).collect();
    assert_eq!(found, expected);
    // Nobody is left to answer: an error, and no wait.
    kill(spare, Signal::SIGKILL).unwrap();
    kill(server, Signal::SIGKILL).unwrap();
    wait_until("both are dead", || {
        [server, spare].iter().all(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_err())
    });
    say_go(&mut child);
    match lines.next().as_deref() {
        Some("unreadable") => {}
        // The shell itself is a file of the image, and needed a page that was not there yet.
        None => assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGBUS as i32)),
        Some(other) => panic!("{other}"),
    }
    child.wait().unwrap();
    sandbox.assert_nothing_left();
}

#[test]
fn the_server_tells_what_it_did() {
    need!(userns, fuse, tool "busybox");
    let (sandbox, _) = sandbox();
    let script = "cat /data/0 >/dev/null; cat nothing; echo read; read go";
    let run = sandbox.slipway(["run", "box.sif", "sh", "-c", script]).env("SLIPWAY_FUSE_STATS", "stats");
    let mut child = run.stdin_open().spawn();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "read");
    let text = || std::fs::read_to_string(sandbox.path("home/stats")).unwrap_or_default();
    kill(named(&sandbox, "slipway-fuse").unwrap(), Signal::SIGUSR1).unwrap();
    wait_until("a report", || text().contains("EIO: 0\n"));
    say_go(&mut child);
    assert!(child.wait().unwrap().success());
    wait_until("a second report", || text().matches("EIO: 0\n").count() == 2);
    let served = text().lines().find(|line| line.starts_with("bytes:")).unwrap().to_owned();
    let served: u64 = served.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(served >= FILE_BYTES as u64, "{}", text());
    sandbox.assert_nothing_left();
}

#[test]
fn a_recorded_start_is_loaded_ahead() {
    need!(userns, fuse, tool "busybox");
    let (sandbox, _) = sandbox();
    let list = sandbox.path("home/box.sif.sh.hot");
    let script = "sleep 0.1; for n in 0 1; do dd if=/data/$n of=/dev/null bs=1M 2>/dev/null; done";
    let run = |flags: &[&str]| {
        let command = sandbox.slipway(["run"]).args(flags).args(["box.sif", "sh", "-c", script]);
        command.env("SLIPWAY_FUSE_STATS", "stats").succeed();
        sandbox.assert_nothing_left();
        let text = std::fs::read_to_string(sandbox.path("home/stats")).unwrap();
        std::fs::remove_file(sandbox.path("home/stats")).unwrap();
        text
    };
    run(&[]);
    assert!(!list.exists(), "an image outside the store is recorded on demand");
    run(&["--record-hot"]);
    let text = std::fs::read_to_string(&list).unwrap();
    assert!(text.starts_with("slipway-hot 1 ") && text.lines().count() > 90, "{text}");
    let mode = std::fs::metadata(&list).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "the launcher's empty mask is not the file's");
    let report = run(&[]);
    let ahead = report.split(" loaded, ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(ahead > Some(40), "{report}");
    // A list of another image is none.
    std::fs::write(&list, text.replacen("slipway-hot 1 ", "slipway-hot 1 1", 1)).unwrap();
    run(&[]);
    std::fs::write(&list, text.replace('\n', " 99999999999999999999\n")).unwrap();
    run(&[]);
}
