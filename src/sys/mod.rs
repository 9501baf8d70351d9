//! Floor 0, the kernel: the only unsafe code of the program, and the door to `nix` and `libc`.
//!
//! Each function is one thing that the kernel does, with a safe signature and the raw errno as its error. Words are
//! made by the caller, which knows what was attempted ([`crate::launch`]).

#![expect(unsafe_code, reason = "this is the one place for it; each block states its invariants")]

pub mod access;
pub mod at;
pub mod file;
pub mod fuse_dev;
pub mod landlock;
pub mod mount;
pub mod nameless;
pub mod ns;
pub mod nvml;
pub mod pidfd;
pub mod privileges;
pub mod process;
pub mod pty;
pub mod seccomp;
pub mod signals;
pub mod socket;
pub mod syscalls;
pub mod term;
pub mod tree;

/// The kernel's error number.
pub type Errno = nix::errno::Errno;

/// A result that fails with the bare errno.
pub type Result<T> = std::result::Result<T, Errno>;

/// The errno of an error of the standard library; EIO for one that has none.
#[must_use]
pub fn to_errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
