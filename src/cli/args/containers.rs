//! Flags of the verbs that deal with containers.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    CommitArgs, ContainerPruneArgs, CpArgs, DiffArgs, ExportArgs, InspectArgs, ListingArgs, ProcessArgs,
    RunArgs, StatsArgs, UpdateArgs,
};

/// Flags of `run` and `create` about the container as a thing with a name.
#[derive(Debug, Args)]
pub(in crate::cli) struct KeepArgs {
    /// Run in the background and print the container's id
    #[arg(short = 'd', long)]
    pub(in crate::cli) detach: bool,
    /// Give the container a name
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) name: Option<String>,
    /// Give the container a label (can be repeated)
    #[arg(short = 'l', long = "label", value_name = "KEY[=VALUE]")]
    pub(in crate::cli) label: Vec<String>,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) cidfile: Option<PathBuf>,
    /// Signal that asks the container to end
    #[arg(long, value_name = "SIGNAL")]
    pub(in crate::cli) stop_signal: Option<String>,
    /// Seconds between that signal and SIGKILL; -1 waits for ever
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(in crate::cli) stop_timeout: Option<i64>,
    /// Keys that detach; a container in the foreground is the process itself and has none
    #[arg(long, value_name = "KEYS")]
    pub(in crate::cli) detach_keys: Option<String>,
    /// Its processes, and their health.
    #[command(flatten)]
    pub(in crate::cli) process: ProcessArgs,
}

impl KeepArgs {
    /// Whether others must be able to find the container.
    pub(in crate::cli) fn is_kept(&self) -> bool {
        self.detach || self.name.is_some() || self.cidfile.is_some()
    }
}

/// Flags of `exec`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExecArgs {
    /// Run in the background
    #[arg(short = 'd', long)]
    pub(in crate::cli) detach: bool,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub(in crate::cli) interactive: bool,
    /// Use the caller's terminal
    #[arg(short = 't', long)]
    pub(in crate::cli) tty: bool,
    /// Run as this user, who must be the container's own
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub(in crate::cli) user: Option<String>,
    /// Set the working directory
    #[arg(short = 'w', long, value_name = "PATH")]
    pub(in crate::cli) workdir: Option<PathBuf>,
    /// Set a variable, or with the name alone take the caller's (can be repeated)
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    pub(in crate::cli) env: Vec<OsString>,
    /// Keys that leave the command alone on its terminal: ctrl-p,ctrl-q unless said otherwise
    #[arg(long, value_name = "KEYS", default_value = "")]
    pub(in crate::cli) detach_keys: String,
    /// Container, then the command and its arguments
    #[arg(
        required = true,
        num_args = 2..,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CONTAINER COMMAND"
    )]
    pub(in crate::cli) words: Vec<OsString>,
}

/// Flags of `ps`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PsArgs {
    /// Show those that have ended too
    #[arg(short = 'a', long)]
    pub(in crate::cli) all: bool,
    /// Show the newest so many, ended or not
    #[arg(short = 'n', long, value_name = "COUNT", allow_negative_numbers = true)]
    pub(in crate::cli) last: Option<i64>,
    /// Show the newest, ended or not
    #[arg(short = 'l', long, conflicts_with = "last")]
    pub(in crate::cli) latest: bool,
    /// Show how much each has changed, and the image's size with it
    #[arg(short = 's', long)]
    pub(in crate::cli) size: bool,
    /// Show only: id, name, label, status, exited, ancestor, health, before, since =VALUE (can be repeated)
    #[arg(short = 'f', long = "filter", value_name = "FILTER")]
    pub(in crate::cli) filter: Vec<String>,
    /// How it is printed.
    #[command(flatten)]
    pub(in crate::cli) listing: ListingArgs,
}

/// Flags of `stop` and `restart`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StopArgs {
    /// Seconds before SIGKILL; -1 waits for ever
    #[arg(
        short = 't',
        long = "timeout",
        visible_alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    pub(in crate::cli) timeout: Option<i64>,
    /// Signal that asks to end, instead of the container's own
    #[arg(short = 's', long, value_name = "SIGNAL")]
    pub(in crate::cli) signal: Option<String>,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(in crate::cli) containers: Vec<String>,
}

/// Flags of `kill`.
#[derive(Debug, Args)]
pub(in crate::cli) struct KillArgs {
    /// Signal to send
    #[arg(short = 's', long, value_name = "SIGNAL", default_value = "KILL")]
    pub(in crate::cli) signal: String,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(in crate::cli) containers: Vec<String>,
}

