//! `logs`: what a container has printed, each line to the stream it came from.

use std::io;
use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::runtime::{Container, LogLine, LogReader, Stream};
use crate::sys::pidfd::ProcessHandle;

use super::super::Session;
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
        text.as_deref().map(|text| parse_time(text, now).ok_or_else(|| bad_time(flag, text))).transpose()
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

fn bad_time(flag: &str, text: &str) -> Failure {
    Failure::new(
        format!("`{flag} {text}` is neither a time nor a duration"),
        "write 2026-01-31T12:00:00Z, seconds since 1970, or 10m for ten minutes ago",
    )
}

/// RFC 3339 with or without zone (UTC) and time, seconds since 1970, or a duration before `now`.
fn parse_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Some(nanoseconds) = parse_seconds(text) {
        return Timestamp::from_nanosecond(nanoseconds).ok();
    }
    if let Some(duration) = parse_duration(text) {
        return now.checked_sub(duration).ok();
    }
    let civil = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(DateTime::from)).ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// `12.5` as nanoseconds.
fn parse_seconds(text: &str) -> Option<i128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty()
        || part.len() > 9
        || !whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let part: i128 = format!("{part:0<9}").parse().ok()?;
    whole.parse::<i128>().ok()?.checked_mul(1_000_000_000)?.checked_add(part)
}

/// A duration as Go writes it: `1h30m`, `45s`, `1.5h`, `200ms`.
fn parse_duration(text: &str) -> Option<SignedDuration> {
    let mut total = SignedDuration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit_ns: i128 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let nanoseconds = parse_seconds(number)?.checked_mul(unit_ns)? / 1_000_000_000;
        total = total.checked_add(SignedDuration::from_nanos(i64::try_from(nanoseconds).ok()?))?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_docker_s() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-01-30T00:00:00Z", Some("2026-01-30T00:00:00Z")),
            ("2026-01-30T01:00:00+01:00", Some("2026-01-30T00:00:00Z")),
            ("2026-01-30T00:00:00", Some("2026-01-30T00:00:00Z")),
            ("2026-01-30", Some("2026-01-30T00:00:00Z")),
            ("1769860800", Some("2026-01-31T12:00:00Z")),
            ("1769860800.5", Some("2026-01-31T12:00:00.5Z")),
            ("10m", Some("2026-01-31T11:50:00Z")),
            ("1h30m", Some("2026-01-31T10:30:00Z")),
            ("1.5h", Some("2026-01-31T10:30:00Z")),
            ("250ms", Some("2026-01-31T11:59:59.75Z")),
            ("10 m", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text, now).map(|time| time.to_string()).as_deref(), expected, "{text}");
        }
    }
}
