//! A launch as a list of steps. Pure: made from a bundle and facts about paths, and shown as text or JSON.
//!
//! The launcher applies the steps in order without choosing; whatever can be known beforehand fails here, in words.
//!
//! ```text
//! bundle ──needed()──▶ paths to look up ──(launch reads them)──▶ Facts ──make()──▶ LaunchPlan ──check()──▶ apply
//! ```

mod check;
mod control;
mod explain;
mod make;
mod places;
pub mod seccomp;
mod show;
#[cfg(test)]
mod tests;
mod unpacked;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::base::{Hint, RelPath};
use crate::bundle::{CapabilitySet, HOST_DIRECTORY};
use crate::sys::seccomp::Instruction;

pub use check::{Flaw, check};
pub use control::{SWAP_LIMIT, controllers};
pub use explain::{Explanation, explain};
pub use make::{Needed, make, needed, needed_below};

/// What a path is, as far as mounting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// A directory.
    Directory,
    /// A file, device node or socket.
    File,
}

impl PathKind {
    fn word(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::File => "file",
        }
    }
}

/// A path of the host, looked up once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPath {
    /// The path with every link resolved.
    pub canonical: PathBuf,
    /// What is there.
    pub kind: PathKind,
}

/// A path of the image, looked up once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePath {
    /// Where the path really lies once the image's links are followed.
    pub lands_at: RelPath,
    /// What is there; `None` if nothing is.
    pub kind: Option<PathKind>,
    /// A file on the way, so that nothing can be made there.
    pub blocked_by: Option<RelPath>,
}

/// The image file that becomes the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageSource {
    /// The file.
    #[serde(serialize_with = "as_path")]
    pub path: PathBuf,
    /// Where its squashfs begins, in bytes.
    pub offset_bytes: u64,
    /// How long the squashfs is, in bytes.
    pub size_bytes: u64,
}

/// Everything about the world that a plan depends on.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Host paths that exist, by the name they were asked under.
    pub host: BTreeMap<PathBuf, HostPath>,
    /// Host paths that may exist but cannot be looked at, with the reason.
    pub unreachable: BTreeMap<PathBuf, String>,
    /// Image paths, by the name they were asked under.
    pub image: BTreeMap<RelPath, ImagePath>,
}

/// A mount point that the file server shows although the image lacks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountPoint {
    /// Place below the image's root, links resolved.
    #[serde(serialize_with = "as_text")]
    pub path: RelPath,
    /// Empty directory or empty file.
    pub kind: PathKind,
}

fn as_path<S: serde::Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn as_text<S: serde::Serializer>(path: &RelPath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(path)
}

