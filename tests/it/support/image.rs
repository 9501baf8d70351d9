//! Small real images: busybox in a `docker save` archive of either shape, or in an OCI layout.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use slipway::base::Digest;

use super::layers::Tar;
use super::sandbox::Sandbox;

/// Which form of `docker save`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Before Docker 25: `manifest.json`, `<id>/layer.tar`.
    Legacy,
    /// Since Docker 25: an OCI layout with `manifest.json` beside it.
    Oci,
}

/// An image in memory.
#[derive(Debug, Clone)]
pub(crate) struct TestImage {
    /// Uncompressed layer tars, base first.
    pub(crate) layers: Vec<Vec<u8>>,
    /// The `config` object of the image config.
    pub(crate) config: Value,
    /// GOARCH word.
    pub(crate) architecture: String,
    /// Name and tag.
    pub(crate) name: String,
}

/// A named piece of an archive or layout.
type Member = (String, Vec<u8>);

impl TestImage {
    /// Busybox with its usual applets and a file that names the image.
    pub(crate) fn busybox() -> Self {
        let program = std::fs::read("/bin/busybox").expect("the package busybox-static is installed");
        let mut base = Tar::new();
        for directory in ["bin", "etc", "tmp", "data"] {
            base = base.directory(directory, 0o755);
        }
        base = base.file("bin/busybox", 0o755, program);
        for applet in APPLETS {
            base = base.symlink(&format!("bin/{applet}"), "busybox");
        }
        let top = Tar::new()
            .file("etc/os-release", 0o644, "ID=boxtest\nPRETTY_NAME=\"Box of the tests\"\n")
            .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")
            .file("etc/group", 0o644, "root:x:0:\n")
            .file("etc/not-a-program", 0o755, "just text\n")
            .file("etc/not-executable", 0o644, "#!/bin/sh\n");
        Self {
            layers: vec![base.finish(), top.finish()],
            config: json!({
                "Env": ["PATH=/bin", "FROM_IMAGE=image"],
                "Cmd": ["cat", "/etc/os-release"],
                "WorkingDir": "/data",
            }),
            architecture: goarch().into(),
            name: "boxtest:latest".into(),
        }
    }

    /// The image config document.
    pub(crate) fn config_document(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "2024-05-06T07:08:09Z",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes()
    }

    /// The members of a `docker save` archive.
    pub(crate) fn archive_members(&self, shape: Shape) -> Vec<Member> {
        let config = self.config_document();
        if shape == Shape::Oci {
            let mut members = self.layout_members();
            let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
            let layers: Vec<_> = self.layers.iter().map(|layer| blob(layer)).collect();
            members.push(("manifest.json".into(), archive_manifest(&blob(&config), &self.name, &layers)));
            return members;
        }
        let config_name = format!("{}.json", Digest::of(&config).hex());
        let mut members: Vec<Member> = self
            .layers
            .iter()
            .map(|layer| (format!("{}/layer.tar", Digest::of(layer).hex()), layer.clone()))
            .collect();
        let layers: Vec<_> = members.iter().map(|(name, _)| name.clone()).collect();
        members.push(("manifest.json".into(), archive_manifest(&config_name, &self.name, &layers)));
        members.push((config_name, config));
        members
    }

    /// The members of an OCI layout.
    pub(crate) fn layout_members(&self) -> Vec<Member> {
        let config = self.config_document();
        let mut members: Vec<Member> = Vec::new();
        let mut blob = |media_type: &str, bytes: &[u8]| {
            members.push((format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes.to_vec()));
            json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
        };
        let layers: Vec<_> =
            self.layers.iter().map(|layer| blob("application/vnd.oci.image.layer.v1.tar", layer)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        });
        let mut entry = blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        let tag = self.name.rsplit(':').next().unwrap_or("latest");
        entry["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/library/{}", self.name),
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        members.push(("index.json".into(), index.to_string().into_bytes()));
        members.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        members
    }

    /// Writes a `docker save` archive into the sandbox's home.
    pub(crate) fn save(&self, sandbox: &Sandbox, file: &str, shape: Shape) -> PathBuf {
        sandbox.write(&format!("home/{file}"), pack(&self.archive_members(shape)))
    }

    /// Writes an OCI layout below the sandbox's home.
    pub(crate) fn write_layout(&self, sandbox: &Sandbox, directory: &str) -> PathBuf {
        let place = sandbox.make_directory(&format!("home/{directory}"));
        for (name, bytes) in self.layout_members() {
            let path = format!("home/{directory}/{name}");
            if let Some(parent) = Path::new(&path).parent() {
                sandbox.make_directory(parent.to_str().unwrap());
            }
            sandbox.write(&path, bytes);
        }
        place
    }

    /// Converts the image to `home/FILE` with the program.
    #[track_caller]
    pub(crate) fn convert(&self, sandbox: &Sandbox, file: &str) -> PathBuf {
        let archive = self.save(sandbox, "image.tar", Shape::Oci);
        sandbox.slipway(["convert", "docker-archive:image.tar", file]).succeed();
        std::fs::remove_file(archive).unwrap();
        sandbox.path(&format!("home/{file}"))
    }
}

/// A tar of members.
pub(crate) fn pack(members: &[Member]) -> Vec<u8> {
    members.iter().fold(Tar::new(), |tar, (name, bytes)| tar.file(name, 0o644, bytes)).finish()
}

fn archive_manifest(config: &str, name: &str, layers: &[String]) -> Vec<u8> {
    json!([{"Config": config, "RepoTags": [name], "Layers": layers}]).to_string().into_bytes()
}

/// This machine in GOARCH words.
pub(crate) fn goarch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

const APPLETS: &[&str] = &[
    "cat",
    "cp",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "id",
    "kill",
    "ls",
    "mkdir",
    "mount",
    "mv",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "sed",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "test",
    "touch",
    "tr",
    "true",
    "uname",
    "wc",
    "whoami",
];

/// Where the Debian root is kept between runs: debootstrap takes a minute and asks a mirror.
const DEBIAN_ROOT: &str = "/var/tmp/slipway-debian-root.tar";

/// A tar of a minimal Debian root, made by debootstrap once for this machine. Needs root.
pub(crate) fn debian_root() -> PathBuf {
    let lock = std::fs::File::create(format!("{DEBIAN_ROOT}.lock")).unwrap();
    let _lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .unwrap();
    if !Path::new(DEBIAN_ROOT).exists() {
        let script = concat!(
            "set -euo pipefail; . ",
            env!("CARGO_MANIFEST_DIR"),
            "/scripts/lib.sh; debian_root \"$0\""
        );
        super::registry::run("bash", &["-c", script, DEBIAN_ROOT]);
    }
    DEBIAN_ROOT.into()
}
