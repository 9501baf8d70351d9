//! Flags that several listings share.

use clap::Args;

/// Flags of every verb that lists things by docker's templates.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListingArgs {
    /// Print only ids
    #[arg(short = 'q', long)]
    pub(in crate::cli) quiet: bool,
    /// Show whole ids and commands
    #[arg(long)]
    pub(in crate::cli) no_trunc: bool,
    /// Print by a Go template, `table TEMPLATE` or `json`
    #[arg(long, value_name = "FORMAT", conflicts_with = "quiet")]
    pub(in crate::cli) format: Option<String>,
}
