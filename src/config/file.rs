//! One file: TOML text to assignments, each with its line. The one door to the `toml` crate.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::base::Origin;

use super::error::ConfigError;
use super::keys::{Input, KEYS, find, nearest};
use super::settings::Settings;
use super::value::Raw;

/// Puts the values of a file into the settings.
pub(super) fn apply(settings: &mut Settings, path: &Path, text: &str) -> Result<(), ConfigError> {
    let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.into(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', ", "),
    })?;
    for (table_name, table) in document.get_ref() {
        let name = table_name.get_ref().as_ref();
        let unknown = |name: &str, at: usize| ConfigError::UnknownKey {
            path: path.into(),
            line: line_of(text, at),
            nearest: nearest(name).or_else(|| nearest_table(name)),
            key: name.into(),
        };
        let Some(entries) = table.get_ref().as_table().filter(|_| is_table(name)) else {
            return Err(unknown(name, table_name.span().start));
        };
        for (key_name, value) in entries {
            let full_name = format!("{name}.{}", key_name.get_ref());
            let at = key_name.span().start;
            let key = find(&full_name).ok_or_else(|| unknown(&full_name, at))?;
            let origin = Origin::File { path: path.into(), line: line_of(text, at) };
            settings.assign(key, Input::File(&raw_of(value.get_ref())), origin)?;
        }
    }
    Ok(())
}

fn raw_of(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) => Raw::Integer(value),
            Err(_) => Raw::Other(format!("`{number}`")),
        },
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw_of(item.get_ref())).collect()),
        DeValue::Table(_) => Raw::Other("a table".into()),
        DeValue::Float(_) => Raw::Other("a number with a point".into()),
        DeValue::Datetime(_) => Raw::Other("a date".into()),
    }
}

fn tables() -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(|key| key.name.split('.').next())
}

fn is_table(name: &str) -> bool {
    tables().any(|table| table == name)
}

/// A key without its table (`keep_blobs = false` at the top), if that is what it is.
fn nearest_table(name: &str) -> Option<&'static str> {
    KEYS.iter().map(|key| key.name).find(|key| key.split('.').nth(1) == Some(name))
}

/// Line of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
