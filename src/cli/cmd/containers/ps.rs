//! `ps`: the containers of this node, as docker lists them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::base::sizes::human_size;
use crate::runtime::{self, Container, Status};

use super::super::Session;
use super::super::images::human_duration;
use super::inspect::network;
use super::shelf;
use crate::cli::args::PsArgs;
use crate::cli::failure::Failure;
use crate::cli::{table, term};

/// Docker's table.
const DEFAULT: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
/// The head's words for the fields of `--format`.
const TITLES: [(&str, &str); 18] = [
    ("HealthStatus", "HEALTH STATUS"),
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Node", "NODE"),
    ("JobID", "JOB ID"),
    ("StepID", "STEP ID"),
];
/// Widest command and mount in characters, before they are cut with an ellipsis.
const COMMAND_CHARS: usize = 20;
const MOUNT_CHARS: usize = 15;

pub(super) fn run(args: &PsArgs, session: &Session) -> Result<(), Failure> {
    let containers = shelf(session).list()?;
    let filters = Filters::parse(&args.filter, &containers)?;
    let last = if args.latest { Some(1) } else { args.last.and_then(|count| usize::try_from(count).ok()) };
    let all = args.all || last.is_some() || filters.name_a_status;
    let chosen = containers
        .iter()
        .map(|container| (container, container.status()))
        .filter(|(_, status)| all || matches!(status, Status::Running))
        .filter(|(container, status)| filters.keep(container, status))
        .take(last.unwrap_or(usize::MAX));
    let now = Timestamp::now();
    let format = args.listing.format.as_deref().filter(|format| *format != "table");
    // It takes a walk over the files.
    let sized = args.size || format.is_some_and(|format| format.contains(".Size"));
    let mut rows = Vec::new();
    for (container, status) in chosen {
        let mut row = fields(container, &status, args.listing.no_trunc, now);
        if sized {
            row["Size"] = size(container)?.into();
        }
        rows.push(row);
    }
    if args.listing.quiet {
        let ids: String =
            rows.iter().filter_map(|row| Some(format!("{}\n", row.get("ID")?.as_str()?))).collect();
        return term::print(&ids);
    }
    let default = if args.size { format!("{DEFAULT}\t{{{{.Size}}}}") } else { DEFAULT.to_owned() };
    term::print(&table::formatted(format.unwrap_or(&default), &rows, &TITLES)?)
}

/// What it has changed, and that with its image.
fn size(container: &Container) -> Result<String, Failure> {
    let changed = runtime::changed_bytes(container)?;
    // The image may have been removed.
    let image = std::fs::metadata(&container.record.image_path).map_or(0, |facts| facts.len());
    Ok(format!("{} (virtual {})", human_size(changed), human_size(changed.saturating_add(image))))
}

/// The fields that docker gives to a template, and where it runs.
fn fields(container: &Container, status: &Status, whole: bool, now: Timestamp) -> Value {
    let record = &container.record;
    let command = record.command.join(" ");
    let command = if whole { command } else { cut(&command, COMMAND_CHARS) };
    let image = record.image.split('@').next().unwrap_or_default();
    let labels: Vec<_> = record.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mounts: Vec<_> = record
        .mounts
        .iter()
        .map(|mount| mount.source.display().to_string())
        .map(|mount| if whole { mount } else { cut(&mount, MOUNT_CHARS) })
        .collect();
    let health = container.health().filter(|_| matches!(status, Status::Running)).map(|health| health.status);
    json!({
        "ID": if whole { &record.id } else { record.short_id() },
        "Image": if whole { &record.image } else { image },
        "Command": quote(&command),
        "CreatedAt": spelled(record.created),
        "RunningFor": format!("{} ago", since(record.created, now)),
        "Ports": "",
        "State": state(status),
        "Status": told(record.started, status, now) + &health_words(health.as_deref()),
        "HealthStatus": health.as_deref().unwrap_or_default(),
        "Size": "0B",
        "Names": record.name,
        "Labels": labels.join(","),
        "Mounts": mounts.join(","),
        "LocalVolumes": "0",
        "Networks": network(record),
        "Platform": Value::Null,
        "Node": record.node,
        "JobID": record.job_id.as_deref().unwrap_or_default(),
        "StepID": record.step_id.as_deref().unwrap_or_default(),
    })
}

/// Docker's word for the state.
pub(super) fn state(status: &Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Exited(_) => "exited",
    }
}

fn told(started: Option<Timestamp>, status: &Status, now: Timestamp) -> String {
    match status {
        Status::Created => "Created".into(),
        Status::Running => {
            format!("Up {}", started.map_or_else(|| "Less than a second".into(), |at| since(at, now)))
        }
        Status::Exited(exit) => format!("Exited ({}) {} ago", exit.code, since(exit.finished, now)),
    }
}

/// Docker's words behind the status.
fn health_words(health: Option<&str>) -> String {
    match health {
        None => String::new(),
        Some("starting") => " (health: starting)".into(),
        Some(status) => format!(" ({status})"),
    }
}

