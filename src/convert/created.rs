//! The time of an image: RFC 3339 text to Unix seconds. The one door to `jiff` here.

/// The seconds of `created`; `None` for what is no RFC 3339 time.
pub(super) fn parse_created(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// As a squashfs holds times: 32 bits from 1970 on, so times before or after are cut to its ends.
pub(super) fn to_u32(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_builders_write() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2023-11-14T22:13:20.123456789Z", Some(1_700_000_000)),
            ("2023-11-14T23:13:20+01:00", Some(1_700_000_000)),
            ("0001-01-01T00:00:00Z", Some(crate::sif::ZERO_TIME)),
            ("1969-12-31T23:59:59Z", Some(-1)),
            ("", None),
            ("yesterday", None),
            ("2023-11-14", None),
        ] {
            assert_eq!(parse_created(text), expected, "{text}");
        }
        assert_eq!([i64::MIN, -1, 5, i64::MAX].map(to_u32), [0, 0, 5, u32::MAX]);
    }
}
