//! Whether a user namespace of ours may have a `/proc` of its own.

use std::fs;
use std::path::Path;

/// Directories of procfs that are made to be mounted on: what lies on them hides nothing.
const EMPTY: [&str; 2] = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd"];

/// Whether the kernel lets an unprivileged process mount procfs in a new pid namespace: it does where the whole of the one
/// that is there can be seen, and written to (`mount_too_revealing` in `fs/namespace.c`). Container engines hide parts of it.
/// `root` is `/`, and another directory in tests.
#[must_use]
pub fn may_mount_proc(root: &Path) -> bool {
    let table = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let mut has_whole = false;
    for line in table.lines() {
        // id, parent, device, root within the file system, mount point, options (proc_pid_mountinfo(5)).
        let mut fields = line.split(' ').skip(3);
        let (Some(within), Some(point)) = (fields.next(), fields.next()) else { continue };
        if point == "/proc" {
            let options = fields.next().unwrap_or_default();
            has_whole = within == "/" && !options.split(',').any(|option| option == "ro");
        } else if point.starts_with("/proc/") && !EMPTY.contains(&point) {
            return false;
        }
    }
    has_whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proc_with_hidden_parts_forbids_another() {
        let check = |table: &str, expected| {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("proc/self")).unwrap();
            fs::write(root.path().join("proc/self/mountinfo"), table).unwrap();
            assert_eq!(may_mount_proc(root.path()), expected, "{table}");
        };
        let proc = "22 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n";
        check(proc, true);
        for point in EMPTY {
            let more = format!("30 22 0:28 / {point} rw - autofs s rw\n");
            check(&format!("1 0 8:1 / / rw - ext4 x rw\n{proc}{more}"), true);
        }
        check("22 1 0:21 / /proc ro,nosuid shared:5 - proc proc rw\n", false);
        check(&format!("{proc}40 22 0:5 /null /proc/kcore rw - devtmpfs d rw\n"), false);
        check(&format!("{proc}40 22 0:21 /sys /proc/sys ro - proc proc rw\n"), false);
        check("22 1 0:21 /sub /proc rw - proc proc rw\n", false);
        check("", false);
    }
}
