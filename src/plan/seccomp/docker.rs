//! The filter of `docker run` (moby `profiles/seccomp`): which calls are denied, and which capability gives each back.

use crate::bundle::CapabilitySet;
use crate::sys::syscalls;

use super::{Action, Condition, Filter, Rule};

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// Calls that are denied, each with the capabilities (linux/capability.h) of which any gives it back. Every other call
/// that has a name is allowed.
const DENIED: &[(&str, &[&str])] = &[
    ("_sysctl", &[]),
    ("acct", &["SYS_PACCT"]),
    ("add_key", &[]),
    ("afs_syscall", &[]),
    ("bpf", &["SYS_ADMIN", "BPF"]),
    ("clock_adjtime", &["SYS_TIME"]),
    ("clock_settime", &["SYS_TIME"]),
    ("delete_module", &["SYS_MODULE"]),
    ("fanotify_init", &["SYS_ADMIN"]),
    ("finit_module", &["SYS_MODULE"]),
    ("fsconfig", &["SYS_ADMIN"]),
    ("fsmount", &["SYS_ADMIN"]),
    ("fsopen", &["SYS_ADMIN"]),
    ("fspick", &["SYS_ADMIN"]),
    ("get_mempolicy", &["SYS_NICE"]),
    ("getpmsg", &[]),
    ("init_module", &["SYS_MODULE"]),
    ("io_uring_enter", &[]),
    ("io_uring_register", &[]),
    ("io_uring_setup", &[]),
    ("ioperm", &["SYS_RAWIO"]),
    ("iopl", &["SYS_RAWIO"]),
    ("kcmp", &["SYS_PTRACE"]),
    ("kexec_file_load", &["SYS_BOOT"]),
    ("kexec_load", &["SYS_BOOT"]),
    ("keyctl", &[]),
    ("lookup_dcookie", &["SYS_ADMIN"]),
    ("mbind", &["SYS_NICE"]),
    ("migrate_pages", &["SYS_NICE"]),
    ("mount", &["SYS_ADMIN"]),
    ("mount_setattr", &["SYS_ADMIN"]),
    ("move_mount", &["SYS_ADMIN"]),
    ("move_pages", &["SYS_NICE"]),
    ("nfsservctl", &[]),
    ("open_by_handle_at", &["DAC_READ_SEARCH"]),
    ("open_tree", &["SYS_ADMIN"]),
    ("perf_event_open", &["SYS_ADMIN", "PERFMON"]),
    ("pidfd_getfd", &["SYS_PTRACE"]),
    ("pivot_root", &[]),
    ("putpmsg", &[]),
    ("quotactl", &["SYS_ADMIN"]),
    ("quotactl_fd", &["SYS_ADMIN"]),
    ("reboot", &["SYS_BOOT"]),
    ("request_key", &[]),
    ("security", &[]),
    ("set_mempolicy", &["SYS_NICE"]),
    ("set_mempolicy_home_node", &["SYS_NICE"]),
    ("setdomainname", &["SYS_ADMIN"]),
    ("sethostname", &["SYS_ADMIN"]),
    ("setns", &["SYS_ADMIN"]),
    ("settimeofday", &["SYS_TIME"]),
    ("swapoff", &[]),
    ("swapon", &[]),
    ("sysfs", &[]),
    ("syslog", &["SYS_ADMIN", "SYSLOG"]),
    ("tuxcall", &[]),
    ("umount2", &["SYS_ADMIN"]),
    ("unshare", &["SYS_ADMIN"]),
    ("uselib", &[]),
    ("userfaultfd", &[]),
    ("ustat", &[]),
    ("vhangup", &["SYS_TTY_CONFIG"]),
    ("vserver", &[]),
];

/// clone(2) with any flag that makes a namespace (linux/sched.h, without CLONE_NEWTIME, which is no flag of clone).
const CLONE_NEW: u64 = 0x7e02_0000;
/// Personalities that programs ask for (linux/personality.h): Linux, UNAME26, 32-bit addresses or both, and "tell me".
const PERSONALITIES: [u64; 5] = [0, 0x0002_0000, 0x8, 0x0002_0008, 0xffff_ffff];
/// A family of sockets that reaches the hypervisor (linux/socket.h).
const AF_VSOCK: u64 = 40;

/// The filter for a container with these capabilities.
pub(super) fn filter(capabilities: CapabilitySet) -> Filter {
    let has = |names: &[&str]| names.iter().any(|name| capabilities.has_name(name));
    let allow = |conditions: Vec<Condition>| Rule { action: Action::Allow, conditions };
    let first = |value: u64, mask: u64, equal: bool| Condition { argument: 0, mask, value, equal };
    let mut filter = Filter::new(Action::Errno(EPERM), Action::Errno(ENOSYS));
    let is_admin = has(&["SYS_ADMIN"]);
    for (name, number) in syscalls::all() {
        let rule = match name {
            // Its flags lie in memory, where no filter can look; programs fall back to clone.
            "clone3" if !is_admin => Rule { action: Action::Errno(ENOSYS), conditions: Vec::new() },
            "clone" if !is_admin => allow(vec![first(0, CLONE_NEW, true)]),
            "socket" => allow(vec![first(AF_VSOCK, u64::MAX, false)]),
            "personality" => {
                for value in PERSONALITIES {
                    filter.put(number, allow(vec![first(value, u64::MAX, true)]));
                }
                continue;
            }
            _ => match DENIED.binary_search_by(|(denied, _)| (*denied).cmp(name)) {
                Ok(place) if !has(DENIED[place].1) => continue,
                _ => allow(Vec::new()),
            },
        };
        filter.put(number, rule);
    }
    filter
}

impl Filter {
    /// Docker's filter for a container with these capabilities.
    #[must_use]
    pub fn docker(capabilities: CapabilitySet) -> Self {
        filter(capabilities)
    }
}

#[cfg(test)]
mod tests {
    use super::DENIED;

    #[test]
    fn the_table_can_be_searched_by_halves() {
        assert!(DENIED.is_sorted_by(|(one, _), (next, _)| one < next));
    }
}
