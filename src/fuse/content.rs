//! File content: the blocks under a stretch of a file, borrowed from the cache, never copied here.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::Tuning;
use super::buffers::{Buffer, Buffers};
use super::cache::{Block, Cache, How, Landing, Unreadable};
use super::hot::{self, Recorder};
use super::nodes::FileMap;
use super::prefetch::{PACKED_BYTES, Pool, Runs, Work};
use super::stats::{Count, Stats};
use crate::squashfs::read::{BlockPlace, Reader};

/// What holes are made of.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Most that is loaded ahead of one reader, in bytes.
const MAX_AHEAD_BYTES: usize = 4 << 20;
/// … and the share of the cache: what is loaded ahead must not drive out what is about to be read.
const AHEAD_SHARE: usize = 4;
/// Tables of an image, in bytes as they are stored, that are read at once for a long start: those of a million files.
const MAX_TABLE_BYTES: u64 = 16 << 20;
/// So many threads are busy with the requests that the kernel has in flight for one reader. (Tried: on two CPUs, following
/// runs took a fifth more CPU, since blocks were copied on another CPU than they were unpacked on, and was not faster.)
const BUSY_THREADS: usize = 2;
/// Blocks of a hot list that are fetched together when others have gone.
const HOT_STEP_BLOCKS: usize = 64;
/// Blocks that one thread unpacks of those that were read together.
const BLOCKS_AT_A_TIME: usize = 4;
/// Buffers that wait for their next use.
const IDLE_BLOCKS: usize = 16;
const IDLE_PACKED: usize = 2;

/// A part of an answer to READ.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes `start..end` of a block.
    Bytes { block: Block, start: usize, end: usize },
    /// So many zeros.
    Hole(usize),
}

impl Piece {
    /// How many bytes it is.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Bytes { start, end, .. } => end - start,
            Self::Hole(count) => *count,
        }
    }
}

/// File content of one image.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) reader: Reader,
    cache: Arc<Cache>,
    block_bytes: usize,
    blocks: Arc<Buffers>,
    packed: Arc<Buffers>,
    runs: Runs,
    /// Follow runs of reads.
    follow_runs: AtomicBool,
    pub(super) pool: Pool,
    pub(super) stats: Stats,
    /// Tell the system that it need not keep what was read ahead from the image.
    drop_packed: bool,
    /// Notes what is read, for the next start.
    pub(super) recorder: Option<Recorder>,
    /// What a former start has read.
    hot: Vec<BlockPlace>,
    /// So many of them have been fetched.
    hot_fetched: AtomicUsize,
    /// Where each of them stands in the list, once someone asks.
    hot_positions: OnceLock<HashMap<BlockPlace, usize>>,
}

/// Neighbouring blocks as the image has them.
#[derive(Debug)]
pub(super) struct Packed {
    offset: u64,
    bytes: Buffer,
}

impl Content {
    pub(super) fn new(reader: Reader, cache_bytes: usize, tuning: &Tuning) -> Arc<Self> {
        let superblock = reader.superblock();
        let hot = tuning.hot_list.as_ref().and_then(|path| hot::read(path, superblock));
        // A list that is there stays, unless it is to be made anew.
        let record = tuning.hot_list.as_ref().filter(|_| tuning.record_hot || hot.is_none());
        let recorder = record.map(|path| Recorder::new(path.clone(), superblock));
        let block_bytes = reader.superblock().block_bytes as usize;
        let window = MAX_AHEAD_BYTES.min(cache_bytes / AHEAD_SHARE) / block_bytes.max(1);
        Arc::new(Self {
            reader,
            cache: Cache::new(cache_bytes, block_bytes),
            block_bytes,
            blocks: Buffers::new(block_bytes, IDLE_BLOCKS),
            packed: Buffers::new(PACKED_BYTES, IDLE_PACKED),
            runs: Runs::new(window),
            follow_runs: AtomicBool::new(false),
            pool: Pool::new(),
            stats: Stats::new(),
            drop_packed: tuning.drop_packed,
            recorder,
            hot: hot.unwrap_or_default(),
            hot_fetched: AtomicUsize::new(0),
            hot_positions: OnceLock::new(),
        })
    }

    /// Whether a former start has left a list of what it has read.
    pub(super) fn has_hot(&self) -> bool {
        !self.hot.is_empty()
    }

    /// From now on blocks are loaded ahead by at most so many threads, the hot ones at once.
    pub(super) fn open_pool(self: &Arc<Self>, threads: usize) {
        self.pool.open(threads);
        self.follow_runs.store(threads > BUSY_THREADS, Ordering::Relaxed);
        if self.hot.is_empty() {
            return;
        }
        // A start with a list is a long one, and will look up names of all directories.
        let superblock = self.reader.superblock();
        let tables = superblock.inode_table..superblock.bytes_used;
        if tables.end.saturating_sub(tables.start) <= MAX_TABLE_BYTES {
            self.pool.submit(self, Work::Warm(tables));
        }
        let (first, rest) = self.hot.split_at(self.most_hot().min(self.hot.len()));
        self.hot_fetched.store(first.len(), Ordering::Relaxed);
        self.pool.fetch_hot(self, first);
        // The rest comes when there is room for it, and is near then.
        self.pool.warm_hot(self, rest);
    }

