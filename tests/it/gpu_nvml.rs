//! Readings of NVML from built hosts: what golden machines say, and what each kind of failure costs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::time::{Duration, Instant};

use slipway::gpu::readings::{Fabric, Mode, NvLink, Peer, RemappedRows};
use slipway::gpu::{self, GpuReadings, Hints, NvmlError, NvmlReadings, NvmlSession, Reading, Scope};

use crate::support::host::Host;

/// Long enough for a slow machine to answer, and for a test to wait for.
const DEADLINE: Duration = Duration::from_secs(2);

fn session(host: &Host, deadline: Duration, scope: Scope) -> NvmlSession {
    let inventory = gpu::read_inventory(&host.root(), &Hints::default());
    let library = gpu::nvml_library(&inventory, &host.root()).unwrap();
    NvmlSession::new(Path::new(env!("CARGO_BIN_EXE_slipway")), Some(&library), deadline, scope)
}

fn read(host: &Host, deadline: Duration) -> Result<NvmlReadings, NvmlError> {
    session(host, deadline, Scope::All).round()
}

/// The H200 node with something that goes wrong.
fn broken(injection: &str) -> Host {
    let scenario = std::fs::read_to_string("tests/fixtures/scenarios/h200.toml").unwrap();
    Host::build_from(&format!("{scenario}\n[[inject]]\n{injection}\n"))
}

fn words<T: std::fmt::Debug>(reading: &Reading<T>) -> &str {
    match reading {
        Reading::Error(error) => &error.words,
        other => panic!("{other:?} is no error"),
    }
}

/// Every reading that is not what the whole machine says, as `gpu.key`.
fn differences(found: &NvmlReadings, whole: &NvmlReadings) -> Vec<String> {
    let plain = |readings: &GpuReadings| serde_json::to_value(readings).unwrap();
    let mut names = Vec::new();
    for (place, (found, whole)) in found.gpus.iter().zip(&whole.gpus).enumerate() {
        let (found, whole) = (plain(found), plain(whole));
        let keys = whole.as_object().unwrap().keys().filter(|key| found[*key] != whole[*key]);
        names.extend(keys.map(|key| format!("{place}.{key}")));
    }
    names
}

#[test]
fn readings_of_an_h200() {
    let found = read(&Host::build("h200"), Duration::from_secs(60)).unwrap();
    assert_eq!(found.report.cuda_version.as_deref(), Some("12.8"));
    let third = &found.gpus[2];
    assert_eq!(third.compute_capability.value().unwrap(), "9.0");
    assert_eq!(third.architecture.value().unwrap(), "hopper");
    assert_eq!(third.brand.value().unwrap(), "nvidia");
    assert_eq!(third.serial.value().unwrap(), "1654025002001");
    assert_eq!(third.vbios.value().unwrap(), "96.00.A5.00.01");
    assert_eq!(third.module_id, Reading::Value(3));
    assert_eq!(third.cpu_affinity.value().unwrap(), "0-47,96-143");
    assert_eq!(third.numa_affinity.value().unwrap(), "0");
    assert_eq!(third.gpu_numa_node, Reading::Unsupported);
    assert_eq!(third.memory.value().unwrap().used_bytes, 2 << 30);
    assert_eq!(third.utilisation.value().unwrap().gpu_percent, 22);
    assert_eq!(third.power_draw_mw, Reading::Value(78_468));
    assert_eq!(
        (&third.power_limit_mw, &third.power_limit_default_mw),
        (&Reading::Value(700_000), &Reading::Value(700_000))
    );
    assert_eq!(third.temperature_celsius, Reading::Value(32));
    assert_eq!(third.temperature_slowdown_celsius, Reading::Value(87));
    assert_eq!(third.temperature_shutdown_celsius, Reading::Value(90));
    assert_eq!(third.temperature_margin_celsius, Reading::Value(48));
    assert_eq!(third.throttle_reasons.value().unwrap(), &["gpu-idle"]);
    let processes = third.processes.value().unwrap();
    assert_eq!((processes.len(), processes[0].pid, processes[0].kind.as_str()), (1, 1, "compute"));
    assert_eq!(third.clocks.value().unwrap().memory_mhz, Some(2619));
    assert_eq!(third.clocks_max.value().unwrap().sm_mhz, Some(1980));
    assert_eq!((&third.pcie_generation, &third.pcie_width), (&Reading::Value(5), &Reading::Value(16)));
    let links = third.nvlink.value().unwrap();
    assert_eq!(links.len(), 18);
    let first = NvLink {
        link: 0,
        active: true,
        version: Some(6),
        remote: Some("switch".into()),
        remote_pci: Some("0000:05:00.0".into()),
    };
    assert_eq!(links[0], first);
    assert_eq!(third.fabric.value().unwrap().state, "completed");
    assert_eq!(third.persistence, Reading::Value(true));
    assert_eq!(third.compute_mode.value().unwrap(), "default");
    assert_eq!(third.mig_mode, Reading::Value(Mode { current: false, pending: false }));
    assert_eq!(third.ecc_mode, Reading::Value(Mode { current: true, pending: true }));
    assert_eq!(third.ecc_uncorrected_total, Reading::Value(0));
    let rows = RemappedRows { corrected: 0, uncorrected: 0, pending: false, failed: false };
    assert_eq!(third.remapped_rows, Reading::Value(rows));
    assert_eq!(third.retired_pages_pending, Reading::Unsupported);
    let peer = Peer { index: 0, path: Some("NODE".into()), p2p: Some("ok".into()) };
    assert_eq!(third.peers.value().unwrap()[0], peer);
}

