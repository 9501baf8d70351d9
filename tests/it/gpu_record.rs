//! The record of a node: a host that is built from it is the same to slipway, and nothing in it says whose it was.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;

use crate::gpu_cli::{home, slipway, stderr, stdout};
use crate::support::host::Host;

fn scenario(name: &str) -> String {
    std::fs::read_to_string(format!("tests/fixtures/scenarios/{name}.toml")).unwrap()
}

/// What `gpus --json` says in a host.
fn listing(host: &Host) -> Value {
    let home = home();
    let output = slipway(host, home.path(), &["gpus", "--json", "--serial"])
        .env("SLIPWAY_GPU_NVML_TIMEOUT_SECONDS", "2")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn record(host: &Host) -> String {
    let home = home();
    let output = slipway(host, home.path(), &["doctor", "--record", "-"])
        .env("SLIPWAY_GPU_NVML_TIMEOUT_SECONDS", "2")
        .output()
        .unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    stdout(&output)
}

/// Every string at one of these keys.
fn names(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if ["uuid", "serial", "cluster_uuid"].contains(&key.as_str()) => {
                        found.push(text.clone());
                    }
                    other => names(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

fn names_of(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    names(value, &mut found);
    found
}

/// Records a host, builds another from it, and compares what slipway says in both.
#[track_caller]
fn assert_replays(text: &str) {
    let host = Host::build_from(text);
    let (first, record) = (listing(&host), record(&host));
    let second = listing(&Host::build_from(&record));
    let (own, replaced) = (names_of(&first), names_of(&second));
    assert_eq!(own.len(), replaced.len());
    let mut expected = first.to_string();
    for (own, replaced) in own.iter().zip(&replaced) {
        // That of a fabric that is none says nothing.
        if own.bytes().any(|byte| !matches!(byte, b'0' | b'-')) {
            assert!(!record.contains(own.as_str()), "{own} is in the record:\n{record}");
            expected = expected.replace(own.as_str(), replaced);
        }
    }
    let pretty =
        |text: &str| serde_json::to_string_pretty(&serde_json::from_str::<Value>(text).unwrap()).unwrap();
    let (expected, found) = (pretty(&expected), pretty(&second.to_string()));
    assert!(expected == found, "from\n{record}\n{}", first_difference(&expected, &found));
}

fn first_difference(expected: &str, found: &str) -> String {
    let mut pairs = expected.lines().zip(found.lines());
    pairs.find(|(one, other)| one != other).map_or_else(String::new, |pair| format!("{pair:?}"))
}

#[test]
fn records_of_golden_machines_replay() {
    need!(userns, tool "unshare", tool "setpriv");
    for name in ["h200", "gb200", "t4"] {
        assert_replays(&scenario(name));
    }
}

#[test]
fn records_of_older_scenarios_replay() {
    need!(userns, tool "unshare", tool "setpriv");
    for name in ["dgx-a100", "mixed-minors", "no-driver"] {
        assert_replays(&scenario(name));
    }
}

#[test]
fn what_is_wrong_is_in_the_record() {
    need!(userns, tool "unshare", tool "setpriv");
    assert_replays(&scenario("gpu-lost"));
    assert_replays(&scenario("nvml-hang"));
    let fails = "\n[[inject]]\nfunction = \"nvmlDeviceGetPowerUsage\"\ngpu = 3\nerror = 16\n";
    let denied = scenario("h200").replacen("minor = 4\n", "minor = 4\ndenied = true\n", 1);
    assert_replays(&format!("{denied}{fails}"));
}

#[test]
fn record_is_written_to_a_file() {
    need!(userns, tool "unshare", tool "setpriv");
    let (host, home) = (Host::build("t4"), home());
    let file = home.path().join("node.toml");
    let output =
        slipway(&host, home.path(), &["doctor", "--record", file.to_str().unwrap()]).output().unwrap();
    let expected = format!(
        "wrote `{}`; serial numbers, UUIDs and the host's name are replaced, look it over before you send it\n",
        file.display()
    );
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), expected));
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.starts_with("# Recorded by `slipway doctor --record`."), "{text}");
    let output = slipway(&host, home.path(), &["doctor"]).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
}
