//! Which files, nodes, sockets and variables of NVIDIA's driver come into a container, and which do not.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Output;

use slipway::elf::versions::GlibcVersion;
use slipway::gpu::{
    self, GpuRequest, Hints, ImageLibc, ImageOffer, granted, read_access, read_inventory, select,
};
use slipway::grants::{Grants, JobGpus};

use crate::gpu_cli::{convert, home, slipway, stderr, stdout};
use crate::support::driver_files::{Versions, library_64};
use crate::support::host::Host;
use crate::support::image::{Shape, TestImage, pack};
use crate::support::layers::Tar;

fn l40s() -> Host {
    let host = Host::build("l40s");
    host.add_graphics();
    host
}

fn offer(minor: u32, has_loader_32: bool) -> ImageOffer {
    ImageOffer { glibc: Some(GlibcVersion { major: 2, minor }), has_loader_32 }
}

fn try_grants(host: &Host, request: &str, offer: &ImageOffer) -> Result<Grants, gpu::GpuError> {
    let root = host.root();
    let mut inventory = read_inventory(&root, &Hints::default());
    let owned = granted(&inventory, &JobGpus::default(), &read_access(&root, &inventory));
    let mut chosen = select(&inventory, &owned, &GpuRequest::parse(request)?)?;
    gpu::fit_to_image(&mut inventory, &mut chosen, offer)?;
    Ok(gpu::grants(&inventory, &chosen, &ImageLibc::Glibc { loader_cache: None }, &root))
}

fn grants(host: &Host, request: &str) -> Grants {
    try_grants(host, request, &offer(40, true)).unwrap()
}

/// The stems of libraries, without what says the version.
fn libraries(grants: &Grants) -> Vec<&str> {
    grants.libraries.iter().map(|library| library.name.split(".so").next().unwrap()).collect()
}

fn nodes(grants: &Grants) -> Vec<&str> {
    grants.nodes.iter().map(|node| node.target.to_str().unwrap()).collect()
}

fn binds(grants: &Grants) -> Vec<&str> {
    grants.binds.iter().map(|bind| bind.target.to_str().unwrap()).collect()
}

fn variable<'a>(grants: &'a Grants, name: &str) -> Option<&'a str> {
    grants.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[track_caller]
fn has_note(grants: &Grants, note: &str) {
    assert!(grants.notes.iter().any(|one| one.contains(note)), "{note}\n{:#?}", grants.notes);
}

const COMPUTE: [&str; 9] = [
    "libcuda",
    "libcudadebugger",
    "libnvidia-allocator",
    "libnvidia-gpucomp",
    "libnvidia-nvvm",
    "libnvidia-nvvm70",
    "libnvidia-opencl",
    "libnvidia-ptxjitcompiler",
    "/etc/OpenCL/vendors/nvidia.icd",
];

