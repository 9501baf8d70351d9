//! Images made by hand: tars, layers, and the OCI layouts that other tools read.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway::base::Digest;
use slipway::store::{Layer, LayerSet};
use slipway::sys::file::ReadFile;

/// A plain ustar archive, member by member. Names have at most 100 bytes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn member(mut self, name: &str, kind: u8, mode: u32, link: &str, data: &[u8]) -> Self {
        let mut header = [0; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}\0{:07o}\0{:07o}\0", 1000, 100).as_bytes());
        put(124, format!("{:011o}\0{:011o}\0        ", data.len(), 1_600_000_000).as_bytes());
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn directory(self, name: &str, mode: u32) -> Self {
        self.member(&format!("{name}/"), b'5', mode, "", b"")
    }

    pub(crate) fn file(self, name: &str, mode: u32, data: impl AsRef<[u8]>) -> Self {
        self.member(name, b'0', mode, "", data.as_ref())
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.member(name, b'2', 0o777, target, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(name, b'1', 0o644, target, b"")
    }

    pub(crate) fn fifo(self, name: &str) -> Self {
        self.member(name, b'6', 0o600, "", b"")
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A layer as it is stored, and what is said about it.
#[derive(Debug, Clone)]
pub(crate) struct StoredLayer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Option<Digest>,
    pub(crate) diff_id: Digest,
}

impl StoredLayer {
    /// An honest layer: `tar`, stored by `store`.
    pub(crate) fn new(tar: &[u8], store: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let bytes = store(tar);
        Self { digest: Some(Digest::of(&bytes)), bytes, diff_id: Digest::of(tar) }
    }
}

/// An image config for `layers`, base first; `run` is its `config` object.
pub(crate) fn config_of(layers: &[StoredLayer], run: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", layer.diff_id)).collect();
    format!(
        r#"{{"created":"2024-02-03T04:05:06.789Z","architecture":"amd64","os":"linux","config":{run},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
    .into_bytes()
}

/// The layers as files in `directory`, ready to be converted.
pub(crate) fn layer_set(directory: &Path, layers: &[StoredLayer], config: Vec<u8>) -> LayerSet {
    let open = |(index, layer): (usize, &StoredLayer)| {
        let path = directory.join(format!("layer{index}"));
        std::fs::write(&path, &layer.bytes).unwrap();
        layer_at(&path, layer.digest, layer.diff_id)
    };
    LayerSet {
        name: "test".into(),
        manifest_digest: Digest::of(&config),
        layers: layers.iter().enumerate().map(open).collect(),
        config,
    }
}

fn layer_at(path: &Path, digest: Option<Digest>, diff_id: Digest) -> Layer {
    let file = ReadFile::new(std::fs::File::open(path).unwrap()).unwrap();
    let size_bytes = std::fs::metadata(path).unwrap().len();
    Layer { digest, diff_id, file: Arc::new(file), offset_bytes: 0, size_bytes }
}

/// Writes an OCI layout with one image, tagged `latest`.
pub(crate) fn write_layout(layout: &Path, layers: &[StoredLayer], config: &[u8]) {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        format!(r#""digest":"{digest}","size":{}"#, bytes.len())
    };
    let mut list = String::new();
    for layer in layers {
        let suffix = if layer.bytes.starts_with(&[0x1f, 0x8b]) { "+gzip" } else { "" };
        let place = put(&layer.bytes);
        write!(list, r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar{suffix}",{place}}},"#).unwrap();
    }
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{}}},"layers":[{}]}}"#,
        put(config),
        list.trim_end_matches(',')
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",{},"annotations":{{"org.opencontainers.image.ref.name":"latest"}}}}]}}"#,
        put(manifest.as_bytes())
    );
    std::fs::write(layout.join("index.json"), index).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Reads the image `tag` of an OCI layout.
pub(crate) fn read_layout(layout: &Path, tag: &str) -> LayerSet {
    let digest_in = |json: &serde_json::Value| json["digest"].as_str().unwrap().parse::<Digest>().unwrap();
    let blob = |digest: &Digest| -> PathBuf { layout.join("blobs/sha256").join(digest.hex()) };
    let read = |path: &Path| std::fs::read(path).unwrap();
    let parse = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();

    let index = parse(&read(&layout.join("index.json")));
    let entries = index["manifests"].as_array().unwrap();
    let name = "org.opencontainers.image.ref.name";
    let entry = entries.iter().find(|entry| entry["annotations"][name] == tag).unwrap();
    let manifest_digest = digest_in(entry);
    let manifest = parse(&read(&blob(&manifest_digest)));
    let config = read(&blob(&digest_in(&manifest["config"])));
    let diff_ids = parse(&config)["rootfs"]["diff_ids"].as_array().unwrap().clone();
    let layers = manifest["layers"].as_array().unwrap().iter().zip(diff_ids).map(|(layer, diff_id)| {
        let digest = digest_in(layer);
        layer_at(&blob(&digest), Some(digest), diff_id.as_str().unwrap().parse().unwrap())
    });
    LayerSet { name: tag.into(), manifest_digest, layers: layers.collect(), config }
}