/// Flags of `wait`.
#[derive(Debug, Args)]
pub(in crate::cli) struct WaitArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(in crate::cli) containers: Vec<String>,
}

/// Flags of `start`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StartArgs {
    /// Show what it prints, and end with its exit code
    #[arg(short = 'a', long)]
    pub(in crate::cli) attach: bool,
    /// Pass standard input on, too
    #[arg(short = 'i', long)]
    pub(in crate::cli) interactive: bool,
    /// Keys that detach: ctrl-p,ctrl-q unless said otherwise
    #[arg(long, value_name = "KEYS", default_value = "")]
    pub(in crate::cli) detach_keys: String,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(in crate::cli) sig_proxy: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(in crate::cli) containers: Vec<String>,
}

/// Flags of `rm`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RmArgs {
    /// Kill it first if it runs
    #[arg(short = 'f', long)]
    pub(in crate::cli) force: bool,
    /// Remove the volumes that were made for it alone
    #[arg(short = 'v', long)]
    pub(in crate::cli) volumes: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(in crate::cli) containers: Vec<String>,
}

/// Flags of `logs`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// Go on until the container ends
    #[arg(short = 'f', long)]
    pub(in crate::cli) follow: bool,
    /// Print the last so many lines, or all
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "all")]
    pub(in crate::cli) tail: String,
    /// Print what is not older: a time (2026-01-31T12:00:00Z) or a duration (10m)
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// Print what is not newer: a time or a duration
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
    /// Print when each line came
    #[arg(short = 't', long)]
    pub(in crate::cli) timestamps: bool,
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) container: String,
}

/// Flags of `attach`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AttachArgs {
    /// Leave standard input alone
    #[arg(long)]
    pub(in crate::cli) no_stdin: bool,
    /// Keys that detach: ctrl-p,ctrl-q unless said otherwise
    #[arg(long, value_name = "KEYS", default_value = "")]
    pub(in crate::cli) detach_keys: String,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(in crate::cli) sig_proxy: bool,
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) container: String,
}

/// Flags of `rename`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RenameArgs {
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) container: String,
    /// The other name
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: String,
}

/// Flags of `top`.
#[derive(Debug, Args)]
pub(in crate::cli) struct TopArgs {
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) container: String,
}

/// Flags of `port`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PortArgs {
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) container: String,
    /// A port inside, with its protocol
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub(in crate::cli) port: Option<String>,
}

/// Flags of `container`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ContainerArgs {
    /// What to do with containers.
    #[command(subcommand)]
    pub(in crate::cli) command: ContainerCommand,
}

/// The verbs of `container`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ContainerCommand {
    /// A verb that docker has at its top level too.
    #[command(flatten)]
    Verb(ContainerVerb),
    /// Run a command in an image
    #[command(disable_help_flag = true)]
    Run(Box<RunArgs>),
    /// Show everything that is known of containers
    Inspect(InspectArgs),
    /// Remove all containers that do not run
    Prune(ContainerPruneArgs),
}

/// The verbs for containers that stand at the top level and below `container`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ContainerVerb {
    /// Run a command in a running container
    Exec(ExecArgs),
    /// List containers
    #[command(aliases = ["ls", "list"])]
    Ps(PsArgs),
    /// Make a container without starting it
    #[command(disable_help_flag = true)]
    Create(Box<RunArgs>),
    /// Start containers that do not run
    Start(StartArgs),
    /// Ask containers to end, and kill them if they do not
    Stop(StopArgs),
    /// Stop containers and start them again
    Restart(StopArgs),
    /// Send a signal to containers
    Kill(KillArgs),
    /// Wait for containers to end, and print their exit codes
    Wait(WaitArgs),
    /// Remove containers
    #[command(alias = "remove")]
    Rm(RmArgs),
    /// Print what a container has printed
    Logs(LogsArgs),
    /// Be attached to a container: see what it prints, and type into it
    Attach(AttachArgs),
    /// Give a container another name
    Rename(RenameArgs),
    /// Copy files between a container and this host
    #[command(name = "cp")]
    Copy(CpArgs),
    /// List what a container has changed in its root
    Diff(DiffArgs),
    /// Make an image from what a container has changed
    Commit(CommitArgs),
    /// Write the root of a container as a tar
    Export(ExportArgs),
    /// Show what containers use
    Stats(StatsArgs),
    /// Change the limits of containers; they are set when one starts
    Update(UpdateArgs),
    /// Show the processes of a container
    Top(TopArgs),
    /// Show the ports of a container that are forwarded; on the host's network there are none
    Port(PortArgs),
}