    /// Most blocks of the hot list that are fetched ahead of the start: no more than fits beside what is read meanwhile. A
    /// block that is driven out is loaded twice.
    fn most_hot(&self) -> usize {
        self.cache.most_blocks(self.block_bytes) * 3 / 4
    }

    /// Fetches what comes next in a hot list for which there was no room, now that this block is read and those before it
    /// are gone.
    fn fetch_more_hot(self: &Arc<Self>, place: BlockPlace) {
        let fetched = self.hot_fetched.load(Ordering::Relaxed);
        if fetched == 0 || fetched >= self.hot.len() {
            return;
        }
        let positions =
            self.hot_positions.get_or_init(|| (0..).zip(&self.hot).map(|(at, place)| (*place, at)).collect());
        let Some(position) = positions.get(&place) else { return };
        let upto = (position + self.most_hot()).min(self.hot.len());
        if upto < fetched + HOT_STEP_BLOCKS && upto < self.hot.len() {
            return;
        }
        if upto > fetched
            && self.hot_fetched.compare_exchange(fetched, upto, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.pool.fetch_hot(self, &self.hot[fetched..upto]);
        }
    }

    /// The bytes of file `id` from `offset` on, `count` of them or up to the file's end, as pieces behind `out`.
    pub(super) fn read(
        self: &Arc<Self>,
        (id, file): (u64, &FileMap),
        offset: u64,
        count: u32,
        out: &mut Vec<Piece>,
    ) -> Result<(), Unreadable> {
        let block_bytes = self.block_bytes as u64;
        let end = offset.saturating_add(count.into()).min(file.size_bytes);
        if offset < end {
            self.look_ahead(id, file, offset / block_bytes, (end - 1) / block_bytes);
            self.stats.add(Count::ServedBytes, end - offset);
            let own = file.blocks.get(to_usize(offset / block_bytes)?).copied();
            if let Some(place) = own.or(file.tail.map(|(place, _)| place)) {
                self.fetch_more_hot(place);
            }
        }
        self.gather(file, offset..end, out)
    }

    /// The bytes of a file in that range, as pieces behind `out`.
    pub(super) fn gather(
        &self,
        file: &FileMap,
        range: std::ops::Range<u64>,
        out: &mut Vec<Piece>,
    ) -> Result<(), Unreadable> {
        let block_bytes = self.block_bytes as u64;
        let (mut at, end) = (range.start, range.end);
        while at < end {
            let index = at / block_bytes;
            let block_start = index * block_bytes;
            let length = to_usize((file.size_bytes - block_start).min(block_bytes))?;
            let within = to_usize(at - block_start)?;
            let upto = to_usize((end - block_start).min(block_bytes))?;
            let (place, start, exact) = match file.blocks.get(to_usize(index)?) {
                Some(place) => (*place, 0, Some(length)),
                None => file.tail.map(|(place, start)| (place, start, None)).ok_or(Unreadable)?,
            };
            out.push(if place.size_word == 0 {
                Piece::Hole(upto - within)
            } else {
                let end = start.checked_add(upto).ok_or(Unreadable)?;
                self.piece(place, start + within..end, exact)?
            });
            at = block_start + upto as u64;
        }
        Ok(())
    }

    /// Notes that bytes of a block went to the kernel unasked.
    pub(super) fn gave(&self, place: BlockPlace, bytes: usize) {
        self.stats.add(Count::GivenBytes, bytes as u64);
        self.cache.gave(place, bytes);
    }

    /// Bytes of a block, which has `exact` bytes if that is known. A block that gives less would be a hole that nobody sees,
    /// so it is an error.
    fn piece(
        &self,
        place: BlockPlace,
        range: std::ops::Range<usize>,
        exact: Option<usize>,
    ) -> Result<Piece, Unreadable> {
        // No more is read than is asked for, and none is kept, since the system has the image's pages anyway.
        if place.is_stored() && !self.cache.has(place) {
            if exact.is_some_and(|exact| exact != place.packed_bytes() as usize) {
                return Err(Unreadable);
            }
            let mut part = self.blocks.take();
            let length = range.len();
            part.bytes_mut().resize(length, 0);
            self.reader.read_stored(place, range.start, part.bytes_mut()).map_err(|_| Unreadable)?;
            self.stats.add(Count::PackedBytes, length as u64);
            self.count(place, How::Loaded);
            return Ok(Piece::Bytes { block: Arc::new(part), start: 0, end: length });
        }
        let block = self.block(place, exact.unwrap_or(self.block_bytes), range.len())?;
        if exact.is_some_and(|exact| exact != block.len()) || range.end > block.len() {
            return Err(Unreadable);
        }
        Ok(Piece::Bytes { block, start: range.start, end: range.end })
    }

