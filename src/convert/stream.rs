//! One layer as a byte stream: read, inflated and hashed by threads of their own, so that all of it overlaps with the
//! parsing and compressing that the caller does.
//!
//! ```text
//! file ─▶ read + sha256 of the stored bytes ─▶ inflate ─┬─▶ sha256 of the tar
//!                                                       └─▶ TarStream, read by the caller
//! ```
//!
//! Buffers are large, their number is bounded, and they are used again and again: a fresh one costs more page faults
//! than filling it costs time. So memory does not depend on the layer. Both digests cover the layer
//! to its last byte, also what stands behind the end of the tar. There, or behind a fault of the tar, only so much is
//! inflated as any padding has: the stored bytes are hashed to their end, but a few of them cannot keep us busy for hours.

use std::borrow::Borrow;
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::base::{Digest, Hasher, ReadAt as _};
use crate::store::Layer;
use crate::tarlayer::Encoding;

/// Bytes of one buffer. Smaller ones wake threads too often, larger ones leave the caches.
const CHUNK_BYTES: usize = 256 << 10;
/// Buffers that wait between two threads.
const CHUNKS_AHEAD: usize = 4;
/// Most bytes behind the end of a tar, in bytes. Padding is 10 KiB as a rule, and a 4 MiB record at most.
pub(super) const MAX_REST_BYTES: u64 = 1 << 30;

/// What became of a layer's bytes.
#[derive(Debug)]
pub(super) struct Fate {
    /// sha256 of the stored bytes, where somebody promised one.
    pub(super) stored: io::Result<Option<Digest>>,
    /// How it was compressed.
    pub(super) encoding: Encoding,
    /// Length of the tar, in bytes.
    pub(super) inflated: io::Result<u64>,
    /// More than [`MAX_REST_BYTES`] stand behind what was consumed, and were not inflated.
    pub(super) is_cut: bool,
    /// sha256 of the tar; `None` where the stored bytes are the tar and have that digest already.
    pub(super) diff_id: Option<Digest>,
}

