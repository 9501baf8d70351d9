//! Slurm: its variables (srun(1), sbatch(1)) and `gres.conf`.
#![expect(clippy::disallowed_methods, reason = "reads gres.conf where it is readable")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::base::Hostlist;
use crate::grants::JobGpus;

use super::{Environment, JobFacts, Scheduler, number, text, visible_gpus};

/// Most bytes of a configuration file that are read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The Slurm workload manager.
#[derive(Debug)]
pub(super) struct Slurm;

impl Scheduler for Slurm {
    fn name(&self) -> &'static str {
        "slurm"
    }

    fn job(&self, env: &Environment, root: &Path) -> Option<JobFacts> {
        let job_id = text(env, "SLURM_JOB_ID").or_else(|| text(env, "SLURM_JOBID"))?;
        let node_name = text(env, "SLURMD_NODENAME");
        let gpus = JobGpus {
            in_job: true,
            step: text(env, "SLURM_STEP_GPUS"),
            job: text(env, "SLURM_JOB_GPUS"),
            minors: read_config(env, root, "gres.conf")
                .and_then(|file| parse_minors(&file, node_name.as_deref())),
            ..visible_gpus(env)
        };
        Some(JobFacts {
            scheduler: self.name().into(),
            job_id: Some(job_id),
            step_id: text(env, "SLURM_STEP_ID").or_else(|| text(env, "SLURM_STEPID")),
            node_name,
            tasks: number(env, "SLURM_STEP_NUM_TASKS").or_else(|| number(env, "SLURM_NTASKS")),
            process_id: number(env, "SLURM_PROCID"),
            local_id: number(env, "SLURM_LOCALID"),
            local_tasks: text(env, "SLURM_STEP_TASKS_PER_NODE")
                .zip(number(env, "SLURM_NODEID"))
                .and_then(|(counts, node)| counter(&counts, node)),
            gpus,
        })
    }
}

/// The number of one node in Slurm's compressed counts: `2(x3),1` stands for 2, 2, 2, 1.
fn counter(counts: &str, node: u32) -> Option<u32> {
    let mut before = 0_u32;
    for item in counts.split(',') {
        let (count, times) = match item.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (item, 1),
        };
        before = before.checked_add(times)?;
        if node < before {
            return count.parse().ok();
        }
    }
    None
}

/// The directory that Slurm's PMIx makes for the ranks of a step beside the server's: in `TmpFS`, unless SLURM_PMIX_TMPDIR is
/// set. No variable names it (`mpi/pmix/pmixp_info.c`: `spmix_appdir_UID_JOB.STEP`).
#[must_use]
pub fn pmix_directory(env: &Environment, root: &Path) -> Option<PathBuf> {
    let job = text(env, "SLURM_JOB_ID")?;
    let (user, step) = (text(env, "SLURM_JOB_UID")?, text(env, "SLURM_STEP_ID")?);
    let base = text(env, "SLURM_PMIX_TMPDIR").or_else(|| {
        let config = read_config(env, root, "slurm.conf")?;
        let value = parse_temporary(&config)?;
        let node = text(env, "SLURMD_NODENAME").unwrap_or_default();
        Some(value.replace("%n", &node).replace("%h", &node))
    });
    let base = PathBuf::from(base.unwrap_or_else(|| "/tmp".into()));
    base.is_absolute().then(|| base.join(format!("spmix_appdir_{user}_{job}.{step}")))
}

/// The value of `TmpFS`, whose name may have any case.
fn parse_temporary(config: &str) -> Option<String> {
    config.lines().rev().find_map(|line| {
        let (name, value) = line.split('#').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("TmpFS").then(|| value.trim().to_owned())
    })
}

/// `gres.conf` or `slurm.conf`: where SLURM_CONF says, else where packages put it, else slurmd's fetched copy.
fn read_config(env: &Environment, root: &Path, name: &str) -> Option<String> {
    let configured =
        text(env, "SLURM_CONF").and_then(|path| Some(PathBuf::from(path).parent()?.to_path_buf()));
    let usual = ["/etc/slurm", "/etc/slurm-llnl", "/run/slurm/conf"].map(PathBuf::from);
    configured.into_iter().chain(usual).find_map(|directory| {
        let directory = directory.strip_prefix("/").ok()?.to_path_buf();
        let file = fs::File::open(root.join(directory).join(name)).ok()?;
        let mut config = String::new();
        file.take(MAX_CONFIG_BYTES).read_to_string(&mut config).ok()?;
        Some(config)
    })
}

