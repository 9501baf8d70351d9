//! Pushes: to a real registry, checked by skopeo, and to little servers that make it hard.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slipway::base::{Digest, Hint as _};
use slipway::oci::Platform;
use slipway::reference::ImageRef;
use slipway::registry::{Client, ClientOptions, PushEvent, PushState, Pushed, RegistryError, pull, push};
use slipway::store::Store;

use crate::support::registry::{OciImage, Packing, Registry, Reply, Seen, WebServer, noise, run};
use crate::support::sandbox::Sandbox;

fn client() -> Client {
    Client::new(ClientOptions { first_wait: Duration::from_millis(1), ..ClientOptions::default() })
}

/// A store that holds one image, put there as a pull does it.
fn store_with(image: &OciImage) -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for digest in image.layers.iter().chain([&image.config, &image.manifest]) {
        store.put_blob(&image.blob(*digest)).unwrap();
    }
    (directory, store)
}

fn push_to(store: &Store, image: &OciImage, name: &str) -> (Result<Pushed, RegistryError>, Vec<PushEvent>) {
    let events = Mutex::new(Vec::new());
    let note = |event| events.lock().unwrap().push(event);
    let name = ImageRef::parse(name).unwrap();
    let result = push(&client(), &name, &image.manifest, store, &BTreeMap::new(), &note);
    (result, events.into_inner().unwrap())
}

#[test]
fn what_was_pulled_comes_back_bit_for_bit() {
    need!(registry, tool "skopeo");
    let (from, to) = (Registry::start(), Registry::start());
    let (large, small) = (noise(1, 9 << 20), noise(2, 5000));
    let image = OciImage::new("amd64", &[(Packing::Gzip, &large), (Packing::Zstd, &small)]);
    from.push(&image, "some/image:tag");
    let sandbox = Sandbox::new();
    let source = format!("{}/some/image:tag", from.host);
    let target = format!("{}/other/name:1", to.host);
    sandbox.slipway(["pull", "-q", "--platform", "linux/amd64", &source]).succeed();
    sandbox.slipway(["tag", &source, &target]).succeed();
    let output = sandbox.slipway(["push", "--digestfile", "digest", &target]).run();
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (
            Some(0),
            format!(
                "The push refers to repository [{}/other/name]\n1: digest: {} size: {}\n",
                to.host, image.manifest, image.manifest_bytes
            )
            .as_str()
        ),
        "{output}"
    );
    assert_eq!(output.stderr.matches(": Pushed (").count(), 2, "{output}");
    assert_eq!(std::fs::read_to_string(sandbox.path("home/digest")).unwrap(), image.manifest.to_string());

    let back = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:back", back.path().display());
    run("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{target}"), &layout]);
    for digest in image.layers.iter().chain([&image.config, &image.manifest]) {
        let copied = std::fs::read(back.path().join("blobs/sha256").join(digest.hex())).unwrap();
        assert_eq!(copied, image.blob(*digest));
    }

    // Again, under another name of the same registry: everything is there or mounted.
    let second = format!("{}/third:2", to.host);
    sandbox.slipway(["tag", &target, &second]).succeed();
    let output = sandbox.slipway(["push", &second]).run();
    assert_eq!(output.code, Some(0), "{output}");
    assert_eq!(output.stderr.matches(": Mounted from other/name\n").count(), 2, "{output}");
    let output = sandbox.slipway(["push", "-q", &second]).run();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), (format!("{second}\n").as_str(), ""));
    let output = sandbox.slipway(["push", &second]).run();
    assert_eq!(output.stderr.matches(": Layer already exists\n").count(), 2, "{output}");
    let digests =
        sandbox.slipway(["inspect", "-f", "{{range .RepoDigests}}{{println .}}{{end}}", &second]).succeed();
    for name in ["other/name", "third"] {
        assert!(digests.contains(&format!("{}/{name}@{}\n", to.host, image.manifest)), "{digests}");
    }
}