#[test]
fn each_capability_brings_its_own_files_and_nodes() {
    let host = l40s();
    let check = |words: &str, expected: &[&str], expected_nodes: &[&str]| {
        let found = grants(&host, &format!("all,capabilities={words}"));
        let mut all = libraries(&found);
        all.sort_unstable();
        all.dedup();
        all.extend(binds(&found));
        let mut expected = expected.to_vec();
        expected.sort_unstable_by_key(|name| (name.starts_with('/'), *name));
        let mut sorted = all.clone();
        sorted.sort_unstable_by_key(|name| (name.starts_with('/'), *name));
        assert_eq!(sorted, expected, "{words}");
        assert_eq!(nodes(&found)[2..], *expected_nodes, "{words}");
    };
    let uvm = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"];
    let drawing = [
        "/dev/nvidiactl",
        "/dev/nvidia-modeset",
        "/dev/dri/card1",
        "/dev/dri/renderD129",
        "/dev/dri/card2",
        "/dev/dri/renderD130",
    ];
    check("utility", &["libnvidia-cfg", "libnvidia-ml", "/usr/bin/nvidia-smi"], &uvm[..1]);
    let mps = ["/usr/bin/nvidia-cuda-mps-control", "/usr/bin/nvidia-imex-ctl"];
    check("compute", &[&COMPUTE[..], &mps].concat(), &uvm);
    let video = ["libnvcuvid", "libnvidia-encode", "libvdpau_nvidia"];
    check("video", &[&COMPUTE[..], &mps, &video].concat(), &uvm);
    check("ngx", &["libnvidia-ngx"], &uvm[..1]);
    let graphics = [
        "libEGL_nvidia",
        "libGLX_nvidia",
        "libnvidia-allocator",
        "libnvidia-egl-gbm",
        "libnvidia-glcore",
        "libnvidia-gpucomp",
        "libnvoptix",
        "/etc/vulkan/icd.d/nvidia_icd.json",
        "/etc/vulkan/implicit_layer.d/nvidia_layers.json",
        "/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
        "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
        "/usr/share/nvidia/nvoptix.bin",
    ];
    check("graphics", &graphics, &drawing);
    let screens = ["/usr/share/X11/xorg.conf.d/10-nvidia.conf"];
    check("display", &[&graphics[..], &screens].concat(), &drawing);
    let all = grants(&host, "all,capabilities=all");
    for dispatch in ["libGL", "libEGL", "libOpenCL"] {
        assert!(!libraries(&all).contains(&dispatch), "{dispatch} is the image's");
    }
    let less = grants(&host, "all,capabilities=utility");
    for note in [
        "compute libraries of `",
        "graphics libraries of `",
        "/dev/nvidia-uvm is not inside: compute alone needs it, and is not asked for",
        "/dev/nvidia-modeset is not inside: graphics and display alone need it, and are not asked for",
        "`/usr/bin/nvidia-cuda-mps-control` is not inside: it is for compute",
        "files of the driver that are not inside, by capability: /etc/OpenCL/vendors/nvidia.icd (compute)",
    ] {
        has_note(&less, note);
    }
}

#[test]
fn names_that_programs_ask_for_lead_to_the_newest_library() {
    let host = l40s();
    let all = grants(&host, "all,capabilities=all");
    let links = |name: &str| {
        let found = all.libraries.iter().find(|library| library.name == name);
        found.unwrap_or_else(|| panic!("{name}")).links.join(" ")
    };
    assert_eq!(links("libnvidia-egl-gbm.so.1.1.10"), "libnvidia-egl-gbm.so.1");
    assert_eq!(links("libnvidia-egl-gbm.so.1.1.9"), "");
    assert_eq!(links("libGLX_nvidia.so.580.95.05"), "libGLX_nvidia.so.0 libGLX_indirect.so.0");
    assert_eq!(links("libnvidia-allocator.so.580.95.05"), "libnvidia-allocator.so.1 gbm/nvidia-drm_gbm.so");
    assert_eq!(links("libvdpau_nvidia.so.580.95.05"), "libvdpau_nvidia.so.1 libvdpau_nvidia.so");
    let arch = std::env::consts::ARCH;
    let backends = format!("/.slipway/run/lib/gbm:/usr/lib/{arch}-linux-gnu/gbm:/usr/lib64/gbm");
    assert_eq!(variable(&all, "GBM_BACKENDS_PATH"), Some(backends.as_str()));
}

#[test]
fn libraries_of_32_bits_come_if_asked_for_and_if_the_image_can_load_them() {
    if std::env::consts::ARCH != "x86_64" {
        println!("skipped: only x86 has programs of 32 bits");
        return;
    }
    let host = l40s();
    let of_32 = |grants: &Grants| -> Vec<String> {
        let names = grants.libraries.iter().map(|library| library.name.clone());
        names.filter(|name| name.starts_with("32/")).collect()
    };
    let with = grants(&host, "all,capabilities=compute,compat32");
    assert_eq!(of_32(&with), ["32/libcuda.so.580.95.05"]);
    let cache = with.files.iter().find(|file| file.target == Path::new("/etc/ld.so.cache")).unwrap();
    let entries = slipway::elf::cache::Cache::parse(&cache.content).unwrap().entries;
    let mut found: Vec<(u32, String)> = entries
        .iter()
        .filter(|entry| entry.soname == b"libcuda.so.1")
        .map(|entry| (entry.flags, String::from_utf8_lossy(&entry.path).into_owned()))
        .collect();
    found.sort();
    let expected = [
        (0x3, "/.slipway/run/lib/32/libcuda.so.1".to_owned()),
        (0x303, "/.slipway/run/lib/libcuda.so.1".to_owned()),
    ];
    assert_eq!(found, expected);
    assert_eq!(of_32(&grants(&host, "all,capabilities=compute")), Vec::<String>::new());
    let without = try_grants(&host, "all,capabilities=compute,compat32", &offer(40, false)).unwrap();
    assert_eq!(of_32(&without), Vec::<String>::new());
    has_note(
        &without,
        "32-bit libraries are not inside: the image has no loader for them (/lib/ld-linux.so.2)",
    );
}

