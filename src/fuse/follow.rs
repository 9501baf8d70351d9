//! Reading ahead across files. Whoever copies, packs or searches a tree reads one file after the other in the order of the
//! directories, which is that of the inode table. Small files are one request each, and the reader waits for every one.
//!
//! ```text
//! READ of files that stand side by side ─▶ the files behind them are unpacked and handed to the kernel unasked
//!                                             (FUSE_NOTIFY_STORE), except one in the middle:
//!                                             when that is read, the next ones follow, twice as many
//! ```
//!
//! The same is done with the rest of a block of which a part was asked for out of order. The kernel maps programs by
//! windows of 128 KiB that lie across two blocks, and comes back for what is left: an import of a large library asked for
//! 1.09 times the bytes of the blocks that it touched, in four requests for each block, and had a third of the blocks
//! unpacked twice. (The kernel's own squashfs keeps whole blocks, too.)
//!
//! So a run that ends costs no more than what it has earned, and one reader has two CPUs at work. It is all a favour: what
//! fails is read as always.
//!
//! A message may wait for a page that a READ in flight has locked, so it is sent by a thread that nobody waits for: one that
//! answers no requests and holds no block that is being loaded. It waits so deeply that no signal ends it, so there must be
//! a spare to answer that READ when this server is killed, and nothing else of the process may depend on this thread.
//! Where the spare is killed with it, nothing ends that wait: so this is off unless `fuse.push` is set.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::cache::Block;
use super::content::{Piece, to_parts};
use super::nodes::{FileInTable, FileMap, Nodes};
use super::serve::Shared;
use super::stats::Count;
use super::wire;
use crate::squashfs::read::BlockPlace;
use crate::sys::{Errno, fuse_dev};

/// Files that must be read one after the other before a run is believed. An import of a Python package comes to four or five.
const BELIEVED_FILES: u32 = 8;
/// Files that are handed over at the beginning of a run, and at most.
const FIRST_FILES: usize = 16;
const MAX_FILES: usize = 256;
/// Most content that is handed over at a time, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Longer files are left to the kernel's own reading ahead, in bytes.
const LONGEST_BYTES: u64 = 512 << 10;
/// A shorter read is not the kernel's window around a page of a program but one of a page of data, in bytes, and says
/// nothing about its neighbours.
const LEAST_WINDOW_BYTES: usize = 16 << 10;
/// Places in the table that are watched: beginnings of runs, and files in the middle of what was handed over.
const MAX_WATCHED: usize = 64;
/// Files that are remembered as handed over, so that two runs that meet do not hand them over twice.
const MAX_REMEMBERED: usize = 1 << 14;
/// Runs that wait; more are dropped.
const MAX_WAITING: usize = 32;

/// Follows readers from file to file.
#[derive(Debug, Default)]
pub(super) struct Follower {
    state: Mutex<State>,
    more: Condvar,
    ends: Ends,
}

/// Where the last reads of some files ended.
#[derive(Debug)]
struct Ends(Box<[Mutex<(u64, u64)>]>);

impl Default for Ends {
    fn default() -> Self {
        Self((0..MAX_WATCHED).map(|_| Mutex::default()).collect())
    }
}

impl Ends {
    /// Notes a read; true if it goes on where the last one of that file ended.
    fn note(&self, id: u64, offset: u64, end: u64) -> bool {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let index = usize::try_from(id.wrapping_mul(GOLDEN) >> 32).unwrap_or(0) % self.0.len();
        let mut last = self.0[index].lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *last, (id, end));
        before == (id, offset)
    }
}

#[derive(Debug, Default)]
struct State {
    /// Files that would go on with a run that is not believed yet, and the length of that run.
    expected: VecDeque<(u64, u32)>,
    /// Files that were left out: the run goes on when they are read.
    marks: HashMap<u64, Stretch>,
    given: HashSet<u64>,
    /// Blocks of which the rest was given lately.
    rests: VecDeque<BlockPlace>,
    work: VecDeque<Work>,
    closed: bool,
}

/// What is to be done.
#[derive(Debug)]
enum Work {
    Files(Stretch),
    Rest(Rest),
}

