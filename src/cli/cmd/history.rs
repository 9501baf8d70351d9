//! `slipway history`: the steps that an image was made in, newest first.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::base::sizes::human_size;
use crate::oci::Manifest;
use crate::store::StoredImage;

use super::images::ago;
use super::{Session, locate};
use crate::cli::args::HistoryArgs;
use crate::cli::failure::Failure;
use crate::cli::{table, term};

/// Characters of a command that are shown.
const COMMAND_CHARS: usize = 45;
const TITLES: [(&str, &str); 7] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
    ("Platform", "PLATFORM"),
];

pub(in crate::cli) fn run(args: &HistoryArgs, session: &Session) -> Result<(), Failure> {
    let store = session.store()?;
    let (image, _) = locate::image(&store, &args.image)?;
    let (config, manifest) = locate::documents(&store, &image)?;
    let rows = rows(&image, &config, manifest.as_ref(), args, Timestamp::now());
    if args.listing.quiet {
        let ids: String = rows.iter().map(|row| format!("{}\n", text(row, "ID"))).collect();
        return term::print(&ids);
    }
    let created = if args.human { "CreatedSince" } else { "CreatedAt" };
    let default =
        format!("table {{{{.ID}}}}\t{{{{.{created}}}}}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
    let format = args.listing.format.as_deref().filter(|format| *format != "table").unwrap_or(&default);
    term::print(&table::formatted(format, &rows, &TITLES)?)
}

fn rows(
    image: &StoredImage,
    config: &Value,
    manifest: Option<&Manifest>,
    args: &HistoryArgs,
    now: Timestamp,
) -> Vec<Value> {
    let entries = config.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut layers = manifest.map(|manifest| manifest.layers.as_slice()).unwrap_or_default().iter();
    let mut rows: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let is_empty = entry.get("empty_layer").and_then(Value::as_bool).unwrap_or_default();
            let size_bytes = if is_empty { 0 } else { layers.next().map_or(0, |layer| layer.size_bytes) };
            let created = text(entry, "created");
            let since = if created.is_empty() { "N/A".into() } else { ago(created, now) };
            json!({
                "ID": "<missing>",
                "CreatedSince": since,
                "CreatedAt": created,
                "CreatedBy": shortened(text(entry, "created_by"), args.listing.no_trunc),
                "Size": if args.human { human_size(size_bytes) } else { size_bytes.to_string() },
                "Comment": text(entry, "comment"),
                "Platform": image.record.platform.to_string(),
            })
        })
        .collect();
    rows.reverse();
    let id = image.record.config;
    if let Some(first) = rows.first_mut() {
        first["ID"] = if args.listing.no_trunc { id.to_string() } else { id.short() }.into();
    }
    rows
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A command in one line.
fn shortened(command: &str, whole: bool) -> String {
    let line = command.replace(['\t', '\n', '\r'], " ");
    if whole || line.chars().count() <= COMMAND_CHARS {
        return line;
    }
    line.chars().take(COMMAND_CHARS - 1).chain(['…']).collect()
}
