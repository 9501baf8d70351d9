//! The environment, read once.

#![expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Every variable of this process.
pub(super) fn read() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().collect()
}

/// What kind of terminal there is, in its own word.
pub(super) fn terminal() -> Option<OsString> {
    std::env::var_os("TERM")
}
