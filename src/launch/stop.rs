//! Points of a start at which tests have a process wait, so that they can kill whatever takes part in it.

use std::fmt::Display;

/// Has this process wait for SIGCONT if `SLIPWAY_STOP_AT` names this point: the number of a step, before it is done, or a
/// word. No release does.
#[cfg(debug_assertions)]
pub fn stop_for_test(point: impl Display) {
    if std::env::var("SLIPWAY_STOP_AT").is_ok_and(|wanted| wanted == point.to_string()) {
        crate::sys::process::stop_here();
    }
}

/// Does nothing: this is a release.
#[cfg(not(debug_assertions))]
#[inline]
pub fn stop_for_test(_point: impl Display) {}
