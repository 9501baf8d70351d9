//! File content: blocks and fragments, in the order in which files arrive.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Seek, Write};

use super::error::WriteError;
use super::output::Output;
use super::pool::{Packed, Pool, Ticket};
use crate::base::tree::FileId;
use crate::base::{Digest, Hasher};
use crate::squashfs::format::limits::MAX_FILE_BLOCKS;
use crate::squashfs::format::{BLOCK_BYTES, NO_FRAGMENT};

/// [`BLOCK_BYTES`] as a length.
const BLOCK_LEN: usize = BLOCK_BYTES as usize;
/// Largest file, for the sake of its block list, which has to stay in memory.
const MAX_FILE_BYTES: u64 = MAX_FILE_BLOCKS * BLOCK_BYTES as u64;

/// Where a file's content lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilePlace {
    pub(super) size_bytes: u64,
    /// Offset in the image of the first block that is no hole; 0 if there is none.
    pub(super) start: u64,
    /// Index in [`Content::block_sizes`] of its first block.
    first_block: usize,
    /// Where its tail lies; [`NO_FRAGMENT`] if it has none.
    pub(super) fragment: u32,
    /// Offset of the tail in that fragment, in bytes.
    pub(super) fragment_offset: u32,
    /// Bytes in holes.
    pub(super) hole_bytes: u64,
}

/// A written fragment block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment {
    /// Offset in the image.
    pub(super) start: u64,
    /// Size on disk with the stored bit.
    pub(super) size_word: u32,
}

/// All that the tables need to know about content.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// By [`FileId`].
    pub(super) files: Vec<FilePlace>,
    /// Sizes on disk of all data blocks with the stored bit, 0 for holes, file after file.
    block_sizes: Vec<u32>,
    /// By fragment index.
    pub(super) fragments: Vec<Fragment>,
}

impl Content {
    /// The block list of a file.
    pub(super) fn blocks_of(&self, file: &FilePlace) -> &[u32] {
        let count = usize::try_from(file.size_bytes / u64::from(BLOCK_BYTES)).unwrap_or(usize::MAX);
        self.block_sizes.get(file.first_block..).and_then(|rest| rest.get(..count)).unwrap_or_default()
    }
}

/// What a block becomes once it is compressed and has its place.
#[derive(Debug)]
enum Purpose {
    Block {
        /// Its index in the block sizes.
        slot: usize,
        /// The file whose first block on disk this is.
        first_of: Option<usize>,
    },
    Fragment {
        index: usize,
    },
}

/// Takes in files, has their blocks compressed and writes them.
#[derive(Debug)]
pub(super) struct ContentWriter<W> {
    out: Output<W>,
    pool: Pool,
    /// Oldest first; the order of writing.
    pending: VecDeque<(Ticket, Purpose)>,
    /// Buffers that came back.
    spare: Vec<Vec<u8>>,
    content: Content,
    /// The fragment block that is being filled; its index is the number of those before it.
    fragment: Vec<u8>,
    fragment_index: u32,
    /// Small files by content. Comparing bytes would need the output read back; a 256-bit hash with no known collision
    /// is taken for the content itself.
    small_files: HashMap<(u64, Digest), FileId>,
}

impl<W: Write + Seek> ContentWriter<W> {
    pub(super) fn new(out: Output<W>, pool: Pool) -> Self {
        Self {
            out,
            pool,
            pending: VecDeque::new(),
            spare: Vec::new(),
            content: Content::default(),
            fragment: Vec::new(),
            fragment_index: 0,
            small_files: HashMap::new(),
        }
    }

    /// Stores one file. After an error the image misses something and must be given up.
    pub(super) fn add(&mut self, size_bytes: u64, content: &mut dyn Read) -> Result<FileId, WriteError> {
        if size_bytes > MAX_FILE_BYTES {
            return Err(WriteError::FileTooLarge { size_bytes, limit_bytes: MAX_FILE_BYTES });
        }
        let index = self.content.files.len();
        let id =
            u32::try_from(index).map(FileId).map_err(|_| WriteError::TooManyFiles { limit: u32::MAX })?;
        self.content.files.push(FilePlace {
            size_bytes,
            start: 0,
            first_block: self.content.block_sizes.len(),
            fragment: NO_FRAGMENT,
            fragment_offset: 0,
            hole_bytes: 0,
        });
        let mut source = Source { content, size_bytes, taken_bytes: 0 };
        self.add_blocks(index, &mut source)?;
        let known = self.add_tail(index, &mut source)?;
        source.expect_end()?;
        // A duplicate of a small file has placed nothing, so its record goes and the first one's handle stands for both.
        // Duplicates of larger files would be found here too, if their blocks were kept back until the hash is known.
        if let Some(known) = known {
            self.content.files.pop();
            return Ok(known);
        }
        Ok(id)
    }

    /// Ends the content: all blocks are on disk, the threads are gone.
    pub(super) fn finish(mut self) -> Result<(Output<W>, Content), WriteError> {
        self.close_fragment()?;
        self.settle(0)?;
        Ok((self.out, self.content))
    }

