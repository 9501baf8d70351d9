//! PAX extended headers: `LENGTH KEY=VALUE\n` records (POSIX `pax`, "pax Extended Header").

use super::sparse::{MAX_SPARSE_SEGMENTS, Segment};

/// Most attributes of one member. Linux lists at most 64 KiB of names.
const MAX_XATTRS: usize = 4096;

/// What extension headers say about one member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaxFields {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size_bytes: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<i64>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseFields,
}

/// The `GNU.sparse.*` keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SparseFields {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` (0.x) or `GNU.sparse.realsize` (1.0).
    pub(super) real_size: Option<u64>,
    pub(super) segment_count: Option<u64>,
    /// The map of 0.0 and 0.1.
    pub(super) map: Option<Vec<Segment>>,
    /// A 0.0 offset whose length has not come yet.
    open_offset: Option<u64>,
}

impl PaxFields {
    /// Reads the records of one header over what is known. A later record of the same key wins, an empty value
    /// deletes what was there.
    pub(super) fn apply(&mut self, mut data: &[u8]) -> Result<(), &'static str> {
        while !data.is_empty() {
            let (record, rest) = split_record(data)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or("a record has no `=`")?;
            if equals == 0 {
                return Err("a record has no key");
            }
            self.set(&record[..equals], &record[equals + 1..])?;
            data = rest;
        }
        if self.sparse.open_offset.is_some() {
            return Err("a sparse offset has no length");
        }
        Ok(())
    }

    /// Keeps only what can be meant for all members: not a name, a link or a size.
    pub(super) fn keep_global(&mut self) {
        let Self { uid, gid, mtime, xattrs, .. } = std::mem::take(self);
        *self = Self { uid, gid, mtime, xattrs, ..Self::default() };
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link = text(value)?,
            b"size" => self.size_bytes = decimal(value)?,
            b"uid" => self.uid = decimal(value)?,
            b"gid" => self.gid = decimal(value)?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(seconds(value)?) },
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.set_xattr(name.to_vec(), value.to_vec())?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    self.set_xattr(percent_decode(name), base64_decode(value)?)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(name, value)?;
                }
            }
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), &'static str> {
        if name.is_empty() || name.contains(&0) {
            return Err("an attribute has no valid name");
        }
        self.xattrs.retain(|(known, _)| *known != name);
        if value.is_empty() {
            return Ok(());
        }
        if self.xattrs.len() == MAX_XATTRS {
            return Err("too many extended attributes");
        }
        self.xattrs.push((name, value));
        Ok(())
    }
}

impl SparseFields {
    /// True if any key says that the member is sparse.
    pub(super) fn is_sparse(&self) -> bool {
        self.major.is_some() || self.map.is_some() || self.real_size.is_some()
    }

    fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match name {
            b"major" => self.major = decimal(value)?,
            b"minor" => self.minor = decimal(value)?,
            b"name" => self.name = text(value)?,
            b"size" | b"realsize" => self.real_size = decimal(value)?,
            b"numblocks" => self.segment_count = decimal(value)?,
            b"offset" => {
                if self.open_offset.is_some() {
                    return Err("a sparse offset has no length");
                }
                self.open_offset = Some(decimal(value)?.ok_or("a sparse offset is empty")?);
            }
            b"numbytes" => {
                let offset = self.open_offset.take().ok_or("a sparse length has no offset")?;
                let length = decimal(value)?.ok_or("a sparse length is empty")?;
                self.push(Segment { offset, length })?;
            }
            b"map" => {
                self.map = None;
                let mut numbers = value.split(|&byte| byte == b',');
                while let Some(offset) = numbers.next().filter(|_| !value.is_empty()) {
                    let offset = decimal(offset)?.ok_or("a sparse offset is empty")?;
                    let length = numbers.next().ok_or("a sparse offset has no length")?;
                    self.push(Segment {
                        offset,
                        length: decimal(length)?.ok_or("a sparse length is empty")?,
                    })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, segment: Segment) -> Result<(), &'static str> {
        let map = self.map.get_or_insert_default();
        if map.len() == MAX_SPARSE_SEGMENTS {
            return Err("the sparse map is too long");
        }
        map.push(segment);
        Ok(())
    }
}

/// Splits `LENGTH KEY=VALUE\n` off and gives its middle; the length counts the whole record.
fn split_record(data: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    const BAD_LENGTH: &str = "a record has no valid length";
    let space = data.iter().take(20).position(|&byte| byte == b' ').ok_or(BAD_LENGTH)?;
    let length =
        decimal(&data[..space])?.and_then(|length| usize::try_from(length).ok()).ok_or(BAD_LENGTH)?;
    if length <= space + 1 || length > data.len() {
        return Err(BAD_LENGTH);
    }
    let (record, rest) = data.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n").ok_or("a record does not end with a newline")?;
    Ok((record, rest))
}

/// A name; `None` if empty.
fn text(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("a name holds a NUL byte");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// Decimal digits only; `None` if empty.
pub(super) fn decimal(value: &[u8]) -> Result<Option<u64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    value
        .iter()
        .try_fold(0_u64, |sum, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            sum.checked_mul(10)?.checked_add(digit)
        })
        .map(Some)
        .ok_or("a number is not a number")
}

