//! `slipway images`.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use crate::base::sizes::human_size;
use crate::reference::ImageRef;
use crate::store::RefRecord;

use super::Session;
use crate::cli::args::ImagesArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// One line of `slipway images --json`: an array of these.
#[derive(Debug, Serialize)]
struct Row {
    repository: String,
    tag: String,
    /// Digest of the image config.
    id: String,
    /// Digest of the manifest.
    digest: String,
    platform: String,
    created: Option<String>,
    /// Bytes of the run file.
    size_bytes: u64,
}

pub(in crate::cli) fn run(args: &ImagesArgs, session: &Session) -> Result<(), Failure> {
    let (refs, unreadable) = session.store()?.readable_refs()?;
    for error in unreadable {
        term::note(&format_args!("warning: {error}"));
    }
    let rows: Vec<Row> = refs.iter().map(|(name, record)| row(name, record)).collect();
    if args.json {
        let text = serde_json::to_string_pretty(&rows)
            .map_err(|error| Failure::new(format!("the list cannot be shown as JSON: {error}"), None))?;
        return term::print(&format_args!("{text}\n"));
    }
    if args.quiet {
        let ids: String = rows.iter().map(|row| format!("{}\n", short(&row.id))).collect();
        return term::print(&ids);
    }
    term::print(&table(&rows, Timestamp::now()))
}

fn row(name: &str, record: &RefRecord) -> Row {
    let (repository, tag) = match ImageRef::parse(name) {
        Ok(reference) => {
            let familiar = reference.familiar();
            let tag = reference.tag().unwrap_or("<none>").to_owned();
            let end = familiar.find('@').unwrap_or(familiar.len());
            let repository = familiar[..end].trim_end_matches(&format!(":{tag}")).to_owned();
            (repository, tag)
        }
        Err(_) => (name.to_owned(), "<none>".into()),
    };
    Row {
        repository,
        tag,
        id: record.config.to_string(),
        digest: record.manifest.to_string(),
        platform: record.platform.to_string(),
        created: record.created.clone(),
        size_bytes: record.size_bytes,
    }
}

fn short(id: &str) -> &str {
    let hex = id.trim_start_matches("sha256:");
    hex.get(..12).unwrap_or(hex)
}

/// Docker's classic table.
fn table(rows: &[Row], now: Timestamp) -> String {
    let mut lines = vec![["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"].map(String::from)];
    lines.extend(rows.iter().map(|row| {
        [
            row.repository.clone(),
            row.tag.clone(),
            short(&row.id).to_owned(),
            row.created.as_deref().map_or_else(|| "N/A".into(), |created| ago(created, now)),
            human_size(row.size_bytes),
        ]
    }));
    let mut widths = [0; 5];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(widths) {
            write!(row, "{cell:<width$}   ").expect("writing to a String cannot fail");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// Docker's words for an age (docker/go-units `HumanDuration`).
fn ago(created: &str, now: Timestamp) -> String {
    let Ok(created) = created.parse::<Timestamp>() else { return "N/A".into() };
    let seconds = now.as_second().saturating_sub(created.as_second()).max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    let words = match seconds {
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
    };
    format!("{words} ago")
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
    }

    #[test]
    fn lines_up_the_columns() {
        let row = Row {
            repository: "python".into(),
            tag: "3.12".into(),
            id: format!("sha256:{}", "ab".repeat(32)),
            digest: String::new(),
            platform: String::new(),
            created: None,
            size_bytes: 1_500_000,
        };
        assert_eq!(
            table(&[row], Timestamp::UNIX_EPOCH),
            "REPOSITORY   TAG    IMAGE ID       CREATED   SIZE\n\
             python       3.12   abababababab   N/A       1.5MB\n"
        );
    }
}