/// Gives the tar of `layer` to `consume`; `on_progress` learns how many stored bytes are done. When `consume` fails, the
/// rest of the layer is still read, since a wrong digest explains more than a strange tar, unless `is_hopeless` says
/// that the error has another reason.
///
/// An error of this function means that a thread could not be started.
pub(super) fn read_layer<T, E>(
    layer: &Layer,
    on_progress: &mut dyn FnMut(u64),
    consume: impl FnOnce(&mut TarStream<'_>) -> Result<T, E>,
    is_hopeless: impl FnOnce(&E) -> bool,
) -> io::Result<(Result<T, E>, Fate)> {
    let (done_bytes, is_enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let spawn = |name: &str| thread::Builder::new().name(name.into());
    thread::scope(|scope| {
        let (stored_sender, stored) = sync_channel(CHUNKS_AHEAD);
        let (tar_sender, tar) = sync_channel(CHUNKS_AHEAD);
        let (hash_sender, to_hash) = sync_channel(CHUNKS_AHEAD);
        let (done, enough) = (&done_bytes, &is_enough);
        let is_named_by_tar = layer.digest == Some(layer.diff_id);
        let reader =
            spawn("slipway-read").spawn_scoped(scope, move || read_stored(layer, stored_sender, done))?;
        let inflater = spawn("slipway-inflate").spawn_scoped(scope, move || {
            inflate(stored, [hash_sender, tar_sender], is_named_by_tar, enough)
        })?;
        let hasher = spawn("slipway-hash").spawn_scoped(scope, move || hash(to_hash))?;

        let mut stream = TarStream { chunks: Chunks::new(tar), done_bytes: &done_bytes, on_progress };
        let consumed = consume(&mut stream);
        match &consumed {
            Err(error) if is_hopeless(error) => {}
            _ => is_enough.store(!stream.drain(), Ordering::Relaxed),
        }
        drop(stream);
        let (encoding, inflated) = join(inflater);
        let is_cut = is_enough.load(Ordering::Relaxed);
        let fate = Fate { stored: join(reader), encoding, inflated, is_cut, diff_id: join(hasher) };
        Ok((consumed, fate))
    })
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reads the layer's part of its file. Ends early, without a digest, when nobody wants the bytes any more.
fn read_stored(
    layer: &Layer,
    sender: SyncSender<Chunk>,
    done_bytes: &AtomicU64,
) -> io::Result<Option<Digest>> {
    let buffers = Buffers::default();
    let mut hasher = layer.digest.map(|_| Hasher::new());
    let mut done = 0;
    while done < layer.size_bytes {
        let left = usize::try_from(layer.size_bytes - done).unwrap_or(usize::MAX);
        let mut chunk = buffers.take(left.min(CHUNK_BYTES));
        let at = layer.offset_bytes.checked_add(done).ok_or(io::ErrorKind::InvalidInput)?;
        layer.file.read_exact_at(&mut chunk.bytes, at)?;
        if let Some(hasher) = &mut hasher {
            hasher.update(&chunk.bytes);
        }
        done += chunk.bytes.len() as u64;
        if sender.send(chunk).is_err() {
            return Ok(None);
        }
        done_bytes.store(done, Ordering::Relaxed);
    }
    Ok(hasher.map(Hasher::finish))
}

/// Inflates for the hasher and the reader, until the end or until one of them is gone. The hasher gets nothing where the
/// stored bytes have the tar's digest (`is_named_by_tar`) and are the tar.
fn inflate(
    stored: Receiver<Chunk>,
    [hasher, reader]: [SyncSender<Arc<Chunk>>; 2],
    is_named_by_tar: bool,
    is_enough: &AtomicBool,
) -> (Encoding, io::Result<u64>) {
    let mut input = Chunks::new(stored);
    let encoding = Encoding::of(input.fill_buf().unwrap_or_default());
    let mut receivers = vec![reader];
    if encoding != Encoding::Plain || !is_named_by_tar {
        receivers.push(hasher);
    }
    let inflated = inflate_as(encoding, &mut input, &receivers);
    // The reader has to hash to the end, whatever is wrong here.
    if inflated.is_err() || is_enough.load(Ordering::Relaxed) {
        input.drain();
    }
    (encoding, inflated)
}

fn inflate_as(
    encoding: Encoding,
    input: &mut Chunks<Chunk>,
    receivers: &[SyncSender<Arc<Chunk>>],
) -> io::Result<u64> {
    let buffers = Buffers::default();
    let mut tar = encoding.decode(input)?;
    let mut total_bytes: u64 = 0;
    loop {
        let mut chunk = buffers.take(CHUNK_BYTES);
        let mut filled = 0;
        let mut failed = None;
        while filled < CHUNK_BYTES && failed.is_none() {
            match tar.read(&mut chunk.bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => failed = Some(error),
            }
        }
        chunk.bytes.truncate(filled);
        total_bytes += filled as u64;
        let chunk = Arc::new(chunk);
        let is_wanted = receivers.iter().all(|receiver| receiver.send(chunk.clone()).is_ok());
        if let Some(error) = failed {
            return Err(error);
        }
        if filled == 0 || !is_wanted {
            return Ok(total_bytes);
        }
    }
}

/// The digest of all chunks; `None` if not even one came.
fn hash(chunks: Receiver<Arc<Chunk>>) -> Option<Digest> {
    let mut hasher = None;
    for chunk in chunks {
        hasher.get_or_insert_with(Hasher::new).update(&chunk.bytes);
    }
    hasher.map(Hasher::finish)
}

/// Buffers that nobody uses at the moment.
#[derive(Debug, Default, Clone)]
struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// A buffer of that length and of any content.
    fn take(&self, length: usize) -> Chunk {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        // One that comes back full has this length already and is not zeroed again.
        bytes.resize(length, 0);
        Chunk { bytes, home: self.clone() }
    }
}

/// A buffer that goes back where it came from when its last reader is done.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.home.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

/// Buffers from another thread as one byte stream. It ends when that thread ends, whether all was well there or not.
#[derive(Debug)]
struct Chunks<C> {
    receiver: Receiver<C>,
    current: Option<C>,
    read_bytes: usize,
}

impl<C: Borrow<Chunk>> Chunks<C> {
    fn new(receiver: Receiver<C>) -> Self {
        Self { receiver, current: None, read_bytes: 0 }
    }

    fn left(&self) -> &[u8] {
        self.current
            .as_ref()
            .and_then(|chunk| chunk.borrow().bytes.get(self.read_bytes..))
            .unwrap_or_default()
    }

    /// Waits for the other thread to end.
    fn drain(&mut self) {
        self.current = None;
        while self.receiver.recv().is_ok() {}
    }
}

impl<C: Borrow<Chunk>> BufRead for Chunks<C> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.left().is_empty() {
            self.current = None;
            let Ok(chunk) = self.receiver.recv() else { break };
            (self.current, self.read_bytes) = (Some(chunk), 0);
        }
        Ok(self.left())
    }

    fn consume(&mut self, count: usize) {
        self.read_bytes += count;
    }
}

impl<C: Borrow<Chunk>> Read for Chunks<C> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let ahead = self.fill_buf()?;
        let count = ahead.len().min(buf.len());
        buf[..count].copy_from_slice(&ahead[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// The tar of a layer.
pub(super) struct TarStream<'a> {
    chunks: Chunks<Arc<Chunk>>,
    done_bytes: &'a AtomicU64,
    on_progress: &'a mut dyn FnMut(u64),
}

impl std::fmt::Debug for TarStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TarStream")
    }
}

impl TarStream<'_> {
    /// Waits for the end; `false` if it is too far.
    fn drain(&mut self) -> bool {
        self.chunks.current = None;
        let mut rest_bytes = 0;
        while let Ok(chunk) = self.chunks.receiver.recv() {
            rest_bytes += chunk.bytes.len() as u64;
            if rest_bytes > MAX_REST_BYTES {
                return false;
            }
        }
        true
    }
}

impl Read for TarStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.chunks.left().is_empty() {
            (self.on_progress)(self.done_bytes.load(Ordering::Relaxed));
        }
        self.chunks.read(buf)
    }
}
