//! The loop of one server thread, and the answer to each request.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::content::{Content, Piece, to_parts};
use super::follow::Follower;
use super::nodes::{Named, Node, Nodes};
use super::report;
use super::stats::Count;
use super::wire::{self, Dirent, Request, init, opcode};
use crate::base::tree::Xattrs;
use crate::squashfs::format::{Superblock, limits::MAX_NAME_BYTES};
use crate::squashfs::read::{Inode, InodeKind, ReadError};
use crate::sys::{Errno, access, fuse_dev, process};

/// Room for one request. The kernel demands 8 KiB (`FUSE_MIN_READ_BUFFER`) and fills more with forgotten nodes only.
const REQUEST_BYTES: usize = 64 * 1024;
/// Most that one answer to READDIR or READDIRPLUS holds, in bytes; the kernel asks for a page or a few.
const MAX_LISTING_BYTES: u32 = 1 << 20;
/// Largest read-ahead that we ask for, in bytes. The kernel gives less (128 KiB in a user namespace).
const MAX_READAHEAD_BYTES: u32 = 1 << 20;

/// What all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) nodes: Nodes,
    pub(super) content: Arc<Content>,
    /// Gives before it is asked, if that is wanted.
    pub(super) follower: Option<Follower>,
    pub(super) superblock: Superblock,
    /// Every node is shown as owned by this user and group.
    pub(super) owner: (u32, u32),
    /// Answer OPEN and OPENDIR with ENOSYS where the kernel says that it understands.
    pub(super) no_open: bool,
    /// What the kernel said at INIT.
    pub(super) kernel_flags: AtomicU32,
    /// The kernel can hand out again what a dead server has left.
    pub(super) kernel_resends: AtomicBool,
    /// Where reports go.
    pub(super) report_path: Option<PathBuf>,
}

/// What comes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The body or pieces that were written.
    Reply,
    /// The kernel waits for none.
    Silence,
}

/// The first requests are served by one thread: most of what `slipway run IMAGE true` needs is answered before another
/// thread could be started, and a process with one thread can still make a standby.
const FIRST_REQUESTS: u32 = 128;
/// Nobody asks for so long, in milliseconds: then there is time for both.
const FIRST_PAUSE_MS: u64 = 10;
/// So long the server looks again and again before it sleeps: in the beginning the next request comes at once, and to wake
/// takes longer than to answer it.
const FIRST_LOOK: Duration = Duration::from_micros(100);
/// … and after so long there is time for neither, and others wait.
const FIRST_MS: u128 = 50;

/// Why the first thread stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// The connection has ended.
    End,
    /// The beginning is over.
    Over,
}

