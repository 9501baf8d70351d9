//! An image laid out anew: its blocks as they are, those that a start reads first, and tables that say where they are now.
//!
//! A squashfs keeps the blocks of one file side by side, so what can be moved is a fragment block or a whole file. Those of
//! which a start reads the most part come first, in the order of their first use, with the few blocks between that it does
//! not read; then the files of which it reads less, such as a large library; then all others as they were.
//!
//! ```text
//! superblock | options | hot fragments and files | files hot in part | the rest, in the old order | tables
//! ```

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek, Write};

use super::content::{Content, FilePlace, Fragment};
use super::error::WriteError;
use super::output::Output;
use super::tables::{Form, write_tables};
use super::{Finished, finish_image};
use crate::base::tree::{FileId, Node, NodeId, NodeKind, Tree};
use crate::squashfs::compress::Compressor;
use crate::squashfs::format::{
    BLOCK_STORED, METADATA_STORED, NO_FRAGMENT, SUPERBLOCK_BYTES, Superblock, flags,
};
use crate::squashfs::read::{BlockPlace, FileData, Inode, InodeKind, ReadError, Reader};
use crate::squashfs::sums::{BlockSum, Sum, Sums};

/// Most names of an image that is laid out anew: they are all in memory at one time.
const MAX_NAMES: u64 = 64 << 20;
/// Most fragment blocks, of which each takes some bytes of memory.
const MAX_FRAGMENTS: u32 = 1 << 24;
/// Longest options of a compressor, in bytes; real ones have eight.
const MAX_OPTIONS_BYTES: u16 = 64;
/// The blocks of an honest image take as much room as before. A file of a hostile one may share blocks with others in ways
/// that cannot be kept, and the copy may be so many times as long.
const MAX_GROWTH: u64 = 2;
/// A file belongs to the hot ones if a start reads at least one part in so many of it.
const HOT_PART: u64 = 2;

/// Why an image cannot be laid out anew.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The image cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The new one cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Its files share blocks in a way that no writer makes.
    #[error("the squashfs is damaged: its files share blocks in a way that no writer makes")]
    SharedBlocks,
}

impl crate::base::Hint for RelayError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.hint(),
            Self::Write(error) => error.hint(),
            Self::SharedBlocks => Some("copy or pull the image again".into()),
        }
    }
}

/// An image that was laid out anew.
#[derive(Debug)]
pub struct Relaid<W> {
    /// The image.
    pub finished: Finished<W>,
    /// Its superblock.
    pub superblock: Superblock,
    /// Where blocks are now.
    pub moved: Moved,
    /// How long the stretch from the first block is that holds the hot fragments and files, in bytes.
    pub hot_bytes: u64,
}

/// Where blocks are now, by where they were.
#[derive(Debug, Default)]
pub struct Moved(HashMap<u64, u64>);

impl Moved {
    /// A hot list of the old image as one of the new image. It stays in the order of first use: what finds no room in a
    /// reader's memory is what is needed last. (Tried: in the order of the image, which cost a start of a large program a
    /// third more blocks that were not loaded ahead.)
    #[must_use]
    pub fn list(&self, hot: &[BlockPlace]) -> Vec<BlockPlace> {
        let mut known = HashSet::new();
        hot.iter()
            .filter_map(|place| Some(BlockPlace { offset: *self.0.get(&place.offset)?, ..*place }))
            .filter(|place| known.insert(place.offset))
            .collect()
    }
}

