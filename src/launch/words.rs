//! What an errno means at the step where it came. Many mislead: ENOSPC of unshare is a limit, not a disk.

use std::path::Path;

use crate::host::Userns;
use crate::plan::Op;
use crate::sys::Errno;

/// The errno in the words of the step, with its name behind.
pub(super) fn explain(op: &Op, errno: Errno) -> String {
    let words = match (op, errno) {
        (Op::NewNamespaces { .. }, Errno::ENOSPC) => "limit reached",
        (Op::NewNamespaces { .. }, Errno::EPERM | Errno::EACCES) => "forbidden on this host",
        (Op::NewNamespaces { .. }, Errno::EINVAL) => {
            "the kernel has no user namespaces, or this process has a thread"
        }
        (Op::NewNamespaces { .. }, Errno::EUSERS) => "nested too deep",
        (Op::NewNamespaces { .. }, Errno::EAGAIN) => "too many processes of this user",
        (Op::NewNamespaces { .. }, Errno::EMFILE | Errno::ENFILE) => "too many open files",
        (Op::MountImage { .. }, Errno::ENOSPC) => "the limit of mounts is reached",
        (Op::MountDirectory { .. }, Errno::EPERM | Errno::ENODEV | Errno::EINVAL) => {
            "the kernel cannot lay mount points below a directory here (overlay in a user namespace, Linux 5.11)"
        }
        (Op::MountDirectory { .. }, Errno::ENOENT) => "the unpacked tree is gone",
        (Op::MountDirectory { .. }, Errno::ENOSPC) => "the limit of mounts is reached",
        (Op::MountImage { upper: Some(_), .. }, Errno::EINVAL) => {
            "the kernel cannot put a writable layer there (overlay with `userxattr`, Linux 5.11)"
        }
        (Op::MountImage { .. }, Errno::EINVAL) => "the kernel's FUSE does not work in a user namespace",
        (Op::MountImage { .. }, Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            "this host has no `/dev/fuse`"
        }
        (Op::MountImage { .. }, Errno::EACCES) => "`/dev/fuse` may not be opened by this user",
        (Op::MountImage { .. }, Errno::EPERM) => "mounting FUSE is forbidden here",
        (Op::MountImage { .. }, Errno::EMFILE | Errno::ENFILE) => "too many open files",
        (Op::PivotRoot, Errno::ENOTCONN | Errno::ECONNABORTED) => "the file server ended before it answered",
        (
            Op::Tmpfs { .. } | Op::Bind { .. } | Op::Terminals { .. } | Op::MessageQueues { .. },
            Errno::ENOSPC,
        ) => "the limit of mounts is reached",
        (Op::MakeFile { .. }, Errno::EFBIG) => "the limit of file sizes is too low",
        (Op::MakeFile { .. } | Op::MakeDirectory { .. }, Errno::ENOSPC) => "the tmpfs is full",
        (Op::Bind { .. }, Errno::ENOENT) => "the source or the mount point vanished",
        (Op::Bind { .. }, Errno::ENOTDIR) => "a file meets a directory",
        (Op::Bind { .. }, Errno::EACCES) => "no permission to reach the source",
        (Op::Bind { .. }, Errno::EPERM) => "the mount may not be changed in a user namespace",
        (Op::OomScore { .. }, Errno::EACCES | Errno::EPERM) => "only root may make it smaller",
        (Op::FilterCalls { .. }, Errno::EINVAL) => "the kernel has no filters of system calls",
        (Op::ProcessFiles { .. }, Errno::EPERM) => "the kernel allows no further `/proc` here",
        (Op::Console, Errno::ENOENT | Errno::ENXIO) => "the container has no `/dev/ptmx`",
        (Op::Console, Errno::ENOSPC) => "all terminals are in use",
        (Op::ControlGroup { .. }, Errno::EAGAIN | Errno::ENOSPC) => "the limit of control groups is reached",
        (Op::ControlGroup { .. }, Errno::EINVAL | Errno::ERANGE) => "the kernel does not take such a limit",
        (Op::Limit { .. }, Errno::EPERM) => "it is above the hard limit of this session",
        (Op::ChangeDirectory { .. }, Errno::ENOENT) => "no such directory in the container",
        _ => errno.desc(),
    };
    format!("{words} ({errno:?})")
}

