//! Control groups of containers, on a real hierarchy of version 2 that is handed to an ordinary user.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, setresgid, setresuid};
use slipway::launch::{delegated_group, enter_group, join_group_of, sweep_groups};

/// A group below the root of the hierarchy, removed at the end with all that is in it.
struct Delegated(PathBuf);

impl Drop for Delegated {
    fn drop(&mut self) {
        for place in ["session", "."] {
            // The processes have ended; the kernel may need a moment to see it.
            for _ in 0..200 {
                sweep_groups(&self.0);
                let place = self.0.join(place);
                let gone = fs::remove_dir(place.components().as_path());
                if gone.is_ok() || !place.exists() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

fn hierarchy() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(PathBuf::from)
        .into_iter()
        .find(|place| place.join("cgroup.controllers").is_file())
}

fn own_group() -> String {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap();
    table.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

#[test]
fn a_delegated_group_is_found_entered_joined_and_removed() {
    need!(root, cgroup, tool "sleep");
    let Some(top) = hierarchy() else {
        super::support::need::tell_skipped("there is no hierarchy of version 2");
        return;
    };
    // Any controller will do. Where those of version 1 have them all, a group without one is made all the same.
    let controllers = fs::read_to_string(top.join("cgroup.controllers")).unwrap();
    let controller = controllers.split_whitespace().find(|name| ["pids", "hugetlb"].contains(name));
    let outer = own_group();
    let group = Delegated(top.join(format!("slipway-test-{}", std::process::id())));
    fs::create_dir_all(group.0.join("session")).unwrap();
    if let Some(name) = controller {
        let enable = format!("+{name}");
        fs::write(top.join("cgroup.subtree_control"), &enable).unwrap();
        fs::write(group.0.join("cgroup.subtree_control"), &enable).unwrap();
    }
    for place in ["", "session"].map(|name| group.0.join(name)) {
        for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
            chown(place.join(file).components().as_path(), Some(65534), Some(65534)).unwrap();
        }
    }
    fs::write(group.0.join("session/cgroup.procs"), "0").unwrap();
    // Another process of the session, which stays where it is.
    let mut other = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().unwrap();
    let ids = (Gid::from_raw(65534), Uid::from_raw(65534));
    setresgid(ids.0, ids.0, Gid::from_raw(0)).unwrap();
    setresuid(ids.1, ids.1, Uid::from_raw(0)).unwrap();

    let wanted: Vec<&str> = controller.into_iter().collect();
    let found = delegated_group(Path::new("/"), &wanted);
    assert_eq!(found.as_ref().map(PathBuf::as_path), Ok(group.0.as_path()).map_err(|never: &String| never));
    let limits: Vec<_> = match controller {
        Some("pids") => vec![("pids.max", "77".to_owned())],
        _ => Vec::new(),
    };
    enter_group(&group.0, &limits).unwrap();
    let inside = format!("{}/slipway-{}", group.0.strip_prefix(&top).unwrap().display(), std::process::id());
    assert_eq!(own_group(), format!("/{inside}"));
    for (file, text) in &limits {
        assert_eq!(fs::read_to_string(top.join(&inside).join(file)).unwrap().trim(), text);
    }
    // One with processes stays.
    sweep_groups(&group.0);
    assert!(top.join(&inside).exists());
    // A wrong limit is an error, and leaves the process where it was and no group.
    assert!(enter_group(&group.0, &[("cgroup.max.depth", "many".into())]).is_err());

    // As `exec` does: into the group of a process of the container, and of no other.
    fs::write(group.0.join("session/cgroup.procs"), "0").unwrap();
    join_group_of(i32::try_from(other.id()).unwrap()).unwrap();
    assert!(own_group().ends_with("/session"));
    let made = group.0.join("slipway-999999999");
    fs::create_dir(&made).unwrap();
    fs::write(made.join("cgroup.procs"), other.id().to_string()).unwrap();
    join_group_of(i32::try_from(other.id()).unwrap()).unwrap();
    assert!(own_group().ends_with("/slipway-999999999"), "{}", own_group());

    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).unwrap();
    fs::write(format!("{}{outer}/cgroup.procs", top.display()), "0").unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    // The one whose maker is gone goes; this process made the other, and lives.
    sweep_groups(&group.0);
    assert!(!made.exists() && top.join(&inside).exists());
    fs::remove_dir(top.join(&inside)).unwrap();
    if let Some(name) = controller {
        drop(group);
        // Others may want it: what was on stays on only for them.
        let _ = fs::write(top.join("cgroup.subtree_control"), format!("-{name}"));
    }
}
