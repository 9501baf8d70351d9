//! What a scheduler says about the GPUs of a job, in the words of its variables.

use std::collections::BTreeMap;

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
    /// Those of [`JobGpus::OTHERS`] that are set.
    pub others: BTreeMap<String, String>,
    /// True if ZE_AFFINITY_MASK counts the tiles of Intel's GPUs and not the GPUs (ZE_FLAT_DEVICE_HIERARCHY).
    pub counts_tiles: bool,
    /// The device minor of each node-wide index, where the scheduler's configuration could be read.
    pub minors: Option<Vec<u32>>,
}

impl JobGpus {
    /// The variables beside CUDA_VISIBLE_DEVICES that say which GPUs a program sees, of every vendor: a scheduler sets
    /// several, and only who knows the GPUs knows which of them count.
    pub const OTHERS: [&str; 5] = [
        "ROCR_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL",
        "ZE_AFFINITY_MASK",
        "HABANA_VISIBLE_DEVICES",
    ];

    /// One of the variables, by its name.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        match name {
            "CUDA_VISIBLE_DEVICES" => self.visible.as_deref(),
            _ => self.others.get(name).map(String::as_str),
        }
    }
}
