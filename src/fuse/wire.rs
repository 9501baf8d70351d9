//! The kernel's side of the talk: requests as bytes, answers as bytes. linux/fuse.h, protocol 7.26 to 7.31 and later.
//!
//! ```text
//! request  len:4 opcode:4 unique:8 nodeid:8 uid:4 gid:4 pid:4 extlen:2 pad:2 | body
//! answer   len:4 error:4 unique:8                                           | body
//! ```

use crate::sys::Errno;

/// Bytes of a request's header.
const REQUEST_HEADER_BYTES: usize = 40;
/// Bytes of an answer's header.
pub(super) const ANSWER_HEADER_BYTES: usize = 16;
/// Protocol version that we speak: 7.31 has all that we use. The kernel takes the lower of the two minors.
pub(super) const MAJOR: u32 = 7;
pub(super) const MINOR: u32 = 31;
/// Oldest that we take: Linux 4.18, our oldest kernel, has 7.27.
pub(super) const OLDEST_MINOR: u32 = 26;
/// How long the kernel may keep names and attributes, in seconds: the image never changes.
const FOREVER_SECONDS: u64 = 1 << 32;

/// What the kernel can ask.
pub(super) mod opcode {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const READDIRPLUS: u32 = 44;
    pub(in super::super) const RENAME2: u32 = 45;
}

/// Flags of INIT.
pub(super) mod init {
    /// Several reads of one file at a time.
    pub(in super::super) const ASYNC_READ: u32 = 1 << 0;
    /// Attributes with the names of a directory.
    pub(in super::super) const DO_READDIRPLUS: u32 = 1 << 13;
    /// … where the kernel thinks that they will be wanted.
    pub(in super::super) const READDIRPLUS_AUTO: u32 = 1 << 14;
    /// Said by the kernel: OPEN may be answered with ENOSYS.
    pub(in super::super) const NO_OPEN_SUPPORT: u32 = 1 << 17;
    /// Several lookups in one directory at a time.
    pub(in super::super) const PARALLEL_DIROPS: u32 = 1 << 18;
    /// Reads of more than 32 pages.
    pub(in super::super) const MAX_PAGES: u32 = 1 << 22;
    /// Link targets stay in the page cache.
    pub(in super::super) const CACHE_SYMLINKS: u32 = 1 << 23;
    /// Said by the kernel: OPENDIR may be answered with ENOSYS (5.1).
    pub(in super::super) const NO_OPENDIR_SUPPORT: u32 = 1 << 24;
    /// Said by the kernel: there is a second word of flags (5.17).
    pub(in super::super) const INIT_EXT: u32 = 1 << 30;
    /// Said by the kernel, in the second word: requests of a dead server can be had again (6.9).
    pub(in super::super) const EXT_HAS_RESEND: u32 = 1 << (39 - 32);
}

/// Flags of an answer to OPEN and OPENDIR: pages stay valid, and so do the names of a directory (7.28).
pub(super) const OPEN_KEEP_CACHE: u32 = 1 << 1;
pub(super) const OPEN_CACHE_DIR: u32 = 1 << 3;

/// A request, its header taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) node_id: u64,
    pub(super) body: &'a [u8],
}

impl<'a> Request<'a> {
    /// `None` if the bytes are no whole request.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let body = bytes.get(REQUEST_HEADER_BYTES..)?;
        if usize::try_from(u32_at(bytes, 0)?).ok()? != bytes.len() {
            return None;
        }
        Some(Self { opcode: u32_at(bytes, 4)?, unique: u64_at(bytes, 8)?, node_id: u64_at(bytes, 16)?, body })
    }

    /// A 32-bit field of the body.
    pub(super) fn u32(&self, at: usize) -> Result<u32, Errno> {
        u32_at(self.body, at).ok_or(Errno::EINVAL)
    }

    /// A 64-bit field of the body.
    pub(super) fn u64(&self, at: usize) -> Result<u64, Errno> {
        u64_at(self.body, at).ok_or(Errno::EINVAL)
    }

    /// The name that begins at `at` in the body and ends with a NUL.
    pub(super) fn name(&self, at: usize) -> Result<&'a [u8], Errno> {
        let rest = self.body.get(at..).ok_or(Errno::EINVAL)?;
        rest.split(|byte| *byte == 0).next().filter(|name| name.len() < rest.len()).ok_or(Errno::EINVAL)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

