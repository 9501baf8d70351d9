//! Conversion against `umoci`, `unsquashfs` and the kernel, and what broken layers do.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use slipway::base::{Digest, Hint as _};
use slipway::convert::{Event, Options, Report, convert, convert_with};
use slipway::image::Image;
use slipway::sif::{INSPECT_METADATA, OCI_CONFIG, Sif};
use slipway::squashfs::compress::Compressor;
use slipway::store::LayerSet;
use slipway::sys::file::ReadFile;

use crate::support::layers::{StoredLayer, Tar, config_of, gzip, layer_set, read_layout, write_layout};
use crate::support::tree::{self, Entry};

fn options() -> Options {
    Options { compressor: Compressor::Zstd(1), threads: 2, max_entries: 100_000, max_bytes: 1 << 40 }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {text}", arguments.join(" "));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a conversion adds where the image has nothing of that name.
pub(crate) const ADDED: [&str; 18] = [
    ".singularity.d",
    "singularity",
    ".run",
    ".exec",
    ".test",
    ".shell",
    "environment",
    "dev",
    "proc",
    "root",
    "var",
    "var/tmp",
    "tmp",
    "etc",
    "etc/hosts",
    "etc/resolv.conf",
    "sys",
    "home",
];

pub(crate) fn is_ours(path: &Path) -> bool {
    tree::is_below(path, ".singularity.d")
}

/// The tree of a converted image, without what was added to `original`.
fn without_added(root: &Path, original: &BTreeMap<PathBuf, Entry>) -> BTreeMap<PathBuf, Entry> {
    let mut found = tree::walk(root, &|path| !is_ours(path));
    found.retain(|path, _| original.contains_key(path) || !ADDED.iter().any(|name| Path::new(name) == path));
    found
}

/// Unpacks with `umoci`.
fn umoci_tree(layout: &Path, tag: &str, to: &Path) -> BTreeMap<PathBuf, Entry> {
    let image = format!("{}:{tag}", layout.display());
    run("umoci", &["unpack", "--rootless", "--image", &image, text(to)]);
    tree::walk(&to.join("rootfs"), &|path| !is_ours(path))
}

fn unsquashfs(sif: &Path, to: &Path) {
    let offset = Image::open(sif).unwrap().offset_bytes.to_string();
    run("unsquashfs", &["-quiet", "-no-progress", "-no-xattrs", "-o", &offset, "-d", text(to), text(sif)]);
}

/// Converts the image and compares its tree with what `umoci` unpacks.
fn assert_like_umoci(directory: &Path, layout: &Path, tag: &str) {
    let sif = directory.join("image.sif");
    convert(&read_layout(layout, tag), &sif, &options()).unwrap();
    let expected = umoci_tree(layout, tag, &directory.join("umoci"));
    let root = directory.join("unsquashed");
    unsquashfs(&sif, &root);
    tree::assert_equal(("slipway", &without_added(&root, &expected)), ("umoci", &expected));
}

/// An image that grows by umoci's own steps: files, links, deletions, an opaque directory.
fn build_with_umoci(directory: &Path) -> PathBuf {
    let layout = directory.join("layout");
    let image = format!("{}:latest", layout.display());
    run("umoci", &["init", "--layout", text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    let step = |number: u32, change: &dyn Fn(&Path)| {
        let bundle = directory.join(format!("bundle{number}"));
        run("umoci", &["unpack", "--rootless", "--image", &image, text(&bundle)]);
        change(&bundle.join("rootfs"));
        run("umoci", &["repack", "--image", &image, text(&bundle)]);
    };
    let write = |root: &Path, path: &str, mode: u32, data: &[u8]| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, data).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    step(1, &|root| {
        // unsquashfs restores such bits only as root.
        let setuid = if nix::unistd::geteuid().is_root() { 0o4000 } else { 0 };
        write(root, "usr/bin/tool", setuid | 0o755, &vec![7; 300_000]);
        write(root, "usr/lib/a", 0o644, b"a");
        write(root, "usr/lib/gone", 0o644, b"gone");
        write(root, "opt/old/x", 0o600, b"x");
        write(root, "data/big", 0o640, &(0..2_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        std::fs::hard_link(root.join("usr/lib/a"), root.join("usr/lib/b")).unwrap();
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
        std::os::unix::fs::symlink("/usr/bin/../nowhere", root.join("dangling")).unwrap();
    });
    step(2, &|root| {
        std::fs::remove_file(root.join("usr/lib/gone")).unwrap();
        std::fs::remove_dir_all(root.join("opt/old")).unwrap();
        write(root, "opt/old", 0o755, b"a file where a directory was");
        write(root, "usr/lib/a", 0o600, b"changed in both names");
        std::fs::remove_file(root.join("dangling")).unwrap();
        write(root, "dangling/now", 0o644, b"a directory where a link was");
    });
    step(3, &|root| {
        write(root, "usr/lib/gone", 0o644, b"back again");
        std::fs::set_permissions(root.join("usr/bin"), std::fs::Permissions::from_mode(0o711)).unwrap();
        write(root, "empty", 0o444, b"");
    });
    let insert = directory.join("insert");
    write(&insert, "only", 0o644, b"only this is left");
    run("umoci", &["insert", "--image", &image, "--opaque", text(&insert), "/data"]);
    run("umoci", &["insert", "--image", &image, "--whiteout", "/usr/lib/b"]);
    layout
}

#[test]
fn an_image_built_by_umoci() {
    need!(tool "umoci", tool "unsquashfs");
    let directory = tempfile::tempdir().unwrap();
    let layout = build_with_umoci(directory.path());
    assert_like_umoci(directory.path(), &layout, "latest");
}

#[test]
fn an_image_that_skopeo_recompressed() {
    need!(tool "umoci", tool "unsquashfs", tool "skopeo");
    let directory = tempfile::tempdir().unwrap();
    let gzip_layout = build_with_umoci(directory.path());
    let layout = directory.path().join("zstd");
    let (from, to) = (format!("oci:{}:latest", text(&gzip_layout)), format!("oci:{}:latest", text(&layout)));
    run("skopeo", &["copy", "--quiet", "--dest-compress-format", "zstd", &from, &to]);

    let sif = directory.path().join("zstd.sif");
    let layers = read_layout(&layout, "latest");
    convert(&layers, &sif, &options()).unwrap();
    let expected = umoci_tree(&gzip_layout, "latest", &directory.path().join("umoci"));
    let root = directory.path().join("unsquashed");
    unsquashfs(&sif, &root);
    tree::assert_equal(("slipway", &without_added(&root, &expected)), ("umoci", &expected));
}

/// Layers that no diffing tool writes: links across layers, marks before and behind what they hide.
fn tricky_layers() -> Vec<StoredLayer> {
    let base = Tar::new()
        .directory(".", 0o755)
        .directory("d", 0o750)
        .file("d/one", 0o644, b"hidden above, and needed by a link further down")
        .hard_link("d/one-again", "d/one")
        .file("d/two", 0o604, b"two")
        .directory("e", 0o755)
        .file("e/kept", 0o644, b"kept")
        .file("e/hidden", 0o644, b"hidden")
        .file("target", 0o640, b"linked from above")
        .directory("swap", 0o755)
        .file("swap/inner", 0o644, b"inner")
        .fifo("pipe")
        .finish();
    let middle = Tar::new()
        .hard_link("d/link", "target")
        .hard_link("d/again", "d/link")
        .file("e/.wh.hidden", 0o644, b"")
        .file("swap", 0o755, b"a file now")
        .symlink("l", "d")
        .finish();
    let top = Tar::new()
        .directory("d", 0o700)
        .file("d/new", 0o644, b"new")
        .file("d/.wh.one", 0o644, b"")
        .file(".wh.target", 0o644, b"")
        .directory("o", 0o755)
        .file("o/.wh..wh..opq", 0o644, b"")
        .file("o/x", 0o644, b"x")
        .finish();
    let under = Tar::new().directory("o", 0o711).file("o/y", 0o644, b"y").finish();
    vec![
        StoredLayer::new(&base, gzip),
        StoredLayer::new(&under, <[u8]>::to_vec),
        StoredLayer::new(&middle, gzip),
        StoredLayer::new(&top, gzip),
    ]
}

#[test]
fn links_and_marks_across_layers() {
    need!(tool "umoci", tool "unsquashfs");
    let directory = tempfile::tempdir().unwrap();
    let layers = tricky_layers();
    let layout = directory.path().join("layout");
    write_layout(&layout, &layers, &config_of(&layers, "{}"));
    assert_like_umoci(directory.path(), &layout, "latest");
    let root = directory.path().join("unsquashed");
    let found = tree::walk(&root, &|_| true);
    assert_eq!(found[Path::new("d/link")].first_name, Path::new("d/again"));
}

/// A loop mount that ends with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[text(&self.0)]);
    }
}

#[test]
fn the_kernel_sees_the_same_tree() {
    need!(root, loop, tool "umoci", tool "mount");
    let directory = tempfile::tempdir().unwrap();
    let layout = build_with_umoci(directory.path());
    let sif = directory.path().join("image.sif");
    convert(&read_layout(&layout, "latest"), &sif, &options()).unwrap();
    let expected = umoci_tree(&layout, "latest", &directory.path().join("umoci"));

    let point = directory.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    let how = format!("loop,ro,offset={}", Image::open(&sif).unwrap().offset_bytes);
    run("mount", &["-t", "squashfs", "-o", &how, text(&sif), text(&point)]);
    let mounted = Mounted(point);
    tree::assert_equal(("the kernel", &without_added(&mounted.0, &expected)), ("umoci", &expected));
}

fn small_image(directory: &Path, run: &str) -> LayerSet {
    let layers = tricky_layers();
    layer_set(directory, &layers, config_of(&layers, run))
}

fn convert_in(directory: &Path, layers: &LayerSet, threads: usize, name: &str) -> (Vec<u8>, Report) {
    let path = directory.join(name);
    let report = convert(layers, &path, &Options { threads, ..options() }).unwrap();
    (std::fs::read(path).unwrap(), report)
}

#[test]
fn the_same_image_gives_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let mut layers = small_image(directory.path(), "{}");
    let (first, report) = convert_in(directory.path(), &layers, 1, "a.sif");
    layers.name = "another/name:tag".into();
    let (second, _) = convert_in(directory.path(), &layers, 4, "b.sif");
    assert!(first == second);
    assert_eq!(report.sif_bytes, first.len() as u64);
    let tars: usize = layers.layers.len();
    assert!(report.tar_bytes >= 1024 * tars as u64 && report.tar_bytes % 512 == 0);
    assert!(report.entries > 0);
    let mode = std::fs::metadata(directory.path().join("a.sif")).unwrap().permissions().mode();
    assert_eq!(mode & 0o700, 0o700);
}

#[test]
fn the_sif_holds_its_documents() {
    let directory = tempfile::tempdir().unwrap();
    let config = r#"{"Entrypoint":["/bin/x"],"Env":["A=b"],"Labels":{"l":"m"},"Unknown":1.50}"#;
    let layers = small_image(directory.path(), config);
    let (bytes, _) = convert_in(directory.path(), &layers, 2, "a.sif");
    let path = directory.path().join("a.sif");
    let image = Image::open(&path).unwrap();
    assert_eq!(image.raw_config(), Some(layers.config.as_slice()));
    assert_eq!(image.config.config.entrypoint, ["/bin/x"]);
    assert_eq!(image.architecture.as_deref(), Some("amd64"));

    let sif = Sif::read(&ReadFile::new(std::fs::File::open(&path).unwrap()).unwrap()).unwrap();
    assert_eq!(sif.header.created, 1_706_933_106);
    assert!(sif.objects.iter().all(|object| object.group == Some(1) && object.created == 1_706_933_106));
    let data = |name: &str| {
        let object = sif.find_json(name).unwrap();
        let start = usize::try_from(object.offset_bytes).unwrap();
        &bytes[start..start + usize::try_from(object.size_bytes).unwrap()]
    };
    assert_eq!(data(OCI_CONFIG), config.as_bytes());
    let inspect: serde_json::Value = serde_json::from_slice(data(INSPECT_METADATA)).unwrap();
    let attributes = &inspect["data"]["attributes"];
    assert_eq!(attributes["labels"]["l"], "m");
    assert_eq!(attributes["deffile"], format!("bootstrap: docker\nfrom: {}\n", layers.manifest_digest));
}

#[test]
fn events_tell_of_every_layer_from_the_last_to_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let layers = small_image(directory.path(), "{}");
    let mut lines = Vec::new();
    convert_with(&layers, &directory.path().join("a.sif"), &options(), &mut |event| match event {
        Event::LayerStarted { index, count, size_bytes, .. } => {
            assert_eq!(size_bytes, layers.layers[index].size_bytes);
            lines.push(format!("start {index} of {count}"));
        }
        Event::LayerProgress { index, done_bytes } => assert!(done_bytes <= layers.layers[index].size_bytes),
        Event::LayerDone { index } => lines.push(format!("done {index}")),
        Event::Finished => lines.push("finished".into()),
    })
    .unwrap();
    let expected = "start 3 of 4,done 3,start 2 of 4,done 2,start 1 of 4,done 1,start 0 of 4,done 0,finished";
    assert_eq!(lines.join(","), expected);
}

