//! Drivers in other places than the distribution's: what is found, how it is told, and what a container gets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use slipway::gpu::{self, Hints, Inventory, read_inventory};

use crate::gpu_cli::{home, sif_of, slipway, stderr, stdout};
use crate::support::host::Host;

const ARCH: &str = std::env::consts::ARCH;

fn found(inventory: &Inventory) -> (String, &str) {
    let directory = inventory.files.directory.as_deref().unwrap_or(Path::new("-"));
    (directory.display().to_string(), inventory.files.found_by.as_deref().unwrap_or("-"))
}

fn scenario(name: &str) -> String {
    fs::read_to_string(format!("tests/fixtures/scenarios/{name}.toml")).unwrap()
}

#[test]
fn every_usual_place_is_found() {
    for place in [
        "/usr/lib64",
        "/usr/lib64/nvidia",
        "/usr/lib/nvidia-550",
        &format!("/usr/lib/{ARCH}-linux-gnu/nvidia/current"),
        &format!("/lib/{ARCH}-linux-gnu"),
        "/home/kubernetes/bin/nvidia/lib64",
        "/opt/nvidia",
    ] {
        let host =
            Host::build_from(&format!("library_directory = \"{place}\"\n{}", scenario("forward-compat")));
        let inventory = read_inventory(&host.root(), &Hints::default());
        assert_eq!(found(&inventory), (place.to_owned(), "a usual place"));
        assert_eq!(inventory.files.libraries.len(), 13, "{place}");
        assert_eq!(inventory.findings, Vec::<String>::new());
    }
}

#[test]
fn links_of_nixos_lead_to_the_drivers_own_directory() {
    let text = scenario("nixos").replace("/run/nix/store", "/nix/store");
    let host = Host::build_from(&text);
    let inventory = read_inventory(&host.root(), &Hints::default());
    assert_eq!(found(&inventory), ("/nix/store/0a1b-nvidia-x11-550.54.15/lib".into(), "a usual place"));
    assert_eq!(inventory.files.libraries.len(), 13);
}

#[test]
fn a_driver_root_is_a_tree_of_its_own() {
    let host = Host::build("driver-container");
    let lib = host.library_directory();
    // A link that is absolute leads beneath the driver's root, not the host's.
    let link = host.of(&lib).join("libcuda.so.1");
    fs::remove_file(&link).unwrap();
    symlink(format!("/usr/lib/{ARCH}-linux-gnu/libcuda.so.550.54.15"), &link).unwrap();
    let by_container = "the driver container `/run/nvidia/driver`";
    let inventory = read_inventory(&host.root(), &Hints::default());
    assert_eq!(found(&inventory), (lib.display().to_string(), by_container));
    assert_eq!(inventory.files.libraries.len(), 13);
    assert_eq!(inventory.files.programs[0].0, Path::new("/run/nvidia/driver/usr/bin/nvidia-smi"));

    let hints = Hints { driver_root: Some("/run/nvidia/driver".into()), ..Hints::default() };
    let inventory = read_inventory(&host.root(), &hints);
    assert_eq!(found(&inventory), (lib.display().to_string(), "gpu.driver_root `/run/nvidia/driver`"));

    // The loader's cache of that tree names its directories as the tree does.
    let odd = host.path("run/nvidia/driver/odd/lib");
    fs::create_dir_all(odd.parent().unwrap()).unwrap();
    fs::rename(host.of(&lib), &odd).unwrap();
    fs::remove_file(odd.join("libcuda.so.1")).unwrap();
    symlink("libcuda.so.550.54.15", odd.join("libcuda.so.1")).unwrap();
    let entries = [("libcuda.so.1".to_owned(), "/odd/lib/libcuda.so.1".to_owned())];
    let cache = host.path("run/nvidia/driver/etc/ld.so.cache");
    fs::create_dir_all(cache.parent().unwrap()).unwrap();
    fs::write(cache, slipway::elf::cache::merge(None, &entries, ARCH)).unwrap();
    let inventory = read_inventory(&host.root(), &hints);
    let how = "gpu.driver_root `/run/nvidia/driver`, by its loader's cache";
    assert_eq!(found(&inventory), ("/run/nvidia/driver/odd/lib".into(), how));
}