/// Lays the image of `reader` out anew in `out`, from its position on. `hot` are the blocks that a start reads, in order;
/// with `sums` every block is compared with its own before it is copied.
pub fn relay<W: Read + Write + Seek>(
    reader: &Reader,
    sums: Option<&Sums>,
    hot: &[BlockPlace],
    out: W,
) -> Result<Relaid<W>, RelayError> {
    let source = reader.superblock();
    let options = read_options(reader)?;
    let sums = sums.map(|sums| reader.summed(sums)).transpose()?;
    let mut image = Image::read(reader)?;
    let (order, hot_units) = order(&image.units, hot);

    let mut out = Output::new(out, &[0; SUPERBLOCK_BYTES])?;
    out.write(&options)?;
    let start_bytes = out.position();
    let mut hot_bytes = 0;
    let limit_bytes = source.inode_table.saturating_mul(MAX_GROWTH);
    let mut moved = Moved::default();
    let hot_offsets: HashSet<u64> = hot.iter().map(|place| place.offset).collect();
    let mut packed = Vec::new();
    for (rank, &unit) in order.iter().enumerate() {
        let unit = &mut image.units[unit];
        unit.new_start = out.position();
        if out.position().saturating_add(unit.size_bytes) > limit_bytes.max(SUPERBLOCK_BYTES as u64) {
            return Err(RelayError::SharedBlocks);
        }
        for place in unit.places(&image.content) {
            packed.resize(usize::try_from(place.packed_bytes()).unwrap_or(usize::MAX), 0);
            reader.read_packed(place.offset, &mut packed)?;
            let sum = Sum::of(&packed);
            if let Some(sums) = &sums {
                sums.compare("block", place, sum)?;
            }
            if hot_offsets.contains(&place.offset) {
                moved.0.insert(place.offset, out.position());
            }
            out.write(&packed)?;
            image.content.sums.push(BlockSum { packed_bytes: place.packed_bytes(), sum });
        }
        if rank < hot_units {
            hot_bytes = out.position() - start_bytes;
        }
    }
    image.settle();
    out.begin_tables();
    let superblock = write_tables(&mut out, &image.content, &image.tree, &form_of(source))?;
    let sums = std::mem::take(&mut image.content.sums);
    let finished = finish_image(out, &superblock, &options, sums)?;
    Ok(Relaid { finished, superblock, moved, hot_bytes })
}

/// How the tables of the new image are made. The blocks keep the old compressor, so the tables must have it too, or be
/// stored as they are where it is one that we only read.
fn form_of(source: &Superblock) -> Form {
    let known = [Compressor::Gzip(9), Compressor::Lz4, Compressor::Zstd(3)];
    let compressor = known.into_iter().find(|known| known.id() == source.compressor_id);
    let kept = flags::UNCOMPRESSED_DATA
        | flags::UNCOMPRESSED_FRAGMENTS
        | flags::NO_FRAGMENTS
        | flags::ALWAYS_FRAGMENTS
        | flags::COMPRESSOR_OPTIONS;
    Form {
        compressor: compressor.unwrap_or(Compressor::None),
        compressor_id: source.compressor_id,
        flags: source.flags & kept,
        block_bytes: source.block_bytes,
        mtime: source.mtime,
    }
}

/// The options of the compressor, as they stand behind the superblock.
fn read_options(reader: &Reader) -> Result<Vec<u8>, ReadError> {
    if reader.superblock().flags & flags::COMPRESSOR_OPTIONS == 0 {
        return Ok(Vec::new());
    }
    let offset = SUPERBLOCK_BYTES as u64;
    let mut header = [0; 2];
    reader.read_packed(offset, &mut header)?;
    let size = u16::from_le_bytes(header) & !METADATA_STORED;
    if size > MAX_OPTIONS_BYTES {
        return Err(ReadError::Damaged { what: "compressor options", offset, reason: "are too long" });
    }
    let mut options = vec![0; header.len() + usize::from(size)];
    reader.read_packed(offset, &mut options)?;
    Ok(options)
}

/// Blocks that stay together.
#[derive(Debug, Clone)]
struct Unit {
    start: u64,
    size_bytes: u64,
    blocks: Blocks,
    new_start: u64,
}

#[derive(Debug, Clone, Copy)]
enum Blocks {
    Fragment {
        size_word: u32,
    },
    /// A stretch of [`Content::block_sizes`].
    File {
        first: usize,
        count: usize,
    },
}

impl Unit {
    /// The blocks that take room in the image.
    fn places<'c>(&self, content: &'c Content) -> Vec<BlockPlace> {
        let sizes: &'c [u32] = match self.blocks {
            Blocks::Fragment { size_word } => return vec![BlockPlace { offset: self.start, size_word }],
            Blocks::File { first, count } => &content.block_sizes[first..first + count],
        };
        let mut offset = self.start;
        let place = |&size_word: &u32| {
            let place = BlockPlace { offset, size_word };
            offset += u64::from(place.packed_bytes());
            place
        };
        sizes.iter().map(place).filter(|place| place.size_word != 0).collect()
    }
}

/// The old image in the writer's terms. Places are the old ones until [`Image::settle`].
struct Image {
    tree: Tree,
    content: Content,
    units: Vec<Unit>,
    /// The unit of each file; `None` for one without blocks of its own.
    unit_of: Vec<Option<usize>>,
    /// The first of the units that are fragment blocks, in the order of their table, comes first of all.
    fragments: usize,
}

