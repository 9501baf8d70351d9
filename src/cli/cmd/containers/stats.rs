//! `stats`: what containers use, by what procfs says of their processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::host::HostFacts;
use crate::runtime::{Container, Usage};

use super::super::Session;
use super::shelf;
use crate::cli::args::StatsArgs;
use crate::cli::failure::Failure;
use crate::cli::{table, term};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// A first look that is compared with a second for one answer.
const SHORT_PAUSE: Duration = Duration::from_millis(200);
/// Docker's table.
const DEFAULT: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";
const TITLES: [(&str, &str); 9] = [
    ("ID", "CONTAINER ID"),
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

pub(super) fn run(args: &StatsArgs, session: &Session) -> Result<(), Failure> {
    let memory_bytes = HostFacts::read(Path::new("/")).memory.total_bytes;
    let format = args.format.as_deref().filter(|format| *format != "table").unwrap_or(DEFAULT);
    let mut before = look(args, session)?;
    let mut at = Instant::now();
    loop {
        std::thread::sleep(if args.no_stream { SHORT_PAUSE } else { PAUSE });
        let now = look(args, session)?;
        let seconds = at.elapsed().as_secs_f64();
        at = Instant::now();
        let rows: Vec<Value> = now
            .values()
            .map(|(container, usage)| {
                let earlier = before.get(&container.record.id).map(|(_, usage)| usage);
                row(container, usage, earlier, seconds, memory_bytes, args.no_trunc)
            })
            .collect();
        let text = table::formatted(format, &rows, &TITLES)?;
        if args.no_stream {
            return term::print(&text);
        }
        // As docker does on a terminal: the top of the screen, and the rest cleared.
        let clear = if term::output_is_terminal() && args.format.is_none() { "\u{1b}[H\u{1b}[J" } else { "" };
        term::print(&format_args!("{clear}{text}"))?;
        before = now;
    }
}

type Looked = BTreeMap<String, (Container, Usage)>;

fn look(args: &StatsArgs, session: &Session) -> Result<Looked, Failure> {
    let shelf = shelf(session);
    let containers = if args.containers.is_empty() {
        let all = shelf.list()?.into_iter();
        all.filter(|container| args.all || container.is_running()).collect()
    } else {
        args.containers.iter().map(|word| shelf.find(word)).collect::<Result<Vec<_>, _>>()?
    };
    Ok(containers
        .into_iter()
        .map(|container| {
            let usage = container.usage();
            (container.record.id.clone(), (container, usage))
        })
        .collect())
}

fn row(
    container: &Container,
    usage: &Usage,
    earlier: Option<&Usage>,
    seconds: f64,
    memory_bytes: u64,
    whole: bool,
) -> Value {
    let record = &container.record;
    let id = if whole { &record.id } else { record.short_id() };
    let used = earlier.map_or(0.0, |earlier| (usage.cpu_seconds - earlier.cpu_seconds).max(0.0));
    let share = |part: f64, whole: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
    let memory = share(to_float(usage.memory_bytes), to_float(memory_bytes));
    json!({
        "ID": id,
        "Container": id,
        "Name": record.name,
        "CPUPerc": format!("{:.2}%", share(used, seconds)),
        "MemUsage": format!("{} / {}", binary(usage.memory_bytes), binary(memory_bytes)),
        "MemPerc": format!("{memory:.2}%"),
        // The network is the host's, and nobody counts it for one container.
        "NetIO": "--",
        "BlockIO": format!("{} / {}", decimal(usage.read_bytes), decimal(usage.written_bytes)),
        "PIDs": usage.processes.to_string(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn to_float(number: u64) -> f64 {
    number as f64
}

/// docker/go-units `BytesSize`: four digits on powers of 1024.
fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

/// docker/go-units `HumanSizeWithPrecision(_, 3)`.
fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    let (mut value, mut unit) = (to_float(bytes), 0);
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let whole = format!("{value:.0}").len();
    // Go's %.Ng: so many digits, without zeros at the end.
    let mut text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text}{}", units.get(unit).unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_docker_s() {
        for (bytes, expected) in
            [(0, "0B"), (1023, "1023B"), (1 << 20, "1MiB"), (1_500_000, "1.431MiB"), (8_589_934_592, "8GiB")]
        {
            assert_eq!(binary(bytes), expected);
        }
        for (bytes, expected) in [(0, "0B"), (8192, "8.19kB"), (12_345_678, "12.3MB"), (1000, "1kB")] {
            assert_eq!(decimal(bytes), expected);
        }
    }
}
