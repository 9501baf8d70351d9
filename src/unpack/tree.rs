//! Writes an image's tree, with as many threads as there are CPUs.
//!
//! Work is cut into a directory, a run of small files whose ends lie together in the image, or a piece of a large file. The
//! newest piece of work is done first, so that few directories are open at a time, however many there are.
//!
//! Every name is made in its opened directory (`sys::at`): a name has no slash, and a link is never followed, so nothing can
//! come to lie elsewhere. A mode is set when nothing more is made in a directory, since it may forbid that.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::fuse::shown_permissions;
use crate::squashfs::read::{BlockPlace, FileData, Fragment, Inode, InodeKind, ReadError, Reader};
use crate::sys::at::{self, Special};
use crate::sys::{self, Errno, to_errno};

/// Most threads: more only take turns on the disk.
const MAX_THREADS: usize = 32;
/// Blocks in a piece of a large file: 4 MiB of the usual 128 KiB.
const PIECE_BLOCKS: usize = 32;
/// A run of small files ends with the fragment block after so many, and whatever comes after so many.
const RUN_FILES: usize = 16;
const MAX_RUN_FILES: usize = 256;
/// Bits that are not taken over to a file: on a node's own disk they would have an effect.
const SET_IDS: u32 = 0o6000;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Written {
    /// Bytes of files.
    pub bytes: u64,
    /// Files whose extended attributes the file system did not take.
    pub without_xattrs: u64,
}

/// Why a tree could not be written, and where in the image that was.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) path: String,
    pub(super) cause: Cause,
    pub(super) done_bytes: u64,
}

#[derive(Debug)]
pub(super) enum Cause {
    Read(ReadError),
    Write(Errno),
}

impl From<ReadError> for Cause {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self::Write(errno)
    }
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Self {
        Self::Write(to_errno(error))
    }
}

/// Writes the tree of `reader` as the directory `name` in `directory`. `links` is an empty directory on the same file
/// system; it holds the files with several names when this is done. On failure what was made stays.
pub(super) fn write_tree(
    reader: &Reader,
    directory: BorrowedFd<'_>,
    name: &[u8],
    links: OwnedFd,
    threads: usize,
) -> Result<Written, Fault> {
    let start = || -> Result<Job, Cause> {
        let inode = reader.root()?;
        let fd = at::make_directory(directory, name)?;
        Ok(Job::List(Arc::new(OpenDirectory { fd, inode, path: String::new() })))
    };
    let first = start().map_err(|cause| Fault { path: String::new(), cause, done_bytes: 0 })?;
    let shared = Shared {
        reader,
        links,
        linked: Mutex::default(),
        queue: Mutex::new(Queue { jobs: vec![first], active: 0, fault: None }),
        changed: Condvar::new(),
        bytes: AtomicU64::new(0),
        without_xattrs: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, MAX_THREADS) {
            scope.spawn(|| Worker::new(&shared).run());
        }
        Worker::new(&shared).run();
    });
    let bytes = shared.bytes.into_inner();
    match shared.queue.into_inner().unwrap_or_else(PoisonError::into_inner).fault {
        Some((path, cause)) => Err(Fault { path, cause, done_bytes: bytes }),
        None => Ok(Written { bytes, without_xattrs: shared.without_xattrs.into_inner() }),
    }
}

/// A directory in which things are made. Whoever drops the last reference finishes it.
struct OpenDirectory {
    fd: OwnedFd,
    inode: Inode,
    /// For messages.
    path: String,
}

impl OpenDirectory {
    fn path_of(&self, name: &[u8]) -> String {
        let name = String::from_utf8_lossy(name);
        if self.path.is_empty() { name.into_owned() } else { format!("{}/{name}", self.path) }
    }
}

/// A large file. Whoever drops the last reference finishes it.
struct OpenFile {
    file: File,
    inode: Inode,
    size_bytes: u64,
    path: String,
}

enum Job {
    /// Makes what is in a directory that has been made.
    List(Arc<OpenDirectory>),
    /// Makes a directory in another.
    Directory { parent: Arc<OpenDirectory>, name: Box<[u8]>, inode: Inode },
    /// Small files of one directory.
    Files { parent: Arc<OpenDirectory>, files: Vec<(Box<[u8]>, u64, Inode)> },
    /// Blocks of a large file, each with its number.
    Piece { file: Arc<OpenFile>, blocks: Vec<(u64, BlockPlace)> },
}