/// The header of an answer with `body_bytes` behind it.
pub(super) fn answer_header(unique: u64, error: i32, body_bytes: usize) -> [u8; ANSWER_HEADER_BYTES] {
    let length = u32::try_from(ANSWER_HEADER_BYTES + body_bytes).unwrap_or(u32::MAX);
    let mut header = [0; ANSWER_HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

/// The beginning of a message that gives the kernel content of a file unasked (`FUSE_NOTIFY_STORE`): `size_bytes` of it,
/// from `offset` on, follow.
pub(super) fn store_notice(
    node_id: u64,
    offset: u64,
    size_bytes: u32,
) -> ([u8; ANSWER_HEADER_BYTES], [u8; 24]) {
    const FUSE_NOTIFY_STORE: i32 = 4;
    let mut out = [0; 24];
    out[..8].copy_from_slice(&node_id.to_ne_bytes());
    out[8..16].copy_from_slice(&offset.to_ne_bytes());
    out[16..20].copy_from_slice(&size_bytes.to_ne_bytes());
    let length = usize::try_from(size_bytes).unwrap_or(usize::MAX).saturating_add(out.len());
    (answer_header(0, FUSE_NOTIFY_STORE, length), out)
}

/// The message that has the kernel hand out again what was read and not answered (`FUSE_NOTIFY_RESEND`).
pub(super) fn resend_notice() -> [u8; ANSWER_HEADER_BYTES] {
    const FUSE_NOTIFY_RESEND: i32 = 7;
    answer_header(0, FUSE_NOTIFY_RESEND, 0)
}

/// The message that has the kernel forget the attributes and the listing of a directory (`FUSE_NOTIFY_INVAL_INODE`).
pub(super) fn forget_listing_notice(directory: u64) -> Vec<u8> {
    const FUSE_NOTIFY_INVAL_INODE: i32 = 2;
    // struct fuse_notify_inval_inode_out: node, offset, length; -1 is all.
    let body = [directory.to_ne_bytes(), 0_i64.to_ne_bytes(), (-1_i64).to_ne_bytes()].concat();
    [answer_header(0, FUSE_NOTIFY_INVAL_INODE, body.len()).as_slice(), &body].concat()
}

/// The message that has the kernel forget that a name is not there (`FUSE_NOTIFY_INVAL_ENTRY`).
pub(super) fn forget_name_notice(directory: u64, name: &[u8]) -> Vec<u8> {
    const FUSE_NOTIFY_INVAL_ENTRY: i32 = 3;
    // struct fuse_notify_inval_entry_out: directory, length of the name, flags; then the name and a NUL.
    let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let body = [&directory.to_ne_bytes(), length.to_ne_bytes().as_slice(), &[0; 4], name, &[0]].concat();
    [answer_header(0, FUSE_NOTIFY_INVAL_ENTRY, body.len()).as_slice(), &body].concat()
}

/// What the kernel is told about an inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attr {
    pub(super) number: u64,
    pub(super) size_bytes: u64,
    pub(super) mtime: u32,
    /// Kind and permissions.
    pub(super) mode: u32,
    pub(super) link_count: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) device: u32,
}

/// Preferred size of reads, in bytes: a data block of the images that we write.
const BLOCK_BYTES: u32 = 128 * 1024;

fn put_words(out: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        out.extend_from_slice(&word.to_ne_bytes());
    }
}

fn put_longs(out: &mut Vec<u8>, longs: &[u64]) {
    for long in longs {
        out.extend_from_slice(&long.to_ne_bytes());
    }
}

/// `struct fuse_attr`
fn put_attr(out: &mut Vec<u8>, attr: &Attr) {
    let time = u64::from(attr.mtime);
    put_longs(out, &[attr.number, attr.size_bytes, attr.size_bytes.div_ceil(512), time, time, time]);
    let no_nanoseconds = [0; 3];
    put_words(out, &no_nanoseconds);
    put_words(out, &[attr.mode, attr.link_count, attr.uid, attr.gid, attr.device, BLOCK_BYTES, 0]);
}

/// `struct fuse_entry_out`
pub(super) fn put_entry(out: &mut Vec<u8>, node_id: u64, attr: &Attr) {
    put_longs(out, &[node_id, 0, FOREVER_SECONDS, FOREVER_SECONDS]);
    put_words(out, &[0, 0]);
    put_attr(out, attr);
}

/// Bytes of `struct fuse_entry_out`.
const ENTRY_BYTES: usize = 128;

/// `struct fuse_entry_out` for a name that does not exist, which the kernel may remember.
pub(super) fn put_absent_entry(out: &mut Vec<u8>) {
    let start = out.len();
    put_longs(out, &[0, 0, FOREVER_SECONDS]);
    out.resize(start + ENTRY_BYTES, 0);
}

/// `struct fuse_attr_out`
pub(super) fn put_attr_answer(out: &mut Vec<u8>, attr: &Attr) {
    put_longs(out, &[FOREVER_SECONDS]);
    put_words(out, &[0, 0]);
    put_attr(out, attr);
}

/// `struct fuse_open_out`
pub(super) fn put_open(out: &mut Vec<u8>, flags: u32) {
    put_longs(out, &[0]);
    put_words(out, &[flags, 0]);
}

/// `struct fuse_init_out`
pub(super) fn put_init(out: &mut Vec<u8>, minor: u32, max_readahead: u32, flags: u32) {
    /// Requests that the kernel may have in flight without anyone waiting for them; its default is 12.
    const MAX_BACKGROUND: u32 = 256;
    /// … and from where on it tells the writers of its own side to slow down.
    const CONGESTION: u32 = 192;
    /// The smallest that the kernel takes; nobody writes here.
    const MAX_WRITE_BYTES: u32 = 4096;
    /// Largest read, in pages.
    const MAX_PAGES: u32 = 256;
    put_words(out, &[MAJOR, minor, max_readahead, flags]);
    put_halves(out, [MAX_BACKGROUND, CONGESTION]);
    put_words(out, &[MAX_WRITE_BYTES, 1]);
    put_halves(out, [MAX_PAGES, 0]);
    put_words(out, &[0; 8]);
}