/// Converts layers of which something is wrong; the error's text with digests shortened, and its hint.
fn failure(layers: &[StoredLayer], edit: impl Fn(&mut LayerSet)) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut set = layer_set(directory.path(), layers, config_of(layers, "{}"));
    edit(&mut set);
    let target = directory.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let error = convert(&set, &target.join("a.sif"), &options()).unwrap_err();
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0, "a file is left");
    assert!(error.hint().is_none_or(|hint| !hint.ends_with('.')));
    let mut text = error.to_string();
    for (layer, name) in layers.iter().zip(["A", "B", "C", "D"]) {
        for digest in layer.digest.iter().chain([&layer.diff_id]) {
            text = text.replace(&digest.to_string(), name);
        }
    }
    text
}

fn two_layers() -> Vec<StoredLayer> {
    let noise: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let base = Tar::new().file("noise", 0o644, &noise).finish();
    let top = Tar::new().file("x", 0o644, b"x").finish();
    vec![StoredLayer::new(&base, gzip), StoredLayer::new(&top, gzip)]
}

#[test]
fn broken_layers_are_named_and_leave_nothing() {
    let check = |edit: &dyn Fn(&mut Vec<StoredLayer>), expected: &str| {
        let mut layers = two_layers();
        edit(&mut layers);
        let found = failure(&layers, |_| {});
        assert!(found.starts_with(expected), "{found}\ninstead of\n{expected}");
    };
    let flip = |layers: &mut Vec<StoredLayer>| layers[0].bytes[400_000] ^= 4;
    let cut = |layers: &mut Vec<StoredLayer>| layers[0].bytes.truncate(500_000);
    let forget = |layers: &mut Vec<StoredLayer>| layers[0].digest = None;

    check(&flip, "layer 1 of 2 (`A`): content does not match its digest, it has `sha256:");
    check(&cut, "layer 1 of 2 (`A`): content does not match its digest, it has `sha256:");
    // Without a promised digest, the compression itself or the diff id must tell.
    check(
        &|layers| {
            cut(layers);
            forget(layers);
        },
        "layer 1 of 2 (`A`): the gzip data is broken: ",
    );
    check(
        &|layers| {
            forget(layers);
            layers[0].bytes = Tar::new().file("noise", 0o644, b"other").finish();
        },
        "layer 1 of 2 (`A`): uncompressed content is `sha256:",
    );
    check(
        &|layers| {
            let last = layers[0].bytes.len() - 1;
            layers[0].bytes[last] ^= 1;
            layers[0].digest = Some(Digest::of(&layers[0].bytes));
        },
        "layer 1 of 2 (`A`): the gzip data is broken: ",
    );
    check(
        &|layers| layers[1].diff_id = Digest::of(b""),
        &format!("layer 2 of 2 (`B`): uncompressed content is `{}`, but the image", two_layers()[1].diff_id),
    );
    let zstd = |layers: &mut Vec<StoredLayer>, change: &dyn Fn(&mut Vec<u8>)| {
        let tar = Tar::new().file("y", 0o644, vec![1; 100_000]).finish();
        layers[0] = StoredLayer::new(&tar, |tar| zstd::encode_all(tar, 1).unwrap());
        change(&mut layers[0].bytes);
        layers[0].digest = Some(Digest::of(&layers[0].bytes));
    };
    check(
        &|layers| zstd(layers, &|bytes| bytes.truncate(40)),
        "layer 1 of 2 (`A`): the zstd data is broken: ",
    );
    check(
        &|layers| {
            layers[0] = StoredLayer::new(b"", |_| b"\xfd7zXZ\0 and so on".to_vec());
        },
        "layer 1 of 2 (`A`) is compressed with xz, only gzip and zstd are supported",
    );
    let bomb = |tar: &[u8]| {
        let zeros = zstd::encode_all([0; 1 << 20].as_slice(), 1).unwrap();
        [zstd::encode_all(tar, 1).unwrap(), zeros.repeat(1025)].concat()
    };
    check(
        &|layers| layers[0] = StoredLayer::new(&Tar::new().file("y", 0o644, b"y").finish(), bomb),
        "layer 1 of 2 (`A`): more than 1073741824 bytes stand behind the end of the tar",
    );
    let not_a_tar = [b'x'; 4096];
    check(&|layers| layers[0] = StoredLayer::new(&not_a_tar, gzip), "layer 1 of 2 (`A`): ");
}