#[test]
fn dri_nodes_follow_the_granted_gpus_addresses() {
    let host = l40s();
    let one = grants(&host, "device=1,capabilities=graphics");
    let expected =
        ["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-modeset", "/dev/dri/card2", "/dev/dri/renderD130"];
    assert_eq!(nodes(&one), expected);
    let links: Vec<_> =
        one.links.iter().map(|(at, to)| (at.to_str().unwrap(), to.to_str().unwrap())).collect();
    let by_path = "/dev/dri/by-path/pci-0000:81:00.0";
    let (card, render) = (format!("{by_path}-card"), format!("{by_path}-render"));
    assert_eq!(links, [(card.as_str(), "../card2"), (render.as_str(), "../renderD130")]);
    let profile = one.files.iter().find(|file| file.target.ends_with("10-container.conf")).unwrap();
    let profile: serde_json::Value = serde_json::from_slice(&profile.content).unwrap();
    assert_eq!(profile["profiles"][0]["settings"], serde_json::json!(["EGLVisibleDGPUDevices", 1]));

    host.add_node("dev/dri/renderD130", 0);
    let unprivileged = !nix::unistd::geteuid().is_root();
    if unprivileged {
        let one = grants(&host, "device=1,capabilities=graphics");
        has_note(
            &one,
            "/dev/dri/renderD130 of GPU 1 is not inside: mode or group of its node deny it (EACCES)",
        );
    }
}

#[test]
fn a_part_of_the_gpus_sees_no_more_of_procfs() {
    let host = l40s();
    let one = grants(&host, "device=1");
    assert_eq!(one.hidden, [PathBuf::from("/proc/driver/nvidia/gpus")]);
    assert!(binds(&one).contains(&"/proc/driver/nvidia/gpus/0000:81:00.0"), "{:?}", binds(&one));
    let parameters = one.files.iter().find(|file| file.target.ends_with("params")).unwrap();
    assert_eq!(parameters.content, b"ModifyDeviceFiles: 0\nDeviceFileMode: 438\n");
    let all = grants(&host, "all");
    assert!(all.hidden.is_empty() && all.files.iter().all(|file| !file.target.ends_with("params")));
    has_note(&all, "`/proc/driver/nvidia` is the host's: all GPUs of the node are inside");
}

#[test]
fn sockets_are_those_of_now_and_not_of_the_kept_facts() {
    let host = Host::build("l40s");
    let hints = Hints { cache_file: Some(host.path("gpu.json")), ..Hints::default() };
    let sockets = || read_inventory(&host.root(), &hints).files.sockets;
    assert_eq!(sockets(), Vec::<PathBuf>::new());
    fs::create_dir_all(host.path("run/nvidia-persistenced")).unwrap();
    let listener = UnixListener::bind(host.path("run/nvidia-persistenced/socket")).unwrap();
    assert_eq!(sockets(), [PathBuf::from("/run/nvidia-persistenced/socket")]);
    assert!(binds(&grants(&host, "all")).contains(&"/run/nvidia-persistenced/socket"));
    assert!(!binds(&grants(&host, "all,capabilities=compute")).contains(&"/run/nvidia-persistenced/socket"));
    drop(listener);
}

#[test]
fn mps_is_the_users_the_jobs_or_alive() {
    let host = Host::build("l40s");
    let grant = |asked: Option<&str>| {
        let mut grants = Grants::default();
        gpu::grant_mps(&mut grants, asked, &host.root());
        grants
    };
    assert_eq!(grant(None), Grants::default());
    host.write("tmp/nvidia-mps/nvidia-cuda-mps-control.pid", "77\n");
    let stale = grant(None);
    assert!(stale.binds.is_empty() && stale.env.is_empty());
    let words = "MPS is not inside: `/tmp/nvidia-mps` was left behind: its daemon, process 77, has ended";
    assert_eq!(stale.notes, [words]);
    host.write("proc/77/comm", "vim\n");
    assert_eq!(grant(None), stale);
    host.write("proc/77/comm", "nvidia-cuda-mps\n");
    let alive = grant(None);
    assert_eq!(binds(&alive), ["/tmp/nvidia-mps"]);
    assert_eq!(variable(&alive, "CUDA_MPS_PIPE_DIRECTORY"), Some("/tmp/nvidia-mps"));
    host.write("tmp/mps-9/control", "");
    let own = grant(Some("/tmp/mps-9"));
    assert_eq!(
        (binds(&own), variable(&own, "CUDA_MPS_PIPE_DIRECTORY")),
        (vec!["/tmp/mps-9"], Some("/tmp/mps-9"))
    );
    assert_eq!(own.notes, ["`/tmp/mps-9` is inside: CUDA_MPS_PIPE_DIRECTORY=/tmp/mps-9"]);
    let none = grant(Some("/dev/null"));
    assert_eq!(none.notes, ["MPS is not inside: CUDA_MPS_PIPE_DIRECTORY=/dev/null is no directory"]);
}

