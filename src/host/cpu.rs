//! How many CPUs this process may use: its affinity, cut by the quota of its cgroups.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::idset::parse_ids;

use super::read_line;

/// CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus {
    /// CPUs in the affinity mask: what Slurm's cgroup or binding leaves. At least 1.
    pub affinity: u32,
    /// The tightest quota of a cgroup, in thousandths of a CPU.
    pub quota_milli: Option<u64>,
}

impl Cpus {
    /// How many threads are worth starting: the affinity, or the quota rounded up where that is less. At least 1.
    #[must_use]
    pub fn allowed(&self) -> u32 {
        let quota = self.quota_milli.map_or(u64::MAX, |milli| milli.div_ceil(1000).max(1));
        u32::try_from(quota).unwrap_or(u32::MAX).min(self.affinity)
    }
}

/// Where control groups of version 2 are, below the root: alone, or beside those of version 1.
pub const CGROUP2_MOUNTS: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];

/// Reads the mask from procfs, which has no limit of 1024 CPUs as the C library's set does, and the quotas.
pub(super) fn read(root: &Path) -> Cpus {
    let status = read_line(&root.join("proc/self/status")).unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let count = list.and_then(parse_ids).map_or(1, |ids| ids.len().max(1));
    let groups = read_line(&root.join("proc/self/cgroup")).unwrap_or_default();
    Cpus {
        affinity: u32::try_from(count).unwrap_or(u32::MAX),
        quota_milli: groups.lines().filter_map(|line| quota_of(root, line)).min(),
    }
}

/// The tightest quota of one line of `/proc/self/cgroup` (`ID:CONTROLLERS:PATH`), upwards to the root.
fn quota_of(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    let mounts: Vec<PathBuf> = if controllers.is_empty() {
        CGROUP2_MOUNTS.map(|mount| root.join(mount)).into()
    } else if controllers.split(',').any(|controller| controller == "cpu") {
        [controllers, "cpu"].map(|name| root.join("sys/fs/cgroup").join(name)).into()
    } else {
        return None;
    };
    let below = |mount: &PathBuf| {
        let groups = Path::new(path).ancestors().map(|group| mount.join(group));
        groups
            .filter_map(|group| if controllers.is_empty() { quota_v2(&group) } else { quota_v1(&group) })
            .min()
    };
    mounts.iter().filter_map(below).min()
}

/// `cpu.max`: `QUOTA PERIOD` in microseconds, or `max PERIOD`.
fn quota_v2(group: &Path) -> Option<u64> {
    let text = read_line(&group.join("cpu.max"))?;
    let (quota, period) = text.split_once(' ')?;
    milli(quota.parse().ok()?, period.parse().ok()?)
}

/// The same in two files; no quota is -1.
fn quota_v1(group: &Path) -> Option<u64> {
    let number = |name: &str| read_line(&group.join(name))?.parse().ok();
    milli(number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
}

fn milli(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period)
}
