//! What the batch scheduler says about this process: job, step, rank, and the GPUs that it was given.
//!
//! [`read_job`] makes plain [`JobFacts`] from an environment that the caller hands over; nothing here asks the process's
//! own. The one file that is read is Slurm's `gres.conf`, where it is readable, since only it says which device node a
//! GPU index means.

mod others;
mod slurm;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::grants::JobGpus;

pub use slurm::pmix_directory;

/// An environment, as the program received it.
pub type Environment = BTreeMap<OsString, OsString>;

/// What is known of the job that this process belongs to. Outside a job: scheduler `none` and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobFacts {
    /// Name of the scheduler (`slurm`, `flux`, `pbs`, `lsf`, `kubernetes`, `mpirun`, `none`).
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
    /// Tasks of the step on this node.
    pub local_tasks: Option<u32>,
    /// The GPUs that the job was given here.
    pub gpus: JobGpus,
}

impl JobFacts {
    /// Whether this is a step that `srun` has started, and not a batch script or the shell of an allocation.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        /// Slurm's numbers for what is no step of `srun`: batch script, interactive step, extern step (slurm.h).
        const FIRST_SPECIAL_STEP: u32 = 0xffff_fff0;
        let number = self.step_id.as_deref().and_then(|id| id.parse::<u32>().ok());
        number.is_some_and(|number| number < FIRST_SPECIAL_STEP)
    }
}

/// A batch scheduler that Slipway understands.
pub trait Scheduler: Sync + Debug {
    /// Short name, as [`JobFacts::scheduler`] shows it.
    fn name(&self) -> &'static str;

    /// The job by this scheduler's variables; `None` if they name none. Files of the host lie below `root`.
    fn job(&self, env: &Environment, root: &Path) -> Option<JobFacts>;
}

/// Every scheduler, in the order in which they are asked.
pub static SCHEDULERS: &[&dyn Scheduler] = &[
    &slurm::Slurm,
    &others::FLUX,
    &others::PBS,
    &others::LSF,
    &others::KUBERNETES,
    &others::MPIRUN,
    &NoScheduler,
];

/// Outside any job.
#[derive(Debug)]
struct NoScheduler;

impl Scheduler for NoScheduler {
    fn name(&self) -> &'static str {
        "none"
    }

    fn job(&self, env: &Environment, _root: &Path) -> Option<JobFacts> {
        Some(JobFacts { scheduler: self.name().into(), gpus: visible_gpus(env), ..JobFacts::default() })
    }
}

/// The facts by the first scheduler that knows a job. Files of the host are read below `root` (`/` but in tests).
#[must_use]
pub fn read_job(env: &Environment, root: &Path) -> JobFacts {
    let mut facts = SCHEDULERS.iter().find_map(|scheduler| scheduler.job(env, root)).unwrap_or_default();
    others::count_ranks_by_mpirun(&mut facts, env);
    facts
}

/// A variable as text; one that is not UTF-8 is none of a scheduler's.
fn text(env: &Environment, name: &str) -> Option<String> {
    env.get(OsStr::new(name))?.to_str().map(str::to_owned)
}