#[test]
fn rdma_comes_with_gpus_as_far_as_it_may_be_opened() {
    let host = Host::build("l40s");
    let grant = || {
        let mut grants = Grants::default();
        gpu::grant_rdma(&mut grants, &host.root());
        grants
    };
    assert_eq!(grant(), Grants::default());
    host.add_rdma();
    host.write("etc/cufile.json", "{}");
    fs::create_dir_all(host.path("run/udev")).unwrap();
    // Root may open all; the test for others is on the real launch path.
    fs::remove_file(host.path("dev/infiniband/uverbs1")).unwrap();
    let found = grant();
    let expected = [
        "/dev/gdrdrv",
        "/dev/infiniband/rdma_cm",
        "/dev/infiniband/uverbs0",
        "/dev/nvidia-fs0",
        "/dev/nvidia-fs1",
    ];
    assert_eq!(
        (&nodes(&found)[..], &binds(&found)[..]),
        (&expected[..], &["/run/udev", "/etc/cufile.json"][..])
    );
    has_note(&found, "/dev/gdrdrv is inside: GDRCopy");

    let channels = |asked: Option<&str>| {
        let mut grants = Grants::default();
        gpu::grant_channels(&mut grants, asked, &host.root()).map(|()| grants)
    };
    fs::remove_file(host.path("dev/nvidia-caps-imex-channels/channel4")).unwrap();
    for asked in [None, Some(""), Some("all"), Some("3")] {
        let found = channels(asked).unwrap();
        assert_eq!(nodes(&found), ["/dev/nvidia-caps-imex-channels/channel3"], "{asked:?}");
    }
    let check = |asked: &str, expected: &str| {
        assert_eq!(channels(Some(asked)).unwrap_err().to_string(), expected);
    };
    check("3,9", "NVIDIA_IMEX_CHANNELS=3,9: channel `9` cannot be given: it has no device node");
    check("x", "NVIDIA_IMEX_CHANNELS=x: channel `x` cannot be given: it is no number");
}

#[test]
fn a_library_that_needs_a_newer_glibc_is_left_out_or_refuses_the_start() {
    let host = l40s();
    host.add_library("libnvidia-new.so.580.95.05", "libnvidia-new.so.1", "GLIBC_2.38");
    let enough = try_grants(&host, "all", &offer(38, false)).unwrap();
    assert!(libraries(&enough).contains(&"libnvidia-new"));
    let old = try_grants(&host, "all", &offer(28, false)).unwrap();
    assert!(!libraries(&old).contains(&"libnvidia-new") && libraries(&old).contains(&"libcuda"));
    has_note(&old, "`libnvidia-new.so.580.95.05` is not inside: it needs glibc 2.38, and the image has 2.28");
    let unknown = ImageOffer::default();
    assert!(libraries(&try_grants(&host, "all", &unknown).unwrap()).contains(&"libnvidia-new"));
    host.add_library("libcuda.so.580.95.05", "libcuda.so.1", "GLIBC_2.34");
    let error = try_grants(&host, "all", &offer(28, false)).unwrap_err();
    let words = "the driver's `libcuda.so.580.95.05` needs glibc 2.34, and the image has 2.28";
    assert_eq!(error.to_string(), words);
    assert!(try_grants(&host, "all,capabilities=utility", &offer(28, false)).is_ok());
}

