//! CUDA's compatibility libraries of an image, on the real launch path: which libcuda a program gets, and why.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::gpu_cli::{home, sif_of, slipway, stderr, stdout};
use crate::support::host::Host;
use crate::support::tiny_elf::{shared_library, with_note};

const COMPAT: &str = "/usr/local/cuda-13.1/compat";
const HOSTS: &str = "/.slipway/run/lib";

/// An image whose `/usr/local/cuda` is an absolute link, as NVIDIA's alternatives make it.
fn image(home: &Path, versions: &[&str], note: Option<&str>) -> PathBuf {
    let root = home.join("root");
    let compat = root.join(COMPAT.trim_start_matches('/'));
    fs::create_dir_all(&compat).unwrap();
    fs::create_dir_all(root.join("etc/alternatives")).unwrap();
    symlink("/etc/alternatives/cuda", root.join("usr/local/cuda")).unwrap();
    symlink("/usr/local/cuda-13.1", root.join("etc/alternatives/cuda")).unwrap();
    for version in versions {
        let library = shared_library("libcuda.so.1", &[]);
        let library = match note {
            Some(text) => with_note(library, ".note.cuda.fwd_compatibility", "NVIDIA Corporation", text),
            None => library,
        };
        fs::write(compat.join(format!("libcuda.so.{version}")), library).unwrap();
    }
    let jit = "libnvidia-ptxjitcompiler.so.1";
    fs::write(compat.join(jit), shared_library(jit, &[])).unwrap();
    sif_of(&["/bin/sh", "/bin/true"], home)
}

/// The directory of the libcuda that the real loader takes inside, and the note of `--explain` on it.
fn winner(host: &Host, home: &Path, sif: &Path, env: &[(&str, &str)], flags: &[&str]) -> (String, String) {
    let run = |flags: &[&str], command: &[&str]| {
        let args = [&["run"], flags, &[sif.to_str().unwrap()], command].concat();
        let output = slipway(host, home, &args)
            .envs(env.iter().copied())
            .env("SLIPWAY_LAUNCH_LINGER", "0")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        (stdout(&output), stderr(&output))
    };
    let script = "LD_DEBUG=libs LD_PRELOAD='libcuda.so.1 libnvidia-ptxjitcompiler.so.1' /bin/true";
    let (_, loader) = run(flags, &["/bin/sh", "-c", script]);
    let directories: Vec<&str> = loader
        .lines()
        .filter_map(|line| line.split("calling init: ").nth(1))
        .filter_map(|path| path.rsplit_once('/'))
        .filter(|(_, name)| name.starts_with("libcuda.") || name.starts_with("libnvidia-ptxjitcompiler."))
        .map(|(directory, _)| directory)
        .collect();
    let [first, second] = directories[..] else { panic!("{loader}") };
    assert_eq!(first, second, "both libraries are of one driver");
    let (told, _) = run(&[flags, &["--explain"]].concat(), &["/bin/true"]);
    let note = told.lines().find(|line| line.contains("ompatibility libraries")).unwrap_or(&told);
    (first.to_owned(), note.trim().to_owned())
}

#[test]
fn newer_libraries_of_the_image_win() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("forward-compat"), home());
    let sif = image(home.path(), &["590.44.01"], None);
    let check = |env: &[(&str, &str)], flags: &[&str], directory: &str, expected: &str| {
        let (found, note) = winner(&host, home.path(), &sif, env, flags);
        assert_eq!(found, directory, "{note}");
        assert!(note.ends_with(expected), "{note}");
    };
    check(
        &[],
        &[],
        COMPAT,
        "CUDA's compatibility libraries 590.44.01 of the image (`/usr/local/cuda-13.1/compat`) go before the host's: they \
         are newer than the host's driver, 550.54.15",
    );
    let off = "CUDA's compatibility libraries of the image are not used: they are off";
    check(&[("SLIPWAY_GPU_FORWARD_COMPAT", "off")], &[], HOSTS, off);
    check(&[], &["-e", "NVIDIA_DISABLE_CUDA_COMPAT=1"], HOSTS, off);
    check(&[("SLIPWAY_GPU_FORWARD_COMPAT", "always")], &[], COMPAT, "gpu.forward_compat is \"always\"");
}

