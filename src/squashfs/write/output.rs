//! The output with a position counted from the image's start.

use std::io::{Read, Seek, SeekFrom, Write};

use super::error::WriteError;
use crate::squashfs::sums::TableHasher;

/// Appends to `W` and knows how far from the image's start it is.
#[derive(Debug)]
pub(super) struct Output<W> {
    inner: W,
    /// Where in `inner` the image starts.
    base: u64,
    position: u64,
    /// Sums what is written from [`Output::begin_tables`] on.
    tables: Option<TableHasher>,
}

impl<W: Write + Seek> Output<W> {
    /// An image that starts at `inner`'s present position, with `head` as its first bytes.
    pub(super) fn new(mut inner: W, head: &[u8]) -> Result<Self, WriteError> {
        let base = inner.stream_position().map_err(|source| WriteError::Output { source })?;
        let mut out = Self { inner, base, position: 0, tables: None };
        out.write(head)?;
        Ok(out)
    }

    /// Bytes since the image's start.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Appends.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.inner.write_all(bytes).map_err(|source| WriteError::Output { source })?;
        self.position += bytes.len() as u64;
        if let Some(tables) = &mut self.tables {
            tables.update(bytes);
        }
        Ok(())
    }

    /// From here on are tables.
    pub(super) fn begin_tables(&mut self) {
        self.tables = Some(TableHasher::default());
    }

    /// What the tables sum up to.
    pub(super) fn end_tables(&mut self) -> TableHasher {
        self.tables.take().unwrap_or_default()
    }

    /// Overwrites the image's first bytes and returns the output, positioned behind the image, with its length.
    pub(super) fn finish(mut self, head: &[u8]) -> Result<(W, u64), WriteError> {
        let mut end = || {
            self.inner.seek(SeekFrom::Start(self.base))?;
            self.inner.write_all(head)?;
            self.inner.seek(SeekFrom::Start(self.base + self.position))?;
            self.inner.flush()
        };
        end().map_err(|source| WriteError::Output { source })?;
        Ok((self.inner, self.position))
    }
}

impl<W: Read + Write + Seek> Output<W> {
    /// Fills `bytes` with what was written at `offset` from the image's start.
    pub(super) fn read_back(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), WriteError> {
        let mut read = || {
            self.inner.seek(SeekFrom::Start(self.base + offset))?;
            self.inner.read_exact(bytes)?;
            self.inner.seek(SeekFrom::Start(self.base + self.position))
        };
        read().map(drop).map_err(|source| WriteError::ReadBack { offset, source })
    }
}
