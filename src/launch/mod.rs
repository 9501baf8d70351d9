//! Effects: looks up what a plan needs, applies the plan, and becomes the workload.
//!
//! ```text
//! slipway run (pid P) ─┬─ fork ─ fork ─▶ slipway-fuse   host's namespaces, own session; serves, ends by ENODEV
//!                      │                    ▲ device fds over a socket pair
//!                      ├─ unshare, mount ───┘
//!                      ├─ pivot, binds, detach
//!                      └─ exec ▶ the workload, still pid P
//! ```
//!
//! No thread is ever started in P (kernel: `unshare(CLONE_NEWUSER)` with a second thread is EINVAL). Only the server and
//! its spare (`fuse::standby`) hold the FUSE fd: any other holder would turn the server's death into a hang.

#![expect(clippy::disallowed_methods, reason = "this module applies plans to the world")]

mod apply;
mod baked;
mod control;
mod exec;
mod keeper;
mod outside;
mod prepare;
mod private;
mod server;
mod stop;
mod supervise;
mod unpacked;
mod words;

pub use apply::{Context, UPPER, apply, visit};
pub use baked::{BakedKind, BakedLibrary, baked_libraries};
pub use control::{delegated_group, enter_group, join_group_of, may_limit_swap, sweep_groups};
pub use exec::become_workload;
pub use keeper::{Scope, Sharing, sweep as sweep_keepers};
pub use prepare::{caller, home_of, image_files, look_up, small_file};
pub use private::{PrivateView, private_view};
pub use server::Settings as ServeSettings;
pub use stop::stop_for_test;
pub use supervise::supervise;

use crate::base::Hint;
use crate::sys::Errno;

/// Why a container did not start. The workload's own failures are its own: after exec there is no `slipway` left.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A step of the plan failed.
    #[error("cannot start `{image}`: step {step} of {steps}, {title}: {words}")]
    Step {
        /// The image as the user named it.
        image: String,
        /// Number of the step, from 1.
        step: usize,
        /// How many steps the plan has.
        steps: usize,
        /// The step's name.
        title: String,
        /// The errno in the words of this step, with its name.
        words: String,
        /// The errno.
        errno: Errno,
        /// What to do.
        hint: Option<String>,
    },
    /// The file server could not serve the image.
    #[error("cannot start `{image}`: the image cannot be served: {text}")]
    Server {
        /// The image as the user named it.
        image: String,
        /// The server's own words.
        text: String,
    },
    /// No such command.
    #[error("command `{command}` not found in the image: {reason}")]
    CommandNotFound {
        /// The command as given.
        command: String,
        /// Where it was looked for, or what it needs that is missing.
        reason: String,
    },
    /// The command is there but cannot be executed.
    #[error("command `{command}` cannot be executed: {reason}")]
    NotExecutable {
        /// The command as given.
        command: String,
        /// Why.
        reason: String,
    },
    /// A path of the image could not be looked up.
    #[error("cannot read `{path}` in the image `{image}`: {text}")]
    ImageRead {
        /// The image as the user named it.
        image: String,
        /// The path inside.
        path: String,
        /// The reader's words.
        text: String,
    },
    /// This process has a second thread, which would be a bug of ours, or procfs does not tell.
    #[error("cannot start a container: `/proc/self/task` does not show a process with one thread")]
    Threads,
    /// The process that is to stand before the workload.
    #[error("cannot stand before the command: {} ({errno:?})", errno.desc())]
    Init {
        /// The errno.
        errno: Errno,
    },
    /// A path of the bundle that no plan can have.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
}

impl LaunchError {
    /// Docker's exit codes: 127 not found, 126 not executable, 125 our own failure.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::CommandNotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

impl Hint for LaunchError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Step { hint, .. } => hint.clone(),
            Self::Server { .. } | Self::ImageRead { .. } => {
                Some("make the image anew with `slipway pull` or `slipway convert`".into())
            }
            Self::CommandNotFound { .. } => {
                Some("`slipway run IMAGE ls /usr/bin` shows what the image has".into())
            }
            Self::Plan(error) => error.hint(),
            Self::Threads => {
                Some("see that `/proc` is mounted and that files can be opened (`ulimit -n`)".into())
            }
            Self::Init { .. } => Some("end other processes, or raise `ulimit -u`".into()),
            Self::NotExecutable { .. } => None,
        }
    }
}