    fn block(&self, place: BlockPlace, length: usize, wanted_bytes: usize) -> Result<Block, Unreadable> {
        let (block, how) = self.cache.get(place, wanted_bytes, || {
            self.stats.add(Count::PackedBytes, place.packed_bytes().into());
            let mut block = self.blocks.take();
            self.reader.read_block_into(place, length, block.bytes_mut()).map_err(|_| Unreadable)?;
            Ok(block.shrunk())
        })?;
        self.count(place, how);
        Ok(block)
    }

    fn count(&self, place: BlockPlace, how: How) {
        let count = match how {
            How::Hit => Count::Hits,
            How::Waited => Count::Waits,
            How::Loaded => Count::Loads,
        };
        self.stats.add(count, 1);
        if let Some(recorder) = &self.recorder {
            recorder.note(place, || self.stats.age().as_secs());
        }
    }

    /// Has the pool load what comes next, if the reads of this file are a run.
    fn look_ahead(self: &Arc<Self>, id: u64, file: &FileMap, first: u64, last: u64) {
        if !self.follow_runs.load(Ordering::Relaxed) {
            return;
        }
        let own = file.blocks.len() as u64;
        let count = own + u64::from(file.tail.is_some());
        let next = self.runs.note(id, first, last, count);
        if next.is_empty() {
            return;
        }
        let place = |index: u64| match usize::try_from(index).ok().and_then(|index| file.blocks.get(index)) {
            Some(place) => Some(*place),
            None => file.tail.map(|(place, _)| place),
        };
        self.pool.fetch(self, next.filter_map(place));
    }

    /// A piece of the pool's work.
    pub(super) fn load_ahead(self: &Arc<Self>, work: Work) {
        let (packed, landings) = match work {
            Work::Unpack(packed, landings) => (packed, landings),
            Work::Warm(range) => return self.warm(range),
            Work::Fetch(places) => {
                let landings: Vec<_> =
                    places.into_iter().filter_map(|place| self.cache.claim(place)).collect();
                let Some(packed) = self.read_packed(&landings) else { return };
                (Arc::new(packed), landings)
            }
        };
        let mut mine = landings;
        if mine.len() > BLOCKS_AT_A_TIME {
            let mut others = Vec::new();
            let mut rest = mine.split_off(BLOCKS_AT_A_TIME);
            while !rest.is_empty() {
                let later = rest.split_off(rest.len().min(BLOCKS_AT_A_TIME));
                others.push(Work::Unpack(packed.clone(), rest));
                rest = later;
            }
            self.pool.share(self, others);
        }
        for landing in mine {
            let place = landing.place();
            let Some(bytes) = packed.of(place) else { continue };
            let mut block = self.blocks.take();
            if self.reader.unpack_block(place, bytes, self.block_bytes, block.bytes_mut()).is_ok() {
                self.stats.add(Count::Ahead, 1);
                landing.land(block.shrunk());
            }
        }
    }

    fn warm(&self, range: std::ops::Range<u64>) {
        let mut bytes = self.packed.take();
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(PACKED_BYTES).min(PACKED_BYTES);
            bytes.bytes_mut().resize(length, 0);
            if self.reader.read_packed(at, bytes.bytes_mut()).is_err() {
                return;
            }
            at += length as u64;
        }
    }

    /// One read for all of these, which are in order and near each other.
    fn read_packed(&self, landings: &[Landing]) -> Option<Packed> {
        let (first, last) = (landings.first()?.place(), landings.last()?.place());
        let end = last.offset.checked_add(last.packed_bytes().into())?;
        let length = usize::try_from(end.checked_sub(first.offset)?).ok().filter(|it| *it <= PACKED_BYTES)?;
        let mut bytes = self.packed.take();
        bytes.bytes_mut().resize(length, 0);
        self.reader.read_packed(first.offset, bytes.bytes_mut()).ok()?;
        self.stats.add(Count::PackedBytes, length as u64);
        if self.drop_packed {
            self.reader.done_with(first.offset, length as u64);
        }
        Some(Packed { offset: first.offset, bytes })
    }
}

impl Packed {
    fn of(&self, place: BlockPlace) -> Option<&[u8]> {
        let start = usize::try_from(place.offset.checked_sub(self.offset)?).ok()?;
        self.bytes.get(start..start.checked_add(place.packed_bytes() as usize)?)
    }
}

/// The pieces as one answer, behind `header`.
pub(super) fn to_parts<'a>(header: &'a [u8], body: &'a [u8], pieces: &'a [Piece]) -> Vec<IoSlice<'a>> {
    let mut parts = vec![IoSlice::new(header)];
    if !body.is_empty() {
        parts.push(IoSlice::new(body));
    }
    for piece in pieces {
        match piece {
            Piece::Bytes { block, start, end } => {
                parts.push(IoSlice::new(block.get(*start..*end).unwrap_or_default()));
            }
            Piece::Hole(count) => {
                let mut left = *count;
                while left > 0 {
                    let step = left.min(ZEROS.len());
                    parts.push(IoSlice::new(&ZEROS[..step]));
                    left -= step;
                }
            }
        }
    }
    parts
}

fn to_usize(count: u64) -> Result<usize, Unreadable> {
    usize::try_from(count).map_err(|_| Unreadable)
}
