//! The C library of an image: which release it is, and whether it serves programs of 32 bits.

use std::io;
use std::sync::{Mutex, PoisonError};

use crate::base::{ReadAt, RelPath};
use crate::elf::versions::{GlibcVersion, glibc_defined};
use crate::squashfs::read::{Inode, Reader};

use crate::cli::failure::Failure;

/// Bytes that are read at a time: what is asked for lies in two or three places of the file.
const WINDOW_BYTES: usize = 64 << 10;

/// The release of the image's glibc, if there is one whose release can be told. Until 2.33 the file's own name says it;
/// else the versions of its symbols do, for which some blocks of it are read.
pub(super) fn version_of(reader: &Reader) -> Result<Option<GlibcVersion>, Failure> {
    let arch = std::env::consts::ARCH;
    let places = [format!("lib/{arch}-linux-gnu"), "lib64".into(), "usr/lib".into(), "lib".into()];
    for place in places {
        let path = format!("{place}/libc.so.6");
        let Ok(path) = RelPath::parse(path.as_bytes()) else { continue };
        let found = reader.resolve_path(&path)?;
        let Some(inode) = found.inode.filter(Inode::is_file) else { continue };
        let place = found.path.to_absolute();
        let name = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let by_name = GlibcVersion::of_file_name(name);
        // What cannot be read says nothing; that the image is damaged is told when it is used.
        return Ok(by_name.or_else(|| glibc_defined(&FileOf::new(reader, inode)).ok().flatten()));
    }
    Ok(None)
}

/// Whether the loader for 32-bit programs is there.
pub(super) fn has_loader_32(reader: &Reader) -> Result<bool, Failure> {
    let Ok(path) = RelPath::parse(b"lib/ld-linux.so.2") else { return Ok(false) };
    Ok(reader.resolve_path(&path)?.inode.is_some())
}

/// A file of the image, with the part of it at hand that was read last: the reader unpacks a block at each call.
struct FileOf<'a> {
    reader: &'a Reader,
    inode: Inode,
    window: Mutex<(u64, Vec<u8>)>,
}

impl<'a> FileOf<'a> {
    fn new(reader: &'a Reader, inode: Inode) -> Self {
        Self { reader, inode, window: Mutex::new((0, Vec::new())) }
    }
}

impl ReadAt for FileOf<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let start = offset - offset % WINDOW_BYTES as u64;
        if window.0 != start || window.1.is_empty() {
            let mut bytes = vec![0; WINDOW_BYTES];
            let count = self.reader.read_at(&self.inode, start, &mut bytes).map_err(io::Error::other)?;
            bytes.truncate(count);
            *window = (start, bytes);
        }
        let skip = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let rest = window.1.get(skip..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }

    fn size_bytes(&self) -> u64 {
        self.inode.size_bytes()
    }
}
