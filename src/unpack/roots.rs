//! The directory of all trees of a user on this node: who unpacks, who waits, who holds.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::{Digest, Hint as _, ReadAt};
use crate::host::own_directory;
use crate::image::Image;
use crate::squashfs::read::Reader;
use crate::sys::file::{self, Sharing};
use crate::sys::ns::SingleThreaded;
use crate::sys::process::{self, WaitableChildren};
use crate::sys::{at, to_errno};

use super::error::UnpackError;
use super::measure::measure;
use super::tree::{Cause, Written, write_tree};

/// Memory for decompressed metadata, in bytes: all of an image with some 300,000 files.
const METADATA_BYTES: usize = 16 << 20;
/// Longest answer of the process that unpacks, in bytes: an error with its hint.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// What stands behind a tree's name while it is made or removed.
pub(super) const LOCK: &str = ".lock";
pub(super) const NEW: &str = ".new";
pub(super) const LINKS: &str = ".links";
pub(super) const OLD: &str = ".old";

/// Where trees are unpacked unless the configuration says otherwise: the job's own directory on the node's disk, else `/tmp`.
#[must_use]
pub fn default_base(env: &BTreeMap<OsString, OsString>) -> PathBuf {
    let named = ["SLURM_TMPDIR", "TMPDIR"].into_iter().filter_map(|name| env.get(OsStr::new(name)));
    let fits = |path: &PathBuf| path.is_absolute() && path.is_dir() && !at::is_shared_between_machines(path);
    named.map(PathBuf::from).find(fits).unwrap_or_else(|| "/tmp".into())
}

/// A key for an image that is not in a store: equal as long as nobody has touched the file.
pub fn key_of_file(image: &Image) -> io::Result<String> {
    let identity = format!("{}@{}+{}", image.file.identity(), image.offset_bytes, image.size_bytes);
    Ok(format!("file-{}", Digest::of(identity.as_bytes()).hex()))
}

/// Where the tree of an image is, or would be.
#[must_use]
pub fn place(base: &Path, key: &str) -> PathBuf {
    roots_below(base).join(name_of(&boot(), key))
}

fn roots_below(base: &Path) -> PathBuf {
    let (uid, _) = process::own_ids();
    base.join(format!("slipway-{uid}")).join("roots")
}

fn name_of(boot: &str, key: &str) -> String {
    format!("{boot}.{key}")
}

/// This boot in eight digits.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut digits: String = id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    while digits.len() < 8 {
        digits.push('0');
    }
    digits
}

/// All trees of the user on this node.
#[derive(Debug)]
pub struct Roots {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
    pub(super) boot: String,
}

/// One image to be unpacked.
pub struct Unpacking<'a> {
    /// Its file, for messages.
    pub image: &'a Path,
    /// The squashfs.
    pub partition: Arc<dyn ReadAt>,
    /// What names its tree: lower-case letters, digits and `-`.
    pub key: &'a str,
    /// How many threads.
    pub threads: usize,
    /// Other trees go when nobody has used them for so long.
    pub keep: Duration,
}

impl std::fmt::Debug for Unpacking<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacking")
            .field("image", &self.image)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A tree that stays as long as this is held. The fd is closed by exec; then the mount keeps the tree.
#[derive(Debug)]
pub struct Lease {
    lock: File,
    /// The tree.
    pub path: PathBuf,
    /// What was written, if this call has unpacked it.
    pub written: Option<Written>,
}

impl Lease {
    /// The fd that holds it.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

/// What the process that unpacks says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done(Written),
    Failed { message: String, hint: Option<String> },
}

impl Roots {
    /// Opens the directory below `base`, and makes it where it is missing; only the user may enter it.
    pub fn open(base: &Path) -> Result<Self, UnpackError> {
        let path = roots_below(base);
        for directory in path.parent().into_iter().chain([path.as_path()]) {
            own_directory(directory).map_err(|source| UnpackError::Directory { source })?;
        }
        Self::open_at(path)
    }

