//! `--filter` of `images`.

use jiff::Timestamp;

use crate::oci::ImageConfig;
use crate::reference::ImageRef;
use crate::store::{Store, StoredImage};

use super::super::locate;
use crate::cli::failure::Failure;

/// What to show. Filters of one kind are alternatives for `reference`, and all must hold for the others.
#[derive(Debug, Default)]
pub(super) struct Filters {
    references: Vec<String>,
    dangling: Option<bool>,
    labels: Vec<(String, Option<String>)>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Filters {
    pub(super) fn parse(texts: &[String], name: Option<&str>, store: &Store) -> Result<Self, Failure> {
        let mut filters = Self::default();
        filters.references.extend(name.map(str::to_owned));
        for text in texts {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Failure::new(
                    format!("`{text}` is no filter"),
                    "write it as KEY=VALUE, such as `dangling=true`",
                )
            })?;
            match key {
                "reference" => filters.references.push(value.to_owned()),
                "dangling" => filters.dangling = Some(boolean(value)?),
                "label" => {
                    let (key, value) = match value.split_once('=') {
                        Some((key, value)) => (key, Some(value.to_owned())),
                        None => (value, None),
                    };
                    filters.labels.push((key.to_owned(), value));
                }
                "before" => filters.before = super::created(&locate::image(store, value)?.0),
                "since" => filters.since = super::created(&locate::image(store, value)?.0),
                _ => {
                    return Err(Failure::new(
                        format!("invalid filter `{key}`"),
                        "there are reference, dangling, label, before and since",
                    ));
                }
            }
        }
        Ok(filters)
    }

    pub(super) fn keep_image(&self, image: &StoredImage, store: &Store) -> bool {
        let created = super::created(image);
        self.dangling.is_none_or(|dangling| dangling == image.names.is_empty())
            && self.before.is_none_or(|before| created.is_some_and(|created| created < before))
            && self.since.is_none_or(|since| created.is_some_and(|created| created > since))
            && self.has_labels(image, store)
    }

    fn has_labels(&self, image: &StoredImage, store: &Store) -> bool {
        if self.labels.is_empty() {
            return true;
        }
        let raw = locate::raw_config(store, image).ok();
        let Some(config) = raw.and_then(|raw| ImageConfig::parse(&raw).ok()) else { return false };
        self.labels.iter().all(|(key, wanted)| {
            let label = config.config.labels.get(key);
            label.is_some_and(|label| wanted.as_ref().is_none_or(|wanted| wanted == label))
        })
    }

    pub(super) fn keep_name(&self, name: &ImageRef) -> bool {
        let familiar = name.familiar();
        let repository = match name.tag() {
            Some(tag) => familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar),
            None => &familiar,
        };
        let fits = |pattern: &String| {
            [familiar.as_str(), repository].iter().any(|text| matches(pattern.as_bytes(), text.as_bytes()))
                // A name in another spelling, such as `docker.io/library/python`.
                || ImageRef::parse(pattern).is_ok_and(|meant| {
                    let is_tagged = pattern.rsplit('/').next().unwrap_or_default().contains(':');
                    meant.repository() == name.repository() && (!is_tagged || meant.tag() == name.tag())
                })
        };
        self.references.is_empty() || self.references.iter().any(fits)
    }

    pub(super) fn keep_nameless(&self) -> bool {
        self.references.is_empty()
    }
}

fn boolean(text: &str) -> Result<bool, Failure> {
    match text {
        "true" | "1" | "True" | "TRUE" | "t" => Ok(true),
        "false" | "0" | "False" | "FALSE" | "f" => Ok(false),
        _ => Err(Failure::new(format!("invalid filter `dangling={text}`"), "write true or false")),
    }
}

/// Go's `path.Match` without classes: `*` and `?` stop at a slash.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, text)
                || matches!(text.split_first(), Some((first, text)) if *first != b'/' && matches(pattern, text))
        }
        (Some((b'?', rest)), Some((first, text))) if *first != b'/' => matches(rest, text),
        (Some((one, rest)), Some((first, text))) if one == first => matches(rest, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_go_has_it() {
        for (pattern, text, expected) in [
            ("python", "python", true),
            ("py*", "python:3.12", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("*/b:?", "a/b:1", true),
            ("p?thon", "python", true),
            ("python", "python:3.12", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn names_are_kept_by_any_reference() {
        let keep = |references: &[&str], name: &str| {
            let references = references.iter().map(|one| (*one).to_owned()).collect();
            Filters { references, ..Filters::default() }.keep_name(&ImageRef::parse(name).unwrap())
        };
        for (references, name, expected) in [
            (&[][..], "python", true),
            (&["python"], "python:3.12", true),
            (&["python:3.11"], "python:3.12", false),
            (&["docker.io/library/python"], "python:3.12", true),
            (&["x", "h:5000/*"], "h:5000/y:1", true),
            (&["x", "h:5000/*"], "h:5000/y/z:1", false),
        ] {
            assert_eq!(keep(references, name), expected, "{references:?} {name}");
        }
    }
}
