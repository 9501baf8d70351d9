//! Large layers over several connections, from little servers that go along, or do not; and layers that are used while
//! others are on their way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use slipway::base::Digest;
use slipway::oci::Platform;
use slipway::reference::ImageRef;
use slipway::registry::{Arriving, Client, ClientOptions, RegistryError, pull, pull_while};
use slipway::store::Store;

use crate::support::registry::{OciImage, Packing, Reply, Seen, WebServer, noise};

const PART_BYTES: usize = 64 << 10;

/// Pulls an image of one layer whose bytes `answer` gives; returns the ranges that were asked for, `-` for none.
fn ranges(answer: impl Fn(&Seen, &[u8]) -> Reply + Send + 'static) -> (usize, Vec<String>) {
    let image = OciImage::new("amd64", &[(Packing::Gzip, &noise(1, 1_000_000))]);
    let layer = image.blob(image.layers[0]);
    let path = format!("/v2/x/blobs/{}", image.layers[0]);
    let (config, manifest) = (image.blob(image.config), image.blob(image.manifest));
    let (length, layer_path) = (layer.len(), path.clone());
    let server = WebServer::start(move |request| match request.target.as_str() {
        "/v2/x/manifests/tag" => Reply::ok(&manifest),
        target if target == layer_path => answer(request, &layer),
        _ => Reply::ok(&config),
    });
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let client = Client::new(ClientOptions {
        first_wait: Duration::from_millis(1),
        part_bytes: PART_BYTES as u64,
        ..ClientOptions::default()
    });
    let name = ImageRef::parse(&format!("{}/x:tag", server.host)).unwrap();
    let platform = Platform::parse("linux/amd64").unwrap();
    let pinned = pull(&client, &name, &platform, &store, &|_| {}).unwrap();
    assert_eq!(pinned.manifest_digest, image.manifest);
    let stored = store.read_blob(&image.layers[0], u64::MAX).unwrap().unwrap();
    assert_eq!(Digest::of(&stored), image.layers[0]);
    let seen = server.seen().into_iter().filter(|request| request.target == path);
    let range = |request: Seen| request.headers.get("range").cloned().unwrap_or_else(|| "-".into());
    (length, seen.map(range).collect())
}

/// The first byte of a range, and the last one if it names one.
fn bounds(range: &str) -> (usize, Option<usize>) {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    (first.parse().unwrap(), last.parse().ok())
}

/// What a server that knows ranges answers.
fn part(request: &Seen, body: &[u8]) -> Reply {
    let Some(range) = request.headers.get("range") else { return Reply::ok(body) };
    let (first, last) = bounds(range);
    let last = last.unwrap_or(body.len() - 1);
    let content_range = format!("bytes {first}-{last}/{}", body.len());
    Reply { status: 206, ..Reply::ok(&body[first..=last]) }.with("content-range", &content_range)
}

#[test]
fn every_part_is_asked_for_once() {
    let (length, mut ranges) = ranges(part);
    ranges.sort_by_key(|range| bounds(range).0);
    let expected: Vec<_> = (0..length)
        .step_by(PART_BYTES)
        .map(|first| format!("bytes={first}-{}", (first + PART_BYTES).min(length) - 1))
        .collect();
    assert_eq!(ranges, expected);
}

#[test]
fn a_server_without_ranges_is_asked_for_all_of_it() {
    let (_, ranges) = ranges(|_, body| Reply::ok(body));
    assert_eq!(ranges, ["bytes=0-65535", "-"]);
}

#[test]
fn a_server_that_has_enough_gets_one_connection() {
    let count = AtomicUsize::new(0);
    let (_, ranges) = ranges(move |request, body| {
        let is_part = request.headers.get("range").is_some_and(|range| bounds(range).1.is_some());
        if is_part && count.fetch_add(1, Ordering::SeqCst) >= 5 {
            return Reply::status(429);
        }
        part(request, body)
    });
    let rest: Vec<_> = ranges.iter().filter(|range| bounds(range).1.is_none()).collect();
    assert_eq!(rest.len(), 1, "{ranges:?}");
    let (first, _) = bounds(rest[0]);
    assert!(first % PART_BYTES == 0 && first >= PART_BYTES, "{ranges:?}");
    assert_eq!(ranges.last(), Some(rest[0]), "{ranges:?}");
}

