//! The deadlock that a server without OPEN can run into under memory pressure (kernel commit bd5603eaae0a): a page that is
//! read ahead is reclaimed, and reclaim waits for the server. Readers and server share a small memory cgroup here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::squashfs_read::Noise;
use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::sandbox::{Sandbox, wait_until};

const FILES: usize = 4;
const FILE_BYTES: usize = 32 << 20;
const SMALL_FILES: usize = 1000;
/// Less than the files take, and more than the server with its cache does.
const LIMIT_BYTES: &str = "67108864";
/// How long it goes on; `SLIPWAY_TORTURE_SECONDS=3600` is the run by hand.
const SECONDS: u64 = 20;

/// A memory cgroup, removed at the end.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        let name = format!("slipway-torture-{}", std::process::id());
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/unified", "memory.max"),
        ] {
            let group = Path::new(root).join(&name);
            if std::fs::create_dir(&group).is_err() {
                continue;
            }
            let group = Self(group);
            if std::fs::write(group.0.join(limit), LIMIT_BYTES).is_ok() {
                return Some(group);
            }
        }
        None
    }

    /// Has the kernel take back what it can.
    fn squeeze(&self) {
        // Which of the two there is depends on the version; either takes what it gets and may say that it was not all.
        let _ = std::fs::write(self.0.join("memory.force_empty"), "0");
        let _ = std::fs::write(self.0.join("memory.reclaim"), "32M");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let start = Instant::now();
        while std::fs::remove_dir(&self.0).is_err() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn no_open_survives_memory_pressure() {
    need!(root, userns, fuse, cgroup, tool "busybox", tool "setpriv");
    let Some(group) = Group::new() else {
        super::support::need::tell_skipped("there is no memory cgroup to make a group in");
        return;
    };
    let seconds = std::env::var("SLIPWAY_TORTURE_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds: u64 = seconds.unwrap_or(SECONDS);
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    let mut noise = Noise::new(3);
    let mut tar = Tar::new();
    for name in 0..FILES {
        let words = (0..FILE_BYTES / 8).map(|at| if at % 2 == 0 { 0 } else { noise.below(1 << 30) as u64 });
        tar = tar.file(&format!("data/{name}"), 0o644, words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>());
    }
    for name in 0..SMALL_FILES {
        let bytes: Vec<u8> =
            (0..noise.below(60_000)).map(|_| if noise.below(3) == 0 { 7 } else { 0 }).collect();
        tar = tar.file(&format!("small/{}/{}", name / 100, name), 0o644, bytes);
    }
    image.layers.push(tar.finish());
    image.convert(&sandbox, "box.sif");
    // They read files one after the other, so that they get them before they ask.
    let follower = format!(
        "end=$(($(date +%s) + {seconds})); n=0; while [ $(date +%s) -lt $end ]; do \
         sum=$(find /small -type f | sort | xargs cat | sha256sum); first=${{first:-$sum}}; \
         [ \"$sum\" = \"$first\" ] && n=$((n + 1)); done; echo done $n"
    );
    let reader = format!(
        "end=$(($(date +%s) + {seconds})); n=0; while [ $(date +%s) -lt $end ]; do \
         dd if=/data/$((RANDOM % {FILES})) of=/dev/null bs=4k skip=$((RANDOM % 8000)) count=$((RANDOM % 500 + 1)) \
         2>/dev/null && n=$((n + 1)); done; echo done $n"
    );
    let script = format!("for who in 1 2; do ( {reader} ) & ( {follower} ) & done; wait");
    let join = "echo $$ >\"$GROUP/cgroup.procs\" && exec setpriv --reuid 65534 --regid 65534 --clear-groups \
                \"$SLIPWAY\" run box.sif sh -c \"$SCRIPT\"";
    let mut child = Command::new("sh")
        .args(["-c", join])
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("HOME", "/nonexistent")])
        .envs([("SLIPWAY_FUSE_CACHE", "16MiB"), ("SLIPWAY_FUSE_NO_OPEN", "on")])
        .env("SLIPWAY", sandbox.program())
        .env("GROUP", &group.0)
        .env("SCRIPT", script)
        .current_dir(sandbox.path("home"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let limit = Duration::from_secs(seconds + 120);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > limit {
            let stuck: Vec<_> = sandbox.processes();
            child.kill().unwrap();
            panic!("readers hang after {} s: {stuck:?}", start.elapsed().as_secs());
        }
        group.squeeze();
        std::thread::sleep(Duration::from_millis(200));
    };
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stdout.unwrap(), &mut text).unwrap();
    assert!(status.success(), "{status}: {text}");
    let counts: Vec<u32> = text.lines().filter_map(|line| line.strip_prefix("done ")?.parse().ok()).collect();
    println!("reads by each of the readers: {counts:?}");
    assert!(counts.len() == 4 && counts.iter().all(|count| *count > 0), "{text}");
    wait_until("the group is empty", || {
        std::fs::read_to_string(group.0.join("cgroup.procs")).is_ok_and(|text| text.is_empty())
    });
}
