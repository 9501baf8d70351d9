//! `slipway container prune`, `image prune`, `system prune` and `system df`, in docker's words.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::base::sizes::human_size;
use crate::oci::ImageConfig;
use crate::runtime::{self, Container};
use crate::store::{Store, StoredImage};
use crate::unpack::Roots;

use super::containers::shelf;
use super::{Session, locate, rootfs, times};
use crate::cli::args::{ContainerPruneArgs, DfArgs, PruneArgs};
use crate::cli::failure::Failure;
use crate::cli::{table, term};

/// The head's words for the fields of `system df --format`.
const TITLES: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];
const DF: &str = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";

/// What was removed: the lines that say so below a head, and the bytes.
#[derive(Debug, Default)]
struct Pruned {
    lines: String,
    bytes: u64,
}

impl Pruned {
    fn say(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.lines.push_str(part));
        self.lines.push('\n');
    }

    /// As docker prints it: nothing was removed, nothing is listed.
    fn shown(&self, head: &str) -> String {
        if self.lines.is_empty() { String::new() } else { format!("{head}\n{}\n", self.lines) }
    }
}

/// `container prune`.
pub(in crate::cli) fn containers(args: &ContainerPruneArgs, session: &Session) -> Result<(), Failure> {
    let filters = Filters::parse(&args.filter)?;
    confirm(args.force, "container prune", "WARNING! This will remove all stopped containers.")?;
    let pruned = prune_containers(&filters, session)?;
    finish(&pruned.shown("Deleted Containers:"), pruned.bytes)
}

/// `image prune`.
pub(in crate::cli) fn images(args: &PruneArgs, session: &Session) -> Result<(), Failure> {
    let filters = Filters::parse(&args.filter)?;
    let warning = if args.all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    confirm(args.force, "image prune", warning)?;
    let pruned = prune_images(args.all, &filters, session)?;
    finish(&pruned.shown("Deleted Images:"), pruned.bytes)
}

/// `system prune`.
pub(in crate::cli) fn system(args: &PruneArgs, session: &Session) -> Result<(), Failure> {
    let filters = Filters::parse(&args.filter)?;
    let images = if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let warning = format!(
        "WARNING! This will remove:\n  - all stopped containers\n  - {images}\n  - all unpacked images that nothing runs \
         from\n"
    );
    confirm(args.force, "system prune", &warning)?;
    let containers = prune_containers(&filters, session)?;
    let images = prune_images(args.all, &filters, session)?;
    let unpacked = prune_unpacked(session)?;
    let text = [
        containers.shown("Deleted Containers:"),
        images.shown("Deleted Images:"),
        unpacked.shown("Deleted Unpacked Images:"),
    ];
    finish(&text.concat(), containers.bytes + images.bytes + unpacked.bytes)
}

fn finish(text: &str, bytes: u64) -> Result<(), Failure> {
    term::print(&format_args!("{text}Total reclaimed space: {}\n", human_size(bytes)))
}

/// Asks, unless it was said not to.
fn confirm(force: bool, verb: &str, warning: &str) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    let answer = term::ask(&format!("{warning}\nAre you sure you want to continue? [y/N] "), false);
    if answer.is_ok_and(|answer| answer.trim().eq_ignore_ascii_case("y")) {
        return Ok(());
    }
    Err(Failure::new(format!("{verb} has been cancelled"), "answer `y`, or add `-f`"))
}

fn prune_containers(filters: &Filters, session: &Session) -> Result<Pruned, Failure> {
    let mut pruned = Pruned::default();
    for container in shelf(session).list()?.iter().filter(|container| !container.is_running()) {
        let record = &container.record;
        if filters.keep(Some(record.created), |key| record.labels.get(key).cloned()) {
            let bytes = bytes_of(container);
            runtime::remove(container, false)?;
            pruned.say(&[&record.id]);
            pruned.bytes += bytes;
        }
    }
    Ok(pruned)
}

fn prune_images(all: bool, filters: &Filters, session: &Session) -> Result<Pruned, Failure> {
    let store = session.store()?;
    let containers = shelf(session).list()?;
    let mut pruned = Pruned::default();
    for image in store.images()? {
        if !all && !image.names.is_empty() || is_used(&image, &containers, &store) {
            continue;
        }
        let created = image.record.created.as_deref().and_then(|created| created.parse().ok());
        let config = || ImageConfig::parse(&locate::raw_config(&store, &image).ok()?).ok();
        if !filters.keep(created, |key| config()?.config.labels.get(key).cloned()) {
            continue;
        }
        let record = &image.record;
        for name in &image.names {
            if store.remove_ref(name)? {
                pruned.say(&["untagged: ", &super::rmi::familiar(name)]);
            }
        }
        for digest in &image.digests {
            pruned.say(&["untagged: ", &super::rmi::familiar(digest)]);
        }
        store.remove_ref(&record.manifest.to_string())?;
        let removed = store.remove_parts(record)?;
        pruned.say(&["deleted: ", &record.config.to_string()]);
        for blob in removed.blobs.iter().filter(|blob| ![record.config, record.manifest].contains(blob)) {
            pruned.say(&["deleted: ", &blob.to_string()]);
        }
        pruned.bytes += removed.bytes;
    }
    pruned.bytes += store.remove_orphans()?;
    Ok(pruned)
}

