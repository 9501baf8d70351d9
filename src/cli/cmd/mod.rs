//! One file for each verb, and what they share.

#![expect(clippy::disallowed_methods, reason = "verbs look at files of the user and start our own helpers")]

mod bundle;
pub(super) mod cdi;
mod compose;
pub(super) mod config;
pub(super) mod containers;
pub(super) mod convert;
pub(super) mod doctor;
mod fence;
mod glibc;
pub(super) mod gpus;
mod grants;
pub(super) mod history;
mod hot;
pub(super) mod image;
pub(super) mod images;
pub(super) mod import;
pub(super) mod info;
pub(super) mod inspect;
pub(super) mod load;
mod locate;
pub(super) mod login;
pub(super) mod prune;
mod publish;
pub(super) mod pull;
pub(super) mod push;
mod request;
pub(super) mod rmi;
mod rootfs;
pub(super) mod run;
pub(super) mod save;
pub(super) mod sbatch;
mod sharing;
pub(super) mod shell;
pub(super) mod tag;
mod times;
pub(super) mod volume;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use crate::config::{NoOpen, Settings, Sources, default_files};
use crate::fuse::Tuning;
use crate::host::LaunchFacts;
use crate::launch::ServeSettings;
use crate::oci::Platform;
use crate::registry::{Client, ClientOptions, CredentialSources, Proxies, TrustSources};
use crate::store::Store;

use super::args::ConversionArgs;
use super::failure::Failure;

/// What every verb starts from: the environment and the settings.
#[derive(Debug)]
pub(super) struct Session {
    env: BTreeMap<OsString, OsString>,
    settings: Settings,
}

impl Session {
    /// Reads the settings that hold for this environment.
    pub(super) fn open(env: BTreeMap<OsString, OsString>) -> Result<Self, Failure> {
        let env_with_home = with_home(&env);
        let sources =
            Sources { files: &default_files(&env_with_home), env: &env_with_home, flags: &[], place: None };
        let settings = Settings::load(&sources)?;
        Ok(Self { env, settings })
    }

    fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.settings.store.dir.value)?)
    }

    fn client(&self) -> Client {
        self.client_with_retries(None)
    }

    /// A client with the retries that a flag says, or the settings.
    fn client_with_retries(&self, retries: Option<u32>) -> Client {
        let settings = &self.settings.registry;
        let seconds = |count: u32| Duration::from_secs(count.into());
        Client::new(ClientOptions {
            insecure: settings.insecure.value.clone(),
            connect_timeout: seconds(settings.connect_timeout_seconds.value),
            read_timeout: seconds(settings.read_timeout_seconds.value),
            retries: retries.unwrap_or(settings.retries.value),
            parallel_layers: to_usize(settings.parallel_layers.value).max(1),
            connections_per_layer: to_usize(settings.connections_per_layer.value),
            credentials: self.credentials(),
            trust: TrustSources::from_env(&with_home(&self.env)),
            proxies: Proxies::from_env(&self.env),
            mirrors: settings.mirrors.value.clone(),
            ..ClientOptions::default()
        })
    }

    /// Where the user's logins are.
    fn credentials(&self) -> CredentialSources {
        CredentialSources::from_env(&with_home(&self.env))
    }

    fn convert_options(&self, args: &ConversionArgs) -> crate::convert::Options {
        let settings = &self.settings.convert;
        crate::convert::Options {
            compressor: args.compression.unwrap_or(settings.compression.value),
            threads: threads(settings.threads.value, &LaunchFacts::read(Path::new("/"))),
            max_entries: settings.max_entries.value,
            max_bytes: settings.max_bytes.value.0,
        }
    }

    fn serve_settings(&self) -> ServeSettings {
        let settings = &self.settings.fuse;
        let no_open = match settings.no_open.value {
            NoOpen::Auto => None,
            NoOpen::On => Some(true),
            NoOpen::Off => Some(false),
        };
        let report = self.env.get(OsStr::new("SLIPWAY_FUSE_STATS")).filter(|path| !path.is_empty());
        let cwd = std::env::current_dir().unwrap_or_default();
        ServeSettings {
            threads: to_usize(settings.threads.value),
            cache_bytes: usize::try_from(settings.cache.value.0).unwrap_or(usize::MAX),
            no_open,
            tuning: Tuning {
                standby: true,
                push: settings.push.value,
                report: report.map(|path| cwd.join(path)),
                report_at_end: report.is_some(),
                ..Tuning::default()
            },
        }
    }
}

/// Batch systems and `env -i` leave HOME out, and paths of the settings begin with it. Where nobody knows the home, a place
/// stands in that nobody can write to, so that only what needs it fails.
fn with_home(env: &BTreeMap<OsString, OsString>) -> BTreeMap<OsString, OsString> {
    let mut env = env.clone();
    env.retain(|name, value| name != "HOME" || !value.is_empty());
    env.entry("HOME".into()).or_insert_with(|| {
        let (uid, _) = crate::sys::process::own_ids();
        crate::launch::home_of(uid).unwrap_or_else(|| "/nonexistent".into()).into()
    });
    env
}

/// A number of threads from the settings, where 0 stands for the CPUs that this process may use.
fn threads(setting: u32, facts: &LaunchFacts) -> usize {
    to_usize(if setting == 0 { facts.cpus.allowed() } else { setting })
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// `--platform`, else this host's.
fn platform(text: Option<&str>) -> Result<Platform, Failure> {
    Ok(text.map(Platform::parse).transpose()?.unwrap_or_else(Platform::host))
}
