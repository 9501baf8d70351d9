//! Blobs: written through a verifying writer, then immutable.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use crate::base::{Digest, Hasher, ReadAt as _};
use crate::sys::file::ReadFile;

use super::tmp::TmpPath;
use super::{Store, StoreError};

/// Small writes are gathered to this many bytes: a network's pieces are far smaller than what a parallel file system
/// likes.
const BUFFER_BYTES: usize = 256 << 10;

impl Store {
    /// Where the blob is or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(crate::oci::layout::BLOBS_DIRECTORY).join(digest.hex())
    }

    /// Whether the blob is there. What is there was verified when it came.
    #[must_use]
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Whether the blob is there with that length. A file that was cut short later, by a full disk or a crash, is not.
    #[must_use]
    pub fn has_blob_of(&self, digest: &Digest, size_bytes: u64) -> bool {
        let facts = fs::metadata(self.blob_path(digest));
        facts.is_ok_and(|facts| facts.is_file() && facts.len() == size_bytes)
    }

    /// Opens a blob; `None` if it is not there.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<ReadFile>, StoreError> {
        let path = self.blob_path(digest);
        match File::open(&path).and_then(ReadFile::new) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::of("open", &path, error)),
        }
    }

    /// Reads a small blob, a manifest or config, whole, and checks it against its digest; `None` if it is not there.
    pub fn read_blob(&self, digest: &Digest, limit_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.open_blob(digest)? else { return Ok(None) };
        let path = self.blob_path(digest);
        let size_bytes = file.size_bytes();
        let length = match usize::try_from(size_bytes) {
            Ok(length) if size_bytes <= limit_bytes => length,
            _ => return Err(StoreError::TooLarge { path, size_bytes, limit_bytes }),
        };
        let mut raw = vec![0; length];
        file.read_exact_at(&mut raw, 0).map_err(|error| StoreError::of("read", &path, error))?;
        let got = Digest::of(&raw);
        if got != *digest {
            return Err(StoreError::Damaged { path, got });
        }
        Ok(Some(raw))
    }

    /// Starts a blob. Nothing is seen of it before [`BlobWriter::commit`] has found size and digest as expected.
    pub fn blob_writer(
        &self,
        expected: Option<Digest>,
        expected_size: Option<u64>,
    ) -> Result<BlobWriter, StoreError> {
        let tmp = TmpPath::new(&self.tmp_directory());
        let file = io::BufWriter::with_capacity(BUFFER_BYTES, tmp.create()?);
        let store = self.clone();
        Ok(BlobWriter { store, tmp, file, hasher: Hasher::new(), written_bytes: 0, expected, expected_size })
    }

    /// Stores bytes that are at hand.
    pub fn put_blob(&self, raw: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(raw);
        if !self.has_blob_of(&digest, raw.len() as u64) {
            let mut writer = self.blob_writer(Some(digest), None)?;
            writer.append(raw)?;
            writer.commit()?;
        }
        Ok(digest)
    }

    /// Forgets a blob if its bytes are no longer those that its name promises, and tells whether they were not.
    pub fn remove_if_damaged(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.blob_path(digest);
        let Some(file) = self.open_blob(digest)? else { return Ok(false) };
        let (mut hasher, mut buffer, mut offset) = (Hasher::new(), vec![0; BUFFER_BYTES], 0);
        loop {
            match file.read_at(&mut buffer, offset) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::of("read", &path, error)),
            }
        }
        let is_damaged = hasher.finish() != *digest;
        if is_damaged {
            self.remove_blob(digest)?;
        }
        Ok(is_damaged)
    }

    /// Forgets a blob, such as one that turned out to be damaged; it need not be there.
    pub fn remove_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::of("remove", &path, error))
            }
            _ => Ok(()),
        }
    }
}

/// A blob on its way in. Dropping it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    tmp: TmpPath,
    file: io::BufWriter<File>,
    hasher: Hasher,
    written_bytes: u64,
    expected: Option<Digest>,
    expected_size: Option<u64>,
}

impl BlobWriter {
    /// Adds bytes; more than expected are refused at once.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let total = self.written_bytes.saturating_add(bytes.len() as u64);
        if let Some(expected_bytes) = self.expected_size.filter(|expected| total > *expected) {
            return Err(StoreError::Size { digest: self.expected, expected_bytes, got: "more came".into() });
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|error| StoreError::of("write", self.tmp.path(), error))?;
        self.written_bytes = total;
        Ok(())
    }

    /// How many bytes are in: where a broken transfer goes on.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Forgets all bytes, for a transfer that must begin again.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        let fresh = TmpPath::new(&self.store.tmp_directory());
        self.file = io::BufWriter::with_capacity(BUFFER_BYTES, fresh.create()?);
        self.tmp = fresh;
        self.hasher = Hasher::new();
        self.written_bytes = 0;
        Ok(())
    }

    /// Checks size and digest and publishes the blob. Another process that was faster with it is no error.
    pub fn commit(self) -> Result<Digest, StoreError> {
        self.finish()?.publish()
    }

    /// Checks size and digest and closes the file, but publishes nothing yet.
    pub(super) fn finish(mut self) -> Result<PendingBlob, StoreError> {
        // NFS tells of a full disk or quota only here, or at close, where nobody could hear it.
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.map_err(|error| StoreError::of("write", self.tmp.path(), error))?;
        let size_bytes = self.written_bytes;
        if let Some(expected_bytes) = self.expected_size.filter(|expected| size_bytes != *expected) {
            let got = format!("{size_bytes} came");
            return Err(StoreError::Size { digest: self.expected, expected_bytes, got });
        }
        let digest = self.hasher.finish();
        match self.expected {
            Some(expected) if expected != digest => Err(StoreError::Digest { expected, got: digest }),
            _ => Ok(PendingBlob { store: self.store, tmp: self.tmp, digest }),
        }
    }
}

impl Write for BlobWriter {
    /// Fails with an `io::Error` that carries the [`StoreError`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(StoreError::into_io)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A blob that is whole and verified, but not published. Dropping it leaves nothing.
#[derive(Debug)]
pub(super) struct PendingBlob {
    store: Store,
    tmp: TmpPath,
    digest: Digest,
}

impl PendingBlob {
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn path(&self) -> &std::path::Path {
        self.tmp.path()
    }

    pub(super) fn publish(self) -> Result<Digest, StoreError> {
        let target = self.store.blob_path(&self.digest);
        let length = |path| fs::metadata(path).map(|facts| facts.len()).ok();
        // This one was verified just now; of another length, the one that is there is damaged.
        if length(target.as_path()).is_some_and(|have| Some(have) != length(self.tmp.path())) {
            self.tmp.publish_over(&target)?;
        } else {
            self.tmp.publish_once(&target)?;
        }
        Ok(self.digest)
    }
}
