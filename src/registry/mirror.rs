//! Mirrors: other places that may have what a registry has. They are asked first, and the registry itself in the end.
//!
//! A mirror is believed no more than anybody: what a digest names is verified, and the user's login for the registry is
//! not shown to it, since logins go by host.

use crate::oci::Platform;
use crate::reference::ImageRef;
use crate::store::Store;

use super::arriving::Arriving;
use super::client::Client;
use super::error::RegistryError;
use super::pull::{self, Pinned, PullEvent};

/// Brings an image into the store, from a mirror of its registry where one has it. The manifest is stored last, so that
/// one that is there has all its parts.
///
/// Sets no ref: what a name means on this machine is the caller's to say.
pub fn pull(
    client: &Client,
    image: &ImageRef,
    platform: &Platform,
    store: &Store,
    on_event: &(dyn Fn(PullEvent) + Sync),
) -> Result<Pinned, RegistryError> {
    pull_while(client, image, platform, store, on_event, |_| Ok(())).map(|(pinned, ())| pinned)
}

/// As [`pull`], and does something with the image `meanwhile`, such as converting it. It is done again with another place
/// when one has failed; when it fails itself, nothing more is fetched.
pub fn pull_while<T, E: From<RegistryError>>(
    client: &Client,
    image: &ImageRef,
    platform: &Platform,
    store: &Store,
    on_event: &(dyn Fn(PullEvent) + Sync),
    mut meanwhile: impl FnMut(&Arriving<'_>) -> Result<T, E>,
) -> Result<(Pinned, T), E> {
    for mirror in mirrored(&client.options.mirrors, image) {
        match pull::pull_while(client, &mirror, platform, store, on_event, &mut meanwhile) {
            Ok(done) => {
                return done.map(|(pinned, done)| (Pinned { reference: image.clone(), ..pinned }, done));
            }
            // No other place would help.
            Err(error @ RegistryError::Store { .. }) => return Err(error.into()),
            Err(error) => on_event(PullEvent::MirrorFailed { why: error.to_string() }),
        }
    }
    pull::pull_while(client, image, platform, store, on_event, &mut meanwhile)?
}

/// The image's names at the mirrors, in the order of the settings: `docker.io=mirror.site:5000/hub`.
fn mirrored(mirrors: &[String], image: &ImageRef) -> Vec<ImageRef> {
    let of_registry = mirrors.iter().filter_map(|line| {
        let (registry, mirror) = line.split_once('=')?;
        (registry.trim() == image.domain()).then_some(mirror.trim().trim_end_matches('/'))
    });
    let canonical = image.to_string();
    let rest = canonical.strip_prefix(image.domain()).unwrap_or_default();
    of_registry.filter_map(|mirror| ImageRef::parse(&format!("{mirror}{rest}")).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_mirrors() {
        let mirrors = ["docker.io=m.site:5000/hub/", "docker.io = other.site", "quay.io=q.site", "nonsense"]
            .map(String::from);
        for (image, expected) in [
            ("python:3.12", vec!["m.site:5000/hub/library/python:3.12", "other.site/library/python:3.12"]),
            ("quay.io/a/b", vec!["q.site/a/b:latest"]),
            ("ghcr.io/a/b", vec![]),
        ] {
            let image = ImageRef::parse(image).unwrap();
            let names: Vec<String> = mirrored(&mirrors, &image).iter().map(ImageRef::to_string).collect();
            assert_eq!(names, expected, "{image}");
        }
    }
}
