//! From a name to one image manifest: fetched as raw bytes, verified, and chosen among platforms.

use std::io::Read as _;

use crate::base::Digest;
use crate::oci::{Document, Index, Manifest, Platform, choose, media};
use crate::reference::ImageRef;
use crate::store::{Store, StoreError};

use super::blob::check_digest;
use super::client::{Ask, Client, Place, Watch};
use super::error::RegistryError;
use super::transport::Reach;

/// A manifest as it was fetched.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Digest of what the name itself stands for: the index if there is one.
    pub(super) top_digest: Digest,
    pub(super) digest: Digest,
    pub(super) raw: Vec<u8>,
    pub(super) manifest: Manifest,
}

/// What is known of a document before it is fetched.
#[derive(Debug, Clone, Copy)]
struct Promise {
    digest: Digest,
    size_bytes: Option<u64>,
}

/// Follows a name to the manifest for `platform`.
pub(super) fn resolve(
    client: &Client,
    image: &ImageRef,
    platform: &Platform,
    store: &Store,
    watch: &Watch<'_>,
) -> Result<Resolved, RegistryError> {
    let reference = image.familiar();
    let promise = image.digest().map(|digest| Promise { digest, size_bytes: None });
    let mut raw = document(client, image, promise, store, watch)?;
    let top_digest = Digest::of(&raw);
    let mut digest = top_digest;
    for _ in 0..=media::INDEX_DEPTH_LIMIT {
        let parsed = Document::parse(&raw)
            .map_err(|source| RegistryError::Document { reference: reference.clone(), source })?;
        match parsed {
            Document::Manifest(manifest) => {
                check_is_image(&reference, &manifest)?;
                return Ok(Resolved { top_digest, digest, raw, manifest });
            }
            Document::Index(index) => {
                let promise = choose_entry(&reference, &index, platform)?;
                raw = document(client, image, Some(promise), store, watch)?;
                digest = promise.digest;
            }
        }
    }
    Err(RegistryError::Nested { reference, limit: media::INDEX_DEPTH_LIMIT })
}

fn choose_entry(reference: &str, index: &Index, platform: &Platform) -> Result<Promise, RegistryError> {
    let entry = choose(index, platform).map_err(|source| RegistryError::Platform {
        reference: reference.into(),
        source: Box::new(source),
    })?;
    Ok(Promise { digest: entry.digest, size_bytes: Some(entry.size_bytes) })
}

fn check_is_image(reference: &str, manifest: &Manifest) -> Result<(), RegistryError> {
    if manifest.is_image() {
        return Ok(());
    }
    let kind = manifest.artifact_type.clone().unwrap_or_else(|| manifest.config.media_type.clone());
    Err(RegistryError::Artifact { reference: reference.into(), kind })
}

/// A manifest or index, from the store if it is there under its digest, else from the registry.
fn document(
    client: &Client,
    image: &ImageRef,
    promise: Option<Promise>,
    store: &Store,
    watch: &Watch<'_>,
) -> Result<Vec<u8>, RegistryError> {
    if let Some(promise) = promise
        && let Some(raw) = read_stored(store, &promise.digest, media::INDEX_LIMIT_BYTES)?
    {
        return Ok(raw);
    }
    client.retry(watch, || fetch(client, image, promise))
}

/// A small blob that is in the store. A damaged one is removed, so that a fresh one can take its place.
pub(super) fn read_stored(
    store: &Store,
    digest: &Digest,
    limit_bytes: u64,
) -> Result<Option<Vec<u8>>, RegistryError> {
    match store.read_blob(digest, limit_bytes) {
        Err(StoreError::Damaged { .. }) => {
            store.remove_blob(digest)?;
            Ok(None)
        }
        other => Ok(other?),
    }
}

/// One try to get a document. Its digest is that of the raw bytes: no header is believed.
fn fetch(client: &Client, image: &ImageRef, promise: Option<Promise>) -> Result<Vec<u8>, RegistryError> {
    let reference = promise.map_or_else(|| image.manifest_reference(), |promise| promise.digest.to_string());
    let what = match promise {
        Some(promise) => format!("`{}@{}`", image.repository(), promise.digest),
        None => format!("`{image}`"),
    };
    let mut answer = client.ask(&Ask {
        host: image.registry_host(),
        repository: image.path(),
        what: &what,
        place: &Place::Manifest(reference),
        from_byte: 0,
    })?;
    let host = answer.host;
    let announced = answer.response.header("docker-content-digest").and_then(|text| text.parse().ok());
    let limit_bytes = media::INDEX_LIMIT_BYTES;
    let mut raw = Vec::new();
    answer
        .response
        .reader()
        .take(limit_bytes + 1)
        .read_to_end(&mut raw)
        .map_err(|error| RegistryError::Unreachable { host: host.clone(), why: Reach::of_read(error) })?;
    if raw.len() as u64 > limit_bytes {
        return Err(RegistryError::TooLarge { what, host, limit_bytes });
    }
    if let Some(expected_bytes) = promise.and_then(|promise| promise.size_bytes)
        && raw.len() as u64 != expected_bytes
    {
        return Err(RegistryError::WrongSize {
            what,
            host,
            expected_bytes,
            found: format!("{} bytes", raw.len()),
        });
    }
    if let Some(expected) = promise.map(|promise| promise.digest).or(announced) {
        check_digest(&what, &host, expected, &raw)?;
    }
    Ok(raw)
}
