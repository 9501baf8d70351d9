//! Schedulers and starters that are known by their variables alone: one row each.
//!
//! Flux: `flux-environment(7)`. PBS with PALS: `qsub(1)`, `pals(7)`. LSF with jsrun: IBM's "Environment variable
//! reference". Kubernetes: indexed jobs set JOB_COMPLETION_INDEX; the pod's uid comes by the downward API, where the site
//! calls it POD_UID.

use std::path::Path;

use crate::grants::JobGpus;

use super::{Environment, JobFacts, Scheduler, number, text, visible_gpus};

/// What a scheduler calls things; of several variables the first one that is set counts.
#[derive(Debug)]
pub(super) struct Row {
    name: &'static str,
    /// Any of these says that it is this scheduler.
    marks: &'static [&'static str],
    job: &'static [&'static str],
    /// Index within an array of jobs that share the job's id; 0 stands for none.
    index: &'static [&'static str],
    step: &'static [&'static str],
    rank: &'static [&'static str],
    local_rank: &'static [&'static str],
    local_tasks: &'static [&'static str],
    tasks: &'static [&'static str],
}

const NOTHING: Row = Row {
    name: "",
    marks: &[],
    job: &[],
    index: &[],
    step: &[],
    rank: &[],
    local_rank: &[],
    local_tasks: &[],
    tasks: &[],
};

pub(super) static FLUX: Row = Row {
    name: "flux",
    marks: &["FLUX_JOB_ID"],
    job: &["FLUX_JOB_ID"],
    rank: &["FLUX_TASK_RANK", "PMI_RANK"],
    local_rank: &["FLUX_TASK_LOCAL_ID"],
    tasks: &["FLUX_JOB_SIZE", "PMI_SIZE"],
    ..NOTHING
};

pub(super) static PBS: Row = Row {
    name: "pbs",
    marks: &["PBS_JOBID"],
    job: &["PBS_JOBID"],
    step: &["PALS_APID"],
    rank: &["PALS_RANKID", "PMI_RANK"],
    local_rank: &["PALS_LOCAL_RANKID", "PMI_LOCAL_RANK"],
    local_tasks: &["PMI_LOCAL_SIZE"],
    tasks: &["PMI_SIZE"],
    ..NOTHING
};

pub(super) static LSF: Row = Row {
    name: "lsf",
    marks: &["LSB_JOBID"],
    job: &["LSB_JOBID"],
    index: &["LSB_JOBINDEX"],
    step: &["JSM_NAMESPACE_ID"],
    rank: &["JSM_NAMESPACE_RANK"],
    local_rank: &["JSM_NAMESPACE_LOCAL_RANK"],
    local_tasks: &["JSM_NAMESPACE_LOCAL_SIZE"],
    tasks: &["JSM_NAMESPACE_SIZE"],
};

pub(super) static KUBERNETES: Row = Row {
    name: "kubernetes",
    marks: &["JOB_COMPLETION_INDEX"],
    job: &["POD_UID", "HOSTNAME"],
    rank: &["JOB_COMPLETION_INDEX"],
    ..NOTHING
};

/// A starter of ranks, by itself or within any scheduler: Open MPI, Hydra (MPICH, Intel MPI), MVAPICH.
pub(super) static MPIRUN: Row = Row {
    name: "mpirun",
    marks: &["OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_RANK"],
    rank: &["OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"],
    local_rank: &["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK"],
    local_tasks: &["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE"],
    tasks: &["OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE"],
    ..NOTHING
};

impl Row {
    fn is_here(&self, env: &Environment) -> bool {
        self.marks.iter().any(|name| text(env, name).is_some())
    }
}

impl Scheduler for Row {
    fn name(&self) -> &'static str {
        self.name
    }

    fn job(&self, env: &Environment, _root: &Path) -> Option<JobFacts> {
        let first = |names: &[&str]| names.iter().find_map(|name| text(env, name));
        let count = |names: &[&str]| names.iter().find_map(|name| number(env, name));
        if !self.is_here(env) {
            return None;
        }
        let index = first(self.index).filter(|index| index != "0").map(|index| format!("[{index}]"));
        let visible = visible_gpus(env);
        Some(JobFacts {
            scheduler: self.name.into(),
            job_id: first(self.job).map(|id| id + &index.unwrap_or_default()),
            step_id: first(self.step),
            node_name: None,
            tasks: count(self.tasks),
            process_id: count(self.rank),
            local_id: count(self.local_rank),
            local_tasks: count(self.local_tasks),
            // One that hands out GPUs says so here; others leave it to the site's device cgroup.
            gpus: JobGpus { in_job: visible.visible.is_some() || !visible.others.is_empty(), ..visible },
        })
    }
}

/// The ranks as `mpirun` numbers them: within a job of any scheduler, the variables of that are the same for all ranks
/// that one daemon of `mpirun` starts.
pub(super) fn count_ranks_by_mpirun(facts: &mut JobFacts, env: &Environment) {
    if let Some(ranks) = MPIRUN.job(env, Path::new("/")) {
        facts.tasks = ranks.tasks.or(facts.tasks);
        facts.process_id = ranks.process_id.or(facts.process_id);
        facts.local_id = ranks.local_id.or(facts.local_id);
        facts.local_tasks = ranks.local_tasks.or(facts.local_tasks);
    }
}