    /// The same where it is there; nothing is made.
    #[must_use]
    pub fn find(base: &Path) -> Option<Self> {
        let path = roots_below(base);
        let is_ours = path.parent().is_some_and(crate::host::is_own_directory);
        (is_ours && crate::host::is_own_directory(&path)).then(|| Self::open_at(path).ok()).flatten()
    }

    fn open_at(path: PathBuf) -> Result<Self, UnpackError> {
        let fd = at::open_path(&path).map_err(UnpackError::place("open", &path))?;
        Ok(Self { path, fd, boot: boot() })
    }

    /// Holds an image's tree, which is unpacked first if it is not there. Of several callers one unpacks, and the others wait.
    pub fn take(&self, work: &Unpacking<'_>, witness: &SingleThreaded) -> Result<Lease, UnpackError> {
        let name = name_of(&self.boot, work.key);
        let path = self.path.join(&name);
        let mut written = None;
        loop {
            let lock = self.open_lock(&name)?;
            let locked = |sharing| {
                file::lock(lock.as_fd(), sharing).map_err(UnpackError::place("lock", &self.lock_path(&name)))
            };
            locked(Sharing::Together)?;
            if self.is_current(&lock, &name) && !path.is_dir() {
                // The shared lock is given up for it: somebody else may unpack or remove meanwhile.
                locked(Sharing::Alone)?;
                if self.is_current(&lock, &name) && !path.is_dir() {
                    let result = self.unpack_in_child(work, &name, witness);
                    if result.is_err() {
                        // The error that is told is the first one. Those who wait for this lock make their own.
                        let _ = self.clear(&name);
                        let _ = fs::remove_file(self.lock_path(&name));
                    }
                    written = Some(result?);
                }
                locked(Sharing::Together)?;
            }
            if self.is_current(&lock, &name) && path.is_dir() {
                at::touch(&lock).map_err(UnpackError::place("touch", &self.lock_path(&name)))?;
                return Ok(Lease { lock, path, written });
            }
        }
    }

    pub(super) fn lock_path(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{LOCK}"))
    }

    pub(super) fn open_lock(&self, name: &str) -> Result<File, UnpackError> {
        let path = self.lock_path(name);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(file::NO_FOLLOW);
        options.open(&path).map_err(|error| UnpackError::Place { act: "open", path, errno: to_errno(error) })
    }

    /// Whether a lock's file still has its name: whoever removes a tree removes that too.
    pub(super) fn is_current(&self, lock: &File, name: &str) -> bool {
        let named = fs::symlink_metadata(self.lock_path(name)).map(|facts| (facts.dev(), facts.ino())).ok();
        named.is_some() && named == lock.metadata().map(|facts| (facts.dev(), facts.ino())).ok()
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), UnpackError> {
        let path = self.path.join(name);
        at::remove_tree(self.fd.as_fd(), name.as_bytes()).map_err(UnpackError::place("remove", &path))
    }

    /// Removes the parts of a tree that is being made or removed; the caller has its lock alone.
    pub(super) fn clear(&self, name: &str) -> Result<(), UnpackError> {
        [NEW, LINKS, OLD].into_iter().try_for_each(|suffix| self.remove(&format!("{name}{suffix}")))
    }