/// One step. The launcher's `apply`, `show` and the error words have one arm for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// A user and a mount namespace, with one uid and one gid mapped, and others where asked for.
    NewNamespaces {
        /// User id outside.
        uid: u32,
        /// Group id outside.
        gid: u32,
        /// User id inside.
        uid_inside: u32,
        /// Group id inside.
        gid_inside: u32,
        /// A network with nothing but a loopback.
        network: bool,
        /// A host name of its own.
        host_name: bool,
        /// Shared memory, semaphores and message queues of its own.
        ipc: bool,
        /// Process numbers of its own: the rest is done by its first process, while this one stands outside.
        pid: bool,
    },
    /// The host's name as it is seen inside.
    HostName {
        /// The name.
        name: String,
        /// The domain, where one was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        domain: Option<String>,
    },
    /// The loopback of the new network works.
    LoopbackUp,
    /// Mounts made here stay here; the host's later mounts come in.
    SlavePropagation,
    /// The image's file system, served from the file by our own server, as the new root.
    MountImage {
        /// The file.
        image: ImageSource,
        /// Mount points that the server adds.
        mount_points: Vec<MountPoint>,
        /// Where changes go; without one the root is read-only.
        #[serde(skip_serializing_if = "Option::is_none")]
        upper: Option<Upper>,
    },
    /// The image's tree, unpacked to a directory of the host, as the new root. It is shared and never written to.
    MountDirectory {
        /// The directory.
        #[serde(serialize_with = "as_path")]
        directory: PathBuf,
        /// Mount points that the tree lacks: they lie in a layer below it.
        mount_points: Vec<MountPoint>,
        /// Where changes go; without one the root is read-only.
        #[serde(skip_serializing_if = "Option::is_none")]
        upper: Option<Upper>,
    },
    /// Makes a control group and moves this process into it; what comes of it is in there too.
    ControlGroup {
        /// The group below which it is made.
        #[serde(serialize_with = "as_path")]
        parent: PathBuf,
        /// Its files, and what is written to each.
        limits: Vec<(&'static str, String)>,
    },
    /// The image becomes `/`; the host's tree hangs below [`crate::bundle::HOST_DIRECTORY`].
    PivotRoot,
    /// An empty file system in memory.
    Tmpfs {
        /// Where.
        #[serde(serialize_with = "as_path")]
        target: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Limit in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
    },
    /// A set of pseudo-terminals of the container's own.
    Terminals {
        /// Where.
        #[serde(serialize_with = "as_path")]
        target: PathBuf,
    },
    /// The message queues of the container's own IPC namespace.
    MessageQueues {
        /// Where.
        #[serde(serialize_with = "as_path")]
        target: PathBuf,
    },
    /// The processes of the container's own pid namespace.
    ProcessFiles {
        /// Where.
        #[serde(serialize_with = "as_path")]
        target: PathBuf,
    },
    /// A directory in a tmpfs of ours.
    MakeDirectory {
        /// Where.
        #[serde(serialize_with = "as_path")]
        target: PathBuf,
    },
    /// A small file in a tmpfs of ours.
    MakeFile {
        /// Where.
        #[serde(serialize_with = "as_path")]
        target: PathBuf,
        /// Permission bits.
        mode: u32,
        /// The bytes; JSON shows their number.
        #[serde(rename = "size_bytes", serialize_with = "as_length")]
        content: Vec<u8>,
    },
    /// A symbolic link in a tmpfs of ours.
    MakeLink {
        /// Where.
        #[serde(serialize_with = "as_path")]
        target: PathBuf,
        /// What it points to.
        #[serde(serialize_with = "as_path")]
        to: PathBuf,
    },
    /// A host file or directory shown at a place of the container.
    Bind {
        /// The host path, links resolved; or, with `from_run`, a file that an earlier step made.
        #[serde(serialize_with = "as_path")]
        source: PathBuf,
        /// Where.
        #[serde(serialize_with = "as_path")]
        target: PathBuf,
        /// Directory or file.
        kind: PathKind,
        /// Also make it read-only.
        read_only: bool,
        /// The source is a path of the container, not of the host.
        from_run: bool,
        /// A failure leaves the mount out instead of stopping the launch.
        optional: bool,
        /// The words that asked for it, if somebody did.
        #[serde(skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
    },
    /// The host's tree goes out of sight.
    DetachHost,
    /// A terminal of the container's own becomes the workload's; its other side is the monitor's.
    Console,
    /// Which capabilities can be had inside at all, and which the workload has although it is not root.
    LimitCapabilities {
        /// What root inside has. By default those that undo mounts are not among them.
        keep: CapabilitySet,
        /// What was asked for by name.
        add: CapabilitySet,
    },
    /// A limit of the workload (setrlimit).
    Limit {
        /// Docker's name of it.
        name: String,
        /// Soft limit; `u64::MAX` is none.
        soft: u64,
        /// Hard limit; `u64::MAX` is none.
        hard: u64,
    },
    /// The file mode creation mask of the workload, instead of the caller's.
    Umask {
        /// Bits that are taken away.
        mask: u32,
    },
    /// How likely the kernel ends the workload when memory is short.
    OomScore {
        /// From -1000 to 1000.
        score: i32,
    },
    /// No exec from here on gains privileges.
    NoNewPrivileges,
    /// System calls that the workload may not make.
    FilterCalls {
        /// The filter; JSON shows the number of its instructions.
        #[serde(rename = "instructions", serialize_with = "as_count")]
        filter: Vec<Instruction>,
    },
    /// The working directory.
    ChangeDirectory {
        /// Where.
        #[serde(serialize_with = "as_path")]
        path: PathBuf,
        /// The user named it, so it must exist; else `/` is the fallback.
        asked: bool,
    },
    /// A process of ours stands before the workload: it passes signals on and reaps orphans.
    Init,
    /// This process becomes the workload.
    Exec {
        /// Argument list.
        #[serde(serialize_with = "as_lossy")]
        argv: Vec<OsString>,
        /// `NAME=value` lines. JSON shows only the names: values may be secrets.
        #[serde(serialize_with = "as_names")]
        env: Vec<OsString>,
    },
}

