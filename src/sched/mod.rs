//! What the batch scheduler says about this process: job, step, rank, and the GPUs that it was given.
//!
//! [`read_job`] makes plain [`JobFacts`] from an environment that the caller hands over; nothing here asks the process's
//! own. The one file that is read is Slurm's `gres.conf`, where it is readable, since only it says which device node a
//! GPU index means.

mod slurm;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::grants::JobGpus;

/// An environment, as the program received it.
pub type Environment = BTreeMap<OsString, OsString>;

/// What is known of the job that this process belongs to. Outside a job: scheduler `none` and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobFacts {
    /// Name of the scheduler (`slurm`, `none`).
    pub scheduler: String,
    /// The job's id.
    pub job_id: Option<String>,
    /// The step's id, inside a step.
    pub step_id: Option<String>,
    /// The node's name in the scheduler's words.
    pub node_name: Option<String>,
    /// Tasks of the step, over all nodes.
    pub tasks: Option<u32>,
    /// Rank of this task in the step.
    pub process_id: Option<u32>,
    /// Rank of this task on its node.
    pub local_id: Option<u32>,
    /// The GPUs that the job was given here.
    pub gpus: JobGpus,
}

/// A batch scheduler that Slipway understands.
pub trait Scheduler: Sync + Debug {
    /// Short name, as [`JobFacts::scheduler`] shows it.
    fn name(&self) -> &'static str;

    /// The job by this scheduler's variables; `None` if they name none. Files of the host lie below `root`.
    fn job(&self, env: &Environment, root: &Path) -> Option<JobFacts>;
}

/// Every scheduler, in the order in which they are asked.
pub static SCHEDULERS: &[&dyn Scheduler] = &[&slurm::Slurm, &NoScheduler];

/// Outside any job.
#[derive(Debug)]
struct NoScheduler;

impl Scheduler for NoScheduler {
    fn name(&self) -> &'static str {
        "none"
    }

    fn job(&self, env: &Environment, _root: &Path) -> Option<JobFacts> {
        let gpus = JobGpus { visible: text(env, "CUDA_VISIBLE_DEVICES"), ..JobGpus::default() };
        Some(JobFacts { scheduler: self.name().into(), gpus, ..JobFacts::default() })
    }
}

/// The facts by the first scheduler that knows a job. Files of the host are read below `root` (`/` but in tests).
#[must_use]
pub fn read_job(env: &Environment, root: &Path) -> JobFacts {
    SCHEDULERS.iter().find_map(|scheduler| scheduler.job(env, root)).unwrap_or_default()
}

/// A variable as text; one that is not UTF-8 is none of a scheduler's.
fn text(env: &Environment, name: &str) -> Option<String> {
    env.get(OsStr::new(name))?.to_str().map(str::to_owned)
}

fn number(env: &Environment, name: &str) -> Option<u32> {
    text(env, name)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn first_scheduler_with_a_job_answers() {
        let nowhere = Path::new("/nonexistent");
        let slurm = read_job(
            &environment(&[
                ("SLURM_JOB_ID", "17"),
                ("SLURM_STEP_ID", "0"),
                ("SLURMD_NODENAME", "n1"),
                ("SLURM_NTASKS", "8"),
                ("SLURM_PROCID", "5"),
                ("SLURM_LOCALID", "1"),
                ("SLURM_STEP_GPUS", "0,1"),
                ("CUDA_VISIBLE_DEVICES", "0"),
            ]),
            nowhere,
        );
        let expected = JobFacts {
            scheduler: "slurm".into(),
            job_id: Some("17".into()),
            step_id: Some("0".into()),
            node_name: Some("n1".into()),
            tasks: Some(8),
            process_id: Some(5),
            local_id: Some(1),
            gpus: JobGpus {
                in_job: true,
                step: Some("0,1".into()),
                job: None,
                visible: Some("0".into()),
                minors: None,
            },
        };
        assert_eq!(slurm, expected);
        let json = serde_json::to_string(&slurm).unwrap();
        assert_eq!(serde_json::from_str::<JobFacts>(&json).unwrap(), expected);

        let none = read_job(&environment(&[("CUDA_VISIBLE_DEVICES", "3"), ("SLURM_PROCID", "1")]), nowhere);
        assert_eq!((none.scheduler.as_str(), none.job_id, none.gpus.in_job), ("none", None, false));
        assert_eq!(none.gpus.visible.as_deref(), Some("3"));
    }
}
