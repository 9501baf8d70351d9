//! Image + request + grants → an OCI runtime spec, and beside it what a spec cannot say. Pure.
//!
//! The [`Spec`] is the truth about mounts, ids, working directory and namespaces, so that any OCI runtime could run the
//! same bundle. Beside it stand the exact argument and environment bytes (a spec holds only UTF-8), small files made by
//! us, driver libraries, and why each mount is there. This is the one door to `oci-spec`.

mod argv;
mod capability;
mod environment;
mod mounts;
mod passwd;
mod request;
mod spec;
mod volume;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::base::Hint;
use crate::grants::{FileGrant, Grants, LibraryGrant};
use crate::oci::RunConfig;

pub use capability::{CapabilityChoice, CapabilityError, CapabilitySet};
pub use environment::{EnvFileError, EnvRequest, parse_env_file};
pub use mounts::optional_host_paths;
pub use oci_spec::runtime::{LinuxIdMapping as IdMapping, LinuxNamespaceType as NamespaceType, Mount};
pub use request::{Identity, Limit, LimitError, MemoryMount, Request, Resources, WritableRoot};
pub use volume::{Asked, MountError, parse_docker_mount, parse_docker_tmpfs};
pub use volume::{Volume, VolumeError, parse_apptainer_binds, parse_docker_volume};

/// Where our own files lie inside every container: a private tmpfs.
pub const RUN_DIRECTORY: &str = "/.slipway/run";
/// Where the host's tree hangs while the root is built; gone before the workload starts.
pub const HOST_DIRECTORY: &str = "/.slipway/host";

/// Who starts the container, and from where.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// User name, or the uid as text where the system has no name.
    pub name: String,
    /// Name of the primary group, or the gid as text.
    pub group: String,
    /// Home directory, if it has one that exists.
    pub home: Option<PathBuf>,
    /// Current directory, if it can be named.
    pub cwd: Option<PathBuf>,
    /// The whole environment.
    pub env: BTreeMap<OsString, OsString>,
    /// The host paths below `/dev` and `/etc` that a container gets where the host has them.
    pub host_has: Vec<PathBuf>,
}

/// The files of an image that decide what is made for it.
#[derive(Debug, Clone, Default)]
pub struct ImageFiles {
    /// `/etc/passwd`.
    pub passwd: Option<Vec<u8>>,
    /// `/etc/group`.
    pub group: Option<Vec<u8>>,
}

/// Why a mount is there: how a failure is told, and whether it may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Part of every container; left out with a note where it cannot be had.
    Default,
    /// A provider granted it.
    Granted,
    /// The user or the site asked for it, in these words (`-v /data:/data`).
    Asked(String),
}

/// A container, ready to be planned.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The OCI runtime spec.
    pub spec: Spec,
    /// The argument list, exact bytes.
    pub argv: Vec<OsString>,
    /// `NAME=value` lines, exact bytes.
    pub env: Vec<OsString>,
    /// Small files, each bound over its target.
    pub files: Vec<FileGrant>,
    /// Driver libraries for [`crate::grants::LIBRARY_DIRECTORY`].
    pub libraries: Vec<LibraryGrant>,
    /// Symbolic links in a tmpfs of ours: place and target.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Why each mount of the spec is there, by destination.
    pub why: BTreeMap<PathBuf, Why>,
    /// Where the changes of a writable root go; without one the root is read-only.
    pub writable: Option<WritableRoot>,
    /// Limits of the workload.
    pub limits: Vec<Limit>,
    /// Limits by a control group.
    pub resources: Resources,
    /// True if the user chose the working directory, so that it must exist.
    pub cwd_is_asked: bool,
    /// What was decided and why, for `--explain` and `--plan`.
    pub notes: Vec<String>,
    /// What the user should hear at every start.
    pub warnings: Vec<String>,
}

/// Why a bundle could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Neither the image nor the user names a command.
    #[error("no command specified: the image has no ENTRYPOINT and no CMD")]
    NoCommand,
    /// `-w` with a relative path.
    #[error("working directory `{}` is not absolute", path.display())]
    RelativeWorkdir {
        /// The path as given.
        path: PathBuf,
    },
    /// The spec's own builder refused.
    #[error("the OCI runtime spec cannot be built")]
    Spec {
        /// The cause.
        #[from]
        source: oci_spec::OciSpecError,
    },
}

impl Hint for BundleError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoCommand => Some("name a command behind the image: `slipway run IMAGE COMMAND`".into()),
            Self::RelativeWorkdir { .. } => Some("give `-w` a path that starts with `/`".into()),
            Self::Spec { .. } => None,
        }
    }
}

/// Puts a container together by the `hpc` profile (ARCHITECTURE.md, D15).
pub fn build(
    config: &RunConfig,
    files: &ImageFiles,
    request: &Request,
    caller: &Caller,
    grants: Grants,
) -> Result<Bundle, BundleError> {
    let argv = argv::merge(config, request)?;
    let env = environment::merge(config, request, &grants.env, caller);
    let mut table = mounts::Table::default();
    mounts::add_defaults(&mut table, request, caller);
    mounts::add_grants(&mut table, &grants);
    mounts::add_volumes(&mut table, &request.volumes);
    mounts::add_memory(&mut table, &request.memory_mounts);
    let cwd = mounts::choose_cwd(&mut table, request, caller)?;

    let mut made = passwd::files(files, caller, request.identity);
    made.extend(grants.files);
    let mut notes = grants.notes;
    notes.append(&mut table.notes);
    let warnings = std::mem::take(&mut table.warnings);
    let (mounts, why) = table.finish();
    Ok(Bundle {
        spec: spec::build(request, caller, &argv, &env, cwd, mounts)?,
        argv,
        env,
        files: made,
        libraries: grants.libraries,
        links: mounts::device_links(),
        why,
        writable: request.writable.clone(),
        limits: request.limits.clone(),
        resources: request.resources.clone(),
        cwd_is_asked: request.workdir.is_some(),
        notes,
        warnings,
    })
}