/// The minor of each GPU index of `node`, from the `File=` of its lines in order: `/dev/nvidia0`, or a render node or an
/// accelerator's.
///
/// `None` where the file leaves that open: lines without `File=`, nodes of another kind or of several, included files, or
/// a name that cannot be read. Then PCI order is the better guess.
fn parse_minors(config: &str, node: Option<&str>) -> Option<Vec<u32>> {
    const KINDS: [&str; 3] = ["/dev/nvidia", "/dev/dri/renderD", "/dev/accel/accel"];
    let (mut minors, mut kinds) = (Vec::new(), BTreeSet::new());
    for line in config.replace("\\\n", " ").lines() {
        let line = line.split('#').next().unwrap_or_default();
        let word = |key: &str| {
            line.split_whitespace().find_map(|word| {
                let (name, value) = word.split_once('=')?;
                name.eq_ignore_ascii_case(key).then_some(value)
            })
        };
        if line.trim_start().to_ascii_lowercase().starts_with("include") {
            return None;
        }
        if let Some(names) = word("NodeName")
            && !Hostlist::parse(names).ok()?.contains(node.unwrap_or_default())
        {
            continue;
        }
        if !word("Name").is_some_and(|name| name.eq_ignore_ascii_case("gpu")) {
            continue;
        }
        for file in Hostlist::parse(word("File")?).ok()?.names() {
            let (kind, minor) = KINDS.iter().find_map(|kind| Some((kind, file.strip_prefix(kind)?)))?;
            kinds.insert(kind);
            minors.push(minor.parse().ok()?);
        }
    }
    (kinds.len() == 1).then_some(minors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gres_conf_gives_minors_in_index_order() {
        let check = |config: &str, expected: Option<&[u32]>| {
            assert_eq!(parse_minors(config, Some("n03")).as_deref(), expected, "{config}");
        };
        check("Name=gpu Type=h100 File=/dev/nvidia[0-3]\n", Some(&[0, 1, 2, 3]));
        check("Name=gpu File=/dev/nvidia[2-3,0]\nname=GPU file=/dev/nvidia1 # last\n", Some(&[2, 3, 0, 1]));
        check("NodeName=n[01-04] Name=gpu \\\n File=/dev/nvidia1,/dev/nvidia0\n", Some(&[1, 0]));
        check("NodeName=n[1-4] Name=gpu File=/dev/nvidia1\n", None);
        check(
            "NodeName=m1 Name=gpu File=/dev/nvidia1\nNodeName=n03 Name=gpu File=/dev/nvidia4\n",
            Some(&[4]),
        );
        check("Name=nic File=/dev/x\nName=gpu File=/dev/nvidia0\n", Some(&[0]));
        check("AutoDetect=nvml\n", None);
        check("Name=gpu Count=4\n", None);
        check("Name=gpu File=/dev/dri/renderD[136,128]\n", Some(&[136, 128]));
        check("Name=gpu File=/dev/accel/accel[0-1]\n", Some(&[0, 1]));
        check("Name=gpu File=/dev/dri/card0\n", None);
        check("Name=gpu File=/dev/nvidia0\nName=gpu File=/dev/dri/renderD128\n", None);
        check("Include /etc/slurm/more.conf\nName=gpu File=/dev/nvidia0\n", None);
        check("Name=gpu File=/dev/nvidia[3-0]\n", None);
        check("Name=gpu File=/dev/nvidia[0-99999999]\n", None);
        check("Name=gpu File=/dev/nvidia[0-\n", None);
    }

    #[test]
    fn counts_are_those_of_the_node() {
        for (counts, node, expected) in [
            ("4", 0, Some(4)),
            ("4", 1, None),
            ("2(x3),1", 2, Some(2)),
            ("2(x3),1", 3, Some(1)),
            ("2(x3", 0, None),
            ("2(x4294967295),1(x2)", 4_294_967_295, None),
            ("", 0, None),
        ] {
            assert_eq!(counter(counts, node), expected, "{counts} {node}");
        }
    }

    #[test]
    fn gres_conf_is_found_beside_slurm_conf() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("opt/slurm");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("gres.conf"), "Name=gpu File=/dev/nvidia[4-5]\n").unwrap();
        let env: Environment = [("SLURM_JOB_ID", "1"), ("SLURM_CONF", "/opt/slurm/slurm.conf")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        let facts = Slurm.job(&env, root.path()).unwrap();
        assert_eq!(facts.gpus.minors, Some(vec![4, 5]));
    }
}