impl Op {
    /// The place of the container that this step mounts on.
    #[must_use]
    pub fn mounts_on(&self) -> Option<&Path> {
        match self {
            Self::Tmpfs { target, .. }
            | Self::Terminals { target }
            | Self::MessageQueues { target }
            | Self::ProcessFiles { target }
            | Self::Bind { target, .. } => Some(target),
            Self::PivotRoot => Some(Path::new(HOST_DIRECTORY)),
            _ => None,
        }
    }
}

#[expect(clippy::ptr_arg, reason = "serde gives the field's own type")]
fn as_length<S: serde::Serializer>(content: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(content.len() as u64)
}

#[expect(clippy::ptr_arg, reason = "serde gives the field's own type")]
fn as_count<S: serde::Serializer>(filter: &Vec<Instruction>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(filter.len() as u64)
}

#[expect(clippy::ptr_arg, reason = "serde gives the field's own type")]
fn as_lossy<S: serde::Serializer>(words: &Vec<OsString>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(words.iter().map(|word| word.to_string_lossy().into_owned()))
}

#[expect(clippy::ptr_arg, reason = "serde gives the field's own type")]
fn as_names<S: serde::Serializer>(lines: &Vec<OsString>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lines.iter().map(|line| show::env_name(line)))
}

/// Where the changes of a writable root go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Upper {
    /// Memory; gone with the container.
    Memory {
        /// Limit in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
    },
    /// The directories `upper` and `work` in this one.
    Directory {
        /// The host's directory, links resolved.
        #[serde(serialize_with = "as_path")]
        path: PathBuf,
    },
}

/// A finished launch, ready to apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaunchPlan {
    /// The steps in order.
    pub ops: Vec<Op>,
    /// Why things are, or are not, inside.
    pub notes: Vec<String>,
    /// What the user should hear at every start.
    pub warnings: Vec<String>,
}

impl LaunchPlan {
    /// The same container for a look at its files: no network, limits or terminal, and nothing that keeps root inside from
    /// a file.
    #[must_use]
    pub fn for_visit(&self) -> Self {
        // A step that is new has to be thought of here.
        let is_kept = |op: &&Op| match op {
            Op::NewNamespaces { .. }
            | Op::SlavePropagation
            | Op::MountImage { .. }
            | Op::MountDirectory { .. }
            | Op::PivotRoot
            | Op::Tmpfs { .. }
            | Op::Terminals { .. }
            | Op::MakeDirectory { .. }
            | Op::MakeFile { .. }
            | Op::MakeLink { .. }
            | Op::Bind { .. }
            | Op::DetachHost
            | Op::Exec { .. } => true,
            Op::HostName { .. }
            | Op::LoopbackUp
            | Op::ControlGroup { .. }
            | Op::MessageQueues { .. }
            | Op::ProcessFiles { .. }
            | Op::LimitCapabilities { .. }
            | Op::Umask { .. }
            | Op::OomScore { .. }
            | Op::Limit { .. }
            | Op::Init
            | Op::Console
            | Op::NoNewPrivileges
            | Op::FilterCalls { .. }
            | Op::ChangeDirectory { .. } => false,
        };
        let mut ops: Vec<Op> = self.ops.iter().filter(is_kept).cloned().collect();
        if let Some(Op::NewNamespaces { network, host_name, ipc, pid, .. }) = ops.first_mut() {
            (*network, *host_name, *ipc, *pid) = (false, false, false, false);
        }
        Self { ops, notes: Vec::new(), warnings: Vec::new() }
    }

    /// Where the container's control group is made, if it has one.
    #[must_use]
    pub fn control_group(&self) -> Option<&Path> {
        self.ops.iter().find_map(|op| match op {
            Op::ControlGroup { parent, .. } => Some(parent.as_path()),
            _ => None,
        })
    }

