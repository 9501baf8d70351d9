//! `/etc/ld.so.cache`, the loader's index of library names.
//!
//! A container finds the driver libraries by a cache of ours: the image's own entries, with ours in front. No
//! `ldconfig` runs, and no `LD_LIBRARY_PATH` leaks into the workload.
//!
//! ```text
//! [ "ld.so-1.7.0" nlibs, 12-byte entries, padding to 8 ]   old part, only for the loaders of libc5; read over, not kept
//! "glibc-ld.so.cache1.1" nlibs len_strings flags ext ...   48 bytes
//! nlibs × { flags name path osversion hwcap }              24 bytes each; name and path are offsets of strings
//! strings, each with a NUL
//! [ extension: magic count, count × { tag flags offset size }, data ]
//! ```
//!
//! String offsets count from the start of the new header, offsets of the extension and its data from the start of the
//! file. The loader looks
//! a name up by binary search in the order of its own comparison, so a wrong order is a silent "not found". Every
//! loader since glibc 2.2 reads a file that has only the new part, which is what we write.
//! See glibc `sysdeps/generic/dl-cache.h`, `elf/dl-cache.c` and `elf/cache.c`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{u32_at, u64_at};

const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const OLD_HEADER_BYTES: usize = 16;
const OLD_ENTRY_BYTES: usize = 12;
const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const NEW_HEADER_BYTES: usize = 48;
const NEW_ENTRY_BYTES: usize = 24;
/// The header's mark for a little-endian file; 0, from before glibc 2.33, says nothing.
const LITTLE_ENDIAN: u8 = 2;
const EXTENSION_MAGIC: u32 = 0xEAA4_2174;
const TAG_GENERATOR: u32 = 0;
const TAG_HWCAPS: u32 = 1;
/// Sections that an extension may have; glibc knows two.
const MAX_SECTIONS: u32 = 16;

/// A cache, as its entries in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cache {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Who wrote the file, in words (`ldconfig (GNU libc) stable release version 2.36`).
    pub generator: Option<Vec<u8>>,
    /// Names of the glibc-hwcaps subdirectories to which `hwcap` of some entries points by number.
    pub hwcaps: Vec<Vec<u8>>,
}

/// One library name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and architecture; see [`flags_for`].
    pub flags: u32,
    /// What programs ask for (`libcuda.so.1`).
    pub soname: Vec<u8>,
    /// Where it is.
    pub path: Vec<u8>,
    /// What the machine must have for this entry; bit 62 marks a glibc-hwcaps number in the low half.
    pub hwcap: u64,
}

/// Why bytes are no cache that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// Neither magic, or only the part for libc5.
    #[error("not a loader cache in the format of glibc 2.2 or later")]
    Magic,
    /// Made for a big-endian machine.
    #[error("the loader cache is big-endian")]
    BigEndian,
    /// A table or a string lies outside the file.
    #[error("damaged loader cache: bad {what}")]
    Damaged {
        /// The part.
        what: &'static str,
    },
}

/// The flags that the loader of a machine (by its Rust name) asks for: 3 for a library of glibc, and the architecture.
/// `None` for a machine without a little-endian glibc known here.
#[must_use]
pub fn flags_for(machine: &str) -> Option<u32> {
    Some(match machine {
        "x86_64" => 0x0303,
        "aarch64" => 0x0a03,
        "powerpc64" => 0x0503,
        "riscv64" => 0x1003,
        "loongarch64" => 0x1203,
        "x86" => 0x0003,
        _ => return None,
    })
}

/// The image's cache with `entries` (SONAME, path) added for `machine`; they replace the image's of the same name.
///
/// A cache that cannot be read counts as none, as it does for the loader.
#[must_use]
pub fn merge(image_cache: Option<&[u8]>, entries: &[(String, String)], machine: &str) -> Vec<u8> {
    let mut cache = image_cache.and_then(|bytes| Cache::parse(bytes).ok()).unwrap_or_default();
    if let Some(flags) = flags_for(machine) {
        cache.add(entries, flags);
    }
    cache.to_bytes()
}

