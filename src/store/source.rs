//! From a manifest to a [`LayerSet`], wherever the blobs are: in the store, in an archive, in a layout directory.

use std::sync::Arc;

use crate::base::{Digest, Hint, ReadAt as _};
use crate::oci::{
    ChooseError, Document, DocumentError, ImageConfig, Index, Manifest, Platform, RootFsError, choose, media,
};
use crate::sys::file::ReadFile;

use super::{Layer, LayerSet, Store, StoreError};

/// Why blobs do not make an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Something that the image is made of is not there.
    #[error("the {what} `{name}` is missing")]
    Missing {
        /// `manifest`, `config` or `layer`.
        what: &'static str,
        /// Its digest, or its name in an archive.
        name: String,
    },
    /// A manifest or index that is refused.
    #[error("{digest}: {source}")]
    Document {
        /// Its digest.
        digest: Digest,
        /// The cause.
        source: DocumentError,
    },
    /// The config is not JSON of the expected form.
    #[error("the image config {digest} is not valid: {source}")]
    Config {
        /// Its digest.
        digest: Digest,
        /// The cause.
        source: serde_json::Error,
    },
    /// The config does not belong to these layers.
    #[error("{digest}: {source}")]
    RootFs {
        /// The config's digest.
        digest: Digest,
        /// The cause.
        source: RootFsError,
    },
    /// A chart, a model, an SBOM, kept like an image.
    #[error("{digest} is no container image but an artifact (its config has the type `{config_type}`)")]
    Artifact {
        /// The manifest's digest.
        digest: Digest,
        /// The config's media type.
        config_type: String,
    },
    /// An index where one image must be named.
    #[error("{digest} is a list of images, not one image")]
    IsIndex {
        /// The index's digest.
        digest: Digest,
    },
    /// No entry of an index will do.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// Indexes inside indexes inside indexes.
    #[error("{digest}: indexes are nested deeper than {} levels", media::INDEX_DEPTH_LIMIT)]
    TooDeep {
        /// The innermost digest.
        digest: Digest,
    },
    /// Other bytes than the digest says.
    #[error("the {what} `{name}` does not match its digest: its sha256 is {got}")]
    Digest {
        /// `manifest`, `config` or `layer`.
        what: &'static str,
        /// Its digest, or its name in an archive.
        name: String,
        /// What the bytes have.
        got: Digest,
    },
    /// Another length than the manifest says.
    #[error("the layer {digest} has {got_bytes} bytes, and the manifest says {expected_bytes}")]
    Size {
        /// The layer.
        digest: Digest,
        /// What the descriptor says.
        expected_bytes: u64,
        /// What is there.
        got_bytes: u64,
    },
    /// The file system.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Hint for ImageError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Document { source, .. } => source.hint(),
            Self::Choose(source) => source.hint(),
            Self::Store(source) => source.hint(),
            _ => None,
        }
    }
}

/// Bytes in an opened file.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) file: Arc<ReadFile>,
    pub(super) offset_bytes: u64,
    pub(super) size_bytes: u64,
}

impl Piece {
    /// All of a file.
    pub(super) fn whole(file: ReadFile) -> Self {
        let size_bytes = file.size_bytes();
        Self { file: Arc::new(file), offset_bytes: 0, size_bytes }
    }
}

/// A place that has blobs.
pub(super) trait BlobSource {
    /// A small blob, whole and matching its digest; `what` it is goes into errors.
    fn document(
        &mut self,
        what: &'static str,
        digest: &Digest,
        limit_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ImageError>;

    /// Where a layer's bytes are. They are verified when they are read for good.
    fn layer(&mut self, digest: &Digest) -> Result<Option<Piece>, ImageError>;
}

impl BlobSource for &Store {
    fn document(
        &mut self,
        _: &'static str,
        digest: &Digest,
        limit_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        Ok(self.read_blob(digest, limit_bytes)?)
    }

