//! The layers over one another, and what each of them did to a key.

use std::ffi::OsString;
use std::path::Path;

use crate::base::Origin;

use super::error::ConfigError;
use super::keys::{self, Input, KEYS, Key};
use super::place::Whereabouts;
use super::settings::Settings;
use super::{Sources, file};

/// Variables that stand for a key under a second, shorter name.
const SHORT_VARIABLES: [(&str, &str); 1] = [("SLIPWAY_PROFILE", "run.profile")];

/// One place that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The value in TOML, before variables are replaced.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
    /// The record it belongs to, `nodes gpu[001-128]`, if it holds only there.
    pub scope: Option<String>,
}

/// Settings on their way through the layers.
#[derive(Default)]
pub(super) struct Merge {
    pub(super) settings: Settings,
    watched: Option<&'static Key>,
    pub(super) trail: Vec<Step>,
}

impl Merge {
    /// Keeps what happens to one key.
    pub(super) fn watching(key: &'static Key) -> Self {
        let mut merge = Self { watched: Some(key), ..Self::default() };
        merge.note(key, None);
        merge
    }

    /// All layers, weakest first.
    pub(super) fn all(
        mut self,
        texts: &[(&Path, String)],
        sources: &Sources<'_>,
    ) -> Result<Self, ConfigError> {
        let whereabouts = Whereabouts::new(sources);
        for (path, text) in texts {
            file::apply(&mut self, &whereabouts, path, text)?;
        }
        for (variable, key) in variables() {
            let value = sources.env.get(&OsString::from(&variable)).filter(|value| !value.is_empty());
            let Some(value) = value else { continue };
            // What is no text is no value of any key either, and is shown with marks.
            self.assign(key, Input::Text(&value.to_string_lossy()), Origin::Env(variable), None)?;
        }
        for flag in sources.flags {
            let key = keys::find(flag.key).expect("flags name existing keys");
            self.assign(key, Input::Text(&flag.text), Origin::Flag(flag.flag.clone()), None)?;
        }
        self.settings.expand(sources.env)?;
        Ok(self)
    }

    /// Sets one key.
    pub(super) fn assign(
        &mut self,
        key: &'static Key,
        input: Input<'_>,
        origin: Origin,
        scope: Option<&str>,
    ) -> Result<(), ConfigError> {
        (key.set)(&mut self.settings, &input, origin.clone()).map_err(|expected| ConfigError::Value {
            key: key.name,
            origin,
            expected,
            found: input.to_string(),
        })?;
        self.note(key, scope);
        Ok(())
    }

    fn note(&mut self, key: &'static Key, scope: Option<&str>) {
        if self.watched.is_some_and(|watched| watched.name == key.name) {
            let (value, origin) = (key.show)(&self.settings);
            self.trail.push(Step { value, origin: origin.clone(), scope: scope.map(str::to_owned) });
        }
    }
}

/// The variable of each key; the short names come first, so that the full one wins.
fn variables() -> impl Iterator<Item = (String, &'static Key)> {
    let short = SHORT_VARIABLES.iter().map(|(variable, key)| {
        ((*variable).to_owned(), keys::find(key).expect("short names are of existing keys"))
    });
    short.chain(KEYS.iter().map(|key| {
        let name = key.name.replace('.', "_").to_ascii_uppercase();
        (format!("SLIPWAY_{name}"), key)
    }))
}