impl Cache {
    /// Reads a file that has the new part, with or without an old one in front.
    pub fn parse(file: &[u8]) -> Result<Self, CacheError> {
        let new = new_part(file)?;
        match new.get(28) {
            Some(flags) if flags & 3 == 3 => return Err(CacheError::BigEndian),
            Some(flags) if flags & 3 == 1 => return Err(CacheError::Damaged { what: "header" }),
            Some(_) => {}
            None => return Err(CacheError::Damaged { what: "header" }),
        }
        let count = to_size(u32_at(new, 20));
        let table = count
            .checked_mul(NEW_ENTRY_BYTES)
            .and_then(|bytes| new.get(NEW_HEADER_BYTES..NEW_HEADER_BYTES.checked_add(bytes)?))
            .ok_or(CacheError::Damaged { what: "entry table" })?;
        let entries = table
            .chunks_exact(NEW_ENTRY_BYTES)
            .map(|entry| {
                Ok(Entry {
                    flags: u32_at(entry, 0),
                    soname: string_at(new, u32_at(entry, 4))?.to_vec(),
                    path: string_at(new, u32_at(entry, 8))?.to_vec(),
                    hwcap: u64_at(entry, 16),
                })
            })
            .collect::<Result<_, _>>()?;
        let mut cache = Self { entries, ..Self::default() };
        cache.parse_extension(file, new)?;
        Ok(cache)
    }