fn prune_unpacked(session: &Session) -> Result<Pruned, Failure> {
    let mut pruned = Pruned::default();
    if let Some(roots) = Roots::find(&rootfs::base(session)) {
        let swept = roots.remove_unused(std::time::Duration::ZERO)?;
        swept.names.iter().for_each(|name| pruned.say(&[name]));
        pruned.bytes = swept.bytes;
    }
    Ok(pruned)
}

/// Whether a container, running or not, is made of it.
fn is_used(image: &StoredImage, containers: &[Container], store: &Store) -> bool {
    let id = image.record.config.to_string();
    let key = image.record.image.as_ref();
    let file = key.and_then(|key| std::fs::canonicalize(store.image_path(key)).ok());
    containers.iter().any(|container| {
        container.record.image_id.as_ref() == Some(&id) || file.as_ref() == Some(&container.record.image_path)
    })
}

/// What a container's files take.
fn bytes_of(container: &Container) -> u64 {
    let entries = std::fs::read_dir(container.directory()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|facts| facts.len()).sum()
}

/// `system df`.
pub(in crate::cli) fn df(args: &DfArgs, session: &Session) -> Result<(), Failure> {
    let (store, containers) = (session.store()?, shelf(session).list()?);
    let images = store.images()?;
    let active: Vec<_> = images.iter().filter(|image| is_used(image, &containers, &store)).collect();
    let usage = store.usage(active.iter().map(|image| &image.record))?;
    let running = |container: &&Container| container.is_running();
    let ended = containers.iter().filter(|container| !running(container)).map(bytes_of).sum();
    let trees = match Roots::find(&rootfs::base(session)) {
        Some(roots) => roots.list()?,
        None => Vec::new(),
    };
    let unused = trees.iter().filter(|tree| !tree.is_used).map(|tree| tree.bytes).sum();
    let rows = [
        row("Images", images.len(), active.len(), usage.bytes, usage.bytes - usage.needed_bytes),
        row(
            "Containers",
            containers.len(),
            containers.iter().filter(running).count(),
            containers.iter().map(bytes_of).sum(),
            ended,
        ),
        row("Local Volumes", 0, 0, 0, 0),
        row("Build Cache", 0, 0, 0, 0),
        row(
            "Unpacked Images",
            trees.len(),
            trees.iter().filter(|tree| tree.is_used).count(),
            trees.iter().map(|tree| tree.bytes).sum(),
            unused,
        ),
    ];
    let format = args.format.as_deref().filter(|format| *format != "table").unwrap_or(DF);
    term::print(&table::formatted(format, &rows, &TITLES)?)
}

fn row(kind: &str, total: usize, active: usize, bytes: u64, reclaimable: u64) -> Value {
    let share = match reclaimable.saturating_mul(100).checked_div(bytes) {
        Some(percent) => format!("{} ({percent}%)", human_size(reclaimable)),
        None => human_size(reclaimable),
    };
    json!({
        "Type": kind,
        "TotalCount": total.to_string(),
        "Active": active.to_string(),
        "Size": human_size(bytes),
        "Reclaimable": share,
    })
}

/// `--filter` of the prunes; all must hold.
#[derive(Debug, Default)]
struct Filters {
    until: Option<Timestamp>,
    /// Key, value if one was given, and whether it must be there.
    labels: Vec<(String, Option<String>, bool)>,
}

impl Filters {
    fn parse(texts: &[String]) -> Result<Self, Failure> {
        let mut filters = Self::default();
        let now = Timestamp::now();
        for text in texts {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Failure::new(format!("`{text}` is no filter"), "write it as KEY=VALUE, such as `until=24h`")
            })?;
            match key {
                "until" => filters.until = Some(times::parse(&format!("--filter {text}"), value, now)?),
                "label" | "label!" => {
                    let (label, wanted) = match value.split_once('=') {
                        Some((label, wanted)) => (label, Some(wanted.to_owned())),
                        None => (value, None),
                    };
                    filters.labels.push((label.to_owned(), wanted, key == "label"));
                }
                _ => {
                    return Err(Failure::new(
                        format!("invalid filter `{key}`"),
                        "there are until, label and label!",
                    ));
                }
            }
        }
        Ok(filters)
    }

    /// Whether something is to be removed; what has no known age is not, where an age is asked for.
    fn keep(&self, created: Option<Timestamp>, label: impl Fn(&str) -> Option<String>) -> bool {
        let fits = |(key, wanted, must): &(String, Option<String>, bool)| {
            let has = label(key).is_some_and(|value| wanted.as_ref().is_none_or(|wanted| *wanted == value));
            has == *must
        };
        self.until.is_none_or(|until| created.is_some_and(|created| created < until))
            && self.labels.iter().all(fits)
    }
}