impl Image {
    fn read(reader: &Reader) -> Result<Self, ReadError> {
        let superblock = reader.superblock();
        let count = superblock.fragment_count;
        if count > MAX_FRAGMENTS {
            let (value, limit) = (count.into(), MAX_FRAGMENTS.into());
            return Err(ReadError::TooLarge { what: "fragment blocks", value, limit });
        }
        let mut image = Self {
            tree: Tree { nodes: Vec::new(), root: 0 },
            content: Content::default(),
            units: Vec::new(),
            unit_of: Vec::new(),
            fragments: 0,
        };
        for index in 0..count {
            let BlockPlace { offset: start, size_word } = reader.fragment(index)?;
            check_size(reader, BlockPlace { offset: start, size_word })?;
            image.content.fragments.push(Fragment { start, size_word });
            image.units.push(Unit {
                start,
                size_bytes: (size_word & !BLOCK_STORED).into(),
                blocks: Blocks::Fragment { size_word },
                new_start: start,
            });
        }
        image.fragments = image.units.len();
        image.read_tree(reader)?;
        Ok(image)
    }

    fn read_tree(&mut self, reader: &Reader) -> Result<(), ReadError> {
        let root = reader.root()?;
        let mut chains: HashMap<(u64, u64), usize> = HashMap::new();
        let mut known: HashMap<u64, NodeId> = HashMap::from([(reader.superblock().root_inode, 0)]);
        let mut names: u64 = 0;
        self.push(reader, &root, NodeKind::Directory(Vec::new()))?;
        let mut open = vec![(0, root)];
        while let Some((node, directory)) = open.pop() {
            let mut children = Vec::new();
            for entry in reader.read_dir(&directory)? {
                names += 1;
                if names > MAX_NAMES {
                    return Err(ReadError::TooLarge { what: "names", value: names, limit: MAX_NAMES });
                }
                let inode = reader.inode(entry.reference)?;
                let child = match known.get(&entry.reference) {
                    // The writer refuses a directory with two names.
                    Some(known) => *known,
                    None => {
                        let kind = self.kind_of(reader, &inode, &mut chains)?;
                        let child = self.push(reader, &inode, kind)?;
                        known.insert(entry.reference, child);
                        if inode.is_directory() {
                            open.push((child, inode));
                        }
                        child
                    }
                };
                children.push((entry.name, child));
            }
            self.tree.nodes[index(node)].kind = NodeKind::Directory(children);
        }
        Ok(())
    }

    fn push(&mut self, reader: &Reader, inode: &Inode, kind: NodeKind) -> Result<NodeId, ReadError> {
        let count = self.tree.nodes.len() as u64;
        let limit = reader.superblock().inode_count.into();
        let id = NodeId::try_from(count).ok().filter(|_| count < limit);
        let id = id.ok_or(ReadError::Superblock {
            field: "inode count",
            value: limit,
            reason: "but there are more",
        })?;
        let xattrs = reader.xattrs(inode)?;
        self.tree.nodes.push(Node {
            kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            mtime: inode.mtime,
            xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
        });
        Ok(id)
    }

    fn kind_of(
        &mut self,
        reader: &Reader,
        inode: &Inode,
        chains: &mut HashMap<(u64, u64), usize>,
    ) -> Result<NodeKind, ReadError> {
        Ok(match &inode.kind {
            InodeKind::Directory(_) => NodeKind::Directory(Vec::new()),
            InodeKind::File(file) => NodeKind::File(self.add_file(reader, file, chains)?),
            InodeKind::Symlink(target) => NodeKind::Symlink(target.clone()),
            &InodeKind::CharDevice { major, minor } => NodeKind::CharDevice { major, minor },
            &InodeKind::BlockDevice { major, minor } => NodeKind::BlockDevice { major, minor },
            InodeKind::Fifo => NodeKind::Fifo,
            InodeKind::Socket => NodeKind::Socket,
        })
    }

