//! A check of the whole image: every directory, inode, attribute and block is read, and every fault gets its path. Where
//! the sums of the image are at hand, each block and each piece of the tables is compared with its own.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::data::MAX_FRAGMENTS;
use super::error::ReadError;
use super::inode::{FileData, Inode, InodeKind};
use super::summed::{self, Summed};
use super::{BlockPlace, Reader};
use crate::squashfs::format::inode_type;
use crate::squashfs::sums::{Sum, Sums};

/// In place of what a fragment block holds: its sum is wrong.
const BAD: u32 = u32::MAX;
/// Faults that are kept; a file of noise has as many as it has blocks.
const MAX_FAULTS: usize = 100;
/// Blocks that wait for a thread.
const BLOCKS_AHEAD: usize = 64;
/// Most threads: none is started for each of a large node's CPUs when the disk is what limits.
const MAX_THREADS: usize = 64;

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Names in all directories.
    pub entries: u64,
    /// Data and fragment blocks that were decompressed.
    pub blocks: u64,
    /// What they hold, in bytes.
    pub content_bytes: u64,
    /// Blocks that were compared with their sums and are what was written.
    pub summed_blocks: u64,
    /// What is wrong: at most the first hundred.
    pub faults: Vec<Fault>,
    /// How many faults there are.
    pub fault_count: u64,
}

/// One thing that is wrong with an image.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {source}")]
pub struct Fault {
    /// The path in the image, in backticks, or what else is wrong.
    pub place: String,
    /// What is wrong.
    pub source: ReadError,
}

/// A block to read. A file's own block must have its length; a fragment block has what it has.
struct Job {
    /// In words: a path, or which fragment block.
    place_name: Arc<str>,
    place: BlockPlace,
    length: usize,
    fragment: Option<usize>,
}

/// What the threads share.
struct State<'a> {
    reader: &'a Reader,
    sums: Option<Summed<'a>>,
    /// What each fragment block holds, in bytes; 0 while it has not been read or cannot be, [`BAD`] if it is damaged.
    fragments: Vec<AtomicU32>,
    blocks: AtomicU64,
    content_bytes: AtomicU64,
    faults: Mutex<(Vec<Fault>, u64)>,
}

impl Reader {
    /// Reads everything, with so many threads, and says what is wrong. `on_block` is told the number of blocks that
    /// have been handed out.
    ///
    /// Without sums, a block that decompresses to the right length counts as whole.
    pub fn check(&self, sums: Option<&Sums>, threads: usize, on_block: &mut dyn FnMut(u64)) -> Checked {
        let count = self.superblock().fragment_count.min(MAX_FRAGMENTS);
        let state = State {
            reader: self,
            sums: sums.and_then(|sums| self.summed(sums).ok()),
            fragments: (0..count).map(|_| AtomicU32::new(0)).collect(),
            blocks: AtomicU64::new(0),
            content_bytes: AtomicU64::new(0),
            faults: Mutex::default(),
        };
        if let Some(sums) = sums {
            summed::check_tables(self, sums, &mut |place, source| state.fault(place, source));
        }
        let mut handed_out = 0;
        let mut each = |jobs: &SyncSender<Job>, job: Job| {
            handed_out += 1;
            on_block(handed_out);
            // The threads live as long as the sender.
            let _ = jobs.send(job);
        };
        state.in_parallel(threads, |jobs| {
            for (index, number) in (0..count).enumerate() {
                let place_name: Arc<str> = format!("fragment block {number}").into();
                match self.fragment(number) {
                    Ok(place) => {
                        let length = self.block_len();
                        each(jobs, Job { place_name, place, length, fragment: Some(index) });
                    }
                    Err(source) => state.fault(&place_name, source),
                }
            }
        });
        let mut entries = 0;
        state.in_parallel(threads, |jobs| entries = state.walk(&mut |job| each(jobs, job)));
        let mut summed_blocks = 0;
        if let Some(sums) = &state.sums {
            sums.check_rest(self, &mut |place, source| state.fault(place, source));
            summed_blocks = sums.good_blocks();
        }
        let (faults, fault_count) = state.faults.into_inner().unwrap_or_else(PoisonError::into_inner);
        Checked {
            entries,
            blocks: state.blocks.into_inner(),
            content_bytes: state.content_bytes.into_inner(),
            summed_blocks,
            faults,
            fault_count,
        }
    }

    fn block_len(&self) -> usize {
        usize::try_from(self.superblock().block_bytes).expect("at most 1 MiB")
    }
}

