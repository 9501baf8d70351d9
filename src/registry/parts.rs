//! Large blobs over several connections at once: one connection rarely fills the line to a distant store.
//!
//! ```text
//! part 0, alone: does the server know ranges?   workers ─▶ parts 1, 2, 3 … ─▶ in their order ─▶ sink
//! ```
//!
//! The parts are handed on in order, so that the digest is made as they come; those that wait for an earlier one are kept
//! in memory, as many as the window has room for. This is an accelerator and nothing more: whatever goes wrong here, the
//! rest of the blob comes over one connection, whose errors and waits are the ones that are told.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::blob::{Blob, Sink, Transfer, range_is};
use super::client::{Ask, Client, Watch};
use super::error::RegistryError;
use super::transport::Reach;

/// A blob of fewer parts comes over one connection.
const MIN_PARTS: u64 = 8;
/// Parts for each connection that are on their way or wait for an earlier one.
const WINDOW_PER_CONNECTION: u64 = 2;
/// Most connections for one blob.
const MAX_CONNECTIONS: usize = 16;
/// Bytes per read, after which a worker looks whether it should stop.
const READ_BYTES: usize = 256 << 10;

/// What the workers and the writer share.
#[derive(Debug, Default)]
struct State {
    /// The next part that nobody has begun.
    next: u64,
    /// Parts that were handed on.
    written: u64,
    in_flight: usize,
    /// Whole parts that wait for an earlier one.
    ready: BTreeMap<u64, Vec<u8>>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    /// No further part is begun.
    is_over: bool,
}

/// A blob cut into parts.
struct Parts<'a> {
    client: &'a Client,
    blob: &'a Blob<'a>,
    count: u64,
    window: u64,
    stopped: &'a AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
}

impl Client {
    /// As [`Client::download`], but a large blob comes over several connections while the server goes along.
    pub(super) fn download_in_parts(
        &self,
        blob: &Blob<'_>,
        sink: Sink<'_>,
        watch: &Watch<'_>,
    ) -> Result<Transfer, RegistryError> {
        let connections = self.options.connections_per_layer.min(MAX_CONNECTIONS);
        let count = blob.size_bytes.div_ceil(self.options.part_bytes.max(1));
        let mut done_bytes = 0;
        if connections > 1 && count >= MIN_PARTS {
            let parts = Parts {
                client: self,
                blob,
                count,
                window: connections as u64 * WINDOW_PER_CONNECTION,
                stopped: watch.stopped,
                state: Mutex::default(),
                wake: Condvar::new(),
            };
            parts.fetch(connections, &mut done_bytes, sink, watch)?;
        }
        let transfer = self.download_rest(blob, done_bytes, sink, watch)?;
        // Parts may be of different copies, as the pieces of a broken transfer may.
        Ok(if done_bytes > 0 { Transfer::Resumed } else { transfer })
    }
}

impl Parts<'_> {
    /// Hands on as many parts as there are without a trouble. An error is one of the sink, or an order to stop.
    fn fetch(
        &self,
        connections: usize,
        done_bytes: &mut u64,
        sink: Sink<'_>,
        watch: &Watch<'_>,
    ) -> Result<(), RegistryError> {
        let mut first = Vec::new();
        if self.fetch_part(0, &mut first).is_err() {
            return Ok(());
        }
        {
            let mut state = self.lock();
            state.next = 1;
            state.ready.insert(0, first);
        }
        std::thread::scope(|scope| {
            for _ in 0..connections {
                let worker = std::thread::Builder::new().name("slipway-part".into());
                // Fewer connections do as well; with none, the rest comes over the writer's own.
                if worker.spawn_scoped(scope, || self.work()).is_err() {
                    break;
                }
            }
            let result = self.write(done_bytes, sink, watch);
            self.lock().is_over = true;
            self.wake.notify_all();
            result
        })
    }

    /// The writer: parts in their order, until the last one or one that will not come.
    fn write(&self, done_bytes: &mut u64, sink: Sink<'_>, watch: &Watch<'_>) -> Result<(), RegistryError> {
        while let Some(part) = self.next_part() {
            sink(&part)?;
            *done_bytes += part.len() as u64;
            (watch.on_bytes)(*done_bytes);
            if watch.is_stopped() {
                return Err(RegistryError::GivenUp);
            }
            let mut state = self.lock();
            state.written += 1;
            state.spare.push(part);
            self.wake.notify_all();
        }
        Ok(())
    }

    fn next_part(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            let index = state.written;
            if let Some(part) = state.ready.remove(&index) {
                return Some(part);
            }
            if index == self.count || (state.is_over && state.in_flight == 0) {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A worker: part after part. One that fails twice ends the matter for all.
    fn work(&self) {
        while let Some((index, mut buffer)) = self.begin_part() {
            let mut result = self.fetch_part(index, &mut buffer);
            if result.as_ref().is_err_and(|error| matches!(error, RegistryError::Interrupted { .. })) {
                result = self.fetch_part(index, &mut buffer);
            }
            let mut state = self.lock();
            state.in_flight -= 1;
            if result.is_ok() {
                state.ready.insert(index, buffer);
            } else {
                state.is_over = true;
            }
            self.wake.notify_all();
        }
    }

    fn begin_part(&self) -> Option<(u64, Vec<u8>)> {
        let mut state = self.lock();
        loop {
            if state.is_over || state.next == self.count {
                return None;
            }
            if state.next < state.written + self.window {
                let index = state.next;
                state.next += 1;
                state.in_flight += 1;
                return Some((index, state.spare.pop().unwrap_or_default()));
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one part into `buffer`. One try.
    fn fetch_part(&self, index: u64, buffer: &mut Vec<u8>) -> Result<(), RegistryError> {
        let Blob { host, repository, what, place, size_bytes, .. } = *self.blob;
        let from_byte = index * self.client.options.part_bytes.max(1);
        let end = (from_byte + self.client.options.part_bytes.max(1)).min(size_bytes);
        let ask = Ask { host, repository, what, place, from_byte };
        let mut answer = self.client.ask_part(&ask, Some(end - 1))?;
        let range = answer.response.header("content-range").unwrap_or_default();
        if answer.response.status != 206 || !range_is(range, from_byte, end, size_bytes) {
            let found = "no part of it".into();
            return Err(RegistryError::Protocol { host: answer.host, what: what.into(), found });
        }
        let host = answer.host;
        let broken = |why| RegistryError::Interrupted {
            what: what.into(),
            host: host.clone(),
            done_bytes: from_byte,
            size_bytes,
            why,
        };
        let length = usize::try_from(end - from_byte).unwrap_or(usize::MAX);
        // No more than was configured, and never more than the blob has.
        buffer.resize(length, 0);
        let mut reader = answer.response.reader();
        for piece in buffer.chunks_mut(READ_BYTES) {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(RegistryError::GivenUp);
            }
            reader.read_exact(piece).map_err(|error| broken(Reach::of_read(error)))?;
        }
        // The connection can be used again only when its answer was read to the end.
        match reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(broken(Reach::Broken { why: "the answer goes on behind its end".into() })),
            Err(error) => Err(broken(Reach::of_read(error))),
        }
    }
}