#[test]
fn needs_of_libraries_are_kept_for_the_next_start() {
    let host = l40s();
    let hints = Hints { cache_file: Some(host.path("gpu.json")), ..Hints::default() };
    let first = read_inventory(&host.root(), &hints).files;
    let again = read_inventory(&host.root(), &hints).files;
    assert_eq!(first, again);
    assert_eq!(first.glibc_needs["libnvoptix.so.580.95.05"], GlibcVersion { major: 2, minor: 2 });
}

/// An image with a static shell and, for the loader's facts, a C library of the release.
fn image(home: &Path, libc: Tar, env: &[&str]) -> PathBuf {
    let mut image = TestImage::busybox();
    image.layers.push(libc.finish());
    image.config["Env"] = serde_json::json!([&["PATH=/bin:/usr/bin"], env].concat());
    let (archive, sif) = (home.join("image.tar"), home.join("image.sif"));
    let _ = fs::remove_file(&sif);
    fs::write(&archive, pack(&image.archive_members(Shape::Legacy))).unwrap();
    convert(&archive, &sif, home);
    sif
}

fn libc_directory() -> String {
    format!("lib/{}-linux-gnu", std::env::consts::ARCH)
}

fn libc_of(version: &'static str) -> Tar {
    let library = library_64("libc.so.6", Versions::Has(version));
    Tar::new().file(&format!("{}/libc.so.6", libc_directory()), 0o755, library)
}

fn run(host: &Host, home: &Path, flags: &[&str], words: &[&str]) -> Output {
    let sif = home.join("image.sif");
    let args = [&["run"], flags, &[sif.to_str().unwrap()], words].concat();
    slipway(host, home, &args).env("SLIPWAY_LAUNCH_LINGER", "0").output().unwrap()
}

#[test]
fn a_container_that_draws_has_all_that_drawing_needs() {
    need!(userns, fuse, tool "unshare", tool "setpriv");
    let (host, home) = (l40s(), home());
    image(home.path(), libc_of("GLIBC_2.39"), &["NVIDIA_DRIVER_CAPABILITIES=graphics,utility"]);
    let script = "ls -d /dev/nvidia* /dev/dri/*; for link in /dev/dri/by-path/*; do readlink -f $link; done; ls /proc/driver/nvidia/gpus; \
                  head -n1 /proc/driver/nvidia/params; cat /usr/share/glvnd/egl_vendor.d/10_nvidia.json \
                  /etc/vulkan/icd.d/nvidia_icd.json /usr/share/nvidia/nvoptix.bin; \
                  readlink /.slipway/run/lib/gbm/nvidia-drm_gbm.so; test -s /.slipway/run/lib/gbm/nvidia-drm_gbm.so && echo ok; \
                  cat /etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf; test -e /.slipway/run/lib/libcuda.so.1 || echo no cuda";
    let output = run(&host, home.path(), &["--gpus", "device=1"], &["sh", "-c", script]);
    let expected = "/dev/dri/by-path\n/dev/dri/card2\n/dev/dri/renderD130\n/dev/nvidia-modeset\n/dev/nvidia0\n/dev/nvidiactl\n\
                    /dev/dri/card2\n/dev/dri/renderD130\n0000:81:00.0\nModifyDeviceFiles: 0\n\
                    host glvnd/egl_vendor.d/10_nvidia.json\nhost vulkan/icd.d/nvidia_icd.json\nhost nvidia/nvoptix.bin\n\
                    ../libnvidia-allocator.so.580.95.05\nok\n\
                    {\"profiles\": [{\"name\": \"slipway\", \"settings\": [\"EGLVisibleDGPUDevices\", 1]}], \"rules\": \
                    [{\"pattern\": [], \"profile\": \"slipway\"}]}\nno cuda\n";
    assert_eq!(stdout(&output), expected, "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    // The user's word goes over the image's, and a flag over both.
    let script = "ls -d /dev/nvidia*";
    let only = ["--gpus", "device=1", "-e", "NVIDIA_DRIVER_CAPABILITIES=utility"];
    let output = run(&host, home.path(), &only, &["sh", "-c", script]);
    assert_eq!(stdout(&output), "/dev/nvidia0\n/dev/nvidiactl\n", "{}", stderr(&output));
    let bad = ["--gpus", "all", "-e", "NVIDIA_DRIVER_CAPABILITIES=flight"];
    let output = run(&host, home.path(), &bad, &["true"]);
    let words = "error: invalid value `flight` of NVIDIA_DRIVER_CAPABILITIES: unknown capability `flight`\n  hint: use \
                 `all`, or a list of compute, utility, video, graphics, display, ngx, compat32\n";
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(125), words));
}

