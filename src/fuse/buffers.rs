//! Memory for blocks, used again and again.
//!
//! A fresh allocation of 128 KiB costs the kernel 32 page faults, and freed ones stay with the allocator's arenas of
//! whichever threads made them: without this, a server with a cache of 64 MiB grew to 110.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers of one size that nobody uses at the moment.
#[derive(Debug)]
pub(super) struct Buffers {
    idle: Mutex<Vec<Vec<u8>>>,
    size_bytes: usize,
    most_idle: usize,
}

/// Bytes of a block. Its memory goes back to where it came from.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    home: Option<Arc<Buffers>>,
}

impl Buffers {
    /// Buffers of `size_bytes`, of which at most `most_idle` wait for their next use.
    pub(super) fn new(size_bytes: usize, most_idle: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), size_bytes, most_idle })
    }

    /// A buffer with anything in it.
    pub(super) fn take(self: &Arc<Self>) -> Buffer {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = idle.unwrap_or_else(|| Vec::with_capacity(self.size_bytes));
        Buffer { bytes, home: Some(self.clone()) }
    }
}

impl Buffer {
    /// For filling it.
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Much shorter content does not hold a whole buffer.
    pub(super) fn shrunk(self) -> Self {
        if self.bytes.len() * 2 > self.bytes.capacity() {
            return self;
        }
        Self { bytes: self.bytes.as_slice().to_vec(), home: None }
    }

    /// Memory that it takes.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, home: None }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let bytes = std::mem::take(&mut self.bytes);
        let mut idle = home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // One that grew is another size's.
        if idle.len() < home.most_idle && bytes.capacity() == home.size_bytes {
            idle.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_bounded() {
        let buffers = Buffers::new(1000, 2);
        let mut first = buffers.take();
        first.bytes_mut().resize(900, 7);
        let place = first.as_ptr();
        drop(first);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 900));
        drop((again, buffers.take(), buffers.take(), buffers.take()));
        assert_eq!(buffers.idle.lock().unwrap().len(), 2);
        let mut short = buffers.take();
        short.bytes_mut().resize(10, 1);
        let short = short.shrunk();
        assert_eq!((&*short, short.held_bytes()), ([1; 10].as_slice(), 10));
    }
}
