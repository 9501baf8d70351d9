//! The scripts and the documents that go with them: what a user copies must be what the tests run.

use std::path::Path;
use std::process::Command;

use super::support::sandbox::Sandbox;

const TOP: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_readme_shows_the_example_script() {
    let readme = std::fs::read_to_string(Path::new(TOP).join("README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- configs/examples/one-gpu.sbatch -->\n```bash\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    let script = std::fs::read_to_string(Path::new(TOP).join("configs/examples/one-gpu.sbatch")).unwrap();
    assert_eq!(shown, script);
}

#[test]
fn the_documents_link_to_files_that_exist() {
    for document in ["README.md", "CHANGELOG.md", "tests/bench/README.md"] {
        let path = Path::new(TOP).join(document);
        let text = std::fs::read_to_string(&path).unwrap();
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap();
            let exists = target.contains("://") || path.parent().unwrap().join(target).exists();
            assert!(exists, "{document} links to `{target}`, which does not exist");
        }
    }
}

/// Runs bash with the functions of `scripts/lib.sh`.
fn lib(sandbox: &Sandbox, script: &str) -> String {
    let script = format!("set -euo pipefail\n. {TOP}/scripts/lib.sh\n{script}");
    let output =
        Command::new("bash").args(["-c", &script]).current_dir(sandbox.path("home")).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &stderr
}

#[test]
fn an_image_from_host_files_runs() {
    need!(userns, fuse, tool "ldd");
    let sandbox = Sandbox::new();
    lib(
        &sandbox,
        "put_programs base bash cat id
         put top /etc/os-release
         docker_archive image.tar a/b:1 '[\"cat\",\"/etc/os-release\"]' base top
         chmod 0644 image.tar; rm -r base top",
    );
    sandbox.slipway(["load", "-i", "image.tar"]).succeed();
    let host = std::fs::read_to_string("/etc/os-release").unwrap();
    assert_eq!(sandbox.slipway(["run", "a/b:1"]).succeed(), host);
    let uid = sandbox.slipway(["run", "a/b:1", "bash", "-c", "id -u; ! touch /x 2>/dev/null"]).succeed();
    assert_eq!(uid, format!("{}\n", sandbox.user.uid));
    sandbox.assert_nothing_left();
}

#[test]
fn other_readers_take_the_image_from_host_files() {
    need!(tool "ldd", tool "skopeo");
    let sandbox = Sandbox::new();
    lib(&sandbox, "put_programs base cat; docker_archive image.tar a/b:1 '[\"cat\"]' base");
    let text = lib(&sandbox, "skopeo inspect --config docker-archive:image.tar");
    assert!(text.contains("\"cat\""), "{text}");
    lib(&sandbox, "mkdir l && tar -C l -xf image.tar && skopeo inspect --config oci:l:1");
}

#[test]
fn what_is_missing_is_said_with_its_remedy() {
    let sandbox = Sandbox::new();
    let said = lib(
        &sandbox,
        "is_root() { false; }
         need_packages here=sh there=no-such-program-1 other=no-such-program-2 || echo missing",
    );
    assert!(said.starts_with("missing\nmissing on this machine: other there\n"), "{said}");
    let said = lib(&sandbox, "[ ! -e /no/such ] && (die 'it is so' 'do that') || true");
    assert_eq!(said, "error: it is so\n  hint: do that\n");
}
