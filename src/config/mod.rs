//! Configuration: one TOML form, read in layers, each value with the place that it came from.
//!
//! ```text
//! built-in default  <  /etc/slipway/slipway.toml  <  ~/.config/slipway/slipway.toml  <  SLIPWAY_*  <  flags
//! ```
//!
//! Within a file, `[[partitions]]` stand over the plain tables, and `[[nodes]]` over those; among records the later wins.
//!
//! A key is one row in `keys.rs`: its name, its field in [`Settings`], and by that its type. The environment variable
//! of `store.keep_blobs` is `SLIPWAY_STORE_KEEP_BLOBS`. Nothing here reads the environment: the caller hands it in.

#![expect(clippy::disallowed_methods, reason = "reads the configuration files")]

mod error;
mod expand;
mod file;
mod keys;
mod merge;
mod place;
mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use keys::KEYS;
use merge::Merge;

pub use error::ConfigError;
pub use merge::Step;
pub use place::Place;
pub use settings::{
    ConvertSettings, FuseSettings, GpuSettings, LaunchSettings, RegistrySettings, RunSettings, Settings,
    StoreSettings,
};
pub use value::{ForwardCompat, GpuDefault, Linger, NoOpen, NodeDirectory, Profile, RootFs, Size};

/// Where a site keeps its file.
pub const SYSTEM_FILE: &str = "/etc/slipway/slipway.toml";
/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

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
    /// The node and partition that records are for; found out when one is met, unless it is given.
    pub place: Option<&'a Place>,
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
        let texts = read_all(sources.files)?;
        Ok(Merge::default().all(&texts, sources)?.settings)
    }

    /// How one key came to its value: every place that sets it here, weakest first; the last one holds. The error is a
    /// sentence if there is no such key.
    pub fn explain(name: &str, sources: &Sources<'_>) -> Result<Vec<Step>, ConfigError> {
        let key = keys::find(name)
            .ok_or_else(|| ConfigError::NoKey { key: name.to_owned(), nearest: keys::nearest(name) })?;
        let texts = read_all(sources.files)?;
        Ok(Merge::watching(key).all(&texts, sources)?.trail)
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

    /// Puts variables into paths, after all layers: a value that was overridden needs none.
    fn expand(&mut self, env: &Environment) -> Result<(), ConfigError> {
        let dir = &mut self.store.dir;
        dir.value = expand::path(&dir.value, env).map_err(|variable| ConfigError::Variable {
            key: "store.dir",
            origin: dir.origin.clone(),
            variable,
        })?;
        let GpuSettings { driver_root, device_root, .. } = &mut self.gpu;
        for (key, dir) in [
            ("launch.unpack_dir", &mut self.launch.unpack_dir),
            ("gpu.driver_root", driver_root),
            ("gpu.device_root", device_root),
        ] {
            let NodeDirectory::Path(path) = &mut dir.value else { continue };
            let expanded = expand::path(path, env);
            *path = expanded.map_err(|variable| {
                let origin = dir.origin.clone();
                ConfigError::Variable { key, origin, variable }
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

/// The texts of the files that are there.
fn read_all(files: &[ConfigFile]) -> Result<Vec<(&Path, String)>, ConfigError> {
    let mut texts = Vec::new();
    for config_file in files {
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
    Ok(texts)
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