/// What the variables of the vendors' own runtimes say.
fn visible_gpus(env: &Environment) -> JobGpus {
    let others = JobGpus::OTHERS.iter().filter_map(|name| Some(((*name).to_owned(), text(env, name)?)));
    let hierarchy = text(env, "ZE_FLAT_DEVICE_HIERARCHY");
    JobGpus {
        visible: text(env, "CUDA_VISIBLE_DEVICES"),
        others: others.collect(),
        counts_tiles: matches!(hierarchy.as_deref(), Some("FLAT" | "COMBINED")),
        ..JobGpus::default()
    }
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
                ("SLURM_NODEID", "1"),
                ("SLURM_STEP_TASKS_PER_NODE", "2,4(x2)"),
                ("SLURM_STEP_GPUS", "0,1"),
                ("CUDA_VISIBLE_DEVICES", "0"),
                ("ROCR_VISIBLE_DEVICES", "1"),
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
            local_tasks: Some(4),
            gpus: JobGpus {
                in_job: true,
                step: Some("0,1".into()),
                job: None,
                visible: Some("0".into()),
                others: [("ROCR_VISIBLE_DEVICES".into(), "1".into())].into(),
                counts_tiles: false,
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

    #[test]
    fn only_steps_of_srun_are_steps() {
        let step = |id: Option<&str>| {
            JobFacts { step_id: id.map(str::to_owned), ..JobFacts::default() }.is_in_step()
        };
        assert!(step(Some("0")) && step(Some("12")));
        assert!(!step(None) && !step(Some("4294967290")) && !step(Some("batch")));
    }

    #[test]
    fn every_scheduler_has_its_words() {
        let nowhere = Path::new("/nonexistent");
        type Numbers = (Option<u32>, Option<u32>, Option<u32>, Option<u32>);
        let check =
            |pairs: &[(&str, &str)], name: &str, job: Option<&str>, step: Option<&str>, ranks: Numbers| {
                let facts = read_job(&environment(pairs), nowhere);
                assert_eq!(facts.scheduler, name);
                assert_eq!((facts.job_id.as_deref(), facts.step_id.as_deref()), (job, step), "{name}");
                let found = (facts.process_id, facts.tasks, facts.local_id, facts.local_tasks);
                assert_eq!(found, ranks, "{name}");
            };
        check(
            &[
                ("FLUX_JOB_ID", "f2xQ"),
                ("FLUX_TASK_RANK", "3"),
                ("FLUX_TASK_LOCAL_ID", "1"),
                ("FLUX_JOB_SIZE", "4"),
                ("PMI_RANK", "9"),
            ],
            "flux",
            Some("f2xQ"),
            None,
            (Some(3), Some(4), Some(1), None),
        );
        check(
            &[
                ("PBS_JOBID", "12[3].server"),
                ("PALS_APID", "a-b"),
                ("PALS_RANKID", "5"),
                ("PALS_LOCAL_RANKID", "1"),
                ("PMI_LOCAL_SIZE", "2"),
                ("PMI_SIZE", "8"),
            ],
            "pbs",
            Some("12[3].server"),
            Some("a-b"),
            (Some(5), Some(8), Some(1), Some(2)),
        );
        check(
            &[
                ("LSB_JOBID", "77"),
                ("LSB_JOBINDEX", "4"),
                ("JSM_NAMESPACE_RANK", "2"),
                ("JSM_NAMESPACE_LOCAL_RANK", "0"),
                ("JSM_NAMESPACE_SIZE", "6"),
            ],
            "lsf",
            Some("77[4]"),
            None,
            (Some(2), Some(6), Some(0), None),
        );
        check(
            &[("LSB_JOBID", "77"), ("LSB_JOBINDEX", "0")],
            "lsf",
            Some("77"),
            None,
            (None, None, None, None),
        );
        check(
            &[("JOB_COMPLETION_INDEX", "3"), ("HOSTNAME", "job-3-x")],
            "kubernetes",
            Some("job-3-x"),
            None,
            (Some(3), None, None, None),
        );
        check(
            &[("MPI_LOCALRANKID", "1"), ("MPI_LOCALNRANKS", "2"), ("PMI_RANK", "3"), ("PMI_SIZE", "4")],
            "mpirun",
            None,
            None,
            (Some(3), Some(4), Some(1), Some(2)),
        );
        // mpirun in a batch script: Slurm's own numbers are those of its daemon.
        check(
            &[
                ("SLURM_JOB_ID", "1"),
                ("SLURM_PROCID", "0"),
                ("SLURM_LOCALID", "0"),
                ("SLURM_NTASKS", "2"),
                ("OMPI_COMM_WORLD_RANK", "6"),
                ("OMPI_COMM_WORLD_SIZE", "8"),
                ("OMPI_COMM_WORLD_LOCAL_RANK", "2"),
                ("OMPI_COMM_WORLD_LOCAL_SIZE", "4"),
            ],
            "slurm",
            Some("1"),
            None,
            (Some(6), Some(8), Some(2), Some(4)),
        );
    }

    #[test]
    fn a_scheduler_that_names_gpus_fences_them() {
        let job = |pairs: &[(&str, &str)]| read_job(&environment(pairs), Path::new("/nonexistent")).gpus;
        let named = job(&[("FLUX_JOB_ID", "f"), ("CUDA_VISIBLE_DEVICES", "2")]);
        assert_eq!((named.in_job, named.visible.as_deref()), (true, Some("2")));
        let named = job(&[("PBS_JOBID", "1"), ("ZE_AFFINITY_MASK", "0.1")]);
        assert_eq!((named.in_job, named.variable("ZE_AFFINITY_MASK")), (true, Some("0.1")));
        let tiles = job(&[("PBS_JOBID", "1"), ("ZE_FLAT_DEVICE_HIERARCHY", "FLAT")]);
        assert!(!tiles.in_job && tiles.counts_tiles);
        assert!(!job(&[("PBS_JOBID", "1")]).in_job);
    }
}
