//! Times as docker's flags take them.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::cli::failure::Failure;

/// A time, or the error that names the words that should be one.
pub(super) fn parse(shown: &str, text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    parse_time(text, now).ok_or_else(|| {
        Failure::new(
            format!("`{shown}` is neither a time nor a duration"),
            "write 2026-01-31T12:00:00Z, seconds since 1970, or 10m for ten minutes ago",
        )
    })
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
