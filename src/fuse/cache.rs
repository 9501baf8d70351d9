//! Decompressed blocks in memory: bounded, and no block is decompressed by two threads at a time.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::buffers::Buffer;
use crate::squashfs::read::BlockPlace;

/// Most locks that the cache is split over.
const MAX_SHARDS: usize = 16;
/// A shard has room for so many blocks at least, or there are fewer shards.
const MIN_BLOCKS_PER_SHARD: usize = 8;
/// Blocks that a shard keeps although the kernel has all of them.
const GIVEN_PER_SHARD: usize = 2;

/// What keeping a block costs beside its bytes: its places in map and ring.
const ENTRY_BYTES: usize = 256;

/// A decompressed block.
pub(super) type Block = Arc<Buffer>;

/// A block could not be read. The reason has nobody to go to: the request fails with EIO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The cache.
#[derive(Debug)]
pub(super) struct Cache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes: usize,
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<BlockPlace, Slot>,
    /// Blocks at hand, in the order in which they are looked at when room is needed (the clock algorithm).
    ring: VecDeque<BlockPlace>,
    bytes: usize,
    /// Blocks that were given away whole, oldest first.
    given: VecDeque<BlockPlace>,
}

#[derive(Debug)]
enum Slot {
    Ready {
        block: Block,
        /// Asked for again since the clock's hand passed.
        used: bool,
        /// Bytes of it that went to the kernel.
        given_bytes: usize,
    },
    Loading(Arc<Flight>),
}

/// A block that one thread is loading.
#[derive(Debug, Default)]
struct Flight {
    result: Mutex<Option<Result<Block, Unreadable>>>,
    landed: Condvar,
    /// Nobody has asked for the block yet: it is loaded together with others, and their failure is not its own.
    ahead: bool,
}

/// How a block was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It was at hand.
    Hit,
    /// Another thread was loading it.
    Waited,
    /// It was loaded now.
    Loaded,
}

impl Cache {
    /// A cache of about `cache_bytes` for blocks of at most `block_bytes`; it holds one block a shard at least.
    pub(super) fn new(cache_bytes: usize, block_bytes: usize) -> Arc<Self> {
        let shards = (cache_bytes / (block_bytes.max(1) * MIN_BLOCKS_PER_SHARD)).clamp(1, MAX_SHARDS);
        let shard_bytes = cache_bytes / shards;
        Arc::new(Self { shards: (0..shards).map(|_| Mutex::default()).collect(), shard_bytes })
    }

    /// The block at `place`, made by `load` if it is not at hand. If another thread is loading it, waits for that one.
    ///
    /// `wanted_bytes` of it go to the kernel, which keeps them: a block that was given away whole is not kept here, too.
    pub(super) fn get(
        self: &Arc<Self>,
        place: BlockPlace,
        wanted_bytes: usize,
        load: impl FnOnce() -> Result<Buffer, Unreadable>,
    ) -> Result<(Block, How), Unreadable> {
        loop {
            let mut shard = self.shard(place);
            match shard.slots.get_mut(&place) {
                Some(Slot::Ready { block, used, .. }) => {
                    *used = true;
                    let block = block.clone();
                    shard.gave(place, wanted_bytes);
                    return Ok((block, How::Hit));
                }
                Some(Slot::Loading(flight)) => {
                    let flight = flight.clone();
                    drop(shard);
                    match flight.wait() {
                        Err(Unreadable) if flight.ahead => {}
                        other => return other.map(|block| (block, How::Waited)),
                    }
                }
                None => {
                    let mut landing = self.begin(&mut shard, place, false);
                    drop(shard);
                    landing.given_bytes = wanted_bytes;
                    landing.result = load().map(Arc::new);
                    return landing.result.clone().map(|block| (block, How::Loaded));
                }
            }
        }
    }

