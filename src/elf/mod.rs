//! ELF facts that a launch needs (machine, loader, SONAME) and the loader's cache (`ld.so.cache`). Pure.
//!
//! [`machine`] and [`interpreter`] explain a program that cannot be executed, from the first bytes of the file.
//! [`shared_object`] reads what is needed to offer a driver library to the loader; [`note()`] what its maker says of it.
//! [`versions`] says which C library it needs. [`cache`] is the loader's own index.

pub mod cache;
mod note;
pub mod versions;

use std::io;

use crate::base::ReadAt;

pub use note::note;

/// Most program headers that are looked at; real files have about a dozen.
const MAX_PROGRAM_HEADERS: u16 = 64;
/// Most bytes of a dynamic section; each entry takes 16, and real libraries have about 40.
const MAX_DYNAMIC_BYTES: u64 = 64 << 10;
/// Longest name, the limit of a file's.
const MAX_NAME_BYTES: usize = 255;
/// Bytes that are read at a time: names are short.
const NAME_PART_BYTES: usize = 64;

/// The name of every machine that has none here.
pub const UNKNOWN_MACHINE: &str = "an unknown machine";

const PROGRAM_LOAD: u32 = 1;
const PROGRAM_DYNAMIC: u32 = 2;
const PROGRAM_INTERPRETER: u32 = 3;
const TYPE_SHARED_OBJECT: u16 = 3;
const TAG_NULL: u64 = 0;
const TAG_STRING_TABLE: u64 = 5;
const TAG_SONAME: u64 = 14;

/// What the loader would want to know of a shared library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedObject {
    /// The machine by its Rust name (`x86_64`).
    pub machine: &'static str,
    /// DT_SONAME, if the file has one.
    pub soname: Option<String>,
}