/// `[-]SECONDS[.FRACTION]`, rounded down.
fn seconds(value: &[u8]) -> Result<i64, &'static str> {
    const BAD_TIME: &str = "a time is not a number";
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |&byte| byte == b'.');
    let whole = decimal(parts.next().unwrap_or_default())?.ok_or(BAD_TIME)?;
    let whole = i64::try_from(whole).map_err(|_| BAD_TIME)?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(BAD_TIME);
    }
    let has_fraction = fraction.iter().any(|&byte| byte != b'0');
    Ok(if negative { (-whole).saturating_sub(i64::from(has_fraction)) } else { whole })
}

/// `%XX` of libarchive's attribute names.
fn percent_decode(name: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    decoded
}

/// Base64 with or without padding, as libarchive writes attribute values.
fn base64_decode(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    let unpadded = value.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    let mut decoded = Vec::with_capacity(unpadded / 4 * 3 + 2);
    let mut bits = 0_u32;
    let mut bit_count = 0;
    for &byte in &value[..unpadded] {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err("an attribute value is not base64"),
        };
        bits = (bits << 6 | u32::from(digit)) & 0xffff;
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            decoded.push((bits >> bit_count).to_be_bytes()[3]);
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        crate::tarlayer::testing::pax_record(key.as_bytes(), value)
    }

    #[test]
    fn records() {
        let check = |records: &[(&str, &[u8])], expected: PaxFields| {
            let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            let mut fields = PaxFields::default();
            assert_eq!(fields.apply(&data), Ok(()), "{records:?}");
            assert_eq!(fields, expected, "{records:?}");
        };
        let none = PaxFields::default;
        check(
            &[("path", b"a"), ("path", b"b\n\xff")],
            PaxFields { path: Some(b"b\n\xff".to_vec()), ..none() },
        );
        check(&[("path", b"a"), ("path", b"")], none());
        check(&[("size", b"99999999999")], PaxFields { size_bytes: Some(99_999_999_999), ..none() });
        check(&[("mtime", b"1.999999999")], PaxFields { mtime: Some(1), ..none() });
        check(&[("mtime", b"-1.5")], PaxFields { mtime: Some(-2), ..none() });
        check(&[("mtime", b"-1.0")], PaxFields { mtime: Some(-1), ..none() });
        check(
            &[("SCHILY.xattr.user.a", b"\n\0=1"), ("LIBARCHIVE.xattr.user.%25b", b"AAEC/w")],
            PaxFields {
                xattrs: vec![
                    (b"user.a".to_vec(), b"\n\0=1".to_vec()),
                    (b"user.%b".to_vec(), vec![0, 1, 2, 255]),
                ],
                ..none()
            },
        );
        check(&[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.a", b"")], none());
        check(&[("comment", b"x"), ("atime", b"what"), ("VENDOR.x", b"")], none());
    }

    #[test]
    fn refuses() {
        let long = record("path", b"x");
        for data in [
            &b"x"[..],
            b"5 a=b",
            b"6 a=b\n\n",
            b"7 a=b\n",
            b"99 a=b\n",
            b"2 \n",
            b"4 =\n",
            b"5 ab\n",
            b"-6 a=b\n",
            b"18446744073709551617 a=b\n",
            &long[..long.len() - 1],
            &record("path", b"a\0b"),
            &record("size", b"-1"),
            &record("size", b"0x1"),
            &record("size", b"18446744073709551616"),
            &record("mtime", b"1.x"),
            &record("mtime", b"."),
            &record("SCHILY.xattr.", b"x"),
            &record("LIBARCHIVE.xattr.user.a", b"!"),
            &record("GNU.sparse.numbytes", b"1"),
            &record("GNU.sparse.offset", b"1"),
            &record("GNU.sparse.map", b"1,2,3"),
        ] {
            assert!(PaxFields::default().apply(data).is_err(), "{data:?}");
        }
    }
}
