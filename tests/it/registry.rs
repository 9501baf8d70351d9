//! Pulls from a real registry, and from little servers that misbehave.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slipway::base::{Digest, Hint as _};
use slipway::oci::Platform;
use slipway::reference::ImageRef;
use slipway::registry::{Client, ClientOptions, Pinned, PullEvent, Reach, RegistryError, pull};
use slipway::store::Store;
use tempfile::TempDir;

use crate::support::registry::{
    Cut, OCI_INDEX, OCI_MANIFEST, OciImage, Packing, Registry, Reply, Seen, WebServer, cutting_proxy, noise,
    run,
};

fn client() -> Client {
    Client::new(ClientOptions { first_wait: Duration::from_millis(1), ..ClientOptions::default() })
}

fn amd64() -> Platform {
    Platform::parse("linux/amd64").unwrap()
}

/// A store that goes away with the test.
struct TestStore {
    store: Store,
    _directory: TempDir,
}

impl TestStore {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: Store::open(&directory.path().join("store")).unwrap(), _directory: directory }
    }

    fn pull(&self, name: &str) -> Result<Pinned, RegistryError> {
        pull(&client(), &ImageRef::parse(name).unwrap(), &amd64(), &self.store, &|_| {})
    }

    /// Everything that is published or left over.
    fn files(&self) -> Vec<String> {
        let names = |directory: &str| {
            let path = self.store.root().join(directory);
            let entries = std::fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let mut all = names("blobs/sha256");
        all.extend(names("tmp"));
        all.sort();
        all
    }

    fn has_all(&self, image: &OciImage) {
        for digest in image.layers.iter().chain([&image.manifest, &image.config]) {
            let raw = self.store.read_blob(digest, u64::MAX).unwrap().unwrap();
            assert_eq!(raw, image.blob(*digest));
        }
        let layers = self.store.layer_set("x", &image.manifest).unwrap();
        assert_eq!(layers.layers.iter().map(|layer| layer.digest.unwrap()).collect::<Vec<_>>(), image.layers);
    }
}

fn one_layer(seed: u64) -> OciImage {
    OciImage::new("amd64", &[(Packing::Gzip, &noise(seed, 1000))])
}

#[test]
fn pulls_one_image_with_layers_of_both_kinds() {
    need!(registry, tool "skopeo");
    let registry = Registry::start();
    let (first, second) = (noise(1, 3 << 20), noise(2, 5000));
    let image = OciImage::new("amd64", &[(Packing::Gzip, &first), (Packing::Zstd, &second)]);
    registry.push(&image, "some/image:tag");
    let store = TestStore::new();
    let events = Mutex::new(Vec::new());
    let name = ImageRef::parse(&format!("{}/some/image:tag", registry.host)).unwrap();
    let note = |event| events.lock().unwrap().push(event);
    let pinned = pull(&client(), &name, &amd64(), &store.store, &note).unwrap();
    assert_eq!(pinned.manifest_digest, image.manifest);
    assert_eq!(pinned.top_digest, image.manifest);
    assert_eq!(pinned.config_digest, image.config);
    assert_eq!(pinned.platform, amd64());
    assert_eq!(pinned.created.as_deref(), Some("2024-01-02T03:04:05Z"));
    store.has_all(&image);
    let events = events.into_inner().unwrap();
    assert!(matches!(events[0], PullEvent::Resolved { layers: 2, .. }), "{events:?}");

    // Again: nothing is fetched.
    let events = Mutex::new(Vec::new());
    let note = |event: PullEvent| events.lock().unwrap().push(format!("{event:?}"));
    assert_eq!(pull(&client(), &name, &amd64(), &store.store, &note).unwrap(), pinned);
    let events = events.into_inner().unwrap();
    assert_eq!(events.iter().filter(|event| event.contains("Present")).count(), 2, "{events:?}");
    assert!(!events.iter().any(|event| event.contains("Started")), "{events:?}");
}