/// Why a file is no shared library that can be offered to the loader.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It does not begin as a 64-bit little-endian ELF file does.
    #[error("not a 64-bit little-endian ELF file")]
    NotElf64,
    /// It is ELF, but a program, an object file or a core.
    #[error("not a shared object")]
    NotShared,
    /// A header points outside the file, or has a size that no real library has.
    #[error("damaged ELF file: bad {what}")]
    Damaged {
        /// The header or table.
        what: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read the {what}")]
    Read {
        /// The part that was asked for.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// The machine of an ELF file by its Rust name (`x86_64`), from the file's first 20 bytes. `None` if it is not ELF.
#[must_use]
pub fn machine(head: &[u8]) -> Option<&'static str> {
    let little = data_encoding(head)? == 1;
    let raw: [u8; 2] = head.get(18..20)?.try_into().ok()?;
    Some(machine_name(if little { u16::from_le_bytes(raw) } else { u16::from_be_bytes(raw) }))
}

/// The loader that a 64-bit little-endian program names, from the file's first bytes (4 KiB hold it in practice).
#[must_use]
pub fn interpreter(head: &[u8]) -> Option<String> {
    data_encoding(head)?;
    let number = |at: usize, len: usize| -> Option<usize> {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(head.get(at..at.checked_add(len)?)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let (table, entry_bytes, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count.min(usize::from(MAX_PROGRAM_HEADERS)) {
        let entry = table.checked_add(entry_bytes.checked_mul(index)?)?;
        if u32::try_from(number(entry, 4)?) == Ok(PROGRAM_INTERPRETER) {
            let text = head.get(number(entry.checked_add(8)?, 8)?..)?;
            let end = text.iter().position(|byte| *byte == 0)?;
            return Some(String::from_utf8_lossy(&text[..end]).into_owned());
        }
    }
    None
}

/// Reads machine and SONAME of a 64-bit little-endian shared library.
pub fn shared_object<R: ReadAt + ?Sized>(file: &R) -> Result<SharedObject, ElfError> {
    Object::read(file, Class::Bits64)?.describe(file)
}

/// The same of a 32-bit one.
pub fn shared_object_32<R: ReadAt + ?Sized>(file: &R) -> Result<SharedObject, ElfError> {
    Object::read(file, Class::Bits32)?.describe(file)
}

/// Where the numbers of a header lie depends on how wide its addresses are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Bits64,
    Bits32,
}

impl Class {
    fn magic(self) -> &'static [u8] {
        match self {
            Self::Bits64 => b"\x7fELF\x02\x01",
            Self::Bits32 => b"\x7fELF\x01\x01",
        }
    }

    /// Bytes of a program header.
    fn segment_bytes(self) -> u16 {
        match self {
            Self::Bits64 => 56,
            Self::Bits32 => 32,
        }
    }
}

/// The header of a shared library.
fn read_head<R: ReadAt + ?Sized>(file: &R, class: Class) -> Result<[u8; 64], ElfError> {
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0).map_err(|_| ElfError::NotElf64)?;
    if !head.starts_with(class.magic()) {
        return Err(ElfError::NotElf64);
    }
    if u16_at(&head, 16) != TYPE_SHARED_OBJECT {
        return Err(ElfError::NotShared);
    }
    Ok(head)
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
}

/// The parts of a shared library that lead to its names.
struct Object {
    machine: &'static str,
    segments: Vec<Segment>,
    /// Tag and value.
    dynamic: Vec<(u64, u64)>,
}

impl Object {
    fn read<R: ReadAt + ?Sized>(file: &R, class: Class) -> Result<Self, ElfError> {
        let head = read_head(file, class)?;
        let segments = read_segments(file, &head, class)?;
        let dynamic = match segments.iter().find(|segment| segment.kind == PROGRAM_DYNAMIC) {
            None => Vec::new(),
            Some(place) => read_dynamic(file, place, class)?,
        };
        Ok(Self { machine: machine_name(u16_at(&head, 18)), segments, dynamic })
    }

    fn describe<R: ReadAt + ?Sized>(&self, file: &R) -> Result<SharedObject, ElfError> {
        let soname = match (self.value(TAG_STRING_TABLE), self.value(TAG_SONAME)) {
            (Some(_), Some(name)) => Some(self.string(file, name, "SONAME")?),
            _ => None,
        };
        match soname {
            Some(name) if name.is_empty() || name.contains('/') => Err(ElfError::Damaged { what: "SONAME" }),
            soname => Ok(SharedObject { machine: self.machine, soname }),
        }
    }

    /// The value of the last entry with a tag.
    fn value(&self, tag: u64) -> Option<u64> {
        self.dynamic.iter().rev().find(|entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// Tables are named by their addresses in memory; the file offset follows from the segment that loads them.
    fn offset_of(&self, address: u64) -> Option<u64> {
        self.segments.iter().filter(|segment| segment.kind == PROGRAM_LOAD).find_map(|segment| {
            let inside = address.checked_sub(segment.address)?;
            (inside < segment.file_bytes).then(|| segment.offset.checked_add(inside))?
        })
    }

    /// The text at a place of the string table.
    fn string<R: ReadAt + ?Sized>(
        &self,
        file: &R,
        place: u64,
        what: &'static str,
    ) -> Result<String, ElfError> {
        let table = self.value(TAG_STRING_TABLE).and_then(|address| self.offset_of(address));
        let at = table
            .and_then(|table| table.checked_add(place))
            .ok_or(ElfError::Damaged { what: "string table" })?;
        let mut text = Vec::new();
        let mut part = [0; NAME_PART_BYTES];
        let end = loop {
            if let Some(end) = text.iter().position(|byte| *byte == 0) {
                break end;
            }
            let next = at.checked_add(text.len() as u64).ok_or(ElfError::Damaged { what })?;
            let count = file.read_at(&mut part, next).map_err(|source| ElfError::Read { what, source })?;
            if count == 0 || text.len() > MAX_NAME_BYTES {
                return Err(ElfError::Damaged { what });
            }
            text.extend(part.iter().take(count));
        };
        std::str::from_utf8(&text[..end]).map(str::to_owned).map_err(|_| ElfError::Damaged { what })
    }
}

fn read_segments<R: ReadAt + ?Sized>(
    file: &R,
    head: &[u8; 64],
    class: Class,
) -> Result<Vec<Segment>, ElfError> {
    let damaged = ElfError::Damaged { what: "program header table" };
    let (table, entry_bytes, count) = match class {
        Class::Bits64 => (u64_at(head, 32), u16_at(head, 54), u16_at(head, 56)),
        Class::Bits32 => (u32_at(head, 28).into(), u16_at(head, 42), u16_at(head, 44)),
    };
    if entry_bytes != class.segment_bytes() || count > MAX_PROGRAM_HEADERS {
        return Err(damaged);
    }
    let mut bytes = vec![0; usize::from(entry_bytes) * usize::from(count)];
    read(file, &mut bytes, table, "program header table")?;
    let segment = |entry: &[u8]| match class {
        Class::Bits64 => Segment {
            kind: u32_at(entry, 0),
            offset: u64_at(entry, 8),
            address: u64_at(entry, 16),
            file_bytes: u64_at(entry, 32),
        },
        Class::Bits32 => Segment {
            kind: u32_at(entry, 0),
            offset: u32_at(entry, 4).into(),
            address: u32_at(entry, 8).into(),
            file_bytes: u32_at(entry, 16).into(),
        },
    };
    Ok(bytes.chunks_exact(usize::from(entry_bytes)).map(segment).collect())
}

fn read_dynamic<R: ReadAt + ?Sized>(
    file: &R,
    place: &Segment,
    class: Class,
) -> Result<Vec<(u64, u64)>, ElfError> {
    let size = usize::try_from(place.file_bytes.min(MAX_DYNAMIC_BYTES))
        .map_err(|_| ElfError::Damaged { what: "dynamic section" })?;
    let mut bytes = vec![0; size];
    read(file, &mut bytes, place.offset, "dynamic section")?;
    let entries: Vec<(u64, u64)> = match class {
        Class::Bits64 => bytes.chunks_exact(16).map(|entry| (u64_at(entry, 0), u64_at(entry, 8))).collect(),
        Class::Bits32 => {
            let pair = |entry: &[u8]| (u32_at(entry, 0).into(), u32_at(entry, 4).into());
            bytes.chunks_exact(8).map(pair).collect()
        }
    };
    Ok(entries.into_iter().take_while(|(tag, _)| *tag != TAG_NULL).collect())
}

fn read<R: ReadAt + ?Sized>(
    file: &R,
    buf: &mut [u8],
    offset: u64,
    what: &'static str,
) -> Result<(), ElfError> {
    file.read_exact_at(buf, offset).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => ElfError::Damaged { what },
        _ => ElfError::Read { what, source },
    })
}

/// EI_DATA (1 little, 2 big endian) of an ELF head.
fn data_encoding(head: &[u8]) -> Option<u8> {
    head.starts_with(b"\x7fELF").then(|| head.get(5).copied())?
}

/// `e_machine` values of the ELF specification.
fn machine_name(number: u16) -> &'static str {
    match number {
        3 => "x86",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => UNKNOWN_MACHINE,
    }
}

