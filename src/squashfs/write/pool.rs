//! Compressing threads: blocks go in, tickets come back, and a ticket is redeemed for its block when it is done.
//!
//! Whoever redeems tickets in the order in which they were given writes the same bytes however many threads there are.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::error::WriteError;
use crate::squashfs::compress::{BlockCompressor, Compressor};
use crate::squashfs::format::BLOCK_STORED;
use crate::squashfs::sums::{BlockSum, Sum};

/// More threads than this are not started: no machine feeds them, and each costs blocks in flight.
pub(super) const MAX_THREADS: usize = 256;
/// Blocks in flight for each thread: one at work, others ready so that no thread waits for the next file to be read.
const BLOCKS_IN_FLIGHT_PER_THREAD: usize = 4;

/// The threads. Dropping it ends and joins them.
#[derive(Debug)]
pub(super) struct Pool {
    /// `None` only while dropping.
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    input: Vec<u8>,
    output: Vec<u8>,
    /// It stays as it is.
    is_plain: bool,
    reply: SyncSender<io::Result<Packed>>,
}

/// A block after compression, with both of its buffers, so that they can be used again.
#[derive(Debug)]
pub(super) struct Packed {
    input: Vec<u8>,
    output: Vec<u8>,
    shrunk: bool,
    sum: Sum,
}

/// The claim on a block that is being compressed.
#[derive(Debug)]
pub(super) struct Ticket(Receiver<io::Result<Packed>>);

impl Pool {
    /// Starts the threads, at least one.
    pub(super) fn start(compressor: Compressor, threads: usize) -> Result<Self, WriteError> {
        let count = threads.clamp(1, MAX_THREADS);
        let (jobs, queue) = sync_channel::<Job>(count * BLOCKS_IN_FLIGHT_PER_THREAD);
        let queue = Arc::new(Mutex::new(queue));
        let mut pool = Self { jobs: Some(jobs), threads: Vec::with_capacity(count) };
        for index in 1..=count {
            let context =
                BlockCompressor::new(compressor).map_err(|source| WriteError::Compress { source })?;
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new()
                .name(format!("compress-{index}"))
                .spawn(move || work(context, &queue))
                .map_err(|source| WriteError::Thread { index, threads: count, source })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// How many blocks may be in flight; this bounds the memory.
    pub(super) fn max_in_flight(&self) -> usize {
        self.threads.len() * BLOCKS_IN_FLIGHT_PER_THREAD
    }

    /// Hands a block to the threads. `output` is a buffer to compress into, of any content.
    pub(super) fn submit(
        &self,
        input: Vec<u8>,
        output: Vec<u8>,
        is_plain: bool,
    ) -> Result<Ticket, WriteError> {
        let (reply, answer) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or(WriteError::ThreadLost)?;
        jobs.send(Job { input, output, is_plain, reply }).map_err(|_| WriteError::ThreadLost)?;
        Ok(Ticket(answer))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Without a sender the threads run out of jobs and end.
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked dropped its reply, which the holder of the ticket has seen.
            let _ = thread.join();
        }
    }
}

fn work(mut context: BlockCompressor, queue: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while waiting: the next thread in line waits for the lock instead of for the queue.
        let Ok(receiver) = queue.lock() else { return };
        let Ok(Job { input, mut output, is_plain, reply }) = receiver.recv() else { return };
        drop(receiver);
        let packed = if is_plain { Ok(false) } else { context.compress(&input, &mut output) };
        let answer = packed.map(|shrunk| {
            // Here, where the bytes are still in the caches of one of several CPUs.
            let sum = Sum::of(if shrunk { &output } else { &input });
            Packed { input, output, shrunk, sum }
        });
        // Nobody listens any more when the writer was dropped.
        let _ = reply.send(answer);
    }
}

impl Ticket {
    /// Waits for the block.
    pub(super) fn wait(self) -> Result<Packed, WriteError> {
        let answer = self.0.recv().map_err(|_| WriteError::ThreadLost)?;
        answer.map_err(|source| WriteError::Compress { source })
    }

    /// Takes the block if it is done.
    pub(super) fn poll(&self) -> Result<Option<Packed>, WriteError> {
        match self.0.try_recv() {
            Ok(answer) => answer.map(Some).map_err(|source| WriteError::Compress { source }),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(WriteError::ThreadLost),
        }
    }
}

impl Packed {
    /// What to write.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.shrunk { &self.output } else { &self.input }
    }

    /// What to note of it.
    pub(super) fn sum(&self) -> BlockSum {
        let packed_bytes = u32::try_from(self.bytes().len()).expect("a block has at most 128 KiB");
        BlockSum { packed_bytes, sum: self.sum }
    }

    /// The size on disk with the stored bit, as block lists and the fragment table hold it.
    pub(super) fn size_word(&self) -> u32 {
        let size = u32::try_from(self.bytes().len()).expect("a block has at most 128 KiB");
        if self.shrunk { size } else { size | BLOCK_STORED }
    }

    /// The buffers, to be used again.
    pub(super) fn into_buffers(self) -> [Vec<u8>; 2] {
        [self.input, self.output]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_redeemed_in_any_order() {
        let pool = Pool::start(Compressor::Zstd(1), 3).unwrap();
        let tickets: Vec<_> =
            (0..12_u8).map(|byte| pool.submit(vec![byte; 4096], Vec::new(), false).unwrap()).collect();
        for (ticket, byte) in tickets.into_iter().rev().zip((0..12).rev()) {
            let packed = ticket.wait().unwrap();
            assert!(packed.shrunk && packed.size_word() < 100);
            assert_eq!(packed.into_buffers()[0], vec![byte; 4096]);
        }
    }

    #[test]
    fn drops_with_work_in_flight() {
        let pool = Pool::start(Compressor::Gzip(9), 2).unwrap();
        let _tickets: Vec<_> =
            (0..8).map(|_| pool.submit(vec![1; 128 * 1024], Vec::new(), false).unwrap()).collect();
    }

    #[test]
    fn a_bad_level_is_an_error_at_the_start() {
        assert!(matches!(Pool::start(Compressor::Zstd(99), 1), Err(WriteError::Compress { .. })));
    }
}
