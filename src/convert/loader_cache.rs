//! The loader's cache (`/etc/ld.so.cache`) that an image should have and has not: there is none, or libraries came after
//! the last `ldconfig`, or went.
//!
//! A container with GPUs gets a cache of ours in place of the image's, since the driver's libraries must be found. NVIDIA's
//! own hook runs `ldconfig` for that, so that all libraries are found afterwards; here they are looked up once, when the
//! image is made, and no program runs. An image whose own cache is as it should be keeps it, and carries none of ours.
//!
//! Directories count in the order of `/etc/ld.so.conf`, then those that every loader knows. Their `glibc-hwcaps` are left to
//! the image's own cache.

use std::collections::{BTreeMap, HashSet};
use std::io;

use crate::base::{ReadAt, RelPath};
use crate::elf::cache::{Cache, Entry, flags_for};
use crate::elf::{self, SharedObject};
use crate::squashfs::read::{Inode, Reader};

/// Largest configuration file and cache of an image that are read, in bytes.
const MAX_TEXT_BYTES: u64 = 1 << 20;
const MAX_CACHE_BYTES: u64 = 16 << 20;
/// Most directories that are looked into.
const MAX_DIRECTORIES: usize = 64;
/// Most libraries that are opened; a large image has some thousand.
const MAX_LIBRARIES: usize = 20_000;
/// Where loaders look without being told, on machines with 64 bits.
const KNOWN_DIRECTORIES: [&str; 4] = ["lib64", "usr/lib64", "lib", "usr/lib"];
/// Loaders of glibc, by the machine that they are for.
const LOADERS: [(&str, &str, &str); 3] = [
    ("amd64", "x86_64", "lib64/ld-linux-x86-64.so.2"),
    ("arm64", "aarch64", "lib/ld-linux-aarch64.so.1"),
    ("riscv64", "riscv64", "lib/ld-linux-riscv64-lp64d.so.1"),
];

/// The cache that the image needs in place of its own; `None` where its own will do, or where no loader of glibc for the
/// machine (a GOARCH word) is in it. What cannot be read is left out, as `ldconfig` does it.
pub(super) fn prepare(reader: &Reader, architecture: &str) -> Option<Vec<u8>> {
    let (_, machine, loader) = LOADERS.iter().find(|(word, ..)| *word == architecture)?;
    let image = Image { reader };
    image.find(loader)?;
    let flags = flags_for(machine)?;
    let own = image.read("etc/ld.so.cache", MAX_CACHE_BYTES).and_then(|bytes| Cache::parse(&bytes).ok());
    let had = own.as_ref().map_or(0, |cache| cache.entries.len());
    let mut cache = own.unwrap_or_default();
    // Inodes by their numbers: those that the cache leads to need not be opened.
    let mut covered = HashSet::new();
    cache.entries.retain(|entry| match image.find_bytes(&entry.path) {
        Some(inode) if inode.is_file() => {
            covered.insert(inode.number);
            true
        }
        _ => false,
    });
    let gone = had - cache.entries.len();
    let listed: HashSet<Vec<u8>> =
        cache.entries.iter().filter(|entry| entry.flags == flags).map(|entry| entry.soname.clone()).collect();
    let missing = image.libraries(machine, &covered, &listed);
    if gone == 0 && missing.is_empty() {
        return None;
    }
    cache.entries.extend(missing.into_iter().map(|(soname, path)| Entry { flags, soname, path, hwcap: 0 }));
    cache.sort();
    Some(cache.to_bytes())
}

struct Image<'a> {
    reader: &'a Reader,
}

