//! Blobs: a stream that survives broken connections, and the small ones read whole.

use std::io::{ErrorKind, Read as _};

use crate::base::Digest;

use super::client::{Answer, Ask, Client, Place, Watch};
use super::error::RegistryError;
use super::transport::Reach;

/// Bytes per read.
const BUFFER_BYTES: usize = 256 * 1024;
/// A try that brought this many bytes counts as progress, and the tries are counted anew.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A blob to fetch: which, how long, and from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blob<'a> {
    pub(super) host: &'a str,
    pub(super) repository: &'a str,
    pub(super) what: &'a str,
    pub(super) place: &'a Place,
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
}

/// How a transfer went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    /// In one piece.
    Whole,
    /// Continued after a broken connection.
    Resumed,
}

/// Takes the bytes of a blob in order.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), RegistryError>;

impl Client {
    /// Gives exactly the blob's bytes to `sink`, continuing where a connection broke. The digest is the caller's.
    pub(super) fn download(
        &self,
        blob: &Blob<'_>,
        sink: Sink<'_>,
        watch: &Watch<'_>,
    ) -> Result<Transfer, RegistryError> {
        self.download_rest(blob, 0, sink, watch)
    }

    /// As [`Self::download`], from a byte on; those before it are the caller's.
    pub(super) fn download_rest(
        &self,
        blob: &Blob<'_>,
        from_byte: u64,
        sink: Sink<'_>,
        watch: &Watch<'_>,
    ) -> Result<Transfer, RegistryError> {
        let mut transfer = Transfer::Whole;
        let mut done_bytes = from_byte;
        let mut tries = 0;
        loop {
            let before = done_bytes;
            let error = match self.download_from(blob, &mut done_bytes, sink, watch) {
                Ok(()) => return Ok(transfer),
                Err(error) => error,
            };
            if done_bytes - before >= PROGRESS_BYTES {
                tries = 0;
            }
            self.wait_after(error, tries, watch)?;
            tries += 1;
            if done_bytes > 0 {
                transfer = Transfer::Resumed;
            }
        }
    }

    /// One try, from byte `done_bytes` on; counts what it has written there.
    fn download_from(
        &self,
        blob: &Blob<'_>,
        done_bytes: &mut u64,
        sink: Sink<'_>,
        watch: &Watch<'_>,
    ) -> Result<(), RegistryError> {
        if *done_bytes == blob.size_bytes && *done_bytes > 0 {
            // Only the end of the stream was lost; a range that begins there would be refused (416).
            return Ok(());
        }
        let from_byte = *done_bytes;
        let Blob { host, repository, what, place, size_bytes, .. } = *blob;
        let mut answer = self.ask(&Ask { host, repository, what, place, from_byte })?;
        let mut skip_bytes = check_head(blob, &answer, from_byte)?;
        let host = answer.host;
        let mut reader = answer.response.reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let interrupted = |done_bytes, why| RegistryError::Interrupted {
                what: what.into(),
                host: host.clone(),
                done_bytes,
                size_bytes,
                why,
            };
            let count = match reader.read(&mut buffer) {
                Ok(0) if *done_bytes == size_bytes => return Ok(()),
                Ok(0) => {
                    let why = Reach::Broken { why: "the answer ended".into() };
                    return Err(interrupted(*done_bytes, why));
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(interrupted(*done_bytes, Reach::of_read(error))),
            };
            // Where a server ignores the range, the bytes that are there already come again.
            let skipped = usize::try_from(skip_bytes).unwrap_or(usize::MAX).min(count);
            skip_bytes -= skipped as u64;
            let fresh = &buffer[skipped..count];
            if fresh.len() as u64 > size_bytes - *done_bytes {
                return Err(wrong_size(blob, &host, "more bytes"));
            }
            sink(fresh)?;
            *done_bytes += fresh.len() as u64;
            (watch.on_bytes)(*done_bytes);
            if watch.is_stopped() {
                return Err(RegistryError::GivenUp);
            }
        }
    }

    /// Reads a small blob whole and verifies it.
    pub(super) fn read_small(&self, blob: &Blob<'_>, watch: &Watch<'_>) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        let mut keep = |fresh: &[u8]| {
            bytes.extend_from_slice(fresh);
            Ok(())
        };
        self.download(blob, &mut keep, watch)?;
        check_digest(blob.what, blob.host, blob.digest, &bytes)?;
        Ok(bytes)
    }
}

/// Compares bytes with the digest that they were asked by.
pub(super) fn check_digest(
    what: &str,
    host: &str,
    expected: Digest,
    bytes: &[u8],
) -> Result<(), RegistryError> {
    let found = Digest::of(bytes);
    if found == expected {
        return Ok(());
    }
    Err(RegistryError::WrongDigest { what: what.into(), host: host.into(), expected, found })
}

/// Judges the head of the answer; returns how many bytes of its body are there already.
fn check_head(blob: &Blob<'_>, answer: &Answer, from_byte: u64) -> Result<u64, RegistryError> {
    let response = &answer.response;
    let (expected, skip_bytes) = if response.status == 206 {
        let range = response.header("content-range").unwrap_or_default();
        if !range_is(range, from_byte, blob.size_bytes, blob.size_bytes) {
            return Err(RegistryError::Protocol {
                host: answer.host.clone(),
                what: blob.what.into(),
                found: format!("the wrong range `{}`", range.chars().take(80).collect::<String>()),
            });
        }
        (blob.size_bytes - from_byte, 0)
    } else {
        (blob.size_bytes, from_byte)
    };
    match response.content_length() {
        Some(length) if length != expected => Err(wrong_size(
            blob,
            &answer.host,
            &format!("{} bytes", length.saturating_add(from_byte - skip_bytes)),
        )),
        _ => Ok(skip_bytes),
    }
}

/// Whether `bytes FIRST-LAST/TOTAL` is the bytes from `first` to before `end`. `TOTAL` may be `*`.
pub(super) fn range_is(range: &str, first: u64, end: u64, size_bytes: u64) -> bool {
    let Some(spec) = range.trim().strip_prefix("bytes ") else { return false };
    let Some((ends, total)) = spec.split_once('/') else { return false };
    let Some((begin, last)) = ends.split_once('-') else { return false };
    begin.parse() == Ok(first)
        && last.parse::<u64>().is_ok_and(|last| last.checked_add(1) == Some(end))
        && (total == "*" || total.parse() == Ok(size_bytes))
}

fn wrong_size(blob: &Blob<'_>, host: &str, found: &str) -> RegistryError {
    RegistryError::WrongSize {
        what: blob.what.into(),
        host: host.into(),
        expected_bytes: blob.size_bytes,
        found: found.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_ranges() {
        for (range, expected) in [
            ("bytes 10-99/100", true),
            ("bytes 10-99/*", true),
            ("bytes 0-99/100", false),
            ("bytes 11-99/100", false),
            ("bytes 10-98/100", false),
            ("bytes 10-99/101", false),
            ("bytes */100", false),
            ("10-99/100", false),
            ("", false),
            ("bytes 10-18446744073709551615/*", false),
        ] {
            assert_eq!(range_is(range, 10, 100, 100), expected, "{range}");
        }
        assert!(range_is("bytes 10-19/100", 10, 20, 100));
        assert!(!range_is("bytes 10-20/100", 10, 20, 100));
    }
}
