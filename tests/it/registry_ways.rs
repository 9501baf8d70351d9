//! Ways to a registry: mirrors, proxies, and connections that break under an upload.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::support::registry::{
    Cut, OciImage, Packing, Registry, Reply, WebServer, cutting_proxy, noise, run,
};
use crate::support::sandbox::Sandbox;

#[test]
fn a_mirror_is_asked_first_and_the_registry_last() {
    need!(registry, tool "skopeo");
    let (mirror, origin) = (Registry::start(), Registry::start());
    let (mirrored, original) = (
        OciImage::new("amd64", &[(Packing::Gzip, b"mirrored")]),
        OciImage::new("amd64", &[(Packing::Gzip, b"original")]),
    );
    mirror.push(&mirrored, "hub/library/both:1");
    origin.push(&original, "library/both:1");
    origin.push(&original, "library/only:1");
    let closed = WebServer::start(|_| Reply::status(503));
    let sandbox = Sandbox::new();
    let pull = |name: &str| {
        sandbox
            .slipway([
                "pull",
                "--retry",
                "0",
                "--platform",
                "linux/amd64",
                &format!("{}/library/{name}", origin.host),
            ])
            .env(
                "SLIPWAY_REGISTRY_MIRRORS",
                format!("{0}={1},{0}={2}/hub", origin.host, closed.host, mirror.host),
            )
            .run()
    };
    let both = pull("both:1");
    assert!(both.stderr.contains(&format!("warning: `{}` answered 503", closed.host)), "{both}");
    assert!(both.stdout.contains(&format!("Digest: {}\n", mirrored.manifest)), "{both}");
    assert!(both.stdout.ends_with(&format!("{}/library/both:1\n", origin.host)), "{both}");
    let only = pull("only:1");
    assert!(only.stdout.contains(&format!("Digest: {}\n", original.manifest)), "{only}");
    assert!(only.stderr.contains(&format!("warning: `{}` has no", mirror.host)), "{only}");
}

/// A proxy that notes the first line and the headers of each request, and refuses it.
fn refusing_proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                head.push(byte[0]);
            }
            log.lock().unwrap().push(String::from_utf8(head).unwrap());
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    (address, seen)
}

#[test]
fn a_proxy_is_asked_by_name_and_never_for_this_machine() {
    need!(registry, tool "skopeo");
    let registry = Registry::start();
    registry.push(&OciImage::new("amd64", &[(Packing::Gzip, b"x")]), "near:1");
    let (proxy, seen) = refusing_proxy();
    let sandbox = Sandbox::new();
    let with_proxy = |name: &str| {
        sandbox
            .slipway(["pull", "-q", "--retry", "0", "--platform", "linux/amd64", name])
            .env("HTTPS_PROXY", format!("http://user:Planted-Secret-1@{proxy}"))
            .env("http_proxy", &proxy)
    };
    // The name is looked up by the proxy: compute nodes have no name service for the outside.
    let far = with_proxy("registry.invalid/x:1").run();
    assert_eq!(far.code, Some(1));
    assert!(far.stderr.starts_with("error: cannot reach `registry.invalid`: the proxy refuses: "), "{far}");
    assert!(!format!("{far}").contains("Planted"), "{far}");
    assert!(seen.lock().unwrap()[0].starts_with("CONNECT registry.invalid:443 HTTP/1.1\r\n"));
    assert_eq!(with_proxy(&format!("{}/near:1", registry.host)).run().code, Some(0));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn a_real_registry_takes_up_a_broken_upload() {
    need!(registry, tool "skopeo");
    let registry = Registry::start();
    let image = OciImage::new("amd64", &[(Packing::Gzip, &noise(1, 12 << 20))]);
    registry.push(&image, "from:1");
    let sandbox = Sandbox::new();
    let source = format!("{}/from:1", registry.host);
    sandbox.slipway(["pull", "-q", "--platform", "linux/amd64", &source]).succeed();
    let other = Registry::start();
    let (cutter, cuts) = cutting_proxy(other.host.clone(), Cut::Upload, 5 << 20);
    let target = format!("{cutter}/to:1");
    sandbox.slipway(["tag", &source, &target]).succeed();
    let output = sandbox.slipway(["push", &target]).run();
    assert_eq!((output.code, cuts.load(Ordering::SeqCst)), (Some(0), 1), "{output}");
    assert!(output.stderr.contains("; next try in "), "{output}");
    let back = tempfile::tempdir().unwrap();
    run(
        "skopeo",
        &[
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            &format!("docker://{}/to:1", other.host),
            &format!("oci:{}:x", back.path().display()),
        ],
    );
    let copied = std::fs::read(back.path().join("blobs/sha256").join(image.layers[0].hex())).unwrap();
    assert!(copied == image.blob(image.layers[0]));
}