impl State<'_> {
    /// A fault of what has the path.
    fn fault_at(&self, path: &str, source: ReadError) {
        self.fault(&format!("`/{path}`"), source);
    }

    fn fault(&self, place: &str, source: ReadError) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.1 += 1;
        if faults.0.len() < MAX_FAULTS {
            faults.0.push(Fault { place: place.to_owned(), source });
        }
    }

    /// Runs `feed`, whose jobs are done by threads; returns when all are done.
    fn in_parallel(&self, threads: usize, feed: impl FnOnce(&SyncSender<Job>)) {
        let (sender, receiver) = sync_channel::<Job>(BLOCKS_AHEAD);
        let queue = Mutex::new(receiver);
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, MAX_THREADS) {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(job) = next else { return };
                        self.read(&job);
                    }
                });
            }
            feed(&sender);
            drop(sender);
        });
    }

    fn read(&self, job: &Job) {
        let damaged = |reason| ReadError::Damaged { what: "data block", offset: job.place.offset, reason };
        let fragment = job.fragment.and_then(|index| self.fragments.get(index));
        let content = match self.read_compared(job) {
            Ok(content) => content,
            Err(source) => {
                if let Some(fragment) = fragment {
                    fragment.store(BAD, Ordering::Relaxed);
                }
                return self.fault(&job.place_name, source);
            }
        };
        if fragment.is_none() && content.len() != job.length {
            return self.fault(&job.place_name, damaged("is shorter than the file that it belongs to"));
        }
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.content_bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
        if let Some(fragment) = fragment {
            fragment.store(u32::try_from(content.len()).unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Reads a block, compares it with its sum, and unpacks it.
    fn read_compared(&self, job: &Job) -> Result<Vec<u8>, ReadError> {
        let Some(sums) = &self.sums else { return self.reader.read_block(job.place, job.length) };
        let packed_bytes = usize::try_from(job.place.packed_bytes()).unwrap_or(usize::MAX);
        if packed_bytes > self.reader.block_len() {
            return self.reader.read_block(job.place, job.length);
        }
        let mut packed = vec![0; packed_bytes];
        self.reader.read_packed(job.place.offset, &mut packed)?;
        let what = if job.fragment.is_some() { "fragment block" } else { "data block" };
        sums.compare(what, job.place, Sum::of(&packed))?;
        let mut content = Vec::new();
        self.reader.unpack_block(job.place, &packed, job.length, &mut content)?;
        Ok(content)
    }

    /// Reads every directory and inode; returns how many names there are. Without recursion, since a hostile tree may be
    /// as deep as it likes, and each directory once, since it may contain itself.
    fn walk(&self, each: &mut dyn FnMut(Job)) -> u64 {
        let mut entries = 0;
        let mut seen = HashSet::new();
        let mut open = match self.reader.root() {
            Ok(root) => vec![(String::new(), root)],
            Err(source) => {
                self.fault_at("", source);
                Vec::new()
            }
        };
        while let Some((path, directory)) = open.pop() {
            self.check_xattrs(&path, &directory);
            let listing = match self.reader.read_dir(&directory) {
                Ok(listing) => listing,
                Err(source) => {
                    self.fault_at(&path, source);
                    continue;
                }
            };
            for entry in listing {
                entries += 1;
                let separator = if path.is_empty() { "" } else { "/" };
                let child = format!("{path}{separator}{}", String::from_utf8_lossy(&entry.name));
                let inode = match self.reader.inode(entry.reference) {
                    Ok(inode) => inode,
                    Err(source) => {
                        self.fault_at(&child, source);
                        continue;
                    }
                };
                let damaged = |reason| ReadError::Damaged {
                    what: "directory table",
                    offset: entry.reference >> 16,
                    reason,
                };
                if inode.number != entry.number || kind_of(&inode) != entry.kind {
                    self.fault_at(&child, damaged("names another inode than it leads to"));
                }
                let is_new = seen.insert(entry.reference);
                match &inode.kind {
                    InodeKind::Directory(_) if is_new => open.push((child, inode)),
                    InodeKind::Directory(_) => {
                        self.fault_at(&child, damaged("gives a directory a second name"));
                    }
                    _ if !is_new => {}
                    InodeKind::File(file) => {
                        self.check_xattrs(&child, &inode);
                        self.check_file(&child, file, each);
                    }
                    _ => self.check_xattrs(&child, &inode),
                }
            }
        }
        entries
    }

    fn check_xattrs(&self, path: &str, inode: &Inode) {
        if let Err(source) = self.reader.xattrs(inode) {
            self.fault_at(path, source);
        }
    }

    fn check_file(&self, path: &str, file: &FileData, each: &mut dyn FnMut(Job)) {
        let blocks = match self.reader.blocks(file) {
            Ok(blocks) => blocks,
            Err(source) => return self.fault_at(path, source),
        };
        let place_name: Arc<str> = format!("`/{path}`").into();
        let mut left = file.size_bytes;
        for place in blocks {
            let length = left.min(self.reader.superblock().block_bytes.into());
            left -= length;
            if place.size_word != 0 {
                let length = usize::try_from(length).expect("at most a block");
                each(Job { place_name: place_name.clone(), place, length, fragment: None });
            }
        }
        let Some(fragment) = file.fragment else { return };
        let have = usize::try_from(fragment.index).ok().and_then(|index| self.fragments.get(index));
        let have = have.map_or(0, |length| length.load(Ordering::Relaxed));
        let need = u64::from(fragment.offset).saturating_add(left);
        if have == BAD || u64::from(have) < need {
            let offset = self.reader.fragment(fragment.index).map_or(0, |place| place.offset);
            let reason = if have == BAD {
                "cannot be used and holds the end of this file"
            } else {
                "does not hold the end of a file that it should"
            };
            self.fault_at(path, ReadError::Damaged { what: "fragment block", offset, reason });
        }
    }
}

/// The basic type as directories store it.
fn kind_of(inode: &Inode) -> u16 {
    match inode.kind {
        InodeKind::Directory(_) => inode_type::DIRECTORY,
        InodeKind::File(_) => inode_type::FILE,
        InodeKind::Symlink(_) => inode_type::SYMLINK,
        InodeKind::BlockDevice { .. } => inode_type::BLOCK_DEVICE,
        InodeKind::CharDevice { .. } => inode_type::CHAR_DEVICE,
        InodeKind::Fifo => inode_type::FIFO,
        InodeKind::Socket => inode_type::SOCKET,
    }
}