    fn parse_extension(&mut self, file: &[u8], new: &[u8]) -> Result<(), CacheError> {
        let offset = u32_at(new, 32);
        if offset == 0 {
            return Ok(());
        }
        let damaged = CacheError::Damaged { what: "extension" };
        let head = file.get(to_size(offset)..).filter(|head| head.len() >= 8).ok_or(damaged.clone())?;
        let count = u32_at(head, 4);
        if u32_at(head, 0) != EXTENSION_MAGIC || count > MAX_SECTIONS {
            return Err(damaged);
        }
        let sections = head.get(8..8 + to_size(count) * 16).ok_or(damaged.clone())?;
        for section in sections.chunks_exact(16) {
            let (tag, start, size) =
                (u32_at(section, 0), to_size(u32_at(section, 8)), to_size(u32_at(section, 12)));
            let data = start.checked_add(size).and_then(|end| file.get(start..end)).ok_or(damaged.clone())?;
            match tag {
                TAG_GENERATOR => self.generator = Some(data.to_vec()),
                TAG_HWCAPS => {
                    self.hwcaps = data
                        .chunks_exact(4)
                        .map(|at| string_at(new, u32_at(at, 0)).map(<[u8]>::to_vec))
                        .collect::<Result<_, _>>()?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds libraries (SONAME, path); entries of the same name and flags that were there before are dropped, those for
    /// better machines (hwcaps) included.
    pub fn add(&mut self, libraries: &[(String, String)], flags: u32) {
        let is_ours = |entry: &Entry| {
            entry.flags == flags && libraries.iter().any(|(soname, _)| soname.as_bytes() == entry.soname)
        };
        self.entries.retain(|entry| !is_ours(entry));
        self.entries.extend(libraries.iter().map(|(soname, path)| Entry {
            flags,
            soname: soname.clone().into_bytes(),
            path: path.clone().into_bytes(),
            hwcap: 0,
        }));
        self.sort();
    }

    /// Puts the entries in the loader's order: names descending, then flags descending. Entries equal in both keep their
    /// order, in which `ldconfig` has put those with hwcaps first.
    pub fn sort(&mut self) {
        self.entries.sort_by(|a, b| compare(&b.soname, &a.soname).then(b.flags.cmp(&a.flags)));
    }

    /// The file, in the new format only.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let strings_start = NEW_HEADER_BYTES + self.entries.len() * NEW_ENTRY_BYTES;
        let mut strings = Strings { start: strings_start, bytes: Vec::new(), places: BTreeMap::new() };
        let mut table = Vec::with_capacity(strings_start - NEW_HEADER_BYTES);
        for entry in &self.entries {
            table.extend(entry.flags.to_le_bytes());
            table.extend(strings.place(&entry.soname).to_le_bytes());
            table.extend(strings.place(&entry.path).to_le_bytes());
            table.extend(0_u32.to_le_bytes());
            table.extend(entry.hwcap.to_le_bytes());
        }
        let hwcaps: Vec<u8> = self.hwcaps.iter().flat_map(|name| strings.place(name).to_le_bytes()).collect();
        let extension_start = (strings_start + strings.bytes.len()).next_multiple_of(4);
        let extension = self.extension_bytes(extension_start, &hwcaps);

        let mut file = NEW_MAGIC.to_vec();
        file.extend(from_size(self.entries.len()).to_le_bytes());
        file.extend(from_size(strings.bytes.len()).to_le_bytes());
        file.extend([LITTLE_ENDIAN, 0, 0, 0]);
        file.extend(if extension.is_empty() { 0 } else { from_size(extension_start) }.to_le_bytes());
        file.resize(NEW_HEADER_BYTES, 0);
        file.extend(table);
        file.extend(strings.bytes);
        if !extension.is_empty() {
            file.resize(extension_start, 0);
            file.extend(extension);
        }
        file
    }

    fn extension_bytes(&self, start: usize, hwcaps: &[u8]) -> Vec<u8> {
        let mut sections: Vec<(u32, &[u8])> = Vec::new();
        if !hwcaps.is_empty() {
            sections.push((TAG_HWCAPS, hwcaps));
        }
        if let Some(generator) = &self.generator {
            sections.push((TAG_GENERATOR, generator));
        }
        if sections.is_empty() {
            return Vec::new();
        }
        let mut head = EXTENSION_MAGIC.to_le_bytes().to_vec();
        head.extend(from_size(sections.len()).to_le_bytes());
        let mut at = start + 8 + sections.len() * 16;
        for (tag, data) in &sections {
            head.extend(tag.to_le_bytes());
            head.extend(0_u32.to_le_bytes());
            head.extend(from_size(at).to_le_bytes());
            head.extend(from_size(data.len()).to_le_bytes());
            at += data.len();
        }
        // The list of hwcaps comes first, since the loader reads it as aligned words.
        head.extend(sections.iter().flat_map(|(_, data)| data.iter()));
        head
    }
}

/// glibc's `_dl_cache_libcmp`: runs of digits compare as numbers, and a digit sorts after anything else.
///
/// The numbers wrap at 32 bits and the other bytes compare as signed, as they do in glibc on x86-64: what counts is
/// that the loader's search goes the same way.
/// But glibc compares numbers by a difference that wraps as well, and so is no order for those that are 2^31 apart: nothing
/// can be sorted by that, and no library has such a version.
#[must_use]
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.split_first(), b.split_first()) {
            (None, None) => return Ordering::Equal,
            (None, Some((other, _))) => return 0.cmp(&signed(*other)),
            (Some((first, rest)), _) => {
                let other = b.first().copied().unwrap_or(0);
                match (first.is_ascii_digit(), other.is_ascii_digit()) {
                    (true, true) => {
                        let (left, right) = (take_number(&mut a), take_number(&mut b));
                        if left != right {
                            return left.cmp(&right);
                        }
                    }
                    (true, false) => return Ordering::Greater,
                    (false, true) => return Ordering::Less,
                    (false, false) if *first != other => return signed(*first).cmp(&signed(other)),
                    (false, false) => {
                        a = rest;
                        b = b.get(1..).unwrap_or_default();
                    }
                }
            }
        }
    }
}

fn signed(byte: u8) -> i32 {
    // `char` is signed on x86-64 and unsigned on Arm and Power; names beyond ASCII do not occur.
    if cfg!(target_arch = "x86_64") { i32::from(byte.cast_signed()) } else { i32::from(byte) }
}

fn take_number(text: &mut &[u8]) -> i32 {
    let mut number = 0_i32;
    while let Some((digit, rest)) = text.split_first().filter(|(byte, _)| byte.is_ascii_digit()) {
        number = number.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
        *text = rest;
    }
    number
}

/// Strings in the order of first use, each once.
struct Strings<'a> {
    start: usize,
    bytes: Vec<u8>,
    places: BTreeMap<&'a [u8], u32>,
}

