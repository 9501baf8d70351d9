//! The only place that prints.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Read as _, Write};

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

/// Writes to standard error what acts on the terminal. Nothing of an image or a server may be in it.
pub(super) fn draw(text: &str) {
    // See above.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether standard error is a terminal that can move its cursor.
pub(super) fn shows_bars() -> bool {
    io::stderr().is_terminal() && super::env::terminal().is_some_and(|kind| kind != "dumb")
}

/// Standard output for bytes that are no text.
pub(super) fn raw_output() -> impl Write {
    io::stdout().lock()
}

/// Standard error for bytes that are no text of ours.
pub(super) fn raw_error() -> impl Write {
    io::stderr().lock()
}

/// Whether standard output is a terminal.
pub(super) fn output_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard input is a terminal.
pub(super) fn input_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Reads a short text from standard input to its end.
pub(super) fn read_input(limit_bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    io::stdin().lock().take(limit_bytes).read_to_string(&mut text)?;
    Ok(text)
}

/// Asks at the terminal, and does not show what is typed if it is `hidden`.
pub(super) fn ask(question: &str, hidden: bool) -> io::Result<String> {
    complain(&question);
    let line = if hidden { crate::sys::term::read_hidden_line() } else { read_line() };
    if hidden {
        complain(&"\n");
    }
    line
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
