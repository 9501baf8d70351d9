//! What a container's processes use, by what procfs says.

use std::fs;

use super::container::Container;

/// The sum over all processes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// CPU time so far, of the processes that run.
    pub cpu_seconds: f64,
    /// Memory that is theirs, shared pages by their share.
    pub memory_bytes: u64,
    /// Read from storage.
    pub read_bytes: u64,
    /// Written to storage.
    pub written_bytes: u64,
    /// Processes and threads.
    pub processes: u64,
}

impl Container {
    /// What it uses now. A process that ends meanwhile is left out.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let ticks = crate::sys::process::clock_ticks();
        let mut usage = Usage::default();
        for pid in self.processes() {
            let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let stat = read("stat");
            let Some((_, rest)) = stat.rsplit_once(')') else { continue };
            // Counted behind the name, which may hold anything: utime and stime are 14 and 15, the threads 20 (proc(5)).
            let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
            let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
            usage.cpu_seconds += (f64::from(field(11)) + f64::from(field(12))) / f64::from(ticks);
            usage.processes += u64::from(field(17).max(1));
            let rollup = read("smaps_rollup");
            // Another's user id, or a kernel before 4.14: what is resident, with what it shares.
            let kibibytes = value(&rollup, "Pss:").or_else(|| value(&read("status"), "VmRSS:")).unwrap_or(0);
            usage.memory_bytes += kibibytes << 10;
            let io = read("io");
            usage.read_bytes += value(&io, "read_bytes:").unwrap_or(0);
            usage.written_bytes += value(&io, "write_bytes:").unwrap_or(0);
        }
        usage
    }
}

fn value(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
