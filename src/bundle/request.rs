//! What a user asked for, as plain data.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::base::Hint;

use crate::config::Profile;
use crate::grants::FileGrant;

use super::capability::CapabilityChoice;
use super::environment::EnvRequest;
use super::volume::Volume;

/// What the user asked for, with flags and configuration merged.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Which set of defaults.
    pub profile: Profile,
    /// `--entrypoint`; an empty text means no entrypoint at all.
    pub entrypoint: Option<OsString>,
    /// The words behind the image's name.
    pub args: Vec<OsString>,
    /// `-e`, `--env-file`, in order of rising weight.
    pub env: Vec<EnvRequest>,
    /// Keep the caller's environment out (`--cleanenv`).
    pub clean_env: bool,
    /// `-w`.
    pub workdir: Option<PathBuf>,
    /// `-v`, `-B`, `--mount` and the site's binds.
    pub volumes: Vec<Volume>,
    /// `--tmpfs` and `--mount type=tmpfs`.
    pub memory_mounts: Vec<MemoryMount>,
    /// Bind the caller's home.
    pub mount_home: bool,
    /// Bind the host's `/tmp` and `/var/tmp`.
    pub mount_tmp: bool,
    /// Keep the caller's current directory out, where nothing else shows it.
    pub hide_cwd: bool,
    /// Who the workload is inside.
    pub identity: Identity,
    /// Where the changes of a writable root go; without one the root is read-only.
    pub writable: Option<WritableRoot>,
    /// A host name of its own.
    pub host_name: Option<String>,
    /// `--domainname`.
    pub domain_name: Option<String>,
    /// `--ipc` and `--shm-size`.
    pub ipc: Ipc,
    /// `--device`, and every device of the host with `--privileged`.
    pub devices: Vec<Device>,
    /// `--cap-add` and `--cap-drop`.
    pub capabilities: CapabilityChoice,
    /// `--privileged`.
    pub privileged: bool,
    /// Which system calls are left out.
    pub seccomp: Seccomp,
    /// Files made for this container, such as `/etc/hosts`.
    pub files: Vec<FileGrant>,
    /// `--home`: another directory as home, and where it is inside.
    pub home: Option<Home>,
    /// `--no-mount`: defaults that are left out, with all below them.
    pub no_mount: Vec<PathBuf>,
    /// `--no-umask` and the like: a mask other than the caller's.
    pub umask: Option<u32>,
    /// `--oom-score-adj`.
    pub oom_score: Option<i32>,
    /// `-t`.
    pub tty: bool,
    /// Variables that a configuration adds where neither user nor image sets them: proxies.
    pub proxies: Vec<(String, String)>,
    /// What the user should hear about the flags.
    pub warnings: Vec<String>,
    /// `--network none`.
    pub private_network: bool,
    /// `--pid private`: process numbers of its own.
    pub private_pids: bool,
    /// `--init`: a process of ours stands before the workload.
    pub init: bool,
    /// `--ulimit`.
    pub limits: Vec<Limit>,
    /// `--cpus`, `--memory` and the like.
    pub resources: Resources,
    /// The control group of this session in which one for the container may be made.
    pub control_group: Option<PathBuf>,
}

/// Limits by a control group; what is absent has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU time, in billionths of a CPU.
    pub cpus: Option<u64>,
    /// Weight of the CPU time, where 1024 is one share.
    pub cpu_shares: Option<u64>,
    /// The CPUs that may be used, as `0-3,8`.
    pub cpuset: Option<String>,
    /// The NUMA nodes whose memory may be used.
    pub cpuset_mems: Option<String>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together, in bytes; -1 is no limit of the swap.
    pub memory_swap_bytes: Option<i64>,
    /// Memory below which nothing is reclaimed, in bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
}

impl Resources {
    /// True if nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Shared memory, semaphores and message queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ipc {
    /// The host's, which ranks of a node need to reach each other.
    #[default]
    Host,
    /// The container's own, with a `/dev/shm` of this size.
    Private {
        /// Limit of `/dev/shm` in bytes.
        shm_bytes: u64,
    },
    /// The container's own, without a `/dev/shm`.
    None,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The host's node, or a directory of nodes.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// The words that asked for it.
    pub asked: String,
}

