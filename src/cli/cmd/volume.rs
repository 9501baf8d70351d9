//! `slipway volume`: directories that Slipway keeps for containers.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::store::{Volume, VolumeFacts};

use super::{Session, containers};
use crate::cli::args::{VolumeCommand, VolumeCreateArgs, VolumeLsArgs, VolumePruneArgs};
use crate::cli::failure::Failure;
use crate::cli::{table, term};

pub(in crate::cli) fn run(command: &VolumeCommand, session: &Session) -> Result<(), Failure> {
    match command {
        VolumeCommand::Create(args) => create(args, session),
        VolumeCommand::Ls(args) => list(args, session),
        VolumeCommand::Inspect(args) => inspect(&args.volumes, args.format.as_deref(), session),
        VolumeCommand::Rm(args) => remove(&args.volumes, args.force, session),
        VolumeCommand::Prune(args) => prune(args, session),
    }
}

fn create(args: &VolumeCreateArgs, session: &Session) -> Result<(), Failure> {
    if args.driver != "local" {
        return Err(Failure::new(
            format!("there is no volume driver `{}`: volumes are directories of this host", args.driver),
            "leave `--driver` out",
        ));
    }
    let labels = args.label.iter().map(|text| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    });
    let facts = VolumeFacts {
        created: jiff::Timestamp::now().to_string(),
        labels: labels.collect(),
        anonymous: args.name.is_none(),
    };
    let name = args.name.clone().map_or_else(crate::runtime::new_id, Ok)?;
    let volume = session.store()?.create_volume(&name, &facts)?;
    term::print(&format_args!("{}\n", volume.name))
}

/// Heads of docker's table.
const TITLES: [(&str, &str); 2] = [("Driver", "DRIVER"), ("Name", "VOLUME NAME")];

/// A volume as docker's inspect shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    created_at: String,
    driver: &'static str,
    labels: BTreeMap<String, String>,
    mountpoint: String,
    name: String,
    options: Option<()>,
    scope: &'static str,
}

fn shown(volume: &Volume) -> Value {
    let mut labels = volume.facts.labels.clone();
    if volume.facts.anonymous {
        labels.insert("com.docker.volume.anonymous".into(), String::new());
    }
    let shown = Shown {
        created_at: volume.facts.created.clone(),
        driver: "local",
        labels,
        mountpoint: volume.data.display().to_string(),
        name: volume.name.clone(),
        options: None,
        scope: "local",
    };
    serde_json::to_value(shown).unwrap_or_default()
}

fn list(args: &VolumeLsArgs, session: &Session) -> Result<(), Failure> {
    let mut volumes = session.store()?.volumes()?;
    for filter in &args.filter {
        let (key, value) = filter.split_once('=').unwrap_or((filter, ""));
        match key {
            "name" => volumes.retain(|volume| volume.name.contains(value)),
            "label" => {
                let (label, wanted) = value.split_once('=').map_or((value, None), |(l, w)| (l, Some(w)));
                volumes.retain(|volume| {
                    let has = volume.facts.labels.get(label);
                    has.is_some_and(|has| wanted.is_none_or(|wanted| has == wanted))
                });
            }
            "dangling" => {
                let in_use = in_use(session)?;
                let wanted = matches!(value, "true" | "1");
                volumes.retain(|volume| in_use.iter().all(|(used, _)| *used != volume.name) == wanted);
            }
            "driver" => volumes.retain(|_| value == "local"),
            _ => {
                return Err(Failure::new(
                    format!("unknown filter `{filter}`"),
                    "the filters are name, label, dangling and driver",
                ));
            }
        }
    }
    if args.quiet {
        let names: String = volumes.iter().map(|volume| format!("{}\n", volume.name)).collect();
        return term::print(&names);
    }
    if let Some(format) = &args.format {
        let rows: Vec<Value> = volumes.iter().map(shown).collect();
        return term::print(&table::formatted(format, &rows, &TITLES)?);
    }
    let head = ["DRIVER", "VOLUME NAME"].map(str::to_owned).to_vec();
    let rows = volumes.iter().map(|volume| vec!["local".to_owned(), volume.name.clone()]);
    term::print(&table::columns(&[head].into_iter().chain(rows).collect::<Vec<_>>()))
}

fn inspect(names: &[String], format: Option<&str>, session: &Session) -> Result<(), Failure> {
    let store = session.store()?;
    let found: Vec<Value> =
        names.iter().map(|name| store.volume(name).map(|volume| shown(&volume))).collect::<Result<_, _>>()?;
    match format {
        Some(format) => term::print(&table::formatted(format, &found, &TITLES)?),
        None => term::print(&format_args!("{}\n", serde_json::to_string_pretty(&found).unwrap_or_default())),
    }
}

/// Names of volumes that a container of this node has, with its short id.
fn in_use(session: &Session) -> Result<Vec<(String, String)>, Failure> {
    let root = session.store()?.root().join("volumes");
    let mut used = Vec::new();
    for container in containers::shelf(session).list()? {
        let record = &container.record;
        let of_path =
            |path: &std::path::Path| {
                path.strip_prefix(&root).ok()?.components().next().map(|name| {
                    (name.as_os_str().to_string_lossy().into_owned(), record.short_id().to_owned())
                })
            };
        used.extend(record.mounts.iter().filter_map(|mount| of_path(&mount.source)));
    }
    Ok(used)
}

fn remove(names: &[String], force: bool, session: &Session) -> Result<(), Failure> {
    let (store, in_use) = (session.store()?, in_use(session)?);
    let mut has_failed = false;
    for name in names {
        let holder = in_use.iter().find(|(used, _)| used == name);
        let result = match (store.volume(name), holder) {
            (Ok(_), Some((_, id))) => Err(Failure::new(
                format!("cannot remove the volume `{name}`: the container {id} has it"),
                "remove the container first: `slipway rm`",
            )),
            (Ok(volume), None) => store.remove_volume(&volume).map_err(Failure::from),
            (Err(_), _) if force => Ok(()),
            (Err(error), _) => Err(error.into()),
        };
        match result {
            Ok(()) => term::print(&format_args!("{name}\n"))?,
            Err(failure) => {
                term::complain(&failure);
                has_failed = true;
            }
        }
    }
    if has_failed { Err(Failure::quiet_own()) } else { Ok(()) }
}

/// Removes volumes that no container of this node has: those without a name, or all.
fn prune(args: &VolumePruneArgs, session: &Session) -> Result<(), Failure> {
    let (store, in_use) = (session.store()?, in_use(session)?);
    let mut text = String::new();
    for volume in store.volumes()? {
        let is_free = in_use.iter().all(|(used, _)| *used != volume.name);
        if is_free && (args.all || volume.facts.anonymous) {
            store.remove_volume(&volume)?;
            text.push_str(&volume.name);
            text.push('\n');
        }
    }
    let head = if text.is_empty() { "" } else { "Deleted Volumes:\n" };
    term::print(&format_args!("{head}{text}\nTotal reclaimed space: 0B\n"))
}