/// What a thread needs to serve.
struct Desk {
    request: Vec<u8>,
    body: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Desk {
    fn new() -> Self {
        Self { request: vec![0; REQUEST_BYTES], body: Vec::new(), pieces: Vec::new() }
    }
}

/// Serves one device fd until the kernel ends the connection.
pub(super) fn serve(shared: &Shared, device: &OwnedFd) -> Result<(), Errno> {
    let mut desk = Desk::new();
    while shared.serve_one(device, &mut desk)? {}
    Ok(())
}

/// Serves the beginning. A start with a hot list is a long one, and its beginning ends when the kernel has said its first
/// words: each millisecond is one in which blocks could be unpacked. What a keeper wants is not for this thread: telling the
/// kernel of new names can wait for a directory's lock, whose holder waits for an answer from here. So it ends the beginning,
/// too.
pub(super) fn serve_first(
    shared: &Shared,
    device: &OwnedFd,
    control: Option<&OwnedFd>,
) -> Result<First, Errno> {
    let pause = Duration::from_millis(FIRST_PAUSE_MS);
    // Where there is one CPU, whoever would ask needs it.
    let looks = process::cpu_count() > 1;
    let mut desk = Desk::new();
    let start = Instant::now();
    let mut count = 0;
    while count < FIRST_REQUESTS {
        let knows_kernel = shared.kernel_flags.load(Ordering::Acquire) != 0;
        let control = control.filter(|_| knows_kernel).map(AsFd::as_fd);
        let waits_for = [Some(device.as_fd()), control];
        let mut found = [false, false];
        let since = Instant::now();
        while looks && found == [false, false] && since.elapsed() < FIRST_LOOK {
            found = access::wait_any(waits_for, Some(Duration::ZERO))?;
            std::thread::yield_now();
        }
        if found == [false, false] {
            found = access::wait_any(waits_for, Some(pause))?;
        }
        match found {
            [_, true] => break,
            [true, _] => {}
            // The kernel's first words are on their way.
            [false, false] if !knows_kernel => continue,
            [false, false] => break,
        }
        if !shared.serve_one(device, &mut desk)? {
            return Ok(First::End);
        }
        count += 1;
        if shared.content.has_hot() && shared.kernel_flags.load(Ordering::Acquire) != 0 {
            break;
        }
        if start.elapsed().as_millis() > FIRST_MS {
            break;
        }
    }
    Ok(First::Over)
}

impl Shared {
    /// Reads and answers one request; `false` at the end of the connection.
    fn serve_one(&self, device: &OwnedFd, desk: &mut Desk) -> Result<bool, Errno> {
        let Desk { request, body, pieces } = desk;
        let count = match fuse_dev::read_request(device, request) {
            Ok(0) | Err(Errno::ENODEV) => return Ok(false),
            Ok(count) => count,
            // ENOENT: the request was taken back (its caller got a signal) before it was read.
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOENT) => return Ok(true),
            Err(errno) => return Err(errno),
        };
        let Some(request) = request.get(..count).and_then(Request::parse) else { return Ok(true) };
        let start = Instant::now();
        body.clear();
        pieces.clear();
        // A bug of ours must cost its caller an error and not a process that waits for ever.
        let answer = catch_unwind(AssertUnwindSafe(|| self.answer(&request, body, pieces)));
        let stats = &self.content.stats;
        match answer.unwrap_or(Err(Errno::EIO)) {
            Ok(Answer::Silence) => {}
            Ok(Answer::Reply) => {
                if let Err(errno) = reply(device, request.unique, body, pieces) {
                    match errno {
                        Errno::ENODEV => return Ok(false),
                        // The caller is gone.
                        Errno::ENOENT | Errno::EINTR => {}
                        _ => refuse(device, request.unique, Errno::EIO),
                    }
                }
            }
            Err(errno) => {
                if errno == Errno::EIO {
                    stats.add(Count::Failures, 1);
                }
                refuse(device, request.unique, errno);
            }
        }
        stats.answered(request.opcode, start.elapsed());
        // Blocks are the cache's again.
        pieces.clear();
        Ok(true)
    }

    /// Writes what was counted to where the user wants it.
    pub(super) fn report(&self) {
        if let Some(path) = &self.report_path {
            report::write(path, &self.content.stats.report());
        }
    }
}

fn reply(device: &OwnedFd, unique: u64, body: &[u8], pieces: &[Piece]) -> Result<(), Errno> {
    let length = body.len() + pieces.iter().map(Piece::length).sum::<usize>();
    let header = wire::answer_header(unique, 0, length);
    fuse_dev::write_answer(device, &to_parts(&header, body, pieces))
}

fn refuse(device: &OwnedFd, unique: u64, errno: Errno) {
    let header = wire::answer_header(unique, -(errno as i32), 0);
    // It fails if the caller or the whole mount is gone; then nobody waits, and the next read tells.
    let _ = fuse_dev::write_answer(device, &[IoSlice::new(&header)]);
}

