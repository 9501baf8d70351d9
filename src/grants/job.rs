//! What a scheduler says about the GPUs of a job, in the words of its variables.

use serde::{Deserialize, Serialize};

/// The GPUs of a job on this node, as the scheduler names them. Floor 2's `sched` fills it and `gpu` reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobGpus {
    /// True inside a job: whoever is in one owns what it was given, and nobody else's.
    pub in_job: bool,
    /// GPUs of the step, by node-wide index (SLURM_STEP_GPUS).
    pub step: Option<String>,
    /// GPUs of the job, by node-wide index (SLURM_JOB_GPUS).
    pub job: Option<String>,
    /// CUDA_VISIBLE_DEVICES.
    pub visible: Option<String>,
    /// The device minor of each node-wide index, where the scheduler's configuration could be read.
    pub minors: Option<Vec<u32>>,
}
