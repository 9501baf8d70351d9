//! Flags of `cdi`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Flags of `cdi`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CdiArgs {
    /// What to do.
    #[command(subcommand)]
    pub(in crate::cli) command: CdiCommand,
}

/// The verbs of `cdi`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CdiCommand {
    /// List the devices that files of this node describe
    #[command(visible_alias = "ls")]
    List(CdiListArgs),
    /// Say what is wrong with the files, or with one
    Check(CdiCheckArgs),
    /// Write the file of this node's GPUs
    Generate(CdiGenerateArgs),
}

/// Flags of `cdi list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CdiListArgs {
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Flags of `cdi check`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CdiCheckArgs {
    /// The file; else all of this node
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: Option<PathBuf>,
}

/// Flags of `cdi generate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CdiGenerateArgs {
    /// Choose the form
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(in crate::cli) format: Option<CdiFormat>,
    /// Write to a file instead of standard output; what it was is replaced
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) output: Option<PathBuf>,
}

/// A form of specifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum CdiFormat {
    /// YAML; the default
    Yaml,
    /// JSON; the default where the file's name ends so
    Json,
}