struct Queue {
    jobs: Vec<Job>,
    /// Jobs that are being done.
    active: usize,
    /// The first thing that went wrong; then nothing more is begun.
    fault: Option<(String, Cause)>,
}

/// What the threads share.
struct Shared<'a> {
    reader: &'a Reader,
    links: OwnedFd,
    /// Files with several names that are there already, by their place in the image.
    linked: Mutex<HashSet<u64>>,
    queue: Mutex<Queue>,
    changed: Condvar,
    bytes: AtomicU64,
    without_xattrs: AtomicU64,
}

impl Shared<'_> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, jobs: impl IntoIterator<Item = Job>) {
        self.queue().jobs.extend(jobs);
        self.changed.notify_all();
    }

    /// The next job; `None` when all is done, or something went wrong.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.fault.is_some() {
                return None;
            }
            if let Some(job) = queue.jobs.pop() {
                queue.active += 1;
                return Some(job);
            }
            if queue.active == 0 {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, result: Result<(), (String, Cause)>) {
        let mut queue = self.queue();
        queue.active -= 1;
        if let Err(fault) = result {
            queue.fault.get_or_insert(fault);
        }
        if queue.fault.is_some() || (queue.active == 0 && queue.jobs.is_empty()) {
            self.changed.notify_all();
        }
    }
}

/// One thread, with its buffers.
struct Worker<'a> {
    shared: &'a Shared<'a>,
    block: Vec<u8>,
    /// The fragment block read last: small files lie side by side in it.
    fragment: Option<(Fragment, Vec<u8>)>,
}

