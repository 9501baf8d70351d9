//! Configuration: one TOML form, read in layers, each value with the place that it came from.
//!
//! ```text
//! built-in default  <  /etc/slipway/slipway.toml  <  ~/.config/slipway/slipway.toml  <  SLIPWAY_*  <  flags
//! ```
//!
//! A key is one row in `keys.rs`: its name, its field in [`Settings`], and by that its type. The environment variable
//! of `store.keep_blobs` is `SLIPWAY_STORE_KEEP_BLOBS`. Nothing here reads the environment: the caller hands it in.

#![expect(clippy::disallowed_methods, reason = "reads the configuration files")]

mod error;
mod expand;
mod file;
mod keys;
mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::base::Origin;

use keys::{Input, KEYS, Key};

pub use error::ConfigError;
pub use settings::{
    ConvertSettings, FuseSettings, GpuSettings, LaunchSettings, RegistrySettings, RunSettings, Settings,
    StoreSettings,
};
pub use value::{GpuDefault, NoOpen, NodeDirectory, Profile, RootFs, Size};

/// Where a site keeps its file.
pub const SYSTEM_FILE: &str = "/etc/slipway/slipway.toml";
/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Variables that stand for a key under a second, shorter name.
const SHORT_VARIABLES: [(&str, &str); 1] = [("SLIPWAY_PROFILE", "run.profile")];

/// The caller's environment.
pub type Environment = BTreeMap<OsString, OsString>;

/// One file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigFile {
    /// Read if it is there.
    Optional(PathBuf),
    /// Must be there: the user named it.
    Required(PathBuf),
}

/// A flag that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagValue {
    /// The key, `store.dir`.
    pub key: &'static str,
    /// The flag as the user spells it, `--store`.
    pub flag: String,
    /// Its value.
    pub text: String,
}

/// All places that settings come from, weakest first.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Files, in the order in which they are read.
    pub files: &'a [ConfigFile],
    /// The environment.
    pub env: &'a Environment,
    /// Flags.
    pub flags: &'a [FlagValue],
}

/// The files of a machine and a user: [`SYSTEM_FILE`], then `slipway/slipway.toml` below `$XDG_CONFIG_HOME` or `~/.config`.
#[must_use]
pub fn default_files(env: &Environment) -> Vec<ConfigFile> {
    let mut files = vec![ConfigFile::Optional(SYSTEM_FILE.into())];
    if let Ok(path) = expand::path(Path::new("$XDG_CONFIG_HOME/slipway/slipway.toml"), env) {
        files.push(ConfigFile::Optional(path));
    }
    files
}

impl Settings {
    /// Reads all layers.
    pub fn load(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let mut texts = Vec::new();
        for config_file in sources.files {
            let (path, required) = match config_file {
                ConfigFile::Optional(path) => (path, false),
                ConfigFile::Required(path) => (path, true),
            };
            match read_text(path) {
                Ok(text) => texts.push((path.as_path(), text)),
                Err(error) if !required && is_absent(&error) => {}
                // A home on a file system that the node may not read (no Kerberos ticket, squashed root) must not stop
                // every command; the site's own file must be readable.
                Err(error)
                    if !required
                        && path != Path::new(SYSTEM_FILE)
                        && error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(source) => return Err(ConfigError::Read { path: path.clone(), source }),
            }
        }
        Self::merge(&texts, sources.env, sources.flags)
    }

    /// Puts the layers over one another, weakest first.
    fn merge(texts: &[(&Path, String)], env: &Environment, flags: &[FlagValue]) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        for (path, text) in texts {
            file::apply(&mut settings, path, text)?;
        }
        for (variable, key) in variables() {
            let Some(value) = env.get(&OsString::from(&variable)).filter(|value| !value.is_empty()) else {
                continue;
            };
            // What is no text is no value of any key either, and is shown with marks.
            settings.assign(key, Input::Text(&value.to_string_lossy()), Origin::Env(variable))?;
        }
        for flag in flags {
            let key = keys::find(flag.key).expect("flags name existing keys");
            settings.assign(key, Input::Text(&flag.text), Origin::Flag(flag.flag.clone()))?;
        }
        settings.expand(env)?;
        Ok(settings)
    }

    /// All settings as lines `key = value  # origin`, in TOML.
    #[must_use]
    pub fn show(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for key in KEYS {
            let (value, origin) = (key.show)(self);
            writeln!(text, "{} = {value}  # {origin}", key.name).expect("writing to a String cannot fail");
        }
        text
    }

    fn assign(&mut self, key: &Key, input: Input<'_>, origin: Origin) -> Result<(), ConfigError> {
        (key.set)(self, &input, origin.clone()).map_err(|expected| ConfigError::Value {
            key: key.name,
            origin,
            expected,
            found: input.to_string(),
        })
    }

    /// Puts variables into paths, after all layers: a value that was overridden needs none.
    fn expand(&mut self, env: &Environment) -> Result<(), ConfigError> {
        let dir = &mut self.store.dir;
        dir.value = expand::path(&dir.value, env).map_err(|variable| ConfigError::Variable {
            key: "store.dir",
            origin: dir.origin.clone(),
            variable,
        })?;
        let dir = &mut self.launch.unpack_dir;
        if let NodeDirectory::Path(path) = &mut dir.value {
            *path = expand::path(path, env).map_err(|variable| ConfigError::Variable {
                key: "launch.unpack_dir",
                origin: dir.origin.clone(),
                variable,
            })?;
        }
        let binds = &mut self.run.binds;
        for bind in &mut binds.value {
            *bind = expand::text(bind, env).map_err(|variable| ConfigError::Variable {
                key: "run.binds",
                origin: binds.origin.clone(),
                variable,
            })?;
        }
        Ok(())
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

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
