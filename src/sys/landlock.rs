//! Landlock: a process gives up rights on files for good, without root (Linux 5.13).
//!
//! It is a second fence around code that reads bytes of strangers. Where the kernel has none, nothing changes.

#![expect(clippy::disallowed_methods, reason = "opens the directories that stay allowed")]

use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{Errno, Result, privileges, to_errno};

// Rights of linux/landlock.h.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// Removing and making entries of every kind: 4 to 12.
const CHANGE_DIR: u64 = 0x1ff0;
/// Renames and links between directories (second version, 5.19).
const REFER: u64 = 1 << 13;
/// Third version, 6.2.
const TRUNCATE: u64 = 1 << 14;
/// Rights that make sense for a file; a rule for one with others is EINVAL.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

const CREATE_RULESET_VERSION: libc::c_uint = 1;
const RULE_PATH_BENEATH: libc::c_int = 1;

/// `struct landlock_ruleset_attr` of the first version; later fields are optional.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// What a process may still do with files, beside what it has open.
#[derive(Debug, Default)]
pub struct Fence<'a> {
    /// Files may be read, and directories listed, anywhere.
    pub reads_all: bool,
    /// Directories, or files, in which anything may be done but executing.
    pub writes: &'a [&'a Path],
}

/// The version of Landlock that the kernel has; `None` for none.
#[must_use]
pub fn version() -> Option<u32> {
    // SAFETY: asks for a number; no memory is touched.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, CREATE_RULESET_VERSION)
    };
    u32::try_from(result).ok().filter(|version| *version > 0)
}

/// Puts this thread, and all that it starts, behind a fence for good. No program can be executed afterwards. False
/// where the kernel has no Landlock, or only its first version. Sets no-new-privileges, as the kernel demands.
pub fn enclose(fence: &Fence<'_>) -> Result<bool> {
    // The first version forbids renames between directories, however much is allowed.
    const LEAST: u32 = 2;
    let Some(version) = version().filter(|version| *version >= LEAST) else { return Ok(false) };
    let known = EXECUTE
        | WRITE_FILE
        | READ_FILE
        | READ_DIR
        | CHANGE_DIR
        | REFER
        | if version >= 3 { TRUNCATE } else { 0 };
    let handled = if fence.reads_all { known & !(READ_FILE | READ_DIR) } else { known };
    let attributes = RulesetAttributes { handled_access_fs: handled };
    // SAFETY: the attributes live during the call, and the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size_of::<RulesetAttributes>(),
            0,
        )
    };
    let fd = Errno::result(result)?;
    // SAFETY: the kernel has just made this fd for us.
    let ruleset = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| Errno::EBADF)?) };
    for path in fence.writes {
        allow(&ruleset, path, handled & !EXECUTE)?;
    }
    privileges::set_no_new_privileges()?;
    // SAFETY: an fd and a number.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    Errno::result(result).map(|_| true)
}

/// A path that does not exist stays forbidden.
fn allow(ruleset: &OwnedFd, path: &Path, rights: u64) -> Result<()> {
    let place = match fs::File::options().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path) {
        Ok(place) => place,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(to_errno(error)),
    };
    let is_directory = place.metadata().is_ok_and(|facts| facts.is_dir());
    let rule = PathBeneath {
        allowed_access: if is_directory { rights } else { rights & OF_FILES },
        parent_fd: place.as_raw_fd(),
    };
    // SAFETY: both fds are open and the rule lives during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0)
    };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fence holds for the thread that asks and is for good: each case has a thread of its own.
    fn behind(fence: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(fence).join().unwrap());
    }

    #[test]
    fn what_is_not_allowed_is_denied() {
        if version().is_none() {
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let (inside, outside) = (base.path().join("in"), base.path().join("out"));
        for directory in [&inside, &outside] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("file"), "x").unwrap();
        }
        let open = fs::File::open(outside.join("file")).unwrap();
        let denied = |result: std::io::Result<()>| {
            result.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        };
        behind(|| {
            assert_eq!(
                enclose(&Fence { reads_all: false, writes: &[&inside, Path::new("/no/such")] }),
                Ok(true)
            );
            fs::write(inside.join("new"), "y").unwrap();
            fs::rename(inside.join("new"), inside.join("other")).unwrap();
            assert_eq!(fs::read(inside.join("other")).unwrap(), b"y");
            assert!(denied(fs::read(outside.join("file")).map(drop)));
            assert!(denied(fs::write(outside.join("file"), "y")));
            assert!(denied(fs::read_dir(&outside).map(drop)));
            // What was open before stays usable.
            assert_eq!(std::io::read_to_string(&open).unwrap(), "x");
        });
        behind(|| {
            assert_eq!(enclose(&Fence { reads_all: true, writes: &[&inside] }), Ok(true));
            fs::read(outside.join("file")).unwrap();
            fs::write(inside.join("file"), "y").unwrap();
            assert!(denied(fs::write(outside.join("new"), "y")));
            assert!(denied(fs::remove_file(outside.join("file"))));
            assert!(std::process::Command::new("/bin/true").status().is_err());
        });
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"x");
    }
}
