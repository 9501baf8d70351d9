//! Reading ahead: the kernel asks for at most a few times 128 KiB before they are needed, which leaves most CPUs idle and
//! makes small reads of the image. Here runs of reads are seen, and a few threads load what comes next.
//!
//! All of it is a favour: work that finds no room is dropped, and what fails is tried again by who needs it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::cache::Landing;
use super::content::{Content, Packed};
use crate::squashfs::read::BlockPlace;

/// Files whose reads are watched at a time; a file takes the place of another that falls on the same number.
const WATCHED_FILES: u64 = 64;
/// Reads that must follow each other before a run is believed.
const BELIEVED_READS: u32 = 2;
/// Blocks that are loaded ahead at the beginning of a run.
const FIRST_BLOCKS: u64 = 8;
/// Work that waits; more is dropped. A hot list of 4,096 blocks is a few hundred pieces at most.
const MAX_WAITING: usize = 4096;
/// Most bytes of the image that are read at one time, in bytes: large enough for a parallel file system.
pub(super) const PACKED_BYTES: usize = 2 << 20;
/// Neighbours are read together if no more than this lies between them, in bytes: on a parallel file system one more
/// request costs more than these bytes.
const MAX_GAP_BYTES: u64 = 128 << 10;
/// Blocks of a hot list that are put in the order of the image before they are read: at first few, since someone waits
/// for those, then twice as many each time.
const FIRST_SORTED: usize = 32;
/// Most blocks that are read at one time.
const MAX_TOGETHER: usize = 32;

/// Where readers of files are.
#[derive(Debug)]
pub(super) struct Runs {
    runs: Box<[Mutex<Run>]>,
    /// Most blocks ahead of a reader.
    window: u64,
}

#[derive(Debug, Default)]
struct Run {
    id: u64,
    /// The block behind the last one that was read.
    next: u64,
    /// The first block that was not asked for ahead.
    ahead: u64,
    /// Reads that followed each other.
    reads: u32,
}

impl Runs {
    /// Watches runs, for which at most `window` blocks are loaded ahead.
    pub(super) fn new(window: usize) -> Self {
        Self { runs: (0..WATCHED_FILES).map(|_| Mutex::default()).collect(), window: window as u64 }
    }

    /// Notes a read of the blocks `first..=last` of file `id`, which has `count`; says which blocks to load now.
    pub(super) fn note(&self, id: u64, first: u64, last: u64, count: u64) -> std::ops::Range<u64> {
        if self.window < 2 || count < 3 {
            return 0..0;
        }
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let index = usize::try_from((id.wrapping_mul(GOLDEN) >> 32) % WATCHED_FILES).unwrap_or(0);
        let mut run = lock(&self.runs[index]);
        // The kernel has two reads of a run in flight, and they may come in either order.
        let follows = run.id == id && first <= run.next + 2 && last + 2 >= run.next;
        if !follows {
            *run = Run { id, next: last + 1, ahead: last + 1, reads: 1 };
            return 0..0;
        }
        if last < run.next {
            return 0..0;
        }
        run.next = last + 1;
        run.reads = run.reads.saturating_add(1);
        if run.reads < BELIEVED_READS {
            return 0..0;
        }
        let doublings = (run.reads - BELIEVED_READS).min(8);
        let window = (FIRST_BLOCKS << doublings).min(self.window);
        let from = run.ahead.max(run.next);
        let upto = (run.next + window).min(count);
        // Not one by one: half a window is one large read.
        if from >= upto || (upto - from < window / 2 && upto < count) {
            return 0..0;
        }
        run.ahead = upto;
        from..upto
    }
}

/// What a thread of the pool does next.
#[derive(Debug)]
pub(super) enum Work {
    /// Have the system read a stretch of the image; what is done with it comes later.
    Warm(std::ops::Range<u64>),
    /// Read neighbouring blocks from the image, and unpack them.
    Fetch(Vec<BlockPlace>),
    /// Unpack some that were read.
    Unpack(Arc<Packed>, Vec<Landing>),
}