/// The one thing to do about it.
pub(super) fn hint(op: &Op, errno: Errno) -> Option<String> {
    match (op, errno) {
        (Op::NewNamespaces { .. }, Errno::EAGAIN) => Some("end other processes, or raise `ulimit -u`".into()),
        (_, Errno::EMFILE | Errno::ENFILE) => Some("raise `ulimit -n`".into()),
        (_, Errno::EFBIG) => Some("raise `ulimit -f`".into()),
        (Op::NewNamespaces { .. }, _) => Some(user_namespace_hint(&Userns::read(Path::new("/")), errno)),
        (Op::MountDirectory { .. }, Errno::EPERM | Errno::ENODEV | Errno::EINVAL) => {
            Some("use a node where `/dev/fuse` can be opened, with `--rootfs fuse`".into())
        }
        (Op::MountDirectory { .. }, Errno::ENOSPC) => {
            Some("an administrator must raise `fs.mount-max`".into())
        }
        (Op::MountDirectory { .. }, Errno::ENOENT) => Some("start it again".into()),
        (Op::MountImage { upper: Some(_), .. }, Errno::EINVAL) => {
            Some("use a directory on a local disk for `--overlay`, or `--writable-tmpfs`".into())
        }
        (Op::MountImage { .. }, Errno::ENOSPC) => Some("an administrator must raise `fs.mount-max`".into()),
        (Op::MountImage { .. }, Errno::EINVAL) => {
            Some("FUSE mounts in user namespaces need Linux 4.18 or newer".into())
        }
        (Op::MountImage { .. }, Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            Some("an administrator must load the module: `modprobe fuse`".into())
        }
        (Op::MountImage { .. }, Errno::EACCES) => {
            Some("an administrator must allow it: `chmod 0666 /dev/fuse`, the mode that udev gives it".into())
        }
        (Op::MountImage { .. }, Errno::EPERM) => {
            Some("an outer container or security policy forbids it; start slipway outside of it".into())
        }
        (Op::ProcessFiles { .. }, _) => Some("give `--pid host`".into()),
        (Op::ChangeDirectory { .. }, Errno::ENOENT) => {
            Some("choose another with `-w`, or bind it with `-v`".into())
        }
        (Op::Tmpfs { .. } | Op::Bind { .. }, Errno::ENOSPC) => {
            Some("an administrator must raise `fs.mount-max`".into())
        }
        _ => None,
    }
}

fn user_namespace_hint(limits: &Userns, errno: Errno) -> String {
    if limits.max_user_namespaces == Some(0) {
        return "this node has user.max_user_namespaces = 0; an administrator must set \
                `sysctl user.max_user_namespaces=15000`"
            .into();
    }
    if limits.unprivileged_userns_clone == Some(0) {
        return "this node has kernel.unprivileged_userns_clone = 0; an administrator must set \
                `sysctl kernel.unprivileged_userns_clone=1`"
            .into();
    }
    if limits.apparmor_restrict == Some(1) {
        return "AppArmor restricts user namespaces here; an administrator must allow slipway by a profile or set \
                `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
            .into();
    }
    match errno {
        Errno::ENOSPC => {
            "all of user.max_user_namespaces or user.max_mnt_namespaces are in use; end other containers or raise them"
                .into()
        }
        _ => "a chroot, a seccomp filter or a security policy around this process forbids user namespaces; start \
              slipway outside of it"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_setting_forbids_user_namespaces() {
        let check = |limits: Userns, errno: Errno, expected: &str| {
            assert!(user_namespace_hint(&limits, errno).contains(expected), "{limits:?}");
        };
        let none = Userns::default;
        check(
            Userns { max_user_namespaces: Some(0), ..none() },
            Errno::ENOSPC,
            "user.max_user_namespaces = 0",
        );
        check(Userns { max_user_namespaces: Some(9), ..none() }, Errno::ENOSPC, "are in use");
        check(
            Userns { unprivileged_userns_clone: Some(0), ..none() },
            Errno::EPERM,
            "unprivileged_userns_clone = 0",
        );
        check(Userns { apparmor_restrict: Some(1), ..none() }, Errno::EPERM, "AppArmor");
        check(none(), Errno::EPERM, "seccomp");
        let op = Op::NewNamespaces {
            uid: 1,
            gid: 1,
            uid_inside: 1,
            gid_inside: 1,
            network: false,
            host_name: false,
            ipc: false,
            pid: false,
        };
        assert_eq!(explain(&op, Errno::ENOSPC), "limit reached (ENOSPC)");
    }
}
