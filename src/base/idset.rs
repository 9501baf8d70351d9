//! Lists of small numbers as Slurm and Linux write them: `0-3,8,10-11`.

/// Most members one list may have; Slurm's own limit for a range is 65536.
const MAX_MEMBERS: usize = 65_536;

/// Reads `0-3,8` into its numbers, in the order written. `None` for anything else, also for an empty item.
///
/// ```
/// use slipway::base::idset::parse_ids;
/// assert_eq!(parse_ids("0-2,7"), Some(vec![0, 1, 2, 7]));
/// assert_eq!(parse_ids("3-1"), None);
/// ```
#[must_use]
pub fn parse_ids(text: &str) -> Option<Vec<u32>> {
    let mut ids = Vec::new();
    for item in text.trim().split(',') {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        let (low, high): (u32, u32) = (parse_decimal(low)?, parse_decimal(high)?);
        let count = usize::try_from(high.checked_sub(low)?).ok()?.checked_add(1)?;
        if ids.len() + count > MAX_MEMBERS {
            return None;
        }
        ids.extend(low..=high);
    }
    Some(ids)
}

/// Numbers in ascending order as a list with ranges: `0-3,8`.
///
/// ```
/// use slipway::base::idset::write_ids;
/// assert_eq!(write_ids(&[0, 1, 2, 7]), "0-2,7");
/// ```
#[must_use]
pub fn write_ids(ids: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some((_, high)) if high.checked_add(1) == Some(*id) => *high = *id,
            _ => ranges.push((*id, *id)),
        }
    }
    let item = |(low, high): (u32, u32)| if low == high { low.to_string() } else { format!("{low}-{high}") };
    ranges.into_iter().map(item).collect::<Vec<_>>().join(",")
}

/// Digits only: `u32::from_str` would take a plus sign.
fn parse_decimal(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists() {
        for (text, expected) in [
            ("0", Some(vec![0])),
            ("10,2", Some(vec![10, 2])),
            ("", None),
            ("1,", None),
            ("a", None),
            ("+1", None),
            ("0-70000", None),
            ("4294967295", Some(vec![u32::MAX])),
            ("4294967296", None),
        ] {
            assert_eq!(parse_ids(text), expected, "{text}");
        }
    }
}
