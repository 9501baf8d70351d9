//! Flags of `sbatch`.

use std::ffi::OsString;

use clap::Args;

/// What a job script says. Names are those of Slurm's own `sbatch`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SbatchArgs {
    /// Name of the job; the command's if not given
    #[arg(short = 'J', long, value_name = "NAME")]
    pub(in crate::cli) job_name: Option<String>,
    /// Number of nodes
    #[arg(short = 'N', long, value_name = "COUNT")]
    pub(in crate::cli) nodes: Option<u32>,
    /// Number of tasks; srun starts the command so many times
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(in crate::cli) ntasks: Option<u32>,
    /// Tasks on each node
    #[arg(long, value_name = "COUNT")]
    pub(in crate::cli) ntasks_per_node: Option<u32>,
    /// CPUs of each task
    #[arg(short = 'c', long, value_name = "COUNT")]
    pub(in crate::cli) cpus_per_task: Option<u32>,
    /// GPUs of the job
    #[arg(short = 'G', long, value_name = "[TYPE:]COUNT")]
    pub(in crate::cli) gpus: Option<String>,
    /// GPUs on each node
    #[arg(long, value_name = "[TYPE:]COUNT")]
    pub(in crate::cli) gpus_per_node: Option<String>,
    /// GPUs of each task
    #[arg(long, value_name = "[TYPE:]COUNT")]
    pub(in crate::cli) gpus_per_task: Option<String>,
    /// Memory on each node
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) mem: Option<String>,
    /// Time limit
    #[arg(short = 't', long, value_name = "TIME")]
    pub(in crate::cli) time: Option<String>,
    /// Partition
    #[arg(short = 'p', long, value_name = "NAME")]
    pub(in crate::cli) partition: Option<String>,
    /// Account
    #[arg(short = 'A', long, value_name = "NAME")]
    pub(in crate::cli) account: Option<String>,
    /// Index of an array job: 0-15, 1,3,5, 0-99%4
    #[arg(short = 'a', long, value_name = "LIST")]
    pub(in crate::cli) array: Option<String>,
    /// The command is an MPI program: how ranks find each other (pmix, pmi2)
    #[arg(long, value_name = "TYPE", num_args = 0..=1, default_missing_value = "pmix", require_equals = true)]
    pub(in crate::cli) mpi: Option<String>,
    /// The command is a script for PyTorch's torchrun: one torchrun on each node, one process for each GPU
    #[arg(long, conflicts_with_all = ["mpi", "ntasks", "ntasks_per_node", "gpus_per_task"])]
    pub(in crate::cli) torchrun: bool,
    /// A flag of `slipway run`, as --run=-v=/data:/data (can be repeated)
    #[arg(long = "run", value_name = "FLAG", allow_hyphen_values = true, require_equals = true)]
    pub(in crate::cli) run: Vec<String>,
    /// Submit the script instead of printing it
    #[arg(long)]
    pub(in crate::cli) submit: bool,
    /// Image, then the command and its arguments
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true, value_name = "IMAGE COMMAND")]
    pub(in crate::cli) words: Vec<OsString>,
}