#[test]
fn pulls_an_image_that_umoci_made() {
    need!(registry, tool "skopeo", tool "umoci");
    let registry = Registry::start();
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("layout");
    let (layout, image) = (layout.display().to_string(), format!("{}:image", layout.display()));
    run("umoci", &["init", "--layout", &layout]);
    run("umoci", &["new", "--image", &image]);
    run(
        "umoci",
        &["insert", "--rootless", "--image", &image, concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE"), "/l"],
    );
    let target = format!("docker://{}/made:1", registry.host);
    run("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &format!("oci:{image}"), &target]);
    // Docker's manifest type, as the registry serves it after a conversion.
    let docker = format!("docker://{}/made:2", registry.host);
    run(
        "skopeo",
        &["copy", "--quiet", "--format=v2s2", "--dest-tls-verify=false", &format!("oci:{image}"), &docker],
    );
    let store = TestStore::new();
    let oci = store.pull(&format!("{}/made:1", registry.host)).unwrap();
    let docker = store.pull(&format!("docker://{}/made:2", registry.host)).unwrap();
    assert_ne!(oci.manifest_digest, docker.manifest_digest);
    assert_eq!(oci.size_bytes, docker.size_bytes);
}

#[test]
fn chooses_the_platform_in_an_index() {
    need!(registry, tool "skopeo");
    let registry = Registry::start();
    let (amd, arm) = (one_layer(1), OciImage::new("arm64", &[(Packing::Gzip, &noise(2, 1000))]));
    registry.push(&amd, "multi:amd64");
    registry.push(&arm, "multi:arm64");
    let entry = |image: &OciImage, architecture: &str| {
        format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
            image.manifest, image.manifest_bytes
        )
    };
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{},{}]}}"#,
        entry(&arm, "arm64"),
        entry(&amd, "amd64")
    );
    registry.put_manifest("/v2/multi/manifests/latest", OCI_INDEX, &index);
    let store = TestStore::new();
    let name = format!("{}/multi", registry.host);
    let pinned = store.pull(&name).unwrap();
    assert_eq!(pinned.manifest_digest, amd.manifest);
    assert_eq!(pinned.top_digest, Digest::of(index.as_bytes()));
    store.has_all(&amd);
    assert!(!store.store.has_blob(&arm.manifest));
    let image = ImageRef::parse(&name).unwrap();
    let other = Platform::parse("linux/arm64").unwrap();
    let pinned = pull(&client(), &image, &other, &store.store, &|_| {}).unwrap();
    assert_eq!((pinned.manifest_digest, pinned.platform), (arm.manifest, other));

    let none = Platform::parse("linux/s390x").unwrap();
    let error = pull(&client(), &image, &none, &store.store, &|_| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot use `{name}:latest`: the image is not there for linux/s390x, only for linux/arm64, linux/amd64"
        )
    );
    assert!(error.hint().unwrap().contains("--platform linux/arm64"));

    // A single image for another platform is pulled, and told.
    let events = Mutex::new(Vec::new());
    let only_arm = ImageRef::parse(&format!("{name}:arm64")).unwrap();
    pull(&client(), &only_arm, &amd64(), &store.store, &|event| events.lock().unwrap().push(event)).unwrap();
    let events = events.into_inner().unwrap();
    assert!(events.iter().any(|event| matches!(event, PullEvent::OtherPlatform { .. })), "{events:?}");
}

#[test]
fn pulls_by_digest() {
    need!(registry, tool "skopeo");
    let mut registry = Registry::start();
    let image = one_layer(1);
    registry.push(&image, "pinned:tag");
    let store = TestStore::new();
    let by_digest = format!("{}/pinned@{}", registry.host, image.manifest);
    assert_eq!(store.pull(&by_digest).unwrap().manifest_digest, image.manifest);
    // The digest decides, also where the tag is none.
    let both = format!("{}/pinned:nosuchtag@{}", registry.host, image.manifest);
    let fresh = TestStore::new();
    assert_eq!(fresh.pull(&both).unwrap().manifest_digest, image.manifest);
    let unknown = format!("{}/pinned@{}", registry.host, Digest::of(b"x"));
    assert!(matches!(fresh.pull(&unknown), Err(RegistryError::UnknownTag { .. })));
    // What is there under its digest needs no registry.
    registry.stop();
    assert_eq!(store.pull(&by_digest).unwrap().manifest_digest, image.manifest);
}