impl Shared {
    pub(super) fn answer(
        &self,
        request: &Request<'_>,
        body: &mut Vec<u8>,
        pieces: &mut Vec<Piece>,
    ) -> Result<Answer, Errno> {
        match request.opcode {
            // Nodes live as long as the server: there is nothing to forget. An interrupted read ends soon anyhow.
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => return Ok(Answer::Silence),
            opcode::INIT => self.init(request, body)?,
            opcode::LOOKUP => self.lookup(request, body)?,
            opcode::GETATTR => {
                let node = self.node(request)?;
                wire::put_attr_answer(body, &self.nodes.attr(request.node_id, &node, self.owner));
            }
            opcode::READLINK => match self.node(request)? {
                Node::Image(Inode { kind: InodeKind::Symlink(target), .. }) => {
                    body.extend_from_slice(&target)
                }
                _ => return Err(Errno::EINVAL),
            },
            opcode::OPEN => self.open(init::NO_OPEN_SUPPORT, wire::OPEN_KEEP_CACHE, body)?,
            opcode::OPENDIR => {
                let flags = wire::OPEN_KEEP_CACHE | wire::OPEN_CACHE_DIR;
                self.open(init::NO_OPENDIR_SUPPORT, flags, body)?;
            }
            opcode::READ => {
                let (offset, count) = (request.u64(8)?, request.u32(16)?);
                let file = self.nodes.file(request.node_id).map_err(unreadable)?.ok_or(Errno::EISDIR)?;
                self.content.read((request.node_id, &file), offset, count, pieces).map_err(|_| Errno::EIO)?;
                if let Some(follower) = &self.follower {
                    if offset == 0 {
                        follower.note(&self.nodes, request.node_id);
                    }
                    let block_bytes = self.superblock.block_bytes.into();
                    follower.note_part((request.node_id, &file), block_bytes, offset, pieces);
                }
            }
            opcode::READDIR => self.list(request, false, body)?,
            opcode::READDIRPLUS => self.list(request, true, body)?,
            opcode::STATFS => {
                let block_bytes = self.superblock.block_bytes;
                let blocks = self.superblock.bytes_used.div_ceil(block_bytes.into());
                wire::put_statfs(body, blocks, block_bytes, self.nodes.count());
            }
            opcode::GETXATTR => self.get_xattr(request, body)?,
            opcode::LISTXATTR => self.list_xattrs(request, body)?,
            opcode::RELEASE | opcode::RELEASEDIR | opcode::DESTROY => {}
            opcode::SETATTR
            | opcode::SYMLINK
            | opcode::MKNOD
            | opcode::MKDIR
            | opcode::UNLINK
            | opcode::RMDIR
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::LINK
            | opcode::WRITE
            | opcode::SETXATTR
            | opcode::REMOVEXATTR
            | opcode::CREATE
            | opcode::FALLOCATE => return Err(Errno::EROFS),
            // The kernel asks once for what it can do by itself (FLUSH, ACCESS, LSEEK, STATX …) and then no more.
            _ => return Err(Errno::ENOSYS),
        }
        Ok(Answer::Reply)
    }

    fn node(&self, request: &Request<'_>) -> Result<Node, Errno> {
        self.nodes.get(request.node_id).map_err(unreadable)
    }

    fn init(&self, request: &Request<'_>, body: &mut Vec<u8>) -> Result<(), Errno> {
        const WANTED: u32 = init::ASYNC_READ
            | init::DO_READDIRPLUS
            | init::READDIRPLUS_AUTO
            | init::PARALLEL_DIROPS
            | init::MAX_PAGES
            | init::CACHE_SYMLINKS;
        let (major, minor) = (request.u32(0)?, request.u32(4)?);
        let (max_readahead, flags) = (request.u32(8)?, request.u32(12)?);
        if major < wire::MAJOR || (major == wire::MAJOR && minor < wire::OLDEST_MINOR) {
            return Err(Errno::EPROTO);
        }
        // A kernel of a later major asks again with ours.
        self.kernel_flags.store(flags, Ordering::Release);
        let more_flags = if flags & init::INIT_EXT != 0 { request.u32(16)? } else { 0 };
        self.kernel_resends.store(more_flags & init::EXT_HAS_RESEND != 0, Ordering::Release);
        let ours = if major == wire::MAJOR { wire::MINOR.min(minor) } else { wire::MINOR };
        let (readahead, flags) = (max_readahead.min(MAX_READAHEAD_BYTES), flags & WANTED);
        wire::put_init(body, ours, readahead, flags);
        Ok(())
    }

