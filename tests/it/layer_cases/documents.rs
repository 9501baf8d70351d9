//! Groups 17 and 18: oddities of the documents, read from OCI layouts as other tools write them.

use std::fs;

use slipway::oci::Platform;
use slipway::store::read_layout;

use super::*;

/// A layout with one layer, whose documents are text in which `DIFF`, `LAYER`, `CONFIG`, `MANIFEST` and `…SIZE` stand for
/// what they are, and `LHEX` for the layer's digest in capitals.
struct Documents {
    config: String,
    manifest: String,
    index: String,
}

impl Documents {
    fn plain() -> Self {
        let config =
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["DIFF"]}}"#;
        let manifest = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG","size":CONFIGSIZE},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"LAYER","size":LAYERSIZE}]}"#;
        let index = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"MANIFEST","size":MANIFESTSIZE}]}"#;
        Self { config: config.into(), manifest: manifest.into(), index: index.into() }
    }

    /// Writes the layout, converts it for amd64 and opens the image.
    fn open(&self, directory: &Path) -> Result<Image, String> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            fs::write(blobs.join(digest.hex()), bytes).unwrap();
            (digest.to_string(), bytes.len().to_string())
        };
        let tar = archive(&[file("a", "1")]);
        let (layer, layer_size) = put(&tar);
        let config = self.config.replace("DIFF", &layer);
        let (config, config_size) = put(config.as_bytes());
        let fill = |text: &str| {
            text.replace("LAYERSIZE", &layer_size)
                .replace("CONFIGSIZE", &config_size)
                .replace("LAYER", &layer)
                .replace("CONFIG", &config)
                .replace("LHEX", &layer["sha256:".len()..].to_uppercase())
        };
        let (manifest, manifest_size) = put(fill(&self.manifest).as_bytes());
        let index = fill(&self.index).replace("MANIFESTSIZE", &manifest_size).replace("MANIFEST", &manifest);
        fs::write(directory.join("index.json"), index).unwrap();
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let words = |text: String| {
            [(&layer, "LAYER"), (&config, "CONFIG"), (&manifest, "MANIFEST")]
                .iter()
                .fold(text, |text, (digest, name)| text.replace(*digest, name))
                .replace(directory.to_str().unwrap(), "LAYOUT")
        };
        let set = read_layout(directory, None, &Platform::parse("linux/amd64").unwrap())
            .map_err(|error| words(error.to_string()))?;
        let sif = directory.join("image.sif");
        let options =
            Options { compressor: Compressor::Zstd(1), threads: 1, max_entries: 1000, max_bytes: 1 << 20 };
        convert(&set, &sif, &options).map_err(|error| words(error.to_string()))?;
        Ok(Image::open(&sif).unwrap())
    }
}

/// The image of a config, in short, or why there is none.
#[track_caller]
fn check_config(config: &str, expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let found =
        Documents { config: config.into(), ..Documents::plain() }.open(directory.path()).map(|image| {
            let raw = image.raw_config().map(<[u8]>::to_vec).unwrap_or_default();
            let layer = Digest::of(&archive(&[file("a", "1")])).to_string();
            assert_eq!(raw, config.replace("DIFF", &layer).as_bytes(), "the config is kept byte for byte");
            let run = &image.config.config;
            format!(
                "{:?} {:?} {:?} user `{}` in `{}`",
                run.entrypoint, run.cmd, run.env, run.user, run.working_dir
            )
        });
    assert_eq!(found.unwrap_or_else(|error| error), expected, "{config}");
}

