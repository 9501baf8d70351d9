//! Limits of a container as the files of a control group (`Documentation/admin-guide/cgroup-v2.rst`).

use crate::bundle::Resources;

/// The kernel's default period of CPU time, in microseconds.
const PERIOD_MICROSECONDS: u64 = 100_000;
/// The file that limits swap. A kernel may count memory and not swap, and then lacks it.
pub const SWAP_LIMIT: &str = "memory.swap.max";
/// Billionths of a CPU that are one.
const BILLION: u64 = 1_000_000_000;

/// The controllers that limits need, each once.
#[must_use]
pub fn controllers(resources: &Resources) -> Vec<&'static str> {
    let mut names: Vec<&'static str> =
        files(resources).iter().filter_map(|(file, _)| file.split('.').next()).collect();
    names.dedup();
    names
}

/// The files and what is written to them, in order.
pub(super) fn files(resources: &Resources) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    if let Some(cpus) = resources.cpus {
        let quota = u128::from(cpus) * u128::from(PERIOD_MICROSECONDS) / u128::from(BILLION);
        files.push(("cpu.max", format!("{} {PERIOD_MICROSECONDS}", quota.max(1000))));
    }
    if let Some(shares) = resources.cpu_shares {
        // As runc converts docker's shares (2 to 262144) to a weight (1 to 10000).
        let shares = shares.clamp(2, 262_144);
        files.push(("cpu.weight", (1 + (shares - 2) * 9999 / 262_142).to_string()));
    }
    if let Some(cpus) = &resources.cpuset {
        files.push(("cpuset.cpus", cpus.clone()));
    }
    if let Some(nodes) = &resources.cpuset_mems {
        files.push(("cpuset.mems", nodes.clone()));
    }
    if let Some(bytes) = resources.memory_bytes {
        files.push(("memory.max", bytes.to_string()));
    }
    if let Some(memory) = resources.memory_bytes {
        // docker's number holds the memory, too, and is twice the memory where it is not given.
        let swap = match resources.memory_swap_bytes.map(u64::try_from) {
            None => memory.to_string(),
            Some(Ok(both)) => both.saturating_sub(memory).to_string(),
            Some(Err(_)) => "max".into(),
        };
        files.push((SWAP_LIMIT, swap));
    }
    if let Some(bytes) = resources.memory_reservation_bytes {
        files.push(("memory.low", bytes.to_string()));
    }
    if let Some(count) = resources.pids {
        files.push(("pids.max", count.to_string()));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files() {
        let none = Resources::default;
        let check = |resources: Resources, expected: &[(&str, &str)]| {
            let found = files(&resources);
            let found: Vec<_> = found.iter().map(|(file, text)| (*file, text.as_str())).collect();
            assert_eq!(found, expected);
        };
        check(none(), &[]);
        check(Resources { cpus: Some(1_500_000_000), ..none() }, &[("cpu.max", "150000 100000")]);
        check(Resources { cpus: Some(1), ..none() }, &[("cpu.max", "1000 100000")]);
        check(Resources { cpu_shares: Some(1024), ..none() }, &[("cpu.weight", "39")]);
        check(Resources { cpuset: Some("0-3,8".into()), ..none() }, &[("cpuset.cpus", "0-3,8")]);
        let memory = Resources { memory_bytes: Some(100), pids: Some(7), ..none() };
        check(memory.clone(), &[("memory.max", "100"), ("memory.swap.max", "100"), ("pids.max", "7")]);
        for (both, swap) in [(150, "50"), (100, "0"), (-1, "max")] {
            check(
                Resources { memory_swap_bytes: Some(both), pids: None, ..memory.clone() },
                &[("memory.max", "100"), ("memory.swap.max", swap)],
            );
        }
        check(Resources { memory_swap_bytes: Some(-1), ..none() }, &[]);
        assert_eq!(controllers(&Resources { memory_swap_bytes: Some(150), ..memory }), ["memory", "pids"]);
    }
}