#[test]
fn says_what_a_registry_does_not_have() {
    need!(registry, tool "skopeo");
    let mut registry = Registry::start();
    registry.push(&one_layer(1), "here:tag");
    let store = TestStore::new();
    let host = registry.host.clone();
    let error = |name: &str| store.pull(&format!("{host}/{name}")).unwrap_err();
    assert_eq!(error("here:no").to_string(), format!("`{host}` has no image `{host}/here:no`"));
    let unknown = error("nothere:tag");
    assert!(
        matches!(unknown, RegistryError::UnknownTag { .. } | RegistryError::UnknownRepository { .. }),
        "{unknown}"
    );
    registry.stop();
    let refused = error("here:tag");
    assert_eq!(refused.to_string(), format!("cannot reach `{host}`: connection refused"));
    assert_eq!(refused.hint().as_deref(), Some("check the port, and that the registry is running"));
    assert_eq!(store.files(), Vec::<String>::new());
}

#[test]
fn a_damaged_blob_publishes_nothing() {
    need!(registry, tool "skopeo");
    let registry = Registry::start();
    let image = one_layer(1);
    registry.push(&image, "bad:tag");
    let file = registry.blob_file(image.layers[0]);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let store = TestStore::new();
    let error = store.pull(&format!("{}/bad:tag", registry.host)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the layer {} from `{}` is damaged: its digest is {}, not {}",
            image.layers[0],
            registry.host,
            Digest::of(&bytes),
            image.layers[0]
        )
    );
    assert_eq!(store.files(), Vec::<String>::new());
}

#[test]
fn two_pulls_at_once_both_succeed() {
    need!(registry, tool "skopeo");
    let registry = Registry::start();
    let contents: Vec<Vec<u8>> = (0..6).map(|seed| noise(seed, 300_000)).collect();
    let layers: Vec<_> = contents.iter().map(|content| (Packing::Zstd, content.as_slice())).collect();
    let image = OciImage::new("amd64", &layers);
    registry.push(&image, "race:tag");
    let store = TestStore::new();
    let name = format!("{}/race:tag", registry.host);
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..2).map(|_| scope.spawn(|| store.pull(&name))).collect();
        for one in pulls {
            assert_eq!(one.join().unwrap().unwrap().manifest_digest, image.manifest);
        }
    });
    store.has_all(&image);
    assert_eq!(store.files().len(), 8);
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke() {
    need!(registry, tool "skopeo");
    let registry = Registry::start();
    let image = OciImage::new("amd64", &[(Packing::Gzip, &noise(1, 8 << 20))]);
    registry.push(&image, "long:tag");
    let (proxy, cuts) = cutting_proxy(registry.host.clone(), Cut::Download, 3 << 20);
    let store = TestStore::new();
    let events = Mutex::new(Vec::new());
    let name = ImageRef::parse(&format!("{proxy}/long:tag")).unwrap();
    let note = |event| events.lock().unwrap().push(event);
    pull(&client(), &name, &amd64(), &store.store, &note).unwrap();
    store.has_all(&image);
    assert_eq!(cuts.load(Ordering::SeqCst), 1);
    let events = events.into_inner().unwrap();
    let waits = events.iter().filter(|event| matches!(event, PullEvent::Waiting { .. })).count();
    assert_eq!(waits, 1, "{events:?}");
}

/// What a fake registry has: the blobs of an image by their path, the manifest also as `/v2/x/manifests/tag`.
fn serve(image: &OciImage) -> impl Fn(&str) -> Option<Vec<u8>> + Send + Clone + 'static {
    let mut files: std::collections::BTreeMap<String, Vec<u8>> = std::collections::BTreeMap::new();
    for digest in image.layers.iter().chain([&image.config]) {
        files.insert(format!("/v2/x/blobs/{digest}"), image.blob(*digest));
    }
    files.insert("/v2/x/manifests/tag".into(), image.blob(image.manifest));
    move |path: &str| files.get(path).cloned()
}

fn is_blob_of(request: &Seen, digest: Digest) -> bool {
    request.target.ends_with(&format!("/blobs/{digest}"))
}

