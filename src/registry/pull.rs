//! A pull: resolve the name, fetch what the store lacks, verify everything, publish the manifest last.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::Digest;
use crate::oci::{Descriptor, ImageConfig, Manifest, Platform, media};
use crate::reference::ImageRef;
use crate::store::{Store, StoreError};

use super::arriving::Arriving;
use super::blob::{Blob, Transfer};
use super::client::{Client, Place, Watch};
use super::error::RegistryError;
use super::manifest::{read_stored, resolve};
use super::url::Url;

/// Bytes between two [`LayerState::Progress`] events of a layer.
const PROGRESS_STEP_BYTES: u64 = 1 << 20;

/// An image whose every part is in the store, named by digests. Below this point nothing accepts a floating tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The name that was asked for.
    pub reference: ImageRef,
    /// Digest of what that name stands for: of the index if there is one. Docker shows it as the repository digest.
    pub top_digest: Digest,
    /// Digest of the image manifest.
    pub manifest_digest: Digest,
    /// Digest of the image config, which is the image's id.
    pub config_digest: Digest,
    /// What the config says that the image is for; not always what was wanted ([`PullEvent::OtherPlatform`]).
    pub platform: Platform,
    /// When the image was made, RFC 3339, as its config says.
    pub created: Option<String>,
    /// All layers as they are stored, in bytes.
    pub size_bytes: u64,
}

/// What happens during a pull, for a progress display. Events of several layers are interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// The name is resolved.
    Resolved {
        /// Digest of what the name stands for.
        top_digest: Digest,
        /// Digest of the chosen manifest.
        manifest_digest: Digest,
        /// Number of different layers.
        layers: usize,
        /// Their length together.
        size_bytes: u64,
    },
    /// The name has one image only, and its config names another platform than the wanted one.
    OtherPlatform {
        /// What was wanted.
        wanted: Platform,
        /// What the image says.
        found: Platform,
    },
    /// Something happened to a layer.
    Layer {
        /// The layer.
        digest: Digest,
        /// Its length.
        size_bytes: u64,
        /// What happened.
        state: LayerState,
    },
    /// A try failed and is repeated.
    Waiting {
        /// Why it failed.
        why: String,
        /// How long is waited.
        wait: Duration,
    },
    /// A mirror did not give the image, and the next place is asked.
    MirrorFailed {
        /// Why.
        why: String,
    },
}

/// Where a layer is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// In the store already.
    Present,
    /// The transfer begins.
    Started,
    /// The transfer goes on.
    Progress {
        /// Bytes so far.
        done_bytes: u64,
    },
    /// Stored and verified.
    Done,
}

/// One pull's unchanging parts.
struct Pull<'a> {
    client: &'a Client,
    image: &'a ImageRef,
    store: &'a Store,
    on_event: &'a (dyn Fn(PullEvent) + Sync),
    stopped: AtomicBool,
}

/// Brings an image into the store from the one place that its name says, and does something with it `meanwhile`: its layers
/// come newest first, since a conversion wants them so. When that fails, nothing more is fetched, and its error is the inner
/// one; when a layer fails, that is the error that counts.
pub(super) fn pull_while<T, E>(
    client: &Client,
    image: &ImageRef,
    platform: &Platform,
    store: &Store,
    on_event: &(dyn Fn(PullEvent) + Sync),
    meanwhile: &mut dyn FnMut(&Arriving<'_>) -> Result<T, E>,
) -> Result<Result<(Pinned, T), E>, RegistryError> {
    let pull = Pull { client, image, store, on_event, stopped: AtomicBool::new(false) };
    let resolved = resolve(client, image, platform, store, &pull.watch(&|_| {}))?;
    let manifest = &resolved.manifest;
    let layers = distinct(manifest);
    on_event(PullEvent::Resolved {
        top_digest: resolved.top_digest,
        manifest_digest: resolved.digest,
        layers: layers.len(),
        size_bytes: total_bytes(layers.iter().copied()),
    });
    let (raw_config, config) = pull.config(manifest)?;
    let found = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        ..Platform::default()
    }
    .normalized();
    if !found.is_blank() && !platform.runnable().contains(&found) {
        on_event(PullEvent::OtherPlatform { wanted: platform.normalized(), found: found.clone() });
    }
    let found = if found.is_blank() { platform.normalized() } else { found };
    // The config was checked to have as many.
    let named = manifest.layers.iter().zip(config.rootfs.diff_ids.iter().copied()).collect();
    let arriving = Arriving::new(resolved.digest, &raw_config, found.clone(), named, store);
    let done = match pull.layers(&layers, &arriving, meanwhile)? {
        Ok(done) => done,
        Err(error) => return Ok(Err(error)),
    };
    store.put_blob(&raw_config)?;
    store.put_blob(&resolved.raw)?;
    let pinned = Pinned {
        reference: image.clone(),
        top_digest: resolved.top_digest,
        manifest_digest: resolved.digest,
        config_digest: manifest.config.digest,
        platform: found,
        created: config.created,
        size_bytes: total_bytes(manifest.layers.iter()),
    };
    Ok(Ok((pinned, done)))
}

