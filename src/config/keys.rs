//! One row for each key: its name and its field. The field's type says what values it takes.

use std::fmt;

use crate::base::{Origin, Sourced};

use super::settings::Settings;
use super::value::{Raw, Value};

/// A key.
pub(super) struct Key {
    /// `table.name`.
    pub(super) name: &'static str,
    /// Sets the field, or says what is expected.
    pub(super) set: fn(&mut Settings, &Input<'_>, Origin) -> Result<(), &'static str>,
    /// The value in TOML, and its origin.
    pub(super) show: fn(&Settings) -> (String, &Origin),
}

/// A value on its way in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    /// Of a file, with TOML's types.
    File(&'a Raw),
    /// Of a variable or flag.
    Text(&'a str),
}

impl fmt::Display for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(raw) => raw.fmt(f),
            Self::Text(text) => write!(f, "`{text}`"),
        }
    }
}

/// A row: table and field.
macro_rules! key {
    ($table:ident . $field:ident) => {
        Key {
            name: concat!(stringify!($table), ".", stringify!($field)),
            set: |settings, input, origin| assign(&mut settings.$table.$field, input, origin),
            show: |settings| show(&settings.$table.$field),
        }
    };
}

/// All keys, in the order of `configs/slipway.toml`.
pub(super) const KEYS: &[Key] = &[
    key!(store.dir),
    key!(store.keep_blobs),
    key!(convert.compression),
    key!(convert.threads),
    key!(convert.max_entries),
    key!(convert.max_bytes),
    key!(fuse.threads),
    key!(fuse.cache),
    key!(fuse.no_open),
    key!(fuse.push),
    key!(launch.linger),
    key!(launch.rootfs),
    key!(launch.unpack_dir),
    key!(launch.unpack_keep_hours),
    key!(registry.insecure),
    key!(registry.mirrors),
    key!(registry.connect_timeout_seconds),
    key!(registry.read_timeout_seconds),
    key!(registry.retries),
    key!(registry.parallel_layers),
    key!(registry.connections_per_layer),
    key!(run.profile),
    key!(run.mount_home),
    key!(run.mount_tmp),
    key!(run.binds),
    key!(gpu.default),
    key!(gpu.nvml_timeout_seconds),
    key!(gpu.rdma),
    key!(gpu.forward_compat),
    key!(gpu.driver_root),
    key!(gpu.device_root),
    key!(gpu.library_path),
    key!(cdi.spec_dirs),
    key!(cdi.ignore_hooks),
];

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that a wrong name probably means.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let (distance, best) = KEYS.iter().map(|key| (distance(name, key.name), key.name)).min()?;
    // Half of another word is no slip of the finger.
    (distance <= (name.len() / 3).max(2)).then_some(best)
}

fn assign<T: Value>(field: &mut Sourced<T>, input: &Input<'_>, origin: Origin) -> Result<(), &'static str> {
    let value = match input {
        Input::File(raw) => T::from_raw(raw),
        Input::Text(text) => T::from_text(text.trim()),
    };
    *field = Sourced::new(value.ok_or(T::EXPECTED)?, origin);
    Ok(())
}

fn show<T: Value>(field: &Sourced<T>) -> (String, &Origin) {
    (field.value.to_toml(), &field.origin)
}

/// Levenshtein's distance in bytes. Names are short; a long one is cut, since it is near to none.
fn distance(left: &str, right: &str) -> usize {
    const MAX_BYTES: usize = 100;
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let left = left.get(..MAX_BYTES).unwrap_or(left);
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, &a) in left.iter().enumerate() {
        let mut diagonal = above;
        let mut last = above + 1;
        for (cell, &b) in row.iter_mut().skip(1).zip(right) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            last = replaced.min(*cell + 1).min(last + 1);
            *cell = last;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_and_guesses() {
        for (left, right, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
        for (name, expected) in [
            ("store.dirs", Some("store.dir")),
            ("store.keepblobs", Some("store.keep_blobs")),
            ("registry.retry", Some("registry.retries")),
            ("run.mount_hme", Some("run.mount_home")),
            ("something.else", None),
            ("", None),
        ] {
            assert_eq!(nearest(name), expected, "{name}");
        }
    }
}
