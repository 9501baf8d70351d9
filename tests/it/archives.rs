//! Image archives and layout directories: built by hand in all shapes, and by skopeo and umoci.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use slipway::base::{Digest, Hint as _, ReadAt as _};
use slipway::oci::Platform;
use slipway::store::{
    ArchiveError, ArchiveImage, LayerSet, Store, read_archive, read_archive_stream, read_layout,
};

/// One member of a tar.
enum Part<'a> {
    File(&'a str, &'a [u8]),
    Symlink(&'a str, &'a str),
    HardLink(&'a str, &'a str),
    Directory(&'a str),
}

/// A tar with an end marker.
fn tar(parts: &[Part<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        let (name, kind, link, data): (_, _, _, &[u8]) = match part {
            Part::File(name, data) => (name, b'0', "", *data),
            Part::HardLink(name, link) => (name, b'1', *link, b""),
            Part::Symlink(name, link) => (name, b'2', *link, b""),
            Part::Directory(name) => (name, b'5', "", b""),
        };
        let mut block = header(name, kind, link, data.len() as u64);
        out.append(&mut block);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn header(name: &str, kind: u8, link: &str, size_bytes: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    [100, 108, 116].into_iter().for_each(|at| put(at, b"0000644"));
    put(124, format!("{size_bytes:011o}").as_bytes());
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar");
    put(263, b"00");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A layer tar with one file; large ones are taken out of streams as files, small ones stay in memory.
fn layer(content: &str, size_bytes: usize) -> Vec<u8> {
    tar(&[Part::File("file", content.repeat(size_bytes / content.len()).as_bytes())])
}

fn config(architecture: &str, layers: &[&[u8]]) -> String {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(layer))).collect();
    let diff_ids = diff_ids.join(",");
    format!(
        r#"{{"architecture":"{architecture}","os":"linux","rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}}}}"#
    )
}

fn descriptor(media_type: &str, blob: &[u8], more: &str) -> String {
    let digest = Digest::of(blob);
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.{media_type}","digest":"{digest}","size":{}{more}}}"#,
        blob.len()
    )
}

fn manifest(config: &str, layers: &[&[u8]]) -> String {
    let layers: Vec<String> = layers.iter().map(|layer| descriptor("layer.v1.tar", layer, "")).collect();
    let config = descriptor("config.v1+json", config.as_bytes(), "");
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","))
}

fn blob_name(blob: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(blob).hex())
}

/// A store and a place for archives.
struct Place {
    root: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("store")).unwrap();
        Self { root, store }
    }

    fn file(&self, content: &[u8]) -> PathBuf {
        let path = self.root.path().join("archive");
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Reads an archive as a plain file, as a gzip file, and as a stream; all must give the same images.
    fn read(&self, archive: &[u8], platform: &str) -> Result<Vec<ArchiveImage>, ArchiveError> {
        let wanted = Platform::parse(platform).unwrap();
        let plain = read_archive(&self.file(archive), &self.store, &wanted);
        let packed = gzip(archive);
        let others = [
            read_archive(&self.file(&packed), &self.store, &wanted),
            read_archive_stream(archive, "standard input", &self.store, &wanted),
            read_archive_stream(packed.as_slice(), "standard input", &self.store, &wanted),
        ];
        // The plain file was overwritten meanwhile, but it is the one with the windows.
        self.file(archive);
        for other in others {
            match (&plain, other) {
                (Ok(plain), Ok(other)) => assert_eq!(outline(plain), outline(&other)),
                (Err(plain), Err(other)) => assert_eq!(plain.source.to_string(), other.source.to_string()),
                (plain, other) => panic!("{plain:?} but {other:?}"),
            }
        }
        plain
    }

    fn fails(&self, archive: &[u8], expected: &str) {
        let error = self.read(archive, "linux/amd64").unwrap_err();
        assert_eq!(error.source.to_string(), expected);
        assert!(error.to_string().starts_with('`'), "{error}");
        assert_eq!(self.leftovers(), Vec::<PathBuf>::new());
    }

    fn leftovers(&self) -> Vec<PathBuf> {
        let list = |name| {
            std::fs::read_dir(self.store.root().join(name)).unwrap().map(|entry| entry.unwrap().path())
        };
        list("blobs/sha256").chain(list("tmp")).chain(list("images")).collect()
    }
}

/// Names, manifest digest and diff ids of images; the layers' bytes are verified on the way.
fn outline(images: &[ArchiveImage]) -> Vec<String> {
    images
        .iter()
        .map(|image| {
            verify(&image.layers);
            let set = &image.layers;
            format!("{} {} {}", image.names.join(","), set.manifest_digest.short(), set.layers.len())
        })
        .collect()
}

