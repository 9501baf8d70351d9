//! Image + request + grants → an OCI runtime spec, and beside it what a spec cannot say. Pure.
//!
//! The [`Spec`] is the truth about mounts, ids, working directory and namespaces, so that any OCI runtime could run the
//! same bundle. Beside it stand the exact argument and environment bytes (a spec holds only UTF-8), small files made by
//! us, driver libraries, and why each mount is there. This is the one door to `oci-spec`.

mod argv;
mod capability;
mod environment;
pub mod explain;
mod mounts;
mod network;
mod passwd;
mod request;
mod spec;
mod user;
mod volume;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::base::Hint;
use crate::config::Profile;
use crate::grants::{FileGrant, Grants, LibraryGrant};
use crate::oci::RunConfig;

use explain::Reason;

pub use capability::{CapabilityChoice, CapabilityError, CapabilitySet};
pub use environment::{EnvFileError, EnvRequest, parse_env_file};
pub use mounts::optional_host_paths;
pub use network::{HostError, NameServers, hosts, parse_host, resolv_conf};
pub use oci_spec::runtime::{LinuxIdMapping as IdMapping, LinuxNamespaceType as NamespaceType, Mount};
pub use request::{
    Device, Home, Identity, Ipc, Limit, LimitError, MemoryMount, Request, Resources, Seccomp, WritableRoot,
};
pub use volume::{Asked, MountError, parse_docker_mount, parse_docker_tmpfs};
pub use volume::{Volume, VolumeError, VolumeKind, image_volume, parse_apptainer_binds, parse_docker_volume};

/// What is Slipway's in every container: nothing else is mounted at or below it.
pub const OWN_DIRECTORY: &str = "/.slipway";
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
    /// The same in words.
    pub reasons: BTreeMap<PathBuf, Reason>,
    /// Why each variable is there, by name.
    pub variables: Vec<(String, Reason)>,
    /// Why each variable of the caller that stays out does so.
    pub withheld: Vec<(String, Reason)>,
    /// Domain of the host name.
    pub domain_name: Option<String>,
    /// Capabilities.
    pub capabilities: CapabilityChoice,
    /// System calls.
    pub seccomp: Seccomp,
    /// Mask of new files, instead of the caller's.
    pub umask: Option<u32>,
    /// The kernel's choice when memory is short.
    pub oom_score: Option<i32>,
    /// Where the changes of a writable root go; without one the root is read-only.
    pub writable: Option<WritableRoot>,
    /// Limits of the workload.
    pub limits: Vec<Limit>,
    /// Limits by a control group.
    pub resources: Resources,
    /// The group in which it may be made, where there is one.
    pub control_group: Option<PathBuf>,
    /// A process of ours stands before the workload.
    pub init: bool,
    /// True if the user or the image chose the working directory, so that it must exist.
    pub cwd_is_asked: bool,
    /// The working directory is made where the image lacks it, as docker does.
    pub makes_cwd: bool,
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
    /// A user or group that the image does not list.
    #[error("{}", no_such_user(asked, what, name, *of_image))]
    NoSuchUser {
        /// `user[:group]` as given.
        asked: String,
        /// `user` or `group`.
        what: &'static str,
        /// Its name.
        name: String,
        /// The image asks for it, not the caller.
        of_image: bool,
    },
    /// A mount among our own files.
    #[error("cannot mount `{asked}`: Slipway's own files lie in `{OWN_DIRECTORY}`")]
    OwnPlace {
        /// The words that asked for it.
        asked: String,
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
            Self::NoSuchUser { .. } => Some("give the user as a number: `--user UID[:GID]`".into()),
            Self::OwnPlace { .. } => Some("mount to another place".into()),
            Self::Spec { .. } => None,
        }
    }
}

fn no_such_user(asked: &str, what: &str, name: &str, of_image: bool) -> String {
    let file = if what == "user" { "passwd" } else { "group" };
    if of_image {
        return format!("the image wants to run as `{asked}`, but its /etc/{file} has no {what} `{name}`");
    }
    format!("cannot be user `{asked}`: the image's /etc/{file} has no {what} `{name}`")
}

/// Puts a container together by the profile of the request (`configs/slipway.toml`, `run.profile`).
pub fn build(
    config: &RunConfig,
    files: &ImageFiles,
    request: &Request,
    caller: &Caller,
    grants: Grants,
) -> Result<Bundle, BundleError> {
    let argv = argv::merge(config, request)?;
    let user = user::resolve(&request.identity, &config.user, files, caller)?;
    let inputs = environment::Inputs { config, request, grants: &grants, caller, home: &user.home };
    let mut environment = environment::merge(&inputs);
    let withheld = std::mem::take(&mut environment.withheld);
    let (env, variables) = environment.finish();
    let mut table = mounts::Table::default();
    mounts::add_defaults(&mut table, request, caller);
    mounts::add_grants(&mut table, &grants);
    mounts::add_asked(&mut table, request);
    let cwd = mounts::choose_cwd(&mut table, config, request, caller)?;

    let mut made = passwd::files(files, caller, request, &user);
    made.extend(request.files.iter().cloned());
    made.retain(|file| !request.no_mount.iter().any(|out| file.target.starts_with(out)));
    let granted = explain::of_files(&grants);
    made.extend(grants.files);
    let mut notes = grants.notes;
    notes.append(&mut table.notes);
    if (user.uid, user.gid) != (caller.uid, caller.gid) {
        notes.push(format!(
            "the user inside is `{}` (uid {}, gid {}), and outside `{}`: files that it makes are the latter's",
            user.name, user.uid, user.gid, caller.name
        ));
    }
    let mut warnings = request.warnings.clone();
    warnings.extend(grants.troubles.iter().map(ToString::to_string));
    warnings.append(&mut table.warnings);
    let (mounts, why, mut reasons) = table.finish()?;
    reasons.extend(granted);
    let mut links = mounts::device_links();
    links.extend(grants.links);
    let is_docker = request.profile == Profile::Docker;
    Ok(Bundle {
        spec: spec::build(request, caller, &user, &argv, &env, cwd, mounts)?,
        argv,
        env,
        files: made,
        libraries: grants.libraries,
        links,
        why,
        reasons,
        variables,
        withheld,
        domain_name: request.domain_name.clone(),
        capabilities: request.capabilities,
        seccomp: request.seccomp.clone(),
        umask: request.umask,
        oom_score: request.oom_score,
        writable: request.writable.clone(),
        limits: request.limits.clone(),
        resources: request.resources.clone(),
        control_group: request.control_group.clone(),
        init: request.init || request.private_pids,
        cwd_is_asked: request.workdir.is_some() || is_docker,
        makes_cwd: is_docker,
        notes,
        warnings,
    })
}
