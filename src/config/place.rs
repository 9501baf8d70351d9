//! Where this process is, for records that hold on some nodes or in some partitions.

use std::cell::OnceCell;
use std::ffi::OsStr;

use super::{Environment, Sources};

/// A node and a partition, in the scheduler's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The node's name.
    pub node: Option<String>,
    /// The job's partition.
    pub partition: Option<String>,
}

impl Place {
    /// This process's own: as Slurm says, else the host's name up to its first dot, as Slurm does.
    #[must_use]
    pub fn here(env: &Environment) -> Self {
        let text = |name: &str| {
            env.get(OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
        };
        let node = text("SLURMD_NODENAME").map(str::to_owned).or_else(host_name);
        Self { node, partition: text("SLURM_JOB_PARTITION").map(str::to_owned) }
    }
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().split('.').next()?.to_owned())
}

/// The place, found out when it is first asked for: most configurations have no records.
pub(super) struct Whereabouts<'a> {
    env: &'a Environment,
    place: OnceCell<Place>,
}

impl<'a> Whereabouts<'a> {
    pub(super) fn new(sources: &Sources<'a>) -> Self {
        let place = sources.place.cloned().map_or_else(OnceCell::new, OnceCell::from);
        Self { env: sources.env, place }
    }

    pub(super) fn get(&self) -> &Place {
        self.place.get_or_init(|| Place::here(self.env))
    }
}
