//! Files on their way into the store: made under `tmp/`, published by a link, forgotten by `Drop`.
//!
//! Publishing follows what holds on NFS, Lustre and GPFS as well: the file is synced, then linked to its final name,
//! and then its directory is synced. No lock is needed: whoever comes second finds the same content there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::StoreError;

/// Numbers the temporary files of this process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// No writer pauses for so long: downloads, conversions and copies write all the time.
pub(super) const ABANDONED: Duration = Duration::from_secs(3 * 24 * 3600);

/// Begins the names of files that become a user's own, beside which they lie until then.
const PARTIAL_PREFIX: &str = ".slipway-";

/// A name under `tmp/` that nobody else has; what is there when this is dropped is removed.
#[derive(Debug)]
pub(super) struct TmpPath {
    path: PathBuf,
}

impl TmpPath {
    /// Takes a fresh name below `directory`, without making the file.
    pub(super) fn new(directory: &Path) -> Self {
        Self { path: directory.join(fresh_name()) }
    }

    /// The same beside a file of the user's, with a name that says whose it is. If its writer is killed, it is removed by
    /// [`remove_stale_partials`].
    pub(super) fn beside(target: &Path) -> Self {
        Self { path: target.with_file_name(format!("{PARTIAL_PREFIX}{}", fresh_name())) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file, for writing by its owner alone.
    pub(super) fn create(&self) -> Result<File, StoreError> {
        File::options()
            .write(true)
            .read(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)
            .map_err(|error| StoreError::of("create", &self.path, error))
    }

    /// Gives the finished file its final name unless something has it already: the content is the same, and a file
    /// that runs somewhere must not be replaced (its reader on another NFS client would get ESTALE).
    pub(super) fn publish_once(self, target: &Path) -> Result<(), StoreError> {
        sync_file(&self.path)?;
        self.name_once(target).map_err(|error| StoreError::of("publish", target, error))?;
        sync_parent(target)
    }

    /// As [`Self::publish_once`], for a file that is on disk, and without making the name durable.
    pub(super) fn name_once(self, target: &Path) -> io::Result<()> {
        let Err(error) = fs::hard_link(&self.path, target) else { return Ok(()) };
        // A server that repeats a request may report any error after the work is done, so the target decides.
        // Otherwise the file system has no hard links across directories (BeeGFS) or none at all.
        if exists(target) {
            return Ok(());
        }
        fs::rename(&self.path, target)
            .or_else(|second| if exists(target) { Ok(()) } else { Err(second) })
            .map_err(|second| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => error,
                _ => second,
            })
    }

    /// Gives the finished file its final name and takes it from whatever had it.
    pub(super) fn publish_over(self, target: &Path) -> Result<(), StoreError> {
        sync_file(&self.path)?;
        self.name_over(target).map_err(|error| StoreError::of("publish", target, error))?;
        sync_parent(target)
    }

    /// As [`Self::publish_over`], for a file that is on disk, and without making the name durable.
    pub(super) fn name_over(self, target: &Path) -> io::Result<()> {
        match fs::rename(&self.path, target) {
            // See above: the rename is done if its source is gone.
            Err(error) if exists(&self.path) || !exists(target) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for TmpPath {
    fn drop(&mut self) {
        // It is gone after a rename, and what cannot be removed now is removed by a later `remove_stale`.
        let _ = fs::remove_file(&self.path);
    }
}

/// A name for a directory that is made below `directory`, the store's `tmp`. What a killed process leaves there is removed
/// by [`remove_stale`].
pub(super) fn fresh_path(directory: &Path) -> PathBuf {
    directory.join(fresh_name())
}

fn fresh_name() -> String {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}.{}.{number}", host_token(), std::process::id())
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn sync_file(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| StoreError::of("write", path, error))
}

/// Makes a new name durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    crate::sys::file::sync_parent(path)
        .map_err(|error| StoreError::of("sync", path.parent().unwrap_or(path), error))
}

/// Removes what dead processes of this host left behind. Nothing here says whether writers on other hosts live, or whether
/// this host has booted since; their files go when nobody has written to them for [`ABANDONED`].
pub(super) fn remove_stale(directory: &Path) {
    remove_of_dead(directory, |_, name| Some(name));
    remove_abandoned(directory);
}

/// Files of other hosts and of earlier boots by their age, as the clock of the file server has it: that of this host may be
/// another.
fn remove_abandoned(directory: &Path) {
    let is_foreign = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| {
            let host = name.split('.').next().unwrap_or_default();
            host != host_token() && pid_of(name, host).is_some()
        })
    };
    let foreign: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().flatten().filter(is_foreign).collect();
    if foreign.is_empty() {
        return;
    }
    let Ok(now) = server_time(directory) else { return };
    for entry in foreign {
        let written = entry.metadata().and_then(|facts| facts.modified());
        if written.is_ok_and(|written| now.duration_since(written).is_ok_and(|age| age > ABANDONED)) {
            // Another process may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The time as the file server has it, by a file that is made for it.
pub(super) fn server_time(directory: &Path) -> Result<SystemTime, StoreError> {
    let probe = TmpPath::new(directory);
    let facts = probe.create()?.metadata().and_then(|facts| facts.modified());
    facts.map_err(|error| StoreError::of("read", probe.path(), error))
}

/// The same for a directory of the user's, where only partial files are ours. Processes of other users may be hidden
/// from us, so their files are let alone.
pub(super) fn remove_stale_partials(directory: &Path) {
    let (uid, _) = crate::sys::process::own_ids();
    remove_of_dead(directory, |entry, name| {
        let name = name.strip_prefix(PARTIAL_PREFIX)?;
        entry.metadata().is_ok_and(|facts| facts.is_file() && facts.uid() == uid).then_some(name)
    });
}

/// Removes what was made by dead processes of this host; `name_of` gives the temporary name of an entry that is ours.
fn remove_of_dead(directory: &Path, name_of: impl for<'n> Fn(&fs::DirEntry, &'n str) -> Option<&'n str>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name_of(&entry, name));
        if name.and_then(|name| pid_of(name, host_token())).is_some_and(|pid| !is_alive(pid)) {
            // Another process may have been faster.
            let path = entry.path();
            let _ = fs::remove_file(&path).or_else(|_| crate::sys::tree::remove_tree(&path));
        }
    }
}

/// The process that made a temporary file, if it was one of `host`.
fn pid_of(name: &str, host: &str) -> Option<u32> {
    let mut words = name.split('.');
    if words.next()? != host {
        return None;
    }
    let pid = words.next()?.parse().ok()?;
    words.next()?.parse::<u64>().ok()?;
    Some(pid)
}

/// Whether the process exists. Where that cannot be known, it does.
fn is_alive(pid: u32) -> bool {
    !exists(Path::new("/proc/self")) || exists(&PathBuf::from(format!("/proc/{pid}")))
}

/// This host in one word without dots. Hosts with one name and one store do exist, so the boot is named too; process
/// numbers mean nothing in another pid namespace, so that one is.
fn host_token() -> &'static str {
    static TOKEN: OnceLock<String> = OnceLock::new();
    TOKEN.get_or_init(|| {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        token_of(host.trim(), boot.trim(), &namespace.to_string_lossy())
    })
}

