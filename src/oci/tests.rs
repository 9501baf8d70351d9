//! Documents: shapes and limits.

use super::*;
use crate::base::{Digest, Hint as _};

fn descriptor(media_type: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":0}}"#, Digest::of(b""))
}

fn shape(raw: &str) -> String {
    match Document::parse(raw.as_bytes()) {
        Ok(Document::Manifest(manifest)) => format!("manifest of {}", manifest.layers.len()),
        Ok(Document::Index(index)) => format!("index of {}", index.manifests.len()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_shape_decides() {
    let blob = descriptor("");
    for (raw, expected) in [
        (format!(r#"{{"config":{blob},"layers":[{blob}]}}"#), "manifest of 1"),
        (format!(r#"{{"config":{blob},"layers":null}}"#), "manifest of 0"),
        (format!("\u{feff}{{\"config\":{blob},\"layers\":[]}}"), "manifest of 0"),
        (format!(r#"{{"manifests":[{blob},{blob}]}}"#), "index of 2"),
        (format!(r#"{{"manifests":null,"mediaType":"{}"}}"#, media::OCI_INDEX), "index of 0"),
        (
            format!(r#"{{"manifests":[],"layers":[],"config":{blob}}}"#),
            "the document is a manifest and an index at once (it has `manifests` beside `layers`)",
        ),
        (
            format!(r#"{{"manifests":[],"config":{blob}}}"#),
            "the document is a manifest and an index at once (it has `manifests` beside `config`)",
        ),
        (
            format!(r#"{{"manifests":[],"mediaType":"{}"}}"#, media::DOCKER_MANIFEST),
            "the document calls itself `application/vnd.docker.distribution.manifest.v2+json`, but it has the shape of an index",
        ),
        (
            format!(r#"{{"config":{blob},"layers":[],"mediaType":"{}"}}"#, media::OCI_INDEX),
            "the document calls itself `application/vnd.oci.image.index.v1+json`, but it has the shape of an image manifest",
        ),
        (
            r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#.into(),
            "the manifest has Docker's schema 1, which registries and Docker gave up",
        ),
        (
            "{}".into(),
            "the document is neither a manifest nor an index (it has neither `manifests` nor `layers` with `config`)",
        ),
        ("[".into(), "the manifest is not valid: EOF while parsing a list at line 1 column 1"),
        (
            format!(r#"{{"layers":[],"layers":[],"config":{blob}}}"#),
            "the manifest is not valid: duplicate field `layers` at line 1 column 21",
        ),
    ] {
        assert_eq!(shape(&raw), expected, "{raw}");
    }
    assert!(DocumentError::Schema1.hint().is_some());
}

#[test]
fn a_document_has_a_limit() {
    let padded = |size: usize, head: &str| format!("{head}{}", " ".repeat(size - head.len()));
    let manifest = format!(r#"{{"config":{},"layers":[]}}"#, descriptor(""));
    let limit = usize::try_from(media::MANIFEST_LIMIT_BYTES).unwrap();
    assert_eq!(shape(&padded(limit, &manifest)), "manifest of 0");
    assert_eq!(
        shape(&padded(limit + 1, &manifest)),
        "the manifest has 4194305 bytes, more than the limit of 4194304"
    );
    assert_eq!(shape(&padded(limit + 1, r#"{"manifests":[]}"#)), "index of 0");
    let limit = usize::try_from(media::INDEX_LIMIT_BYTES).unwrap();
    assert_eq!(
        shape(&padded(limit + 1, r#"{"manifests":[]}"#)),
        "the index has 16777217 bytes, more than the limit of 16777216"
    );
}

#[test]
fn deep_json_is_an_error_and_no_crash() {
    let deep = format!(r#"{{"manifests":[{}{}]}}"#, "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(shape(&deep), "index of 0");
    let deep = format!(r#"{{"config":{}1{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    assert!(shape(&deep).starts_with("the manifest is not valid"), "{}", shape(&deep));
}

#[test]
fn an_image_is_told_from_an_artifact() {
    for (config, layer, expected) in [
        (media::OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+gzip", true),
        (media::DOCKER_CONFIG, "application/vnd.docker.image.rootfs.diff.tar.gzip", true),
        ("", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", true),
        (media::OCI_EMPTY, "application/vnd.oci.image.layer.v1.tar", false),
        (media::OCI_CONFIG, "application/vnd.in-toto+json", false),
        (
            "application/vnd.cncf.helm.config.v1+json",
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
            false,
        ),
    ] {
        let raw = format!(r#"{{"config":{},"layers":[{}]}}"#, descriptor(config), descriptor(layer));
        let Document::Manifest(manifest) = Document::parse(raw.as_bytes()).unwrap() else {
            panic!("no manifest")
        };
        assert_eq!(manifest.is_image(), expected, "{config} {layer}");
    }
}

#[test]
fn a_config_must_count_its_layers() {
    let check = |rootfs: &str, layers: usize, expected: Result<usize, &str>| {
        let config = ImageConfig::parse(format!(r#"{{"rootfs":{rootfs}}}"#).as_bytes()).unwrap();
        let found =
            config.rootfs.diff_ids_for(layers).map(<[Digest]>::len).map_err(|error| error.to_string());
        assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|words| *words));
    };
    let one = format!(r#"{{"type":"layers","diff_ids":["{}"]}}"#, Digest::of(b""));
    check(&one, 1, Ok(1));
    check(&one, 2, Err("the image config lists 1 layers, but the image has 2"));
    check(r#"{"type":"layers"}"#, 0, Ok(0));
    check(
        r#"{"type":"layers+base"}"#,
        0,
        Err("the image config has a root file system of type `layers+base`, and only `layers` is known"),
    );
    check("null", 0, Err("the image config has a root file system of type ``, and only `layers` is known"));
}

#[test]
fn an_index_has_a_limit() {
    let index = |count| {
        let entries = vec![descriptor(media::OCI_MANIFEST); count].join(",");
        shape(&format!(r#"{{"manifests":[{entries}]}}"#))
    };
    assert_eq!(index(media::INDEX_ENTRY_LIMIT), "index of 4096");
    assert_eq!(
        index(media::INDEX_ENTRY_LIMIT + 1),
        "the index has 4097 entries, more than the limit of 4096"
    );
}