impl<'a> Strings<'a> {
    fn place(&mut self, text: &'a [u8]) -> u32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = from_size(self.start + self.bytes.len());
        self.bytes.extend(text);
        self.bytes.push(0);
        self.places.insert(text, place);
        place
    }
}

fn new_part(file: &[u8]) -> Result<&[u8], CacheError> {
    let mut new = file;
    if file.starts_with(OLD_MAGIC) {
        let entries = to_size(u32_at(file, 12)).checked_mul(OLD_ENTRY_BYTES);
        let start =
            entries.and_then(|bytes| bytes.checked_add(OLD_HEADER_BYTES)?.checked_next_multiple_of(8));
        new = start.and_then(|start| file.get(start..)).ok_or(CacheError::Magic)?;
    }
    if !new.starts_with(NEW_MAGIC) {
        return Err(CacheError::Magic);
    }
    if new.len() < NEW_HEADER_BYTES {
        return Err(CacheError::Damaged { what: "header" });
    }
    Ok(new)
}

fn string_at(bytes: &[u8], at: u32) -> Result<&[u8], CacheError> {
    let damaged = CacheError::Damaged { what: "string" };
    let text = bytes.get(to_size(at)..).ok_or(damaged.clone())?;
    let end = text.iter().position(|byte| *byte == 0).ok_or(damaged)?;
    Ok(&text[..end])
}

