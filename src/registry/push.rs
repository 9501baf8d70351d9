//! A push: every blob that the registry lacks, byte for byte as the store has it, then the manifest.
//!
//! ```text
//! HEAD blob ─200▶ there
//!    └─404▶ POST uploads/?mount=…&from=… ─201▶ mounted
//!              └─202▶ small: PUT all          large: PATCH all ── broken ── GET how far ── PATCH the rest ─▶ PUT
//!                                                        └─ 413: PATCH in chunks
//! ```

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::Digest;
use crate::oci::{Descriptor, Document, Manifest, media};
use crate::reference::ImageRef;
use crate::store::Store;

use super::auth::Access;
use super::client::{Client, Watch};
use super::error::RegistryError;
use super::exchange::{Exchange, Payload};
use super::pull::PullEvent;
use super::transport::Method;
use super::upload::Upload;

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest, which the name now stands for.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// What happens during a push. Events of several blobs are interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushEvent {
    /// Something happened to a layer. The config is too small to tell of.
    Blob {
        /// The layer.
        digest: Digest,
        /// Its length.
        size_bytes: u64,
        /// What happened.
        state: PushState,
    },
    /// A try failed and is repeated.
    Waiting {
        /// Why it failed.
        why: String,
        /// How long is waited.
        wait: Duration,
    },
}

/// Where a blob is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushState {
    /// The registry has it.
    Present,
    /// The registry took it from another repository of its own.
    Mounted {
        /// That repository.
        from: String,
    },
    /// The transfer goes on.
    Progress {
        /// Bytes so far.
        done_bytes: u64,
    },
    /// It has arrived.
    Done,
}

/// Bytes between two [`PushState::Progress`] events of a blob.
const PROGRESS_STEP_BYTES: u64 = 1 << 20;

/// One push's unchanging parts.
pub(super) struct Push<'a> {
    pub(super) client: &'a Client,
    pub(super) image: &'a ImageRef,
    pub(super) store: &'a Store,
    /// Repositories of the same registry that have a blob.
    pub(super) mounts: &'a BTreeMap<Digest, String>,
    on_event: &'a (dyn Fn(PushEvent) + Sync),
    stopped: AtomicBool,
}

/// Sends the image `manifest`, all of whose blobs are in the store, and makes `image` mean it there.
///
/// `mounts` names, for a blob, another repository of that registry that probably has it.
pub fn push(
    client: &Client,
    image: &ImageRef,
    manifest: &Digest,
    store: &Store,
    mounts: &BTreeMap<Digest, String>,
    on_event: &(dyn Fn(PushEvent) + Sync),
) -> Result<Pushed, RegistryError> {
    let push = Push { client, image, store, mounts, on_event, stopped: AtomicBool::new(false) };
    let raw = store
        .read_blob(manifest, media::MANIFEST_LIMIT_BYTES)?
        .ok_or_else(|| push.not_here(format!("the manifest {manifest}")))?;
    let parsed = match Document::parse(&raw) {
        Ok(Document::Manifest(parsed)) => parsed,
        Ok(Document::Index(_)) => return Err(push.not_here("one image, only a list of images".into())),
        Err(source) => return Err(RegistryError::Document { reference: image.familiar(), source }),
    };
    push.blobs(&parsed)?;
    push.manifest(&raw)?;
    Ok(Pushed { digest: *manifest, size_bytes: raw.len() as u64 })
}

