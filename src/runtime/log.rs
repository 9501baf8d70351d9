//! What a container prints, kept in the form of Docker's `json-file` driver: one JSON object for each line.
//!
//! ```text
//! {"log":"hello\n","stream":"stdout","time":"2026-01-31T12:00:00.123456789Z"}
//! ```
//!
//! A line longer than 16 KiB becomes several objects, all but the last without a line end, as Docker has it. When the
//! file `log` has grown to its limit it becomes `log.1`, in the place of an older one: the state directory may lie in
//! memory, and a chatty workload must not fill a node.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Longest text of one object, in bytes (moby `daemon/logger/copier.go`).
const MAX_LINE_BYTES: usize = 16 << 10;
/// Size at which `log` becomes `log.1`, in bytes.
const PART_BYTES: u64 = 64 << 20;
/// Longest line of a log file that is read: an object of 16 KiB text with every byte escaped, and room.
const MAX_OBJECT_BYTES: u64 = 256 << 10;

/// Which of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One object of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The text, with its line end if it has one.
    pub log: String,
    /// Where it was printed.
    pub stream: Stream,
    /// When it was read.
    pub time: Timestamp,
}

/// The monitor's end.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    file: Option<File>,
    size_bytes: u64,
    part_bytes: u64,
    /// What has come of each stream without a line end.
    open_lines: [Vec<u8>; 2],
}

impl LogWriter {
    /// Goes on with the log of an earlier start, or begins one.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self {
            path,
            file: Some(file),
            size_bytes,
            part_bytes: PART_BYTES,
            open_lines: Default::default(),
        })
    }

    /// Takes bytes of a stream as they came.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8], time: Timestamp) {
        let mut open = std::mem::take(self.open_line(stream));
        let mut objects = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = piece;
            loop {
                let room = MAX_LINE_BYTES - open.len();
                let (now, later) = rest.split_at(room.min(rest.len()));
                open.extend_from_slice(now);
                rest = later;
                if open.len() < MAX_LINE_BYTES && open.last() != Some(&b'\n') {
                    break;
                }
                push_object(&mut objects, stream, &open, time);
                open.clear();
                if rest.is_empty() {
                    break;
                }
            }
        }
        *self.open_line(stream) = open;
        self.append(&objects);
    }

    /// The stream has ended: a line without an end is a line too.
    pub(super) fn finish(&mut self, stream: Stream, time: Timestamp) {
        let open = std::mem::take(self.open_line(stream));
        if !open.is_empty() {
            let mut objects = Vec::new();
            push_object(&mut objects, stream, &open, time);
            self.append(&objects);
        }
    }

    fn open_line(&mut self, stream: Stream) -> &mut Vec<u8> {
        let [out, err] = &mut self.open_lines;
        if stream == Stream::Stdout { out } else { err }
    }

    fn append(&mut self, objects: &[u8]) {
        if objects.is_empty() {
            return;
        }
        if self.size_bytes >= self.part_bytes {
            self.start_part();
        }
        // A full disk or a removed directory must not stop the workload: the lines are lost.
        if self.file.as_mut().is_some_and(|file| file.write_all(objects).is_ok()) {
            self.size_bytes += objects.len() as u64;
        }
    }

    fn start_part(&mut self) {
        let older = older_part(&self.path);
        let moved = fs::rename(&self.path, older);
        let fresh = moved.and_then(|()| OpenOptions::new().create(true).append(true).open(&self.path));
        if let Ok(file) = fresh {
            self.file = Some(file);
        }
        self.size_bytes = 0;
    }
}

fn push_object(objects: &mut Vec<u8>, stream: Stream, text: &[u8], time: Timestamp) {
    let line = LogLine { log: String::from_utf8_lossy(text).into_owned(), stream, time };
    serde_json::to_writer(&mut *objects, &line).expect("writing to a Vec cannot fail");
    objects.push(b'\n');
}

fn older_part(path: &Path) -> PathBuf {
    path.with_extension("1")
}

/// A log being read, from its beginning on, also while it grows.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// The beginning of an object whose rest is not written yet.
    partial: Vec<u8>,
}

