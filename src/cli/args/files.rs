//! Flags of the verbs that deal with what is in containers.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// Flags of `cp`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CpArgs {
    /// Keep owners; always so, since there is one user inside
    #[arg(short = 'a', long)]
    pub(in crate::cli) archive: bool,
    /// Follow a link that the source is
    #[arg(short = 'L', long)]
    pub(in crate::cli) follow_link: bool,
    /// Print no progress; there is none
    #[arg(short = 'q', long)]
    pub(in crate::cli) quiet: bool,
    /// CONTAINER:PATH, a path of this host, or `-` for a tar from standard input
    #[arg(value_name = "SOURCE")]
    pub(in crate::cli) source: OsString,
    /// The same, where `-` is a tar to standard output
    #[arg(value_name = "TARGET")]
    pub(in crate::cli) target: OsString,
}

/// Flags of `diff`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) container: String,
}

/// Flags of `export`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// Write to a file instead of standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) container: String,
}

/// Flags of `commit`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CommitArgs {
    /// Say who made the image
    #[arg(short = 'a', long, value_name = "AUTHOR", default_value = "")]
    pub(in crate::cli) author: String,
    /// Say what was changed
    #[arg(short = 'm', long, value_name = "TEXT", default_value = "")]
    pub(in crate::cli) message: String,
    /// Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, WORKDIR, … (can be repeated)
    #[arg(short = 'c', long, value_name = "INSTRUCTION")]
    pub(in crate::cli) change: Vec<String>,
    /// Stop the container's processes meanwhile
    #[arg(short = 'p', long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(in crate::cli) pause: bool,
    /// Let the container's processes go on meanwhile
    #[arg(long)]
    pub(in crate::cli) no_pause: bool,
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) container: String,
    /// Name of the new image
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: Option<String>,
}

/// Flags of `import`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportArgs {
    /// Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, WORKDIR, … (can be repeated)
    #[arg(short = 'c', long, value_name = "INSTRUCTION")]
    pub(in crate::cli) change: Vec<String>,
    /// Say what the image is
    #[arg(short = 'm', long, value_name = "TEXT", default_value = "")]
    pub(in crate::cli) message: String,
    /// The platform of the files, where it is not this host's: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub(in crate::cli) platform: Option<String>,
    /// A tar of a root, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// Name of the new image
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: Option<String>,
}

/// Flags of `stats`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatsArgs {
    /// Show those that do not run too
    #[arg(short = 'a', long)]
    pub(in crate::cli) all: bool,
    /// Print once
    #[arg(long)]
    pub(in crate::cli) no_stream: bool,
    /// Show whole ids
    #[arg(long)]
    pub(in crate::cli) no_trunc: bool,
    /// Print by a Go template, `table TEMPLATE` or `json`
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) format: Option<String>,
    /// Names, ids, or beginnings of ids; all that run if none is named
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) containers: Vec<String>,
}

/// Flags of `update`.
#[derive(Debug, Args)]
pub(in crate::cli) struct UpdateArgs {
    /// Flags and containers, as docker has them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS CONTAINER")]
    pub(in crate::cli) words: Vec<String>,
}