impl Pull<'_> {
    fn watch<'a>(&'a self, on_bytes: &'a dyn Fn(u64)) -> Watch<'a> {
        Watch { on_bytes, on_event: self.on_event, stopped: &self.stopped }
    }

    /// The image config, checked against the manifest.
    fn config(&self, manifest: &Manifest) -> Result<(Vec<u8>, ImageConfig), RegistryError> {
        let reference = self.image.familiar();
        let descriptor = &manifest.config;
        let what = format!("the config {} of `{reference}`", descriptor.digest);
        let host = self.image.registry_host();
        if descriptor.size_bytes > media::CONFIG_LIMIT_BYTES {
            let limit_bytes = media::CONFIG_LIMIT_BYTES;
            return Err(RegistryError::TooLarge { what, host: host.into(), limit_bytes });
        }
        let raw = match read_stored(self.store, &descriptor.digest, media::CONFIG_LIMIT_BYTES)? {
            Some(raw) => raw,
            None => {
                let place = Place::Blob(descriptor.digest);
                self.client.read_small(&self.blob(descriptor, &what, &place), &self.watch(&|_| {}))?
            }
        };
        let config = ImageConfig::parse(&raw)
            .map_err(|source| RegistryError::Config { reference: reference.clone(), source })?;
        config
            .rootfs
            .diff_ids_for(manifest.layers.len())
            .map_err(|source| RegistryError::RootFs { reference, source })?;
        Ok((raw, config))
    }

    /// Fetches the layers that are missing, several at once, newest first. The first error ends all.
    fn layers<T, E>(
        &self,
        layers: &[&Descriptor],
        arriving: &Arriving<'_>,
        meanwhile: &mut dyn FnMut(&Arriving<'_>) -> Result<T, E>,
    ) -> Result<Result<T, E>, RegistryError> {
        let mut missing = Vec::new();
        for layer in layers.iter().rev() {
            if self.store.has_blob_of(&layer.digest, layer.size_bytes) {
                self.tell(layer, LayerState::Present);
                arriving.tell_stored(layer.digest);
            } else {
                missing.push(*layer);
            }
        }
        let next = AtomicUsize::new(0);
        let first_error = Mutex::new(None);
        let work = || {
            while let Some(layer) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Err(error) = self.layer(layer) else {
                    arriving.tell_stored(layer.digest);
                    continue;
                };
                self.stopped.store(true, Ordering::Relaxed);
                arriving.tell_over();
                // Those that end because of the first one have nothing to say.
                if !matches!(error, RegistryError::GivenUp) {
                    first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        let done = std::thread::scope(|scope| {
            for _ in 0..self.client.options.parallel_layers.clamp(1, missing.len().max(1)) {
                scope.spawn(work);
            }
            let done = meanwhile(arriving);
            if done.is_err() {
                self.stopped.store(true, Ordering::Relaxed);
            }
            done
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(done),
        }
    }

    /// Fetches one layer from the registry, or, where that has no copy, from the places that the manifest names.
    fn layer(&self, layer: &Descriptor) -> Result<(), RegistryError> {
        self.tell(layer, LayerState::Started);
        let mut result = self.layer_from(layer, &Place::Blob(layer.digest));
        for url in layer.urls.iter().filter_map(|url| Url::parse(url)) {
            if !matches!(result, Err(RegistryError::MissingBlob { .. })) {
                break;
            }
            result = self.layer_from(layer, &Place::Foreign(url));
        }
        result?;
        self.tell(layer, LayerState::Done);
        Ok(())
    }

    fn layer_from(&self, layer: &Descriptor, place: &Place) -> Result<(), RegistryError> {
        let what = format!("the layer {}", layer.digest);
        let blob = self.blob(layer, &what, place);
        let told_bytes = AtomicUsize::new(0);
        let on_bytes = |done_bytes: u64| {
            let step = usize::try_from(done_bytes / PROGRESS_STEP_BYTES).unwrap_or(usize::MAX);
            if told_bytes.swap(step, Ordering::Relaxed) != step {
                self.tell(layer, LayerState::Progress { done_bytes });
            }
        };
        let watch = self.watch(&on_bytes);
        let mut again = true;
        loop {
            let mut writer = self.store.blob_writer(Some(layer.digest), Some(layer.size_bytes))?;
            let mut sink = |bytes: &[u8]| writer.append(bytes).map_err(RegistryError::from);
            let transfer = if again {
                self.client.download_in_parts(&blob, &mut sink, &watch)?
            } else {
                self.client.download(&blob, &mut sink, &watch)?
            };
            match writer.commit() {
                Ok(_) => return Ok(()),
                // The two parts may be of two different copies: one more try, in one piece.
                Err(StoreError::Digest { .. }) if transfer == Transfer::Resumed && again => again = false,
                Err(StoreError::Digest { expected, got }) => {
                    let host = blob.host.to_owned();
                    return Err(RegistryError::WrongDigest { what, host, expected, found: got });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn blob<'a>(&'a self, descriptor: &Descriptor, what: &'a str, place: &'a Place) -> Blob<'a> {
        Blob {
            host: self.image.registry_host(),
            repository: self.image.path(),
            what,
            place,
            digest: descriptor.digest,
            size_bytes: descriptor.size_bytes,
        }
    }

    fn tell(&self, layer: &Descriptor, state: LayerState) {
        (self.on_event)(PullEvent::Layer { digest: layer.digest, size_bytes: layer.size_bytes, state });
    }
}

/// Each layer once; images repeat small ones many times.
fn distinct(manifest: &Manifest) -> Vec<&Descriptor> {
    let mut seen = HashSet::new();
    manifest.layers.iter().filter(|layer| seen.insert(layer.digest)).collect()
}

/// Sizes are a stranger's words, so their sum saturates.
fn total_bytes<'a>(layers: impl Iterator<Item = &'a Descriptor>) -> u64 {
    layers.fold(0, |sum, layer| sum.saturating_add(layer.size_bytes))
}