/// Numbers at fixed places of a buffer whose length the caller has checked.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|raw| raw.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|raw| raw.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|raw| raw.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test's own program is the example")]
mod tests {
    use super::*;

    /// A 64-bit little-endian shared object: one segment that loads the whole file at address 0x1000, and a dynamic
    /// section.
    fn library(machine: u16, soname: Option<&str>) -> Vec<u8> {
        let mut dynamic: Vec<(u64, u64)> = vec![(TAG_STRING_TABLE, 0x1000 + 240)];
        dynamic.extend(soname.map(|_| (TAG_SONAME, 1)));
        dynamic.push((TAG_NULL, 0));
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        for half in [TYPE_SHARED_OBJECT, machine] {
            file.extend(half.to_le_bytes());
        }
        file.resize(32, 0);
        file.extend(64_u64.to_le_bytes());
        file.resize(54, 0);
        file.extend(56_u16.to_le_bytes());
        file.extend(2_u16.to_le_bytes());
        file.resize(64, 0);
        for (kind, offset, address, size) in
            [(PROGRAM_LOAD, 0, 0x1000, 512), (PROGRAM_DYNAMIC, 176, 0x1000 + 176, dynamic.len() as u64 * 16)]
        {
            file.extend(kind.to_le_bytes());
            file.extend(4_u32.to_le_bytes());
            for number in [offset, address, address, size, size, 8] {
                file.extend(u64::to_le_bytes(number));
            }
        }
        assert_eq!(file.len(), 176);
        for (tag, value) in dynamic {
            file.extend(tag.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        file.resize(241, 0);
        file.extend(soname.unwrap_or_default().as_bytes());
        file.resize(512, 0);
        file
    }

    #[test]
    fn reads_machine_and_soname() {
        let check = |machine: u16, soname: Option<&str>, expected: &'static str| {
            let found = shared_object(&library(machine, soname)).unwrap();
            assert_eq!(found, SharedObject { machine: expected, soname: soname.map(str::to_owned) });
        };
        check(62, Some("libcuda.so.1"), "x86_64");
        check(183, Some("libnvidia-ml.so.1"), "aarch64");
        check(62, None, "x86_64");
        let own = std::env::current_exe().unwrap();
        let own = crate::sys::file::ReadFile::new(std::fs::OpenOptions::new().read(true).open(own).unwrap());
        assert_eq!(shared_object(&own.unwrap()).unwrap().machine, std::env::consts::ARCH);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let good = library(62, Some("libcuda.so.1"));
        for cut in 0..good.len() {
            let _any = shared_object(&good[..cut]);
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _any = shared_object(&bad);
                let _any = (machine(&bad), interpreter(&bad));
            }
        }
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut bad = good.clone();
            change(&mut bad);
            assert_eq!(shared_object(&bad).unwrap_err().to_string(), expected);
        };
        check(&|bad| bad[4] = 1, "not a 64-bit little-endian ELF file");
        check(&|bad| bad[16] = 2, "not a shared object");
        check(&|bad| bad[57] = 0xff, "damaged ELF file: bad program header table");
        check(&|bad| bad[130] = 0xff, "damaged ELF file: bad dynamic section");
        check(&|bad| bad[185] = 0xff, "damaged ELF file: bad string table");
        check(&|bad| bad[245] = b'/', "damaged ELF file: bad SONAME");
    }

    #[test]
    fn heads_say_machine_and_loader() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(machine(&own), Some(std::env::consts::ARCH));
        assert!(interpreter(&own[..4096]).unwrap().contains("ld-"));
        assert_eq!(machine(b"#!/bin/sh"), None);
        for cut in 0..200 {
            let _any = (machine(&own[..cut]), interpreter(&own[..cut]));
        }
    }
}
