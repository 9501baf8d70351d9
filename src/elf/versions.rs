//! Symbol versions: which glibc a library needs (`.gnu.version_r`), and which one a C library is (`.gnu.version_d`).
//!
//! ```text
//! record { …, count, …, to its names, to the next record } ──▶ name { …, place of the text, to the next name }
//! ```
//!
//! Format: "Symbol Versioning" in the Linux Standard Base, core, 10.7.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::ReadAt;

use super::{Class, ElfError, Object, read, u16_at, u32_at};

const TAG_DEFINED: u64 = 0x6fff_fffc;
const TAG_NEEDED: u64 = 0x6fff_fffe;
/// Most names of versions that are read; glibc 2.41 defines 45.
const MAX_NAMES: usize = 2048;
/// VER_FLG_WEAK: the loader takes another version in its place.
const FLAG_WEAK: u16 = 2;

/// A release of glibc, by the name of its symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GlibcVersion {
    /// 2 for all there are.
    pub major: u32,
    /// The number that counts.
    pub minor: u32,
}

impl GlibcVersion {
    /// Reads the name of a version (`GLIBC_2.34`). Other names say nothing of the release, but for that of the packed
    /// relocations, which came with 2.36.
    #[must_use]
    pub fn of_symbols(name: &str) -> Option<Self> {
        if name == "GLIBC_ABI_DT_RELR" {
            return Some(Self { major: 2, minor: 36 });
        }
        Self::parse(name.strip_prefix("GLIBC_")?)
    }

    /// Reads the file name that C libraries had until 2.33 (`libc-2.31.so`).
    #[must_use]
    pub fn of_file_name(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix("libc-")?.strip_suffix(".so")?)
    }

    fn parse(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        match numbers?[..] {
            [major, minor] | [major, minor, _] => Some(Self { major, minor }),
            _ => None,
        }
    }
}

impl fmt::Display for GlibcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The oldest glibc with which the loader takes a 64-bit library; `None` if it asks for none.
pub fn glibc_needed<R: ReadAt + ?Sized>(file: &R) -> Result<Option<GlibcVersion>, ElfError> {
    newest(file, TAG_NEEDED)
}

/// The release that a 64-bit C library is; `None` if it is no glibc.
pub fn glibc_defined<R: ReadAt + ?Sized>(file: &R) -> Result<Option<GlibcVersion>, ElfError> {
    newest(file, TAG_DEFINED)
}

fn newest<R: ReadAt + ?Sized>(file: &R, tag: u64) -> Result<Option<GlibcVersion>, ElfError> {
    let object = Object::read(file, Class::Bits64)?;
    let names = names(file, &object, tag)?;
    Ok(names.iter().filter_map(|name| GlibcVersion::of_symbols(name)).max())
}

/// Fields of the two tables: bytes of a record and of a name, and where in them the numbers lie.
struct Layout {
    record_bytes: usize,
    count_at: usize,
    to_names_at: usize,
    to_next_at: usize,
    name_bytes: usize,
    flags_at: Option<usize>,
    text_at: usize,
    to_next_name_at: usize,
}

const NEEDED: Layout = Layout {
    record_bytes: 16,
    count_at: 2,
    to_names_at: 8,
    to_next_at: 12,
    name_bytes: 16,
    flags_at: Some(4),
    text_at: 8,
    to_next_name_at: 12,
};
const DEFINED: Layout = Layout {
    record_bytes: 20,
    count_at: 6,
    to_names_at: 12,
    to_next_at: 16,
    name_bytes: 8,
    flags_at: None,
    text_at: 0,
    to_next_name_at: 4,
};

