//! GPUs of built hosts: what is found, what a job gets, and what NVML adds.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slipway::elf::cache::Cache;
use slipway::gpu::{
    self, GpuRequest, Hints, HostRoot, ImageLibc, Inventory, granted, read_access, read_inventory, select,
};
use slipway::grants::{Grants, JobGpus};
use slipway::sched;

use crate::support::host::Host;

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_slipway"))
}

fn inventory(host: &Host) -> Inventory {
    read_inventory(&host.root(), &Hints::default())
}

fn job(pairs: &[(&str, &str)]) -> JobGpus {
    let env = pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
    sched::read_job(&env, Path::new("/nonexistent")).gpus
}

fn grants(host: &Host, job: &JobGpus, request: &str, image: &ImageLibc) -> Result<Grants, gpu::GpuError> {
    let (root, inventory) = (host.root(), inventory(host));
    let owned = granted(&inventory, job, &read_access(&root, &inventory));
    let chosen = select(&inventory, &owned, &GpuRequest::parse(request)?)?;
    Ok(gpu::grants(&inventory, &chosen, image, &root))
}

fn targets(grants: &Grants) -> Vec<&str> {
    grants.nodes.iter().map(|node| node.target.to_str().unwrap()).collect()
}

#[test]
fn inventory_comes_from_procfs_in_pci_order() {
    let host = Host::build("dgx-h100");
    let found = inventory(&host);
    assert_eq!(found.findings, Vec::<String>::new());
    assert_eq!(
        (found.vendor.as_deref(), found.driver_version.as_deref()),
        (Some("nvidia"), Some("550.54.15"))
    );
    let rows: Vec<_> =
        found.gpus.iter().map(|gpu| (gpu.index, gpu.pci_address.as_deref().unwrap(), gpu.minor)).collect();
    assert_eq!(
        rows[..4],
        [(0, "0000:1b:00.0", 0), (1, "0000:43:00.0", 1), (2, "0000:52:00.0", 3), (3, "0000:61:00.0", 2)]
    );
    assert_eq!(rows.len(), 8);
    assert_eq!(found.files.directory, Some(host.library_directory()));
    assert_eq!(found.files.libraries.len(), 13);
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), found);
}

