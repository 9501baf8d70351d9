//! Content that the server gives before it is asked for: to readers of whole trees, and to those of parts of blocks.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::fuse_standby::{kernel_resends, pair};
use super::squashfs_read::Noise;
use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::need::tell_skipped;
use super::support::sandbox::Sandbox;

const DIRECTORIES: usize = 6;
const FILES: usize = 60;

/// The path and the content of each file, in the order of their names.
fn files() -> Vec<(String, String)> {
    let mut noise = Noise::new(11);
    let mut files = Vec::new();
    for directory in 0..DIRECTORIES {
        for file in 0..FILES {
            let words = match file % 15 {
                3 => 0,
                7 => 20_000,
                // Longer than what is given.
                11 => 120_000,
                _ => noise.below(4000),
            };
            let text = (0..words).map(|_| format!("{} ", noise.below(100_000))).collect();
            files.push((format!("tree/{directory}/{file:02}"), text));
        }
    }
    files
}

#[test]
fn readers_of_a_tree_are_given_files_unasked() {
    need!(userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    let files = files();
    let mut image = TestImage::busybox();
    let mut tar = Tar::new();
    for (index, (path, text)) in files.iter().enumerate() {
        tar = tar.file(path, 0o644, text);
        if index % 20 == 0 {
            tar = tar.symlink(&format!("{path}.link"), "..").directory(&format!("{path}.d"), 0o755);
        }
    }
    image.layers.push(tar.finish());
    image.convert(&sandbox, "box.sif");
    let read = |script: &str| {
        let run = sandbox
            .slipway(["run", "box.sif", "sh", "-c", script])
            .env("SLIPWAY_FUSE_STATS", "stats")
            .env("SLIPWAY_FUSE_PUSH", "on");
        let text = run.succeed();
        sandbox.assert_nothing_left();
        let stats = std::fs::read_to_string(sandbox.path("home/stats")).unwrap();
        std::fs::remove_file(sandbox.path("home/stats")).unwrap();
        let given =
            stats.split("before they were asked for: ").nth(1).and_then(|rest| rest.split(' ').next());
        assert!(stats.contains("EIO: 0\n"), "{stats}");
        let rests = stats.split(" files, and ").nth(1).and_then(|rest| rest.split(' ').next());
        (text, given.unwrap().parse::<usize>().unwrap(), rests.unwrap().parse::<usize>().unwrap())
    };
    let whole: String = files.iter().map(|(_, text)| text.as_str()).collect();
    // The pause lets the server start its threads.
    let (text, given, _) = read("find /tree -type f | sort >/tmp/list; sleep 0.1; xargs cat </tmp/list");
    assert!(text == whole, "other content, {given} given");
    assert!(given > 50 && given <= files.len(), "{given}");
    // Directories that were never listed: the kernel does not know their files.
    let names = "for d in 0 1 2 3 4 5; do for f in $(seq -w 0 59); do cat /tree/$d/$f; done; done";
    let (text, _, _) = read(names);
    assert!(text == whole, "other content, with names that were not listed");
    // Backwards, and one in nine: no run.
    let (text, given, _) = read("sleep 0.1; find /tree -type f | sort -r | awk 'NR % 9 == 1' | xargs cat");
    let some: String = files.iter().rev().step_by(9).map(|(_, text)| text.as_str()).collect();
    assert!(text == some, "other content, backwards");
    assert_eq!(given, 0);
    // Parts of a long file, out of order: the rest of each block comes with them, and is the right one.
    let (path, long) = files.iter().find(|(path, _)| path.ends_with("/11")).unwrap();
    let parts: Vec<usize> = (0..long.len() / 131_072).rev().map(|block| block * 4 + 1).collect();
    let reads = parts.iter().map(|part| format!("dd if=/{path} bs=32k skip={part} count=1 2>/dev/null; "));
    let (text, _, rests) = read(&format!("sleep 0.1; {} cat /{path}", reads.collect::<String>()));
    let some: String = parts.iter().map(|part| &long[part * 32_768..(part + 1) * 32_768]).collect();
    assert!(parts.len() > 3 && text == some + long, "other content, in parts");
    assert!(rests > 90_000, "{rests} bytes given");
    // Many at a time.
    let (text, _, _) = read("sleep 0.1; find /tree -type f | xargs -P 8 -n 16 cat | wc -c");
    assert_eq!(text.trim(), whole.len().to_string());
}

/// A server that is killed while it gives: a page may be locked for a READ that nobody answers any more, and what gives
/// waits for it inside the kernel.
#[test]
fn a_server_that_is_killed_while_it_gives_is_replaced() {
    need!(userns, fuse, tool "busybox");
    if !kernel_resends() {
        tell_skipped("this kernel has no FUSE_NOTIFY_RESEND (6.9)");
        return;
    }
    let sandbox = Sandbox::new();
    let files = files();
    let mut image = TestImage::busybox();
    let tar = files.iter().fold(Tar::new(), |tar, (path, text)| tar.file(path, 0o644, text));
    image.layers.push(tar.finish());
    image.convert(&sandbox, "box.sif");
    let whole: usize = files.iter().map(|(_, text)| text.len()).sum();
    let rounds =
        std::env::var("SLIPWAY_TORTURE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    for round in 0..rounds {
        let script = "find /tree -type f | sort >/tmp/list; echo go; for n in 1 2; do \
                      xargs -P 4 -n 40 cat </tmp/list | wc -c; done";
        let mut child =
            sandbox.slipway(["run", "box.sif", "sh", "-c", script]).env("SLIPWAY_FUSE_PUSH", "on").spawn();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let (server, _) = pair(&sandbox, None);
        assert_eq!(lines.next().as_deref(), Some("go"));
        // Not at the same moment of each round.
        std::thread::sleep(Duration::from_millis(round % 25));
        kill(server, Signal::SIGKILL).unwrap();
        let found: Vec<_> = lines.collect();
        assert_eq!(found, [whole.to_string(), whole.to_string()], "round {round}");
        assert!(child.wait().unwrap().success());
        sandbox.assert_nothing_left();
    }
}
