//! The kernel side of FUSE: opening `/dev/fuse`, giving each server thread a queue of its own, mounting.

use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;

use super::Result;

nix::ioctl_read!(
    /// `FUSE_DEV_IOC_CLONE`, linux/fuse.h: ties a fresh device fd to the connection of another.
    fuse_dev_ioc_clone, 229, 0, u32
);

/// Opens `/dev/fuse`. Must be done inside the user namespace that mounts: an fd opened outside gives EINVAL there.
pub fn open_device() -> Result<OwnedFd> {
    open("/dev/fuse", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// A further fd of the connection that `device` was mounted with, so that threads do not share one queue (4.2).
pub fn clone_device(device: &OwnedFd) -> Result<OwnedFd> {
    let clone = open_device()?;
    let mut source = u32::try_from(device.as_raw_fd()).map_err(|_| nix::errno::Errno::EBADF)?;
    // SAFETY: `clone` is an open /dev/fuse fd and the ioctl reads one u32, the number of another open fd, which both
    // live during the call.
    unsafe { fuse_dev_ioc_clone(clone.as_raw_fd(), &raw mut source) }?;
    Ok(clone)
}

/// Mounts the connection of `device` read-only on the directory `target`.
///
/// `uid` and `gid` are of the caller's user namespace and own the mount. The kernel checks modes itself
/// (`default_permissions`), and every process of the namespace may look (`allow_other`).
pub fn mount_read_only(device: &OwnedFd, target: &Path, uid: u32, gid: u32) -> Result<()> {
    let options = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},allow_other,default_permissions",
        device.as_raw_fd()
    );
    mount(
        Some("slipway"),
        target,
        Some("fuse.slipway"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY,
        Some(options.as_str()),
    )
}

/// Waits for the next request of the kernel and says how many bytes it has. `buf` must be larger than any request.
pub fn read_request(device: &OwnedFd, buf: &mut [u8]) -> Result<usize> {
    nix::unistd::read(device, buf)
}

/// Hands an answer to the kernel: all parts are one message, and it is taken whole or not at all.
pub fn write_answer(device: &OwnedFd, parts: &[IoSlice<'_>]) -> Result<()> {
    nix::sys::uio::writev(device, parts).map(drop)
}
