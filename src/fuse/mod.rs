//! Our FUSE server: a read-only squashfs served on `/dev/fuse` by several threads.
//!
//! An image never changes, so the kernel may remember for ever what it was told: a warm path sends no message at all.
//! Nothing is loaded before it is asked for, so a start does not wait for a large image. Data blocks are decompressed once
//! each, however many threads ask, and go from a bounded cache to the kernel without another copy.
//!
//! The server must not end before its mount does, whatever the image holds: a damaged block is EIO for who reads it.

mod answer;
mod buffers;
mod cache;
mod content;
mod control;
mod follow;
mod graft;
mod hot;
mod nodes;
mod prefetch;
mod report;
mod serve;
mod standby;
mod stats;
#[cfg(test)]
mod tests;
mod wire;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use crate::base::{Hint, ReadAt, RelPath};
use crate::squashfs::format::Superblock;
use crate::squashfs::read::{BlockPlace, Reader};
use crate::sys::{Errno, process, socket};

use content::Content;
use nodes::Nodes;
pub use nodes::shown_permissions;

pub use control::{DONE, GRAFT, MAX_MESSAGE_BYTES, decode_points, encode_points};

/// Memory for decompressed metadata, in bytes: all of an image with some 300,000 files.
const METADATA_BYTES: usize = 16 << 20;

/// What a synthesised mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyntheticKind {
    /// Empty directory.
    Directory,
    /// Empty file.
    File,
}

/// A mount point that the server shows although the image lacks it; missing parents are directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthetic {
    /// Place below the image's root, links resolved.
    pub path: RelPath,
    /// Directory or file.
    pub kind: SyntheticKind,
}

/// What to serve, and how.
pub struct ServerSpec {
    /// The squashfs.
    pub image: Arc<dyn ReadAt>,
    /// Mount points to add.
    pub synthetic: Vec<Synthetic>,
    /// Every file is shown as owned by this user.
    pub uid: u32,
    /// And this group.
    pub gid: u32,
    /// Memory for decompressed blocks, in bytes.
    pub cache_bytes: usize,
    /// Answer OPEN and OPENDIR with ENOSYS, so that the kernel stops asking.
    pub no_open: bool,
    /// What can be left as it is.
    pub tuning: Tuning,
}

/// Choices that do not change what is served.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    /// Keep a second process that takes over when this one is killed, where the kernel has FUSE_NOTIFY_RESEND (6.9) and
    /// this process has one thread when [`Server::run`] is called.
    pub standby: bool,
    /// Give files and rests of blocks before they are asked for (`fuse::follow`), where there is a standby. If server and
    /// standby are both killed at the wrong moment, the kernel can be left with a process that cannot end.
    pub push: bool,
    /// Tell the system that it need not keep what is read ahead from the image. It saves memory where this server is the
    /// only reader of the image on the node, and costs the others a second read where it is not.
    pub drop_packed: bool,
    /// The hot list: loaded early if it is there, and recorded if not.
    pub hot_list: Option<PathBuf>,
    /// Record the hot list although there is one.
    pub record_hot: bool,
    /// Where a report of the server's counters is added on SIGUSR1.
    pub report: Option<PathBuf>,
    /// Add one at the end, too.
    pub report_at_end: bool,
}

impl std::fmt::Debug for ServerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerSpec").field("synthetic", &self.synthetic).finish_non_exhaustive()
    }
}

/// Why an image cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The image is damaged.
    #[error(transparent)]
    Image(#[from] crate::squashfs::read::ReadError),
    /// A mount point does not fit what the image has.
    #[error("`/{target}` cannot be a mount point: the image has a {found} at `/{at}`")]
    Conflict {
        /// The mount point.
        target: RelPath,
        /// The place that is in its way: itself or a directory above it.
        at: RelPath,
        /// What is there.
        found: &'static str,
    },
    /// The kernel's side failed.
    #[error("serving the file system: {errno}")]
    Device {
        /// The cause.
        errno: Errno,
    },
}

impl Hint for ServeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Image(error) => error.hint(),
            Self::Conflict { .. } => Some("bind at another place in the container".to_owned()),
            Self::Device { .. } => None,
        }
    }
}

/// The hot list at `path`, if there is one and it is of the image with this superblock.
#[must_use]
pub fn read_hot_list(path: &std::path::Path, superblock: &Superblock) -> Option<Vec<BlockPlace>> {
    hot::read(path, superblock)
}

/// Writes a hot list of the image with this superblock.
pub fn write_hot_list(
    path: &std::path::Path,
    superblock: &Superblock,
    places: &[BlockPlace],
) -> std::io::Result<()> {
    hot::write_list(path, superblock, places)
}