impl Push<'_> {
    pub(super) fn access<'a>(&'a self, from: Option<&'a str>) -> Access<'a> {
        Access { host: self.image.registry_host(), repository: self.image.path(), push: true, from }
    }

    fn not_here(&self, what: String) -> RegistryError {
        RegistryError::NotHere { reference: self.image.familiar(), what }
    }

    /// Sends what is missing, several blobs at once. The first error ends all.
    fn blobs(&self, manifest: &Manifest) -> Result<(), RegistryError> {
        let mut seen = HashSet::new();
        let blobs: Vec<&Descriptor> = manifest
            .layers
            .iter()
            .chain([&manifest.config])
            .filter(|blob| seen.insert(blob.digest))
            // A foreign layer that was never fetched stays where it is.
            .filter(|blob| blob.urls.is_empty() || self.store.has_blob(&blob.digest))
            .collect();
        let next = AtomicUsize::new(0);
        let first_error = Mutex::new(None);
        let work = || {
            while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Err(error) = self.blob(blob, blob.digest != manifest.config.digest) else { continue };
                self.stopped.store(true, Ordering::Relaxed);
                // Those that end because of the first one come later.
                first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.client.options.parallel_layers.clamp(1, blobs.len().max(1)) {
                scope.spawn(work);
            }
        });
        first_error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn blob(&self, blob: &Descriptor, is_layer: bool) -> Result<(), RegistryError> {
        let tell = |state| {
            if is_layer {
                (self.on_event)(PushEvent::Blob { digest: blob.digest, size_bytes: blob.size_bytes, state });
            }
        };
        let told = AtomicUsize::new(0);
        let on_bytes = |done_bytes: u64| {
            let step = usize::try_from(done_bytes / PROGRESS_STEP_BYTES).unwrap_or(usize::MAX);
            if told.swap(step, Ordering::Relaxed) != step {
                tell(PushState::Progress { done_bytes });
            }
        };
        let on_event = |event: PullEvent| self.tell_wait(event);
        let watch = Watch { on_bytes: &on_bytes, on_event: &on_event, stopped: &self.stopped };
        let what = format!("the blob {}", blob.digest);
        if self.client.retry(&watch, || self.has(blob, &what, &watch))? {
            tell(PushState::Present);
            return Ok(());
        }
        let file = self.store.open_blob(&blob.digest)?.ok_or_else(|| self.not_here(what.clone()))?;
        let upload = Upload { push: self, digest: blob.digest, what: &what, file: &file, watch: &watch };
        tell(match upload.run()? {
            Some(from) => PushState::Mounted { from },
            None => PushState::Done,
        });
        Ok(())
    }

    fn has(&self, blob: &Descriptor, what: &str, watch: &Watch<'_>) -> Result<bool, RegistryError> {
        let target = format!("/v2/{}/blobs/{}", self.image.path(), blob.digest);
        let one = Exchange {
            access: self.access(None),
            what,
            method: Method::Head,
            url: &self.client.url(self.image.registry_host(), &target),
            headers: &[],
            payload: Payload::None,
        };
        let answered = self.client.exchange(&one, watch)?;
        match answered.response.status {
            200..=299 => Ok(true),
            404 | 405 => Ok(false),
            // Storage behind the registry does not answer this question, or it sends the client there: send the blob.
            _ if answered.url.origin() != one.url.origin()
                || (301..=303).contains(&answered.response.status) =>
            {
                Ok(false)
            }
            _ => Err(answered.refused(self.client, &one)),
        }
    }

    fn manifest(&self, raw: &[u8]) -> Result<(), RegistryError> {
        let reference = self.image.manifest_reference();
        let target = format!("/v2/{}/manifests/{reference}", self.image.path());
        let what = format!("`{}`", self.image);
        let url = self.client.url(self.image.registry_host(), &target);
        let media_type = media_type_of(raw);
        let one = Exchange {
            access: self.access(None),
            what: &what,
            method: Method::Put,
            url: &url,
            headers: &[("content-type", &media_type)],
            payload: Payload::Bytes(raw),
        };
        let on_event = |event: PullEvent| self.tell_wait(event);
        let watch = Watch { on_bytes: &|_| {}, on_event: &on_event, stopped: &self.stopped };
        self.client.retry(&watch, || {
            let answered = self.client.exchange(&one, &watch)?;
            if !(200..300).contains(&answered.response.status) {
                return Err(answered.refused(self.client, &one));
            }
            let stored: Option<Digest> =
                answered.response.header("docker-content-digest").and_then(|text| text.parse().ok());
            match stored {
                Some(stored) if stored != Digest::of(raw) => {
                    Err(answered.misunderstood(&what, &format!("another digest, {stored}")))
                }
                _ => Ok(()),
            }
        })
    }

    fn tell_wait(&self, event: PullEvent) {
        if let PullEvent::Waiting { why, wait } = event {
            (self.on_event)(PushEvent::Waiting { why, wait });
        }
    }
}

/// The type that a manifest gives itself; OCI's own where it says nothing.
fn media_type_of(raw: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        #[serde(default)]
        media_type: Option<String>,
    }
    let typed: Option<Typed> = serde_json::from_slice(raw).ok();
    let is_clean = |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    typed.and_then(|typed| typed.media_type).filter(is_clean).unwrap_or_else(|| media::OCI_MANIFEST.into())
}
