//! File content: full blocks one after the other, and tails that share fragment blocks.

use std::sync::{Arc, PoisonError};

use super::error::ReadError;
use super::inode::{FileData, Inode, InodeKind};
use super::metadata::{Chain, Cursor, Place};
use super::{Reader, Shared};
use crate::squashfs::compress::BlockDecompressor;
use crate::squashfs::format::BLOCK_STORED;

/// Most fragment blocks of an image: 2 TiB of small files in blocks of 128 KiB.
pub(super) const MAX_FRAGMENTS: u32 = 1 << 24;
/// Bytes of an entry in the fragment table, and entries of one of its blocks.
const FRAGMENT_BYTES: u32 = 16;
const FRAGMENTS_PER_BLOCK: u32 = 512;

/// Where a data block lies in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockPlace {
    /// File offset.
    pub offset: u64,
    /// Bytes that it takes there, with the bit for "stored"; 0 is a hole.
    pub size_word: u32,
}

impl BlockPlace {
    /// Bytes that it takes in the image.
    #[must_use]
    pub fn packed_bytes(self) -> u32 {
        self.size_word & !BLOCK_STORED
    }

    /// Whether the image has its bytes as they are.
    #[must_use]
    pub fn is_stored(self) -> bool {
        self.size_word & BLOCK_STORED != 0
    }
}

/// A fragment block: it holds the tails of several files.
pub type Fragment = BlockPlace;

impl Reader {
    /// The whole content of a regular file; more than `max_bytes` is an error.
    pub fn read_all(&self, inode: &Inode, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
        let size_bytes = file_of(inode)?.size_bytes;
        if size_bytes > max_bytes {
            let what = "bytes of a file that is read whole";
            return Err(ReadError::TooLarge { what, value: size_bytes, limit: max_bytes });
        }
        // Block by block, since the size is only a claim.
        let step = self.shared.superblock.block_bytes as usize;
        let mut content = Vec::new();
        while (content.len() as u64) < size_bytes {
            let start = content.len();
            let left = usize::try_from(size_bytes).unwrap_or(usize::MAX) - start;
            content.resize(start + step.min(left), 0);
            let count = self.read_at(inode, start as u64, &mut content[start..])?;
            content.truncate(start + count);
        }
        Ok(content)
    }

    /// Reads from a regular file at `offset` until `buf` is full or the file ends, and says how many bytes it gave.
    pub fn read_at(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let file = file_of(inode)?;
        let block_bytes = u64::from(self.shared.superblock.block_bytes);
        let end = offset.saturating_add(buf.len() as u64).min(file.size_bytes);
        let mut blocks = self.walk_blocks(file, offset / block_bytes)?;
        let (mut at, mut done) = (offset, 0);
        while at < end {
            let block_start = at - at % block_bytes;
            let length = to_usize((file.size_bytes - block_start).min(block_bytes))?;
            let (place, start, most) = match blocks.next() {
                Some(place) => (place?, 0, length),
                None => {
                    let (place, start) = self.tail(file)?;
                    (place, start, to_usize(block_bytes)?)
                }
            };
            let within = to_usize(at - block_start)?;
            let wanted = (length - within).min(buf.len() - done);
            // No more of a block that is stored as it is is read than is asked for.
            if place.is_stored() && place.packed_bytes() as usize <= most {
                let from = start.saturating_add(within);
                self.read_stored(place, from, &mut buf[done..done + wanted])?;
                done += wanted;
                at += wanted as u64;
                continue;
            }
            let block = self.block_again(place, most)?;
            let have =
                block.get(start..).and_then(|rest| rest.get(..length)).and_then(|own| own.get(within..));
            let Some(have) = have.filter(|have| !have.is_empty()) else {
                let reason = "is shorter than the file that it belongs to";
                return Err(ReadError::Damaged { what: "data block", offset: file.start, reason });
            };
            let count = have.len().min(wanted);
            buf[done..done + count].copy_from_slice(&have[..count]);
            done += count;
            at += count as u64;
        }
        Ok(done)
    }

    /// The places of all blocks of a file's own, in order.
    pub fn blocks(&self, file: &FileData) -> Result<Vec<BlockPlace>, ReadError> {
        self.walk_blocks(file, 0)?.collect()
    }

