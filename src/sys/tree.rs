//! Trees of files by directory fds: a name is always one name in an opened directory, and no link is followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::{Errno, Result};

/// Longest extended attribute that is looked at: what Linux takes.
const MAX_XATTR_BYTES: usize = 64 << 10;

/// What a name in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whole seconds of the last change of its content.
    pub mtime: i64,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Its file system and number there: the same file has the same.
    pub identity: (u64, u64),
    /// How many names it has.
    pub names: u64,
}

/// An opened directory.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
}

const OPEN_DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

impl Directory {
    /// Opens a directory by its path; links on the way are followed.
    pub fn open(path: &Path) -> Result<Self> {
        nix::fcntl::open(path, OPEN_DIRECTORY, Mode::empty()).map(|fd| Self { fd })
    }

    /// A further opened fd of the same directory.
    pub fn again(&self) -> Result<Self> {
        openat(&self.fd, ".", OPEN_DIRECTORY, Mode::empty()).map(|fd| Self { fd })
    }

    /// Opens a directory in this one; ENOTDIR or ELOOP if the name is something else.
    pub fn open_directory(&self, name: &OsStr) -> Result<Self> {
        openat(&self.fd, name, OPEN_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()).map(|fd| Self { fd })
    }

    /// As [`Directory::open_directory`], but a link is followed, inside this process's root.
    pub fn open_through_link(&self, name: &OsStr) -> Result<Self> {
        openat(&self.fd, name, OPEN_DIRECTORY, Mode::empty()).map(|fd| Self { fd })
    }

    /// Where the links that begin at `name` end, inside this process's root: a directory and a name in it, which need not
    /// exist.
    pub fn resolve_link(&self, name: &OsStr) -> Result<(Self, OsString)> {
        const MOST_LINKS: usize = 40;
        let mut at = self.again()?;
        let mut name = name.to_owned();
        for _ in 0..MOST_LINKS {
            let to = match at.read_link(&name) {
                Ok(to) => PathBuf::from(to),
                // Not a link, or nothing: this is where it ends.
                Err(Errno::EINVAL | Errno::ENOENT) => return Ok((at, name)),
                Err(errno) => return Err(errno),
            };
            let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
            if let Some(parent) = parent {
                at = at.open_through_link(parent.as_os_str())?;
            }
            match to.file_name() {
                Some(last) => name = last.to_owned(),
                // `/`, or a path that ends with `..`: a directory, whatever it is called.
                None => return Ok((at.open_through_link(to.as_os_str())?, ".".into())),
            }
        }
        Err(Errno::ELOOP)
    }

    /// The names in it, sorted by bytes.
    pub fn names(&self) -> Result<Vec<OsString>> {
        // A directory's position is that of the opened fd, so each listing has its own.
        let mut open = Dir::from_fd(self.again()?.fd)?;
        let mut names = Vec::new();
        for entry in open.iter() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// What a name is.
    pub fn facts(&self, name: &OsStr) -> Result<Facts> {
        fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).map(|stat| facts(&stat))
    }

    /// What this directory is.
    pub fn own_facts(&self) -> Result<Facts> {
        nix::sys::stat::fstat(&self.fd).map(|stat| facts(&stat))
    }

    /// Where a symbolic link leads.
    pub fn read_link(&self, name: &OsStr) -> Result<OsString> {
        nix::fcntl::readlinkat(&self.fd, name)
    }

    /// Opens a regular file for reading; EINVAL if it is none.
    pub fn open_file(&self, name: &OsStr) -> Result<File> {
        // Without O_NONBLOCK a pipe that somebody puts there meanwhile would hold us up.
        let flags =
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::empty())?;
        match facts(&nix::sys::stat::fstat(&fd)?).kind {
            Kind::File => Ok(File::from(fd)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Makes a file, which must not exist.
    pub fn create_file(&self, name: &OsStr, mode: u32) -> Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.fd, name, flags, Mode::from_bits_truncate(mode)).map(File::from)
    }

    /// Makes a directory, which must not exist.
    pub fn make_directory(&self, name: &OsStr, mode: u32) -> Result<()> {
        mkdirat(&self.fd, name, Mode::from_bits_truncate(mode))
    }

    /// Makes a symbolic link.
    pub fn make_symlink(&self, name: &OsStr, to: &OsStr) -> Result<()> {
        symlinkat(to, &self.fd, name)
    }

    /// Gives the file `other` in `from` a further name.
    pub fn make_hard_link(&self, name: &OsStr, from: &Self, other: &OsStr) -> Result<()> {
        linkat(&from.fd, other, &self.fd, name, LinkatFlags::empty())
    }

    /// Makes a pipe or a device node.
    pub fn make_node(&self, name: &OsStr, kind: Kind, mode: u32) -> Result<()> {
        let (flag, device) = match kind {
            Kind::Fifo => (SFlag::S_IFIFO, 0),
            Kind::CharDevice { major, minor } => (SFlag::S_IFCHR, libc::makedev(major, minor)),
            Kind::BlockDevice { major, minor } => (SFlag::S_IFBLK, libc::makedev(major, minor)),
            _ => return Err(Errno::EINVAL),
        };
        mknodat(&self.fd, name, flag, Mode::from_bits_truncate(mode), device)
    }