/// Whom a server listens to: the kernel, and a keeper if there is one.
#[derive(Debug, Clone, Copy)]
struct Lines<'a> {
    devices: &'a [OwnedFd],
    control: Option<&'a OwnedFd>,
}

/// A loaded image, ready to serve.
#[derive(Debug)]
pub struct Server {
    shared: serve::Shared,
    tuning: Tuning,
}

impl Server {
    /// Opens the image and adds the mount points.
    pub fn load(spec: ServerSpec) -> Result<Self, ServeError> {
        let reader = Reader::open_with_memory(spec.image, METADATA_BYTES)?;
        let nodes = Nodes::new(reader.clone())?;
        for point in &spec.synthetic {
            graft::graft(&nodes, point)?;
        }
        let shared = serve::Shared {
            nodes,
            superblock: reader.superblock().clone(),
            content: Content::new(reader, spec.cache_bytes, &spec.tuning),
            owner: (spec.uid, spec.gid),
            follower: spec.tuning.push.then(follow::Follower::default),
            no_open: spec.no_open,
            kernel_flags: AtomicU32::new(0),
            kernel_resends: AtomicBool::new(false),
            report_path: spec.tuning.report.clone(),
        };
        Ok(Self { shared, tuning: spec.tuning })
    }

    /// Serves until the kernel ends the connection (ENODEV): one thread for each fd.
    ///
    /// All fds are of one connection, so requests that one thread cannot take are taken by the others: a thread that
    /// cannot be started, or ends by an error, is missed only if it is the last. Over `control`, a keeper can have mount
    /// points added ([`GRAFT`]).
    pub fn run(self, devices: Vec<OwnedFd>, control: Option<&OwnedFd>) -> Result<(), ServeError> {
        let result = self.serve(&Lines { devices: &devices, control }, 0);
        self.finish();
        result.map_err(|errno| ServeError::Device { errno })
    }

    /// What is left to do when the mount has ended.
    fn finish(&self) {
        if let Some(recorder) = &self.shared.content.recorder {
            recorder.finish();
        }
        if self.tuning.report_at_end {
            self.shared.report();
        }
    }

    /// `deaths` is the number of servers of this connection that were killed.
    fn serve(&self, lines: &Lines<'_>, deaths: u32) -> Result<(), Errno> {
        let shared = &self.shared;
        let (first, others) = lines.devices.split_first().ok_or(Errno::EBADF)?;
        if serve::serve_first(shared, first, lines.control)? == serve::First::End {
            return Ok(());
        }
        let standby = self.tuning.standby.then(|| standby::start(self, lines, deaths)).flatten();
        shared.content.open_pool(lines.devices.len());
        // The reporter ends when our end of this line closes.
        let line = socket::pair().ok();
        let results: Vec<Result<(), Errno>> = std::thread::scope(|scope| {
            let start = |device| {
                let thread = std::thread::Builder::new().name("slipway-fuse".to_owned());
                thread.spawn_scoped(scope, move || serve::serve(shared, device)).ok()
            };
            let others: Vec<_> = others.iter().filter_map(start).collect();
            // A killed server's follower may wait for a page until someone answers the READ that has locked it. That is
            // the spare, which must hear of the death meanwhile; without a spare nothing comes before it is asked for.
            let standby = standby.as_ref();
            let pushed_for = standby.filter(|_| self.tuning.push);
            let follower = std::thread::Builder::new().name("slipway-follow".to_owned());
            let follower = pushed_for.map(|standby| {
                let listeners: Vec<_> =
                    [Some(standby.line()), lines.control.map(AsFd::as_fd)].into_iter().flatten().collect();
                follower.spawn_scoped(scope, move || {
                    if let Some(follower) = &shared.follower
                        && process::leave_fds_to_others(&listeners).is_ok()
                    {
                        follower.run(shared, first);
                    }
                })
            });
            let our_end = line.and_then(|(ours, theirs)| {
                let reporter = std::thread::Builder::new().name("slipway-report".to_owned());
                let control = lines.control;
                let watch = move || {
                    let answer = |line: &OwnedFd| control::answer(shared, line, first, standby);
                    process::watch_report_signal(&theirs, control, || shared.report(), answer)
                };
                reporter.spawn_scoped(scope, watch).ok().map(|_| ours)
            });
            drop(follower);
            let mine = serve::serve(shared, first);
            let joined = others.into_iter().map(|thread| thread.join().unwrap_or(Err(Errno::EIO)));
            let results = std::iter::once(mine).chain(joined).collect();
            if let Some(follower) = &shared.follower {
                follower.close();
            }
            drop(our_end);
            results
        });
        shared.content.pool.close();
        if let Some(standby) = standby {
            standby.dismiss();
        }
        if results.contains(&Ok(())) {
            return Ok(());
        }
        results.into_iter().next().unwrap_or(Ok(()))
    }
}
