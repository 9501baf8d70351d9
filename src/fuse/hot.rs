//! Hot lists: which blocks a start touches, in order. The server records one, and the next start of the same image has the
//! blocks loaded by large reads before they are asked for.
//!
//! ```text
//! slipway-hot 1 <bytes of the squashfs> <inodes> <time of making>
//! <file offset of a block> <size word of the block>
//! …
//! ```
//!
//! A list only says what to load early. A wrong one costs time and nothing else: each block is checked like any other.

#![expect(clippy::disallowed_methods, reason = "reads and writes the list beside the image")]

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::squashfs::format::Superblock;
use crate::squashfs::read::BlockPlace;

/// Most blocks of a list: 1 GiB of content in blocks of 128 KiB. An import of `torch` reads 4,600.
pub(super) const MAX_BLOCKS: usize = 8192;
/// How long a start lasts, in seconds: what is read later is the work itself.
pub(super) const RECORD_SECONDS: u64 = 60;
/// Longest file that can be a list, in bytes: two numbers and their separators a line.
const MAX_LIST_BYTES: u64 = MAX_BLOCKS as u64 * 33 + 128;
/// Fewer blocks are no list: they are read faster than one is.
const MIN_BLOCKS: usize = 16;
const FORMAT: &str = "slipway-hot 1";

/// Notes which blocks are read, in order.
#[derive(Debug)]
pub(super) struct Recorder {
    path: PathBuf,
    head: String,
    on: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    known: HashSet<BlockPlace>,
    order: Vec<BlockPlace>,
}

impl Recorder {
    pub(super) fn new(path: PathBuf, superblock: &Superblock) -> Self {
        Self { path, head: head(superblock), on: AtomicBool::new(true), seen: Mutex::default() }
    }

    /// Notes that a block was asked for, `age_seconds` after the start.
    pub(super) fn note(&self, place: BlockPlace, age_seconds: impl FnOnce() -> u64) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.known.insert(place) {
            return;
        }
        seen.order.push(place);
        if seen.order.len() >= MAX_BLOCKS || age_seconds() > RECORD_SECONDS {
            drop(seen);
            self.finish();
        }
    }

    /// Writes the list, once. A list that cannot be written is none: the next start is as slow as this one.
    pub(super) fn finish(&self) {
        if !self.on.swap(false, Ordering::Relaxed) {
            return;
        }
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if seen.order.len() >= MIN_BLOCKS {
            let _ = write(&self.path, &to_text(&self.head, &seen.order));
        }
    }
}

/// The list at `path` if there is one and it is of this image.
pub(super) fn read(path: &Path, superblock: &Superblock) -> Option<Vec<BlockPlace>> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_LIST_BYTES).read_to_string(&mut text).ok()?;
    parse(&text, &head(superblock))
}

/// Writes a list of the image with this superblock.
pub(super) fn write_list(path: &Path, superblock: &Superblock, places: &[BlockPlace]) -> io::Result<()> {
    write(path, &to_text(&head(superblock), places))
}

fn head(superblock: &Superblock) -> String {
    format!("{FORMAT} {} {} {}", superblock.bytes_used, superblock.inode_count, superblock.mtime)
}

fn to_text(head: &str, places: &[BlockPlace]) -> String {
    let lines = places.iter().map(|place| format!("{} {}\n", place.offset, place.size_word));
    std::iter::once(format!("{head}\n")).chain(lines).collect()
}

fn parse(text: &str, head: &str) -> Option<Vec<BlockPlace>> {
    let mut lines = text.lines();
    if lines.next() != Some(head) {
        return None;
    }
    let place = |line: &str| {
        let (offset, size_word) = line.split_once(' ')?;
        Some(BlockPlace { offset: offset.parse().ok()?, size_word: size_word.parse().ok()? })
    };
    lines.take(MAX_BLOCKS).map(place).collect()
}

/// Ranks of one job write the same list at the same time: each writes its own file, and the last name stands. Modes are
/// named, since the launcher that makes the server has emptied the mask.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut file = fs::OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o644).open(&temporary);
    let result =
        file.and_then(|mut file| file.write_all(text.as_bytes())).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // What cannot be written can mostly not be removed either, and is swept with the store.
        let _ = fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u64) -> BlockPlace {
        BlockPlace { offset, size_word: 7 }
    }

    #[test]
    fn lists_are_read_as_they_were_written() {
        let places = [place(96), place(u64::MAX), place(5)];
        let text = to_text("head 1", &places);
        assert_eq!(text, "head 1\n96 7\n18446744073709551615 7\n5 7\n");
        assert_eq!(parse(&text, "head 1"), Some(places.to_vec()));
        for bad in [
            "",
            "head 2\n96 7\n",
            "head 1\n96\n",
            "head 1\n96 7 8\n",
            "head 1\n-1 7\n",
            "head 1\n1 4294967296\n",
        ] {
            assert_eq!(parse(bad, "head 1"), None, "{bad:?}");
        }
    }

    #[test]
    fn a_recording_is_written_once_and_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hot/list");
        let recorder = Recorder {
            path: path.clone(),
            head: "h".to_owned(),
            on: AtomicBool::new(true),
            seen: Mutex::default(),
        };
        for offset in (0..MIN_BLOCKS as u64).rev().chain(0..5) {
            recorder.note(place(offset), || 0);
        }
        recorder.note(place(99), || RECORD_SECONDS + 1);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("h\n15 7\n14 7\n") && text.ends_with("\n0 7\n99 7\n"), "{text}");
        fs::remove_file(&path).unwrap();
        recorder.note(place(2), || 0);
        recorder.finish();
        assert!(!path.exists());
    }
}