    fn add_blocks(&mut self, file: usize, source: &mut Source<'_>) -> Result<(), WriteError> {
        let mut first_of = Some(file);
        for _ in 0..source.size_bytes / u64::from(BLOCK_BYTES) {
            let mut block = self.spare.pop().unwrap_or_default();
            // A buffer that comes back from the pool has this length already and is not zeroed again.
            block.resize(BLOCK_LEN, 0);
            source.fill(&mut block)?;
            let slot = self.content.block_sizes.len();
            self.content.block_sizes.push(0);
            if is_zero(&block) {
                self.content.files[file].hole_bytes += u64::from(BLOCK_BYTES);
                self.spare.push(block);
            } else {
                self.submit(block, Purpose::Block { slot, first_of: first_of.take() })?;
            }
        }
        Ok(())
    }

    /// Packs what is left after the last full block into a fragment, unless the whole file is a small one that is there
    /// already: then its handle.
    fn add_tail(&mut self, file: usize, source: &mut Source<'_>) -> Result<Option<FileId>, WriteError> {
        let tail_len = usize::try_from(source.size_bytes % u64::from(BLOCK_BYTES)).unwrap_or(0);
        if self.fragment.len() + tail_len > BLOCK_LEN {
            self.close_fragment()?;
        }
        let start = self.fragment.len();
        self.fragment.resize(start + tail_len, 0);
        source.fill(&mut self.fragment[start..])?;
        if source.size_bytes < u64::from(BLOCK_BYTES) {
            let mut hasher = Hasher::new();
            hasher.update(&self.fragment[start..]);
            let key = (source.size_bytes, hasher.finish());
            if let Some(&known) = self.small_files.get(&key) {
                self.fragment.truncate(start);
                return Ok(Some(known));
            }
            let id = u32::try_from(file).map_err(|_| WriteError::TooManyFiles { limit: u32::MAX })?;
            self.small_files.insert(key, FileId(id));
        }
        if tail_len > 0 {
            let place = &mut self.content.files[file];
            place.fragment = self.fragment_index;
            place.fragment_offset = u32::try_from(start).expect("a fragment has at most 128 KiB");
        }
        Ok(None)
    }

    fn close_fragment(&mut self) -> Result<(), WriteError> {
        if self.fragment.is_empty() {
            return Ok(());
        }
        let mut empty = self.spare.pop().unwrap_or_default();
        empty.clear();
        let full = std::mem::replace(&mut self.fragment, empty);
        let index = self.content.fragments.len();
        self.content.fragments.push(Fragment { start: 0, size_word: 0 });
        self.fragment_index = self
            .fragment_index
            .checked_add(1)
            .filter(|&next| next != NO_FRAGMENT)
            .ok_or(WriteError::TableTooLarge { table: "fragment" })?;
        self.submit(full, Purpose::Fragment { index })
    }

    fn submit(&mut self, block: Vec<u8>, purpose: Purpose) -> Result<(), WriteError> {
        self.settle(self.pool.max_in_flight() - 1)?;
        let output = self.spare.pop().unwrap_or_default();
        let ticket = self.pool.submit(block, output)?;
        self.pending.push_back((ticket, purpose));
        Ok(())
    }

    /// Writes the blocks that are done, and waits for the oldest ones until at most `max_pending` are left.
    fn settle(&mut self, max_pending: usize) -> Result<(), WriteError> {
        while let Some((ticket, purpose)) = self.pending.pop_front() {
            let packed = if self.pending.len() >= max_pending {
                ticket.wait()?
            } else if let Some(packed) = ticket.poll()? {
                packed
            } else {
                self.pending.push_front((ticket, purpose));
                break;
            };
            self.write(&packed, &purpose)?;
            self.spare.extend(packed.into_buffers());
        }
        Ok(())
    }

    fn write(&mut self, packed: &Packed, purpose: &Purpose) -> Result<(), WriteError> {
        let start = self.out.position();
        self.out.write(packed.bytes())?;
        match *purpose {
            Purpose::Block { slot, first_of } => {
                self.content.block_sizes[slot] = packed.size_word();
                if let Some(file) = first_of {
                    self.content.files[file].start = start;
                }
            }
            Purpose::Fragment { index } => {
                self.content.fragments[index] = Fragment { start, size_word: packed.size_word() };
            }
        }
        Ok(())
    }
}

/// Content of one file with the size that it must have.
struct Source<'a> {
    content: &'a mut dyn Read,
    size_bytes: u64,
    taken_bytes: u64,
}

impl Source<'_> {
    fn fill(&mut self, buf: &mut [u8]) -> Result<(), WriteError> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read(&mut buf[filled..])? {
                0 => {
                    let actual_bytes = self.taken_bytes;
                    return Err(WriteError::ContentShort { expected_bytes: self.size_bytes, actual_bytes });
                }
                count => filled += count,
            }
        }
        Ok(())
    }

    fn expect_end(&mut self) -> Result<(), WriteError> {
        match self.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(WriteError::ContentLong { expected_bytes: self.size_bytes }),
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, WriteError> {
        loop {
            match self.content.read(buf) {
                Ok(count) => {
                    self.taken_bytes += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(WriteError::Content { source }),
            }
        }
    }
}

/// Comparing a block with itself shifted by one is a memcmp, and that is as fast as memory.
fn is_zero(block: &[u8]) -> bool {
    match block {
        [] => true,
        [first, rest @ ..] => *first == 0 && *rest == block[..block.len() - 1],
    }
}