    /// Whether the block at `place` is at hand or being loaded.
    pub(super) fn has(&self, place: BlockPlace) -> bool {
        self.shard(place).slots.contains_key(&place)
    }

    /// Notes that so many bytes of the block went to the kernel.
    pub(super) fn gave(&self, place: BlockPlace, bytes: usize) {
        self.shard(place).gave(place, bytes);
    }

    /// Takes it on to load the block at `place` before anyone asks; `None` if it is at hand or being loaded.
    pub(super) fn claim(self: &Arc<Self>, place: BlockPlace) -> Option<Landing> {
        let mut shard = self.shard(place);
        (!shard.slots.contains_key(&place)).then(|| self.begin(&mut shard, place, true))
    }

    fn begin(self: &Arc<Self>, shard: &mut Shard, place: BlockPlace, ahead: bool) -> Landing {
        let flight = Arc::new(Flight { ahead, ..Flight::default() });
        shard.slots.insert(place, Slot::Loading(flight.clone()));
        Landing { cache: self.clone(), place, flight, given_bytes: 0, result: Err(Unreadable) }
    }

    /// How many blocks of `block_bytes` there is room for.
    pub(super) fn most_blocks(&self, block_bytes: usize) -> usize {
        self.shard_bytes * self.shards.len() / block_bytes.max(1)
    }

    fn shard(&self, place: BlockPlace) -> MutexGuard<'_, Shard> {
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % self.shards.len() as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn gave(&mut self, place: BlockPlace, bytes: usize) {
        if let Some(Slot::Ready { block, given_bytes, .. }) = self.slots.get_mut(&place) {
            *given_bytes = given_bytes.saturating_add(bytes);
            if *given_bytes >= block.len() {
                self.let_go(place);
            }
        }
    }

    /// A block that was given away whole stays for a short while: some of its bytes may have been given twice.
    fn let_go(&mut self, place: BlockPlace) {
        if self.given.contains(&place) {
            return;
        }
        self.given.push_back(place);
        if self.given.len() > GIVEN_PER_SHARD
            && let Some(oldest) = self.given.pop_front()
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, place: BlockPlace) {
        if let Some(Slot::Ready { block, .. }) = self.slots.remove(&place) {
            self.bytes -= block.held_bytes() + ENTRY_BYTES;
        }
    }

    fn insert(&mut self, place: BlockPlace, block: Block, given_bytes: usize, limit_bytes: usize) {
        self.bytes += block.held_bytes() + ENTRY_BYTES;
        self.slots.insert(place, Slot::Ready { block, used: false, given_bytes });
        self.ring.push_back(place);
        // Those that were removed before their turn.
        if self.ring.len() > 2 * self.slots.len() + MIN_BLOCKS_PER_SHARD {
            let slots = &self.slots;
            self.ring.retain(|place| slots.contains_key(place));
        }
        while self.bytes > limit_bytes && self.ring.len() > 1 {
            let Some(oldest) = self.ring.pop_front() else { break };
            match self.slots.get_mut(&oldest) {
                Some(Slot::Ready { used, .. }) if *used => {
                    *used = false;
                    self.ring.push_back(oldest);
                }
                Some(Slot::Ready { block, .. }) => {
                    self.bytes -= block.held_bytes() + ENTRY_BYTES;
                    self.slots.remove(&oldest);
                }
                Some(Slot::Loading(_)) | None => {}
            }
        }
    }
}

/// Ends a flight when it is dropped, also by a panic: those who wait must never wait for ever.
#[derive(Debug)]
pub(super) struct Landing {
    cache: Arc<Cache>,
    place: BlockPlace,
    flight: Arc<Flight>,
    given_bytes: usize,
    result: Result<Block, Unreadable>,
}

impl Landing {
    /// The block's place.
    pub(super) fn place(&self) -> BlockPlace {
        self.place
    }