    fn lookup(&self, request: &Request<'_>, body: &mut Vec<u8>) -> Result<(), Errno> {
        let name = request.name(0)?;
        if name.len() > MAX_NAME_BYTES {
            return Err(Errno::ENAMETOOLONG);
        }
        match self.nodes.lookup(request.node_id, name).map_err(unreadable)? {
            Some(id) => {
                let node = self.nodes.get(id).map_err(unreadable)?;
                wire::put_entry(body, id, &self.nodes.attr(id, &node, self.owner));
            }
            None => wire::put_absent_entry(body),
        }
        Ok(())
    }

    fn open(&self, kernel_can: u32, flags: u32, body: &mut Vec<u8>) -> Result<(), Errno> {
        if self.no_open && self.kernel_flags.load(Ordering::Acquire) & kernel_can != 0 {
            return Err(Errno::ENOSYS);
        }
        wire::put_open(body, flags);
        Ok(())
    }

    /// Names are counted: 1 is behind `.`, 2 behind `..`.
    fn list(&self, request: &Request<'_>, plus: bool, body: &mut Vec<u8>) -> Result<(), Errno> {
        let id = request.node_id;
        let node = self.node(request)?;
        let parent = self.nodes.parent_number(&node).map_err(unreadable)?.ok_or(Errno::ENOTDIR)?;
        let from = usize::try_from(request.u64(8)?).map_err(|_| Errno::EINVAL)?;
        let limit = request.u32(16)?.min(MAX_LISTING_BYTES) as usize;
        let dots = [(b".".as_slice(), self.nodes.number(id, &node), 1), (b"..", parent, 2)];
        for (name, number, next) in dots.into_iter().skip(from) {
            let kind = super::nodes::kind::DIRECTORY;
            let entry = Dirent { name, number, next, kind, plus: plus.then_some(None) };
            if !wire::put_dirent(body, &entry, limit) {
                return Ok(());
            }
        }
        let put = |at: usize, named: &Named<'_>| {
            let mut entry = Dirent {
                name: named.name,
                number: named.number,
                next: at as u64 + 3,
                kind: named.kind,
                plus: None,
            };
            if plus {
                // A damaged inode must not hide its neighbours: without attributes the kernel asks for it by name.
                let node = self.nodes.get(named.id).ok();
                entry.plus = Some(node.map(|node| (named.id, self.nodes.attr(named.id, &node, self.owner))));
            }
            Ok(wire::put_dirent(body, &entry, limit))
        };
        self.nodes.list(id, &node, from.saturating_sub(2), put).map_err(unreadable)
    }

    fn xattrs(&self, request: &Request<'_>) -> Result<Xattrs, Errno> {
        if self.nodes.lacks_xattrs() {
            return Err(Errno::ENOSYS);
        }
        self.nodes.xattrs(request.node_id).map_err(unreadable)
    }

    fn get_xattr(&self, request: &Request<'_>, body: &mut Vec<u8>) -> Result<(), Errno> {
        let (size, name) = (request.u32(0)?, request.name(8)?);
        let xattrs = self.xattrs(request)?;
        let (_, value) = xattrs.iter().find(|(found, _)| found == name).ok_or(Errno::ENODATA)?;
        put_sized(body, value, size)
    }

    fn list_xattrs(&self, request: &Request<'_>, body: &mut Vec<u8>) -> Result<(), Errno> {
        let size = request.u32(0)?;
        let mut list = Vec::new();
        for (name, _) in self.xattrs(request)? {
            list.extend_from_slice(&name);
            list.push(0);
        }
        put_sized(body, &list, size)
    }
}

/// The reason has nobody to go to.
fn unreadable(_: ReadError) -> Errno {
    Errno::EIO
}

/// Bytes for a caller who has room for `size`; 0 asks how many there are.
fn put_sized(body: &mut Vec<u8>, bytes: &[u8], size: u32) -> Result<(), Errno> {
    let length = u32::try_from(bytes.len()).map_err(|_| Errno::E2BIG)?;
    if size == 0 {
        wire::put_xattr_size(body, length);
    } else if size < length {
        return Err(Errno::ERANGE);
    } else {
        body.extend_from_slice(bytes);
    }
    Ok(())
}
