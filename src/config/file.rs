//! One file: TOML text to assignments, each with its line. The one door to the `toml` crate.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::base::{Hostlist, Origin};

use super::error::ConfigError;
use super::keys::{Input, KEYS, find, nearest};
use super::merge::Merge;
use super::place::Whereabouts;
use super::value::Raw;

/// A file that is being read.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

/// Puts the values of a file into the settings: the plain tables, then the records of partitions and of nodes.
pub(super) fn apply(
    merge: &mut Merge,
    whereabouts: &Whereabouts<'_>,
    path: &Path,
    text: &str,
) -> Result<(), ConfigError> {
    let source = Source { path, text };
    let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.into(),
        line: source.line(error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', ", "),
    })?;
    let document = document.get_ref();
    source.tables(merge, document, &["nodesets", "partitions", "nodes"], None)?;
    let sets = source.node_sets(document)?;
    for (name, entry) in document {
        if name.get_ref() == "partitions" {
            source.records(merge, "partitions", entry, &|list| {
                list.holds(whereabouts.get().partition.as_deref(), &[])
            })?;
        }
    }
    for (name, entry) in document {
        if name.get_ref() == "nodes" {
            source.records(merge, "nodes", entry, &|list| {
                list.holds(whereabouts.get().node.as_deref(), &sets)
            })?;
        }
    }
    Ok(())
}

/// The names of a record.
struct Names {
    written: String,
    list: Hostlist,
}

impl Names {
    /// Whether the name is one of these, by itself or through a set. Slurm reserves the word for all.
    fn holds(&self, name: Option<&str>, sets: &[(String, Hostlist)]) -> bool {
        let Some(name) = name else { return false };
        let through = |(set, nodes): &(String, Hostlist)| self.list.contains(set) && nodes.contains(name);
        self.written.eq_ignore_ascii_case("all") || self.list.contains(name) || sets.iter().any(through)
    }
}

impl Source<'_> {
    /// Tables of keys; those of other names in `besides` are passed over.
    fn tables(
        &self,
        merge: &mut Merge,
        tables: &DeTable<'_>,
        besides: &[&str],
        scope: Option<&str>,
    ) -> Result<(), ConfigError> {
        for (table_name, table) in tables {
            let name = table_name.get_ref().as_ref();
            if besides.contains(&name) {
                continue;
            }
            let Some(entries) = table.get_ref().as_table().filter(|_| is_table(name)) else {
                return Err(self.unknown(name, table_name.span().start));
            };
            for (key_name, value) in entries {
                let full_name = format!("{name}.{}", key_name.get_ref());
                let at = key_name.span().start;
                let key = find(&full_name).ok_or_else(|| self.unknown(&full_name, at))?;
                let origin = Origin::File { path: self.path.into(), line: self.line(at) };
                merge.assign(key, Input::File(&raw_of(value.get_ref())), origin, scope)?;
            }
        }
        Ok(())
    }

    /// Records `[[nodes]]` or `[[partitions]]`. One that does not hold here is read all the same, so that a mistake in it
    /// is told on every node.
    fn records(
        &self,
        merge: &mut Merge,
        kind: &'static str,
        entry: &Spanned<DeValue<'_>>,
        holds: &dyn Fn(&Names) -> bool,
    ) -> Result<(), ConfigError> {
        for (record, at) in self.array(kind, entry)? {
            let names = self.names(record, "names", kind, at)?;
            let scope = format!("{kind} {}", names.written);
            let mut elsewhere = Merge::default();
            let target = if holds(&names) { &mut *merge } else { &mut elsewhere };
            self.tables(target, record, &["names"], Some(&scope))?;
        }
        Ok(())
    }

    /// `[[nodesets]]`: a name for many nodes, as Slurm's NodeSet.
    fn node_sets(&self, document: &DeTable<'_>) -> Result<Vec<(String, Hostlist)>, ConfigError> {
        let mut sets = Vec::new();
        for (name, entry) in document {
            if name.get_ref() != "nodesets" {
                continue;
            }
            for (record, at) in self.array("nodesets", entry)? {
                let set = self.names(record, "name", "nodesets", at)?;
                let nodes = self.names(record, "nodes", "nodesets", at)?;
                let other = |key: &str| key != "name" && key != "nodes";
                if let Some((key, _)) = record.iter().find(|(key, _)| other(key.get_ref())) {
                    return Err(self.unknown(&format!("nodesets.{}", key.get_ref()), key.span().start));
                }
                sets.push((set.written, nodes.list));
            }
        }
        Ok(sets)
    }

    fn array<'b, 'c>(
        &self,
        kind: &'static str,
        entry: &'b Spanned<DeValue<'c>>,
    ) -> Result<Vec<(&'b DeTable<'c>, usize)>, ConfigError> {
        let at = entry.span().start;
        let wrong =
            |at| ConfigError::Record { path: self.path.into(), line: self.line(at), kind, lacks: None };
        let items = entry.get_ref().as_array().ok_or_else(|| wrong(at))?;
        items
            .iter()
            .map(|item| {
                let at = item.span().start;
                Ok((item.get_ref().as_table().ok_or_else(|| wrong(at))?, at))
            })
            .collect()
    }

    /// The text of a record's key that holds names of nodes or partitions.
    fn names(
        &self,
        record: &DeTable<'_>,
        key: &'static str,
        kind: &'static str,
        at: usize,
    ) -> Result<Names, ConfigError> {
        let entry = record.iter().find(|(name, _)| name.get_ref() == key);
        let line = self.line(entry.map_or(at, |(name, _)| name.span().start));
        let text =
            entry.and_then(|(_, value)| value.get_ref().as_str()).filter(|text| !text.trim().is_empty());
        let lacks = || ConfigError::Record { path: self.path.into(), line, kind, lacks: Some(key) };
        let written = text.ok_or_else(lacks)?.to_owned();
        let list = Hostlist::parse(&written).map_err(|source| ConfigError::Names {
            path: self.path.into(),
            line,
            source,
        })?;
        Ok(Names { written, list })
    }

    fn unknown(&self, name: &str, at: usize) -> ConfigError {
        ConfigError::UnknownKey {
            path: self.path.into(),
            line: self.line(at),
            nearest: nearest(name).or_else(|| nearest_table(name)),
            key: name.into(),
        }
    }

    /// Line of a byte, from 1.
    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }
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
