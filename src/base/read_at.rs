//! Positional reads: the only view that the pure format readers have of a file.

use std::io;

/// Bytes that can be read at any offset by several threads at once.
pub trait ReadAt: Send + Sync {
    /// Reads at most `buf.len()` bytes at `offset` (bytes); 0 means the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// The length in bytes.
    fn size_bytes(&self) -> u64;

    /// Says that these bytes were read and will not be read again soon, so that the system need not keep them in memory.
    fn done_with(&self, _offset: u64, _size_bytes: u64) {}

    /// Says that these bytes will be read soon, so that the system can fetch them meanwhile.
    fn will_need(&self, _offset: u64, _size_bytes: u64) {}

    /// Fills `buf` from `offset` or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset.checked_add(done as u64).ok_or(io::ErrorKind::InvalidInput)?;
            match self.read_at(&mut buf[done..], at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(rest) = usize::try_from(offset).ok().and_then(|start| self.get(start..)) else {
            return Ok(0);
        };
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.as_slice().read_at(buf, offset)
    }

    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl<T: ReadAt + ?Sized> ReadAt for std::sync::Arc<T> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buf, offset)
    }

    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }

    fn done_with(&self, offset: u64, size_bytes: u64) {
        (**self).done_with(offset, size_bytes);
    }

    fn will_need(&self, offset: u64, size_bytes: u64) {
        (**self).will_need(offset, size_bytes);
    }
}

/// A part of a larger file, such as the partition of a SIF, seen as a file of its own.
#[derive(Debug, Clone)]
pub struct Window<R> {
    inner: R,
    offset: u64,
    size_bytes: u64,
}

impl<R: ReadAt> Window<R> {
    /// The `size_bytes` bytes at `offset` of `inner`; both are cut to what `inner` has.
    pub fn new(inner: R, offset: u64, size_bytes: u64) -> Self {
        let have = inner.size_bytes().saturating_sub(offset);
        Self { inner, offset, size_bytes: size_bytes.min(have) }
    }
}

impl<R: ReadAt> ReadAt for Window<R> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.size_bytes.saturating_sub(offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if count == 0 {
            return Ok(0);
        }
        self.inner.read_at(&mut buf[..count], self.offset + offset)
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn done_with(&self, offset: u64, size_bytes: u64) {
        let left = self.size_bytes.saturating_sub(offset);
        if left > 0 {
            self.inner.done_with(self.offset + offset, size_bytes.min(left));
        }
    }

    fn will_need(&self, offset: u64, size_bytes: u64) {
        let left = self.size_bytes.saturating_sub(offset);
        if left > 0 {
            self.inner.will_need(self.offset + offset, size_bytes.min(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_never_reads_past_its_end() {
        let window = Window::new(b"0123456789".to_vec(), 2, 5);
        let mut buf = [0; 10];
        assert_eq!(window.read_at(&mut buf, 3).unwrap(), 2);
        assert_eq!(&buf[..2], b"56");
        assert_eq!(window.read_at(&mut buf, 5).unwrap(), 0);
        assert!(window.read_exact_at(&mut buf[..3], 3).is_err());
        assert_eq!(Window::new(b"012".to_vec(), 9, 5).size_bytes(), 0);
    }
}
