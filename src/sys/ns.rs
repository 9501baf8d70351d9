//! Namespaces and id maps.

#![expect(clippy::disallowed_methods, reason = "reads and writes /proc/self, which is a kernel interface")]

use std::fs;
use std::io::Write as _;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::sched::{CloneFlags, setns, unshare};

use super::{Errno, Result, to_errno};

/// Proof that this process has one thread, taken just before work that needs it.
///
/// `unshare(CLONE_NEWUSER)` with a second thread is EINVAL, and so it was in 218 of 3,000 runs *after* the other
/// threads had been joined; so the launcher never starts one (ARCHITECTURE.md, invariants). Not `Send`: a proof that moves to
/// another thread is none.
#[derive(Debug)]
pub struct SingleThreaded {
    _not_send: PhantomData<*const ()>,
}

impl SingleThreaded {
    /// Counts the threads of this process. `None` if there is more than one, or if procfs cannot say.
    #[must_use]
    pub fn witness() -> Option<Self> {
        // The kernel counts the threads into the links of this directory, beside its own two, so that it need not be read:
        // a server behind Landlock could not.
        const LINKS_OF_ONE: u64 = 3;
        let links = fs::metadata("/proc/self/task").ok()?.nlink();
        (links == LINKS_OF_ONE).then_some(Self { _not_send: PhantomData })
    }
}

/// The one line of a user namespace's uid and gid maps: one caller, seen as one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// User id outside, the caller's.
    pub uid_outside: u32,
    /// User id inside.
    pub uid_inside: u32,
    /// Group id outside, the caller's.
    pub gid_outside: u32,
    /// Group id inside.
    pub gid_inside: u32,
}

/// Which namespaces are new beside those of users and mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Isolation {
    /// A network with nothing but a loopback.
    pub network: bool,
    /// A host name of its own.
    pub host_name: bool,
    /// Shared memory, semaphores and message queues of its own.
    pub ipc: bool,
    /// Process numbers of its own, for the children.
    pub pid: bool,
}

/// Moves this process into a new user namespace and, in the same call, a new mount namespace and those asked for.
///
/// ENOSPC means a limit (`user.max_user_namespaces`), not a disk; EPERM means that a policy forbids it.
pub fn unshare_user_and_mount(_witness: &SingleThreaded, more: Isolation) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | mount_and(more))
}

/// The same in a user namespace that another process has made: this process joins it, and then leaves the mount
/// namespace that it was started in for a copy. EPERM means that the user namespace is not the caller's.
pub fn join_user_and_unshare_mount(_witness: &SingleThreaded, user: &OwnedFd, more: Isolation) -> Result<()> {
    setns(user, CloneFlags::CLONE_NEWUSER)?;
    unshare(mount_and(more))
}

fn mount_and(more: Isolation) -> CloneFlags {
    let mut flags = CloneFlags::CLONE_NEWNS;
    flags.set(CloneFlags::CLONE_NEWNET, more.network);
    flags.set(CloneFlags::CLONE_NEWUTS, more.host_name);
    flags.set(CloneFlags::CLONE_NEWIPC, more.ipc);
    flags.set(CloneFlags::CLONE_NEWPID, more.pid);
    flags
}

/// The user namespace of this process, as something that can be handed to others.
pub fn own_user_namespace() -> Result<OwnedFd> {
    fs::File::open("/proc/self/ns/user").map(OwnedFd::from).map_err(to_errno)
}

/// Names the host in this process's namespace.
pub fn set_host_name(name: &str) -> Result<()> {
    nix::unistd::sethostname(name)
}

/// Names the domain of the host in this process's namespace (NIS; `domainname` prints it).
pub fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: the pointer and the length are those of one text, which the kernel copies during the call.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    Errno::result(result).map(drop)
}

/// Brings up the loopback of a new network: it is down at first, and programs that talk to themselves need it.
pub fn bring_loopback_up() -> Result<()> {
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: an ifreq of zeros is valid: an empty name and no address.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the socket is open and the kernel reads the ifreq, which lives during the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(result).map(drop)
}

/// Writes the maps of the new user namespace; `setgroups` is denied first, as the kernel demands (3.19) of a process
/// without CAP_SETGID outside. The kernel's supplementary groups stay as they are.
pub fn write_id_maps(map: &IdMap) -> Result<()> {
    write_proc("/proc/self/setgroups", "deny")?;
    write_proc("/proc/self/uid_map", &format!("{} {} 1\n", map.uid_inside, map.uid_outside))?;
    write_proc("/proc/self/gid_map", &format!("{} {} 1\n", map.gid_inside, map.gid_outside))
}

/// A kind of namespace, by its name below `/proc/PID/ns` and the kernel's flag.
type Kind = (&'static str, CloneFlags);

/// Every kind that a container may have of its own, in the order in which they are joined: the user namespace first,
/// since it gives the right to join the others.
const KINDS: [Kind; 7] = [
    ("user", CloneFlags::CLONE_NEWUSER),
    // Of a process that has made one the children are in it, not itself.
    ("pid_for_children", CloneFlags::CLONE_NEWPID),
    ("net", CloneFlags::CLONE_NEWNET),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// Opened namespaces of another process: those that are not this process's too.
#[derive(Debug)]
pub struct OtherNamespaces {
    opened: Vec<(CloneFlags, OwnedFd)>,
}

impl OtherNamespaces {
    /// Opens what differs. The caller looks afterwards whether the number still is the process that it meant.
    pub fn of(pid: i32) -> Result<Self> {
        let mut opened = Vec::new();
        for (name, flag) in KINDS {
            let other = match fs::File::open(format!("/proc/{pid}/ns/{name}")) {
                Ok(file) => file,
                // A kernel without this kind.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && name != "user" => continue,
                Err(error) => return Err(to_errno(error)),
            };
            let theirs = other.metadata().map_err(to_errno)?;
            let own = fs::metadata(format!("/proc/self/ns/{name}")).map_err(to_errno)?;
            if (own.dev(), own.ino()) != (theirs.dev(), theirs.ino()) {
                opened.push((flag, other.into()));
            }
        }
        Ok(Self { opened })
    }

    /// Whether nothing differs: the process has made none of its own, at least not yet.
    #[must_use]
    pub fn are_our_own(&self) -> bool {
        self.opened.is_empty()
    }

    /// Whether a joining process must fork to be inside: a pid namespace holds only for children.
    #[must_use]
    pub fn need_a_fork(&self) -> bool {
        self.opened.iter().any(|(flag, _)| *flag == CloneFlags::CLONE_NEWPID)
    }

    /// Joins all of them. Root and working directory become the root of the joined mount namespace.
    pub fn join(&self, _witness: &SingleThreaded) -> Result<()> {
        self.opened.iter().try_for_each(|(flag, fd)| setns(fd, *flag))
    }
}

/// One write: the map files take their whole content in a single call.
fn write_proc(path: &str, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(to_errno)?;
    file.write_all(text.as_bytes()).map_err(to_errno)
}
