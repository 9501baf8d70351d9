//! Containers of documents: SIF, image files, archives; and the documents of a registry.

use std::cell::Cell;

use slipway::base::ReadAt;
use slipway::image::Image;
use slipway::oci::layout::{entry_is_called, entry_name, parse_index, parse_marker};
use slipway::oci::{Document, ImageConfig, Index, Platform, candidates, choose};
use slipway::sif::Sif;
use slipway::squashfs::read::Reader;
use slipway::store::{Store, read_archive_stream};

use crate::scratch;

/// The head of a file that goes on with nothing but zeros, so that small inputs can be large files.
struct Head<'a>(&'a [u8]);

/// How large, in bytes.
const FILE_BYTES: u64 = 1 << 20;

impl ReadAt for Head<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let count = usize::try_from(FILE_BYTES.saturating_sub(offset)).unwrap_or(0).min(buf.len());
        buf[..count].fill(0);
        self.0.read_at(&mut buf[..count], offset)?;
        Ok(count)
    }

    fn size_bytes(&self) -> u64 {
        FILE_BYTES
    }
}

/// The bytes as the head of a file of 1 MiB: a SIF or an error. Every object that is told lies inside the file, and so does the primary partition.
pub(crate) fn sif(data: &[u8]) {
    let Ok(sif) = Sif::read(&Head(data)) else { return };
    let is_inside = |offset: u64, size: u64| offset.checked_add(size).is_some_and(|end| end <= FILE_BYTES);
    for object in &sif.objects {
        assert!(is_inside(object.offset_bytes, object.size_bytes), "{object:?}");
        assert!(object.name.len() <= 128);
        let _ = sif.find_json(&String::from_utf8_lossy(&object.name));
    }
    if let Ok(object) = sif.primary() {
        assert!(sif.objects.iter().any(|other| other.id == object.id));
    }
}

/// Any file is an image or an error that names it. The squashfs of an image lies inside the file, and what was read of its
/// config is what its own raw bytes say.
pub(crate) fn image(data: &[u8]) {
    let path = scratch::file("image", data);
    let image = match Image::open(&path) {
        Ok(image) => image,
        Err(error) => return assert!(error.to_string().contains("image"), "{error}"),
    };
    assert!(image.offset_bytes.checked_add(image.size_bytes).is_some_and(|end| end <= data.len() as u64));
    let partition = image.partition();
    assert_eq!(partition.size_bytes(), image.size_bytes);
    if let Ok(reader) = Reader::open(partition) {
        assert!(reader.superblock().bytes_used <= image.size_bytes);
    }
    if let Some(raw) = image.raw_config() {
        assert!(ImageConfig::parse(raw).is_ok());
    }
}

/// Any bytes are each kind of document, or an error. What is chosen of an index is one of its entries that may be images;
/// a config that names layers names as many as it is asked for, or says so.
pub(crate) fn oci(data: &[u8]) {
    match Document::parse(data) {
        Ok(Document::Manifest(manifest)) => {
            let _ = manifest.is_image();
            for layer in &manifest.layers {
                let _ = (layer.is_layer(), layer.is_index(), layer.is_attestation(), layer.annotation("a"));
            }
        }
        Ok(Document::Index(index)) => choose_of(&index),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(index) = parse_index(data) {
        for entry in &index.manifests {
            let name = entry_name(entry);
            assert!(name.is_none_or(|name| entry_is_called(entry, name)));
        }
        choose_of(&index);
    }
    let _ = parse_marker(data);
    if let Ok(config) = ImageConfig::parse(data) {
        for count in [0, 1, 3] {
            if let Ok(found) = config.rootfs.diff_ids_for(count) {
                assert_eq!(found.len(), count);
            }
        }
    }
}

fn choose_of(index: &Index) {
    for platform in ["linux/amd64", "linux/arm/v7", "linux/arm64"] {
        let wanted = Platform::parse(platform).expect("a platform");
        let all = candidates(index, &wanted);
        assert!(all.iter().all(|entry| entry.is_image_candidate()));
        if let Ok(chosen) = choose(index, &wanted) {
            assert!(index.manifests.iter().any(|entry| entry.digest == chosen.digest));
        }
    }
}

/// Any stream is an archive of images or an error. The layers of an image lie inside files that are there, as many as the
/// config has; nothing is left in the store's directory for what is being written.
pub(crate) fn archive(data: &[u8]) {
    /// A store of thousands of blobs is slow.
    const RUNS_OF_A_STORE: u32 = 500;
    thread_local! {
        static RUNS: Cell<u32> = const { Cell::new(0) };
    }
    let root = scratch::directory().join("store");
    if RUNS.replace(RUNS.get() + 1) % RUNS_OF_A_STORE == 0 {
        let _ = std::fs::remove_dir_all(&root);
    }
    let store = Store::open(&root).expect("the scratch directory can be written");
    let wanted = Platform::parse("linux/amd64").expect("a platform");
    if let Ok(images) = read_archive_stream(data, "fuzz", &store, &wanted) {
        for image in images {
            let layers = &image.layers.layers;
            let config = ImageConfig::parse(&image.layers.config).expect("it was read before");
            assert_eq!(config.rootfs.diff_ids_for(layers.len()).expect("as many").len(), layers.len());
            for layer in layers {
                let end = layer.offset_bytes.checked_add(layer.size_bytes).expect("a window of a file");
                assert!(end <= layer.file.size_bytes());
            }
        }
    }
}