#[test]
fn a_range_is_asked_for_and_a_server_without_ranges_serves_too() {
    let image = OciImage::new("amd64", &[(Packing::Gzip, &noise(1, 100_000))]);
    let layer = image.layers[0];
    for knows_ranges in [true, false] {
        let files = serve(&image);
        let server = WebServer::start(move |request| {
            let Some(body) = files(&request.target) else { return Reply::status(404) };
            if !is_blob_of(request, layer) {
                return Reply::ok(&body);
            }
            match request.headers.get("range").map(String::as_str) {
                None => Reply { cut_after: Some(40_000), ..Reply::ok(&body) },
                Some(range) if knows_ranges => {
                    let start: usize =
                        range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
                    let content_range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
                    Reply { status: 206, ..Reply::ok(&body[start..]) }.with("content-range", &content_range)
                }
                Some(_) => Reply::ok(&body),
            }
        });
        let store = TestStore::new();
        store.pull(&format!("{}/x:tag", server.host)).unwrap();
        store.has_all(&image);
        let ranges: Vec<_> =
            server.seen().iter().filter_map(|seen| seen.headers.get("range").cloned()).collect();
        assert_eq!(ranges, ["bytes=40000-"], "ranges: {knows_ranges}");
    }
}

#[test]
fn a_splice_of_two_copies_is_fetched_again_whole() {
    let image = OciImage::new("amd64", &[(Packing::Gzip, &noise(1, 100_000))]);
    let layer = image.layers[0];
    let files = serve(&image);
    let count = AtomicUsize::new(0);
    let server = WebServer::start(move |request| {
        let Some(mut body) = files(&request.target) else { return Reply::status(404) };
        if is_blob_of(request, layer) && count.fetch_add(1, Ordering::SeqCst) == 0 {
            body[10] ^= 1;
            return Reply { cut_after: Some(40_000), ..Reply::ok(&body) };
        }
        Reply::ok(&body)
    });
    let store = TestStore::new();
    store.pull(&format!("{}/x:tag", server.host)).unwrap();
    store.has_all(&image);
    assert_eq!(server.seen().iter().filter(|seen| is_blob_of(seen, layer)).count(), 3);
}

