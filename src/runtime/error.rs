//! What can go wrong with containers, in words.

use std::io;
use std::path::PathBuf;

use crate::base::Hint;
use crate::host::PrivateError;
use crate::launch::LaunchError;
use crate::sys::Errno;

/// Why something with a container failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No place for the state.
    #[error(transparent)]
    Place(#[from] PrivateError),
    /// Nothing has this name or id here.
    #[error("no such container: `{word}`")]
    NoSuchContainer {
        /// As given.
        word: String,
    },
    /// The beginning of more than one id.
    #[error("`{word}` is the beginning of more than one container's id")]
    Ambiguous {
        /// As given.
        word: String,
    },
    /// Not a name.
    #[error("`{name}` is not a container name: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    BadName {
        /// As given.
        name: String,
    },
    /// Another container has it.
    #[error("the container name `{name}` is already in use by container `{id}`")]
    NameInUse {
        /// The name.
        name: String,
        /// Short id of the other.
        id: String,
    },
    /// A file of the state failed.
    #[error("cannot {act} `{}`: {source}", path.display())]
    State {
        /// What was attempted.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A state file that cannot be understood.
    #[error("the state `{}` cannot be understood: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// It does not run.
    #[error("container `{name}` is not running")]
    NotRunning {
        /// As given.
        name: String,
    },
    /// It runs.
    #[error("container `{name}` is running")]
    Running {
        /// As given.
        name: String,
    },
    /// Not a signal.
    #[error("`{text}` is not a signal")]
    BadSignal {
        /// As given.
        text: String,
    },
    /// A signal could not be sent.
    #[error("cannot send the signal {number} to container `{name}`: {} ({errno:?})", errno.desc())]
    Signal {
        /// The container.
        name: String,
        /// The signal.
        number: i32,
        /// The cause.
        errno: Errno,
    },
    /// It does not end.
    #[error("container `{name}` does not end: its process is still there {seconds} s after SIGKILL")]
    Unkillable {
        /// The container.
        name: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The monitor could not be started, or died before it said anything.
    #[error("cannot start container `{name}`: {act}: {} ({errno:?})", errno.desc())]
    Monitor {
        /// The container.
        name: String,
        /// What was attempted.
        act: &'static str,
        /// The cause.
        errno: Errno,
    },
    /// The monitor ended without a word.
    #[error("cannot start container `{name}`: its monitor was killed")]
    MonitorGone {
        /// The container.
        name: String,
    },
    /// The workload did not start; the words are the launcher's, from another process.
    #[error("{message}")]
    Launch {
        /// What failed.
        message: String,
        /// What to do.
        hint: Option<String>,
        /// Docker's exit code for it.
        code: u8,
    },
    /// The namespaces of a container cannot be joined.
    #[error("cannot enter container `{name}`: {act}: {} ({errno:?})", errno.desc())]
    Enter {
        /// The container.
        name: String,
        /// What was attempted.
        act: &'static str,
        /// The cause.
        errno: Errno,
    },
    /// It belongs to another job, whose cgroup and devices a command of this one would not have.
    #[error("container `{name}` belongs to job {job} on node {node}, and this is another job")]
    OtherJob {
        /// The container.
        name: String,
        /// Its job.
        job: String,
        /// Its node.
        node: String,
    },
    /// Nobody answers at the container's line.
    #[error("cannot attach to container `{name}`: {} ({errno:?})", errno.desc())]
    Attach {
        /// The container.
        name: String,
        /// The cause.
        errno: Errno,
    },
    /// Files could not be copied.
    #[error(transparent)]
    Copy(#[from] super::files::CopyError),
    /// Not a list of keys.
    #[error("invalid detach keys (`{text}`) provided")]
    BadKeys {
        /// As given.
        text: String,
    },
    /// A user that the container does not have.
    #[error("container `{name}` cannot run a command as user `{user}`: it holds the user {uid} alone")]
    OtherUser {
        /// The container.
        name: String,
        /// As given.
        user: String,
        /// Who is inside.
        uid: u32,
    },
    /// The command does not start; the process is ours no more.
    #[error(transparent)]
    Command(LaunchError),
}

impl RuntimeError {
    /// Docker's exit code where a command did not start, else `None`.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Launch { code, .. } => Some(*code),
            Self::Command(error) => Some(error.exit_code()),
            _ => None,
        }
    }

    /// A state file's failure.
    pub(super) fn state(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::State { act, path, source }
    }
}

impl Hint for RuntimeError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Place(error) => return error.hint(),
            Self::Launch { hint, .. } => return hint.clone(),
            Self::Command(error) => return error.hint(),
            Self::Copy(error) => return error.hint(),
            Self::NoSuchContainer { .. } => {
                "`slipway ps -a` lists your containers on this node; for another node of a job: \
                                             `srun --jobid=JOB --overlap -w NODE slipway ps -a`"
                    .into()
            }
            Self::Ambiguous { .. } => "give more digits; `slipway ps -a --no-trunc` shows whole ids".into(),
            Self::NameInUse { name, .. } => {
                format!("remove that container with `slipway rm -f {name}`, or choose another name")
            }
            Self::Running { name } => {
                format!("stop it with `slipway stop {name}`, or remove it with `slipway rm -f {name}`")
            }
            Self::NotRunning { name } => format!("start it with `slipway start {name}`"),
            Self::BadName { .. } => "choose two characters or more, the first a letter or a digit".into(),
            Self::BadSignal { .. } => "give a name like TERM or a number like 15".into(),
            Self::OtherJob { name, job, node } => {
                format!("`srun --jobid={job} --overlap -w {node} slipway exec {name} …` runs a command in it")
            }
            Self::BadKeys { .. } => {
                "write single characters or `ctrl-` and one, with commas between: `ctrl-p,ctrl-q`".into()
            }
            Self::OtherUser { .. } => "leave `-u` out".into(),
            Self::MonitorGone { .. } => {
                "a memory limit or the end of the job may have killed it: look at the job's log".into()
            }
            Self::Damaged { path, .. } => match path.parent() {
                Some(directory) => format!("remove it with `rm -r {}`", directory.display()),
                None => return None,
            },
            _ => return None,
        })
    }
}