impl LogReader {
    /// Opens a log at its beginning; a log that nobody has written yet is empty.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let first = File::open(older_part(path)).or_else(|_| File::open(path));
        Self { path: path.to_path_buf(), file: first.ok().map(BufReader::new), partial: Vec::new() }
    }

    /// The next line; `None` if there is none yet.
    pub fn next_line(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            if self.file.is_none() {
                self.file = File::open(&self.path).ok().map(BufReader::new);
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            let room = MAX_OBJECT_BYTES.saturating_sub(self.partial.len() as u64);
            let count = file.by_ref().take(room).read_until(b'\n', &mut self.partial)?;
            let is_whole = self.partial.last() == Some(&b'\n');
            if is_whole || self.partial.len() as u64 >= MAX_OBJECT_BYTES {
                let line = serde_json::from_slice(&self.partial).ok();
                self.partial.clear();
                match line {
                    // A damaged line (a node that lost power) does not hide the others.
                    None => continue,
                    some => return Ok(some),
                }
            }
            if count == 0 && !self.go_on_with_next_part()? {
                return Ok(None);
            }
        }
    }

    /// At the end of a part that has been put aside, the next one is the file by the log's own name.
    fn go_on_with_next_part(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let here = file.get_ref().metadata()?;
        let Ok(now) = fs::metadata(&self.path) else { return Ok(false) };
        if (here.dev(), here.ino()) == (now.dev(), now.ino()) {
            return Ok(false);
        }
        self.file = File::open(&self.path).ok().map(BufReader::new);
        self.partial.clear();
        Ok(self.file.is_some())
    }

    /// Passes over everything but the last `count` lines, and gives those.
    pub fn tail(&mut self, count: usize) -> io::Result<Vec<LogLine>> {
        self.skip_to_tail(count)?;
        let mut last = VecDeque::with_capacity(count.min(1024));
        while let Some(line) = self.next_line()? {
            // Texts of one long line count as one.
            if last.len() >= count && ends_line(&line) {
                last.pop_front();
            }
            if count > 0 {
                last.push_back(line);
            }
        }
        while last.len() > count {
            last.pop_front();
        }
        Ok(last.into())
    }

    /// Jumps near the end of a long log, if the newest part alone has enough lines.
    fn skip_to_tail(&mut self, count: usize) -> io::Result<()> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
        let size = file.metadata()?.len();
        let mut back = 64 << 10;
        while back < size {
            file.seek(SeekFrom::Start(size - back))?;
            let mut bytes = Vec::new();
            (&file).take(back).read_to_end(&mut bytes)?;
            if bytes.iter().filter(|byte| **byte == b'\n').count() > count.saturating_add(1) {
                let first_end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0) as u64;
                file.seek(SeekFrom::Start(size - back + first_end + 1))?;
                self.file = Some(BufReader::new(file));
                return Ok(());
            }
            back *= 4;
        }
        Ok(())
    }
}

fn ends_line(line: &LogLine) -> bool {
    line.log.ends_with('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> Timestamp {
        "2026-01-31T12:00:00.5Z".parse().unwrap()
    }

    fn all(path: &Path) -> Vec<(String, Stream)> {
        let mut reader = LogReader::open(path);
        std::iter::from_fn(|| reader.next_line().unwrap()).map(|line| (line.log, line.stream)).collect()
    }

    #[test]
    fn lines_have_docker_s_form() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::open(path.clone()).unwrap();
        writer.take(Stream::Stdout, b"one\ntw", time());
        writer.take(Stream::Stderr, b"err\n", time());
        writer.take(Stream::Stdout, b"o\nthree", time());
        writer.finish(Stream::Stdout, time());
        writer.finish(Stream::Stderr, time());
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-31T12:00:00.5Z\"}\n\
             {\"log\":\"err\\n\",\"stream\":\"stderr\",\"time\":\"2026-01-31T12:00:00.5Z\"}\n\
             {\"log\":\"two\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-31T12:00:00.5Z\"}\n\
             {\"log\":\"three\",\"stream\":\"stdout\",\"time\":\"2026-01-31T12:00:00.5Z\"}\n"
        );
    }

    #[test]
    fn long_lines_are_cut_and_nothing_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::open(path.clone()).unwrap();
        let text: Vec<u8> = b"x".repeat(40_000).into_iter().chain(*b"\nend").collect();
        for piece in text.chunks(1000) {
            writer.take(Stream::Stdout, piece, time());
        }
        writer.finish(Stream::Stdout, time());
        let found = all(&path);
        let lengths: Vec<_> = found.iter().map(|(text, _)| text.len()).collect();
        assert_eq!(lengths, [16_384, 16_384, 7_233, 3]);
        assert_eq!(found.iter().map(|(text, _)| text.as_str()).collect::<String>().as_bytes(), text);
    }

    #[test]
    fn a_reader_follows_into_the_next_part() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::open(path.clone()).unwrap();
        writer.part_bytes = 100;
        let mut reader = LogReader::open(&path);
        let mut seen = Vec::new();
        for number in 0..6 {
            writer.take(Stream::Stdout, format!("{number}\n").as_bytes(), time());
            while let Some(line) = reader.next_line().unwrap() {
                seen.push(line.log.trim().to_owned());
            }
        }
        assert_eq!(seen, ["0", "1", "2", "3", "4", "5"]);
        assert!(path.with_extension("1").exists());
        assert_eq!(all(&path).len(), 4);
    }

    #[test]
    fn the_tail_is_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::open(path.clone()).unwrap();
        for number in 0..5000 {
            writer.take(Stream::Stdout, format!("line {number}\n").as_bytes(), time());
        }
        let tail = |count| -> Vec<String> {
            let lines = LogReader::open(&path).tail(count).unwrap();
            lines.into_iter().map(|line| line.log.trim().to_owned()).collect()
        };
        assert_eq!(tail(2), ["line 4998", "line 4999"]);
        assert!(tail(0).is_empty());
        assert_eq!(tail(3000).first().map(String::as_str), Some("line 2000"));
        assert_eq!(tail(90_000).len(), 5000);
        assert_eq!(LogReader::open(&directory.path().join("none")).tail(5).unwrap(), []);
    }
}
