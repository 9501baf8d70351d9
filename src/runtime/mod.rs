//! Containers that outlive the command that starts them, without a daemon.
//!
//! What is known of a container lies in a directory of its own below a 0700 directory of the user's on this node
//! (`shelf`, `record`). A detached one has a small monitor process (`monitor`) that keeps its output (`log`) and writes
//! down how it ended; all other commands read those files and look at the processes themselves (`control`, `enter`).
//! Nothing waits for a lock, and nothing must be cleaned up for correctness: what a killed process has left is put
//! right by the next command that looks (`container`, `settle`). The lock on a container's directory only tells such a
//! command that somebody alive has the container in hand.
//!
//! A process is told by its number *and* its start time, and is held by a pidfd while it is acted on.

#![expect(clippy::disallowed_methods, reason = "this module keeps the state of containers in files")]

mod attach;
mod container;
mod control;
mod enter;
mod error;
mod files;
mod health;
mod hub;
mod keys;
mod line;
mod log;
mod monitor;
mod names;
mod record;
mod shelf;
mod start;
mod sweep;
mod usage;

pub use attach::{Line, Outputs, Parting, Wishes, attach, connect, line_pair};
pub use container::{Container, Held};
pub use control::{Ending, go_on, kill, parse_signal, remove, rename, stop, stop_process};
pub use enter::{Entry, enter, enter_detached, enter_terminal};
pub use error::RuntimeError;
pub use files::{
    Change, ChangeKind, ChangeStream, CopyError, Place, changed_bytes, changes, copy_in, copy_in_tar,
    copy_out, copy_out_tar, export, pack_changes,
};
pub use health::{Checked, Health, HealthCheck};
pub use keys::DetachKeys;
pub use log::{LogLine, LogReader, Stream};
pub use record::{Draft, Exit, IsolationRecord, MountRecord, Record, Status, workload_env, workload_filter};
pub use shelf::{Shelf, new_id};
pub use start::{register_own, start, unregister};
pub use usage::Usage;
