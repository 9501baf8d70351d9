//! The keeper: what the containers of one user, node and job have in common, in a small process that none of them depends
//! on. It holds the user namespace and one mount of the image, and hands them out.
//!
//! ```text
//! first start ── lock the directory, listen ── fork, fork ─┬▶ slipway-fuse    serves the image
//!      │                                                   └▶ slipway-keeper  user namespace, mount of the image, nothing else
//!      ├──── points ─────────────────────────────────────────▶ │ ── points ──▶ slipway-fuse (fuse::control)
//!      ◀──── user namespace, copy of the mount ─────────────── │
//!      └ setns(user), unshare(mount), attach the copy, binds of its own host view, pivot, exec
//!
//! each later start ── connect ── points ──▶ the same
//! ```
//!
//! ```text
//! ROOT/keepers/            0700, the owner is checked; flock on the directory itself is the election
//!   SCOPE-IMAGE.sock       a keeper listens; ECONNREFUSED says that it was killed
//! ```
//!
//! SCOPE is a digest of boot, uids, gids, job and step; IMAGE one of the file. Keepers of one scope share a user namespace,
//! so that processes of containers of different images can look at each other's memory, as MPI does.
//!
//! A keeper that cannot be had is no error: the container then starts alone, with a namespace and a server of its own.

mod elect;
mod join;
mod serve;
mod wishes;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::Digest;
use crate::image::Image;
use crate::plan::{LaunchPlan, Op};

pub use elect::sweep;
pub(super) use join::{Joined, enter};

/// Version of what is said between a keeper and who joins: another version has other names.
const PROTOCOL: u32 = 2;
/// Directory below the caller's own.
const DIRECTORY: &str = "keepers";
/// How long to wait for a keeper's word before going on without it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a container may share with others, and how.
#[derive(Debug, Clone, Default)]
pub struct Sharing {
    /// The caller's own directory on this node.
    pub root: PathBuf,
    /// Jobs and steps whose keepers may be joined, the nearest first. None: the container starts alone.
    pub scopes: Vec<Scope>,
    /// Starts a keeper for the first of the scopes where there is none, and how long that waits when the last container
    /// has ended.
    pub lead: Option<Duration>,
}

/// A job or a step of one, outside of jobs the node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// The node's name in the scheduler's words: one machine may be several nodes.
    pub node: Option<String>,
    /// The job's id.
    pub job: Option<String>,
    /// The step's id.
    pub step: Option<String>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.job, &self.step) {
            (None, _) => f.write_str("this node"),
            (Some(job), None) => write!(f, "job {job}"),
            (Some(job), Some(step)) => write!(f, "step {job}.{step}"),
        }
    }
}

impl Sharing {
    /// Neither joins nor keeps.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Says what a start of this plan would do now. Only looks.
    #[must_use]
    pub fn describe(&self, plan: &LaunchPlan, image: &Image) -> Option<String> {
        let names = Names::new(self, plan, image)?;
        let directory = self.root.join(DIRECTORY);
        let joined = elect::open(&directory)
            .and_then(|open| names.all.iter().zip(&self.scopes).find(|(name, _)| open.connect(name).is_ok()));
        Some(match (joined, self.lead) {
            (Some((_, scope)), _) => format!(
                "joins the containers of {scope}: their user namespace and mount of the image (`--no-join` starts alone)"
            ),
            (None, Some(linger)) => format!(
                "keeps the user namespace and the mount of the image for later starts in {}, {} s after the last container \
                 (`launch.linger`)",
                self.scopes.first().map(Scope::to_string).unwrap_or_default(),
                linger.as_secs()
            ),
            (None, None) => return None,
        })
    }
}

/// Names of keepers' places for one plan and image, in the order of the scopes.
#[derive(Debug)]
struct Names {
    all: Vec<String>,
}

impl Names {
    /// `None` if nothing is shared.
    fn new(sharing: &Sharing, plan: &LaunchPlan, image: &Image) -> Option<Self> {
        if sharing.scopes.is_empty() {
            return None;
        }
        let map = plan.ops.iter().find_map(|op| match op {
            Op::NewNamespaces { uid, gid, uid_inside, gid_inside, .. } => {
                Some(format!("{uid} {gid} {uid_inside} {gid_inside}"))
            }
            _ => None,
        })?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        // What was started in a container cannot join the namespace that it is in already.
        let outer = fs::metadata("/proc/self/ns/user").ok()?.ino();
        let version = env!("CARGO_PKG_VERSION");
        let image = short(&format!("{} {}", image.file.identity(), image.offset_bytes));
        let scoped = |scope: &Scope| {
            let scope = short(&format!("{PROTOCOL} {version} {boot} {outer} {map} {scope:?}"));
            format!("{scope}-{image}.sock")
        };
        Some(Self { all: sharing.scopes.iter().map(scoped).collect() })
    }
}

/// 64 bits of a digest: enough for the few names of one user, and short.
fn short(text: &str) -> String {
    const CHARACTERS: usize = 16;
    Digest::of(text.as_bytes()).hex().chars().take(CHARACTERS).collect()
}