    /// Removes a name that is no directory.
    pub fn remove(&self, name: &OsStr) -> Result<()> {
        unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)
    }

    /// Sets the permission bits of a name that is no symbolic link.
    pub fn set_mode(&self, name: &OsStr, mode: u32) -> Result<()> {
        fchmodat(&self.fd, name, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)
    }

    /// Sets when a name's content has changed last.
    pub fn set_mtime(&self, name: &OsStr, seconds: i64) -> Result<()> {
        let now = TimeSpec::new(seconds, 0);
        utimensat(&self.fd, name, &now, &now, UtimensatFlags::NoFollowSymlink)
    }

    /// Removes a name and all below it, however deep ([`super::at::remove_tree`]). ENOENT if there is no such name.
    pub fn remove_tree(&self, name: &OsStr) -> Result<()> {
        self.facts(name)?;
        super::at::remove_tree(self.as_fd(), name.as_bytes())
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn facts(stat: &nix::sys::stat::FileStat) -> Facts {
    let device = || (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
    let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFLNK => Kind::Symlink,
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFSOCK => Kind::Socket,
        SFlag::S_IFCHR => Kind::CharDevice { major: device().0, minor: device().1 },
        SFlag::S_IFBLK => Kind::BlockDevice { major: device().0, minor: device().1 },
        _ => Kind::File,
    };
    #[cfg_attr(target_arch = "x86_64", expect(clippy::useless_conversion, reason = "u32 on aarch64"))]
    let names = u64::from(stat.st_nlink);
    Facts {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        identity: (stat.st_dev, stat.st_ino),
        names,
    }
}

/// The value of an extended attribute of an opened file or directory; `None` if it has none of that name.
pub fn xattr(fd: impl AsFd, name: &str) -> Result<Option<Vec<u8>>> {
    let name = std::ffi::CString::new(name).map_err(|_| Errno::EINVAL)?;
    let mut value = vec![0_u8; MAX_XATTR_BYTES];
    // SAFETY: the fd is open, the name is NUL terminated, and the kernel writes at most the length given.
    let result = unsafe {
        libc::fgetxattr(fd.as_fd().as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    match Errno::result(result) {
        Ok(length) => {
            value.truncate(usize::try_from(length).unwrap_or(0));
            Ok(Some(value))
        }
        Err(Errno::ENODATA | Errno::ENOTSUP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names of the extended attributes of an opened file or directory that a user may set.
pub fn user_xattrs(fd: impl AsFd) -> Result<Vec<String>> {
    let mut names = vec![0_u8; MAX_XATTR_BYTES];
    // SAFETY: the fd is open, and the kernel writes at most the length given.
    let result = unsafe { libc::flistxattr(fd.as_fd().as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    let length = match Errno::result(result) {
        Ok(length) => usize::try_from(length).unwrap_or(0),
        Err(Errno::ENOTSUP) => 0,
        Err(errno) => return Err(errno),
    };
    let names = names.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    Ok(names
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|name| name.starts_with("user."))
        .map(str::to_owned)
        .collect())
}

/// The number of the mount that a name in an opened directory is on; `None` on kernels before 5.8.
pub fn mount_id(directory: &Directory, name: &OsStr) -> Option<u64> {
    let name = std::ffi::CString::new(name.as_bytes()).ok()?;
    // SAFETY: a statx of zeros is valid.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    // SAFETY: the fd is open, the name is NUL terminated, and the kernel writes one statx, which lives during the call.
    let result = unsafe {
        libc::statx(directory.fd.as_raw_fd(), name.as_ptr(), flags, libc::STATX_MNT_ID, &raw mut stat)
    };
    Errno::result(result).ok()?;
    (stat.stx_mask & libc::STATX_MNT_ID != 0).then_some(stat.stx_mnt_id)
}

/// Removes a directory with all that is in it; it need not be there. A container may have left directories that are closed
/// to their owner, and the kernel's overlay makes one.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    match Directory::open(parent).and_then(|parent| parent.remove_tree(name)) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_is_followed_and_closed_directories_are_removed() {
        let place = tempfile::tempdir().unwrap();
        let top = Directory::open(place.path()).unwrap();
        let name = OsStr::new;
        top.make_directory(name("in"), 0o755).unwrap();
        let inside = top.open_directory(name("in")).unwrap();
        drop(inside.create_file(name("file"), 0o600).unwrap());
        inside.make_directory(name("closed"), 0).unwrap();
        inside.make_symlink(name("link"), name("/etc")).unwrap();
        assert!(matches!(inside.open_directory(name("link")), Err(Errno::ELOOP | Errno::ENOTDIR)));
        assert!(inside.open_file(name("link")).is_err() && inside.open_file(name("closed")).is_err());
        assert_eq!(inside.names().unwrap(), ["closed", "file", "link"]);
        assert_eq!(inside.facts(name("link")).unwrap().kind, Kind::Symlink);
        assert_eq!(inside.read_link(name("link")).unwrap(), "/etc");
        top.set_mode(name("in"), 0o500).unwrap();
        top.remove_tree(name("in")).unwrap();
        assert_eq!(top.facts(name("in")), Err(Errno::ENOENT));
        assert!(Path::new("/etc").is_dir());
        top.make_directory(name("other"), 0o755).unwrap();
        remove_tree(&place.path().join("other")).unwrap();
        remove_tree(&place.path().join("other")).unwrap();
        assert!(!place.path().join("other").exists());
    }
}