fn verify(set: &LayerSet) {
    for layer in &set.layers {
        let mut stored = vec![0; usize::try_from(layer.size_bytes).unwrap()];
        layer.file.read_exact_at(&mut stored, layer.offset_bytes).unwrap();
        assert!(layer.digest.is_none_or(|digest| digest == Digest::of(&stored)));
        let plain = if stored.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(stored.as_slice()).read_to_end(&mut plain).unwrap();
            plain
        } else {
            stored
        };
        assert_eq!(Digest::of(&plain), layer.diff_id);
    }
}

/// An archive of the old shape with two images: one tagged twice, whose third layer is the first one again.
fn legacy() -> Vec<u8> {
    let (one, two) = (layer("one", 100_000), layer("two", 1_000));
    let first = config("amd64", &[&one, &two, &one]);
    let second = config("amd64", &[&one]);
    let names = [&first, &second].map(|config| format!("{}.json", Digest::of(config.as_bytes()).hex()));
    let manifest = format!(
        r#"[{{"Config":"{}","RepoTags":["a:1","b:2"],"Layers":["x/layer.tar","y/layer.tar","z/layer.tar"]}},
            {{"Config":"{}","RepoTags":null,"Layers":["./h/layer.tar"]}}]"#,
        names[0], names[1]
    );
    tar(&[
        Part::Symlink("./z/layer.tar", "../x/layer.tar"),
        Part::Directory("x/"),
        Part::File("./x/layer.tar", &one),
        Part::File("x/VERSION", b"1.0"),
        // Compressed, although it is called otherwise.
        Part::File("y/layer.tar", &gzip(&two)),
        Part::HardLink("h/layer.tar", "x/layer.tar"),
        Part::File(&names[0], first.as_bytes()),
        Part::File(&names[1], second.as_bytes()),
        Part::File("repositories", b"{}"),
        Part::File("manifest.json", manifest.as_bytes()),
    ])
}

#[test]
fn the_old_shape_is_read() {
    let place = Place::new();
    let archive = legacy();
    let images = place.read(&archive, "linux/amd64").unwrap();
    let id = |image: &ArchiveImage| Digest::of(&image.layers.config).short();
    let expected = [format!("a:1,b:2 {} 3", id(&images[0])), format!(" {} 1", id(&images[1]))];
    assert_eq!(outline(&images), expected);
    assert_eq!((images[0].layers.name.as_str(), images[1].layers.name.as_str()), ("a:1", ""));
    // A plain file is not copied: the layers are windows of it, and have no digest to verify but the diff id.
    assert!(images[0].layers.layers.iter().all(|layer| layer.digest.is_none() && layer.offset_bytes > 0));
    assert!(place.leftovers().iter().all(|path| path.starts_with(place.store.root().join("blobs"))));
}

#[test]
fn a_plain_file_leaves_the_store_alone() {
    let place = Place::new();
    let path = place.file(&legacy());
    assert_eq!(read_archive(&path, &place.store, &Platform::host()).unwrap().len(), 2);
    assert!(place.leftovers().is_empty());
}