    fn layer(&mut self, digest: &Digest) -> Result<Option<Piece>, ImageError> {
        Ok(self.open_blob(digest)?.map(Piece::whole))
    }
}

/// An image with the raw manifest that describes it.
pub(super) struct Described {
    pub(super) manifest: Vec<u8>,
    pub(super) layers: LayerSet,
}

impl Store {
    /// The image of that manifest, all of whose blobs are in the store. `name` goes into messages and labels.
    pub fn layer_set(&self, name: &str, manifest_digest: &Digest) -> Result<LayerSet, ImageError> {
        let mut source = self;
        let raw = read_document(&mut source, manifest_digest)?;
        match parse_document(&raw, manifest_digest)? {
            Document::Manifest(manifest) => layer_set_of(&mut source, name, manifest_digest, &manifest),
            Document::Index(_) => Err(ImageError::IsIndex { digest: *manifest_digest }),
        }
    }
}

/// Chooses in `index`, and in the indexes inside it, the image for `wanted`.
pub(super) fn described_image(
    source: &mut impl BlobSource,
    name: &str,
    index: &Index,
    wanted: &Platform,
) -> Result<Described, ImageError> {
    let mut digest = choose(index, wanted)?.digest;
    for _ in 0..media::INDEX_DEPTH_LIMIT {
        let raw = read_document(source, &digest)?;
        match parse_document(&raw, &digest)? {
            Document::Manifest(manifest) => {
                let layers = layer_set_of(source, name, &digest, &manifest)?;
                return Ok(Described { manifest: raw, layers });
            }
            Document::Index(nested) => digest = choose(&nested, wanted)?.digest,
        }
    }
    Err(ImageError::TooDeep { digest })
}

fn read_document(source: &mut impl BlobSource, digest: &Digest) -> Result<Vec<u8>, ImageError> {
    source
        .document("manifest", digest, media::INDEX_LIMIT_BYTES)?
        .ok_or_else(|| ImageError::Missing { what: "manifest", name: digest.to_string() })
}

fn parse_document(raw: &[u8], digest: &Digest) -> Result<Document, ImageError> {
    Document::parse(raw).map_err(|source| ImageError::Document { digest: *digest, source })
}

fn layer_set_of(
    source: &mut impl BlobSource,
    name: &str,
    manifest_digest: &Digest,
    manifest: &Manifest,
) -> Result<LayerSet, ImageError> {
    if !manifest.is_image() {
        let config_type = manifest.config.media_type.clone();
        return Err(ImageError::Artifact { digest: *manifest_digest, config_type });
    }
    let config_digest = manifest.config.digest;
    let config = source
        .document("config", &config_digest, media::CONFIG_LIMIT_BYTES)?
        .ok_or_else(|| ImageError::Missing { what: "config", name: config_digest.to_string() })?;
    let diff_ids = diff_ids(&config, &config_digest, manifest.layers.len())?;

    let mut layers: Vec<Layer> = Vec::with_capacity(diff_ids.len());
    for (descriptor, diff_id) in manifest.layers.iter().zip(diff_ids) {
        let digest = descriptor.digest;
        // Builders repeat the empty layer; one descriptor serves them all.
        let known = layers.iter().find(|layer| layer.digest == Some(digest));
        let piece = match known {
            Some(layer) => Piece {
                file: Arc::clone(&layer.file),
                offset_bytes: layer.offset_bytes,
                size_bytes: layer.size_bytes,
            },
            None => source
                .layer(&digest)?
                .ok_or_else(|| ImageError::Missing { what: "layer", name: digest.to_string() })?,
        };
        if piece.size_bytes != descriptor.size_bytes {
            return Err(ImageError::Size {
                digest,
                expected_bytes: descriptor.size_bytes,
                got_bytes: piece.size_bytes,
            });
        }
        layers.push(layer_at(piece, Some(digest), diff_id));
    }
    Ok(LayerSet { name: name.to_owned(), manifest_digest: *manifest_digest, config, layers })
}

/// The diff ids of a raw config that must have `layers` of them.
pub(super) fn diff_ids(config: &[u8], digest: &Digest, layers: usize) -> Result<Vec<Digest>, ImageError> {
    let parsed =
        ImageConfig::parse(config).map_err(|source| ImageError::Config { digest: *digest, source })?;
    let diff_ids = parsed.rootfs.diff_ids_for(layers);
    Ok(diff_ids.map_err(|source| ImageError::RootFs { digest: *digest, source })?.to_vec())
}

pub(super) fn layer_at(piece: Piece, digest: Option<Digest>, diff_id: Digest) -> Layer {
    let Piece { file, offset_bytes, size_bytes } = piece;
    Layer { digest, diff_id, file, offset_bytes, size_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        _root: tempfile::TempDir,
        store: Store,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let store = Store::open(root.path()).unwrap();
            Self { _root: root, store }
        }

        fn put(&self, text: &str) -> Digest {
            self.store.put_blob(text.as_bytes()).unwrap()
        }

        /// A manifest over stored blobs, each with a size to be told.
        fn manifest(&self, config: &str, layers: &[(Digest, usize)]) -> Digest {
            let layers: Vec<String> = layers
                .iter()
                .map(|(digest, size)| {
                    format!(
                        r#"{{"mediaType":"{}v1.tar","digest":"{digest}","size":{size}}}"#,
                        media::OCI_LAYER_PREFIX
                    )
                })
                .collect();
            let kind = media::OCI_CONFIG;
            self.put(&format!(
                r#"{{"config":{{"mediaType":"{kind}","digest":"{}","size":1}},"layers":[{}]}}"#,
                self.put(config),
                layers.join(",")
            ))
        }

        fn fails(&self, manifest: &Digest, expected: &str) {
            assert_eq!(self.store.layer_set("", manifest).unwrap_err().to_string(), expected);
        }
    }