fn since(then: Timestamp, now: Timestamp) -> String {
    human_duration(now.as_second().saturating_sub(then.as_second()))
}

/// A time as Go prints it.
fn spelled(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

fn cut(text: &str, width_chars: usize) -> String {
    if text.chars().count() <= width_chars {
        return text.to_owned();
    }
    text.chars().take(width_chars.saturating_sub(1)).chain(['…']).collect()
}

/// As Go quotes a text.
fn quote(text: &str) -> String {
    use std::fmt::Write as _;
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            _ if character.is_control() => {
                write!(quoted, "\\x{:02x}", u32::from(character)).expect("writing to a String cannot fail");
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// What `--filter` asks for: one of the values of each key, and all labels.
#[derive(Debug, Default)]
struct Filters {
    ids: Vec<String>,
    names: Vec<String>,
    labels: Vec<String>,
    statuses: Vec<String>,
    codes: Vec<i32>,
    ancestors: Vec<String>,
    healths: Vec<String>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    /// Those that do not run are asked for too.
    name_a_status: bool,
}

impl Filters {
    fn parse(texts: &[String], all: &[Container]) -> Result<Self, Failure> {
        let mut filters = Self::default();
        for text in texts {
            let wrong = |why: &str| {
                Failure::new(
                    format!("invalid filter `{text}`: {why}"),
                    "filters are id, name, label, status, exited, ancestor, health, before and since, each with =VALUE",
                )
            };
            let (key, value) = text.split_once('=').ok_or_else(|| wrong("it has no `=`"))?;
            let created = || {
                let found = all.iter().find(|container| {
                    container.record.name == value || container.record.id.starts_with(value)
                });
                found.map(|container| container.record.created).ok_or_else(|| wrong("no such container"))
            };
            let value = value.to_owned();
            match key {
                "id" => filters.ids.push(value),
                "name" => filters.names.push(value),
                "label" => filters.labels.push(value),
                "status" => {
                    filters.name_a_status = true;
                    filters.statuses.push(value);
                }
                "exited" => {
                    filters.name_a_status = true;
                    filters.codes.push(value.parse().map_err(|_| wrong("the exit code is not a number"))?);
                }
                "ancestor" => filters.ancestors.push(value),
                "health" => filters.healths.push(value),
                "before" => filters.before = Some(created()?),
                "since" => filters.since = Some(created()?),
                _ => return Err(wrong("unknown key")),
            }
        }
        Ok(filters)
    }

    fn keep(&self, container: &Container, status: &Status) -> bool {
        let record = &container.record;
        let any = |wanted: &[String], fits: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|value| fits(value))
        };
        let code = match status {
            Status::Exited(exit) => Some(exit.code),
            _ => None,
        };
        any(&self.ids, &|id| record.id.starts_with(id))
            && any(&self.names, &|name| name_fits(&record.name, name))
            && any(&self.statuses, &|wanted| wanted == state(status))
            && any(&self.ancestors, &|image| is_of(record, image))
            && any(&self.healths, &|wanted| {
                container.health().map_or_else(|| "none".into(), |health| health.status) == wanted
            })
            && (self.codes.is_empty() || code.is_some_and(|code| self.codes.contains(&code)))
            && self.labels.iter().all(|label| match label.split_once('=') {
                Some((key, value)) => record.labels.get(key).is_some_and(|has| has == value),
                None => record.labels.contains_key(label),
            })
            && self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
    }
}

/// Docker takes a regular expression; what people write is a part of the name, or all of it between `^` and `$`.
fn name_fits(name: &str, pattern: &str) -> bool {
    let (at_start, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (at_end, part) = rest.strip_suffix('$').map_or((false, rest), |part| (true, part));
    let part = part.strip_prefix('/').unwrap_or(part);
    match (at_start, at_end) {
        (true, true) => name == part,
        (true, false) => name.starts_with(part),
        (false, true) => name.ends_with(part),
        (false, false) => name.contains(part),
    }
}

fn is_of(record: &crate::runtime::Record, image: &str) -> bool {
    let id = record.image_id.as_deref().unwrap_or_default();
    let plain = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
    plain(&record.image) == plain(image)
        || id == image
        || image.len() >= 12 && id.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_cut_and_quoted_as_docker_does() {
        assert_eq!(quote(&cut("sleep 1000", 20)), "\"sleep 1000\"");
        assert_eq!(quote(&cut("python train.py --epochs 90", 20)), "\"python train.py --e…\"");
        assert_eq!(quote("a \"b\" \\ \n\u{1b}"), "\"a \\\"b\\\" \\\\ \\n\\x1b\"");
    }

    #[test]
    fn names_fit_by_part_or_as_a_whole() {
        for (name, pattern, expected) in [
            ("web_1", "web", true),
            ("web_1", "^web$", false),
            ("web_1", "^/web_1$", true),
            ("web_1", "^web", true),
            ("web_1", "1$", true),
            ("web_1", "x", false),
        ] {
            assert_eq!(name_fits(name, pattern), expected, "{pattern}");
        }
    }
}
