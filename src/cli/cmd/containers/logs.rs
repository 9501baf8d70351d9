//! `logs`: what a container has printed, each line to the stream it came from.

use std::io;
use std::time::Duration;

use jiff::Timestamp;

use crate::runtime::{Container, LogLine, LogReader, Stream};
use crate::sys::pidfd::ProcessHandle;

use super::super::{Session, times};
use super::shelf;
use crate::cli::args::LogsArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// Between two looks at a log that grows.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(super) fn run(args: &LogsArgs, session: &Session) -> Result<(), Failure> {
    let container = shelf(session).find(&args.container)?;
    let now = Timestamp::now();
    let time = |flag: &str, text: &Option<String>| {
        text.as_deref().map(|text| times::parse(&format!("{flag} {text}"), text, now)).transpose()
    };
    let printer = Printer {
        timestamps: args.timestamps,
        since: time("--since", &args.since)?,
        until: time("--until", &args.until)?,
    };
    let mut reader = LogReader::open(&container.log_path());
    // As docker has it, what is no number is all.
    if let Ok(count) = args.tail.parse::<usize>() {
        let lines = reader.tail(count).map_err(|error| unreadable(&container, &error))?;
        lines.iter().try_for_each(|line| printer.print(line))?;
    }
    if args.follow {
        follow(&container, &mut reader, &printer)
    } else {
        printer.drain(&container, &mut reader)
    }
}

/// Which lines are printed, and how.
#[derive(Debug, Default)]
pub(super) struct Printer {
    /// Each line with its time.
    pub(super) timestamps: bool,
    /// Nothing older.
    pub(super) since: Option<Timestamp>,
    /// Nothing newer.
    pub(super) until: Option<Timestamp>,
}

impl Printer {
    fn print(&self, line: &LogLine) -> Result<(), Failure> {
        if self.since.is_some_and(|since| line.time < since)
            || self.until.is_some_and(|until| line.time > until)
        {
            return Ok(());
        }
        let stamp = if self.timestamps { format!("{:.9} ", line.time) } else { String::new() };
        let result = match line.stream {
            Stream::Stdout => write(&mut term::raw_output(), &stamp, &line.log),
            Stream::Stderr => write(&mut term::raw_error(), &stamp, &line.log),
        };
        result.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::quiet(0),
            _ => Failure::new(format!("cannot write to standard output: {error}"), None),
        })
    }

    fn drain(&self, container: &Container, reader: &mut LogReader) -> Result<(), Failure> {
        while let Some(line) = reader.next_line().map_err(|error| unreadable(container, &error))? {
            self.print(&line)?;
        }
        Ok(())
    }
}

fn write(out: &mut impl io::Write, stamp: &str, text: &str) -> io::Result<()> {
    out.write_all(stamp.as_bytes())?;
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints what comes until the container has ended.
pub(super) fn follow(
    container: &Container,
    reader: &mut LogReader,
    printer: &Printer,
) -> Result<(), Failure> {
    let monitor: Option<ProcessHandle> = container.record.monitor.and_then(|id| id.open());
    loop {
        // Asked before the last look, so that nothing that was printed before the end is missed.
        let has_ended = match &monitor {
            Some(monitor) => monitor.wait(Some(LOOK_AGAIN)).unwrap_or(true),
            None => true,
        };
        printer.drain(container, reader)?;
        if has_ended || printer.until.is_some_and(|until| Timestamp::now() > until) {
            return Ok(());
        }
    }
}

pub(super) fn unreadable(container: &Container, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read `{}`: {error}", container.log_path().display()), None)
}
