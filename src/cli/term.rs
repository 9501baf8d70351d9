//! The only place that prints.

#![expect(clippy::print_stderr, reason = "this is the one place that prints")]

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use super::failure::Failure;

/// Prints to standard output. A reader that has gone (`slipway images | head -1`) is a quiet success.
pub(super) fn print(text: &impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::quiet(0)
        } else {
            Failure::new(format!("cannot write to standard output: {error}"), None)
        }
    })
}

/// Prints a line of progress or a warning to standard error.
pub(super) fn note(text: &impl Display) {
    eprintln!("{text}");
}

/// Prints a text that has its line ends to standard error.
pub(super) fn complain(text: &impl Display) {
    eprint!("{text}");
}

/// Whether standard error is a terminal that can move its cursor.
pub(super) fn shows_bars() -> bool {
    io::stderr().is_terminal() && super::env::terminal().is_some_and(|kind| kind != "dumb")
}
