//! The only place that prints.

use std::fmt::Display;
use std::io::{self, Write as _};

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

/// Prints a line of progress to standard error.
pub(super) fn note(text: &impl Display) {
    complain(&format_args!("{text}\n"));
}

/// Prints a warning to standard error.
pub(super) fn warn(text: &str) {
    note(&format_args!("warning: {text}"));
}

/// Prints a text that has its line ends to standard error. What comes from an image or a server could hold control
/// characters, which would act on the terminal; they are shown by their codes.
pub(super) fn complain(text: &impl Display) {
    let mut shown = String::new();
    for character in text.to_string().chars() {
        if character.is_control() && character != '\n' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    // There is nobody left to tell that standard error is gone.
    let _ = io::stderr().lock().write_all(shown.as_bytes());
}
