//! A real registry on a loopback port, small images to push, and little HTTP servers for what a real one does not do.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use slipway::base::Digest;
use tempfile::TempDir;

/// Debian's `docker-registry` with its storage in a temporary directory; ends with this value.
pub(crate) struct Registry {
    child: Child,
    directory: TempDir,
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with("", "")
    }

    /// With further lines of its configuration: at the top, and below `http`.
    pub(crate) fn start_with(top: &str, http: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yml");
        // The kernel chooses the port, and the log tells it: no race for a free one.
        let text = format!(
            "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{http}{top}",
            directory.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let host = loop {
            let start = seen.len();
            assert!(log.read_line(&mut seen).unwrap() > 0, "docker-registry ended:\n{seen}");
            if let Some((_, rest)) = seen[start..].split_once("listening on ") {
                break rest.split(['"', ',']).next().unwrap().trim().to_owned();
            }
        };
        // A full pipe would stop the server.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, directory, host }
    }

    pub(crate) fn stop(&mut self) {
        // It may have ended by itself, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Pushes an OCI layout under `name:tag`.
    pub(crate) fn push(&self, image: &OciImage, name: &str) {
        let source = format!("oci:{}:image", image.path().display());
        let target = format!("docker://{}/{name}", self.host);
        run("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &source, &target]);
    }

    /// Puts a manifest or index as raw JSON.
    pub(crate) fn put_manifest(&self, path: &str, media_type: &str, json: &str) {
        let answer = http(&self.host, "PUT", path, &[("content-type", media_type)], json.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    /// The file in which the registry keeps a blob.
    pub(crate) fn blob_file(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.directory
            .path()
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How a layer of a test image is compressed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packing {
    Gzip,
    Zstd,
}

/// An OCI layout with one image, tagged `image`.
pub(crate) struct OciImage {
    directory: TempDir,
    pub(crate) manifest: Digest,
    pub(crate) manifest_bytes: usize,
    pub(crate) config: Digest,
    pub(crate) layers: Vec<Digest>,
}

impl OciImage {
    /// One layer for each content, which becomes the file `file-N`.
    pub(crate) fn new(architecture: &str, layers: &[(Packing, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let blobs = directory.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
            digest
        };
        let (mut descriptors, mut diff_ids, mut digests) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (packing, content)) in layers.iter().enumerate() {
            let tar = one_file_tar(&format!("file-{number}"), content);
            let (suffix, packed) = match packing {
                Packing::Gzip => {
                    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    out.write_all(&tar).unwrap();
                    ("gzip", out.finish().unwrap())
                }
                Packing::Zstd => ("zstd", zstd::bulk::compress(&tar, 1).unwrap()),
            };
            let digest = put(&packed);
            diff_ids.push(format!("\"{}\"", Digest::of(&tar)));
            digests.push(digest);
            descriptors.push(format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+{suffix}","digest":"{digest}","size":{}}}"#,
                packed.len()
            ));
        }
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","created":"2024-01-02T03:04:05Z","config":{{"Cmd":["/bin/sh"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        let config_digest = put(config.as_bytes());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}},"layers":[{}]}}"#,
            config.len(),
            descriptors.join(",")
        );
        let manifest_digest = put(manifest.as_bytes());
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{OCI_MANIFEST}","digest":"{manifest_digest}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"image"}}}}]}}"#,
            manifest.len()
        );
        std::fs::write(directory.path().join("index.json"), index).unwrap();
        std::fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self {
            directory,
            manifest: manifest_digest,
            manifest_bytes: manifest.len(),
            config: config_digest,
            layers: digests,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn blob(&self, digest: Digest) -> Vec<u8> {
        std::fs::read(self.path().join("blobs/sha256").join(digest.hex())).unwrap()
    }
}

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, size_bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}

fn one_file_tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header;
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

/// Runs a tool and fails the test with its output if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// One HTTP exchange by hand; the whole answer as text.
fn http(host: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
    let mut stream = TcpStream::connect(host).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    write!(head, "content-length: {}\r\n\r\n", body.len()).unwrap();
    stream.write_all(&head).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A request as a [`WebServer`] saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What it answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Send only so many bytes of the body, then close.
    pub(crate) cut_after: Option<usize>,
}

impl Reply {
    pub(crate) fn ok(body: &[u8]) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A tiny HTTP server on a loopback port: one thread, one request for each connection. It lives as long as the tests.
pub(crate) struct WebServer {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl WebServer {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let reply = match read_request(&stream) {
                    Some(request) => {
                        let reply = answer(&request);
                        log.lock().unwrap().push(request);
                        reply
                    }
                    None => Reply::status(400),
                };
                // A client that closes early is part of some tests.
                let _ = stream.write_all(&render(&reply));
            }
        });
        Self { host, seen }
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { method, target, headers, body })
}

fn render(reply: &Reply) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status).into_bytes();
    for (name, value) in &reply.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    write!(head, "content-length: {}\r\n\r\n", reply.body.len()).unwrap();
    head.extend(&reply.body[..reply.cut_after.unwrap_or(reply.body.len())]);
    head
}

/// Which side's bytes a [`cutting_proxy`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server's answers.
    Download,
    /// The client's requests.
    Upload,
}

/// A TCP proxy that closes the first connection on which more than `cut_after` bytes go one way.
pub(crate) fn cutting_proxy(target: String, way: Cut, cut_after: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let cuts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&cuts);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&target).unwrap());
            let (mut from, mut to) = match way {
                Cut::Download => (server, client),
                Cut::Upload => (client, server),
            };
            let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
            std::thread::spawn(move || {
                // Either side may close first.
                let _ = std::io::copy(&mut back_from, &mut back_to);
                let _ = back_to.shutdown(Shutdown::Write);
            });
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || {
                let mut total = 0;
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count) = from.read(&mut buffer) {
                    total += count;
                    let cut = total > cut_after
                        && counter.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok();
                    if count == 0 || cut || to.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            });
        }
    });
    (host, cuts)
}