#[test]
fn a_token_is_fetched_once_and_renewed() {
    let image = one_layer(1);
    let files = serve(&image);
    let issued = AtomicUsize::new(0);
    let tokens = WebServer::start(move |request| {
        assert!(!request.headers.contains_key("authorization"));
        let number = issued.fetch_add(1, Ordering::SeqCst);
        Reply::ok(format!(r#"{{"token":"token-{number}","expires_in":60}}"#).as_bytes())
    });
    let realm = format!("http://{}/token", tokens.host);
    let layer = image.layers[0];
    let server = WebServer::start(move |request| {
        // The token for the layer is another one, as if the first had run out.
        let wanted = if is_blob_of(request, layer) { "Bearer token-1" } else { "Bearer token-0" };
        if request.headers.get("authorization").map(String::as_str) != Some(wanted) {
            let challenge = format!(
                "Basic realm=\"a, b\", Bearer realm=\"{realm}\",service=\"s, t\",scope=\"repository:x:pull\""
            );
            return Reply::status(401).with("www-authenticate", &challenge);
        }
        files(&request.target).map_or(Reply::status(404), |body| Reply::ok(&body))
    });
    let store = TestStore::new();
    store.pull(&format!("{}/x:tag", server.host)).unwrap();
    store.has_all(&image);
    let asked: Vec<String> = tokens.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(asked, ["/token?service=s%2C%20t&scope=repository%3Ax%3Apull"; 2]);
    // manifest twice, config once, layer twice.
    assert_eq!(server.seen().len(), 5);
}

#[test]
fn a_redirect_takes_no_token_along() {
    let image = one_layer(1);
    let files = serve(&image);
    let storage = WebServer::start(move |request| {
        let path = request.target.split('?').next().unwrap();
        files(path).map_or(Reply::status(404), |body| Reply::ok(&body))
    });
    let target = format!("http://{}", storage.host);
    let manifest = image.blob(image.manifest);
    let server = WebServer::start(move |request| {
        let challenge = format!("Bearer realm=\"http://{}/token\"", request.headers["host"]);
        match request.target.as_str() {
            target if target.starts_with("/token") => Reply::ok(br#"{"access_token":"secret"}"#),
            _ if !request.headers.contains_key("authorization") => {
                Reply::status(401).with("www-authenticate", &challenge)
            }
            "/v2/x/manifests/tag" => Reply::ok(&manifest),
            // First to itself, where the token may go, then away.
            path if path.starts_with("/v2/") => Reply::status(307).with("location", &format!("/moved{path}")),
            path => {
                let path = path.strip_prefix("/moved").unwrap();
                Reply::status(302).with("location", &format!("{target}{path}?signature=a%2Fb"))
            }
        }
    });
    let store = TestStore::new();
    store.pull(&format!("{}/x:tag", server.host)).unwrap();
    store.has_all(&image);
    let seen = storage.seen();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
        assert!(request.target.ends_with("?signature=a%2Fb"), "{request:?}");
    }
}

/// The message of a pull from a server that answers every request so.
fn message_of(reply: Reply) -> String {
    let server = WebServer::start(move |_| reply.clone());
    let store = TestStore::new();
    let error = store.pull(&format!("{}/x:tag", server.host)).unwrap_err();
    assert_eq!(store.files(), Vec::<String>::new());
    error.to_string().replace(&server.host, "HOST")
}

#[test]
fn refusals_have_words() {
    let denied = br#"{"errors":[{"code":"DENIED","message":"requested access\u001b[31m is denied"}]}"#;
    for (reply, expected) in [
        (
            Reply { body: denied.to_vec(), ..Reply::status(403) },
            "`HOST` gives no access to `x`: it does not exist there, or it needs a login (403: requested access[31m is denied)",
        ),
        (
            Reply::status(401).with("www-authenticate", "Basic realm=\"x\""),
            "`HOST` gives no access to `x`: it does not exist there, or it needs a login (401)",
        ),
        (
            Reply::status(429).with("retry-after", "21600"),
            "`HOST` limits how many images may be pulled, and the limit is reached; it asks to wait 21600 s",
        ),
        (Reply::status(503), "`HOST` answered 503 to the request for `HOST/x:tag`"),
        (Reply::status(418), "`HOST` answered 418 to the request for `HOST/x:tag`"),
        (
            Reply::ok(br#"{"schemaVersion":1,"fsLayers":[]}"#),
            "cannot use `HOST/x:tag`: the manifest has Docker's schema 1, which registries and Docker gave up",
        ),
        (
            Reply::ok(b"hello").with("docker-content-digest", &Digest::of(b"other").to_string()),
            "`HOST/x:tag` from `HOST` is damaged: its digest is sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824, not sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa",
        ),
        (
            Reply::status(302).with("location", "http://example.com/x?sig=secret"),
            "`HOST` sends the request for `HOST/x:tag` on to `http://example.com`, which is not encrypted",
        ),
        (
            Reply::status(302).with("location", "/again"),
            "`HOST` sends the request for `HOST/x:tag` on to one place after another, more than 5 times",
        ),
        (
            Reply::status(302),
            "`HOST` sends the request for `HOST/x:tag` on to an address that is missing or not understood",
        ),
        (
            Reply::status(401).with("www-authenticate", "Bearer realm=\"http://example.com/token\""),
            "`HOST` names a token server that is not used: `http://example.com` is not encrypted",
        ),
    ] {
        assert_eq!(message_of(reply), expected);
    }
}

#[test]
fn an_overloaded_server_is_asked_again() {
    let image = one_layer(1);
    let files = serve(&image);
    let count = AtomicUsize::new(0);
    let server = WebServer::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(503),
        1 => Reply::status(429).with("retry-after", "0"),
        _ => files(&request.target).map_or(Reply::status(404), |body| Reply::ok(&body)),
    });
    let store = TestStore::new();
    store.pull(&format!("{}/x:tag", server.host)).unwrap();
    store.has_all(&image);
}

#[test]
fn sizes_are_held_to_the_manifest() {
    let image = one_layer(1);
    let layer = image.layers[0];
    for change in [-1_isize, 1] {
        let files = serve(&image);
        let server = WebServer::start(move |request| {
            let Some(mut body) = files(&request.target) else { return Reply::status(404) };
            if is_blob_of(request, layer) {
                body.resize(body.len().saturating_add_signed(change), 0);
            }
            Reply::ok(&body)
        });
        let store = TestStore::new();
        let error = store.pull(&format!("{}/x:tag", server.host)).unwrap_err();
        assert!(matches!(error, RegistryError::WrongSize { .. }), "{error}");
        assert_eq!(store.files(), Vec::<String>::new());
    }
}

#[test]
fn a_foreign_layer_comes_from_its_address() {
    let image = one_layer(1);
    let layer = image.layers[0];
    let blob = image.blob(layer);
    let elsewhere = WebServer::start(move |request| {
        assert!(!request.headers.contains_key("authorization"));
        Reply::ok(&blob)
    });
    let urls = format!("\"urls\":[\"http://{}/layer\"],\"digest\":\"{layer}\"", elsewhere.host);
    let manifest = String::from_utf8(image.blob(image.manifest)).unwrap();
    let manifest = manifest.replace(&format!("\"digest\":\"{layer}\""), &urls);
    let files = serve(&image);
    let server = WebServer::start(move |request| match request.target.as_str() {
        "/v2/x/manifests/tag" => Reply::ok(manifest.as_bytes()),
        _ if is_blob_of(request, layer) => Reply::status(404),
        path => files(path).map_or(Reply::status(404), |body| Reply::ok(&body)),
    });
    let store = TestStore::new();
    store.pull(&format!("{}/x:tag", server.host)).unwrap();
    assert!(store.store.has_blob(&layer));
}

#[test]
fn a_missing_layer_is_named() {
    let image = one_layer(1);
    let layer = image.layers[0];
    let files = serve(&image);
    let server = WebServer::start(move |request| match files(&request.target) {
        Some(body) if !is_blob_of(request, layer) => Reply::ok(&body),
        _ => Reply::status(404),
    });
    let store = TestStore::new();
    let error = store.pull(&format!("{}/x:tag", server.host)).unwrap_err();
    let expected = format!("`{}` lists the layer {layer} in the image but does not have it", server.host);
    assert_eq!(error.to_string(), expected);
    assert_eq!(store.files(), Vec::<String>::new());
}

#[test]
fn a_connection_that_always_breaks_is_given_up() {
    let image = one_layer(1);
    let layer = image.layers[0];
    let files = serve(&image);
    let server = WebServer::start(move |request| {
        let Some(body) = files(&request.target) else { return Reply::status(404) };
        let cut_after = is_blob_of(request, layer).then_some(100);
        Reply { cut_after, ..Reply::ok(&body) }
    });
    let store = TestStore::new();
    let error = store.pull(&format!("{}/x:tag", server.host)).unwrap_err();
    assert!(matches!(error, RegistryError::Interrupted { why: Reach::Broken { .. }, .. }), "{error}");
    assert_eq!(server.seen().iter().filter(|seen| is_blob_of(seen, layer)).count(), 5);
    assert_eq!(store.files(), Vec::<String>::new());
}

#[test]
fn plain_http_needs_the_configuration() {
    let store = TestStore::new();
    // Not loopback by name, so that https is spoken, and the answer is none.
    let server = WebServer::start(|_| Reply::status(400));
    let port = server.host.rsplit(':').next().unwrap();
    let error = store.pull(&format!("0.0.0.0:{port}/x:tag")).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { why: Reach::Tls { .. }, .. }), "{error}");
    assert!(error.hint().unwrap().contains("registry.insecure"));
    // The same host, configured.
    let options = ClientOptions { insecure: vec!["0.0.0.0".into()], ..ClientOptions::default() };
    let image = ImageRef::parse(&format!("0.0.0.0:{port}/x:tag")).unwrap();
    let error = pull(&Client::new(options), &image, &amd64(), &store.store, &|_| {}).unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 400, .. }), "{error}");
}
