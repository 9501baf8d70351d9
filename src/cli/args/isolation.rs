//! Flags of `run` about what separates a container from the host.

use clap::Args;

use crate::base::sizes::parse_size;
use crate::config::Profile;

/// Profile, privileges, devices, namespaces and network.
#[derive(Debug, Args)]
pub(in crate::cli) struct IsolationArgs {
    /// Choose the set of defaults: hpc or docker
    #[arg(long, value_name = "PROFILE", value_parser = parse_profile)]
    pub(in crate::cli) profile: Option<Profile>,
    /// Be like docker, as Apptainer spells it: the same as `--profile docker`
    #[arg(long, conflicts_with = "profile")]
    pub(in crate::cli) compat: bool,
    /// Give a device: HOST[:INSIDE[:rwm]], a directory of them, or by CDI VENDOR/CLASS=NAME (can be repeated)
    #[arg(long, value_name = "HOST[:INSIDE]")]
    pub(in crate::cli) device: Vec<String>,
    /// Add a capability, which holds inside only (can be repeated)
    #[arg(long, alias = "add-caps", value_name = "CAPABILITY")]
    pub(in crate::cli) cap_add: Vec<String>,
    /// Take a capability away (can be repeated)
    #[arg(long, alias = "drop-caps", value_name = "CAPABILITY")]
    pub(in crate::cli) cap_drop: Vec<String>,
    /// Choose the filter of system calls: seccomp=unconfined, seccomp=FILE (can be repeated)
    #[arg(long, value_name = "OPTION")]
    pub(in crate::cli) security_opt: Vec<String>,
    /// Give every capability inside, and every device that the caller may open
    #[arg(long)]
    pub(in crate::cli) privileged: bool,
    /// Be in a further group, which must be one of the caller's (can be repeated)
    #[arg(long, value_name = "GROUP")]
    pub(in crate::cli) group_add: Vec<String>,
    /// Name a container runtime; nvidia and amd mean `--gpus all`
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) runtime: Option<String>,
    /// Choose shared memory and message queues: host, private or none
    #[arg(long, value_name = "MODE")]
    pub(in crate::cli) ipc: Option<String>,
    /// Size of /dev/shm, where it is the container's own
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(in crate::cli) shm_size: Option<u64>,
    /// Choose the host name: host, or private
    #[arg(long, value_name = "MODE")]
    pub(in crate::cli) uts: Option<String>,
    /// Name the domain of the host inside
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) domainname: Option<String>,
    /// Say that a port is used: the network is the host's, so it is the same outside (can be repeated)
    #[arg(short = 'p', long, value_name = "PORT[:PORT]")]
    pub(in crate::cli) publish: Vec<String>,
    /// Add a line to /etc/hosts: NAME:ADDRESS (can be repeated)
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(in crate::cli) add_host: Vec<String>,
    /// Use this name server (can be repeated)
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(in crate::cli) dns: Vec<String>,
    /// Look names up in this domain (can be repeated)
    #[arg(long, value_name = "DOMAIN")]
    pub(in crate::cli) dns_search: Vec<String>,
    /// Set an option of /etc/resolv.conf (can be repeated)
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    pub(in crate::cli) dns_option: Vec<String>,
}

/// Files, and the image that they lie over.
#[derive(Debug, Args)]
pub(in crate::cli) struct FilesArgs {
    /// Mount the volumes of another container: CONTAINER[:ro] (can be repeated)
    #[arg(long, value_name = "CONTAINER[:ro]")]
    pub(in crate::cli) volumes_from: Vec<String>,
    /// Leave a default mount out: proc, sys, dev, devpts, home, tmp, cwd, bind-paths, or a path (can be repeated)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(in crate::cli) no_mount: Vec<String>,
    /// Take another directory as home: SOURCE[:TARGET]
    #[arg(short = 'H', long, value_name = "SOURCE[:TARGET]", conflicts_with = "no_home")]
    pub(in crate::cli) home: Option<String>,
    /// Mount memory at a directory, as Apptainer spells it (can be repeated)
    #[arg(short = 'S', long, value_name = "DIRECTORY", value_delimiter = ',')]
    pub(in crate::cli) scratch: Vec<String>,
    /// Make files with the mask 0022 instead of the caller's
    #[arg(long)]
    pub(in crate::cli) no_umask: bool,
    /// When to download the image: missing, always or never
    #[arg(long, value_name = "WHEN", value_enum, default_value = "missing")]
    pub(in crate::cli) pull: PullWhen,
    /// Choose the platform of the image: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub(in crate::cli) platform: Option<String>,
    /// Read labels from a file of KEY=value lines (can be repeated)
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) label_file: Vec<std::path::PathBuf>,
    /// Print where each variable, mount, device and library comes from, and run nothing
    #[arg(long, conflicts_with = "plan")]
    pub(in crate::cli) explain: bool,
}

/// When an image is downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum PullWhen {
    /// If it is not there
    Missing,
    /// Each time
    Always,
    /// Not at all
    Never,
}

fn parse_profile(text: &str) -> Result<Profile, &'static str> {
    match text {
        "hpc" => Ok(Profile::Hpc),
        "docker" => Ok(Profile::Docker),
        _ => Err("the profiles are hpc and docker"),
    }
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "a size is expected, such as 512m or 2g".into())
}
