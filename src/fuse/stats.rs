//! What the server counts: requests with their latencies, blocks and bytes.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::wire::opcode;

/// Threads count in places of their own, or the counters' cache lines would travel between CPUs on every request.
const SLOTS: usize = 16;
/// Latencies are counted by powers of two of microseconds: below 1, 2, 4 … and the last for all above half a minute.
const BUCKETS: usize = 26;

/// Things that are counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    /// Blocks that were at hand.
    Hits,
    /// Blocks that another thread was loading.
    Waits,
    /// Blocks that were loaded for a request.
    Loads,
    /// Blocks that were loaded before anyone asked.
    Ahead,
    /// Bytes of file content that the kernel got.
    ServedBytes,
    /// Bytes of blocks that were read from the image.
    PackedBytes,
    /// Files that the kernel got before it asked.
    Given,
    /// Bytes of blocks that it got with the rest of the block.
    GivenBytes,
    /// Requests that were answered with EIO.
    Failures,
}

const COUNTS: usize = 9;
/// Requests by what they ask, as the report names them.
const CLASSES: [&str; 5] = ["lookup", "attributes", "read", "list", "other"];

#[derive(Debug)]
#[repr(align(128))]
struct Slot {
    counts: [AtomicU64; COUNTS],
    latencies: [[AtomicU64; BUCKETS]; CLASSES.len()],
    total_us: [AtomicU64; CLASSES.len()],
}

/// The counters of a server.
#[derive(Debug)]
pub(super) struct Stats {
    slots: Box<[Slot]>,
    started: Instant,
}

impl Stats {
    pub(super) fn new() -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        let slot = || Slot {
            counts: zeros(),
            latencies: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            total_us: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self { slots: (0..SLOTS).map(|_| slot()).collect(), started: Instant::now() }
    }

    /// How long the server lives.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    fn mine(&self) -> &Slot {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed) % SLOTS);
        }
        &self.slots[MINE.get()]
    }

    pub(super) fn add(&self, what: Count, number: u64) {
        self.mine().counts[what as usize].fetch_add(number, Relaxed);
    }

    /// Counts a request that was answered.
    pub(super) fn answered(&self, code: u32, took: Duration) {
        let class = match code {
            opcode::LOOKUP => 0,
            opcode::GETATTR => 1,
            opcode::READ => 2,
            opcode::READDIR | opcode::READDIRPLUS => 3,
            _ => 4,
        };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = usize::try_from(u64::BITS - us.leading_zeros()).unwrap_or(BUCKETS).min(BUCKETS - 1);
        let slot = self.mine();
        slot.latencies[class][bucket].fetch_add(1, Relaxed);
        slot.total_us[class].fetch_add(us, Relaxed);
    }

    pub(super) fn count(&self, what: Count) -> u64 {
        self.slots.iter().map(|slot| slot.counts[what as usize].load(Relaxed)).sum()
    }

    /// All counters, for people.
    pub(super) fn report(&self) -> String {
        let mut text = format!("seconds {}\n\n", self.age().as_secs());
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = text.write_fmt(arguments);
        };
        line(format_args!(
            "{:<11}{:>11}{:>11}{:>11}{:>11}{:>11}\n",
            "request", "count", "mean us", "50% < us", "99% < us", "all < us"
        ));
        for (class, name) in CLASSES.iter().enumerate() {
            let buckets: [u64; BUCKETS] = std::array::from_fn(|bucket| {
                self.slots.iter().map(|slot| slot.latencies[class][bucket].load(Relaxed)).sum()
            });
            let all: u64 = buckets.iter().sum();
            let total: u64 = self.slots.iter().map(|slot| slot.total_us[class].load(Relaxed)).sum();
            let mean = total.checked_div(all).unwrap_or(0);
            let below = |percent: u64| upper_us(&buckets, (all * percent).div_ceil(100));
            let (half, most, every) = (below(50), below(99), below(100));
            line(format_args!("{name:<11}{all:>11}{mean:>11}{half:>11}{most:>11}{every:>11}\n"));
        }
        let [hits, waits, loads, ahead] =
            [Count::Hits, Count::Waits, Count::Loads, Count::Ahead].map(|what| self.count(what));
        let rate = (hits * 100).checked_div(hits + waits + loads).unwrap_or(0);
        line(format_args!(
            "\nblocks: {hits} hits ({rate} %), {waits} waited for, {loads} loaded, {ahead} loaded ahead\n"
        ));
        let [served, packed, failures] =
            [Count::ServedBytes, Count::PackedBytes, Count::Failures].map(|what| self.count(what));
        line(format_args!("bytes: {served} served, {packed} read from the image\n"));
        let (files, rests) = (self.count(Count::Given), self.count(Count::GivenBytes));
        line(format_args!("given before they were asked for: {files} files, and {rests} bytes of others\n"));
        line(format_args!("requests answered with EIO: {failures}\n"));
        text
    }
}

/// The latency below which at least `wanted` requests lie.
fn upper_us(buckets: &[u64; BUCKETS], wanted: u64) -> u64 {
    let mut seen = 0;
    for (bucket, count) in buckets.iter().enumerate() {
        seen += count;
        if seen >= wanted && seen > 0 {
            return 1 << bucket;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_tells() {
        let stats = Stats::new();
        for us in [0, 1, 3, 3, 900] {
            stats.answered(opcode::READ, Duration::from_micros(us));
        }
        stats.answered(9999, Duration::from_secs(1000));
        stats.add(Count::Hits, 3);
        stats.add(Count::Loads, 1);
        stats.add(Count::ServedBytes, 1000);
        let report = stats.report();
        assert!(
            report.contains("read                 5        181          4       1024       1024\n"),
            "{report}"
        );
        assert!(
            report.contains("lookup               0          0          0          0          0\n"),
            "{report}"
        );
        assert!(
            report.contains("blocks: 3 hits (75 %), 0 waited for, 1 loaded, 0 loaded ahead\n"),
            "{report}"
        );
        assert!(report.contains("bytes: 1000 served, 0 read from the image\n"), "{report}");
    }
}
