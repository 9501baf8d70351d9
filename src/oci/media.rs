//! Media types, and how large a document may be.

/// An OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The start of every OCI layer type; `tar`, `tar+gzip`, `tar+zstd` follow, or `nondistributable.v1.tar…`.
pub const OCI_LAYER_PREFIX: &str = "application/vnd.oci.image.layer.";
/// The config of an OCI artifact that has none.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The start of Docker's layer types: `diff.tar`, `diff.tar.gzip`, `foreign.diff.tar.gzip`, and `.zstd` in the wild.
pub const DOCKER_LAYER_PREFIX: &str = "application/vnd.docker.image.rootfs.";
/// Docker's manifest of 2015, refused.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// The same, signed.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// What an `Accept` header for a manifest request lists, always all of them.
pub const ACCEPTED_MANIFESTS: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// Largest manifest, in bytes: registries refuse larger ones.
pub const MANIFEST_LIMIT_BYTES: u64 = 4 << 20;
/// Largest index, in bytes.
pub const INDEX_LIMIT_BYTES: u64 = 16 << 20;
/// Largest image config, in bytes.
pub const CONFIG_LIMIT_BYTES: u64 = 4 << 20;
/// Most entries of an index: choosing among them costs more than their number.
pub const INDEX_ENTRY_LIMIT: usize = 4096;
/// Indexes inside indexes that a reader follows.
pub const INDEX_DEPTH_LIMIT: usize = 4;

/// Config types that Docker takes for an image's, with what old tools wrote.
const IMAGE_CONFIGS: [&str; 6] =
    [OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", "application/json", "text/html", ""];

/// Types that say nothing about the content, so that its shape decides.
const GENERIC: [&str; 5] =
    ["", "application/octet-stream", "application/json", "text/plain", "text/plain; charset=utf-8"];

pub(crate) fn is_index(media_type: &str) -> bool {
    media_type == OCI_INDEX || media_type == DOCKER_INDEX
}

pub(crate) fn is_manifest(media_type: &str) -> bool {
    media_type == OCI_MANIFEST || media_type == DOCKER_MANIFEST
}

pub(crate) fn is_schema1(media_type: &str) -> bool {
    media_type == DOCKER_SCHEMA1 || media_type == DOCKER_SCHEMA1_SIGNED
}

pub(crate) fn is_generic(media_type: &str) -> bool {
    GENERIC.contains(&media_type)
}

pub(crate) fn is_image_config(media_type: &str) -> bool {
    IMAGE_CONFIGS.contains(&media_type)
}

pub(crate) fn is_layer(media_type: &str) -> bool {
    media_type.starts_with(OCI_LAYER_PREFIX) || media_type.starts_with(DOCKER_LAYER_PREFIX)
}
