//! `gpus --watch`: what the GPUs do now, again and again.

use std::time::Duration;

use crate::gpu::readings::{GpuProcess, MemoryUse};
use crate::gpu::{self, GpuReadings, HostRoot, Inventory, NvmlSession, Reading, Scope};

use super::super::Session;
use super::users::{self, User};
use crate::cli::failure::Failure;
use crate::cli::term;

/// Looks until Ctrl-C ends the program.
pub(super) fn run(pause: Duration, session: &Session) -> Result<(), Failure> {
    let (root, hints) = (super::root(session), super::hints(session));
    let mut inventory = gpu::read_inventory(&root, &hints);
    if inventory.vendor.as_deref() != Some("nvidia") {
        return Err(Failure::new(
            "there is nothing to watch: only NVIDIA's driver says what its GPUs do, and it is not loaded",
            "`slipway gpus` shows what this node has",
        ));
    }
    let mut nvml = super::nvml_session(session, &root, &inventory, Scope::Live);
    loop {
        let text = look(&root, &mut inventory, &mut nvml, session)?;
        // As `stats` does on a terminal: the top of the screen, and the rest cleared.
        let (clear, gap) = if term::output_is_terminal() { ("\u{1b}[H\u{1b}[J", "") } else { ("", "\n") };
        term::print(&format_args!("{clear}{text}{gap}"))?;
        std::thread::sleep(pause);
    }
}

fn look(
    root: &HostRoot,
    inventory: &mut Inventory,
    nvml: &mut NvmlSession,
    session: &Session,
) -> Result<String, Failure> {
    let said = nvml.round()?;
    inventory.findings.clear();
    gpu::merge_nvml(inventory, &said.report, &gpu::read_access(root, inventory));
    let readings = gpu::readings_of(inventory, &said);
    let containers = users::containers(session);
    let who = |process: &GpuProcess| users::read_user(process.pid, &containers);
    Ok(format!("{}\n{}", jiff::Zoned::now().strftime("%F %T"), table(inventory, &readings, who)))
}

/// Two tables: the GPUs, and the programs on them. What the driver does not say is a dash.
fn table(
    inventory: &Inventory,
    readings: &[Option<GpuReadings>],
    who: impl Fn(&GpuProcess) -> User,
) -> String {
    let dash = || "-".to_owned();
    let words = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let mut gpus = vec![words(&["GPU", "NAME", "USE", "MEMORY", "POWER", "TEMP", "SLOWED BY"])];
    let mut programs = vec![words(&["GPU", "PID", "USER", "MEMORY", "JOB", "CONTAINER", "COMMAND"])];
    let unread = GpuReadings::default();
    for (place, gpu) in inventory.gpus.iter().enumerate() {
        let said = readings.get(place).and_then(Option::as_ref).unwrap_or(&unread);
        let show = |text: Option<String>| text.unwrap_or_else(dash);
        gpus.push(vec![
            gpu.index.to_string(),
            show(gpu.name.clone()),
            show(said.utilisation.value().map(|share| format!("{}%", share.gpu_percent))),
            show(said.memory.value().map(memory_words)),
            show(said.power_draw_mw.value().map(|draw| power_words(*draw, &said.power_limit_mw))),
            show(said.temperature_celsius.value().map(|degrees| format!("{degrees} C"))),
            show(said.throttle_reasons.value().map(|reasons| slowed_words(reasons))),
        ]);
        for process in said.processes.value().into_iter().flatten() {
            let user = who(process);
            programs.push(vec![
                gpu.index.to_string(),
                process.pid.to_string(),
                show(user.user),
                show(process.memory_bytes.map(|bytes| format!("{} MiB", bytes >> 20))),
                show(user.job),
                show(user.container),
                show(user.command),
            ]);
        }
    }
    let mut text = gpu::align_rows(&gpus).join("\n");
    text.push_str("\n\n");
    if programs.len() > 1 {
        text.push_str(&gpu::align_rows(&programs).join("\n"));
    } else {
        text.push_str("no program uses a GPU, or none that the driver shows to you");
    }
    text.push('\n');
    for finding in &inventory.findings {
        text.push_str("finding: ");
        text.push_str(finding);
        text.push('\n');
    }
    text
}

fn memory_words(memory: &MemoryUse) -> String {
    format!("{} / {} MiB", memory.used_bytes >> 20, memory.total_bytes >> 20)
}

fn power_words(draw_mw: u32, limit_mw: &Reading<u32>) -> String {
    let limit = limit_mw.value().map(|limit| format!(" / {}", limit / 1000)).unwrap_or_default();
    format!("{}{limit} W", draw_mw / 1000)
}

/// An idle GPU is not slowed.
fn slowed_words(reasons: &[String]) -> String {
    let slow: Vec<&str> = reasons.iter().map(String::as_str).filter(|reason| *reason != "gpu-idle").collect();
    if slow.is_empty() { "-".into() } else { slow.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Gpu;
    use crate::gpu::readings::Utilisation;

    #[test]
    fn tables_for_people() {
        let gpu = |index| Gpu { index, name: Some("NVIDIA H200".into()), ..Gpu::default() };
        let inventory = Inventory { gpus: vec![gpu(0), gpu(1)], ..Inventory::default() };
        let process = GpuProcess { pid: 4711, kind: "compute".into(), memory_bytes: Some(5 << 30) };
        let busy = GpuReadings {
            utilisation: Reading::Value(Utilisation { gpu_percent: 97, memory_percent: 41 }),
            memory: Reading::Value(MemoryUse {
                total_bytes: 8 << 30,
                used_bytes: 6 << 30,
                free_bytes: 2 << 30,
            }),
            power_draw_mw: Reading::Value(682_300),
            power_limit_mw: Reading::Value(700_000),
            temperature_celsius: Reading::Value(61),
            throttle_reasons: Reading::Value(vec!["gpu-idle".into(), "sw-power-cap".into()]),
            processes: Reading::Value(vec![process]),
            ..GpuReadings::default()
        };
        let who = |_: &GpuProcess| User {
            user: Some("ada".into()),
            job: Some("12.0".into()),
            container: Some("bold_wing".into()),
            command: Some("python3".into()),
        };
        let expected = "\
GPU   NAME          USE   MEMORY            POWER         TEMP   SLOWED BY
0     NVIDIA H200   97%   6144 / 8192 MiB   682 / 700 W   61 C   sw-power-cap
1     NVIDIA H200   -     -                 -             -      -

GPU   PID    USER   MEMORY     JOB    CONTAINER   COMMAND
0     4711   ada    5120 MiB   12.0   bold_wing   python3
";
        assert_eq!(table(&inventory, &[Some(busy), None], who), expected);
    }
}
