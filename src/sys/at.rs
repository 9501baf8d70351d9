//! Files by one name in an opened directory. No path is walked and no link followed, so what is made or removed lies in
//! that directory and nowhere else.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, futimens, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::{Errno, Result};

/// A file that is neither a directory, a link nor a file with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

const OWNER: Mode = Mode::S_IRWXU;

/// Opens a directory by its path.
pub fn open_path(path: &Path) -> Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// Makes a directory that its owner alone may use, and opens it.
pub fn make_directory(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    mkdirat(directory, name, OWNER)?;
    open_directory(directory, name)
}

/// Opens a directory.
pub fn open_directory(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    openat(directory, name, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// Makes a file that must not be there yet.
pub fn create_file(directory: BorrowedFd<'_>, name: &[u8]) -> Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
}

/// Makes a symbolic link, with the time of its last change in seconds since 1970.
pub fn make_link(directory: BorrowedFd<'_>, name: &[u8], target: &[u8], seconds: u32) -> Result<()> {
    symlinkat(target, directory, name)?;
    let time = TimeSpec::new(seconds.into(), 0);
    utimensat(directory, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

/// Gives the file `from` a further name.
pub fn link(from: (BorrowedFd<'_>, &[u8]), to: (BorrowedFd<'_>, &[u8])) -> Result<()> {
    linkat(from.0, from.1, to.0, to.1, AtFlags::empty())
}

/// Makes a pipe or a socket, with its mode and the time of its last change.
pub fn make_special(
    directory: BorrowedFd<'_>,
    name: &[u8],
    kind: Special,
    mode: u32,
    seconds: u32,
) -> Result<()> {
    let flag = match kind {
        Special::Fifo => SFlag::S_IFIFO,
        Special::Socket => SFlag::S_IFSOCK,
    };
    mknodat(directory, name, flag, OWNER, 0)?;
    nix::sys::stat::fchmodat(
        directory,
        name,
        Mode::from_bits_truncate(mode),
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )?;
    let time = TimeSpec::new(seconds.into(), 0);
    utimensat(directory, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

/// Sets mode and time of the last change of an opened file or directory.
pub fn finish(fd: impl AsFd, mode: u32, seconds: u32) -> Result<()> {
    fchmod(&fd, Mode::from_bits_truncate(mode))?;
    let time = TimeSpec::new(seconds.into(), 0);
    futimens(&fd, &time, &time)
}

/// Sets the time of the last change of an opened file to now.
pub fn touch(fd: impl AsFd) -> Result<()> {
    futimens(&fd, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)
}

/// Sets an extended attribute of an opened file or directory.
pub fn set_xattr(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<()> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the name is NUL terminated and the value as long as said; the kernel reads both only during the call.
    let result = unsafe {
        libc::fsetxattr(fd.as_fd().as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(result).map(drop)
}

/// Renames within a directory. ENOTEMPTY or EEXIST: something else is there.
pub fn rename(directory: BorrowedFd<'_>, from: &[u8], to: &[u8]) -> Result<()> {
    renameat(directory, from, directory, to)
}

/// Removes a file, or a directory with all that is in it, whatever its modes. It need not be there.
///
/// A tree may be deeper than there are fds and its paths longer than the kernel takes: each directory is moved up to the
/// first one before it is emptied.
pub fn remove_tree(directory: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    if remove_file(directory, name)? {
        return Ok(());
    }
    let top = open_to_empty(directory, name)?;
    let mut moved = 0_u64;
    loop {
        let names = list(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if remove_file(top.as_fd(), &name)? {
                continue;
            }
            let inner = open_to_empty(top.as_fd(), &name)?;
            for child in list(&inner)? {
                if remove_file(inner.as_fd(), &child)? {
                    continue;
                }
                // A directory that is moved must be writable itself, since its `..` changes.
                drop(open_to_empty(inner.as_fd(), &child)?);
                loop {
                    moved += 1;
                    match renameat(&inner, child.as_slice(), &top, format!("{moved}").as_str()) {
                        Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                        other => break other?,
                    }
                }
            }
            unlinkat(&top, name.as_slice(), UnlinkatFlags::RemoveDir)?;
        }
    }
    unlinkat(directory, name, UnlinkatFlags::RemoveDir)
}

/// True if the name is gone, false if it is a directory's.
fn remove_file(directory: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR | Errno::EPERM) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn open_to_empty(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let opened = match open_directory(directory, name) {
        Err(Errno::EACCES) => {
            // It is a directory, which unlink has said, so no link is followed here.
            let follow = nix::sys::stat::FchmodatFlags::FollowSymlink;
            nix::sys::stat::fchmodat(directory, name, OWNER, follow)?;
            open_directory(directory, name)?
        }
        other => other?,
    };
    fchmod(&opened, OWNER)?;
    Ok(opened)
}

/// The names in a directory.
pub fn list(directory: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let own = openat(directory, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in nix::dir::Dir::from_fd(own)?.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Room on a file system for an ordinary user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// Files; `None` where the file system makes them as it needs them.
    pub files: Option<u64>,
    /// What a file takes at least, in bytes.
    pub block_bytes: u64,
}

/// How much room there is where an opened directory lies.
pub fn room(directory: impl AsFd) -> Result<Room> {
    let facts = nix::sys::statvfs::fstatvfs(directory)?;
    let block_bytes = facts.fragment_size().max(1);
    Ok(Room {
        bytes: facts.blocks_available().saturating_mul(block_bytes),
        files: (facts.files() > 0).then(|| facts.files_available()),
        block_bytes,
    })
}

/// Whether a path lies on a file system that other machines share, as far as its kind tells (linux/magic.h and the
/// vendors' own headers).
#[must_use]
pub fn is_shared_between_machines(path: &Path) -> bool {
    // NFS, Lustre, GPFS, BeeGFS, CIFS, SMB2, Ceph, AFS, PanFS, GFS2, OCFS2, 9p, FUSE.
    const SHARED: [u32; 13] = [
        0x6969,
        0x0bd0_0bd0,
        0x4750_4653,
        0x1983_0326,
        0xff53_4d42,
        0xfe53_4d42,
        0x00c3_6400,
        0x5346_414f,
        0xaad7_aaea,
        0x0116_1970,
        0x7461_636f,
        0x0102_1997,
        0x6573_5546,
    ];
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: statfs of zeros is valid, the path is NUL terminated, and the kernel fills the struct during the call.
    let kind = unsafe {
        let mut facts: libc::statfs = std::mem::zeroed();
        if libc::statfs(path.as_ptr(), &raw mut facts) != 0 {
            return false;
        }
        facts.f_type
    };
    SHARED.iter().any(|shared| kind & 0xffff_ffff == i64::from(*shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_a_tree_of_any_depth_and_mode() {
        let base = tempfile::tempdir().unwrap();
        let directory = open_path(base.path()).unwrap();
        let mut at = make_directory(directory.as_fd(), b"top").unwrap();
        // Deeper than a process may have fds open, with a path longer than the kernel takes.
        for depth in 0..1100 {
            let next = make_directory(at.as_fd(), b"directory").unwrap();
            drop(create_file(next.as_fd(), b"1").unwrap());
            make_link(next.as_fd(), b"link", b"/nowhere", 7).unwrap();
            finish(&at, if depth % 2 == 0 { 0 } else { 0o555 }, 9).unwrap();
            at = next;
        }
        remove_tree(directory.as_fd(), b"top").unwrap();
        remove_tree(directory.as_fd(), b"top").unwrap();
        assert!(list(&directory).unwrap().is_empty());
    }

    #[test]
    fn makes_nothing_behind_a_link() {
        let base = tempfile::tempdir().unwrap();
        let directory = open_path(base.path()).unwrap();
        make_link(directory.as_fd(), b"out", b"/tmp", 7).unwrap();
        assert_eq!(open_directory(directory.as_fd(), b"out").unwrap_err(), Errno::ENOTDIR);
        assert_eq!(create_file(directory.as_fd(), b"out").unwrap_err(), Errno::EEXIST);
        assert_eq!(make_directory(directory.as_fd(), b"out").unwrap_err(), Errno::EEXIST);
    }

    #[test]
    fn knows_the_room() {
        let base = tempfile::tempdir().unwrap();
        let room = room(open_path(base.path()).unwrap()).unwrap();
        assert!(room.bytes > 0 && room.block_bytes >= 512, "{room:?}");
        assert!(!is_shared_between_machines(base.path()));
    }
}
