//! `slipway images`.

mod filter;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Value, json};

use crate::base::sizes::human_size;
use crate::reference::ImageRef;
use crate::store::{Store, StoredImage};

use super::Session;
use crate::cli::args::ImagesArgs;
use crate::cli::failure::Failure;
use crate::cli::{table, term};
use filter::Filters;

const NONE: &str = "<none>";
/// The head's words for the fields of `--format`.
const TITLES: [(&str, &str); 7] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
];

/// One line of `slipway images --json`: an array of these.
#[derive(Debug, Clone, Serialize)]
struct Row {
    repository: String,
    tag: String,
    /// Digest of the image config.
    id: String,
    /// Digest of the manifest, or of the index that the name stands for in its registry.
    digest: String,
    platform: String,
    created: Option<String>,
    /// Bytes of the run file.
    size_bytes: u64,
}

pub(in crate::cli) fn run(args: &ImagesArgs, session: &Session) -> Result<(), Failure> {
    let store = session.store()?;
    for error in store.readable_refs()?.1 {
        term::warn(&error.to_string());
    }
    let rows = rows(args, &store)?;
    if args.json {
        let text = serde_json::to_string_pretty(&rows)
            .map_err(|error| Failure::new(format!("the list cannot be shown as JSON: {error}"), None))?;
        return term::print(&format_args!("{text}\n"));
    }
    let id = |row: &Row| if args.listing.no_trunc { row.id.clone() } else { short(&row.id).to_owned() };
    if args.listing.quiet {
        // An image with several names is listed once.
        let mut ids: Vec<String> = Vec::new();
        for row in &rows {
            if !ids.contains(&id(row)) {
                ids.push(id(row));
            }
        }
        return term::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    let now = Timestamp::now();
    let values: Vec<Value> = rows.iter().map(|row| fields(row, id(row), now)).collect();
    let digest = if args.digests { "\t{{.Digest}}" } else { "" };
    let default = format!(
        "table {{{{.Repository}}}}\t{{{{.Tag}}}}{digest}\t{{{{.ID}}}}\t{{{{.CreatedSince}}}}\t{{{{.Size}}}}"
    );
    let format = args.listing.format.as_deref().filter(|format| *format != "table").unwrap_or(&default);
    term::print(&table::formatted(format, &values, &TITLES)?)
}

/// A row for each name, newest image first, as docker has it.
fn rows(args: &ImagesArgs, store: &Store) -> Result<Vec<Row>, Failure> {
    let filters = Filters::parse(&args.filter, args.name.as_deref(), store)?;
    let mut images = store.images()?;
    images.sort_by_key(|image| std::cmp::Reverse(created(image)));
    let mut rows = Vec::new();
    for image in &images {
        if !filters.keep_image(image, store) {
            continue;
        }
        let names = image.names.iter().filter_map(|name| ImageRef::parse(name).ok());
        rows.extend(names.filter(|name| filters.keep_name(name)).map(|name| row(image, Some(&name))));
        if image.names.is_empty() && filters.keep_nameless() {
            rows.push(row(image, None));
        }
    }
    Ok(rows)
}

fn created(image: &StoredImage) -> Option<Timestamp> {
    image.record.created.as_deref()?.parse().ok()
}

fn row(image: &StoredImage, name: Option<&ImageRef>) -> Row {
    let record = &image.record;
    let (repository, tag) = match name {
        Some(name) => {
            let familiar = name.familiar();
            let tag = name.tag().unwrap_or(NONE).to_owned();
            let end = familiar.find('@').unwrap_or(familiar.len());
            let whole = &familiar[..end];
            (whole.strip_suffix(&format!(":{tag}")).unwrap_or(whole).to_owned(), tag)
        }
        None => (NONE.to_owned(), NONE.to_owned()),
    };
    let by_registry = name.and_then(|name| {
        let start = format!("{}@", name.repository());
        image.digests.iter().find_map(|digest| digest.strip_prefix(&start))
    });
    Row {
        repository,
        tag,
        id: record.config.to_string(),
        digest: by_registry.map_or_else(|| record.manifest.to_string(), str::to_owned),
        platform: record.platform.to_string(),
        created: record.created.clone(),
        size_bytes: record.size_bytes,
    }
}

/// The fields that docker gives to a template.
fn fields(row: &Row, id: String, now: Timestamp) -> Value {
    let size = human_size(row.size_bytes);
    json!({
        "ID": id,
        "Repository": row.repository,
        "Tag": row.tag,
        "Digest": row.digest,
        "CreatedSince": row.created.as_deref().map_or_else(|| "N/A".into(), |created| ago(created, now)),
        "CreatedAt": row.created.as_deref().map_or_else(|| "N/A".into(), spelled),
        "Size": size,
        "VirtualSize": size,
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "Containers": "N/A",
        "Platform": row.platform,
    })
}

/// A time as Go prints it.
fn spelled(created: &str) -> String {
    match created.parse::<Timestamp>() {
        Ok(time) => time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        Err(_) => "N/A".into(),
    }
}

fn short(id: &str) -> &str {
    let hex = id.trim_start_matches("sha256:");
    hex.get(..12).unwrap_or(hex)
}

/// Docker's words for an age.
pub(super) fn ago(created: &str, now: Timestamp) -> String {
    let Ok(created) = created.parse::<Timestamp>() else { return "N/A".into() };
    format!("{} ago", human_duration(now.as_second().saturating_sub(created.as_second())))
}

/// Docker's words for a duration (docker/go-units `HumanDuration`).
pub(super) fn human_duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".into(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_ages_as_docker_does() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (created, expected) in [
            ("2026-01-31T12:00:00Z", "Less than a second ago"),
            ("2026-01-31T11:59:20Z", "40 seconds ago"),
            ("2026-01-31T11:58:50Z", "About a minute ago"),
            ("2026-01-31T11:00:00Z", "About an hour ago"),
            ("2026-01-30T00:00:00Z", "36 hours ago"),
            ("2026-01-21T12:00:00Z", "10 days ago"),
            ("2026-01-01T12:00:00Z", "4 weeks ago"),
            ("2025-06-01T12:00:00Z", "8 months ago"),
            ("2020-01-01T00:00:00Z", "6 years ago"),
            ("yesterday", "N/A"),
        ] {
            assert_eq!(ago(created, now), expected, "{created}");
        }
        assert_eq!(spelled("2026-01-31T12:00:00.5+01:00"), "2026-01-31 11:00:00 +0000 UTC");
    }
}
