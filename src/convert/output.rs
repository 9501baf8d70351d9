//! The target file: written under another name beside it, and given its own name when it is whole.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::store;
use crate::sys::file::start_writeback;

use super::ConvertError;

/// Names tried before giving up; each is taken only by a dead process of the same number.
const MAX_NAMES: u32 = 1000;
/// A SIF can be started like a program.
const MODE: u32 = 0o755;

/// Bytes between two times that the disk is asked to begin.
const WRITEBACK_BYTES: usize = 32 << 20;

/// The file while it is written: the disk works while we do, so that the sync at the end has little left.
#[derive(Debug)]
pub(super) struct Growing {
    file: File,
    /// Bytes since the disk was asked last.
    fresh_bytes: usize,
}

/// A file on its way. Dropping it removes it, unless it was published.
#[derive(Debug)]
pub(super) struct Output {
    target: PathBuf,
    partial: PathBuf,
    is_published: bool,
}

impl Output {
    /// Makes the partial file; the file itself goes its own way and comes back in [`Output::publish`].
    pub(super) fn create(target: &Path) -> Result<(Self, Growing), ConvertError> {
        let fail = |source| ConvertError::Create { path: target.into(), source };
        if target.file_name().is_none() {
            return Err(fail(io::ErrorKind::InvalidInput.into()));
        }
        let directory = target.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        store::remove_stale_partials(directory);
        let mut taken = None;
        for _ in 0..MAX_NAMES {
            let partial = store::partial_in(directory);
            let mut options = std::fs::OpenOptions::new();
            match options.write(true).read(true).create_new(true).mode(MODE).open(&partial) {
                Ok(file) => {
                    let file = Growing { file, fresh_bytes: 0 };
                    return Ok((Self { target: target.into(), partial, is_published: false }, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = Some(error),
                Err(error) => return Err(fail(error)),
            }
        }
        Err(fail(taken.unwrap_or(io::ErrorKind::AlreadyExists.into())))
    }

    /// Puts `head` at the start, makes the file durable and gives it its name.
    pub(super) fn publish(mut self, mut file: Growing, head: &[u8]) -> Result<(), ConvertError> {
        self.finish(&mut file.file, head)
            .map_err(|source| ConvertError::Output { path: self.target.clone(), source })?;
        self.is_published = true;
        Ok(())
    }

    fn finish(&self, file: &mut File, head: &[u8]) -> io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(head)?;
        file.sync_all()?;
        std::fs::rename(&self.partial, &self.target)?;
        crate::sys::file::sync_parent(&self.target)
    }
}

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.fresh_bytes += count;
        if self.fresh_bytes >= WRITEBACK_BYTES {
            self.fresh_bytes = 0;
            start_writeback(&self.file);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for Growing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Seek for Growing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_published {
            // Nothing can be done about a file that cannot be removed, and the error that brought us here matters more.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partial_file_of_a_killed_conversion_goes_with_the_next() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("a.sif");
        let (killed, _) = Output::create(&target).unwrap();
        let own = format!(".{}.", std::process::id());
        let of_dead = killed.partial.to_str().unwrap().replace(&own, &format!(".{}.", u32::MAX));
        std::fs::rename(&killed.partial, &of_dead).unwrap();
        std::mem::forget(killed);
        let (output, _) = Output::create(&target).unwrap();
        assert!(!Path::new(&of_dead).exists() && output.partial.exists());
        drop(output);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
