//! `attach` and `start -a`: what a container prints from now on, and its exit code as one's own.

use crate::runtime::{Container, Ending, LogReader};

use super::super::Session;
use super::logs::{Printer, follow, unreadable};
use super::running;
use crate::cli::args::AttachArgs;
use crate::cli::failure::Failure;

pub(super) fn run(args: &AttachArgs, session: &Session) -> Result<(), Failure> {
    let container = running(&args.container, session)?;
    let ending = Ending::of(&container)?;
    let mut reader = LogReader::open(&container.log_path());
    reader.tail(0).map_err(|error| unreadable(&container, &error))?;
    follow(&container, &mut reader, &Printer::default())?;
    end(&container, ending)
}

/// What a container prints from its last start on, until it ends.
pub(super) fn follow_start(container: &Container, ending: Ending) -> Result<(), Failure> {
    let mut reader = LogReader::open(&container.log_path());
    let printer = Printer { since: container.record.started, ..Printer::default() };
    follow(container, &mut reader, &printer)?;
    end(container, ending)
}

/// Its exit code becomes ours.
fn end(container: &Container, ending: Ending) -> Result<(), Failure> {
    match ending.wait(container)? {
        None | Some(0) => Ok(()),
        Some(code) => Err(Failure::quiet(u8::try_from(code).unwrap_or(u8::MAX))),
    }
}
