//! The byte stream below the reader: counts offsets, can take one block back, retries interrupted reads.

use std::io::{ErrorKind, Read};

use super::error::TarError;
use super::header::BLOCK_BYTES;

/// Buffer for data that nobody wants, in bytes: large enough that the read calls do not count.
const SKIP_BUFFER_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Stream<R> {
    inner: R,
    offset: u64,
    /// Bytes that were put back and come first.
    ahead: [u8; BLOCK_BYTES],
    ahead_start: usize,
    ahead_end: usize,
    skip_buffer: Vec<u8>,
}

impl<R: Read> Stream<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            offset: 0,
            ahead: [0; BLOCK_BYTES],
            ahead_start: 0,
            ahead_end: 0,
            skip_buffer: Vec::new(),
        }
    }

    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// Bytes given out so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Makes the bytes of the last [`Self::fill`] come again.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        debug_assert!(self.ahead_start == self.ahead_end, "one block at a time");
        let count = bytes.len().min(BLOCK_BYTES);
        self.ahead[..count].copy_from_slice(&bytes[..count]);
        (self.ahead_start, self.ahead_end) = (0, count);
        self.offset -= count as u64;
    }

    /// Reads some bytes; 0 at the end of the stream.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let count = if self.ahead_start < self.ahead_end {
            let ahead = &self.ahead[self.ahead_start..self.ahead_end];
            let count = ahead.len().min(buf.len());
            buf[..count].copy_from_slice(&ahead[..count]);
            self.ahead_start += count;
            count
        } else {
            loop {
                match self.inner.read(buf) {
                    Ok(count) => break count.min(buf.len()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(source) => return Err(TarError::Read { offset: self.offset, source }),
                }
            }
        };
        self.offset += count as u64;
        Ok(count)
    }

    /// Reads until `buf` is full or the stream ends; returns how much.
    pub(super) fn fill(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read(&mut buf[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    /// Reads past bytes; returns fewer if the stream ends.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<u64, TarError> {
        if bytes == 0 {
            return Ok(0);
        }
        let mut buffer = std::mem::take(&mut self.skip_buffer);
        buffer.resize(SKIP_BUFFER_BYTES, 0);
        let mut left = bytes;
        while left > 0 {
            let limit = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            match self.read(&mut buffer[..limit])? {
                0 => break,
                count => left -= count as u64,
            }
        }
        self.skip_buffer = buffer;
        Ok(bytes - left)
    }
}