impl Image<'_> {
    fn find(&self, path: &str) -> Option<Inode> {
        self.find_bytes(path.as_bytes())
    }

    /// The inode at a path of the image, links followed.
    fn find_bytes(&self, path: &[u8]) -> Option<Inode> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        self.reader.resolve(&RelPath::parse(path).ok()?, true).ok()?
    }

    fn read(&self, path: &str, limit_bytes: u64) -> Option<Vec<u8>> {
        self.reader.read_all(&self.find(path)?, limit_bytes).ok()
    }

    /// Libraries whose SONAME is not `listed`: SONAME and path. The first directory that has one counts.
    fn libraries(
        &self,
        machine: &str,
        covered: &HashSet<u32>,
        listed: &HashSet<Vec<u8>>,
    ) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut opened = covered.clone();
        for directory in self.directories() {
            let Some(inode) = self.find(&directory) else { continue };
            for entry in self.reader.read_dir(&inode).unwrap_or_default() {
                if !is_library_name(&entry.name) || opened.len() >= covered.len() + MAX_LIBRARIES {
                    continue;
                }
                let path = [b"/", directory.as_bytes(), b"/", &entry.name].concat();
                let Some(file) = self.find_bytes(&path).filter(Inode::is_file) else { continue };
                // Links to one file are one library.
                if !opened.insert(file.number) {
                    continue;
                }
                let content = Content { reader: self.reader, inode: &file };
                let Ok(SharedObject { machine: has, soname: Some(soname) }) = elf::shared_object(&content)
                else {
                    continue;
                };
                if has != machine || listed.contains(soname.as_bytes()) {
                    continue;
                }
                // Programs ask for the SONAME; its file may have that name or only a longer one.
                let named = [b"/", directory.as_bytes(), b"/", soname.as_bytes()].concat();
                let is_named = self.find_bytes(&named).is_some_and(|other| other.number == file.number);
                found.entry(soname.into_bytes()).or_insert(if is_named { named } else { path });
            }
        }
        found
    }

    /// The directories of libraries, in order, as places in the image.
    fn directories(&self) -> Vec<String> {
        let mut directories = Vec::new();
        self.add_configured("etc/ld.so.conf", &mut directories, true);
        directories.extend(KNOWN_DIRECTORIES.map(str::to_owned));
        let mut known = HashSet::new();
        // `/lib` may be a link to `/usr/lib`, and is then looked into once.
        directories.retain(|path| {
            self.find(path).is_some_and(|inode| inode.is_directory() && known.insert(inode.number))
        });
        directories.truncate(MAX_DIRECTORIES);
        directories
    }

    /// Reads a file in the form of `ld.so.conf`: directories, and `include` with patterns in the last name.
    fn add_configured(&self, path: &str, directories: &mut Vec<String>, may_include: bool) {
        let text = self.read(path, MAX_TEXT_BYTES).unwrap_or_default();
        for line in String::from_utf8_lossy(&text).lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("include") if may_include => {
                    for pattern in words {
                        self.add_included(pattern, directories);
                    }
                }
                Some("include" | "hwcap") | None => {}
                Some(_) if directories.len() < MAX_DIRECTORIES => {
                    let names = line.split([' ', '\t', ':', ',']).filter(|name| name.starts_with('/'));
                    directories.extend(names.map(|name| name.trim_matches('/').to_owned()));
                }
                Some(_) => {}
            }
        }
    }

    fn add_included(&self, pattern: &str, directories: &mut Vec<String>) {
        let pattern = if pattern.starts_with('/') { pattern.to_owned() } else { format!("/etc/{pattern}") };
        let Some((directory, pattern)) = pattern.trim_start_matches('/').rsplit_once('/') else { return };
        let Some(inode) = self.find(directory) else { return };
        // Sorted by name, as the image has them and as glob(3) gives them.
        for entry in self.reader.read_dir(&inode).unwrap_or_default() {
            let Ok(name) = std::str::from_utf8(&entry.name) else { continue };
            if matches(pattern, name) {
                self.add_configured(&format!("{directory}/{name}"), directories, false);
            }
        }
    }
}

/// Names that `ldconfig` looks at, without the loaders themselves (`ld-…`), which nobody has to find.
fn is_library_name(name: &[u8]) -> bool {
    name.starts_with(b"lib") && name.windows(3).any(|part| part == b".so")
}

/// A pattern with at most one `*`, which is all that configurations have.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => {
            !name.starts_with('.')
                && name.len() >= start.len() + end.len()
                && name.starts_with(start)
                && name.ends_with(end)
        }
    }
}

/// A file of the image, for the reader of ELF files.
struct Content<'a> {
    reader: &'a Reader,
    inode: &'a Inode,
}

impl ReadAt for Content<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reader.read_at(self.inode, offset, buf).map_err(io::Error::other)
    }

    fn size_bytes(&self) -> u64 {
        self.inode.size_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns() {
        for (name, expected) in [
            ("libc.so.6", true),
            ("ld-linux-x86-64.so.2", false),
            ("libfoo.so", true),
            ("libfoo.a", false),
            ("_ssl.so", false),
        ] {
            assert_eq!(is_library_name(name.as_bytes()), expected, "{name}");
        }
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", false),
            ("*.conf", "a.conf.dpkg-new", false),
            ("a*a.conf", "a.conf", false),
            ("x.conf", "x.conf", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