#[test]
fn a_layer_that_does_not_fit_is_named() {
    let mut layers = two_layers();
    layers[1] = StoredLayer::new(&Tar::new().hard_link("x", "none").finish(), gzip);
    assert_eq!(
        failure(&layers, |_| {}),
        "hard link `x` of layer 0 from the top: neither it nor a layer below has `none`; \
         layer 0 from the top is layer 2 of 2 (`B`)"
    );
}

#[test]
fn too_many_entries_end_the_conversion_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let many = (0..50).fold(Tar::new(), |tar, number| tar.directory(&format!("d{number}"), 0o755));
    let layers = [StoredLayer::new(&many.finish(), gzip)];
    let set = layer_set(directory.path(), &layers, config_of(&layers, "{}"));
    let options = Options { max_entries: 10, ..options() };
    let error = convert(&set, &directory.path().join("a.sif"), &options).unwrap_err();
    assert!(error.to_string().starts_with("the image has more than 10 entries"), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn a_full_disk_is_told_and_left_as_it_was() {
    need!(root, tool "mount");
    let directory = tempfile::tempdir().unwrap();
    let point = directory.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=300k", "tmpfs", text(&point)]);
    let mounted = Mounted(point);
    let layers = two_layers();
    let set = layer_set(directory.path(), &layers, config_of(&layers, "{}"));
    let target = mounted.0.join("a.sif");
    let error = convert(&set, &target, &options()).unwrap_err();
    let expected = format!("converting to `{}`: writing the squashfs: ", target.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(error.hint().unwrap().contains("space"));
    assert_eq!(std::fs::read_dir(&mounted.0).unwrap().count(), 0);
}

#[test]
fn a_layer_set_that_cannot_be() {
    let layers = two_layers();
    assert_eq!(
        failure(&layers, |set| drop(set.layers.pop())),
        "the image config names 2 layers, but the image has 1"
    );
    let text = failure(&layers, |set| set.layers[1].size_bytes += 10);
    assert!(text.starts_with("layer 2 of 2 (`B`): file is cut short: have "), "{text}");
    assert!(
        failure(&layers, |set| set.config = b"{".to_vec()).starts_with("the image config is not valid: ")
    );
}

#[test]
fn a_target_that_cannot_be_made() {
    let directory = tempfile::tempdir().unwrap();
    let layers = small_image(directory.path(), "{}");
    let error = convert(&layers, &directory.path().join("none/a.sif"), &options()).unwrap_err();
    assert!(error.to_string().starts_with("cannot make `"), "{error}");
    assert_eq!(error.hint().as_deref(), Some("make the directory first"));
}

/// Both digests cover what stands behind the end of the tar; empty and repeated layers are layers.
#[test]
fn odd_but_good_layers() {
    let directory = tempfile::tempdir().unwrap();
    let padded = [Tar::new().file("x", 0o644, b"x").finish(), vec![0; 3 << 20], b"junk".to_vec()].concat();
    let members = |tar: &[u8]| [gzip(&tar[..700]), gzip(&tar[700..]), vec![0; 512]].concat();
    let layers = [
        StoredLayer::new(b"", <[u8]>::to_vec),
        StoredLayer::new(b"", gzip),
        StoredLayer::new(&padded, members),
        StoredLayer::new(&padded, members),
        StoredLayer::new(&Tar::new().finish(), gzip),
    ];
    let mut set = layer_set(directory.path(), &layers, config_of(&layers, "null"));
    set.layers[2].digest = None;
    let path = directory.path().join("a.sif");
    let report = convert(&set, &path, &options()).unwrap();
    assert_eq!(report.tar_bytes, 2 * padded.len() as u64 + 1024);
    assert!(Image::open(&path).unwrap().config.config.cmd.is_empty());
}

#[test]
fn shells_run_the_scripts_as_they_should() {
    need!(tool "unsquashfs");
    let directory = tempfile::tempdir().unwrap();
    let config = r#"{"Entrypoint":["printf","[%s]"],"Cmd":["it's","$HOME","a  b"],
        "Env":["PATH=/usr/bin:/bin","GREETING=it's $HOME `x`","TERM=image","BAD-NAME=x"]}"#;
    convert_in(directory.path(), &small_image(directory.path(), config), 2, "a.sif");
    let root = directory.path().join("root");
    unsquashfs(&directory.path().join("a.sif"), &root);
    let own = root.join(".singularity.d");
    let shells =
        ["sh", "dash", "bash", "busybox"].into_iter().filter(|shell| crate::support::need::has_tool(shell));
    for shell in shells {
        let output = |script: &Path, arguments: &[&str], variables: &[(&str, &str)]| {
            let mut command = Command::new(shell);
            if shell == "busybox" {
                command.arg("sh");
            }
            command.arg(script).args(arguments).env("HOME", "/h").envs(variables.iter().copied());
            let output = command.output().unwrap();
            assert!(output.stderr.is_empty(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let runscript = own.join("runscript");
        let exact = [("SINGULARITY_NO_EVAL", "1")];
        assert_eq!(output(&runscript, &[], &[]), "[it's][$HOME][a  b]", "{shell}");
        assert_eq!(output(&runscript, &[], &exact), "[it's][$HOME][a  b]", "{shell}");
        assert_eq!(output(&runscript, &["$HOME", "-x y"], &[]), "[/h][-x y]", "{shell}");
        assert_eq!(output(&runscript, &["$HOME", "-x y"], &exact), "[$HOME][-x y]", "{shell}");

        let probe = directory.path().join("probe");
        let image_env = own.join("env/10-docker2singularity.sh");
        std::fs::write(
            &probe,
            format!(". {}\nprintf '%s|%s|%s' \"$PATH\" \"$GREETING\" \"$TERM\"", text(&image_env)),
        )
        .unwrap();
        let host = [("PATH", "/opt:/usr/bin:/bin"), ("TERM", "host")];
        assert_eq!(output(&probe, &[], &host), "/usr/bin:/bin|it's $HOME `x`|host", "{shell}");
    }
}