    /// The blocks of a file's own that are no holes, in order, each with its number in the file.
    pub fn stored_blocks(&self, file: &FileData) -> Result<Vec<(u64, BlockPlace)>, ReadError> {
        let numbered = (0..).zip(self.walk_blocks(file, 0)?);
        numbered
            .filter(|(_, place)| place.as_ref().map_or(true, |place| place.size_word != 0))
            .map(|(number, place)| Ok((number, place?)))
            .collect()
    }

    /// The fragment block with a file's tail, and the offset in it.
    pub fn tail(&self, file: &FileData) -> Result<(Fragment, usize), ReadError> {
        let Some(fragment) = file.fragment else {
            let reason = "is missing: the file has neither block nor fragment for its end";
            return Err(ReadError::Damaged { what: "data block", offset: file.start, reason });
        };
        Ok((self.fragment(fragment.index)?, fragment.offset as usize))
    }

    /// The places of a file's own blocks, from block `first` on.
    fn walk_blocks(
        &self,
        file: &FileData,
        first: u64,
    ) -> Result<impl Iterator<Item = Result<BlockPlace, ReadError>>, ReadError> {
        let count = file.block_count;
        let mut cursor = (first < count)
            .then(|| Cursor::new(&self.shared, self.shared.inode_chain(), file.block_list))
            .transpose()?;
        let mut offset = file.start;
        let mut next = move |cursor: &mut Cursor<'_>| {
            let place = BlockPlace { offset, size_word: cursor.u32()? };
            offset = offset.saturating_add(place.packed_bytes().into());
            Ok(place)
        };
        if let Some(cursor) = &mut cursor {
            for _ in 0..first {
                next(cursor)?;
            }
        }
        Ok((first..count).map_while(move |_| cursor.as_mut().map(&mut next)))
    }

    /// [`Self::read_block`], with the block read last at hand.
    fn block_again(&self, place: BlockPlace, length: usize) -> Result<Arc<Vec<u8>>, ReadError> {
        let last = || self.shared.last_block.lock().unwrap_or_else(PoisonError::into_inner);
        if place.packed_bytes() > 0
            && let Some((at, block)) = &*last()
            && *at == place
        {
            return Ok(block.clone());
        }
        let block = Arc::new(self.read_block(place, length)?);
        *last() = Some((place, block.clone()));
        Ok(block)
    }

    /// Reads and decompresses one data or fragment block. It gives at most `length` bytes, which a caller that knows
    /// the length has to compare; a hole gives as many zeros.
    pub fn read_block(&self, place: BlockPlace, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut out = Vec::new();
        self.read_block_into(place, length, &mut out)?;
        Ok(out)
    }

    /// As [`Self::read_block`], into a buffer that is used again and again: what it held is gone. A buffer that is long
    /// enough already saves filling it with zeros first.
    pub fn read_block_into(
        &self,
        place: BlockPlace,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let shared = &self.shared;
        let Some(packed) = self.packed_length(place)? else {
            return self.unpack_block(place, &[], length, out);
        };
        let mut scratch = shared.scratch()?;
        scratch.input.resize(packed, 0);
        let result = shared
            .read_exact(&mut scratch.input, place.offset)
            .and_then(|()| self.unpack(place, &scratch.input, length, &mut scratch.decompressor, out));
        shared.give_back(scratch);
        result
    }

    /// Fills `out` with the bytes from `start` on of a block that is stored as it is.
    pub fn read_stored(&self, place: BlockPlace, start: usize, out: &mut [u8]) -> Result<(), ReadError> {
        let packed = self.packed_length(place)?.filter(|_| place.is_stored()).unwrap_or(0);
        if start.checked_add(out.len()).is_none_or(|end| end > packed) {
            let reason = "is shorter than the file that it belongs to";
            return Err(ReadError::Damaged { what: "data block", offset: place.offset, reason });
        }
        self.shared.read_exact(out, place.offset.saturating_add(start as u64))
    }

    /// As [`Self::read_block_into`], from the bytes that the block takes in the image.
    pub fn unpack_block(
        &self,
        place: BlockPlace,
        packed: &[u8],
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        if self.packed_length(place)?.is_none() {
            out.clear();
            out.resize(length.min(self.shared.superblock.block_bytes as usize), 0);
            return Ok(());
        }
        let mut scratch = self.shared.scratch()?;
        let result = self.unpack(place, packed, length, &mut scratch.decompressor, out);
        self.shared.give_back(scratch);
        result
    }

    /// Reads stored bytes of the image: those of several neighbouring blocks at a time.
    pub fn read_packed(&self, offset: u64, out: &mut [u8]) -> Result<(), ReadError> {
        self.shared.read_exact(out, offset)
    }

    /// Says that stored bytes of the image will not be read again soon.
    pub fn done_with(&self, offset: u64, size_bytes: u64) {
        self.shared.image.done_with(offset, size_bytes);
    }

    /// Says that stored bytes of the image will be read soon.
    pub fn will_need(&self, offset: u64, size_bytes: u64) {
        self.shared.image.will_need(offset, size_bytes);
    }

    /// How many bytes a block takes in the image; `None` for a hole.
    fn packed_length(&self, place: BlockPlace) -> Result<Option<usize>, ReadError> {
        let superblock = &self.shared.superblock;
        let packed = place.packed_bytes();
        if place.size_word == 0 {
            return Ok(None);
        }
        let damaged = |reason| ReadError::Damaged { what: "data block", offset: place.offset, reason };
        if packed == 0 || packed > superblock.block_bytes {
            return Err(damaged("has an impossible size"));
        }
        if u64::from(packed) > superblock.bytes_used.saturating_sub(place.offset) {
            return Err(damaged("lies behind the end of the image"));
        }
        Ok(Some(packed as usize))
    }

    fn unpack(
        &self,
        place: BlockPlace,
        packed: &[u8],
        length: usize,
        decompressor: &mut BlockDecompressor,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let length = length.min(self.shared.superblock.block_bytes as usize);
        let offset = place.offset;
        if place.is_stored() {
            if packed.len() > length {
                let reason = "is longer than the file that it belongs to";
                return Err(ReadError::Damaged { what: "data block", offset, reason });
            }
            out.clear();
            out.extend_from_slice(packed);
            return Ok(());
        }
        out.resize(length, 0);
        let count = decompressor.decompress(packed, out).map_err(|source| ReadError::Decompress {
            what: "data block",
            offset,
            source,
        })?;
        out.truncate(count);
        Ok(())
    }

    /// One entry of the fragment table.
    pub fn fragment(&self, index: u32) -> Result<Fragment, ReadError> {
        let (shared, chain) = (&self.shared, fragment_chain(&self.shared));
        let blocks = match shared.fragment_blocks.get() {
            Some(blocks) => blocks,
            None => {
                let blocks = self.read_fragment_blocks(chain)?;
                shared.fragment_blocks.get_or_init(|| blocks)
            }
        };
        let missing = || {
            let (offset, reason) =
                (shared.superblock.fragment_table, "has fewer entries than a file asks for");
            ReadError::Damaged { what: chain.what, offset, reason }
        };
        if index >= shared.superblock.fragment_count {
            return Err(missing());
        }
        let block = *blocks.get((index / FRAGMENTS_PER_BLOCK) as usize).ok_or_else(missing)?;
        let offset = (index % FRAGMENTS_PER_BLOCK * FRAGMENT_BYTES) as usize;
        let mut cursor = Cursor::new(shared, chain, Place { block, offset })?;
        let (offset, size_word) = (cursor.u64()?, cursor.u32()?);
        Ok(Fragment { offset, size_word })
    }

    fn read_fragment_blocks(&self, chain: Chain) -> Result<Vec<u64>, ReadError> {
        let count = self.shared.superblock.fragment_count;
        if count > MAX_FRAGMENTS {
            let (value, limit) = (count.into(), MAX_FRAGMENTS.into());
            return Err(ReadError::TooLarge { what: "fragment blocks", value, limit });
        }
        let list = self.shared.superblock.fragment_table;
        let blocks = u64::from(count.div_ceil(FRAGMENTS_PER_BLOCK));
        (0..blocks).map(|index| self.shared.block_of_list(chain.what, list, index)).collect()
    }
}

fn fragment_chain(shared: &Shared) -> Chain {
    Chain { what: "fragment table", end: shared.superblock.bytes_used }
}

fn file_of(inode: &Inode) -> Result<&FileData, ReadError> {
    match &inode.kind {
        InodeKind::File(data) => Ok(data),
        _ => Err(ReadError::WrongKind { number: inode.number, wanted: "regular file" }),
    }
}

fn to_usize(count: u64) -> Result<usize, ReadError> {
    let what = "bytes of a block";
    usize::try_from(count).map_err(|_| ReadError::TooLarge { what, value: count, limit: usize::MAX as u64 })
}
