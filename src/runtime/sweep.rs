//! What a container leaves behind when its main process ends: every process in its mount namespace.
//!
//! Docker's containers end with their first process because that is the first of a pid namespace. Ours share the host's, so
//! the mount namespace tells who belongs to a container. It is held open meanwhile: its number could come to mean
//! another one otherwise.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use crate::sys::pidfd;

/// SIGKILL, on every architecture.
pub(super) const SIGKILL: i32 = 9;
/// A process may fork between two looks; one that forks faster than this many is left.
const MOST_ROUNDS: usize = 64;
/// Between two looks: the dying need a moment.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// The mount namespace of a process, held open.
pub(super) fn mount_namespace(pid: i32) -> Option<File> {
    File::open(format!("/proc/{pid}/ns/mnt")).ok()
}

/// The processes in a mount namespace that the caller may look at.
pub(super) fn processes_in(namespace: &File) -> Vec<i32> {
    let Ok(wanted) = namespace.metadata() else { return Vec::new() };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        fs::metadata(format!("/proc/{pid}/ns/mnt"))
            .is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (wanted.dev(), wanted.ino()))
    })
    .collect()
}

/// Kills every process in a mount namespace, which must not be the caller's own.
pub(super) fn kill_all_in(namespace: &File) {
    let own = mount_namespace(own_pid()).and_then(|own| own.metadata().ok());
    let is_own = namespace.metadata().ok().zip(own).is_none_or(|(it, own)| it.ino() == own.ino());
    if is_own {
        return;
    }
    for _ in 0..MOST_ROUNDS {
        let found = processes_in(namespace);
        if found.is_empty() {
            return;
        }
        for pid in found {
            // ESRCH: it has ended meanwhile, which is what is wanted.
            let _ = pidfd::send_signal(pid, SIGKILL);
        }
        std::thread::sleep(PAUSE);
    }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}
