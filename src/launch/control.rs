//! Control groups of version 2 that the caller may divide: found before a launch, made in it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::host::CGROUP2_MOUNTS;
use crate::plan::SWAP_LIMIT;
use crate::sys::{Result, access, to_errno};

/// What our groups' names begin with; the number of the process that made one follows, and a dot and a number if that
/// name was taken.
const PREFIX: &str = "slipway-";
/// The file that names the processes of a group, and takes new ones.
const PROCESSES: &str = "cgroup.procs";

/// The nearest group above this process in which the caller may make others, with the controllers that are needed. The
/// reason, where there is none. `root` is `/`, and another directory in tests.
pub fn delegated_group(root: &Path, controllers: &[&str]) -> std::result::Result<PathBuf, String> {
    let mount = hierarchy(root).ok_or("this node has no control groups of version 2")?;
    let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let own = group_in(&own).ok_or("this process is in none")?;
    let mut lacking = None;
    for group in Path::new(own).ancestors().map(|group| mount.join(group)) {
        if access::may_read_and_write(&group.join(PROCESSES)).is_err()
            || access::may_read_and_write(&group).is_err()
        {
            break;
        }
        let enabled = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
        match controllers.iter().find(|name| !enabled.split_whitespace().any(|has| has == **name)) {
            None => return Ok(group),
            Some(name) => lacking = Some(*name),
        }
    }
    Err(match lacking {
        Some(name) => format!("no control group of this session may limit `{name}`"),
        None => "this session has no control group of its own".into(),
    })
}

/// Makes a group below `parent`, sets its limits, and moves this process into it. Groups of ours that are empty go.
pub fn enter_group(parent: &Path, limits: &[(&'static str, String)]) -> Result<()> {
    sweep_groups(parent);
    let group = new_group(parent).map_err(to_errno)?;
    let set = |file: &str, text: &str| match write(&group.join(file), text) {
        // Told before the start: `may_limit_swap`.
        Err(error) if file == SWAP_LIMIT && error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let entered = limits
        .iter()
        .try_for_each(|(file, text)| set(file, text))
        .and_then(|()| write(&group.join(PROCESSES), "0"));
    entered.map_err(|error| {
        // It is empty; should it not go, the next start with limits tries again.
        let _ = fs::remove_dir(&group);
        to_errno(error)
    })
}

/// Makes a group that is named by this process.
fn new_group(parent: &Path) -> io::Result<PathBuf> {
    // By this name, and not by getpid, the host knows a process in a pid namespace.
    let number = fs::read_link("/proc/self")?;
    let mut group = parent.join(format!("{PREFIX}{}", number.display()));
    // An earlier process of this number may have left some of its own in the group that it made.
    for place in 1.. {
        match fs::create_dir(&group) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| group),
        }
        group = parent.join(format!("{PREFIX}{}.{place}", number.display()));
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Whether a group made below this one can limit swap. The root of the hierarchy has no limits of its own to look at.
#[must_use]
pub fn may_limit_swap(parent: &Path) -> bool {
    parent.join(SWAP_LIMIT).exists() || !parent.join("cgroup.type").exists()
}

/// Moves this process into the group of ours that another one is in, if it is in one.
pub fn join_group_of(pid: i32) -> Result<()> {
    let root = Path::new("/");
    let Some(mount) = hierarchy(root) else { return Ok(()) };
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(to_errno)?;
    let Some(group) = group_in(&table).map(|group| mount.join(group)) else { return Ok(()) };
    let is_ours = group.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    if !is_ours {
        return Ok(());
    }
    write(&group.join(PROCESSES), "0").map_err(to_errno)
}

/// Removes our groups below `parent` that have no process. One whose maker still lives may just not have been entered.
pub fn sweep_groups(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next());
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
            // EBUSY: it has one.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Where the hierarchy of version 2 is mounted.
fn hierarchy(root: &Path) -> Option<PathBuf> {
    let mounts = CGROUP2_MOUNTS.map(|mount| root.join(mount));
    mounts.into_iter().find(|mount| mount.join("cgroup.controllers").is_file())
}

/// The group that `/proc/PID/cgroup` names for version 2, below the hierarchy's mount.
fn group_in(table: &str) -> Option<&str> {
    table.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// One write: the kernel takes the whole value in a single call.
fn write(file: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_group_that_may_be_divided_is_found() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let none = delegated_group(root, &["memory"]).unwrap_err();
        assert_eq!(none, "this node has no control groups of version 2");
        write("sys/fs/cgroup/cgroup.controllers", "cpu memory pids");
        assert_eq!(delegated_group(root, &["memory"]).unwrap_err(), "this process is in none");
        write("proc/self/cgroup", "1:cpu:/x\n0::/user/session\n");
        assert_eq!(
            delegated_group(root, &["memory"]).unwrap_err(),
            "this session has no control group of its own"
        );
        for (group, enabled) in [("user", "memory pids"), ("user/session", "")] {
            write(&format!("sys/fs/cgroup/{group}/cgroup.procs"), "");
            write(&format!("sys/fs/cgroup/{group}/cgroup.subtree_control"), enabled);
        }
        let user = root.join("sys/fs/cgroup/user");
        assert_eq!(delegated_group(root, &["memory", "pids"]), Ok(user.clone()));
        assert_eq!(
            delegated_group(root, &["cpu"]).unwrap_err(),
            "no control group of this session may limit `cpu`"
        );
        // Of a group that is left, the kernel's own files go with it; here there are none.
        fs::create_dir(user.join("slipway-999999999")).unwrap();
        fs::create_dir(user.join("slipway-999999999.1")).unwrap();
        let own = [new_group(&user).unwrap(), new_group(&user).unwrap()];
        sweep_groups(&user);
        assert!(!user.join("slipway-999999999").exists() && user.join("session").exists());
        assert!(!user.join("slipway-999999999.1").exists() && own.iter().all(|group| group.exists()));

        assert!(may_limit_swap(&user));
        write("sys/fs/cgroup/user/cgroup.type", "domain");
        assert!(!may_limit_swap(&user));
    }
}