#[test]
fn a_part_that_breaks_off_is_fetched_again() {
    let count = AtomicUsize::new(0);
    let (length, mut ranges) = ranges(move |request, body| {
        let cut_after = (count.fetch_add(1, Ordering::SeqCst) == 4).then_some(1000);
        Reply { cut_after, ..part(request, body) }
    });
    assert_eq!(ranges.len(), length.div_ceil(PART_BYTES) + 1);
    ranges.sort();
    ranges.dedup();
    assert_eq!(ranges.len(), length.div_ceil(PART_BYTES));
}

#[test]
fn parts_of_another_copy_are_noticed_and_the_whole_is_fetched() {
    let (_, ranges) = ranges(|request, body| match request.headers.get("range") {
        Some(range) if bounds(range).0 == 3 * PART_BYTES => {
            let mut other = body.to_vec();
            other[3 * PART_BYTES] ^= 1;
            part(request, &other)
        }
        _ => part(request, body),
    });
    assert_eq!(ranges.last().map(String::as_str), Some("-"));
    assert_eq!(ranges.iter().filter(|range| *range == "-").count(), 1);
}

/// An image of two layers, and a server that has it; a request for the older layer goes to `older`.
fn two_layers(older: impl Fn() -> Option<Reply> + Send + 'static) -> (OciImage, WebServer) {
    let image = OciImage::new("amd64", &[(Packing::Gzip, b"old"), (Packing::Gzip, b"new")]);
    let blobs: Vec<_> = image.layers.iter().chain([&image.config, &image.manifest]).copied().collect();
    let blobs: Vec<_> = blobs.into_iter().map(|digest| (digest.to_string(), image.blob(digest))).collect();
    let server = WebServer::start(move |request| {
        let name = request.target.rsplit('/').next().unwrap();
        let number = blobs.iter().position(|(digest, _)| digest == name).unwrap_or(3);
        let reply = (number == 0).then(&older).flatten();
        reply.unwrap_or_else(|| Reply::ok(&blobs[number].1))
    });
    (image, server)
}

/// Pulls with one connection, so that one layer comes after the other.
fn pull_two<T>(
    server: &WebServer,
    meanwhile: impl FnMut(&Arriving<'_>) -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let client = Client::new(ClientOptions { parallel_layers: 1, retries: 0, ..ClientOptions::default() });
    let name = ImageRef::parse(&format!("{}/x:tag", server.host)).unwrap();
    let platform = Platform::parse("linux/amd64").unwrap();
    pull_while(&client, &name, &platform, &store, &|_| {}, meanwhile).map(|(_, done)| done)
}

#[test]
fn the_newest_layer_can_be_read_while_older_ones_come() {
    let (open, gate) = channel();
    let gate = Mutex::new(gate);
    let (image, server) = two_layers(move || {
        gate.lock().unwrap().recv().unwrap();
        None
    });
    pull_two(&server, |arriving| {
        assert_eq!((arriving.layer_count(), arriving.manifest_digest), (2, image.manifest));
        // The older one is held back until this one has been given out.
        assert_eq!(arriving.layer(1).unwrap().digest, Some(image.layers[1]));
        open.send(()).unwrap();
        assert_eq!(arriving.layer(0).unwrap().digest, Some(image.layers[0]));
        assert!(arriving.layer(2).is_none());
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_layer_that_does_not_come_is_the_pulls_error() {
    let (_image, server) = two_layers(|| Some(Reply::status(404)));
    let error = pull_two(&server, |arriving| {
        assert!(arriving.layer(1).is_some() && arriving.layer(0).is_none());
        Err::<(), _>(RegistryError::GivenUp)
    });
    assert!(matches!(error, Err(RegistryError::MissingBlob { .. })), "{error:?}");
}

#[test]
fn nothing_more_is_fetched_for_work_that_failed() {
    let (image, server) = two_layers(|| None);
    let error = pull_two(&server, |_| Err::<(), _>(RegistryError::GivenUp));
    assert!(matches!(error, Err(RegistryError::GivenUp)), "{error:?}");
    let older = image.layers[0].to_string();
    // The newest may have been on its way; with one connection the older one was never begun, or is the last.
    assert!(server.seen().iter().filter(|request| request.target.ends_with(&older)).count() <= 1);
}