#[test]
fn readings_of_other_machines() {
    let gb200 = read(&Host::build("gb200"), Duration::from_secs(60)).unwrap();
    let fabric = Fabric {
        state: "completed".into(),
        status: 0,
        cluster_uuid: "5e1c2f80-4b7a-4d3e-9c11-0a2b3c4d5e6f".into(),
        clique: 32_766,
        health_mask: Some(0x15),
    };
    assert_eq!(gb200.gpus[3].fabric, Reading::Value(fabric));
    assert_eq!(gb200.gpus[3].gpu_numa_node, Reading::Value(26));

    let t4 = read(&Host::build("t4"), Duration::from_secs(60)).unwrap();
    let [t4] = &t4.gpus[..] else { panic!("{t4:?}") };
    assert_eq!(
        (&t4.nvlink, &t4.fabric, &t4.mig_mode),
        (&Reading::Unsupported, &Reading::Unsupported, &Reading::Unsupported)
    );
    assert_eq!(t4.retired_pages_corrected, Reading::Value(2));
    assert_eq!(t4.retired_pages_uncorrected, Reading::Value(1));
    assert_eq!(t4.retired_pages_pending, Reading::Value(true));
    assert_eq!(t4.peers.value().unwrap(), &[]);
}

#[test]
fn a_function_that_the_driver_lacks_hides_nothing() {
    let whole = read(&Host::build("h200"), Duration::from_secs(60)).unwrap();
    let first = &whole.gpus[0];
    // The fake exports no such function, as a driver before 510.
    assert_eq!(words(&first.gsp_firmware), "this driver has no nvmlDeviceGetGspFirmwareVersion");
    let unasked = serde_json::to_value(first).unwrap();
    let missing = unasked.as_object().unwrap().values().filter(|reading| *reading == "unasked").count();
    assert_eq!(missing, 0);
}

#[test]
fn an_error_is_told_where_it_is() {
    let whole = read(&Host::build("h200"), Duration::from_secs(60)).unwrap();
    let host = broken("function = \"nvmlDeviceGetPowerUsage\"\ngpu = 5\nerror = 16");
    let found = read(&host, Duration::from_secs(60)).unwrap();
    assert_eq!(differences(&found, &whole), ["5.power_draw_mw"]);
    assert_eq!(words(&found.gpus[5].power_draw_mw), "the GPU must be reset (code 16)");
    let host = broken("function = \"nvmlDeviceGetFanSpeed\"\nerror = 16");
    assert_eq!(differences(&read(&host, Duration::from_secs(60)).unwrap(), &whole), [""; 0]);
}

#[test]
fn a_slow_answer_is_waited_for() {
    let whole = read(&Host::build("h200"), Duration::from_secs(60)).unwrap();
    let host = broken("function = \"nvmlDeviceGetPowerUsage\"\ngpu = 5\ndelay_ms = 300");
    let start = Instant::now();
    let found = read(&host, Duration::from_secs(60)).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(differences(&found, &whole), [""; 0]);
}