fn to_size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A cache holds some thousand names, so every size fits.
fn from_size(size: usize) -> u32 {
    u32::try_from(size).expect("a loader cache is smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(soname: &str, path: &str) -> Entry {
        Entry { flags: 0x0303, soname: soname.into(), path: path.into(), hwcap: 0 }
    }

    fn names(cache: &Cache) -> Vec<String> {
        let show = |entry: &Entry| {
            format!("{} {}", String::from_utf8_lossy(&entry.soname), String::from_utf8_lossy(&entry.path))
        };
        cache.entries.iter().map(show).collect()
    }

    #[test]
    fn compares_as_the_loader_does() {
        let check = |a: &str, b: &str, expected: Ordering| {
            assert_eq!(compare(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
            assert_eq!(compare(b.as_bytes(), a.as_bytes()), expected.reverse(), "{b} {a}");
        };
        check("libc.so.6", "libc.so.6", Ordering::Equal);
        check("libz.so.1", "libc.so.6", Ordering::Greater);
        check("libx.so.10", "libx.so.9", Ordering::Greater);
        check("libx.so.1", "libx.so", Ordering::Greater);
        check("libx1.so", "libx.so", Ordering::Greater);
        check("libx01.so", "libx1.so", Ordering::Equal);
        check("a4294967297", "a1", Ordering::Equal);
        // glibc's difference wraps here, and says `Greater`.
        check("a2147483648", "a1", Ordering::Less);
        check("", "a", Ordering::Less);
    }

    #[test]
    fn ours_win_over_the_image() {
        let image = Cache {
            entries: vec![
                entry("libcuda.so.1", "/usr/lib/libcuda.so.1"),
                Entry {
                    hwcap: 1 << 62,
                    ..entry("libcuda.so.1", "/usr/lib/glibc-hwcaps/x86-64-v3/libcuda.so.1")
                },
                Entry { flags: 3, ..entry("libcuda.so.1", "/usr/lib32/libcuda.so.1") },
                entry("libz.so.1", "/usr/lib/libz.so.1"),
            ],
            generator: Some(b"a generator".to_vec()),
            hwcaps: vec![b"x86-64-v3".to_vec()],
        };
        let ours: Vec<(String, String)> = [
            ("libcuda.so.1", "/ours/libcuda.so.1"),
            ("libcuda.so", "/ours/libcuda.so"),
            ("libnvidia-ml.so.1", "/o"),
        ]
        .map(|(name, path)| (name.into(), path.into()))
        .into();
        let merged = Cache::parse(&merge(Some(&image.to_bytes()), &ours, "x86_64")).unwrap();
        assert_eq!(
            names(&merged),
            [
                "libz.so.1 /usr/lib/libz.so.1",
                "libnvidia-ml.so.1 /o",
                "libcuda.so.1 /ours/libcuda.so.1",
                "libcuda.so.1 /usr/lib32/libcuda.so.1",
                "libcuda.so /ours/libcuda.so",
            ]
        );
        assert_eq!((merged.generator, merged.hwcaps), (image.generator, image.hwcaps));
        let alone = Cache::parse(&merge(Some(b"noise"), &ours[..1], "aarch64")).unwrap();
        assert_eq!(alone.entries.len(), 1);
        assert_eq!(alone.entries[0].flags, 0x0a03);
    }

    #[test]
    fn reads_over_an_old_part() {
        let cache = Cache {
            entries: vec![entry("libz.so.1", "/z")],
            generator: Some(b"g".to_vec()),
            hwcaps: vec![b"v3".to_vec()],
        };
        let mut new = cache.to_bytes();
        let mut file = OLD_MAGIC.to_vec();
        file.resize(12, 0);
        file.extend(1_u32.to_le_bytes());
        file.resize(OLD_HEADER_BYTES + OLD_ENTRY_BYTES, 0);
        file.resize(32, 0);
        // Extension offsets count from the start of the file, so a file in front moves them.
        let extension = u32_at(&new, 32) as usize;
        for at in [32, extension + 8 + 8, extension + 8 + 16 + 8] {
            let moved = u32_at(&new, at) + 32;
            new[at..at + 4].copy_from_slice(&moved.to_le_bytes());
        }
        file.extend(new);
        assert_eq!(Cache::parse(&file).unwrap(), cache);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let cache = Cache {
            entries: vec![entry("libz.so.1", "/z"), entry("liba.so.1", "/a")],
            generator: Some(b"g".to_vec()),
            hwcaps: vec![b"v3".to_vec()],
        };
        let good = cache.to_bytes();
        assert_eq!(Cache::parse(&good).unwrap(), cache);
        for cut in 0..good.len() {
            assert!(Cache::parse(&good[..cut]).is_err(), "{cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = 0xff;
            let _any = Cache::parse(&bad);
        }
        let check = |at: usize, value: u8, expected: &str| {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Cache::parse(&bad).unwrap_err().to_string(), expected);
        };
        check(0, b'x', "not a loader cache in the format of glibc 2.2 or later");
        check(28, 3, "the loader cache is big-endian");
        check(23, 0xff, "damaged loader cache: bad entry table");
        check(55, 0xff, "damaged loader cache: bad string");
        check(35, 0xff, "damaged loader cache: bad extension");
    }

    #[test]
    fn numbers_that_wrap_have_an_order() {
        let name = |number: u64| format!("a{}", number * 0x2345_6789);
        let mut cache =
            Cache { entries: (0..100).map(|at| entry(&name(at), "/")).collect(), ..Cache::default() };
        cache.sort();
        for (at, one) in cache.entries.iter().enumerate() {
            for later in &cache.entries[at..] {
                assert_ne!(compare(&one.soname, &later.soname), Ordering::Less);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(
            rows in proptest::collection::vec((0_u32..3, "[a-z0-9.]{1,8}", "/[a-z0-9/]{0,8}", 0_u64..3), 0..40),
            hwcaps in proptest::collection::vec("[a-z0-9-]{1,9}", 0..3),
            generator in proptest::option::of("[a-z ]{1,9}"),
        ) {
            let entries = rows.into_iter().map(|(flags, soname, path, hwcap)| {
                Entry { flags, soname: soname.into(), path: path.into(), hwcap }
            });
            let mut cache = Cache {
                entries: entries.collect(),
                generator: generator.map(String::into_bytes),
                hwcaps: hwcaps.into_iter().map(String::into_bytes).collect(),
            };
            cache.sort();
            for pair in cache.entries.windows(2) {
                proptest::prop_assert_ne!(compare(&pair[0].soname, &pair[1].soname), Ordering::Less);
            }
            proptest::prop_assert_eq!(Cache::parse(&cache.to_bytes()), Ok(cache));
        }
    }
}
