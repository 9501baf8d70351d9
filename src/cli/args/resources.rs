//! Flags of `run` that limit what a container takes.

use clap::Args;

use crate::base::sizes::parse_size;
use crate::bundle::Resources;

/// Limits by a control group.
#[derive(Debug, Args)]
pub(in crate::cli) struct ResourceArgs {
    /// Limit the CPU time: so many CPUs, as 1.5
    #[arg(long, value_name = "COUNT", value_parser = parse_cpus)]
    cpus: Option<u64>,
    /// CPU time in a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", hide = true, allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Length of the period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", hide = true)]
    cpu_period: Option<u64>,
    /// Weigh the CPU time against other containers; 1024 is one share
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Run on these CPUs only, as 0-3,8
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Use the memory of these NUMA nodes only, as 0,1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Limit the memory, as 2g
    #[arg(short = 'm', long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Limit memory and swap together; -1 is no limit
    #[arg(long, value_name = "BYTES", value_parser = parse_swap, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Memory below which nothing is reclaimed
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory_reservation: Option<u64>,
    /// Limit the number of processes; -1 is no limit
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Be killed earlier (up to 1000) or later when the node is out of memory
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub(in crate::cli) oom_score_adj: Option<i32>,
}

impl ResourceArgs {
    /// The same as plain data; a limit of -1 or 0 is none, as docker has it.
    pub(in crate::cli) fn resources(&self) -> Resources {
        /// The kernel's default period.
        const PERIOD_MICROSECONDS: u64 = 100_000;
        let by_quota = self.cpu_quota.and_then(|quota| u64::try_from(quota).ok()).map(|quota| {
            let period = self.cpu_period.filter(|period| *period > 0).unwrap_or(PERIOD_MICROSECONDS);
            quota.saturating_mul(1_000_000_000) / period
        });
        let positive = |number: Option<u64>| number.filter(|number| *number > 0);
        Resources {
            cpus: positive(self.cpus.or(by_quota)),
            cpu_shares: positive(self.cpu_shares),
            cpuset: self.cpuset_cpus.clone().filter(|list| !list.is_empty()),
            cpuset_mems: self.cpuset_mems.clone().filter(|list| !list.is_empty()),
            memory_bytes: positive(self.memory),
            // Without a limit of memory, no limit of both says nothing.
            memory_swap_bytes: self
                .memory_swap
                .filter(|swap| *swap > 0 || *swap < 0 && positive(self.memory).is_some()),
            memory_reservation_bytes: positive(self.memory_reservation),
            pids: positive(self.pids_limit.and_then(|pids| u64::try_from(pids).ok())),
        }
    }
}

/// A number of CPUs in billionths, as docker's API has it.
fn parse_cpus(text: &str) -> Result<u64, String> {
    let bad = || "a number of CPUs is expected, such as 1.5".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 9
        || !part.bytes().all(|byte| byte.is_ascii_digit())
        || whole.is_empty() && part.is_empty()
    {
        return Err(bad());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let billionths: u64 = format!("{part:0<9}").parse().map_err(|_| bad())?;
    whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(billionths)).ok_or_else(bad)
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "a size is expected, such as 512m or 2g".into())
}

fn parse_swap(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let bytes = parse_bytes(text)?;
    i64::try_from(bytes).map_err(|_| "the size is too large".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_of_cpus() {
        for (text, expected) in [
            ("1", Some(1_000_000_000)),
            ("1.5", Some(1_500_000_000)),
            (".25", Some(250_000_000)),
            ("0.000000001", Some(1)),
            ("0.0000000001", None),
            ("", None),
            (".", None),
            ("-1", None),
            ("1.x", None),
            ("99999999999999", None),
        ] {
            assert_eq!(parse_cpus(text).ok(), expected, "{text}");
        }
        assert_eq!(parse_swap("-1"), Ok(-1));
        assert!(parse_bytes("2g").is_ok() && parse_bytes("2x").is_err());
    }
}