#[test]
fn job_gets_its_gpus_and_nothing_else() {
    let host = Host::build("dgx-h100");
    let step = job(&[("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "2,5"), ("CUDA_VISIBLE_DEVICES", "5")]);
    let inside = grants(&host, &step, "job", &ImageLibc::Glibc { loader_cache: None }).unwrap();
    assert_eq!(
        targets(&inside),
        ["/dev/nvidia3", "/dev/nvidia5", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
    );
    let libraries: BTreeMap<&str, String> =
        inside.libraries.iter().map(|library| (library.name.as_str(), library.links.join(" "))).collect();
    let expected: BTreeMap<&str, String> = [
        ("libcuda.so.550.54.15", "libcuda.so.1 libcuda.so"),
        ("libcudadebugger.so.550.54.15", "libcudadebugger.so.1"),
        ("libnvcuvid.so.550.54.15", "libnvcuvid.so.1"),
        ("libnvidia-cfg.so.550.54.15", "libnvidia-cfg.so.1"),
        ("libnvidia-encode.so.550.54.15", "libnvidia-encode.so.1"),
        ("libnvidia-gpucomp.so.550.54.15", ""),
        ("libnvidia-ml.so.550.54.15", "libnvidia-ml.so.1"),
        ("libnvidia-nvvm.so.550.54.15", "libnvidia-nvvm.so.4"),
        ("libnvidia-opencl.so.550.54.15", "libnvidia-opencl.so.1"),
        ("libnvidia-ptxjitcompiler.so.550.54.15", "libnvidia-ptxjitcompiler.so.1"),
    ]
    .map(|(name, links)| (name, links.to_owned()))
    .into();
    assert_eq!(libraries, expected);
    let binds: Vec<_> = inside.binds.iter().map(|bind| bind.target.to_str().unwrap()).collect();
    let of_gpus = ["0000:52:00.0", "0000:c3:00.0"].map(|name| format!("/proc/driver/nvidia/gpus/{name}"));
    assert_eq!(binds, ["/usr/bin/nvidia-smi", &of_gpus[0], &of_gpus[1]]);
    let env: Vec<_> = inside.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        env,
        ["NVIDIA_VISIBLE_DEVICES=void", "CUDA_VISIBLE_DEVICES=GPU-00000005-1b1b-4343-5252-000000000005"]
    );
    let [parameters, file] = &inside.files[..] else { panic!("{:?}", inside.files) };
    assert_eq!(parameters.target, PathBuf::from("/proc/driver/nvidia/params"));
    assert_eq!(file.target, PathBuf::from("/etc/ld.so.cache"));
    let names: Vec<String> = Cache::parse(&file.content)
        .unwrap()
        .entries
        .iter()
        .map(|entry| String::from_utf8(entry.path.clone()).unwrap())
        .collect();
    assert!(names.contains(&"/.slipway/run/lib/libcuda.so".to_owned()), "{names:?}");
    assert!(names.contains(&"/.slipway/run/lib/libnvidia-ml.so.1".to_owned()), "{names:?}");
    for source in inside.libraries.iter().map(|library| &library.source) {
        assert!(source.is_file(), "{}", source.display());
    }
    for note in [
        "GPU 0 (/dev/nvidia0) is not inside: SLURM_STEP_GPUS=2,5",
        "GPU 2 (/dev/nvidia3) is inside: SLURM_STEP_GPUS=2,5",
        "/dev/nvidia-uvm is inside: compute needs it",
        "graphics libraries of `/usr/lib/x86_64-linux-gnu` are not inside: libGLX_nvidia.so.550.54.15, \
         libnvidia-glcore.so.550.54.15",
    ] {
        let note = note.replace("x86_64", std::env::consts::ARCH);
        assert!(inside.notes.contains(&note), "{note}\n{:#?}", inside.notes);
    }
}

#[test]
fn capabilities_and_libc_change_what_is_inside() {
    let host = Host::build("dgx-h100");
    let image = ImageLibc::Unknown { library_path: Some("/opt/lib".into()) };
    let inside = grants(&host, &JobGpus::default(), "\"device=0\",\"capabilities=utility\"", &image).unwrap();
    let libraries: Vec<_> = inside.libraries.iter().map(|library| library.name.as_str()).collect();
    assert_eq!(libraries, ["libnvidia-cfg.so.550.54.15", "libnvidia-ml.so.550.54.15"]);
    let files: Vec<_> = inside.files.iter().map(|file| file.target.to_str().unwrap()).collect();
    assert_eq!(files, ["/proc/driver/nvidia/params"]);
    assert!(inside.env.contains(&("LD_LIBRARY_PATH".into(), "/.slipway/run/lib:/opt/lib".into())));
    assert!(!inside.env.iter().any(|(name, _)| name == "CUDA_VISIBLE_DEVICES"));
}

#[test]
fn node_without_driver_gives_nothing_and_says_why() {
    let host = Host::build("no-driver");
    assert_eq!(inventory(&host), Inventory::default());
    let image = ImageLibc::Glibc { loader_cache: None };
    let inside = grants(&host, &JobGpus::default(), "job", &image).unwrap();
    let reason = "no NVIDIA driver is loaded (neither /sys/module/nvidia nor /proc/driver/nvidia nor /dev/nvidiactl exists); no AMD GPU (/sys/class/kfd); no discrete Intel GPU; no Gaudi";
    assert_eq!(inside, Grants { notes: vec![format!("no GPU: {reason}")], ..Grants::default() });
    let error = grants(&host, &JobGpus::default(), "all", &image).unwrap_err();
    assert_eq!(error.to_string(), format!("--gpus all: this node has no GPU that can be used: {reason}"));
}

#[test]
fn driver_is_found_in_odd_places_and_the_loaded_version_wins() {
    let text = "driver_version = \"550.54.15\"\nlibrary_directory = \"/usr/local/nvidia/lib64\"\n";
    let host = Host::build_from(text);
    // An older driver that was left behind in the distribution's directory.
    let old = format!("usr/lib/{}-linux-gnu/libcuda.so.1", std::env::consts::ARCH);
    fs::create_dir_all(host.path(&old).parent().unwrap()).unwrap();
    let left = host.path(&old).with_file_name("libcuda.so.535.1.1");
    fs::copy(host.path("usr/local/nvidia/lib64/libcuda.so.550.54.15"), &left).unwrap();
    std::os::unix::fs::symlink("libcuda.so.535.1.1", host.path(&old)).unwrap();
    let found = inventory(&host);
    assert_eq!(found.files.directory, Some("/usr/local/nvidia/lib64".into()));
    assert_eq!(found.files.version.as_deref(), Some("550.54.15"));
    assert!(found.files.libraries.iter().all(|library| library.name.ends_with(".550.54.15")));

    let text = text.replace("/usr/local/nvidia/lib64", "/apps/driver");
    let host = Host::build_from(&text);
    assert_eq!(
        inventory(&host).findings,
        [
            "the driver's libraries were not found: there is no libcuda.so.1 for this machine (install those of the \
          driver's version, or name their directory in LD_LIBRARY_PATH)"
        ]
    );
    let hints = Hints { library_path: vec!["/apps/driver".into()], ..Hints::default() };
    assert_eq!(read_inventory(&host.root(), &hints).findings, Vec::<String>::new());
}

#[test]
fn sandbox_that_shows_only_nodes_has_gpus_too() {
    let host = Host::build_from(
        &fs::read_to_string("tests/fixtures/scenarios/dgx-h100.toml").unwrap().replace("nvswitch = true", ""),
    );
    fs::remove_dir_all(host.path("proc/driver/nvidia")).unwrap();
    fs::remove_dir_all(host.path("sys/module/nvidia")).unwrap();
    let found = inventory(&host);
    assert_eq!((found.driver_version, found.gpus.len()), (None, 8));
    assert_eq!(found.files.version.as_deref(), Some("550.54.15"));
}

#[test]
fn nvml_adds_memory_and_versions() {
    let host = Host::build("dgx-h100");
    let mut found = inventory(&host);
    let library = gpu::nvml_library(&found, &host.root()).unwrap();
    let report = gpu::query_nvml(program(), Some(&library), Duration::from_secs(60)).unwrap();
    let access = read_access(&host.root(), &found);
    gpu::merge_nvml(&mut found, &report, &access);
    assert_eq!(found.findings, Vec::<String>::new());
    assert_eq!(found.cuda_version.as_deref(), Some("12.4"));
    assert!(found.gpus.iter().all(|gpu| gpu.memory_bytes == Some(81_559 << 20)));
    let owned = granted(&found, &JobGpus::default(), &access);
    let listing = gpu::listing(&found, &owned);
    let first =
        "0       NVIDIA H100 80GB HBM3   81559 MiB   0000:1b:00.0   0       yes     GPU-00000000-1b1b";
    assert!(listing.to_table().contains(first), "{}", listing.to_table());
}

#[test]
fn nvml_that_hangs_is_an_error_after_the_deadline() {
    let host = Host::build("nvml-hang");
    let library = gpu::nvml_library(&inventory(&host), &host.root()).unwrap();
    let error = gpu::query_nvml(program(), Some(&library), Duration::from_millis(500)).unwrap_err();
    assert_eq!(error.to_string(), "NVML hung: no answer after 0.5 s");
}

#[test]
fn update_without_reload_is_found_with_and_without_nvml() {
    let host = Host::build("driver-mismatch");
    let found = inventory(&host);
    assert_eq!(
        found.findings,
        [
            "driver/library version mismatch: kernel module 550.54.15, libraries 550.90.07; CUDA fails until the module is \
         loaded again (reboot the node)"
        ]
    );
    let library = gpu::nvml_library(&found, &host.root()).unwrap();
    let error = gpu::query_nvml(program(), Some(&library), Duration::from_secs(60)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "NVML: driver/library version mismatch (code 18): the driver was updated and its module not loaded again"
    );
}

#[test]
fn nvml_is_absent_where_its_library_is() {
    let error = gpu::query_nvml(
        program(),
        Some(Path::new("/nonexistent/libnvidia-ml.so.1")),
        Duration::from_secs(60),
    );
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with("NVML: its library cannot be loaded: /nonexistent/libnvidia-ml.so.1"), "{text}");
}

#[test]
fn slow_facts_are_kept_until_something_changes() {
    let host = Host::build("dgx-h100");
    let hints = Hints { cache_file: Some(host.path("gpu.json")), ..Hints::default() };
    let root = host.root();
    let mut first = read_inventory(&root, &hints);
    let file = host.path("gpu.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    first.cuda_version = Some("12.4".into());
    first.gpus[1].memory_bytes = Some(7);
    gpu::remember(&root, &hints, &first);

    // Read from the file, though the library is gone: that its directory has changed is all that is looked at.
    let kept = |root: &HostRoot| read_inventory(root, &hints).cuda_version.is_some();
    let again = read_inventory(&root, &hints);
    assert_eq!(again, first);
    let uuid = host.path("proc/driver/nvidia/gpus/0000:1b:00.0/information");
    fs::write(&uuid, fs::read_to_string(&uuid).unwrap().replace("GPU-0000", "GPU-????")).unwrap();
    assert_eq!(read_inventory(&root, &hints), first);

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!kept(&root), "a file that others may read is not ours");
    let check = |change: &dyn Fn()| {
        gpu::remember(&root, &hints, &first);
        assert!(kept(&root));
        change();
        assert!(!kept(&root));
    };
    check(&|| host.write("proc/sys/kernel/random/boot_id", "another\n"));
    check(&|| host.write("etc/ld.so.cache", "changed"));
    check(&|| host.write("sys/module/nvidia/srcversion", "changed\n"));
    check(&|| {
        let new = format!("{}/libnew.so", host.library_directory().display());
        host.write(new.trim_start_matches('/'), "");
    });
    check(&|| fs::write(&file, "{\"key\":").unwrap());
    gpu::remember(&root, &hints, &first);
    host.write("sys/module/nvidia/version", "560.1.1\n");
    assert!(!kept(&root));
}

#[test]
fn built_host_can_be_laid_over_the_real_one() {
    need!(userns, tool "unshare", tool "setpriv");
    let text = fs::read_to_string("tests/fixtures/scenarios/dgx-h100.toml").unwrap();
    let host = Host::build_from(&text.replacen("minor = 3", "minor = 3\ndenied = true", 1));
    let script = "id -u; cat /sys/module/nvidia/version; grep nvidia-uvm /proc/devices; ls /proc/driver/nvidia/gpus | wc -l; \
                  test -r /dev/nvidia0 && echo 0 open; test -r /dev/nvidia3 || echo 3 denied; nvidia-smi; \
                  LD_PRELOAD=libcuda.so.1 /bin/true && echo loaded";
    let output = host.run(&["sh", "-c", script]);
    let user = if nix::unistd::geteuid().is_root() { 65_534 } else { nix::unistd::geteuid().as_raw() };
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{user}\n550.54.15\n241 nvidia-uvm\n8\n0 open\n3 denied\nfake nvidia-smi\nloaded\n"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Real nodes of a major that has no driver: access(2) asks the cgroup before anything of a driver would be called.
#[test]
fn device_cgroup_decides_what_a_job_owns() {
    need!(root, cgroup);
    let cgroup = PathBuf::from(format!("/sys/fs/cgroup/devices/slipway-test-{}", std::process::id()));
    if !Path::new("/sys/fs/cgroup/devices/devices.deny").exists() {
        println!("skipped: there is no devices controller of cgroup v1");
        return;
    }
    let host = Host::build("dgx-h100");
    for minor in 0..8 {
        let node = host.path(&format!("dev/nvidia{minor}"));
        fs::remove_file(&node).unwrap();
        let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o666));
        nix::sys::stat::mknod(&node, kind, mode, nix::sys::stat::makedev(240, minor)).unwrap();
    }
    fs::create_dir(&cgroup).unwrap();
    for minor in (0..8).filter(|minor| ![2, 5].contains(minor)) {
        fs::write(cgroup.join("devices.deny"), format!("c 240:{minor} rwm")).unwrap();
    }
    // In cgroup v1 a thread can be in a group of its own.
    let owned = std::thread::scope(|scope| {
        let work = || {
            fs::write(cgroup.join("tasks"), nix::unistd::gettid().to_string()).unwrap();
            let found = inventory(&host);
            let step = job(&[("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "0"), ("CUDA_VISIBLE_DEVICES", "0")]);
            granted(&found, &step, &read_access(&host.root(), &found))
        };
        scope.spawn(work).join()
    });
    fs::remove_dir(&cgroup).unwrap();
    let owned = owned.unwrap();
    // Minor 2 is the fourth in PCI order.
    assert_eq!(owned.devices, [3, 5].map(gpu::Device::whole));
    assert_eq!(owned.reason, "the kernel denies the others: the device cgroup denies its node (EPERM)");
}
