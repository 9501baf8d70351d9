//! Flags of `gpus` and `doctor`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `gpus`.
#[derive(Debug, Args)]
pub(in crate::cli) struct GpusArgs {
    /// Print JSON, with every reading of the driver
    #[arg(long, conflicts_with_all = ["topology", "watch"])]
    pub(in crate::cli) json: bool,
    /// Have the boards' serial numbers in the JSON
    #[arg(long, requires = "json")]
    pub(in crate::cli) serial: bool,
    /// Show how GPUs and network adapters reach each other
    #[arg(long, conflicts_with = "watch")]
    pub(in crate::cli) topology: bool,
    /// Write a drawing of that to a file, or to `-`
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub(in crate::cli) svg: Option<PathBuf>,
    /// Show use, memory, power and programs again and again, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(in crate::cli) watch: Option<u32>,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DoctorArgs {
    /// Write what this node's GPUs are to a file, or to `-`, for a bug report: no serial number, UUID or host name
    #[arg(long, value_name = "FILE", required = true)]
    pub(in crate::cli) record: PathBuf,
}