    fn add_file(
        &mut self,
        reader: &Reader,
        file: &FileData,
        chains: &mut HashMap<(u64, u64), usize>,
    ) -> Result<FileId, ReadError> {
        let block_bytes = u64::from(reader.superblock().block_bytes);
        let first_block = self.content.block_sizes.len();
        let (mut hole_bytes, mut packed_bytes, mut left) = (0, 0, file.size_bytes);
        for place in reader.blocks(file)? {
            let length = left.min(block_bytes);
            left -= length;
            if place.size_word == 0 {
                hole_bytes += length;
            } else {
                check_size(reader, place)?;
                packed_bytes += u64::from(place.packed_bytes());
            }
            self.content.block_sizes.push(place.size_word);
        }
        let count = self.content.block_sizes.len() - first_block;
        let fragment = file.fragment.map_or((NO_FRAGMENT, 0), |tail| (tail.index, tail.offset));
        // Files of equal content may be one stretch of blocks.
        let unit = (packed_bytes > 0).then(|| {
            *chains.entry((file.start, packed_bytes)).or_insert_with(|| {
                let blocks = Blocks::File { first: first_block, count };
                let unit =
                    Unit { start: file.start, size_bytes: packed_bytes, blocks, new_start: file.start };
                self.units.push(unit);
                self.units.len() - 1
            })
        });
        let id = u32::try_from(self.content.files.len()).map(FileId).map_err(|_| ReadError::TooLarge {
            what: "files",
            value: self.content.files.len() as u64,
            limit: u32::MAX.into(),
        })?;
        self.unit_of.push(unit);
        self.content.files.push(FilePlace {
            size_bytes: file.size_bytes,
            start: file.start,
            first_block,
            block_count: count,
            fragment: fragment.0,
            fragment_offset: fragment.1,
            hole_bytes,
            has_data: unit.is_some(),
        });
        Ok(id)
    }

    /// Gives files and fragments their new places.
    fn settle(&mut self) {
        for (file, unit) in self.content.files.iter_mut().zip(&self.unit_of) {
            file.start = unit.map_or(0, |unit| self.units[unit].new_start);
        }
        for (fragment, unit) in self.content.fragments.iter_mut().zip(&self.units[..self.fragments]) {
            fragment.start = unit.new_start;
        }
    }
}

/// The order of the units, and how many of them are the hot ones in front.
fn order(units: &[Unit], hot: &[BlockPlace]) -> (Vec<usize>, usize) {
    let mut ranks: Vec<(u64, usize)> =
        hot.iter().enumerate().map(|(rank, place)| (place.offset, rank)).collect();
    ranks.sort_unstable();
    let sizes: HashMap<u64, u64> =
        hot.iter().map(|place| (place.offset, place.packed_bytes().into())).collect();
    let key = |unit: &Unit| {
        let end = unit.start.saturating_add(unit.size_bytes);
        let within = &ranks[ranks.partition_point(|(offset, _)| *offset < unit.start)..];
        let within = &within[..within.partition_point(|(offset, _)| *offset < end)];
        let Some(first) = within.iter().map(|(_, rank)| *rank).min() else { return (2, unit.start) };
        let read = within.iter().map(|(offset, _)| sizes.get(offset).copied().unwrap_or(0));
        let is_whole = read.fold(0, u64::saturating_add).saturating_mul(HOT_PART) >= unit.size_bytes;
        (if is_whole { 0 } else { 1 }, first as u64)
    };
    let mut keyed: Vec<_> = units.iter().enumerate().map(|(unit, facts)| (key(facts), unit)).collect();
    keyed.sort_unstable();
    let hot_units = keyed.partition_point(|((class, _), _)| *class == 0);
    (keyed.into_iter().map(|(_, unit)| unit).collect(), hot_units)
}

/// A block is at most as long as the image's blocks, or it cannot be read.
fn check_size(reader: &Reader, place: BlockPlace) -> Result<(), ReadError> {
    let packed = place.packed_bytes();
    if packed > 0 && packed <= reader.superblock().block_bytes {
        return Ok(());
    }
    let reason = "has an impossible size";
    Err(ReadError::Damaged { what: "data block", offset: place.offset, reason })
}

