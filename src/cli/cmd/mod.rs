//! One file for each verb, and what they share.

#![expect(clippy::disallowed_methods, reason = "verbs look at files of the user and start our own helpers")]

pub(super) mod config;
pub(super) mod convert;
pub(super) mod gpus;
mod grants;
pub(super) mod images;
pub(super) mod load;
mod locate;
mod publish;
pub(super) mod pull;
pub(super) mod run;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use crate::config::Settings;
use crate::launch::ServeSettings;
use crate::oci::Platform;
use crate::registry::{Client, ClientOptions};
use crate::store::Store;

use super::failure::Failure;

/// Most server threads: more only take turns on the image's file.
const MAX_SERVER_THREADS: usize = 16;

/// What every verb starts from: the environment and the settings.
#[derive(Debug)]
pub(super) struct Session {
    env: BTreeMap<OsString, OsString>,
    settings: Settings,
}

impl Session {
    pub(super) fn open(env: BTreeMap<OsString, OsString>) -> Result<Self, Failure> {
        Ok(Self { env, settings: Settings::stub() })
    }
    fn client(&self) -> Client {
        Client::new(ClientOptions::default())
    }
    fn convert_options(&self) -> crate::convert::Options {
        crate::convert::Options {
            compressor: crate::squashfs::compress::Compressor::Zstd(1),
            threads: 2,
            max_entries: 1_000_000,
        }
    }
    fn serve_settings(&self) -> ServeSettings {
        ServeSettings { threads: 2, cache_bytes: 256 << 20, no_open: true }
    }
    fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.settings.store.dir.value)?)
    }
}

/// `--platform`, else this host's.
fn platform(text: Option<&str>) -> Result<Platform, Failure> {
    Ok(text.map(Platform::parse).transpose()?.unwrap_or_else(Platform::host))
}