/// A part of a block that nobody has asked for.
#[derive(Debug)]
struct Rest {
    id: u64,
    /// Offset in the file.
    offset: u64,
    place: BlockPlace,
    block: Block,
    start: usize,
    end: usize,
}

/// Files that are to be handed over next.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// Where it begins in the inode table.
    from: u64,
    files: usize,
}

impl Follower {
    /// Notes that a file is read from its beginning.
    pub(super) fn note(&self, nodes: &Nodes, id: u64) {
        let mut state = self.lock();
        if let Some(stretch) = state.marks.remove(&id) {
            return self.submit(&mut state, Work::Files(stretch));
        }
        let known = state.expected.iter().position(|(expected, _)| *expected == id);
        let reads = known.and_then(|index| state.expected.remove(index)).map_or(0, |(_, reads)| reads);
        let was_given = state.given.remove(&id);
        drop(state);
        let Some(from) = nodes.next_reference(id) else { return };
        if reads + 1 >= BELIEVED_FILES {
            let mut state = self.lock();
            if was_given {
                // The kernel has dropped what it was given.
                state.given.clear();
            }
            return self.submit(&mut state, Work::Files(Stretch { from, files: FIRST_FILES }));
        }
        let Some(next) = nodes.file_from(from) else { return };
        let mut state = self.lock();
        state.expected.push_back((next.id, reads + 1));
        if state.expected.len() > MAX_WATCHED {
            state.expected.pop_front();
        }
    }

    /// Notes what was read of a file: the blocks from `offset` on, of which `pieces` are answered.
    pub(super) fn note_part(
        &self,
        (id, file): (u64, &FileMap),
        block_bytes: u64,
        offset: u64,
        pieces: &[Piece],
    ) {
        let length: usize = pieces.iter().map(Piece::length).sum();
        let goes_on = self.ends.note(id, offset, offset.saturating_add(length as u64));
        if goes_on || offset == 0 || length < LEAST_WINDOW_BYTES {
            return;
        }
        let first = offset / block_bytes;
        for (index, piece) in (first..).zip(pieces) {
            let place = usize::try_from(index).ok().and_then(|index| file.blocks.get(index));
            let (Some(place), Piece::Bytes { block, start, end }) = (place, piece) else { continue };
            if (*start, *end) == (0, block.len()) || !self.remember_rest(*place) {
                continue;
            }
            for (start, end) in [(0, *start), (*end, block.len())] {
                if start < end {
                    let offset = index * block_bytes + start as u64;
                    let rest = Rest { id, offset, place: *place, block: block.clone(), start, end };
                    self.submit(&mut self.lock(), Work::Rest(rest));
                }
            }
        }
    }

    /// False if the rest of the block was given lately: the kernel may ask for more of it before it has come.
    fn remember_rest(&self, place: BlockPlace) -> bool {
        let mut state = self.lock();
        if state.rests.contains(&place) {
            return false;
        }
        if state.rests.len() >= MAX_WATCHED {
            state.rests.pop_front();
        }
        state.rests.push_back(place);
        true
    }

    fn submit(&self, state: &mut State, work: Work) {
        if state.work.len() < MAX_WAITING {
            state.work.push_back(work);
            self.more.notify_one();
        }
    }