fn index(node: NodeId) -> usize {
    usize::try_from(node).expect("an index of 32 bits")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn hot_units_come_first_in_the_order_of_use() {
        let unit = |start, size_bytes| Unit {
            start,
            size_bytes,
            blocks: Blocks::Fragment { size_word: 1 },
            new_start: start,
        };
        let place = |offset, size_word| BlockPlace { offset, size_word };
        let units = [unit(100, 50), unit(150, 1000), unit(1150, 100), unit(1250, 10), unit(1260, 40)];
        let check = |hot: &[BlockPlace], expected: &[usize], hot_units: usize| {
            assert_eq!(order(&units, hot), (expected.to_vec(), hot_units));
        };
        check(&[], &[0, 1, 2, 3, 4], 0);
        // The last, half of the third, a hundredth of the second.
        check(&[place(1260, 40), place(1160, 50), place(400, 10)], &[4, 2, 1, 0, 3], 2);
        check(&[place(400, 10), place(1250, 10), place(5000, 10)], &[3, 1, 0, 2, 4], 1);
    }

    #[test]
    fn a_list_follows_its_blocks() {
        let place = |offset| BlockPlace { offset, size_word: 7 };
        let moved = Moved(HashMap::from([(10, 300), (20, 100), (30, 200)]));
        let list = moved.list(&[place(10), place(20), place(99), place(10)]);
        assert_eq!(list, [place(300), place(100)]);
    }

    /// A directory with files of one and of several blocks, a link, and two names of one file.
    fn image() -> (Vec<u8>, Sums) {
        let options = crate::squashfs::write::Options { compressor: Compressor::Lz4, threads: 1, mtime: 5 };
        let mut writer = crate::squashfs::write::Writer::new(Cursor::new(Vec::new()), options).unwrap();
        let node = |kind| Node { kind, mode: 0o755, uid: 7, gid: 9, mtime: 1, xattrs: None };
        let mut nodes = Vec::new();
        let mut children: Vec<(Box<[u8]>, NodeId)> = vec![(b"again".as_slice().into(), 1)];
        for (number, length) in [(0_u32, 280_000_usize), (1, 10), (2, 140_000), (3, 500)] {
            let content: Vec<u8> = (0..length).map(|at| (at * at / 5 % 253).try_into().unwrap()).collect();
            let file = writer.add_file(length as u64, &mut content.as_slice()).unwrap();
            nodes.push(node(NodeKind::File(file)));
            children.push((format!("file-{number}").into_bytes().into(), number));
        }
        nodes[3].xattrs = Some(Box::new(vec![(b"user.a".to_vec(), b"b".to_vec())]));
        nodes.push(node(NodeKind::Symlink(b"file-0".as_slice().into())));
        children.push((b"link".as_slice().into(), 4));
        nodes.push(node(NodeKind::Directory(children)));
        let finished = writer.finish_with_sums(&Tree { root: 5, nodes }).unwrap();
        (finished.out.into_inner(), finished.sums)
    }

    fn relay_of(bytes: Vec<u8>, sums: Option<&Sums>, hot: &[BlockPlace]) -> Result<Vec<u8>, RelayError> {
        let reader = Reader::open(Arc::new(bytes))?;
        let relaid = relay(&reader, sums, hot, Cursor::new(Vec::new()))?;
        let again = relaid.finished.out.into_inner();
        let checked =
            Reader::open(Arc::new(again.clone()))?.check(Some(&relaid.finished.sums), 1, &mut |_| {});
        assert!(checked.faults.iter().all(|fault| !fault.to_string().starts_with("sums")));
        Ok(again)
    }

    #[test]
    fn the_hot_file_is_first_and_damage_is_no_panic() {
        let (whole, sums) = image();
        let reader = Reader::open(Arc::new(whole.clone())).unwrap();
        let find = |reader: &Reader, name: &[u8]| {
            let inode = reader.lookup(&reader.root().unwrap(), name).unwrap().unwrap();
            let InodeKind::File(file) = inode.kind.clone() else { panic!() };
            (inode, file)
        };
        let (_, third) = find(&reader, b"file-2");
        let hot =
            [BlockPlace { offset: third.start, size_word: reader.blocks(&third).unwrap()[0].size_word }];
        let again = relay_of(whole.clone(), Some(&sums), &hot).unwrap();
        let moved = Reader::open(Arc::new(again)).unwrap();
        assert_eq!(find(&moved, b"file-2").1.start, sums.first_block);
        for name in [&b"file-0"[..], b"file-1", b"file-2", b"file-3", b"again"] {
            let ((old, _), (new, _)) = (find(&reader, name), find(&moved, name));
            assert!(reader.read_all(&old, 1 << 20).unwrap() == moved.read_all(&new, 1 << 20).unwrap());
            assert_eq!((old.mode, old.uid, old.gid, old.mtime), (new.mode, new.uid, new.gid, new.mtime));
            assert_eq!(old.link_count, new.link_count);
            assert_eq!(reader.xattrs(&old).unwrap(), moved.xattrs(&new).unwrap());
        }
        // Tables are at the end, the superblock at the start.
        for at in (0..106).chain(whole.len() - 700..whole.len()) {
            for bit in [0x01, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] ^= bit;
                let _any = relay_of(damaged, None, &hot);
            }
        }
    }
}