#[test]
fn all_tags_go_and_come() {
    need!(registry, tool "skopeo");
    let registry = Registry::start();
    let sandbox = Sandbox::new();
    let images: Vec<OciImage> =
        (0..3).map(|seed| OciImage::new("amd64", &[(Packing::Gzip, &noise(seed, 1000))])).collect();
    for (number, image) in images.iter().enumerate() {
        registry.push(image, &format!("many:v{number}"));
    }
    let repository = format!("{}/many", registry.host);
    let refused = sandbox.slipway(["pull", "-a", &format!("{repository}:v1")]).run();
    assert!(refused.stderr.starts_with("error: tag can't be used with --all-tags/-a\n"), "{refused}");
    sandbox.slipway(["pull", "-q", "-a", "--platform", "linux/amd64", &repository]).succeed();
    let listed = sandbox.slipway(["images", "--format", "{{.Tag}}", &repository]).succeed();
    let mut tags: Vec<&str> = listed.lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["v0", "v1", "v2"]);
    for tag in tags {
        sandbox
            .slipway(["tag", &format!("{repository}:{tag}"), &format!("{}/copy:{tag}", registry.host)])
            .succeed();
    }
    let pushed = sandbox.slipway(["push", "-a", &format!("{}/copy", registry.host)]).succeed();
    for (number, image) in images.iter().enumerate() {
        let line = format!("v{number}: digest: {} size: {}\n", image.manifest, image.manifest_bytes);
        assert!(pushed.contains(&line), "{pushed}");
    }
}

#[test]
fn what_cannot_be_pushed_is_said() {
    let sandbox = Sandbox::new();
    let digest = Digest::of(b"x");
    for (args, expected) in [
        (vec!["push".to_owned(), "nothing:here".into()], "error: no such image: `nothing:here`".to_owned()),
        (
            vec!["push".into(), format!("a@{digest}")],
            format!("error: cannot push `a@{digest}`: a digest is no place to push to"),
        ),
    ] {
        let output = sandbox.slipway(args).run();
        assert_eq!(
            (output.code, output.stderr.lines().next()),
            (Some(1), Some(expected.as_str())),
            "{output}"
        );
    }
    let image = OciImage::new("amd64", &[(Packing::Gzip, b"x")]);
    let (_directory, store) = store_with(&image);
    store.remove_blob(&image.layers[0]).unwrap();
    // The registry takes what it gets: only what is not here can fail, however the blobs overtake one another.
    let memory = Mutex::new(Memory::default());
    let server = WebServer::start(move |request| memory.lock().unwrap().answer(request));
    let (result, _) = push_to(&store, &image, &format!("{}/x:1", server.host));
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot push `{}/x:1`: the store does not have the blob {}", server.host, image.layers[0])
    );
    assert!(error.hint().unwrap().contains("keep_blobs"));
}

/// A registry in memory that takes uploads, and may be told to misbehave.
#[derive(Default)]
struct Memory {
    session: Vec<u8>,
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, Vec<u8>>,
}

impl Memory {
    fn answer(&mut self, request: &Seen) -> Reply {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        match (request.method.as_str(), path) {
            ("HEAD", path) => match self.blobs.get(path.rsplit('/').next().unwrap()) {
                Some(_) => Reply::status(200),
                None => Reply::status(404),
            },
            ("POST", _) => {
                self.session.clear();
                Reply::status(202).with("location", "session?state=0%2F")
            }
            ("PATCH", _) => {
                if let Some(range) = request.headers.get("content-range") {
                    let (start, end) = range.split_once('-').unwrap();
                    if start.parse() != Ok(self.session.len()) {
                        return Reply::status(416);
                    }
                    assert_eq!(end.parse::<usize>().unwrap() + 1 - self.session.len(), request.body.len());
                }
                self.session.extend(&request.body);
                self.progress(202)
            }
            ("GET", _) => self.progress(204),
            ("PUT", path) if path.contains("/manifests/") => {
                self.manifests.insert(path.to_owned(), request.body.clone());
                Reply::status(201)
            }
            ("PUT", _) => {
                assert!(query.starts_with("state="), "the query must be kept: {query}");
                self.session.extend(&request.body);
                let digest = Digest::of(&self.session).to_string();
                let asked = query.split_once("&digest=").unwrap().1.replace("%3A", ":");
                assert_eq!(asked, digest);
                self.blobs.insert(digest, std::mem::take(&mut self.session));
                Reply::status(201)
            }
            other => panic!("{other:?}"),
        }
    }

    fn progress(&self, status: u16) -> Reply {
        Reply::status(status)
            .with("range", &format!("0-{}", self.session.len().saturating_sub(1)))
            .with("location", &format!("/v2/x/blobs/uploads/session?state={}%2F", self.session.len()))
    }
}