fn names<R: ReadAt + ?Sized>(file: &R, object: &Object, tag: u64) -> Result<Vec<String>, ElfError> {
    const WHAT: &str = "symbol versions";
    let damaged = || ElfError::Damaged { what: WHAT };
    let layout = if tag == TAG_NEEDED { &NEEDED } else { &DEFINED };
    let Some(address) = object.value(tag) else { return Ok(Vec::new()) };
    let mut at = object.offset_of(address).ok_or_else(damaged)?;
    let (mut names, mut steps) = (Vec::new(), 0);
    let mut buffer = [0; 20];
    loop {
        let record = buffer.get_mut(..layout.record_bytes).unwrap_or_default();
        read(file, record, at, WHAT)?;
        let (count, to_next) = (u16_at(record, layout.count_at), u32_at(record, layout.to_next_at));
        let mut place = at.checked_add(u32_at(record, layout.to_names_at).into()).ok_or_else(damaged)?;
        for _ in 0..count {
            steps += 1;
            if steps > MAX_NAMES {
                return Err(damaged());
            }
            let name = buffer.get_mut(..layout.name_bytes).unwrap_or_default();
            read(file, name, place, WHAT)?;
            let is_weak = layout.flags_at.is_some_and(|at| u16_at(name, at) & FLAG_WEAK != 0);
            let (text, next) = (u32_at(name, layout.text_at), u32_at(name, layout.to_next_name_at));
            if !is_weak {
                names.push(object.string(file, text.into(), WHAT)?);
            }
            if next == 0 {
                break;
            }
            place = place.checked_add(next.into()).ok_or_else(damaged)?;
        }
        steps += 1;
        if to_next == 0 {
            return Ok(names);
        }
        if steps > MAX_NAMES {
            return Err(damaged());
        }
        at = at.checked_add(to_next.into()).ok_or_else(damaged)?;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the C library of the machine is the example")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A library whose table of needed (`flags` before each name) or defined versions has these names.
    fn library(tag: u64, versions: &[(u16, String)]) -> Vec<u8> {
        let mut strings = vec![0];
        let places: Vec<u32> = versions
            .iter()
            .map(|(_, name)| {
                let place = u32::try_from(strings.len()).unwrap();
                strings.extend(name.bytes().chain([0]));
                place
            })
            .collect();
        let mut table = Vec::new();
        let count = u16::try_from(versions.len()).unwrap();
        if tag == TAG_NEEDED {
            table.extend([1_u16, count].map(u16::to_le_bytes).concat());
            table.extend([0_u32, 16, 0].map(u32::to_le_bytes).concat());
            for (index, ((flags, _), place)) in versions.iter().zip(&places).enumerate() {
                table.extend(0_u32.to_le_bytes());
                table.extend([*flags, 0].map(u16::to_le_bytes).concat());
                let next = if index + 1 < versions.len() { 16 } else { 0 };
                table.extend([*place, next].map(u32::to_le_bytes).concat());
            }
        } else {
            for (index, place) in places.iter().enumerate() {
                table.extend([1_u16, 0, 1, 1].map(u16::to_le_bytes).concat());
                let next = if index + 1 < versions.len() { 28 } else { 0 };
                table.extend([0_u32, 20, next, *place, 0].map(u32::to_le_bytes).concat());
            }
        }
        let table_at = 64 + 2 * 56 + 3 * 16;
        let strings_at = table_at + table.len();
        let size = (strings_at + strings.len()) as u64;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([3_u16, 62].map(u16::to_le_bytes).concat());
        file.resize(32, 0);
        file.extend(64_u64.to_le_bytes());
        file.resize(54, 0);
        file.extend([56_u16, 2].map(u16::to_le_bytes).concat());
        file.resize(64, 0);
        for (kind, at, bytes) in [(1_u32, 0, size), (2, 176, 3 * 16)] {
            file.extend([kind, 4].map(u32::to_le_bytes).concat());
            file.extend([at, 0x1000 + at, 0x1000 + at, bytes, bytes, 8].map(u64::to_le_bytes).concat());
        }
        let dynamic = [(5, 0x1000 + strings_at as u64), (tag, 0x1000 + table_at as u64), (0, 0)];
        for (tag, value) in if versions.is_empty() { [(5, 0), (0, 0), (0, 0)] } else { dynamic } {
            file.extend([tag, value].map(u64::to_le_bytes).concat());
        }
        file.extend(table);
        file.extend(strings);
        file.resize(file.len().max(512), 0);
        file
    }

    fn version(minor: u32) -> GlibcVersion {
        GlibcVersion { major: 2, minor }
    }

    #[test]
    fn names_say_a_release() {
        let check = |name: &str, expected: Option<u32>| {
            assert_eq!(GlibcVersion::of_symbols(name), expected.map(version), "{name}");
        };
        check("GLIBC_2.34", Some(34));
        check("GLIBC_2.2.5", Some(2));
        check("GLIBC_ABI_DT_RELR", Some(36));
        for name in ["GLIBC_PRIVATE", "GLIBCXX_3.4", "GLIBC_2", "GLIBC_2.x", "GLIBC_2.3.4.5", ""] {
            check(name, None);
        }
        assert_eq!(GlibcVersion::of_file_name("libc-2.31.so"), Some(version(31)));
        assert_eq!(GlibcVersion::of_file_name("libc.so.6"), None);
        assert_eq!(version(31).to_string(), "2.31");
    }

    #[test]
    fn the_newest_version_that_is_no_weak_one_counts() {
        let rows = |names: &[(u16, &str)]| -> Vec<(u16, String)> {
            names.iter().map(|(flags, name)| (*flags, (*name).to_owned())).collect()
        };
        let file = library(
            TAG_NEEDED,
            &rows(&[(0, "GLIBC_2.28"), (0, "GLIBC_2.9"), (2, "GLIBC_2.38"), (0, "X_9.9")]),
        );
        assert_eq!(glibc_needed(&file).unwrap(), Some(version(28)));
        assert_eq!(glibc_defined(&file).unwrap(), None);
        let file = library(TAG_DEFINED, &rows(&[(0, "libc.so.6"), (0, "GLIBC_2.17"), (0, "GLIBC_PRIVATE")]));
        assert_eq!(glibc_defined(&file).unwrap(), Some(version(17)));
        assert_eq!(glibc_needed(&library(TAG_NEEDED, &[])).unwrap(), None);
    }

    #[test]
    fn the_machines_own_c_library_is_as_new_as_the_test() {
        let Some(path) =
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6"]
                .into_iter()
                .find(|path| std::path::Path::new(path).exists())
        else {
            return;
        };
        let libc = std::fs::read(path).unwrap();
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let (has, needs) = (glibc_defined(&libc).unwrap().unwrap(), glibc_needed(&own).unwrap());
        assert!(has >= version(17) && needs.is_none_or(|needs| needs <= has), "{has} {needs:?}");
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let rows = [(0, "GLIBC_2.28".to_owned()), (0, "GLIBC_2.9".to_owned())];
        for tag in [TAG_NEEDED, TAG_DEFINED] {
            let good = library(tag, &rows);
            for at in 0..good.len() {
                let _any = newest(&good[..at], tag);
                for value in [0, 1, 0x7f, 0xff] {
                    let mut bad = good.clone();
                    bad[at] = value;
                    let _any = newest(&bad, tag);
                }
            }
        }
        // A count that no library has ends, though each name leads to a further one.
        let many: Vec<_> = (0..3000).map(|_| (0, "GLIBC_2.28".to_owned())).collect();
        let error = glibc_needed(&library(TAG_NEEDED, &many)).unwrap_err();
        assert_eq!(error.to_string(), "damaged ELF file: bad symbol versions");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_written_is_read_again(
            versions in proptest::collection::vec((0_u16..4, 0_u32..60), 0..40),
            needed in any::<bool>(),
        ) {
            let tag = if needed { TAG_NEEDED } else { TAG_DEFINED };
            let rows: Vec<_> = versions.iter().map(|(flags, minor)| (*flags, format!("GLIBC_2.{minor}"))).collect();
            let counts = |flags: &u16| !needed || flags & FLAG_WEAK == 0;
            let expected = versions.iter().filter(|(flags, _)| counts(flags)).map(|(_, minor)| version(*minor)).max();
            prop_assert_eq!(newest(&library(tag, &rows), tag).unwrap(), expected);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400), tag in any::<bool>()) {
            let mut file = library(TAG_NEEDED, &[(0, "GLIBC_2.28".to_owned())]);
            let start = file.len().saturating_sub(bytes.len());
            file.truncate(start);
            file.extend(&bytes);
            let _any = newest(&file, if tag { TAG_NEEDED } else { TAG_DEFINED });
        }
    }
}
