//! How devices of built hosts reach each other: the matrix, the drawing, and the verbs that show them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use slipway::gpu::topology::{Relation, Topology, read_topology};
use slipway::gpu::{self, Hints, NvmlSession, Scope};

use crate::gpu_cli::{home, slipway, stderr, stdout};
use crate::support::host::Host;

fn topology(host: &Host, with_nvml: bool) -> Topology {
    let root = host.root();
    let mut inventory = gpu::read_inventory(&root, &Hints::default());
    let mut readings = Vec::new();
    if with_nvml {
        let library = gpu::nvml_library(&inventory, &root).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_slipway"));
        let mut session = NvmlSession::new(program, Some(&library), Duration::from_secs(60), Scope::All);
        let nvml = session.round().unwrap();
        let access = gpu::read_access(&root, &inventory);
        gpu::merge_nvml(&mut inventory, &nvml.report, &access);
        readings = gpu::readings_of(&inventory, &nvml);
    }
    read_topology(&root, &inventory, &readings)
}

#[track_caller]
fn assert_is_golden(text: &str, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/topology").join(name);
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == golden, "{} is not this:\n{text}", path.display());
}

#[test]
fn matrices_of_golden_machines() {
    for name in ["h200", "b200", "gb200", "t4"] {
        assert_is_golden(&topology(&Host::build(name), true).to_matrix(), &format!("{name}.txt"));
    }
}

#[test]
fn sysfs_alone_knows_paths_of_any_vendor() {
    let found = topology(&Host::build("h200"), false);
    assert_is_golden(&found.to_matrix(), "h200-sysfs.txt");
}

#[test]
fn direct_links_are_counted_by_their_ends() {
    let text = std::fs::read_to_string("tests/fixtures/scenarios/gb200.toml").unwrap();
    // Four links between the first and the second GPU, and two from the first to the third.
    let mut host = text.clone();
    let links = |ends: &[(&str, u32)]| {
        let rows =
            ends.iter().flat_map(|(end, count)| std::iter::repeat_n(*end, *count as usize)).enumerate();
        let rows = rows.map(|(link, end)| {
            format!(
                "{{ link = {link}, active = true, version = 5, remote = \"gpu\", remote_pci = \"{end}\" }}"
            )
        });
        format!("[gpu.readings]\nnvlink = [{}]\n", rows.collect::<Vec<_>>().join(", "))
    };
    for ends in
        [&[("0009:01:00.0", 4), ("0018:01:00.0", 2)][..], &[("0008:01:00.0", 4)], &[("0008:01:00.0", 2)], &[]]
    {
        host = host.replacen("[gpu.readings]\nserial", &format!("{}serial", links(ends)), 1);
    }
    let found = topology(&Host::build_from(&host), true);
    let relation = |from, to| found.relation(from, to);
    assert_eq!((relation(0, 1), relation(1, 0)), (Relation::NvLink(4), Relation::NvLink(4)));
    assert_eq!((relation(0, 2), relation(2, 0)), (Relation::NvLink(2), Relation::NvLink(2)));
    assert_eq!((relation(1, 2), relation(2, 3)), (Relation::Sys, Relation::Node));
    let drawing = found.to_svg();
    assert_eq!(drawing.matches("<path class=\"link\"").count(), 2, "{drawing}");
    assert!(drawing.contains(">4 NVLinks<") && !drawing.contains("NVLink switches"), "{drawing}");
}

/// That it is well-formed is for a parser of XML to say.
#[test]
fn drawing_stands_for_itself() {
    need!(tool "python3");
    let drawing = topology(&Host::build("h200"), true).to_svg();
    for expected in [
        "NUMA node 0: CPUs 0-47,96-143",
        "GPU7",
        "mlx5_7",
        "PCIe switch 0000:16:00.0",
        "18 NVLinks",
        "NVLink switches",
    ] {
        assert!(drawing.contains(expected), "{expected}: {drawing}");
    }
    assert!(drawing.contains("prefers-color-scheme:dark"));
    assert!(!drawing.contains("href") && !drawing.contains("url("), "{drawing}");
    let script = "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.stdin)";
    let mut python = std::process::Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), drawing.as_bytes()).unwrap();
    assert!(python.wait().unwrap().success());
}

#[test]
fn gpus_shows_matrix_drawing_and_readings() {
    need!(userns, tool "unshare", tool "setpriv");
    let (host, home) = (Host::build("h200"), home());
    let output = slipway(&host, home.path(), &["gpus", "--topology"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_is_golden(&stdout(&output), "h200.txt");

    let drawing = home.path().join("node.svg");
    let output = slipway(&host, home.path(), &["gpus", "--svg", drawing.to_str().unwrap()]).output().unwrap();
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), ("", ""));
    assert!(std::fs::read_to_string(drawing).unwrap().starts_with("<svg "));
    let output = slipway(&host, home.path(), &["gpus", "--svg", "/nonexistent/x.svg"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: cannot write `/nonexistent/x.svg`: No such file or directory (os error 2)\n"
    );

    let json = |flags: &[&str]| -> serde_json::Value {
        let output = slipway(&host, home.path(), &[&["gpus", "--json"], flags].concat()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let plain = json(&[]);
    let third = &plain["gpus"][2];
    assert_eq!((&third["numa_node"], &third["cpu_affinity"]), (&0.into(), &"0-47,96-143".into()));
    assert_eq!(
        (&third["readings"]["power_draw_mw"], &third["readings"]["compute_capability"]),
        (&78_468.into(), &"9.0".into())
    );
    assert_eq!(
        third["readings"]["errors"],
        serde_json::json!({"gsp_firmware": "this driver has no nvmlDeviceGetGspFirmwareVersion"})
    );
    assert_eq!(third["readings"].get("serial"), None);
    assert_eq!(json(&["--serial"])["gpus"][2]["readings"]["serial"], "1654025002001");
}

#[test]
fn node_without_devices_has_no_matrix() {
    assert_eq!(Topology::default().to_matrix(), "no GPU and no InfiniBand adapter was found on this node\n");
}

#[test]
fn watch_prints_tables_until_it_is_ended() {
    need!(userns, tool "unshare", tool "setpriv");
    let (host, home) = (Host::build("h200"), home());
    let mut child =
        slipway(&host, home.path(), &["gpus", "--watch", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for round in 0..2 {
        let seen: Vec<String> = lines
            .by_ref()
            .map(|line| line.unwrap())
            .take_while(|line| !line.starts_with("2     1 "))
            .collect();
        let head = "GPU   NAME          USE   MEMORY              POWER        TEMP   SLOWED BY";
        assert!(seen.iter().any(|line| line == head), "{round}: {seen:#?}");
        let third = "2     NVIDIA H200   22%   2048 / 143771 MiB   78 / 700 W   32 C   -";
        assert!(seen.iter().any(|line| line == third), "{round}: {seen:#?}");
        assert!(seen.iter().all(|line| !line.contains('\u{1b}')), "{seen:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let host = Host::build("no-driver");
    let output = slipway(&host, home.path(), &["gpus", "--watch"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: there is nothing to watch: only NVIDIA's driver says what its GPUs do, and it is not loaded\n  hint: \
         `slipway gpus` shows what this node has\n"
    );
}