/// Pushes an image with one layer of 6 MiB to a registry in memory, where `disturb` may answer in its place.
fn push_disturbed(
    disturb: impl Fn(&Seen, &mut Memory, usize) -> Option<Reply> + Send + 'static,
) -> (Result<Pushed, RegistryError>, Vec<PushEvent>, Vec<Seen>) {
    let image = OciImage::new("amd64", &[(Packing::Zstd, &noise(7, 6 << 20))]);
    let memory = Arc::new(Mutex::new(Memory::default()));
    let shared = Arc::clone(&memory);
    let patches = AtomicUsize::new(0);
    let server = WebServer::start(move |request| {
        let mut memory = shared.lock().unwrap();
        let number = if request.method == "PATCH" { patches.fetch_add(1, Ordering::SeqCst) } else { 0 };
        disturb(request, &mut memory, number).unwrap_or_else(|| memory.answer(request))
    });
    let (_directory, store) = store_with(&image);
    // One blob at a time: the registry has one session.
    let client = Client::new(ClientOptions {
        first_wait: Duration::from_millis(1),
        parallel_layers: 1,
        ..ClientOptions::default()
    });
    let events = Mutex::new(Vec::new());
    let note = |event| events.lock().unwrap().push(event);
    let name = ImageRef::parse(&format!("{}/x:1", server.host)).unwrap();
    let result = push(&client, &name, &image.manifest, &store, &BTreeMap::new(), &note);
    if result.is_ok() {
        let memory = memory.lock().unwrap();
        for digest in image.layers.iter().chain([&image.config]) {
            assert!(memory.blobs[&digest.to_string()] == image.blob(*digest));
        }
        assert_eq!(memory.manifests["/v2/x/manifests/1"], image.blob(image.manifest));
    }
    (result, events.into_inner().unwrap(), server.seen())
}

fn bodies_of<'a>(seen: &'a [Seen], method: &str) -> Vec<&'a Seen> {
    seen.iter().filter(|seen| seen.method == method).collect()
}

#[test]
fn a_large_blob_goes_as_a_stream_and_a_small_one_in_one_request() {
    let (result, events, seen) = push_disturbed(|_, _, _| None);
    result.unwrap();
    let patches = bodies_of(&seen, "PATCH");
    assert_eq!(patches.len(), 1);
    assert!(!patches[0].headers.contains_key("content-range"));
    assert_eq!(patches[0].headers["content-length"], patches[0].body.len().to_string());
    // The layer's end, the config whole, the manifest last.
    let puts = bodies_of(&seen, "PUT");
    assert_eq!(puts.len(), 3);
    assert!(puts[0].body.is_empty() && !puts[1].body.is_empty());
    assert!(seen.last().unwrap().target.contains("/manifests/1"));
    assert_eq!(seen.last().unwrap().headers["content-type"], "application/vnd.oci.image.manifest.v1+json");
    let done = |event: &&PushEvent| matches!(event, PushEvent::Blob { state: PushState::Done, .. });
    assert_eq!(events.iter().filter(done).count(), 1);
}

#[test]
fn a_broken_upload_goes_on_where_the_registry_is() {
    let (result, events, seen) = push_disturbed(|request, memory, number| {
        if request.method == "PATCH" && number == 0 {
            // Two of six megabytes arrive.
            memory.session.extend(&request.body[..2 << 20]);
            return Some(Reply::status(503));
        }
        None
    });
    result.unwrap();
    let patches = bodies_of(&seen, "PATCH");
    assert_eq!(patches.len(), 2);
    assert!(
        patches[1].headers["content-range"].starts_with(&format!("{}-", 2 << 20)),
        "{:?}",
        patches[1].headers
    );
    assert!(events.iter().any(|event| matches!(event, PushEvent::Waiting { .. })));
}

#[test]
fn a_forgotten_session_begins_again() {
    let (result, _, seen) = push_disturbed(|request, memory, number| {
        let is_first = request.method == "PATCH" && number == 0;
        if is_first {
            memory.session.clear();
        }
        is_first.then(|| Reply::status(404))
    });
    result.unwrap();
    assert_eq!(bodies_of(&seen, "PATCH").len(), 2);
    assert_eq!(bodies_of(&seen, "POST").len(), 3);
}

#[test]
fn a_proxy_that_takes_no_large_request_gets_chunks() {
    let (result, _, seen) = push_disturbed(|request, _, _| {
        // Chunks are of 32 MiB, so that the second try is the whole blob again, told as a chunk.
        (request.method == "PATCH" && request.body.len() > 100 && !SMALLER.load(Ordering::SeqCst)).then(
            || {
                SMALLER.store(true, Ordering::SeqCst);
                Reply::status(413)
            },
        )
    });
    result.unwrap();
    assert_eq!(bodies_of(&seen, "PATCH").len(), 2);
}