fn put_halves(out: &mut Vec<u8>, halves: [u32; 2]) {
    for half in halves {
        out.extend_from_slice(&u16::try_from(half).unwrap_or(u16::MAX).to_ne_bytes());
    }
}

/// `struct fuse_statfs_out` of a full file system.
pub(super) fn put_statfs(out: &mut Vec<u8>, blocks: u64, block_bytes: u32, files: u64) {
    const NAME_MAX: u32 = 255;
    put_longs(out, &[blocks, 0, 0, files, 0]);
    put_words(out, &[block_bytes, NAME_MAX, block_bytes, 0, 0, 0, 0, 0, 0, 0]);
}

/// `struct fuse_getxattr_out`
pub(super) fn put_xattr_size(out: &mut Vec<u8>, size: u32) {
    put_words(out, &[size, 0]);
}

/// A name for an answer to READDIR or READDIRPLUS.
pub(super) struct Dirent<'a> {
    pub(super) name: &'a [u8],
    pub(super) number: u64,
    /// Where to go on behind it.
    pub(super) next: u64,
    /// Kind as in a mode.
    pub(super) kind: u32,
    /// For READDIRPLUS: the node and its attributes; `None` for `.` and `..`, which the kernel knows.
    pub(super) plus: Option<Option<(u64, Attr)>>,
}

/// Appends `struct fuse_dirent` or `fuse_direntplus`; `false` if that would make `out` longer than `limit`.
pub(super) fn put_dirent(out: &mut Vec<u8>, entry: &Dirent<'_>, limit: usize) -> bool {
    const DIRENT_BYTES: usize = 24;
    let plus_bytes = if entry.plus.is_some() { ENTRY_BYTES } else { 0 };
    let length = plus_bytes + (DIRENT_BYTES + entry.name.len()).next_multiple_of(8);
    let end = out.len() + length;
    if end > limit {
        return false;
    }
    match &entry.plus {
        Some(Some((node_id, attr))) => put_entry(out, *node_id, attr),
        Some(None) => out.resize(out.len() + ENTRY_BYTES, 0),
        None => {}
    }
    put_longs(out, &[entry.number, entry.next]);
    let name_bytes = u32::try_from(entry.name.len()).unwrap_or(0);
    put_words(out, &[name_bytes, entry.kind >> 12]);
    out.extend_from_slice(entry.name);
    out.resize(end, 0);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTR: Attr = Attr {
        number: 5,
        size_bytes: 1000,
        mtime: 7,
        mode: 0o100_644,
        link_count: 1,
        uid: 10,
        gid: 20,
        device: 0,
    };

    fn size(put: impl FnOnce(&mut Vec<u8>)) -> usize {
        let mut out = Vec::new();
        put(&mut out);
        out.len()
    }

    #[test]
    fn answers_have_the_sizes_of_the_kernel() {
        assert_eq!(size(|out| put_entry(out, 1, &ATTR)), 128);
        assert_eq!(size(put_absent_entry), 128);
        assert_eq!(size(|out| put_attr_answer(out, &ATTR)), 104);
        assert_eq!(size(|out| put_open(out, 0)), 16);
        assert_eq!(size(|out| put_init(out, 31, 0, 0)), 64);
        assert_eq!(size(|out| put_statfs(out, 1, 1, 1)), 80);
        assert_eq!(size(|out| put_xattr_size(out, 1)), 8);
    }

    #[test]
    fn directory_entries_are_padded_and_stop_at_the_limit() {
        let mut out = Vec::new();
        let mut entry = Dirent { name: b"abc", number: 3, next: 4, kind: 0o40_000, plus: None };
        assert!(put_dirent(&mut out, &entry, 32));
        assert_eq!(out.len(), 32);
        assert_eq!(out[20], 4, "DT_DIR");
        assert!(!put_dirent(&mut out, &entry, 63));
        entry.plus = Some(Some((9, ATTR)));
        assert!(put_dirent(&mut out, &entry, 192));
        assert_eq!(out.len(), 192);
    }

    #[test]
    fn takes_whole_requests_only() {
        let mut bytes = vec![0; 46];
        bytes[..4].copy_from_slice(&46_u32.to_ne_bytes());
        bytes[4] = 1;
        bytes[40..].copy_from_slice(b"name\0x");
        let request = Request::parse(&bytes).unwrap();
        assert_eq!(
            (request.opcode, request.name(0), request.name(5)),
            (1, Ok(b"name".as_slice()), Err(Errno::EINVAL))
        );
        assert_eq!(request.u32(2), Ok(u32::from_ne_bytes(*b"me\0x")));
        assert_eq!((request.u32(3), request.name(7)), (Err(Errno::EINVAL), Err(Errno::EINVAL)));
        assert!(Request::parse(&bytes[..45]).is_none());
        assert!(Request::parse(&bytes[..39]).is_none());
        assert!(Request::parse(&[]).is_none());
    }
}
