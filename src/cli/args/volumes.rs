//! Flags of `volume`.

use clap::{Args, Subcommand};

/// Flags of `volume`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VolumeArgs {
    /// What to do with volumes.
    #[command(subcommand)]
    pub(in crate::cli) command: VolumeCommand,
}

/// The verbs of `volume`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum VolumeCommand {
    /// Make a volume
    Create(VolumeCreateArgs),
    /// List volumes
    #[command(alias = "list")]
    Ls(VolumeLsArgs),
    /// Show everything that is known of volumes
    Inspect(VolumeInspectArgs),
    /// Remove volumes
    #[command(alias = "remove")]
    Rm(VolumeRmArgs),
    /// Remove volumes that no container has
    Prune(VolumePruneArgs),
}

/// Flags of `volume create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VolumeCreateArgs {
    /// Give the volume a label (can be repeated)
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(in crate::cli) label: Vec<String>,
    /// The driver; there is `local`
    #[arg(short = 'd', long, value_name = "NAME", default_value = "local")]
    pub(in crate::cli) driver: String,
    /// Its name; else one is made up
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: Option<String>,
}

/// Flags of `volume ls`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VolumeLsArgs {
    /// Print only names
    #[arg(short = 'q', long)]
    pub(in crate::cli) quiet: bool,
    /// Show only those that fit: name=TEXT, label=KEY[=VALUE], dangling=BOOL (can be repeated)
    #[arg(short = 'f', long, value_name = "FILTER")]
    pub(in crate::cli) filter: Vec<String>,
    /// Print by a template of docker's, or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(in crate::cli) format: Option<String>,
}

/// Flags of `volume inspect`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VolumeInspectArgs {
    /// Print by a template of docker's
    #[arg(short = 'f', long, value_name = "TEMPLATE")]
    pub(in crate::cli) format: Option<String>,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    pub(in crate::cli) volumes: Vec<String>,
}

/// Flags of `volume rm`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VolumeRmArgs {
    /// Do not complain of those that are not there
    #[arg(short = 'f', long)]
    pub(in crate::cli) force: bool,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    pub(in crate::cli) volumes: Vec<String>,
}

/// Flags of `volume prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VolumePruneArgs {
    /// Remove those with a name too
    #[arg(short = 'a', long)]
    pub(in crate::cli) all: bool,
    /// Do not ask; nothing is ever asked
    #[arg(short = 'f', long)]
    pub(in crate::cli) force: bool,
}
