//! What is known of a container, under docker's names.

use serde_json::{Map, Value, json};

use crate::runtime::{Container, Exit, MountRecord, Record, RuntimeError, Status};

use super::super::Session;
use super::{ps, shelf};

/// Docker's word for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The object that `inspect` shows for a container.
pub(in crate::cli::cmd) fn value(word: &str, session: &Session) -> Result<Value, RuntimeError> {
    shelf(session).find(word).map(|container| describe(&container))
}

fn describe(container: &Container) -> Value {
    let record = &container.record;
    let status = container.status();
    let is_running = matches!(status, Status::Running);
    let exit = match &status {
        Status::Exited(exit) => Some(exit),
        _ => None,
    };
    let words = record.command.split_first();
    let mut value = json!({
        "Id": record.id,
        "Created": record.created,
        "Path": words.map_or("", |(path, _)| path),
        "Args": words.map_or(&[][..], |(_, args)| args),
        "State": {
            "Status": ps::state(&status),
            "Running": is_running,
            "Paused": false,
            "Restarting": false,
            "OOMKilled": false,
            "Dead": false,
            "Pid": record.process.filter(|_| is_running).map_or(0, |process| process.pid),
            "ExitCode": exit.map_or(0, |exit| exit.code),
            "Error": exit.and_then(|exit| exit.error.clone()).unwrap_or_default(),
            "StartedAt": record.started.map_or_else(|| NEVER.to_owned(), |time| time.to_string()),
            "FinishedAt": exit.map_or_else(|| NEVER.to_owned(), finished),
        },
        "Image": record.image_id.as_deref().unwrap_or_default(),
        "LogPath": container.log_path(),
        "Name": format!("/{}", record.name),
        "RestartCount": 0,
        "Driver": "slipway",
        "Platform": "linux",
        "HostConfig": {
            "Binds": record.mounts.iter().map(bind).collect::<Vec<_>>(),
            "LogConfig": { "Type": "json-file", "Config": {} },
            "NetworkMode": network(record),
            // Docker has no word for the usual case.
            "PidMode": if record.isolation.pid { "" } else { "host" },
            "IpcMode": if record.isolation.ipc { "private" } else { "host" },
            "AutoRemove": record.auto_remove,
            "Privileged": false,
            "ReadonlyRootfs": !record.isolation.writable,
        },
        "Mounts": record.mounts.iter().map(mount).collect::<Vec<_>>(),
        "Config": {
            "Hostname": record.isolation.host_name.as_deref().unwrap_or(&record.node),
            "Tty": record.tty,
            "OpenStdin": record.open_stdin,
            "Env": env(container),
            "Cmd": record.command,
            "Image": record.image,
            "WorkingDir": record.cwd,
            "Labels": record.labels,
            "StopSignal": record.stop_signal.as_deref().unwrap_or("SIGTERM"),
            "StopTimeout": record.stop_seconds,
        },
        "NetworkSettings": { "Ports": Map::new(), "Networks": { (network(record)): {} } },
        "Slipway": {
            "ImageFile": record.image_path,
            "Node": record.node,
            "JobID": record.job_id,
            "StepID": record.step_id,
            "Monitor": record.monitor.map(|monitor| monitor.pid),
            "Detached": record.detached,
        },
    });
    if let Some(health) = container.health() {
        value["State"]["Health"] = json!(health);
    }
    value
}

/// Docker's word for the network.
pub(super) fn network(record: &Record) -> &'static str {
    if record.isolation.network { "none" } else { "host" }
}

fn finished(exit: &Exit) -> String {
    exit.finished.to_string()
}

/// The workload's variables; none where the state was removed meanwhile.
fn env(container: &Container) -> Vec<String> {
    let lines = container.env().unwrap_or_default();
    lines.iter().map(|line| line.to_string_lossy().into_owned()).collect()
}

fn bind(mount: &MountRecord) -> String {
    let mode = if mount.read_only { ":ro" } else { "" };
    format!("{}:{}{mode}", mount.source.display(), mount.target.display())
}

fn mount(mount: &MountRecord) -> Value {
    json!({
        "Type": "bind",
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": if mount.read_only { "ro" } else { "" },
        "RW": !mount.read_only,
        "Propagation": "rslave",
    })
}
