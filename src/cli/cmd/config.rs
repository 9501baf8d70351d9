//! `slipway config`.

use super::Session;
use crate::cli::failure::Failure;
use crate::cli::term;

/// Every key, its value and where that came from.
pub(in crate::cli) fn show(session: &Session) -> Result<(), Failure> {
    term::print(&session.settings.show())
}