#[test]
fn group_17_configs() {
    macro_rules! config {
        ($run:literal) => {
            concat!(
                r#"{"architecture":"amd64","os":"linux","config":"#,
                $run,
                r#","rootfs":{"type":"layers","diff_ids":["DIFF"]}}"#
            )
        };
    }
    let plain = r#"[] [] [] user `` in ``"#;
    check_config(config!("{}"), plain);
    check_config(config!("null"), plain);
    check_config(config!(r#"{"Entrypoint":"/x","Cmd":null}"#), r#"["/x"] [] [] user `` in ``"#);
    check_config(config!(r#"{"Entrypoint":null,"Cmd":[]}"#), plain);
    check_config(
        config!(r#"{"Env":["A=b","NOTHING","=empty","","PATH=/bin"]}"#),
        r#"[] [] ["A=b", "NOTHING", "=empty", "", "PATH=/bin"] user `` in ``"#,
    );
    check_config(config!(r#"{"Volumes":null,"ExposedPorts":null,"Labels":null,"OnBuild":null}"#), plain);
    check_config(
        config!(r#"{"User":"daemon:","WorkingDir":"srv//app"}"#),
        r#"[] [] [] user `daemon:` in `srv//app`"#,
    );
    check_config(
        config!(r#"{"Unknown":{"a":[1.50,9007199254740993,1e400]},"Memory":99999999999999999999}"#),
        plain,
    );
    for history in ["[]", r#"[{"created_by":"x"},{"empty_layer":true},{"created":"y"}]"#, "null"] {
        let config = config!("{}").replace(r#""os""#, &format!(r#""history":{history},"os""#));
        check_config(&config, plain);
    }
    for created in ["0001-01-01T00:00:00Z", "not a time", "9999-12-31T23:59:59Z", ""] {
        let config = config!("{}").replace(r#""os""#, &format!(r#""created":"{created}","os""#));
        check_config(&config, plain);
    }
    check_config(
        "\u{feff}{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"DIFF\"]}}",
        plain,
    );
    // Go takes the last of two keys, and any case of a name; two meanings in one document are refused.
    check_config(
        r#"{"os":"linux","os":"linux","rootfs":{"type":"layers","diff_ids":["DIFF"]}}"#,
        "`LAYOUT`: the image config CONFIG is not valid: duplicate field `os` at line 1 column 18",
    );
    check_config(
        r#"{"os":"linux","rootfs":{"type":"layers","diff_ids":["DIFF","DIFF"]}}"#,
        "`LAYOUT`: CONFIG: the image config lists 2 layers, but the image has 1",
    );
    check_config(
        r#"{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
        "`LAYOUT`: CONFIG: the image config lists 0 layers, but the image has 1",
    );
    check_config(
        r#"{"os":"linux","rootfs":{"type":"layers+base","diff_ids":["DIFF"]}}"#,
        "`LAYOUT`: CONFIG: the image config has a root file system of type `layers+base`, and only `layers` is known",
    );
}

/// A manifest with more fields in its config's descriptor, and these layers.
fn manifest(more: &str, layers: &[&str]) -> Documents {
    let layer =
        |fields: &&str| format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar",{fields}}}"#);
    let layers: Vec<_> = layers.iter().map(layer).collect();
    let config = format!(
        r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG","size":CONFIGSIZE{more}}}"#
    );
    Documents {
        manifest: format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(",")),
        ..Documents::plain()
    }
}

/// An index of these entries.
fn index(entries: &[&str]) -> Documents {
    let entries: Vec<_> = entries.iter().map(|fields| format!("{{{fields}}}")).collect();
    Documents {
        index: format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")),
        ..Documents::plain()
    }
}

#[test]
fn group_18_digests_and_descriptors() {
    const LAYER: &str = r#""digest":"LAYER","size":LAYERSIZE"#;
    const ENTRY: &str = r#""digest":"MANIFEST","size":MANIFESTSIZE"#;
    let check = |documents: &Documents, expected: &str| {
        let directory = tempfile::tempdir().unwrap();
        let found =
            documents.open(directory.path()).map(|image| tree_of_image(&image.path, &[]).lines().join(", "));
        assert_eq!(
            found.unwrap_or_else(|error| error),
            expected,
            "{} {}",
            documents.manifest,
            documents.index
        );
    };
    let tree = "f644 a `1`";
    check(&manifest("", &[LAYER]), tree);
    // Content that is named by sha512 does not hide the rest.
    let sha512 = format!(r#""digest":"sha512:{}","size":1"#, "0".repeat(128));
    check(&index(&[&sha512, ENTRY]), tree);
    check(
        &manifest("", &[r#""digest":"sha256:LHEX","size":LAYERSIZE"#]),
        "`LAYOUT`: MANIFEST: the manifest is not valid: \
         `sha256:8921B80EE7024C66A2B13513814564AE73D21084D84889EFE1CD025060A6F5A5` is not a digest of the form \
         sha256:<64 hex digits> at line 1 column 325",
    );
    // What a document is, its digest says; what a layer is, only its end tells, so its length must be right.
    check(&index(&[r#""digest":"MANIFEST","size":7"#]), tree);
    check(
        &manifest("", &[r#""digest":"LAYER","size":7"#]),
        "`LAYOUT`: the layer LAYER has 2048 bytes, and the manifest says 7",
    );
    check(&manifest(r#","data":"e30=""#, &[LAYER]), tree);
    check(&manifest("", &[&format!(r#"{LAYER},"urls":["https://example.com/x"],"data":null"#)]), tree);
    check(&index(&[ENTRY, ENTRY]), tree);
    let on = |architecture| format!(r#"{ENTRY},"platform":{{"os":"linux","architecture":"{architecture}"}}"#);
    check(&index(&[&on("arm64"), &on("amd64")]), tree);
    check(
        &manifest("", &[LAYER, LAYER]),
        "`LAYOUT`: CONFIG: the image config lists 1 layers, but the image has 2",
    );
    // A layer type that lies: what it is, its bytes say.
    let mut lying = manifest("", &[LAYER]);
    lying.manifest = lying.manifest.replace("layer.v1.tar", "layer.v1.tar+gzip");
    check(&lying, tree);
}
