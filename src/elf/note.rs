//! Notes: small records in an ELF file, each with an owner's name and bytes of the owner's own.
//!
//! ```text
//! section header: name type … offset size … align      64 bytes; found by its name in the table of section names
//! section data:   { name_bytes desc_bytes type | name, padded | desc, padded } × n     numbers of 4 bytes
//! ```
//!
//! Only the section headers say by which name a note was written, so a stripped file has no such note. See elf(5).

use crate::base::ReadAt;

use super::{Class, ElfError, read, read_head, u16_at, u32_at, u64_at};

/// Bytes of a section header of a 64-bit file.
const SECTION_BYTES: u16 = 64;
/// Most section headers that are looked at; real libraries have about 40.
const MAX_SECTIONS: u16 = 512;
/// Most bytes of a note section; real notes have some hundred.
const MAX_NOTE_BYTES: u64 = 64 << 10;
/// Numbers in front of a note.
const NOTE_HEADER_BYTES: usize = 12;
const SECTION_NOTE: u32 = 7;

/// The bytes of the first note of `owner` in the note section `section` of a 64-bit little-endian shared library. `None`
/// if there is no such section or no such note in it.
pub fn note<R: ReadAt + ?Sized>(file: &R, section: &str, owner: &str) -> Result<Option<Vec<u8>>, ElfError> {
    let head = read_head(file, Class::Bits64)?;
    let Some(found) = find_section(file, &head, section)? else { return Ok(None) };
    if found.size > MAX_NOTE_BYTES {
        return Err(ElfError::Damaged { what: "note section" });
    }
    let mut data = vec![0; to_size(found.size)];
    read(file, &mut data, found.offset, "note section")?;
    find_note(&data, owner, found.align)
}

struct Section {
    offset: u64,
    size: u64,
    align: u64,
}

fn find_section<R: ReadAt + ?Sized>(
    file: &R,
    head: &[u8; 64],
    wanted: &str,
) -> Result<Option<Section>, ElfError> {
    let damaged = ElfError::Damaged { what: "section header table" };
    let (table, entry_bytes, count) = (u64_at(head, 40), u16_at(head, 58), u16_at(head, 60));
    if table == 0 || count == 0 {
        return Ok(None);
    }
    if entry_bytes != SECTION_BYTES || count > MAX_SECTIONS {
        return Err(damaged);
    }
    let mut bytes = vec![0; usize::from(SECTION_BYTES) * usize::from(count)];
    read(file, &mut bytes, table, "section header table")?;
    let headers: Vec<&[u8]> = bytes.chunks_exact(usize::from(SECTION_BYTES)).collect();
    let names = headers.get(usize::from(u16_at(head, 62))).ok_or(damaged)?;
    let (names_at, names_bytes) = (u64_at(names, 24), u64_at(names, 32));
    // With the NUL, so that no longer name that begins so is taken.
    let wanted: Vec<u8> = wanted.bytes().chain([0]).collect();
    let mut name = vec![0; wanted.len()];
    for header in headers.iter().filter(|header| u32_at(header, 4) == SECTION_NOTE) {
        let start = u64::from(u32_at(header, 0));
        if start.checked_add(wanted.len() as u64).is_none_or(|end| end > names_bytes) {
            continue;
        }
        let at = names_at.checked_add(start).ok_or(ElfError::Damaged { what: "section name" })?;
        read(file, &mut name, at, "section name")?;
        if name == wanted {
            let (offset, size) = (u64_at(header, 24), u64_at(header, 32));
            return Ok(Some(Section { offset, size, align: u64_at(header, 48) }));
        }
    }
    Ok(None)
}

/// The first note of an owner in a section's bytes.
fn find_note(data: &[u8], owner: &str, align: u64) -> Result<Option<Vec<u8>>, ElfError> {
    // By the specification 8 in 64-bit files, and in fact 4 where the section does not say 8.
    let align = if align == 8 { 8 } else { 4 };
    let mut rest = data;
    while rest.len() >= NOTE_HEADER_BYTES {
        let (name_bytes, desc_bytes) = (to_size(u32_at(rest, 0).into()), to_size(u32_at(rest, 4).into()));
        // The padding counts from the end of the header, as NVIDIA's own reader has it.
        let end = |bytes: usize| bytes.checked_add(NOTE_HEADER_BYTES);
        let (name_end, padded_end) =
            (end(name_bytes), name_bytes.checked_next_multiple_of(align).and_then(end));
        let (Some(name_end), Some(padded_end)) = (name_end, padded_end) else {
            return Err(ElfError::Damaged { what: "note" });
        };
        let (Some(name), Some(padding)) =
            (rest.get(NOTE_HEADER_BYTES..name_end), rest.get(name_end..padded_end))
        else {
            return Err(ElfError::Damaged { what: "note" });
        };
        // Some sections are not padded at all; a text begins with no NUL.
        let desc_at = if padding.iter().all(|byte| *byte == 0) { padded_end } else { name_end };
        // A length that counts the padding of the section's end, too, is met in libraries for Tegra.
        let desc_end = desc_at.saturating_add(desc_bytes).min(rest.len());
        let desc = rest.get(desc_at..desc_end).ok_or(ElfError::Damaged { what: "note" })?;
        if without_nuls(name) == owner.as_bytes() {
            return Ok(Some(without_nuls(desc).to_vec()));
        }
        rest = rest.get(desc_end.next_multiple_of(align)..).unwrap_or_default();
    }
    Ok(None)
}

/// Without the NULs behind a text.
fn without_nuls(mut text: &[u8]) -> &[u8] {
    while let Some((0, shorter)) = text.split_last() {
        text = shorter;
    }
    text
}

