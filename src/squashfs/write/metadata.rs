//! Metadata blocks: a stream of bytes cut into compressed pieces of 8 KiB, kept in memory until its place is known.

use std::io::{Seek, Write};

use super::error::WriteError;
use super::output::Output;
use crate::squashfs::compress::{BlockCompressor, Compressor};
use crate::squashfs::format::{METADATA_BYTES, METADATA_STORED};

/// Where something starts in a metadata stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MetadataPlace {
    /// Offset on disk of its block, from the start of the table.
    pub(super) block: u32,
    /// Offset inside the block once decompressed.
    pub(super) offset: u16,
}

impl MetadataPlace {
    /// As inode references and xattr references are stored.
    pub(super) fn to_reference(self) -> u64 {
        (u64::from(self.block) << 16) | u64::from(self.offset)
    }
}

/// A table in the making.
#[derive(Debug)]
pub(super) struct MetadataWriter {
    /// Named in errors.
    table: &'static str,
    compressor: BlockCompressor,
    /// The block being filled, never full between calls.
    open: Vec<u8>,
    /// Buffer to compress into.
    packed: Vec<u8>,
    /// Finished blocks with their headers.
    done: Vec<u8>,
    /// Where each finished block starts in `done`.
    starts: Vec<u32>,
}

impl MetadataWriter {
    /// An empty table.
    pub(super) fn new(table: &'static str, compressor: Compressor) -> Result<Self, WriteError> {
        let compressor =
            BlockCompressor::new(compressor).map_err(|source| WriteError::Compress { source })?;
        let (open, packed) = (Vec::with_capacity(METADATA_BYTES), Vec::new());
        Ok(Self { table, compressor, open, packed, done: Vec::new(), starts: Vec::new() })
    }

    /// Where the next byte goes.
    pub(super) fn place(&self) -> Result<MetadataPlace, WriteError> {
        let block =
            u32::try_from(self.done.len()).map_err(|_| WriteError::TableTooLarge { table: self.table })?;
        let offset = u16::try_from(self.open.len()).expect("an open block is shorter than 8 KiB");
        Ok(MetadataPlace { block, offset })
    }

    /// Appends.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(METADATA_BYTES - self.open.len()));
            self.open.extend_from_slice(now);
            if self.open.len() == METADATA_BYTES {
                self.close_block()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Ends the table and appends it to the image. Returns the offset in the image of each of its blocks.
    pub(super) fn finish<W: Write + Seek>(mut self, out: &mut Output<W>) -> Result<Vec<u64>, WriteError> {
        if !self.open.is_empty() {
            self.close_block()?;
        }
        let start = out.position();
        out.write(&self.done)?;
        Ok(self.starts.into_iter().map(|offset| start + u64::from(offset)).collect())
    }

    fn close_block(&mut self) -> Result<(), WriteError> {
        self.starts.push(self.place()?.block);
        let shrunk = self
            .compressor
            .compress(&self.open, &mut self.packed)
            .map_err(|source| WriteError::Compress { source })?;
        let (bytes, stored) = if shrunk { (&self.packed, 0) } else { (&self.open, METADATA_STORED) };
        let size = u16::try_from(bytes.len()).expect("a metadata block has at most 8 KiB");
        self.done.extend_from_slice(&(size | stored).to_le_bytes());
        self.done.extend_from_slice(bytes);
        self.open.clear();
        Ok(())
    }
}

/// Appends a table that is found through a list of its blocks (fragments, ids, inode lookup): returns where the list
/// starts, which is what the superblock holds.
pub(super) fn write_indexed_table<W: Write + Seek, const N: usize>(
    out: &mut Output<W>,
    table: &'static str,
    compressor: Compressor,
    entries: impl Iterator<Item = [u8; N]>,
) -> Result<u64, WriteError> {
    let mut metadata = MetadataWriter::new(table, compressor)?;
    for entry in entries {
        metadata.write(&entry)?;
    }
    let starts = metadata.finish(out)?;
    let list = out.position();
    write_list(out, &starts)?;
    Ok(list)
}

/// Appends a list of block offsets.
pub(super) fn write_list<W: Write + Seek>(out: &mut Output<W>, starts: &[u64]) -> Result<(), WriteError> {
    let bytes: Vec<u8> = starts.iter().flat_map(|start| start.to_le_bytes()).collect();
    out.write(&bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::squashfs::compress::BlockDecompressor;

    /// The table's bytes, decompressed.
    pub(in super::super) fn unpack(table: MetadataWriter) -> Vec<u8> {
        let mut out = Output::new(Cursor::new(Vec::new()), &[]).unwrap();
        table.finish(&mut out).unwrap();
        let (cursor, _) = out.finish(&[]).unwrap();
        let (packed, mut bytes) = (cursor.into_inner(), Vec::new());
        let mut rest = packed.as_slice();
        let mut decompress = BlockDecompressor::new(6).unwrap();
        while let Some((header, tail)) = rest.split_first_chunk() {
            let header = u16::from_le_bytes(*header);
            let (block, tail) = tail.split_at(usize::from(header & !METADATA_STORED));
            if header & METADATA_STORED == 0 {
                let mut buf = vec![0; METADATA_BYTES];
                let size = decompress.decompress(block, &mut buf).unwrap();
                bytes.extend_from_slice(&buf[..size]);
            } else {
                bytes.extend_from_slice(block);
            }
            rest = tail;
        }
        bytes
    }

    #[test]
    fn a_place_never_points_behind_its_block() {
        let mut table = MetadataWriter::new("test", Compressor::Zstd(1)).unwrap();
        assert_eq!(table.place().unwrap(), MetadataPlace { block: 0, offset: 0 });
        table.write(&[1; 8191]).unwrap();
        assert_eq!(table.place().unwrap(), MetadataPlace { block: 0, offset: 8191 });
        table.write(&[1]).unwrap();
        let place = table.place().unwrap();
        assert!(place.block > 0 && place.offset == 0, "{place:?}");
        table.write(&[2; 20_000]).unwrap();
        assert_eq!(table.place().unwrap().offset, 20_000 - 2 * 8192);
        let bytes = unpack(table);
        assert!(bytes[..8192] == [1; 8192] && bytes[8192..] == [2; 20_000]);
    }

    #[test]
    fn short_tables_are_stored_and_empty_ones_have_no_block() {
        let mut out = Output::new(Cursor::new(Vec::new()), b"head").unwrap();
        let table =
            write_indexed_table(&mut out, "test", Compressor::Zstd(1), [7_u32.to_le_bytes()].into_iter());
        assert_eq!(table.unwrap(), 4 + 6);
        let none = std::iter::empty::<[u8; 4]>();
        assert_eq!(write_indexed_table(&mut out, "test", Compressor::Zstd(1), none).unwrap(), 4 + 6 + 8);
        let (cursor, size) = out.finish(b"HEAD").unwrap();
        assert_eq!(cursor.into_inner(), b"HEAD\x04\x80\x07\0\0\0\x04\0\0\0\0\0\0\0");
        assert_eq!(size, 18);
    }
}
