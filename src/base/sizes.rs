//! Sizes in words: Docker's decimal units for output, and a parser for both kinds of unit.

/// A size as Docker prints it: three significant digits on powers of 1000 (`1.23MB`).
///
/// ```
/// use slipway::base::sizes::human_size;
/// assert_eq!(human_size(0), "0B");
/// assert_eq!(human_size(74_800_000), "74.8MB");
/// ```
#[must_use]
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 0;
    #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
    let mut value = bytes as f64;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text.as_str() };
    format!("{text}{}", UNITS[unit])
}

/// Reads `64`, `64k`, `1.5GB`, `2MiB`: plain letters and `iB` are powers of 1024, `kB`, `MB` … powers of 1000 would
/// surprise Docker's users, who write `--shm-size 1GB` and get 1 GiB; so every unit is a power of 1024, as Docker reads it.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let value: f64 = number.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "the factor is a power of two")]
    let scaled = value * (1_u64 << shift) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked against the range")]
    (scaled.is_finite() && (0.0..9.0e18).contains(&scaled)).then_some(scaled as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, expected) in [
            ("64", Some(64)),
            ("1k", Some(1024)),
            ("1.5G", Some(1_610_612_736)),
            ("2MiB", Some(2 << 20)),
            ("x", None),
            ("", None),
            ("1q", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
        for (bytes, expected) in [(999, "999B"), (1000, "1kB"), (1234, "1.23kB"), (123_456_789, "123MB")] {
            assert_eq!(human_size(bytes), expected);
        }
    }
}