    /// Hands the block to the cache, and to those who wait.
    pub(super) fn land(mut self, block: Buffer) {
        self.result = Ok(Arc::new(block));
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut shard = self.cache.shard(self.place);
        match &self.result {
            Ok(block) if self.given_bytes >= block.len() => drop(shard.slots.remove(&self.place)),
            Ok(block) => shard.insert(self.place, block.clone(), self.given_bytes, self.cache.shard_bytes),
            Err(Unreadable) => drop(shard.slots.remove(&self.place)),
        }
        drop(shard);
        *self.flight.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.result.clone());
        self.flight.landed.notify_all();
    }
}

impl Flight {
    fn wait(&self) -> Result<Block, Unreadable> {
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = &*result {
                return result.clone();
            }
            result = self.landed.wait(result).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn place(offset: u64) -> BlockPlace {
        BlockPlace { offset, size_word: 1 }
    }

    #[test]
    fn loads_once_for_many_threads() {
        let cache = Cache::new(1 << 20, 4096);
        let (loads, start) = (AtomicUsize::new(0), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let block = cache.get(place(1), 0, || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        Ok(vec![9; 4096].into())
                    });
                    assert_eq!(block.unwrap().0[0], 9);
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }

    #[test]
    fn stays_within_its_bytes_and_keeps_what_is_used() {
        let cache = Cache::new(10 * (1000 + ENTRY_BYTES), 1000);
        let get = |offset| cache.get(place(offset), 0, || Ok(vec![0; 1000].into())).unwrap();
        get(0);
        for offset in 1..100 {
            get(offset);
            get(0);
            let shard = cache.shard(place(0));
            assert!(shard.bytes <= 10 * (1000 + ENTRY_BYTES) && shard.ring.len() == shard.slots.len());
        }
        assert!(cache.has(place(0)) && cache.has(place(99)) && !cache.has(place(50)));
    }

    #[test]
    fn what_was_given_away_whole_is_not_kept() {
        let cache = Cache::new(1 << 20, 1000);
        let get = |offset, wanted| cache.get(place(offset), wanted, || Ok(vec![0; 1000].into())).unwrap().1;
        assert_eq!((get(1, 1000), cache.has(place(1))), (How::Loaded, false));
        for offset in 2..1000 {
            assert_eq!(
                (get(offset, 400), get(offset, 599), get(offset, 1)),
                (How::Loaded, How::Hit, How::Hit)
            );
        }
        for shard in &cache.shards {
            let shard = shard.lock().unwrap();
            assert!(shard.slots.len() <= GIVEN_PER_SHARD && shard.ring.len() < 20, "{shard:?}");
            assert_eq!(shard.bytes, shard.slots.len() * (1000 + ENTRY_BYTES));
        }
    }

    #[test]
    fn a_failure_is_told_and_forgotten() {
        let cache = Cache::new(0, 4096);
        assert_eq!(cache.get(place(1), 0, || Err(Unreadable)), Err(Unreadable));
        assert!(cache.get(place(1), 0, || Ok(vec![1].into())).is_ok());
    }

    #[test]
    fn what_fails_ahead_is_tried_again_by_who_needs_it() {
        let cache = Cache::new(1 << 20, 4096);
        let landing = cache.claim(place(1)).unwrap();
        assert!(cache.claim(place(1)).is_none());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| cache.get(place(1), 0, || Ok(vec![3].into())));
            drop(landing);
            assert_eq!(reader.join().unwrap().unwrap().0[0], 3);
        });
        cache.claim(place(2)).unwrap().land(vec![4].into());
        assert_eq!(cache.get(place(2), 0, || Err(Unreadable)).unwrap(), (Arc::new(vec![4].into()), How::Hit));
    }

    #[test]
    fn a_panic_frees_those_who_wait() {
        let cache = Cache::new(1 << 20, 4096);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cache.get(place(1), 0, || panic!("on purpose"))
        }));
        assert!(panicked.is_err());
        assert!(!cache.has(place(1)));
    }
}
