//! Decompressed blocks in memory: bounded, and no block is decompressed by two threads at a time.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::squashfs::read::BlockPlace;

/// Most locks that the cache is split over.
const MAX_SHARDS: usize = 16;
/// A shard has room for so many blocks at least, or there are fewer shards.
const MIN_BLOCKS_PER_SHARD: usize = 8;

/// A decompressed block.
pub(super) type Block = Arc<Vec<u8>>;

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
}

#[derive(Debug)]
enum Slot {
    Ready {
        block: Block,
        /// Asked for again since the clock's hand passed.
        used: bool,
    },
    Loading(Arc<Flight>),
}

/// A block that one thread is loading.
#[derive(Debug, Default)]
struct Flight {
    result: Mutex<Option<Result<Block, Unreadable>>>,
    landed: Condvar,
}

impl Cache {
    /// A cache of about `cache_bytes` for blocks of at most `block_bytes`; it holds one block a shard at least.
    pub(super) fn new(cache_bytes: usize, block_bytes: usize) -> Self {
        let shards = (cache_bytes / (block_bytes.max(1) * MIN_BLOCKS_PER_SHARD)).clamp(1, MAX_SHARDS);
        Self { shards: (0..shards).map(|_| Mutex::default()).collect(), shard_bytes: cache_bytes / shards }
    }

    /// The block at `place`, made by `load` if it is not at hand. If another thread is loading it, waits for that one.
    pub(super) fn get(
        &self,
        place: BlockPlace,
        load: impl FnOnce() -> Result<Vec<u8>, Unreadable>,
    ) -> Result<Block, Unreadable> {
        let mut shard = self.shard(place);
        let flight = match shard.slots.get_mut(&place) {
            Some(Slot::Ready { block, used }) => {
                *used = true;
                return Ok(block.clone());
            }
            Some(Slot::Loading(flight)) => {
                let flight = flight.clone();
                drop(shard);
                return flight.wait();
            }
            None => Arc::new(Flight::default()),
        };
        shard.slots.insert(place, Slot::Loading(flight.clone()));
        drop(shard);
        let mut landing = Landing { cache: self, place, flight, result: Err(Unreadable) };
        landing.result = load().map(|mut block| {
            // A short block would keep the room of a full one and count as a short one.
            block.shrink_to_fit();
            Arc::new(block)
        });
        landing.result.clone()
    }

    /// True if the block is at hand or being loaded.
    #[cfg(test)]
    pub(super) fn has(&self, place: BlockPlace) -> bool {
        self.shard(place).slots.contains_key(&place)
    }

    fn shard(&self, place: BlockPlace) -> MutexGuard<'_, Shard> {
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % self.shards.len() as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn insert(&mut self, place: BlockPlace, block: Block, limit_bytes: usize) {
        self.bytes += block.len();
        self.slots.insert(place, Slot::Ready { block, used: false });
        self.ring.push_back(place);
        while self.bytes > limit_bytes && self.ring.len() > 1 {
            let Some(oldest) = self.ring.pop_front() else { break };
            match self.slots.get_mut(&oldest) {
                Some(Slot::Ready { used, .. }) if *used => {
                    *used = false;
                    self.ring.push_back(oldest);
                }
                Some(Slot::Ready { block, .. }) => {
                    self.bytes -= block.len();
                    self.slots.remove(&oldest);
                }
                Some(Slot::Loading(_)) | None => {}
            }
        }
    }
}

/// Ends a flight when it is dropped, also by a panic: those who wait must never wait for ever.
struct Landing<'a> {
    cache: &'a Cache,
    place: BlockPlace,
    flight: Arc<Flight>,
    result: Result<Block, Unreadable>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut shard = self.cache.shard(self.place);
        match &self.result {
            Ok(block) => shard.insert(self.place, block.clone(), self.cache.shard_bytes),
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
                    let block = cache.get(place(1), || {
                        loads.fetch_add(1, Ordering::Relaxed);
                        Ok(vec![9; 4096])
                    });
                    assert_eq!(block.unwrap()[0], 9);
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }

    #[test]
    fn stays_within_its_bytes_and_keeps_what_is_used() {
        let cache = Cache::new(10 * 1000, 1000);
        let get = |offset| cache.get(place(offset), || Ok(vec![0; 1000])).unwrap();
        get(0);
        for offset in 1..100 {
            get(offset);
            get(0);
            let shard = cache.shard(place(0));
            assert!(shard.bytes <= 10_000 && shard.ring.len() == shard.slots.len());
        }
        assert!(cache.has(place(0)) && cache.has(place(99)) && !cache.has(place(50)));
    }

    #[test]
    fn short_blocks_keep_no_more_than_they_count() {
        let cache = Cache::new(1 << 20, 1 << 17);
        let mut block = vec![7; 1 << 17];
        block.truncate(10);
        assert!(cache.get(place(1), || Ok(block)).unwrap().capacity() < 100);
    }

    #[test]
    fn a_failure_is_told_and_forgotten() {
        let cache = Cache::new(0, 4096);
        assert_eq!(cache.get(place(1), || Err(Unreadable)), Err(Unreadable));
        assert!(cache.get(place(1), || Ok(vec![1])).is_ok());
    }

    #[test]
    fn a_panic_frees_those_who_wait() {
        let cache = Cache::new(1 << 20, 4096);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cache.get(place(1), || panic!("on purpose"))
        }));
        assert!(panicked.is_err());
        assert!(!cache.has(place(1)));
    }
}