/// Which system calls the workload may make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// All of them.
    #[default]
    Unconfined,
    /// Those that docker allows.
    Docker,
    /// Those that a file of docker's form allows.
    Profile {
        /// Its name, for messages.
        file: String,
        /// Its text.
        text: String,
    },
}

/// A home directory other than the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Absolute host path.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// The words that asked for it.
    pub asked: String,
}

/// Who the workload is inside: one id is mapped, so it is one of these for all of its life.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// The caller's own ids.
    #[default]
    Caller,
    /// Root, which outside is the caller.
    Root,
    /// The image's USER; root where it names none.
    Image,
    /// `USER[:GROUP]` by name or number, which outside is the caller.
    Named(String),
}

/// Where the changes of a writable root go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WritableRoot {
    /// Memory; gone with the container.
    Memory {
        /// Limit in bytes.
        size_bytes: Option<u64>,
    },
    /// A directory of the host, absolute.
    Directory(PathBuf),
}

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryMount {
    /// Absolute path inside.
    pub target: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Limit in bytes.
    pub size_bytes: Option<u64>,
    /// The words that asked for it.
    pub asked: String,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Docker's name of it, such as `nofile`.
    pub name: String,
    /// Soft limit; `u64::MAX` is none.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is none.
    pub hard: u64,
}

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not `NAME=SOFT[:HARD]`.
    #[error("`--ulimit {text}` is not of the form NAME=SOFT[:HARD]")]
    Form {
        /// The text.
        text: String,
    },
    /// No such limit.
    #[error("`--ulimit {text}`: there is no limit `{name}`")]
    Name {
        /// The text.
        text: String,
        /// The name.
        name: String,
    },
    /// The soft limit is above the hard one.
    #[error("`--ulimit {text}`: the soft limit is above the hard one")]
    Order {
        /// The text.
        text: String,
    },
}

impl Hint for LimitError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Form { .. } => "write for example `--ulimit nofile=1024:4096`; -1 is unlimited".into(),
            Self::Name { .. } => {
                "the names are those of docker: nofile, nproc, memlock, stack, core, …".into()
            }
            Self::Order { .. } => "write the smaller number first".into(),
        })
    }
}

impl Limit {
    /// Reads Docker's `NAME=SOFT[:HARD]`, where -1 is unlimited.
    pub fn parse(text: &str) -> Result<Self, LimitError> {
        let form = || LimitError::Form { text: text.into() };
        let (name, values) = text.split_once('=').ok_or_else(form)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let number = |word: &str| match word {
            "-1" | "unlimited" => Some(u64::MAX),
            word => word.parse().ok(),
        };
        let (soft, hard) = (number(soft).ok_or_else(form)?, number(hard).ok_or_else(form)?);
        if crate::sys::process::resource(name).is_none() {
            return Err(LimitError::Name { text: text.into(), name: name.into() });
        }
        if soft > hard {
            return Err(LimitError::Order { text: text.into() });
        }
        Ok(Self { name: name.into(), soft, hard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_limits() {
        let check = |text: &str, expected: Result<(&str, u64, u64), &str>| {
            let read = Limit::parse(text).map_err(|error| error.to_string());
            let shown = read.as_ref().map(|limit| (limit.name.as_str(), limit.soft, limit.hard));
            assert_eq!(shown.map_err(String::as_str), expected, "{text}");
        };
        check("nofile=1024", Ok(("nofile", 1024, 1024)));
        check("stack=1:-1", Ok(("stack", 1, u64::MAX)));
        check("nofile", Err("`--ulimit nofile` is not of the form NAME=SOFT[:HARD]"));
        check("x=1", Err("`--ulimit x=1`: there is no limit `x`"));
        check("core=2:1", Err("`--ulimit core=2:1`: the soft limit is above the hard one"));
    }
}
