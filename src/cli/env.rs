//! The environment, read once.

#![expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::task;

/// Every variable of this process, but for that which only the command line is about.
pub(super) fn read() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().filter(|(name, _)| name != task::VARIABLE).collect()
}

/// The beginning of this task's command line, where Slurm's plugin left it.
pub(super) fn task() -> Option<OsString> {
    std::env::var_os(task::VARIABLE)
}

/// What kind of terminal there is, in its own word.
pub(super) fn terminal() -> Option<OsString> {
    std::env::var_os("TERM")
}
