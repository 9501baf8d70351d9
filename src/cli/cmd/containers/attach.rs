//! `attach` and `start -a`: what a container prints from now on, what is typed for it, and its exit code as one's own.

use crate::runtime::{self, Container, DetachKeys, Ending, Line, Outputs, Parting, RuntimeError, Wishes};

use super::super::Session;
use super::{has_terminal, running};
use crate::cli::args::AttachArgs;
use crate::cli::failure::Failure;
use crate::cli::term;
use crate::sys::signals;

pub(super) fn run(args: &AttachArgs, session: &Session) -> Result<(), Failure> {
    let keys = DetachKeys::parse(&args.detach_keys)?;
    let container = running(&args.container, session)?;
    if !container.record.detached {
        return Err(Failure::new(
            format!("cannot attach to `{}`: it runs in the foreground of another command", args.container),
            "run a further command in it with `slipway exec`",
        ));
    }
    let wanted = Wanted { keys, input: !args.no_stdin, passes_signals: args.sig_proxy };
    let wishes = wishes(&container, wanted, session)?;
    let ending = Ending::of(&container)?;
    let line = runtime::connect(&container)?;
    follow(line, &container, wishes, ending)
}

/// What the flags ask for.
pub(super) struct Wanted {
    pub(super) keys: DetachKeys,
    pub(super) input: bool,
    pub(super) passes_signals: bool,
}

/// How a container can be attached to.
pub(super) fn wishes(container: &Container, wanted: Wanted, session: &Session) -> Result<Wishes, Failure> {
    let record = &container.record;
    let passes_input = wanted.input && record.open_stdin;
    let is_terminal = record.tty && (!passes_input || has_terminal(session)?);
    Ok(Wishes {
        passes_input,
        keys: is_terminal.then_some(wanted.keys),
        is_terminal,
        passes_signals: wanted.passes_signals && !record.tty,
    })
}

/// Stays attached, and ends as the container does.
pub(super) fn follow(
    line: Line,
    container: &Container,
    wishes: Wishes,
    ending: Ending,
) -> Result<(), Failure> {
    let (mut out, mut err) = (term::raw_output(), term::raw_error());
    let mut outputs = Outputs { out: &mut out, err: &mut err };
    let parting = runtime::attach(line, container, wishes, &mut outputs)?;
    drop((out, err));
    match parting {
        Parting::Ended(_) => match ending.wait(container)? {
            None | Some(0) => Ok(()),
            Some(code) => Err(Failure::quiet(u8::try_from(code).unwrap_or(u8::MAX))),
        },
        other => part(other),
    }
}

/// The other ways to part.
pub(super) fn part(parting: Parting) -> Result<(), Failure> {
    match parting {
        Parting::Ended(None) => Ok(()),
        Parting::Ended(Some(end)) => match end.code() {
            0 => Ok(()),
            code => Err(Failure::quiet(u8::try_from(code).unwrap_or(u8::MAX))),
        },
        Parting::Detached => {
            term::note(&"read escape sequence");
            Ok(())
        }
        // Whoever read the output is gone.
        Parting::Unread => Err(Failure::quiet(0)),
        Parting::Signal(number) => signals::end_by(number),
    }
}

/// A line to be given to the start of a container, and our end of it.
pub(super) fn line(container: &Container) -> Result<(Line, std::os::fd::OwnedFd), RuntimeError> {
    runtime::line_pair().map_err(|errno| RuntimeError::Attach { name: container.record.name.clone(), errno })
}