#[test]
fn each_thing_of_the_driver_is_explained() {
    need!(userns, fuse, tool "unshare", tool "setpriv");
    let (host, home) = (l40s(), home());
    host.add_rdma();
    image(home.path(), libc_of("GLIBC_2.39"), &[]);
    let flags = ["--explain", "--gpus", "\"device=1\",\"capabilities=compute,graphics\""];
    let text = stdout(&run(&host, home.path(), &flags, &["true"]));
    for line in [
        "GPU 0 (/dev/nvidia1) is not inside: --gpus device=1",
        "  /dev/nvidia0 (rw)  granted  GPU 1: the notes say by which rule",
        "  /dev/nvidia-uvm (rw)  granted  compute needs it",
        "  /dev/nvidia-modeset (rw)  granted  graphics and display need it",
        "  /dev/dri/card2 (rw)  granted  graphics on GPU 1",
        "  /dev/gdrdrv (rw)  granted  GDRCopy",
        "  /dev/infiniband/uverbs0 (rw)  granted  InfiniBand verbs",
        "/dev/infiniband/uverbs1 (InfiniBand verbs) is not inside: mode or group of its node deny it (EACCES)",
        "/dev/nvidia-caps-imex-channels/channel4 (a channel of the job) is not inside: mode or group",
        "granted  a library of the driver, for graphics",
        "granted  a library of the driver, for compute",
        "granted  a file of the driver, for graphics",
        "utility libraries of `",
        "GBM_BACKENDS_PATH",
        "granted  EGL must not choose a GPU that is not inside",
        "granted  the image's with the driver's libraries in it",
        "granted  only the GPUs that are inside",
        "granted  the driver's libraries must not try to make nodes (ModifyDeviceFiles: 0)",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("issm0") && !text.contains("umad0"), "{text}");
}