    fn unpack_in_child(
        &self,
        work: &Unpacking<'_>,
        name: &str,
        witness: &SingleThreaded,
    ) -> Result<Written, UnpackError> {
        let failed = |how: String| UnpackError::Child { image: work.image.to_path_buf(), how };
        let not_started = |why: &dyn std::fmt::Display| failed(format!("cannot be started: {why}"));
        let (mut answers, theirs) = io::pipe().map_err(|error| not_started(&error))?;
        let _waitable = WaitableChildren::new().map_err(|errno| not_started(&errno))?;
        let mut theirs = Some(theirs);
        let child = process::fork_child(witness, || {
            process::set_name(c"slipway-unpack");
            let Some(mut answers) = theirs.take() else { return 1 };
            let answer = match self.unpack(work, name) {
                Ok(written) => Answer::Done(written),
                Err(error) => Answer::Failed { message: error.to_string(), hint: error.hint() },
            };
            let text = serde_json::to_vec(&answer).unwrap_or_default();
            i32::from(answers.write_all(&text).is_err())
        })
        .map_err(|errno| not_started(&errno))?;
        drop(theirs);
        let mut text = Vec::new();
        // Without an answer the end of the child tells more.
        let _ = answers.by_ref().take(MAX_ANSWER_BYTES).read_to_end(&mut text);
        let status =
            process::wait(child).map_err(|errno| failed(format!("cannot be waited for: {errno}")))?;
        match serde_json::from_slice(&text) {
            Ok(Answer::Done(written)) => Ok(written),
            Ok(Answer::Failed { message, hint }) => Err(UnpackError::Told { message, hint }),
            Err(_) => Err(failed(match status.checked_sub(128) {
                Some(signal) if signal > 0 => format!("was ended by signal {signal}"),
                _ => format!("has ended with status {status}"),
            })),
        }
    }

    /// Makes a tree that is not there; the caller has the lock alone.
    pub(super) fn unpack(&self, work: &Unpacking<'_>, name: &str) -> Result<Written, UnpackError> {
        let part = |suffix: &str| format!("{name}{suffix}");
        // A killed process may have left a part.
        self.clear(name)?;
        // What cannot be removed now can be later.
        let _ = self.remove_unused(work.keep);
        let image = work.image.to_path_buf();
        let fault = |path, source| UnpackError::Read { image: image.clone(), path, source };
        let reader = Reader::open_with_memory(work.partition.clone(), METADATA_BYTES);
        let reader = reader.map_err(|source| fault(String::new(), source))?;
        let need_bytes = self.find_room(work, &reader)?;
        let links = at::make_directory(self.fd.as_fd(), part(LINKS).as_bytes())
            .map_err(UnpackError::place("create", &self.path.join(part(LINKS))))?;
        let new = part(NEW);
        let result = write_tree(&reader, self.fd.as_fd(), new.as_bytes(), links, work.threads);
        let written = result.map_err(|found| match found.cause {
            Cause::Read(source) => fault(found.path, source),
            Cause::Write(errno) => UnpackError::Write {
                image: image.clone(),
                directory: self.path.clone(),
                path: found.path,
                done_bytes: found.done_bytes,
                need_bytes,
                errno,
            },
        });
        if written.is_err() {
            // Here too: the caller may have been killed. The error that is told is the first one.
            let _ = self.clear(name);
        }
        let written = written?;
        self.remove(&part(LINKS))?;
        at::rename(self.fd.as_fd(), new.as_bytes(), name.as_bytes())
            .map_err(UnpackError::place("rename", &self.path.join(&new)))?;
        Ok(written)
    }

    /// Sees to it that there is room, if need be by removing trees that nobody uses; gives what the tree takes, in bytes.
    fn find_room(&self, work: &Unpacking<'_>, reader: &Reader) -> Result<u64, UnpackError> {
        let room = || at::room(&self.fd).map_err(UnpackError::place("look at", &self.path));
        let mut have = room()?;
        let needs = measure(reader, have.block_bytes).map_err(|(path, source)| UnpackError::Read {
            image: work.image.to_path_buf(),
            path,
            source,
        })?;
        let fits = |have: &at::Room| {
            needs.bytes <= have.bytes && have.files.is_none_or(|free_files| needs.files <= free_files)
        };
        if !fits(&have) {
            // What cannot be removed leaves too little room, and that is told.
            let _ = self.remove_unused(Duration::ZERO);
            have = room()?;
        }
        if fits(&have) {
            return Ok(needs.bytes);
        }
        let (image, directory) = (work.image.to_path_buf(), self.path.clone());
        Err(match have.files.filter(|_| needs.bytes <= have.bytes) {
            Some(free_files) => {
                UnpackError::TooManyFiles { image, directory, need_files: needs.files, free_files }
            }
            None => UnpackError::NoRoom { image, directory, need_bytes: needs.bytes, free_bytes: have.bytes },
        })
    }
}
