//! Mounts, by mount(2) and where the kernel has it mount_setattr(2). Every path is one of the caller's mount namespace.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Errno, Result};

/// Makes every mount a slave of the host's: what is mounted there later (automounts, CVMFS) appears here, and nothing
/// of ours goes back.
pub fn make_all_slave() -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
}

/// A new tmpfs. `size_bytes` bounds its memory; none is the kernel's default, half of the memory.
pub fn tmpfs(target: &Path, mode: u32, size_bytes: Option<u64>) -> Result<()> {
    let size = size_bytes.map(|size| format!(",size={size}")).unwrap_or_default();
    let options = format!("mode={mode:o}{size}");
    mount(
        Some("tmpfs"),
        target,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
}

/// A new set of pseudo-terminals. The host's own would be shown with `ptmxmode=000`, the kernel's default, so that no
/// program could open a terminal.
pub fn terminals(target: &Path) -> Result<()> {
    mount(
        Some("devpts"),
        target,
        Some("devpts"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("newinstance,ptmxmode=0666,mode=0620"),
    )
}

/// The message queues of this process's IPC namespace.
pub fn message_queues(target: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("mqueue"), target, Some("mqueue"), flags, None::<&str>)
}

/// The processes of this process's pid namespace. EPERM: the host's own is covered in part, and then the kernel shows none
/// in whole.
pub fn process_files(target: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), target, Some("proc"), flags, None::<&str>)
}

/// Layers over one another on `target`, the uppermost first. With `changes`, two directories of one file system, the view is
/// writable: changes go to the first, and the second is the kernel's scratch. In a user namespace overlayfs keeps its marks
/// in `user.*` attributes (`userxattr`, 5.11). Without `changes` the attributes of the layers mean nothing, and at least two
/// layers are needed.
pub fn overlay(layers: &[&Path], changes: Option<(&Path, &Path)>, target: &Path) -> Result<()> {
    // A comma ends an option and a colon a layer; the kernel takes them behind a backslash.
    let push = |options: &mut Vec<u8>, path: &Path| {
        for byte in path.as_os_str().as_bytes() {
            if matches!(byte, b',' | b':' | b'\\') {
                options.push(b'\\');
            }
            options.push(*byte);
        }
    };
    let mut options = if changes.is_some() { b"userxattr,lowerdir=".to_vec() } else { b"lowerdir=".to_vec() };
    for (index, layer) in layers.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        push(&mut options, layer);
    }
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    match changes {
        Some((upper, work)) => {
            options.extend_from_slice(b",upperdir=");
            push(&mut options, upper);
            options.extend_from_slice(b",workdir=");
            push(&mut options, work);
        }
        None => flags |= MsFlags::MS_RDONLY,
    }
    mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_slice()))
}

/// Binds `source` on `target`, with the mounts below it if `recursive`.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> Result<()> {
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    mount(Some(source), target, None::<&str>, flags, None::<&str>)
}

/// Makes the mount at `target` read-only, and all mounts below it where the kernel can (mount_setattr, 5.12).
///
/// Older kernels: the top mount only, by a remount that keeps the flags the mount has, since dropping a locked flag
/// in a user namespace is EPERM.
pub fn make_read_only(target: &Path) -> Result<()> {
    match mount_setattr_read_only(target) {
        Err(Errno::ENOSYS) => remount_read_only(target),
        other => other,
    }
}

fn mount_setattr_read_only(target: &Path) -> Result<()> {
    // struct mount_attr and its constants, linux/mount.h of 5.12
    let attr =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let path = CString::new(target.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `path` is NUL terminated, `attr` is a live mount_attr of the size given, and the kernel reads both only
    // during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

fn remount_read_only(target: &Path) -> Result<()> {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let has = statvfs(target)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (kept, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if has.contains(kept) {
            flags |= flag;
        }
    }
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
}

/// Makes `new_root`, a mount point, the root directory, and puts the old root at `put_old`, a directory below it
/// (given relative to it).
///
/// On an initramfs root, as stateless nodes boot, pivot_root(2) is EINVAL: there the old root is bound at `put_old`
/// and the new one moved over `/`, which gives the same view.
pub fn pivot(new_root: &Path, put_old: &Path) -> Result<()> {
    nix::unistd::chdir(new_root)?;
    match nix::unistd::pivot_root(".", put_old) {
        Err(Errno::EINVAL) => {
            bind(Path::new("/"), put_old, true)?;
            mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
            nix::unistd::chroot(".")?;
            nix::unistd::chdir("/")?;
            // The copy of the old tree has the new root where it was staged; it would cover the host's directory.
            let staged = new_root.strip_prefix("/").unwrap_or(new_root);
            detach(&Path::new("/").join(put_old).join(staged))
        }
        other => {
            other?;
            nix::unistd::chdir("/")
        }
    }
}

/// Makes `new_root`, a mount point, the root of this namespace and lets go of everything else in it.
pub fn keep_only(new_root: &Path) -> Result<()> {
    nix::unistd::chdir(new_root)?;
    // The old root lies on top of the new one for a moment, and is taken away from there.
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")
}

/// A copy of the mount at `path` that hangs nowhere yet (open_tree, 5.2): whoever gets the fd and has the same user
/// namespace can [`attach`] it, once.
pub fn copy(path: &Path) -> Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: `path` is NUL terminated and lives during the call.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this fd, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Mounts a copy that [`copy`] made on `target`, a directory of this namespace.
pub fn attach(tree: &OwnedFd, target: &Path) -> Result<()> {
    let target = CString::new(target.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: both strings are NUL terminated and live during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

/// Takes the mount at `target`, and all below it, out of this namespace; what is still in use goes when it is free.
pub fn detach(target: &Path) -> Result<()> {
    umount2(target, MntFlags::MNT_DETACH)
}
