//! Flags of the verbs that look at disk space and win it back.

use clap::{Args, Subcommand};

use super::InfoArgs;

/// Flags of `container prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ContainerPruneArgs {
    /// Do not ask
    #[arg(short = 'f', long)]
    pub(in crate::cli) force: bool,
    /// Remove only: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE] (can be repeated)
    #[arg(long, value_name = "FILTER")]
    pub(in crate::cli) filter: Vec<String>,
}

/// Flags of `image prune` and `system prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArgs {
    /// Remove every image that no container has, not only those without a name
    #[arg(short = 'a', long)]
    pub(in crate::cli) all: bool,
    /// Do not ask
    #[arg(short = 'f', long)]
    pub(in crate::cli) force: bool,
    /// Remove only: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE] (can be repeated)
    #[arg(long, value_name = "FILTER")]
    pub(in crate::cli) filter: Vec<String>,
}

/// Flags of `system`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SystemArgs {
    /// What to do with the whole.
    #[command(subcommand)]
    pub(in crate::cli) command: SystemCommand,
}

/// The verbs of `system`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SystemCommand {
    /// Show what images and containers take on disk
    Df(DfArgs),
    /// Remove containers that have ended, and images and unpacked images that nobody needs
    Prune(PruneArgs),
    /// Show what this machine offers and where the store is
    Info(InfoArgs),
}

/// Flags of `system df`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DfArgs {
    /// Print by a Go template, `table TEMPLATE` or `json`
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) format: Option<String>,
}
