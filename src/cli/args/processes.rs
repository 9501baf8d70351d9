//! Flags of `run` and `create` about the container's processes: their namespace, the first one, and their health.

use clap::Args;

/// The first process, and looking after the workload's health.
#[derive(Debug, Args)]
pub(in crate::cli) struct ProcessArgs {
    /// Choose the process numbers: host, or private for a namespace of its own
    #[arg(long, value_name = "NAMESPACE")]
    pub(in crate::cli) pid: Option<String>,
    /// Stand before the command: pass signals on, and reap what it leaves
    #[arg(long)]
    pub(in crate::cli) init: bool,
    /// Command that tells whether the container is well, for the image's shell
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_healthcheck")]
    pub(in crate::cli) health_cmd: Option<String>,
    /// Time between two checks (30s)
    #[arg(long, value_name = "DURATION")]
    pub(in crate::cli) health_interval: Option<String>,
    /// Time that a check may take (30s)
    #[arg(long, value_name = "DURATION")]
    pub(in crate::cli) health_timeout: Option<String>,
    /// Checks that must fail in a row (3)
    #[arg(long, value_name = "COUNT")]
    pub(in crate::cli) health_retries: Option<u32>,
    /// Time at the beginning in which failures do not count (0s)
    #[arg(long, value_name = "DURATION")]
    pub(in crate::cli) health_start_period: Option<String>,
    /// Time between two checks in that period (5s)
    #[arg(long, value_name = "DURATION")]
    pub(in crate::cli) health_start_interval: Option<String>,
    /// Leave the image's HEALTHCHECK out
    #[arg(long)]
    pub(in crate::cli) no_healthcheck: bool,
}