#[test]
fn the_note_decides_where_there_is_one() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let host = Host::build("forward-compat");
    let check = |versions: &[&str], note: Option<&str>, directory: &str, expected: &str| {
        let home = home();
        let sif = image(home.path(), versions, note);
        let (found, told) = winner(&host, home.path(), &sif, &[], &[]);
        assert_eq!(found, directory, "{told}");
        assert!(told.ends_with(expected), "{told}");
    };
    let note = |cuda: &str, drivers: &str| {
        format!(r#"{{"Format": 1, "CUDA Version": "{cuda}", "Driver": [{drivers}], "Device": [7, 8, 9]}}"#)
    };
    check(
        &["590.44.01"],
        Some(&note("13.1", "535, 550, 580")),
        COMPAT,
        "they bring CUDA 13.1 to driver 550.54.15, which has 12.4",
    );
    // By its number alone it would be taken.
    check(
        &["590.44.01"],
        Some(&note("13.1", "570, 580")),
        HOSTS,
        "are not used: they are made for the drivers 570, 580, and the host's is 550.54.15",
    );
    check(&["535.1.2"], None, HOSTS, "are not used: 535.1.2 is not newer than the host's driver, 550.54.15");
    check(
        &["590.44.01", "580.1.1"],
        None,
        HOSTS,
        "are not used: there is more than one libcuda in it (580.1.1, 590.44.01)",
    );
}

#[test]
fn an_image_without_them_gets_the_hosts() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("forward-compat"), home());
    let sif = sif_of(&["/bin/sh", "/bin/true"], home.path());
    let (found, note) = winner(&host, home.path(), &sif, &[], &[]);
    assert_eq!(found, HOSTS);
    assert!(
        note.ends_with("the image has no CUDA compatibility libraries in `/usr/local/cuda/compat`"),
        "{note}"
    );
}

/// musl's loader has no cache, and looks where the variable says.
#[test]
fn the_loader_of_musl_finds_them_by_the_variable() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar", tool "ld-musl-config");
    let (host, home) = (Host::build("forward-compat"), home());
    let loader = format!("/lib/ld-musl-{}.so.1", std::env::consts::ARCH);
    let root = home.path().join("root");
    fs::create_dir_all(root.join("lib")).unwrap();
    fs::copy(&loader, root.join(loader.trim_start_matches('/'))).unwrap();
    fs::create_dir_all(root.join("opt")).unwrap();
    fs::write(root.join("opt/any.so"), shared_library("any.so", &[])).unwrap();
    let compat = root.join("usr/local/cuda/compat");
    fs::create_dir_all(&compat).unwrap();
    let libcuda = shared_library("libcuda.so.1", &[]);
    fs::write(compat.join("libcuda.so.590.44.01"), &libcuda).unwrap();
    symlink("libcuda.so.590.44.01", compat.join("libcuda.so.1")).unwrap();
    let sif = sif_of(&["/bin/busybox"], home.path());
    let run = |value: &str| {
        let script = format!(
            "echo $LD_LIBRARY_PATH; LD_PRELOAD='libcuda.so.1 libnvidia-opencl.so.1' {loader} --list /opt/any.so; \
             ls /etc/ld.so.cache 2>/dev/null; true"
        );
        let args = ["run", sif.to_str().unwrap(), "/bin/busybox", "sh", "-c", &script];
        let output = slipway(&host, home.path(), &args)
            .env("SLIPWAY_LAUNCH_LINGER", "0")
            .env("SLIPWAY_GPU_FORWARD_COMPAT", value)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let check = |value: &str, library_path: &str, cuda: &str| {
        let out = run(value);
        assert_eq!(out.lines().next(), Some(library_path), "{out}");
        assert!(out.contains(&format!("libcuda.so.1 => {cuda}/libcuda.so.1 ")), "{out}");
        assert!(out.contains(&format!("libnvidia-opencl.so.1 => {HOSTS}/libnvidia-opencl.so.1 ")), "{out}");
        assert!(!out.contains("ld.so.cache"), "an image without glibc gets no cache: {out}");
    };
    check("auto", &format!("/usr/local/cuda/compat:{HOSTS}"), "/usr/local/cuda/compat");
    check("off", HOSTS, HOSTS);
}