static SMALLER: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

#[test]
fn a_registry_that_never_takes_it_is_left() {
    let (result, _, seen) =
        push_disturbed(|request, _, _| (request.method == "PATCH").then(|| Reply::status(413)));
    let error = result.unwrap_err();
    assert!(error.to_string().contains("answered 413 to the request for the blob sha256:"), "{error}");
    assert!(bodies_of(&seen, "PATCH").len() < 10);
    let (result, _, _) = push_disturbed(|request, _, _| {
        let body = br#"{"errors":[{"code":"DENIED","message":"quota is used up"}]}"#;
        (request.method == "POST").then(|| Reply { status: 403, ..Reply::ok(body) })
    });
    let error = result.unwrap_err();
    assert!(error.to_string().ends_with("(403: quota is used up)"), "{error}");
}

#[test]
fn a_pulled_image_pushes_from_its_store() {
    need!(registry, tool "skopeo");
    let registry = Registry::start();
    let image = OciImage::new("amd64", &[(Packing::Gzip, &noise(3, 100_000))]);
    registry.push(&image, "a:1");
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let name = ImageRef::parse(&format!("{}/a:1", registry.host)).unwrap();
    let platform = Platform::parse("linux/amd64").unwrap();
    pull(&client(), &name, &platform, &store, &|_| {}).unwrap();
    let (result, events) = push_to(&store, &image, &format!("{}/b:1", registry.host));
    assert_eq!(result.unwrap().digest, image.manifest);
    assert_eq!(events.len(), 1);
}

#[test]
fn a_token_for_pushing_is_fetched_and_renewed_in_the_middle() {
    let issued = AtomicUsize::new(0);
    let (result, _, seen) = push_disturbed(move |request, _, _| {
        if request.target.starts_with("/token") {
            let number = issued.fetch_add(1, Ordering::SeqCst);
            return Some(Reply::ok(format!(r#"{{"token":"t{number}"}}"#).as_bytes()));
        }
        // The first token runs out before the bytes come.
        let wanted =
            if matches!(request.method.as_str(), "HEAD" | "POST") && issued.load(Ordering::SeqCst) < 2 {
                "Bearer t0"
            } else {
                "Bearer t1"
            };
        let has = request.headers.get("authorization").map(String::as_str);
        (has != Some(wanted)).then(|| {
            let challenge =
                format!("Bearer realm=\"http://{}/token\",service=\"s\"", request.headers["host"]);
            Reply::status(401).with("www-authenticate", &challenge)
        })
    });
    result.unwrap();
    let tokens: Vec<&str> = seen
        .iter()
        .filter(|seen| seen.target.starts_with("/token"))
        .map(|seen| seen.target.as_str())
        .collect();
    assert_eq!(tokens, ["/token?service=s&scope=repository%3Ax%3Apull%2Cpush"; 2]);
    let bodies: Vec<usize> = bodies_of(&seen, "PATCH").iter().map(|patch| patch.body.len()).collect();
    assert!(bodies.len() == 2 && bodies[0] == bodies[1], "{bodies:?}");
}

#[test]
fn a_mount_that_is_not_allowed_becomes_an_upload() {
    let image = OciImage::new("amd64", &[(Packing::Zstd, &noise(7, 1000))]);
    let memory = Mutex::new(Memory::default());
    let server = WebServer::start(move |request| {
        if request.target.contains("mount=") {
            return Reply::status(403);
        }
        memory.lock().unwrap().answer(request)
    });
    let (_directory, store) = store_with(&image);
    let client = Client::new(ClientOptions { parallel_layers: 1, ..ClientOptions::default() });
    let name = ImageRef::parse(&format!("{}/x:1", server.host)).unwrap();
    let mounts = BTreeMap::from([(image.layers[0], "secret/place".to_owned())]);
    push(&client, &name, &image.manifest, &store, &mounts, &|_| {}).unwrap();
    let posts: Vec<String> =
        bodies_of(&server.seen(), "POST").iter().map(|post| post.target.clone()).collect();
    let digest = image.layers[0].to_string().replace(':', "%3A");
    assert_eq!(posts[0], format!("/v2/x/blobs/uploads/?mount={digest}&from=secret%2Fplace"));
    assert_eq!(posts[1..], ["/v2/x/blobs/uploads/"; 2]);
}
