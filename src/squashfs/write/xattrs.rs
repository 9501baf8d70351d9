//! The xattr table: each set of extended attributes once, found by number.

use std::collections::HashMap;
use std::io::{Seek, Write};

use super::error::WriteError;
use super::metadata::{MetadataWriter, write_list};
use super::output::Output;
use crate::base::tree::Xattrs;
use crate::squashfs::compress::Compressor;
use crate::squashfs::format::NO_XATTR;
use crate::squashfs::format::limits::{
    MAX_XATTR_NAME_BYTES, MAX_XATTR_SET_BYTES, MAX_XATTR_VALUE_BYTES, MAX_XATTRS,
};

/// Prefixes that the format knows, by number; names are stored without them.
const PREFIXES: [(&[u8], u16); 3] = [(b"user.", 0), (b"trusted.", 1), (b"security.", 2)];

/// Sets of attributes seen so far.
#[derive(Debug)]
pub(super) struct XattrTable {
    compressor: Compressor,
    /// Names and values.
    pairs: MetadataWriter,
    /// 16 bytes for each set: reference to its pairs, count, size in bytes.
    sets: Vec<[u8; 16]>,
    /// Numbers of sets by their bytes.
    numbers: HashMap<Vec<u8>, u32>,
}

/// What is wrong with an attribute.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The attribute's name.
    pub(super) name: String,
    /// In words that go behind "it".
    pub(super) reason: &'static str,
}

impl XattrTable {
    /// An empty table.
    pub(super) fn new(compressor: Compressor) -> Result<Self, WriteError> {
        let pairs = MetadataWriter::new("xattr", compressor)?;
        Ok(Self { compressor, pairs, sets: Vec::new(), numbers: HashMap::new() })
    }

    /// The number of a set, [`NO_XATTR`] for an empty one.
    pub(super) fn number_of(&mut self, xattrs: &Xattrs) -> Result<Result<u32, Fault>, WriteError> {
        if xattrs.is_empty() {
            return Ok(Ok(NO_XATTR));
        }
        let bytes = match set_bytes(xattrs) {
            Ok(bytes) => bytes,
            Err(fault) => return Ok(Err(fault)),
        };
        if let Some(&number) = self.numbers.get(&bytes) {
            return Ok(Ok(number));
        }
        let too_large = WriteError::TableTooLarge { table: "xattr" };
        let (Ok(count), Ok(size), Some(number)) = (
            u32::try_from(xattrs.len()),
            u32::try_from(bytes.len()),
            u32::try_from(self.sets.len()).ok().filter(|&number| number != NO_XATTR),
        ) else {
            return Err(too_large);
        };
        let mut set = [0; 16];
        set[..8].copy_from_slice(&self.pairs.place()?.to_reference().to_le_bytes());
        set[8..12].copy_from_slice(&count.to_le_bytes());
        set[12..].copy_from_slice(&size.to_le_bytes());
        self.pairs.write(&bytes)?;
        self.sets.push(set);
        self.numbers.insert(bytes, number);
        Ok(Ok(number))
    }

    /// Appends the table, if there is anything in it: pairs, sets, and a head that the superblock points at.
    pub(super) fn finish<W: Write + Seek>(self, out: &mut Output<W>) -> Result<Option<u64>, WriteError> {
        if self.sets.is_empty() {
            return Ok(None);
        }
        let pairs_start = out.position();
        self.pairs.finish(out)?;
        let mut sets = MetadataWriter::new("xattr", self.compressor)?;
        for set in &self.sets {
            sets.write(set)?;
        }
        let set_blocks = sets.finish(out)?;
        let head = out.position();
        out.write(&pairs_start.to_le_bytes())?;
        let count = u32::try_from(self.sets.len()).expect("sets are numbered in 32 bits");
        out.write(&count.to_le_bytes())?;
        out.write(&[0; 4])?;
        write_list(out, &set_blocks)?;
        Ok(Some(head))
    }
}

/// A set as it is stored, in the order of names, so that equal sets are equal bytes.
fn set_bytes(xattrs: &Xattrs) -> Result<Vec<u8>, Fault> {
    let mut sorted: Vec<_> = xattrs.iter().collect();
    sorted.sort_unstable();
    let mut bytes = Vec::new();
    for (position, (name, value)) in sorted.iter().enumerate() {
        let fault = |reason| Fault { name: String::from_utf8_lossy(name).into_owned(), reason };
        let known =
            PREFIXES.iter().find_map(|&(prefix, kind)| name.strip_prefix(prefix).map(|rest| (kind, rest)));
        let Some((kind, rest)) = known else {
            return Err(fault("has none of the prefixes user., trusted. and security."));
        };
        if rest.is_empty() || rest.contains(&0) {
            return Err(fault("has no name behind its prefix, or a NUL byte in it"));
        }
        if position > 0 && sorted[position - 1].0 == *name {
            return Err(fault("is there twice"));
        }
        if position >= MAX_XATTRS {
            return Err(fault("comes after 4096 others"));
        }
        if name.len() > MAX_XATTR_NAME_BYTES {
            return Err(fault("has a name longer than 255 bytes"));
        }
        if value.len() > MAX_XATTR_VALUE_BYTES {
            return Err(fault("has a value larger than 65536 bytes"));
        }
        let name_bytes = u16::try_from(rest.len()).expect("checked to be at most 255");
        let value_bytes = u32::try_from(value.len()).expect("checked to be at most 65536");
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&name_bytes.to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice(&value_bytes.to_le_bytes());
        bytes.extend_from_slice(value);
        if bytes.len() > MAX_XATTR_SET_BYTES {
            return Err(fault("makes more than 4 MiB with the others"));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Xattrs {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn equal_sets_have_one_number_in_any_order() {
        let mut table = XattrTable::new(Compressor::Zstd(1)).unwrap();
        let mut check = |pairs: &[(&str, &str)], expected: u32| {
            assert_eq!(table.number_of(&set(pairs)).unwrap().unwrap(), expected);
        };
        check(&[], NO_XATTR);
        check(&[("user.a", "1"), ("user.b", "2")], 0);
        check(&[("user.a", "1")], 1);
        check(&[("user.b", "2"), ("user.a", "1")], 0);
        check(&[("trusted.a", "1")], 2);
        check(&[("user.a", "")], 3);
    }

    #[test]
    fn refuses_what_linux_would_not_show() {
        let long = format!("user.{}", "x".repeat(251));
        let check = |pairs: &[(&str, &str)], expected: &str| {
            let fault = set_bytes(&set(pairs)).unwrap_err();
            assert!(fault.reason.contains(expected), "{fault:?}");
        };
        check(&[("system.posix_acl_access", "")], "prefixes");
        check(&[("user.", "")], "no name");
        check(&[("user.a\0", "")], "NUL");
        check(&[("user.a", ""), ("user.b", ""), ("user.a", "1")], "twice");
        check(&[(&long, "")], "255");
        check(&[("user.a", &"x".repeat(65537))], "65536");
    }
}