/// The shape of Docker 25 with the containerd store: an index for two platforms, of which one is absent, and an
/// attestation, which is absent too.
fn docker_25(manifest_json: bool) -> (Vec<u8>, String) {
    let layers = [layer("one", 80_000), layer("two", 500)];
    let layers = [layers[0].as_slice(), layers[1].as_slice()];
    let config = config("amd64", &layers);
    let manifest = manifest(&config, &layers);
    let platform =
        |words: &str| format!(r#","platform":{{"os":"{}","architecture":"{}"}}"#, &words[..5], &words[6..]);
    let list = [
        descriptor("manifest.v1+json", b"absent", &platform("linux/arm64")),
        descriptor("manifest.v1+json", manifest.as_bytes(), &platform("linux/amd64")),
        descriptor(
            "manifest.v1+json",
            b"attestation",
            r#","platform":{"os":"unknown","architecture":"unknown"}"#,
        ),
    ];
    let list = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, list.join(","));
    let named = r#","annotations":{"io.containerd.image.name":"docker.io/library/c:3","org.opencontainers.image.ref.name":"3"}"#;
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        descriptor("index.v1+json", list.as_bytes(), named)
    );
    let blobs: [&[u8]; 5] = [layers[1], config.as_bytes(), manifest.as_bytes(), list.as_bytes(), layers[0]];
    let names = blobs.map(blob_name);
    let listed = format!(
        r#"[{{"Config":"{}","RepoTags":["c:3"],"Layers":["{}","{}"]}}]"#,
        names[1], names[4], names[0]
    );
    let mut parts = vec![Part::Directory("blobs/"), Part::Directory("blobs/sha256/")];
    parts.extend(names.iter().zip(blobs).map(|(name, blob)| Part::File(name, blob)));
    parts.push(Part::File("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#));
    parts.push(Part::File("index.json", index.as_bytes()));
    if manifest_json {
        parts.push(Part::File("manifest.json", listed.as_bytes()));
    }
    (tar(&parts), manifest)
}

#[test]
fn the_new_shape_is_read() {
    let place = Place::new();
    for (manifest_json, name) in [(true, "c:3"), (false, "docker.io/library/c:3")] {
        let (archive, manifest) = docker_25(manifest_json);
        let images = place.read(&archive, "linux/amd64").unwrap();
        assert_eq!(outline(&images), [format!("{name} {} 2", Digest::of(manifest.as_bytes()).short())]);
        assert_eq!(images[0].manifest.as_deref(), Some(manifest.as_bytes()));
        assert!(images[0].layers.layers.iter().all(|layer| layer.digest == Some(layer.diff_id)));
    }
    // What came as a stream was kept, so that the image can be made again from the store.
    let (_, manifest) = docker_25(true);
    let set = place.store.layer_set("again", &Digest::of(manifest.as_bytes())).unwrap();
    verify(&set);
    assert_eq!((set.name.as_str(), set.layers.len()), ("again", 2));
}

#[test]
fn an_inconsistent_layout_yields_to_the_list() {
    let place = Place::new();
    let wanted = "linux/arm64";
    // The platform is listed but absent; the list knows an image, and whether its platform will do is for others.
    let images = place.read(&docker_25(true).0, wanted).unwrap();
    assert_eq!((images.len(), images[0].manifest.is_some()), (1, false));
    let error = place.read(&docker_25(false).0, wanted).unwrap_err();
    assert_eq!(error.source.to_string(), format!("the manifest `{}` is missing", Digest::of(b"absent")));
}

#[test]
fn every_cut_is_an_error_and_leaves_nothing() {
    for archive in [legacy(), docker_25(true).0] {
        let place = Place::new();
        // The last thing that matters ends before the marker of 1,024 bytes and the padding of the last member, which
        // some writers leave out.
        let marker = archive.len() - 1024;
        let needed = archive[..marker].iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let packed = gzip(&archive);
        let wanted = Platform::host();
        let cuts =
            (0..needed).step_by(1777).chain((0..needed).step_by(512 * 7)).chain([marker - 512, needed - 1]);
        for cut in cuts {
            let path = place.file(&archive[..cut]);
            let error = read_archive(&path, &place.store, &wanted).unwrap_err();
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            read_archive_stream(&archive[..cut], "standard input", &place.store, &wanted).unwrap_err();
            assert_eq!(place.leftovers(), Vec::<PathBuf>::new(), "{cut}: {error}");
        }
        for cut in (0..packed.len() - 20).step_by(packed.len() / 50 + 1) {
            read_archive(&place.file(&packed[..cut]), &place.store, &wanted).unwrap_err();
            assert_eq!(place.leftovers(), Vec::<PathBuf>::new(), "{cut}");
        }
    }
}

#[test]
fn wrong_archives_are_told_apart() {
    let place = Place::new();
    let base = layer("base", 5_000);
    let config = config("amd64", &[&base]);
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let list = |config: &str, layers: &str| {
        format!(r#"[{{"Config":"{config}","RepoTags":["a"],"Layers":[{layers}]}}]"#)
    };
    let check = |list: &str, expected: &str| {
        let archive = tar(&[
            Part::File("manifest.json", list.as_bytes()),
            Part::File(&config_name, config.as_bytes()),
            Part::File("a/layer.tar", &base),
            Part::Symlink("loop", "loop"),
            Part::Symlink("out", "../../out"),
        ]);
        place.fails(&archive, expected);
    };
    let good = "\"a/layer.tar\"";
    check(&list("x.json", good), "the config `x.json` is missing");
    check(&list(&config_name, "\"b/layer.tar\""), "the layer `b/layer.tar` is missing");
    check(&list(&config_name, "\"loop\""), "the layer `loop` is missing");
    check(&list(&config_name, "\"out\""), "the layer `out` is missing");
    check(
        &list(&config_name, "\"a/layer.tar\",\"a/layer.tar\""),
        &format!("{}: the image config lists 1 layers, but the image has 2", Digest::of(config.as_bytes())),
    );
    check(
        &list(&config_name, "\"\""),
        &format!("layer 1 ({}) was left out when the archive was made", Digest::of(&base)),
    );
    check("null", "`manifest.json` is `null`: the archive was saved without any image");
    check("[", "`manifest.json` is not valid: EOF while parsing a list at line 1 column 1");

    let wrong_name = format!("{}.json", Digest::of(b"").hex());
    place.fails(
        &tar(&[
            Part::File("manifest.json", list(&wrong_name, good).as_bytes()),
            Part::File(&wrong_name, config.as_bytes()),
            Part::File("a/layer.tar", &base),
        ]),
        &format!(
            "the config `{wrong_name}` does not match its digest: its sha256 is {}",
            Digest::of(config.as_bytes())
        ),
    );
    place.fails(&tar(&[Part::File("x/layer.tar", &base)]), "it has layers but neither `manifest.json` nor `index.json`: it was cut short, or made by a Docker before 1.10");
    let root = tar(&[Part::Directory("etc/"), Part::File("etc/passwd", b"root:x:0:0::/:/bin/sh\n")]);
    place.fails(&root, "this is no image archive: it has neither `manifest.json` nor `index.json`");
    let error = place.read(&root, "linux/amd64").unwrap_err();
    assert!(error.hint().unwrap().contains("slipway import"));

    let names: Vec<String> = (0..3000).map(|n| format!("usr/share/doc/{n}")).collect();
    let many: Vec<Part<'_>> = names.iter().map(|name| Part::File(name, b"x")).collect();
    place.fails(&tar(&many), "this is no image archive: it has neither `manifest.json` nor `index.json`");

    let empty = place.read(&tar(&[Part::File("manifest.json", b"[]")]), "linux/amd64").unwrap();
    assert!(empty.is_empty());
}

#[test]
fn wrong_blobs_are_found_by_their_digest() {
    let place = Place::new();
    let base = layer("base", 100_000);
    let config = config("amd64", &[&base]);
    let manifest = manifest(&config, &[&base]);
    let index = format!(r#"{{"manifests":[{}]}}"#, descriptor("manifest.v1+json", manifest.as_bytes(), ""));
    let changed = |what: usize| {
        let mut blobs = [manifest.clone().into_bytes(), config.clone().into_bytes(), base.clone()];
        let names = blobs.clone().map(|blob| blob_name(&blob));
        let middle = blobs[what].len() / 2;
        blobs[what][middle] ^= 1;
        tar(&[
            Part::File("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            Part::File("index.json", index.as_bytes()),
            Part::File(&names[0], &blobs[0]),
            Part::File(&names[1], &blobs[1]),
            Part::File(&names[2], &blobs[2]),
        ])
    };
    let starts = |what: usize, start: String| {
        let wanted = Platform::host();
        let error = read_archive_stream(changed(what).as_slice(), "-", &place.store, &wanted).unwrap_err();
        assert!(error.source.to_string().starts_with(&start), "{error}");
        assert!(place.leftovers().is_empty());
    };
    starts(0, format!("the manifest `{}` does not match its digest", blob_name(manifest.as_bytes())));
    starts(1, format!("the config `{}` does not match its digest", blob_name(config.as_bytes())));
    starts(2, format!("the layer `{}` does not match its digest", blob_name(&base)));
    // In a plain file a layer is verified by who reads it: the promise is there to compare with.
    let images = read_archive(&place.file(&changed(2)), &place.store, &Platform::host()).unwrap();
    assert_eq!(images[0].layers.layers[0].digest, Some(Digest::of(&base)));
}

#[test]
fn an_empty_name_is_an_empty_layer() {
    let place = Place::new();
    let empty = vec![0; 1024];
    let base = layer("base", 5_000);
    let config = config("", &[&empty, &base]);
    let archive = tar(&[
        Part::File("config.json", config.as_bytes()),
        Part::File("1.tar", &base),
        Part::File("manifest.json", br#"[{"Config":"config.json","Layers":["","1.tar"]}]"#),
    ]);
    let images = place.read(&archive, "linux/amd64").unwrap();
    assert_eq!((images[0].layers.layers.len(), images[0].layers.layers[0].size_bytes), (2, 1024));
}

#[test]
fn a_scan_does_not_read_the_layers() {
    // A layer of 6 GiB that takes no disk: reading it would show as a test that never ends.
    let place = Place::new();
    let size_bytes: u64 = 6 << 30;
    let digest = Digest::of(b"nobody reads it");
    let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#);
    let path = place.file(&header("x/layer.tar", b'0', "", size_bytes));
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    file.set_len(512 + size_bytes).unwrap();
    let rest = tar(&[
        Part::File("config.json", config.as_bytes()),
        Part::File("manifest.json", br#"[{"Config":"config.json","Layers":["x/layer.tar"]}]"#),
    ]);
    file.write_all(&rest).unwrap();
    let images = read_archive(&path, &place.store, &Platform::host()).unwrap();
    let layer = &images[0].layers.layers[0];
    assert_eq!((layer.offset_bytes, layer.size_bytes), (512, size_bytes));
    file.set_len(size_bytes / 2).unwrap();
    let error = read_archive(&path, &place.store, &Platform::host()).unwrap_err();
    assert!(error.to_string().contains("x/layer.tar"), "{error}");
}

fn run(program: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// An OCI layout `layout` below `root` with the image `one` and `two`, which has a layer more.
fn real_layout(root: &Path) {
    std::fs::write(root.join("payload"), "payload".repeat(50_000)).unwrap();
    for arguments in [
        &["init", "--layout", "layout"][..],
        &["new", "--image", "layout:one"],
        &["insert", "--rootless", "--image", "layout:one", "payload", "/payload"],
        &["config", "--image", "layout:one", "--config.cmd", "/payload"],
        &["tag", "--image", "layout:one", "two"],
        &["insert", "--rootless", "--image", "layout:two", "payload", "/second"],
    ] {
        run("umoci", arguments, root);
    }
}

fn diff_ids(set: &LayerSet) -> Vec<Digest> {
    verify(set);
    set.layers.iter().map(|layer| layer.diff_id).collect()
}

#[test]
fn skopeo_and_umoci_are_understood() {
    need!(tool "skopeo", tool "umoci");
    let place = Place::new();
    let root = place.root.path();
    real_layout(root);
    let layout = root.join("layout");
    let wanted = Platform::host();
    let one = read_layout(&layout, Some("one"), &wanted).unwrap();
    let two = read_layout(&layout, Some("two"), &wanted).unwrap();
    assert_eq!((one.layers.len(), two.layers.len()), (1, 2));
    assert_eq!(diff_ids(&two)[0], diff_ids(&one)[0]);
    let by_digest = read_layout(&layout, Some(&two.manifest_digest.to_string()), &wanted).unwrap();
    assert_eq!(by_digest.config, two.config);

    let error = read_layout(&layout, None, &wanted).unwrap_err();
    let path = layout.display();
    assert_eq!(error.to_string(), format!("`{path}`: it has several images: `one`, `two`"));
    assert_eq!(error.hint().unwrap(), format!("name one, as in `oci:{path}:NAME`"));
    let error = read_layout(&layout, Some("three"), &wanted).unwrap_err();
    assert_eq!(error.to_string(), format!("`{path}`: it has no image called `three`, only `one`, `two`"));
    let error = read_layout(root, None, &wanted).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{}`: this is no OCI layout: it has no file `oci-layout`", root.display())
    );

    for (target, names) in [
        ("docker-archive:two.docker.tar:example.com/two:3", vec!["example.com/two:3"]),
        ("docker-archive:untagged.docker.tar", vec![]),
        ("oci-archive:two.oci.tar:tag", vec!["tag"]),
    ] {
        run("skopeo", &["--insecure-policy", "copy", "oci:layout:two", target], root);
        let file = root.join(target.split(':').nth(1).unwrap());
        let images = place.read(&std::fs::read(&file).unwrap(), "linux/amd64").unwrap();
        assert_eq!(
            (images.len(), &images[0].names),
            (1, &names.iter().map(ToString::to_string).collect()),
            "{target}"
        );
        assert_eq!(diff_ids(&images[0].layers), diff_ids(&two), "{target}");
        assert_eq!(images[0].layers.config, two.config, "{target}");
    }
    let oci = read_archive(&root.join("two.oci.tar"), &place.store, &wanted).unwrap();
    assert_eq!(oci[0].layers.manifest_digest, two.manifest_digest);

    let blob = layout.join("blobs/sha256").join(two.layers[1].digest.unwrap().hex());
    std::fs::remove_file(blob).unwrap();
    let error = read_layout(&layout, Some("two"), &wanted).unwrap_err();
    assert!(error.to_string().contains("the layer `sha256:"), "{error}");
    assert!(error.to_string().ends_with("` is missing"), "{error}");
}
