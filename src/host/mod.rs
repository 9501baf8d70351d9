//! The machine: kernel, CPUs, memory, and the limits that decide whether a container can start. Read once, plain data.
//!
//! A launch needs little of it and must not wait: [`LaunchFacts`] costs a handful of reads below `/proc` and `/sys`.
//! [`HostFacts`] is for `doctor` and reports, and can be saved as JSON, so that it is a fixture for tests.

#![expect(clippy::disallowed_methods, reason = "reads procfs, sysfs and whether /dev/fuse opens")]

mod cpu;
mod kernel;
mod private;
mod procfs;
#[cfg(test)]
mod tests;

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use cpu::{CGROUP2_MOUNTS, Cpus};
pub use kernel::{KernelVersion, no_open_is_safe};
pub use private::{PrivateError, is_own_directory, own_directory, private_directories};
pub use procfs::may_mount_proc;

/// What every launch needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFacts {
    /// The running kernel.
    pub kernel: KernelVersion,
    /// The CPUs that this process may use.
    pub cpus: Cpus,
}

/// Everything that is known of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The running kernel.
    pub kernel: KernelVersion,
    /// The CPUs that this process may use.
    pub cpus: Cpus,
    /// The CPU's architecture, in Rust's word: `x86_64`, `aarch64`.
    pub architecture: String,
    /// The host's name.
    pub hostname: String,
    /// Changes with every boot; empty if the kernel does not tell.
    pub boot_id: String,
    /// Memory.
    pub memory: Memory,
    /// What limits user namespaces.
    pub userns: Userns,
    /// Whether file systems can be served.
    pub fuse: FuseDevice,
}

/// Memory of the machine, or of its cgroup where that is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What new work can have without swapping, in bytes.
    pub available_bytes: u64,
}

/// The settings that limit user namespaces; `None` where this kernel has no such setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Userns {
    /// `user.max_user_namespaces`; 0 forbids them, as RHEL 7 did.
    pub max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone` of Debian's kernels; 0 forbids them.
    pub unprivileged_userns_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` of Ubuntu's kernels; 1 takes their capabilities away.
    pub apparmor_restrict: Option<u64>,
}

/// What an attempt to open `/dev/fuse` gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FuseDevice {
    /// It opens.
    Opens,
    /// There is none; the module is not loaded.
    Missing,
    /// Its mode or the device cgroup forbids it.
    Denied,
}

impl std::fmt::Display for FuseDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Opens => "opens",
            Self::Missing => "missing",
            Self::Denied => "may not be opened",
        })
    }
}

impl LaunchFacts {
    /// Reads the facts below `root`, which is `/` but for tests.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        Self { kernel: read_kernel(root), cpus: cpu::read(root) }
    }
}

impl HostFacts {
    /// Reads the facts below `root`, which is `/` but for tests; only memory is always that of this machine.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let LaunchFacts { kernel, cpus } = LaunchFacts::read(root);
        Self {
            kernel,
            cpus,
            architecture: std::env::consts::ARCH.into(),
            hostname: read_line(&root.join("proc/sys/kernel/hostname")).unwrap_or_default(),
            boot_id: read_line(&root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default(),
            memory: read_memory(),
            userns: Userns::read(root),
            fuse: try_fuse(&root.join("dev/fuse")),
        }
    }
}

impl Userns {
    /// Reads the settings below `root`, which is `/` but for tests.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let number = |path: &str| read_line(&root.join(path)).and_then(|text| text.parse().ok());
        Self {
            max_user_namespaces: number("proc/sys/user/max_user_namespaces"),
            unprivileged_userns_clone: number("proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restrict: number("proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        }
    }
}

impl FuseDevice {
    /// Tries to open this machine's device.
    #[must_use]
    pub fn of_this_machine() -> Self {
        try_fuse(Path::new("/dev/fuse"))
    }
}

fn read_kernel(root: &Path) -> KernelVersion {
    KernelVersion::parse(&read_line(&root.join("proc/sys/kernel/osrelease")).unwrap_or_default())
}

/// The whole of a small kernel file without the white space around it; `None` if it is not there.
fn read_line(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Opening is the only true test: it also asks the device cgroup, and does nothing else.
fn try_fuse(path: &Path) -> FuseDevice {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => FuseDevice::Opens,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => FuseDevice::Denied,
        // ENOENT, or ENODEV and ENXIO of a node without its module.
        Err(_) => FuseDevice::Missing,
    }
}

fn read_memory() -> Memory {
    let kinds = sysinfo::MemoryRefreshKind::nothing().with_ram();
    let system = sysinfo::System::new_with_specifics(sysinfo::RefreshKind::nothing().with_memory(kinds));
    let (total_bytes, available_bytes) = (system.total_memory(), system.available_memory());
    match system.cgroup_limits() {
        Some(limits) => Memory {
            total_bytes: total_bytes.min(limits.total_memory),
            available_bytes: available_bytes.min(limits.free_memory),
        },
        None => Memory { total_bytes, available_bytes },
    }
}