fn token_of(host: &str, boot_id: &str, pid_namespace: &str) -> String {
    // The number that every kernel gives to the pid namespace that it booted with (PROC_PID_INIT_INO).
    const FIRST_PID_NAMESPACE: &str = "4026531836";
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let mut token: String = host.chars().take(64).map(plain).collect();
    if token.is_empty() {
        token.push_str("unknown");
    }
    token.push('-');
    token.extend(boot_id.chars().filter(char::is_ascii_hexdigit).take(8));
    let number: String = pid_namespace.chars().filter(char::is_ascii_digit).collect();
    if number != FIRST_PID_NAMESPACE {
        token.push_str("-ns");
        token.push_str(&number);
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_host_namespace_and_process() {
        const BOOT: &str = "0f3c-77d1-9b2e";
        let (first, other) = ("pid:[4026531836]", "pid:[4026532201]");
        assert_eq!(token_of("gpu01.cluster.example", BOOT, first), "gpu01-cluster-example-0f3c77d1");
        assert_eq!(token_of("gpu01", BOOT, other), "gpu01-0f3c77d1-ns4026532201");
        assert_eq!(token_of("", "", first), "unknown-");
        assert_ne!(token_of("gpu01", BOOT, first), token_of("gpu01", "1a2b", first));
        for (name, expected) in [
            ("gpu01.12.0", Some(12)),
            ("gpu01.12.3.partial", Some(12)),
            ("gpu02.12.0", None),
            ("gpu01.x.0", None),
            ("gpu01.12", None),
            ("gpu01.12.y", None),
            ("gpu01", None),
        ] {
            assert_eq!(pid_of(name, "gpu01"), expected, "{name}");
        }
    }

    #[test]
    fn publishing_once_keeps_the_first_and_over_takes_the_last() {
        let root = tempfile::tempdir().unwrap();
        let put = |content: &str| {
            let tmp = TmpPath::new(root.path());
            io::Write::write_all(&mut tmp.create().unwrap(), content.as_bytes()).unwrap();
            tmp
        };
        let target = root.path().join("x");
        put("1").publish_once(&target).unwrap();
        put("2").publish_once(&target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "1");
        put("3").publish_over(&target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "3");
        drop(put("4"));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_dead_processes_of_this_host_lose_their_files() {
        let root = tempfile::tempdir().unwrap();
        let dead = u32::MAX;
        let (own, host) = (std::process::id(), host_token());
        for name in [
            format!("{host}.{dead}.0"),
            format!("{host}.{own}.99"),
            format!("elsewhere.{dead}.0"),
            "x".into(),
        ] {
            fs::write(root.path().join(name), "").unwrap();
        }
        remove_stale(root.path());
        let mut left: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = vec![format!("{host}.{own}.99"), format!("elsewhere.{dead}.0"), "x".into()];
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn what_other_hosts_and_boots_left_goes_when_it_is_old() {
        let root = tempfile::tempdir().unwrap();
        let (host, boot) = host_token().rsplit_once('-').unwrap();
        let earlier_boot = format!("{host}-{}.7.0", if boot == "00000000" { "11111111" } else { "00000000" });
        let names = ["gpu01-0f3c77d1.12.0", &earlier_boot, "not-ours"];
        let left = |age: Duration| {
            for name in names {
                let file = File::create(root.path().join(name)).unwrap();
                file.set_modified(SystemTime::now() - age).unwrap();
            }
            remove_stale(root.path());
            names.map(|name| exists(&root.path().join(name)))
        };
        assert_eq!(left(ABANDONED / 2), [true; 3]);
        assert_eq!(left(ABANDONED * 2), [false, false, true]);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no probe stays");
    }

    #[test]
    fn partial_files_are_removed_in_stores_and_beside_targets() {
        let root = tempfile::tempdir().unwrap();
        let (own, dead) = (std::process::id(), u32::MAX);
        let left = |remove: fn(&Path)| {
            let mine = TmpPath::beside(&root.path().join("x"))
                .path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let of_dead = mine.replace(&format!(".{own}."), &format!(".{dead}."));
            let tmp_of_dead = of_dead.trim_start_matches(PARTIAL_PREFIX);
            for name in [&mine, &of_dead, tmp_of_dead] {
                fs::write(root.path().join(name), "").unwrap();
            }
            remove(root.path());
            [&mine, &of_dead, tmp_of_dead].map(|name| exists(&root.path().join(name)))
        };
        assert_eq!(left(remove_stale), [true, true, false]);
        assert_eq!(left(remove_stale_partials), [true, false, true], "only what is surely ours");
    }
}