/// The threads that load ahead. They are started when there is work, so a short start never has one.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    work: VecDeque<Work>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    /// Most threads; 0 before the pool is opened and after it is closed.
    limit: usize,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), more: Condvar::new() }
    }

    /// From now on there is a pool, of at most so many threads.
    pub(super) fn open(&self, limit: usize) {
        lock(&self.state).limit = limit;
    }

    /// Drops what waits and ends the threads.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.limit = 0;
        let (work, threads) = (std::mem::take(&mut state.work), std::mem::take(&mut state.threads));
        drop(state);
        self.more.notify_all();
        drop(work);
        for thread in threads {
            // A panic was caught inside.
            let _ = thread.join();
        }
    }

    /// Blocks to load, in the order in which they will be needed; neighbours are read together.
    pub(super) fn fetch(&self, content: &Arc<Content>, places: impl IntoIterator<Item = BlockPlace>) {
        let mut batch: Vec<BlockPlace> = Vec::new();
        for place in places.into_iter().filter(|place| place.size_word != 0) {
            if !batch.is_empty() && !fits(&batch, place) {
                self.submit(content, Work::Fetch(std::mem::take(&mut batch)));
            }
            batch.push(place);
        }
        if !batch.is_empty() {
            self.submit(content, Work::Fetch(batch));
        }
    }

    /// The blocks of a hot list, which are in the order of their first use.
    pub(super) fn fetch_hot(&self, content: &Arc<Content>, mut places: &[BlockPlace]) {
        let mut count = FIRST_SORTED;
        while !places.is_empty() {
            let (now, later) = places.split_at(count.min(places.len()));
            let mut sorted = now.to_vec();
            sorted.sort_unstable_by_key(|place| place.offset);
            self.fetch(content, sorted);
            (places, count) = (later, count * 2);
        }
    }

    /// Has the system read the blocks of a hot list that find no room here.
    pub(super) fn warm_hot(&self, content: &Arc<Content>, places: &[BlockPlace]) {
        let mut sorted = places.to_vec();
        sorted.sort_unstable_by_key(|place| place.offset);
        let mut batch: Vec<BlockPlace> = Vec::new();
        let warm = |batch: &[BlockPlace]| {
            if let (Some(first), Some(last)) = (batch.first(), batch.last()) {
                let end = last.offset.saturating_add(last.packed_bytes().into());
                self.submit(content, Work::Warm(first.offset..end));
            }
        };
        for place in sorted {
            if !fits(&batch, place) {
                warm(&std::mem::take(&mut batch));
            }
            batch.push(place);
        }
        warm(&batch);
    }

    /// Work, if there is room for it.
    pub(super) fn submit(&self, content: &Arc<Content>, work: Work) {
        let mut state = lock(&self.state);
        if state.limit == 0 || state.work.len() >= MAX_WAITING {
            return;
        }
        state.work.push_back(work);
        self.wake(&mut state, content);
    }

    /// Parts of what a thread is at, for the others: before all else, since someone may wait for them already.
    pub(super) fn share(&self, content: &Arc<Content>, parts: Vec<Work>) {
        let mut state = lock(&self.state);
        for part in parts.into_iter().rev() {
            if state.limit > 0 {
                state.work.push_front(part);
                self.wake(&mut state, content);
            }
        }
    }

    fn wake(&self, state: &mut State, content: &Arc<Content>) {
        if state.idle > 0 {
            self.more.notify_one();
        } else if state.threads.len() < state.limit {
            let content = content.clone();
            let thread = std::thread::Builder::new().name("slipway-ahead".to_owned());
            // Without a new thread the others do it later, or nobody does.
            state.threads.extend(thread.spawn(move || content.pool.work(&content)).ok());
        }
    }

    fn work(&self, content: &Arc<Content>) {
        let mut state = lock(&self.state);
        loop {
            if let Some(work) = state.work.pop_front() {
                drop(state);
                // Whoever waits for what a bug of ours drops here loads it himself.
                let _ = catch_unwind(AssertUnwindSafe(|| content.load_ahead(work)));
                state = lock(&self.state);
            } else if state.limit == 0 {
                return;
            } else {
                state.idle += 1;
                state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

/// Whether `place` is read together with those before it.
fn fits(batch: &[BlockPlace], place: BlockPlace) -> bool {
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return true };
    let last_end = last.offset.saturating_add(last.packed_bytes().into());
    let end = place.offset.saturating_add(place.packed_bytes().into());
    place.offset >= last_end
        && place.offset - last_end <= MAX_GAP_BYTES
        && end - first.offset <= PACKED_BYTES as u64
        && batch.len() < MAX_TOGETHER
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_seen_and_others_are_not() {
        let runs = Runs::new(32);
        let note = |first: u64, last: u64| runs.note(7, first, last, 1000);
        assert_eq!(note(0, 0), 0..0);
        assert_eq!(note(0, 0), 0..0, "small reads of one block are no run");
        assert_eq!(note(1, 1), 2..10);
        assert_eq!(note(3, 3), 10..20, "the kernel's reads come in any order");
        assert_eq!(note(2, 2), 0..0);
        assert_eq!(note(4, 4), 20..37);
        for block in 5..20 {
            assert_eq!(note(block, block), 0..0, "{block}: no read of a few blocks");
        }
        assert_eq!(note(20, 20), 37..53);
        assert_eq!(note(500, 500), 0..0);
        assert_eq!(note(100, 100), 0..0);
        assert_eq!(note(998, 998), 0..0);
        assert_eq!(note(999, 999), 0..0);
        assert_eq!(Runs::new(1).note(7, 0, 0, 1000), 0..0);
    }

    #[test]
    fn neighbours_are_read_together() {
        let place = |offset, size_word| BlockPlace { offset, size_word };
        let batch = [place(0, 1000), place(1000, 500)];
        assert!(fits(&[], place(5, 5)));
        assert!(fits(&batch, place(1500, 10)) && fits(&batch, place(130_000, 10)));
        assert!(!fits(&batch, place(140_000, 10)) && !fits(&batch, place(1400, 10)));
        let far = [place(0, 1 << 20), place(1 << 20, 0xf_0000)];
        assert!(!fits(&far, place(0x1f_0000, 0x1_0001)) && fits(&far, place(0x1f_0000, 0x1_0000)));
    }
}
