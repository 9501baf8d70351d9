//! With whom a container shares user namespace and mount of the image.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::Session;
use crate::cli::args::RunArgs;
use crate::config::Linger;
use crate::host;
use crate::launch::{Scope, Sharing};
use crate::sched::{self, JobFacts};

/// How long a keeper stays where nobody says: between two starts of a script.
const LINGER: Duration = Duration::from_secs(60);

/// What the flags, the settings and the job say. A start that wants a server to itself gets one.
pub(super) fn sharing(args: &RunArgs, session: &Session) -> Sharing {
    let wants_counters =
        session.env.get(OsStr::new("SLIPWAY_FUSE_STATS")).is_some_and(|path| !path.is_empty());
    if args.no_join || args.record_hot || wants_counters {
        return Sharing::none();
    }
    let job = sched::read_job(&session.env, Path::new("/"));
    let directories = host::private_directories(&session.env, job.job_id.is_some());
    let root = directories.into_iter().next().unwrap_or_default();
    let (scopes, lead) = of_job(&job, session.settings.launch.linger.value);
    Sharing { root, scopes, lead }
}

/// In a step of `srun`: with the step's tasks, else with whom the job has left; a keeper there ends with the last task. In
/// a batch script of Slurm or an allocation's shell: with the job, for a while. Elsewhere the ranks of one node share, and
/// a keeper stays only if somebody asks.
fn of_job(job: &JobFacts, linger: Linger) -> (Vec<Scope>, Option<Duration>) {
    let of_the_job = Scope { node: job.node_name.clone(), job: job.job_id.clone(), step: None };
    let has_peers = job.local_tasks.or(job.tasks).is_some_and(|tasks| tasks > 1);
    if job.is_in_step() {
        let of_the_step = Scope { step: job.step_id.clone(), ..of_the_job.clone() };
        return (vec![of_the_step, of_the_job], has_peers.then_some(Duration::ZERO));
    }
    let is_slurm = job.scheduler == "slurm";
    let linger = match linger {
        Linger::Seconds(seconds) => Duration::from_secs(seconds.into()),
        Linger::Auto if is_slurm => LINGER,
        Linger::Auto => Duration::ZERO,
    };
    // Slurm calls a batch script rank 0 of all its tasks; elsewhere who has a rank has peers.
    let is_rank = !is_slurm && has_peers && job.process_id.is_some();
    if linger.is_zero() && !is_rank { (Vec::new(), None) } else { (vec![of_the_job], Some(linger)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_share_and_scripts_linger() {
        let check = |job: Option<&str>,
                     step: Option<&str>,
                     tasks,
                     linger,
                     expected: (&[&str], Option<u64>)| {
            let facts = JobFacts {
                scheduler: if job.is_some() { "slurm" } else { "mpirun" }.into(),
                process_id: Some(0),
                job_id: job.map(str::to_owned),
                step_id: step.map(str::to_owned),
                tasks: Some(tasks),
                ..JobFacts::default()
            };
            let (scopes, lead) = of_job(&facts, linger);
            let scopes: Vec<String> = scopes.iter().map(Scope::to_string).collect();
            assert_eq!(
                (scopes.as_slice(), lead.map(|lead| lead.as_secs())),
                (expected.0.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>().as_slice(), expected.1,)
            );
        };
        check(None, None, 1, Linger::Auto, (&[], None));
        check(None, None, 1, Linger::Seconds(5), (&["this node"], Some(5)));
        check(None, None, 2, Linger::Auto, (&["this node"], Some(0)));
        check(Some("7"), None, 1, Linger::Auto, (&["job 7"], Some(60)));
        check(Some("7"), None, 4, Linger::Seconds(0), (&[], None));
        check(Some("7"), Some("4294967290"), 1, Linger::Auto, (&["job 7"], Some(60)));
        check(Some("7"), Some("0"), 1, Linger::Seconds(9), (&["step 7.0", "job 7"], None));
        check(Some("7"), Some("0"), 4, Linger::Seconds(9), (&["step 7.0", "job 7"], Some(0)));
    }
}