    /// Keeps the changes of a writable root in a directory instead of memory.
    pub fn keep_changes(&mut self, directory: &std::path::Path) {
        for op in &mut self.ops {
            if let Op::MountImage { upper: Some(upper @ Upper::Memory { .. }), .. }
            | Op::MountDirectory { upper: Some(upper @ Upper::Memory { .. }), .. } = op
            {
                *upper = Upper::Directory { path: directory.to_path_buf() };
            }
        }
    }

    /// Gives the workload a terminal of its own, as a container in the background needs one.
    pub fn add_console(&mut self) {
        let after = |op: &Op| matches!(op, Op::DetachHost);
        if let Some(at) = self.ops.iter().position(after) {
            self.ops.insert(at + 1, Op::Console);
        }
        for op in &mut self.ops {
            if let Op::Exec { env, .. } = op
                && !env.iter().any(|line| line.as_encoded_bytes().starts_with(b"TERM="))
            {
                env.push("TERM=xterm".into());
            }
        }
    }
}

/// Why no plan could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The host has no such path.
    #[error("cannot bind `{asked}`: `{}` does not exist on this host", source_path.display())]
    SourceMissing {
        /// The words that asked for it.
        asked: String,
        /// The host path.
        source_path: PathBuf,
    },
    /// The host path cannot be looked at.
    #[error("cannot bind `{asked}`: `{}` cannot be reached: {reason}", source_path.display())]
    SourceUnreachable {
        /// The words that asked for it.
        asked: String,
        /// The host path.
        source_path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// A link of the image leads to a place that is no mount point.
    #[error("cannot bind `{asked}`: in this image that place is `{}`, where nothing can be mounted", place.display())]
    LeadsAway {
        /// The words that asked for it.
        asked: String,
        /// Where the image's links lead.
        place: PathBuf,
    },
    /// A file of the image lies on the way to the mount point.
    #[error("cannot bind `{asked}`: `{}` cannot be made, because `{}` in the image is a file", target.display(), file.display())]
    MountPointBlocked {
        /// The words that asked for it.
        asked: String,
        /// The mount point.
        target: PathBuf,
        /// The file.
        file: PathBuf,
    },
    /// The image has something at our own place.
    #[error("the image has a link or file on the way to `{}`, which is Slipway's own place", path.display())]
    Reserved {
        /// Our place.
        path: PathBuf,
    },
    /// The image has another kind of thing at the mount point.
    #[error(
        "cannot bind `{asked}`: the source is a {source_kind} but `{}` in the image is a {target_kind}",
        target.display()
    )]
    MountPointType {
        /// The words that asked for it.
        asked: String,
        /// The mount point.
        target: PathBuf,
        /// What the source is.
        source_kind: &'static str,
        /// What the image has.
        target_kind: &'static str,
    },
    /// The mount point would have to be made in a directory of the host.
    #[error("cannot bind `{asked}`: `{}` does not exist in `{}`, which is the host's", target.display(), inside.display())]
    MountPointMissing {
        /// The words that asked for it.
        asked: String,
        /// The mount point.
        target: PathBuf,
        /// The bind that it lies in.
        inside: PathBuf,
    },
    /// A filter of system calls that cannot be read.
    #[error(transparent)]
    Profile(#[from] seccomp::ProfileError),
    /// A filter of system calls that the kernel would not take.
    #[error(transparent)]
    FilterTooLong(#[from] seccomp::TooLong),
    /// A path that no image can have.
    #[error("`{}` cannot be a path in a container: {source}", path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::base::relpath::RelPathError,
    },
}

impl Hint for PlanError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::SourceMissing { source_path, .. } => {
                format!("create it with `mkdir -p {}`, or correct the path", source_path.display())
            }
            Self::SourceUnreachable { .. } => "check the permissions of the directories above it".into(),
            Self::LeadsAway { .. } | Self::MountPointBlocked { .. } => "bind to another place".into(),
            Self::Reserved { .. } => "use an image without `/.slipway`".into(),
            Self::MountPointType { .. } => "bind a file on a file and a directory on a directory".into(),
            Self::MountPointMissing { target, .. } => {
                format!("create `{}` on the host, or bind to another place", target.display())
            }
            Self::Profile(error) => return error.hint(),
            Self::FilterTooLong(_) => "give fewer rules with arguments".into(),
            Self::BadPath { .. } => "use an absolute path without `..`".into(),
        })
    }
}