type Done<T = ()> = Result<T, (String, Cause)>;

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared<'a>) -> Self {
        Self { shared, block: Vec::new(), fragment: None }
    }

    fn run(mut self) {
        while let Some(job) = self.shared.next() {
            let result = self.work(job);
            self.shared.done(result);
        }
    }

    fn work(&mut self, job: Job) -> Done {
        match job {
            Job::List(directory) => self.list(directory),
            Job::Directory { parent, name, inode } => {
                let path = parent.path_of(&name);
                match at::make_directory(parent.fd.as_fd(), &name) {
                    Ok(fd) => {
                        self.release(parent)?;
                        self.list(Arc::new(OpenDirectory { fd, inode, path }))
                    }
                    Err(errno) => Err((path, errno.into())),
                }
            }
            Job::Files { parent, files } => {
                for (name, reference, inode) in files {
                    self.file(&parent, &name, reference, inode)?;
                }
                self.release(parent)
            }
            Job::Piece { file, blocks } => {
                self.piece(&file, &blocks).map_err(|cause| (file.path.clone(), cause))?;
                self.release_file(file)
            }
        }
    }

    /// Makes links and the like at once, and leaves directories and files as jobs.
    fn list(&mut self, directory: Arc<OpenDirectory>) -> Done {
        let reader = self.shared.reader;
        let listing =
            reader.read_dir(&directory.inode).map_err(|error| (directory.path.clone(), error.into()))?;
        let (mut files, mut jobs) = (Vec::new(), Vec::new());
        for entry in listing {
            let fail = |cause| (directory.path_of(&entry.name), cause);
            let inode = reader.inode(entry.reference).map_err(|error| fail(error.into()))?;
            match &inode.kind {
                InodeKind::Directory(_) => {
                    jobs.push(Job::Directory { parent: directory.clone(), name: entry.name, inode });
                }
                InodeKind::File(_) => files.push((entry.name, entry.reference, inode)),
                // An ordinary user cannot make them, and they have no effect on a mount without devices.
                InodeKind::CharDevice { .. } | InodeKind::BlockDevice { .. } => {}
                _ => self.small(&directory, &entry.name, entry.reference, &inode).map_err(fail)?,
            }
        }
        files.sort_by_key(|(_, _, inode)| place_of(inode));
        let mut run = Vec::new();
        let mut last = None;
        for file in files {
            let fragment = place_of(&file.2).0;
            let is_over = run.len() >= RUN_FILES && last != Some(fragment) || run.len() >= MAX_RUN_FILES;
            if is_over {
                jobs.push(Job::Files { parent: directory.clone(), files: std::mem::take(&mut run) });
            }
            last = Some(fragment);
            run.push(file);
        }
        if !run.is_empty() {
            jobs.push(Job::Files { parent: directory.clone(), files: run });
        }
        self.shared.push(jobs);
        self.release(directory)
    }

    /// A symbolic link, pipe or socket.
    fn small(&self, parent: &OpenDirectory, name: &[u8], reference: u64, inode: &Inode) -> Result<(), Cause> {
        let make = |directory: BorrowedFd<'_>, name: &[u8]| {
            let special =
                |kind| at::make_special(directory, name, kind, shown_permissions(inode), inode.mtime);
            match &inode.kind {
                InodeKind::Symlink(target) => at::make_link(directory, name, target, inode.mtime),
                InodeKind::Fifo => special(Special::Fifo),
                InodeKind::Socket => special(Special::Socket),
                _ => Err(Errno::EINVAL),
            }
        };
        self.made_once(parent, name, reference, inode, make)?;
        Ok(())
    }

    /// Makes a file, or gives it a further name where it is there already; `None` then.
    fn made_once<T>(
        &self,
        parent: &OpenDirectory,
        name: &[u8],
        reference: u64,
        inode: &Inode,
        make: impl FnOnce(BorrowedFd<'_>, &[u8]) -> sys::Result<T>,
    ) -> sys::Result<Option<T>> {
        if inode.link_count <= 1 {
            return make(parent.fd.as_fd(), name).map(Some);
        }
        let own = reference.to_string();
        let links = self.shared.links.as_fd();
        let mut linked = self.shared.linked.lock().unwrap_or_else(PoisonError::into_inner);
        let made = if linked.insert(reference) { Some(make(links, own.as_bytes())?) } else { None };
        drop(linked);
        at::link((links, own.as_bytes()), (parent.fd.as_fd(), name))?;
        Ok(made)
    }

    fn file(&mut self, parent: &OpenDirectory, name: &[u8], reference: u64, inode: Inode) -> Done {
        let path = parent.path_of(name);
        let InodeKind::File(data) = &inode.kind else { return Ok(()) };
        let data = data.clone();
        let made = self.made_once(parent, name, reference, &inode, at::create_file);
        let Some(file) = made.map_err(|errno| (path.clone(), errno.into()))? else { return Ok(()) };
        let file = OpenFile { file, size_bytes: data.size_bytes, inode, path };
        match self.content(&file, &data) {
            Err(cause) => Err((file.path, cause)),
            Ok(pieces) if pieces.is_empty() => self.finish_file(&file),
            Ok(pieces) => {
                let file = Arc::new(file);
                let job = |blocks: &[_]| Job::Piece { file: file.clone(), blocks: blocks.to_vec() };
                self.shared.push(pieces.chunks(PIECE_BLOCKS).map(job));
                self.release_file(file)
            }
        }
    }

    /// Writes a small file; of a large one the tail, and gives its blocks.
    fn content(&mut self, file: &OpenFile, data: &FileData) -> Result<Vec<(u64, BlockPlace)>, Cause> {
        let reader = self.shared.reader;
        let block_bytes = u64::from(reader.superblock().block_bytes);
        let blocks = if data.block_count == 0 { Vec::new() } else { reader.stored_blocks(data)? };
        let start = data.block_count.saturating_mul(block_bytes);
        let mut reaches_end = blocks.last().is_some_and(|(number, _)| number + 1 == data.block_count);
        if start < data.size_bytes {
            let length = usize::try_from(data.size_bytes - start).unwrap_or(usize::MAX);
            self.tail(file, data, start, length)?;
            reaches_end = true;
        }
        if !reaches_end {
            // It ends with a hole.
            file.file.set_len(data.size_bytes)?;
        }
        if blocks.len() > PIECE_BLOCKS {
            return Ok(blocks);
        }
        self.piece(file, &blocks)?;
        Ok(Vec::new())
    }

    fn tail(&mut self, file: &OpenFile, data: &FileData, start: u64, length: usize) -> Result<(), Cause> {
        let reader = self.shared.reader;
        let (place, offset) = reader.tail(data)?;
        let mut kept = match self.fragment.take() {
            Some((at, bytes)) if at == place => bytes,
            other => {
                let mut bytes = other.map(|(_, bytes)| bytes).unwrap_or_default();
                reader.read_block_into(place, block_length(reader), &mut bytes)?;
                bytes
            }
        };
        let bytes = kept.get(offset..).and_then(|rest| rest.get(..length)).ok_or_else(|| damaged(place));
        let result = bytes.map_err(Cause::from).and_then(|bytes| self.write(file, bytes, start));
        self.fragment = Some((place, std::mem::take(&mut kept)));
        result
    }

    fn piece(&mut self, file: &OpenFile, blocks: &[(u64, BlockPlace)]) -> Result<(), Cause> {
        let reader = self.shared.reader;
        let block_bytes = u64::from(reader.superblock().block_bytes);
        let mut block = std::mem::take(&mut self.block);
        for (number, place) in blocks {
            let start = number.saturating_mul(block_bytes);
            let left = file.size_bytes.saturating_sub(start).min(block_bytes);
            let length = usize::try_from(left).unwrap_or(usize::MAX);
            reader.read_block_into(*place, length, &mut block)?;
            if block.len() != length {
                return Err(damaged(*place).into());
            }
            self.write(file, &block, start)?;
        }
        self.block = block;
        Ok(())
    }

    fn write(&self, file: &OpenFile, bytes: &[u8], start: u64) -> Result<(), Cause> {
        file.file.write_all_at(bytes, start)?;
        self.shared.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Gives up a directory, and finishes it if nothing more will be made in it.
    fn release(&self, directory: Arc<OpenDirectory>) -> Done {
        let Some(directory) = Arc::into_inner(directory) else { return Ok(()) };
        let OpenDirectory { fd, inode, path } = directory;
        self.finish(fd, &inode, shown_permissions(&inode)).map_err(|cause| (path, cause))
    }

    fn release_file(&self, file: Arc<OpenFile>) -> Done {
        Arc::into_inner(file).map_or(Ok(()), |file| self.finish_file(&file))
    }

    fn finish_file(&self, file: &OpenFile) -> Done {
        let mode = shown_permissions(&file.inode) & !SET_IDS;
        self.finish(&file.file, &file.inode, mode).map_err(|cause| (file.path.clone(), cause))
    }

    /// Attributes, mode and time, in this order: a mode may forbid attributes, and they change no time.
    fn finish(&self, fd: impl std::os::fd::AsFd, inode: &Inode, mode: u32) -> Result<(), Cause> {
        if inode.xattr.is_some() {
            let mut lacks = false;
            for (name, value) in self.shared.reader.xattrs(inode)? {
                if name.starts_with(b"user.") {
                    match at::set_xattr(&fd, &name, &value) {
                        // What a file system does not know, or has no room for in a file's attributes.
                        Err(Errno::ENOTSUP | Errno::ENOSPC | Errno::E2BIG | Errno::ERANGE) => lacks = true,
                        other => other?,
                    }
                }
            }
            self.shared.without_xattrs.fetch_add(lacks.into(), Ordering::Relaxed);
        }
        at::finish(&fd, mode, inode.mtime)?;
        Ok(())
    }
}

/// Where a file's bytes lie: the fragment block with its end, and the place in it; or its first block.
fn place_of(inode: &Inode) -> (Option<u32>, u64) {
    match &inode.kind {
        InodeKind::File(FileData { fragment: Some(fragment), .. }) => {
            (Some(fragment.index), fragment.offset.into())
        }
        InodeKind::File(data) => (None, data.start),
        _ => (None, 0),
    }
}

fn block_length(reader: &Reader) -> usize {
    usize::try_from(reader.superblock().block_bytes).unwrap_or(usize::MAX)
}

fn damaged(place: BlockPlace) -> ReadError {
    let reason = "is shorter than the file that it belongs to";
    ReadError::Damaged { what: "data block", offset: place.offset, reason }
}