fn to_size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::TYPE_SHARED_OBJECT;
    use super::*;

    const SECTION: &str = ".note.test";

    /// One note as it is written in a section.
    fn record(owner: &str, desc: &[u8], align: usize) -> Vec<u8> {
        let mut name: Vec<u8> = owner.bytes().chain([0]).collect();
        let mut bytes: Vec<u8> = u32::try_from(name.len()).unwrap().to_le_bytes().into();
        bytes.extend(u32::try_from(desc.len()).unwrap().to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        name.resize(name.len().next_multiple_of(align), 0);
        bytes.extend(name);
        bytes.extend(desc);
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        bytes
    }

    /// A library of nothing but section headers: the null section, the names, and one note section.
    fn library(section: &str, data: &[u8], align: u64) -> Vec<u8> {
        let names: Vec<u8> = [0].into_iter().chain(section.bytes()).chain([0]).collect();
        let (names_at, data_at) = (64, 64 + names.len().next_multiple_of(8));
        let table = (data_at + data.len()).next_multiple_of(8);
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([TYPE_SHARED_OBJECT, 62].map(u16::to_le_bytes).concat());
        file.resize(40, 0);
        file.extend((table as u64).to_le_bytes());
        file.resize(58, 0);
        file.extend([64_u16, 3, 1].map(u16::to_le_bytes).concat());
        file.extend(&names);
        file.resize(data_at, 0);
        file.extend(data);
        file.resize(table + 64, 0);
        for (name, kind, at, size, align) in
            [(0_u32, 3_u32, names_at, names.len(), 1), (1, SECTION_NOTE, data_at, data.len(), align)]
        {
            file.extend([name, kind].map(u32::to_le_bytes).concat());
            file.extend([0, 0, at as u64, size as u64].map(u64::to_le_bytes).concat());
            file.extend([0_u32, 0].map(u32::to_le_bytes).concat());
            file.extend([align, 0].map(u64::to_le_bytes).concat());
        }
        file
    }

    #[test]
    fn the_owners_note_is_found_behind_others() {
        for align in [4, 8] {
            let data = [record("GNU", b"abc", align), record("NVIDIA Corporation", b"{}", align)].concat();
            let file = library(SECTION, &data, align as u64);
            let of = |section: &str, owner: &str| note(&file[..], section, owner).unwrap();
            assert_eq!(of(SECTION, "NVIDIA Corporation"), Some(b"{}".to_vec()), "{align}");
            assert_eq!(of(SECTION, "GNU"), Some(b"abc".to_vec()));
            assert_eq!(of(SECTION, "NVIDIA"), None);
            assert_eq!(of(".note", "GNU"), None);
            assert_eq!(of(".note.test2", "GNU"), None);
        }
    }

    #[test]
    fn odd_lengths_of_nvidias_are_taken() {
        let check = |data: &[u8]| {
            let found = note(&library(SECTION, data, 1)[..], SECTION, "NVIDIA Corporation").unwrap();
            assert_eq!(found, Some(b"{\"a\": 1}".to_vec()));
        };
        let good = record("NVIDIA Corporation", b"{\"a\": 1}", 4);
        check(&good);
        let mut longer = good.clone();
        longer[4] += 8;
        check(&longer);
        let mut unpadded = good;
        assert_eq!(unpadded.remove(12 + 19), 0);
        check(&unpadded);
    }

    #[test]
    fn a_file_without_sections_has_no_note() {
        let mut file = library(SECTION, b"", 4);
        file[60] = 0;
        assert_eq!(note(&file[..], SECTION, "GNU").unwrap(), None);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let good = library(SECTION, &record("GNU", b"abc", 4), 4);
        for cut in 0..good.len() {
            let _any = note(&good[..cut], SECTION, "GNU");
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _any = note(&bad[..], SECTION, "GNU");
            }
        }
        let table = good.len() - 3 * 64;
        let check = |at: usize, value: u8, expected: &str| {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(note(&bad[..], SECTION, "GNU").unwrap_err().to_string(), expected);
        };
        check(4, 1, "not a 64-bit little-endian ELF file");
        check(16, 2, "not a shared object");
        check(58, 63, "damaged ELF file: bad section header table");
        check(61, 3, "damaged ELF file: bad section header table");
        check(47, 0xff, "damaged ELF file: bad section header table");
        check(table + 128 + 35, 1, "damaged ELF file: bad note section");
        check(table + 128 + 26, 1, "damaged ELF file: bad note section");
        check(81, 0xff, "damaged ELF file: bad note");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_found(
            notes in proptest::collection::vec(("[A-Za-z ]{1,20}", "[ -~]{0,40}"), 1..5),
            align in proptest::sample::select(vec![4_usize, 8]),
        ) {
            let data: Vec<u8> =
                notes.iter().flat_map(|(owner, desc)| record(owner, desc.as_bytes(), align)).collect();
            let file = library(SECTION, &data, align as u64);
            for (owner, _) in &notes {
                let first = notes.iter().find(|(other, _)| other == owner).map(|(_, desc)| desc.clone());
                let found = note(&file[..], SECTION, owner).unwrap();
                proptest::prop_assert_eq!(found.map(|bytes| String::from_utf8(bytes).unwrap()), first);
            }
        }

        #[test]
        fn any_bytes_are_notes_or_an_error(data in proptest::collection::vec(proptest::num::u8::ANY, 0..200), align in 0_u64..20) {
            if let Ok(Some(desc)) = note(&library(SECTION, &data, align)[..], SECTION, "GNU") {
                proptest::prop_assert!(desc.len() <= data.len());
            }
        }
    }
}