#[test]
fn what_a_site_names_is_all_that_is_looked_at() {
    let host = Host::build("forward-compat");
    let other = host.path("apps/driver");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::rename(host.of(&host.library_directory()), &other).unwrap();
    let hints = Hints { search: vec!["/apps/driver".into()], ..Hints::default() };
    assert_eq!(found(&read_inventory(&host.root(), &hints)), ("/apps/driver".into(), "gpu.library_path"));
    let missing = "the driver's libraries were not found: there is no libcuda.so.1 for this machine";
    let remedy = "correct the setting, or leave it out";
    let hints = Hints { search: vec!["/apps/other".into()], ..Hints::default() };
    let inventory = read_inventory(&host.root(), &hints);
    assert_eq!(inventory.findings, [format!("{missing} in gpu.library_path ({remedy})")]);
    let hints = Hints { driver_root: Some("/apps".into()), ..Hints::default() };
    let inventory = read_inventory(&host.root(), &hints);
    assert_eq!(inventory.findings, [format!("{missing} below gpu.driver_root (`/apps`) ({remedy})")]);
}

#[test]
fn nodes_can_lie_in_the_drivers_tree_or_in_a_third() {
    let host = Host::build("driver-container");
    let check = |root: gpu::HostRoot, device_root: Option<&str>, node: &str| {
        let inventory = read_inventory(&root, &Hints::default());
        assert_eq!(inventory.device_root.as_deref(), device_root.map(Path::new));
        assert_eq!(inventory.findings, Vec::<String>::new());
        // Its name inside is the same wherever it is.
        assert_eq!(inventory.gpus[1].node, Path::new("/dev/nvidia1"));
        assert_eq!(root.place(&inventory.gpus[1].node), host.path(node));
    };
    check(host.root().with_devices(None, None), None, "dev/nvidia1");
    fs::rename(host.path("dev"), host.path("run/nvidia/driver/dev")).unwrap();
    let container = "run/nvidia/driver/dev/nvidia1";
    check(host.root().with_devices(None, None), Some("/run/nvidia/driver"), container);
    check(
        host.root().with_devices(Some(Path::new("/run/nvidia/driver")), None),
        Some("/run/nvidia/driver"),
        container,
    );
    fs::create_dir_all(host.path("srv")).unwrap();
    fs::rename(host.path("run/nvidia/driver/dev"), host.path("srv/dev")).unwrap();
    check(host.root().with_devices(Some(Path::new("/srv")), None), Some("/srv"), "srv/dev/nvidia1");
    check(host.root().with_devices(None, Some(Path::new("/srv"))), Some("/srv"), "srv/dev/nvidia1");
}

#[test]
fn gpus_and_run_work_with_each_root() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let home = home();
    let unwinder = format!("/lib/{ARCH}-linux-gnu/libgcc_s.so.1");
    let sif = sif_of(&["/bin/sh", "/bin/ls", "/bin/true", &unwinder], home.path());
    for (name, how) in [
        ("driver-container", "the driver container `/run/nvidia/driver`"),
        ("nixos", "a usual place"),
        ("wsl", "the driver's directory of WSL"),
    ] {
        let host = Host::build(name);
        let output = slipway(&host, home.path(), &["gpus", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["library_found_by"], how, "{json}");
        assert_eq!((&json["cuda_version"], &json["findings"]), (&"12.4".into(), &serde_json::json!([])));
        let script = "LD_PRELOAD='libcuda.so libcuda.so.1 libnvidia-ml.so.1 libnvidia-ptxjitcompiler.so.1' /bin/true \
                      && echo loaded; ls -d /dev/dxg /dev/nvidia[0-9]* /usr/lib/wsl/*/*/*.bin 2>/dev/null; ls -l /usr/bin/nvidia-smi >/dev/null && nvidia-smi";
        let run = |flags: &[&str]| {
            let args = [&["run"], flags, &[sif.to_str().unwrap(), "/bin/sh", "-c", script]].concat();
            slipway(&host, home.path(), &args).env("SLIPWAY_LAUNCH_LINGER", "0").output().unwrap()
        };
        let output = run(&["--gpus", "all"]);
        let nodes = match name {
            "wsl" => "/dev/dxg\n/usr/lib/wsl/drivers/nv_dispi.inf_amd64_4fa0/nvcubins.bin\n",
            _ => "/dev/nvidia0\n/dev/nvidia1\n",
        };
        assert_eq!(
            (stdout(&output), stderr(&output)),
            (format!("loaded\n{nodes}fake nvidia-smi\n"), String::new()),
            "{name}"
        );
        let explained = stdout(&run(&["--explain"]));
        assert!(
            explained.contains(&format!("the driver's libraries were found through {how}")),
            "{explained}"
        );
    }
}