#[test]
fn rdma_is_inside_unless_a_flag_or_the_site_says_no() {
    need!(userns, fuse, tool "unshare", tool "setpriv");
    let (host, home) = (Host::build("l40s"), home());
    host.add_rdma();
    image(home.path(), libc_of("GLIBC_2.39"), &[]);
    let script =
        "cd /dev; ls -d infiniband/* gdrdrv nvidia-fs* nvidia-caps-imex-channels/* 2>/dev/null; true";
    let output = run(&host, home.path(), &[], &["sh", "-c", script]);
    let expected = "gdrdrv\ninfiniband/rdma_cm\ninfiniband/uverbs0\nnvidia-caps-imex-channels/channel3\nnvidia-fs0\nnvidia-fs1\n";
    assert_eq!(stdout(&output), expected, "{}", stderr(&output));
    let output = run(&host, home.path(), &["--no-rdma"], &["sh", "-c", script]);
    assert_eq!(stdout(&output), "nvidia-caps-imex-channels/channel3\n", "{}", stderr(&output));
    let output = run(&host, home.path(), &["--gpus", "none"], &["sh", "-c", script]);
    assert_eq!(stdout(&output), "", "{}", stderr(&output));
    let args =
        ["run", "--explain", home.path().join("image.sif").to_str().unwrap(), "true"].map(str::to_owned);
    let output = slipway(&host, home.path(), &args.each_ref().map(String::as_str))
        .env("SLIPWAY_GPU_RDMA", "false")
        .output()
        .unwrap();
    let words = "nodes of RDMA are not inside: gpu.rdma = false (environment variable SLIPWAY_GPU_RDMA)";
    assert!(stdout(&output).contains(words), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn an_image_with_an_old_c_library_is_told_before_the_start() {
    need!(userns, fuse, tool "unshare", tool "setpriv");
    let (host, home) = (Host::build("l40s"), home());
    host.add_library("libcuda.so.580.95.05", "libcuda.so.1", "GLIBC_2.34");
    let refusal = |has: &str| {
        format!(
            "error: the driver's `libcuda.so.580.95.05` needs glibc 2.34, and the image has {has}\n  hint: use an image of \
             a newer distribution, or start it without GPUs with `--gpus none`\n"
        )
    };
    let answer = |flags: &[&str]| {
        let output = run(&host, home.path(), flags, &["true"]);
        (output.status.code(), stderr(&output))
    };
    // By the name of the file, as until 2.33, and by the versions of its symbols.
    let directory = libc_directory();
    let by_name = Tar::new()
        .file(&format!("{directory}/libc-2.28.so"), 0o755, "not read")
        .symlink(&format!("{directory}/libc.so.6"), "libc-2.28.so");
    image(home.path(), by_name, &[]);
    assert_eq!(answer(&[]), (Some(125), refusal("2.28")));
    assert_eq!(answer(&["--gpus", "none"]), (Some(0), String::new()));
    image(home.path(), libc_of("GLIBC_2.27"), &[]);
    assert_eq!(answer(&[]), (Some(125), refusal("2.27")));
    image(home.path(), libc_of("GLIBC_2.34"), &[]);
    assert_eq!(answer(&[]), (Some(0), String::new()));
}

#[test]
fn each_capability_is_seen_from_inside() {
    need!(userns, fuse, tool "unshare", tool "setpriv");
    let (host, home) = (l40s(), home());
    let with_loader_32 = libc_of("GLIBC_2.39").file("lib/ld-linux.so.2", 0o755, "a loader");
    image(home.path(), with_loader_32, &[]);
    let script = "cd /.slipway/run/lib; for f in libcuda.so.1 libnvidia-ml.so.1 libnvcuvid.so.1 libGLX_nvidia.so.0 libnvidia-ngx.so.1 \
                  32/libcuda.so.1; do [ -s $f ] && echo $f; done; cd /dev; ls nvidia-uvm nvidia-modeset dri/card1 2>/dev/null; \
                  ls /usr/bin/nvidia-* /etc/OpenCL/vendors/* /usr/share/X11/xorg.conf.d/* 2>/dev/null; true";
    let check = |words: &str, expected: &[&str]| {
        let request = format!("all,capabilities={words}");
        let output = run(&host, home.path(), &["--gpus", &request], &["sh", "-c", script]);
        let found = stdout(&output);
        assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{words}: {}", stderr(&output));
        let plan = stdout(&run(&host, home.path(), &["--plan", "--gpus", &request], &["true"]));
        for place in expected.iter().filter(|place| place.starts_with('/')) {
            assert!(plan.contains(place), "{words}: {place}\n{plan}");
        }
    };
    let (mps, imex) = ("/usr/bin/nvidia-cuda-mps-control", "/usr/bin/nvidia-imex-ctl");
    let opencl = "/etc/OpenCL/vendors/nvidia.icd";
    check("utility", &["libnvidia-ml.so.1", "/usr/bin/nvidia-smi"]);
    check("compute", &["libcuda.so.1", "nvidia-uvm", opencl, mps, imex]);
    check("video", &["libcuda.so.1", "libnvcuvid.so.1", "nvidia-uvm", opencl, mps, imex]);
    check("graphics", &["libGLX_nvidia.so.0", "dri/card1", "nvidia-modeset"]);
    let screens = "/usr/share/X11/xorg.conf.d/10-nvidia.conf";
    check("display", &["libGLX_nvidia.so.0", "dri/card1", "nvidia-modeset", screens]);
    check("ngx", &["libnvidia-ngx.so.1"]);
    if std::env::consts::ARCH == "x86_64" {
        check("compute,compat32", &["libcuda.so.1", "32/libcuda.so.1", "nvidia-uvm", opencl, mps, imex]);
    }
}

#[test]
fn the_jobs_mps_is_inside_with_its_variable() {
    need!(userns, fuse, tool "unshare", tool "setpriv");
    let (host, home) = (Host::build("l40s"), home());
    image(home.path(), libc_of("GLIBC_2.39"), &[]);
    let directory = home.path().join("mps");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(directory.join("control"), "").unwrap();
    let sif = home.path().join("image.sif");
    let script = "ls $CUDA_MPS_PIPE_DIRECTORY; echo $CUDA_MPS_PIPE_DIRECTORY";
    // In docker's profile neither the caller's variables nor the host's /tmp are inside.
    let args = ["run", "--profile", "docker", "--rm", sif.to_str().unwrap(), "sh", "-c", script];
    let output =
        slipway(&host, home.path(), &args).env("CUDA_MPS_PIPE_DIRECTORY", &directory).output().unwrap();
    let expected = format!("control\n{}\n", directory.display());
    assert_eq!(stdout(&output), expected, "{}", stderr(&output));
}