    /// The work of the thread, until the follower is closed.
    pub(super) fn run(&self, shared: &Shared, device: &OwnedFd) {
        let mut state = self.lock();
        while !state.closed {
            if let Some(work) = state.work.pop_front() {
                drop(state);
                // What a bug of ours drops here is read as always.
                let _ = catch_unwind(AssertUnwindSafe(|| match work {
                    Work::Files(stretch) => self.hand_over(shared, device, stretch),
                    Work::Rest(rest) => give_rest(shared, device, rest),
                }));
                state = self.lock();
            } else {
                state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&self, shared: &Shared, device: &OwnedFd, stretch: Stretch) {
        let files = self.choose(&shared.nodes, stretch);
        let Some(last) = files.last() else { return };
        let next = last.next.map(|from| Stretch { from, files: (stretch.files * 2).min(MAX_FILES) });
        let middle = files.len() / 2;
        let mut pieces = Vec::new();
        let maps: Vec<_> = files.iter().map(|file| shared.nodes.file(file.id).ok().flatten()).collect();
        announce(shared, maps.iter().flatten());
        for (index, (file, map)) in files.iter().zip(&maps).enumerate() {
            if index == middle {
                if let Some(next) = next {
                    self.mark(file.id, next);
                }
                continue;
            }
            pieces.clear();
            let Some(map) = map else { return };
            match give(shared, device, file, map, &mut pieces) {
                Ok(()) => shared.content.stats.add(Count::Given, 1),
                // The kernel does not know the file: its directory has not been listed yet.
                Err(Errno::ENOENT) => {
                    let from = index.checked_sub(1).map_or(Some(stretch.from), |before| files[before].next);
                    let Some(from) = from else { return };
                    let rest = Stretch { from, files: stretch.files };
                    let mut state = self.lock();
                    for file in &files[index..] {
                        state.given.remove(&file.id);
                    }
                    if index > middle
                        && let Some(mark) = state.marks.get_mut(&files[middle].id)
                    {
                        *mark = rest;
                    } else {
                        drop(state);
                        self.mark(file.id, rest);
                    }
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn mark(&self, id: u64, stretch: Stretch) {
        let mut state = self.lock();
        if state.marks.len() >= MAX_WATCHED {
            state.marks.clear();
        }
        state.marks.insert(id, stretch);
    }

    /// The files of a stretch that nobody has handed over yet.
    fn choose(&self, nodes: &Nodes, stretch: Stretch) -> Vec<FileInTable> {
        let mut files = Vec::new();
        let (mut from, mut bytes, mut passed) = (Some(stretch.from), 0, 0);
        while let Some(file) = from.and_then(|from| nodes.file_from(from)) {
            from = file.next;
            if file.size_bytes <= LONGEST_BYTES && self.remember(file.id) {
                bytes += file.size_bytes;
                files.push(file);
            } else {
                passed += 1;
            }
            if files.len() + passed >= stretch.files || bytes >= MAX_BYTES {
                break;
            }
        }
        files
    }

    /// False if the file was handed over before.
    fn remember(&self, id: u64) -> bool {
        let mut state = self.lock();
        if state.given.len() >= MAX_REMEMBERED {
            state.given.clear();
        }
        state.given.insert(id)
    }
}

/// Has the system read what these files, which mostly are neighbours in the image, and those behind them take there.
fn announce<'a>(shared: &Shared, maps: impl Iterator<Item = &'a Arc<FileMap>>) {
    let places = maps.flat_map(|map| map.blocks.iter().copied().chain(map.tail.map(|(place, _)| place)));
    let ranges = places.map(|place| (place.offset, place.offset.saturating_add(place.packed_bytes().into())));
    let Some((start, end)) = ranges.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1))) else { return };
    let length = end.saturating_sub(start);
    if length <= MAX_BYTES {
        shared.content.reader.will_need(start, length.saturating_mul(3));
    }
}

/// Hands all content of a file to the kernel.
fn give(
    shared: &Shared,
    device: &OwnedFd,
    file: &FileInTable,
    map: &FileMap,
    pieces: &mut Vec<Piece>,
) -> Result<(), Errno> {
    let size_bytes = u32::try_from(file.size_bytes).map_err(|_| Errno::EFBIG)?;
    shared.content.gather(map, 0..file.size_bytes, pieces).map_err(|_| Errno::EIO)?;
    let (header, out) = wire::store_notice(file.id, 0, size_bytes);
    fuse_dev::write_answer(device, &to_parts(&header, &out, pieces))
}

fn give_rest(shared: &Shared, device: &OwnedFd, rest: Rest) {
    let Rest { id, offset, place, block, start, end } = rest;
    let Ok(size_bytes) = u32::try_from(end - start) else { return };
    let (header, out) = wire::store_notice(id, offset, size_bytes);
    let pieces = [Piece::Bytes { block, start, end }];
    if fuse_dev::write_answer(device, &to_parts(&header, &out, &pieces)).is_ok() {
        shared.content.gave(place, end - start);
    }
}