#[test]
fn wsl_has_one_device_for_all() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("wsl"), home());
    let output = slipway(&host, home.path(), &["gpus", "--json"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let gpus = json["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), 1);
    assert_eq!(gpus[0]["node"], "/dev/dxg");
    assert_eq!(gpus[0]["name"], "NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3");
    let sif = sif_of(&["/bin/true"], home.path());
    let args = ["run", "--gpus", "device=1", sif.to_str().unwrap(), "/bin/true"];
    let output = slipway(&host, home.path(), &args).output().unwrap();
    assert_eq!(
        stderr(&output),
        "error: --gpus device=1: WSL has one device for all GPUs of Windows, so that none can be chosen\n  \
         hint: use `--gpus all`, and CUDA_VISIBLE_DEVICES for what the program shall see\n"
    );
    assert_eq!(output.status.code(), Some(125));
    // What is missing on the Windows side is told.
    fs::remove_dir_all(host.path("usr/lib/wsl/drivers")).unwrap();
    let inventory = read_inventory(&host.root(), &Hints::default());
    let finding =
        "no directory below /usr/lib/wsl/drivers has a libcuda.so.1.1: Windows has no NVIDIA driver for WSL";
    assert_eq!(inventory.findings, [finding]);
}

/// In place of the setuid program a script: the test's user has the directory, as root has it on a node.
#[test]
fn a_setuid_nvidia_modprobe_makes_the_node_of_cuda() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let home = home();
    let sif = sif_of(&["/bin/sh", "/bin/ls"], home.path());
    let text = format!("missing_nodes = [\"nvidia-uvm\"]\n{}", scenario("forward-compat"));
    let check = |program: Option<(&str, u32)>, nodes: &str, note: &str| {
        let host = Host::build_from(&text);
        if let Some((script, mode)) = program {
            host.write("usr/bin/nvidia-modprobe", script);
            let path = host.path("usr/bin/nvidia-modprobe");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let run = |flags: &[&str]| {
            let command = [sif.to_str().unwrap(), "/bin/sh", "-c", "ls -d /dev/nvidia-uvm 2>/dev/null; true"];
            let args = [&["run"], flags, &command].concat();
            slipway(&host, home.path(), &args).env("SLIPWAY_LAUNCH_LINGER", "0").output().unwrap()
        };
        let output = run(&[]);
        assert_eq!(stdout(&output), nodes, "{}", stderr(&output));
        let explained = stdout(&run(&["--explain"]));
        assert!(explained.contains(note), "{explained}");
        assert_eq!(stdout(&run(&["--gpus", "none"])), "");
    };
    let works = "#!/bin/sh\n[ \"$*\" = '-c 0 -u' ] && echo >/dev/nvidia-uvm\n";
    check(
        Some((works, 0o4755)),
        "/dev/nvidia-uvm\n",
        "`/usr/bin/nvidia-modprobe -c 0 -u` has made /dev/nvidia-uvm",
    );
    check(
        Some(("#!/bin/sh\nexit 3\n", 0o4755)),
        "",
        "`/usr/bin/nvidia-modprobe -c 0 -u` has not made /dev/nvidia-uvm (exit status: 3)",
    );
    let none = "no setuid nvidia-modprobe is on this node to make what is missing";
    check(Some((works, 0o755)), "", none);
    check(None, "", none);
}