#[test]
fn a_hang_costs_one_reading_and_one_deadline() {
    let whole = read(&Host::build("h200"), Duration::from_secs(60)).unwrap();
    let host = broken("function = \"nvmlDeviceGetPowerUsage\"\ngpu = 5\nhang = true");
    let start = Instant::now();
    let found = read(&host, DEADLINE).unwrap();
    let took = start.elapsed();
    assert_eq!(differences(&found, &whole), ["5.power_draw_mw"]);
    assert_eq!(words(&found.gpus[5].power_draw_mw), "NVML hung: no answer after 2 s");
    assert!(took >= DEADLINE && took < 2 * DEADLINE, "{took:?}");
}

#[test]
fn a_function_that_hangs_on_every_gpu_costs_two_deadlines() {
    let whole = read(&Host::build("h200"), Duration::from_secs(60)).unwrap();
    let deadline = Duration::from_millis(700);
    let found = read(&broken("function = \"nvmlDeviceGetSerial\"\nhang = true"), deadline).unwrap();
    let expected: Vec<String> = (0..8).map(|gpu| format!("{gpu}.serial")).collect();
    assert_eq!(differences(&found, &whole), expected);
    assert_eq!(words(&found.gpus[1].serial), "NVML hung: no answer after 0.7 s");
    assert_eq!(words(&found.gpus[7].serial), "not asked: it gave no answer on two other GPUs");
}

#[test]
fn a_gpu_that_hangs_twice_is_left() {
    let whole = read(&Host::build("h200"), Duration::from_secs(60)).unwrap();
    let twice = "function = \"nvmlDeviceGetSerial\"\ngpu = 3\nhang = true\n\n[[inject]]\nfunction = \"nvmlDeviceGetPowerUsage\"\n\
                 gpu = 3\nhang = true";
    let found = read(&broken(twice), Duration::from_millis(700)).unwrap();
    let lost = differences(&found, &whole);
    assert!(lost.iter().all(|name| name.starts_with("3.")), "{lost:?}");
    assert_eq!(found.gpus[3].vbios, whole.gpus[3].vbios);
    assert_eq!(found.gpus[3].peers, Reading::Unasked);
}

#[test]
fn an_abort_costs_one_reading() {
    let whole = read(&Host::build("h200"), Duration::from_secs(60)).unwrap();
    let host = broken("function = \"nvmlDeviceGetPowerUsage\"\ngpu = 5\nabort = true");
    let found = read(&host, Duration::from_secs(60)).unwrap();
    assert_eq!(differences(&found, &whole), ["5.power_draw_mw"]);
    let text = words(&found.gpus[5].power_draw_mw);
    assert!(text.starts_with("NVML gave no answer: its process ended (signal: 6"), "{text}");
}

#[test]
fn a_gpu_without_a_handle_is_told_of_by_itself() {
    let whole = read(&Host::build("h200"), Duration::from_secs(60)).unwrap();
    for (injection, expected) in [
        ("error = 15", "the GPU has fallen off the bus (code 15)"),
        ("hang = true", "NVML hung: no answer after 2 s"),
    ] {
        let host = broken(&format!("function = \"nvmlDeviceGetHandleByIndex_v2\"\ngpu = 5\n{injection}"));
        let found = read(&host, DEADLINE).unwrap();
        assert_eq!(found.report.gpus[5].error.as_deref(), Some(expected));
        assert_eq!(found.gpus[5], GpuReadings::default());
        // The others do not see it as a peer.
        let lost = differences(&found, &whole);
        let others = lost.iter().filter(|name| !name.starts_with("5.") && !name.ends_with(".peers"));
        assert_eq!(others.count(), 0, "{lost:?}");
    }
}

#[test]
fn nvml_that_does_not_begin_is_an_error() {
    let error = |injection: &str| read(&broken(injection), DEADLINE).unwrap_err().to_string();
    assert_eq!(error("function = \"nvmlInit_v2\"\nhang = true"), "NVML hung: no answer after 2 s");
    assert_eq!(
        error("function = \"nvmlInit_v2\"\nerror = 9"),
        "NVML: the NVIDIA driver is not loaded (code 9)"
    );
    assert_eq!(
        error("function = \"nvmlDeviceGetCount_v2\"\nerror = 4"),
        "NVML: permission denied (code 4): mode or group of the device nodes"
    );
}

#[test]
fn one_child_gives_many_rounds() {
    let host = Host::build("h200");
    let mut session = session(&host, Duration::from_secs(60), Scope::Live);
    let first = session.round().unwrap();
    let second = session.round().unwrap();
    assert_eq!(first, second);
    assert_eq!(first.gpus[1].utilisation.value().unwrap().gpu_percent, 11);
    assert_eq!(first.gpus[1].vbios, Reading::Unasked);
}