    fn config(diff_ids: &[Digest]) -> String {
        let diff_ids: Vec<String> = diff_ids.iter().map(|digest| format!("\"{digest}\"")).collect();
        format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#, diff_ids.join(","))
    }

    #[test]
    fn stored_blobs_make_an_image() {
        let place = Place::new();
        let (one, two) = (place.put("one"), place.put("second"));
        let config = config(&[one, two, one]);
        let manifest = place.manifest(&config, &[(one, 3), (two, 6), (one, 3)]);
        let set = place.store.layer_set("name", &manifest).unwrap();
        assert_eq!(
            (set.name.as_str(), set.manifest_digest, set.config),
            ("name", manifest, config.into_bytes())
        );
        let layers: Vec<_> =
            set.layers.iter().map(|layer| (layer.digest, layer.diff_id, layer.size_bytes)).collect();
        assert_eq!(layers, [(Some(one), one, 3), (Some(two), two, 6), (Some(one), one, 3)]);
        assert!(Arc::ptr_eq(&set.layers[0].file, &set.layers[2].file));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let place = Place::new();
        let (one, absent) = (place.put("one"), Digest::of(b"absent"));
        let good = config(&[one]);
        place.fails(&absent, &format!("the manifest `{absent}` is missing"));
        let broken = place.put("{");
        place.fails(
            &broken,
            &format!("{broken}: the manifest is not valid: EOF while parsing an object at line 1 column 1"),
        );
        place.fails(&place.manifest(&good, &[(absent, 1)]), &format!("the layer `{absent}` is missing"));
        place.fails(
            &place.manifest(&good, &[(one, 4)]),
            &format!("the layer {one} has 3 bytes, and the manifest says 4"),
        );
        let digest = Digest::of(good.as_bytes());
        place.fails(
            &place.manifest(&good, &[]),
            &format!("{digest}: the image config lists 1 layers, but the image has 0"),
        );
        place.fails(
            &place.manifest("[", &[]),
            &format!(
                "the image config {} is not valid: EOF while parsing a list at line 1 column 1",
                Digest::of(b"[")
            ),
        );
        let chart = place
            .put(&format!(r#"{{"config":{{"mediaType":"x/chart","digest":"{one}","size":3}},"layers":[]}}"#));
        place.fails(
            &chart,
            &format!("{chart} is no container image but an artifact (its config has the type `x/chart`)"),
        );
        let index = place.put(r#"{"manifests":[]}"#);
        place.fails(&index, &format!("{index} is a list of images, not one image"));
    }

    #[test]
    fn indexes_are_followed_to_a_depth() {
        let place = Place::new();
        let wanted = Platform::host();
        let mut digest = place.manifest(&config(&[]), &[]);
        let manifest = digest;
        for depth in 1..=media::INDEX_DEPTH_LIMIT + 1 {
            let raw = format!(r#"{{"manifests":[{{"digest":"{digest}","size":1}}]}}"#);
            let Document::Index(index) = Document::parse(raw.as_bytes()).unwrap() else { panic!("no index") };
            let found = described_image(&mut &place.store, "", &index, &wanted);
            match found {
                Ok(found) if depth <= media::INDEX_DEPTH_LIMIT => {
                    assert_eq!(found.layers.manifest_digest, manifest);
                }
                Err(ImageError::TooDeep { .. }) if depth > media::INDEX_DEPTH_LIMIT => {}
                _ => panic!("wrong at depth {depth}"),
            }
            digest = place.put(&raw);
        }
    }
}
