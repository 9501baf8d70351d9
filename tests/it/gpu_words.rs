//! Every known cause of a job without a working GPU is named before the workload starts, with what to do: by a warning
//! where GPUs were not asked for in so many words, and else, if nothing can work, by an error.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use slipway::gpu::{self, Asked, Hints, read_access, read_inventory};

use super::support::host::Host;
use super::support::image::TestImage;
use super::support::layers::Tar;
use super::support::real_host::RealHost;
use super::support::sandbox::{Sandbox, place};

/// A step that Slurm gave the first GPU.
const STEP: [(&str, &str); 3] =
    [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "0"), ("CUDA_VISIBLE_DEVICES", "0")];

/// A sandbox with `gpu.sif`: busybox, and a loader by which slipway knows glibc.
fn sandbox() -> Sandbox {
    with_image(|tar| tar, &json!(null))
}

fn with_image(add: impl Fn(Tar) -> Tar, library_path: &serde_json::Value) -> Sandbox {
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    let loader = Tar::new().file("lib64/ld-linux-x86-64.so.2", 0o755, "a loader");
    image.layers.push(add(loader).finish());
    if let Some(path) = library_path.as_str() {
        image.config["Env"] = json!(["PATH=/bin", format!("LD_LIBRARY_PATH={path}")]);
    }
    image.convert(&sandbox, "gpu.sif");
    sandbox
}

/// The real launch on a built host.
struct Launch<'a> {
    host: RealHost,
    sandbox: &'a Sandbox,
}

impl Launch<'_> {
    fn run(&self, flags: &[&str], env: &[(&str, &str)]) -> (i32, String) {
        let (code, out, err) = self.output(flags, env);
        // The command ran if and only if slipway did not fail.
        assert_eq!(out, if code == 125 { "" } else { "ran\n" }, "{err}");
        (code, err)
    }

    /// No GPU can be had: who was promised some is warned, and who asks for some gets an error that begins with `failure`. A user
    /// of a login node who has no right to its GPUs runs the same command as elsewhere.
    fn assert_missed(&self, failure: &str, what: &str, remedy: &str) {
        assert_eq!(self.run(&[], &[]), silent());
        assert_eq!(
            self.run(&[], &STEP),
            warning(&format!("no GPU is inside: SLURM_STEP_GPUS=0 gives it some, but {what} ({remedy})"))
        );
        let text = format!("--gpus all: {failure}: {what}");
        assert_eq!(self.run(&["--gpus", "all"], &[]), error(&text, remedy));
    }

    fn output(&self, flags: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
        let program = self.sandbox.program();
        let image = self.sandbox.path("home/gpu.sif");
        let argv: Vec<&str> = [program.to_str().unwrap(), "run", "--no-join"]
            .into_iter()
            .chain(flags.iter().copied())
            .chain([image.to_str().unwrap(), "echo", "ran"])
            .collect();
        let output = self
            .host
            .command(&argv)
            .env_clear()
            .envs([
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
                ("HOME", self.sandbox.path("home").to_str().unwrap()),
            ])
            .envs(env.iter().copied())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }
}

fn on<'a>(scenario: &str, sandbox: &'a Sandbox) -> Launch<'a> {
    Launch { host: RealHost::build(scenario), sandbox }
}

fn warning(text: &str) -> (i32, String) {
    (0, format!("warning: {text}\n"))
}

fn error(text: &str, hint: &str) -> (i32, String) {
    (125, format!("error: {text}\n  hint: {hint}\n"))
}

fn silent() -> (i32, String) {
    (0, String::new())
}

#[test]
fn a_missing_uvm_module_is_named() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("uvm-missing", &sandbox);
    let (what, remedy) = (
        "the nvidia-uvm module is not loaded, so CUDA cannot start",
        "ask an administrator to run `nvidia-modprobe -u -c 0`",
    );
    assert_eq!(launch.run(&[], &[]), warning(&format!("{what} ({remedy})")));
    assert_eq!(launch.run(&["--gpus", "job"], &STEP), warning(&format!("{what} ({remedy})")));
    for asked in ["all", "1", "device=1"] {
        let text = format!("--gpus {asked}: the GPUs cannot be used: {what}");
        assert_eq!(launch.run(&["--gpus", asked], &[]), error(&text, remedy));
    }
    // What needs no CUDA works, and who wants no GPU hears of none.
    assert_eq!(launch.run(&["--gpus", "all,capabilities=utility"], &[]), silent());
    assert_eq!(launch.run(&["--gpus", "none"], &[]), silent());
    sandbox.assert_nothing_left();
}

#[test]
fn the_drivers_setuid_helper_is_named_where_it_is() {
    let host = Host::build("uvm-missing");
    host.write("usr/bin/nvidia-modprobe", "");
    let helper = host.path("usr/bin/nvidia-modprobe");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o4755)).unwrap();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    assert_eq!(
        read_inventory(&host.root(), &Hints::default()).findings,
        [
            "the nvidia-uvm module is not loaded, so CUDA cannot start (run `nvidia-modprobe -u -c 0`, which is setuid here)"
        ]
    );
    let devices = fs::read_to_string(host.path("proc/devices")).unwrap();
    host.write("proc/devices", &devices.replace("240 nvidia\n", "240 nvidia\n241 nvidia-uvm\n"));
    assert_eq!(
        read_inventory(&host.root(), &Hints::default()).findings,
        [
            "/dev/nvidia-uvm does not exist though its module is loaded, so CUDA cannot start (run `nvidia-modprobe -u -c 0`, \
          which is setuid here)"
        ]
    );
    fs::remove_file(host.path("dev/nvidiactl")).unwrap();
    assert_eq!(
        read_inventory(&host.root(), &Hints::default()).findings[0],
        "/dev/nvidiactl does not exist, so no program can use a GPU (run `nvidia-modprobe -c 0`, which is setuid here)"
    );
}

#[test]
fn a_node_on_a_mount_with_nodev_is_named() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("nodev", &sandbox);
    let text = warning(
        "GPU 1 (/dev/nvidia1) is not inside: `/dev/nvidia1` is mounted with nodev, so that every open of `/dev/nvidia1` fails \
         (EACCES) (ask an administrator to mount `/dev/nvidia1` without nodev)",
    );
    assert_eq!(launch.run(&[], &[]), text);
    assert_eq!(launch.run(&["--gpus", "all"], &[]), text);
    assert_eq!(
        launch.run(&["--gpus", "device=1"], &[]),
        error(
            "--gpus device=1: asked for GPU 1, but the job owns GPU 0 (GPU 1 (/dev/nvidia1): its node is on a mount with nodev)",
            "`slipway gpus` shows which GPUs are the job's"
        )
    );
    let step = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "1")];
    let what = "SLURM_STEP_GPUS=1 gives it some, but `/dev/nvidia1` is mounted with nodev, so that every open of \
                `/dev/nvidia1` fails (EACCES)";
    let remedy = "ask an administrator to mount `/dev/nvidia1` without nodev";
    assert_eq!(launch.run(&[], &step), warning(&format!("no GPU is inside: {what} ({remedy})")));
    let text = format!("--gpus 1: no GPU of this node is yours: {what}");
    assert_eq!(launch.run(&["--gpus", "1"], &step), error(&text, remedy));
    sandbox.assert_nothing_left();
}

#[test]
fn mode_and_group_of_a_node_are_named() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("node-mode", &sandbox);
    let what = "`/dev/nvidia0` may not be opened (EACCES): mode 0660, owner root, group video";
    let remedy = "ask an administrator to put you into the group `video`";
    launch.assert_missed("no GPU of this node is yours", what, remedy);
    sandbox.assert_nothing_left();
}

#[test]
fn a_device_cgroup_is_named() {
    need!(root, userns, fuse, cgroup, tool "busybox");
    if !RealHost::has_fences() {
        println!("skipped: there is no devices controller of cgroup v1");
        return;
    }
    let sandbox = sandbox();
    let launch = on("cgroup-denied", &sandbox);
    let what = "the device cgroup of this session denies `/dev/nvidia0` (EPERM)";
    let remedy = "start it inside the step that was given the GPUs: `srun --gpus=1 …`";
    // A step without GPUs in a job that has some.
    assert_eq!(launch.run(&[], &[("SLURM_JOB_ID", "1"), ("SLURM_JOB_GPUS", "0")]), silent());
    launch.assert_missed("no GPU of this node is yours", what, remedy);
    sandbox.assert_nothing_left();
}

#[test]
fn switches_without_a_fabric_manager_are_named() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("fabric-not-ready", &sandbox);
    let text = warning(
        "this node has NVSwitches and no sign of a fabric manager (neither its pid file nor its socket in \
         /run/nvidia-fabricmanager): CUDA may fail with error 802, system not yet initialized (ask an administrator for \
         `systemctl start nvidia-fabricmanager`)",
    );
    assert_eq!(launch.run(&[], &[]), text);
    assert_eq!(launch.run(&["--gpus", "all"], &[]), text);
    assert_eq!(on("dgx-h100", &sandbox).run(&["--gpus", "all"], &[]), silent());
    sandbox.assert_nothing_left();
}

#[test]
fn a_folder_of_a_dead_mps_daemon_is_named() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("stale-mps", &sandbox);
    let folder = launch.host.host.path("tmp/nvidia-mps").display().to_string();
    let env = [("CUDA_MPS_PIPE_DIRECTORY", folder.as_str())];
    let stale = warning(&format!(
        "`{folder}` was left by an MPS daemon that has ended: CUDA may hang or fail with error 805 (remove it (`rm -r \
         {folder}`), or give `-e CUDA_MPS_PIPE_DIRECTORY=/none`)"
    ));
    assert_eq!(launch.run(&[], &env), stale);
    assert_eq!(launch.run(&["--gpus", "all"], &env), stale);
    assert_eq!(launch.run(&["-e", "CUDA_MPS_PIPE_DIRECTORY=/none"], &env), silent());
    // Where /tmp is the container's own, the folder is not inside.
    assert_eq!(launch.run(&["--contain"], &env), silent());
    assert_eq!(launch.run(&["--no-mount", "tmp"], &env), silent());
    let pid_file = |pid: &str| launch.host.host.write("tmp/nvidia-mps/nvidia-cuda-mps-control.pid", pid);
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    pid_file(&format!("{}\n", ended.id()));
    assert_eq!(launch.run(&[], &env), stale);
    // Root's process: kill(2) says EPERM.
    pid_file("1\n");
    assert_eq!(launch.run(&[], &env), silent());
    sandbox.assert_nothing_left();
    // Where nothing is said CUDA looks in /tmp.
    fs::remove_file(launch.host.host.path("tmp/nvidia-mps/nvidia-cuda-mps-control.pid")).unwrap();
    let trouble = gpu::mps_trouble(&launch.host.host.root(), None).unwrap();
    assert!(trouble.what.starts_with("`/tmp/nvidia-mps` was left"), "{trouble}");
}

#[test]
fn libraries_of_a_driver_in_the_image_are_named() {
    need!(root, userns, fuse, tool "busybox");
    let baked = Host::build("baked-libraries").scenario.baked;
    let add = |tar: Tar| {
        baked.iter().fold(tar, |tar, (path, real)| {
            let name = path.strip_prefix("/").unwrap().to_str().unwrap();
            if real.is_empty() {
                return tar.file(name, 0o644, "");
            }
            let place = PathBuf::from(name).with_file_name(real);
            tar.file(place.to_str().unwrap(), 0o644, "an old driver").symlink(name, real)
        })
    };
    let sandbox = with_image(add, &json!("/usr/lib/empty:/opt/old:/nowhere"));
    let launch = on("baked-libraries", &sandbox);
    let tail = "and LD_LIBRARY_PATH has programs find it before the node's driver (give `-e LD_LIBRARY_PATH=`, or remove it \
                from the image)";
    let empty = "of the image is empty, left behind when the image was built with a GPU";
    let expected = format!(
        "warning: `/usr/lib/empty/libcuda.so.1` {empty}, {tail}\nwarning: `/usr/lib/empty/libnvidia-ml.so.1` {empty}, {tail}\n\
         warning: `/opt/old/libcuda.so.1` of the image is that of driver 535.54.03, {tail}\n"
    );
    assert_eq!(launch.run(&[], &[]), (0, expected.clone()));
    assert_eq!(launch.run(&["--gpus", "all"], &[]), (0, expected));
    assert_eq!(launch.run(&["-e", "LD_LIBRARY_PATH="], &[]), silent());
    assert_eq!(launch.run(&["--gpus", "none"], &[]), silent());
    let (_, explained, _) = launch.output(&["--explain"], &[]);
    let passed = format!("  `/usr/lib64/libcuda.so.1` {empty}; the loader's cache passes it by\n");
    assert!(explained.contains(&passed), "{explained}");
    sandbox.assert_nothing_left();
}

#[test]
fn a_gpu_that_the_driver_leaves_out_is_named() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("excluded-gpu", &sandbox);
    let what = "the nvidia driver is loaded and shows no GPU; GPU 0000:07:00.0 is excluded by the driver's configuration";
    let remedy = "ask an administrator: `dmesg` says what the driver did with the GPUs";
    launch.assert_missed("this node has no GPU that can be used", what, remedy);
    sandbox.assert_nothing_left();
}

#[test]
fn an_update_without_a_reboot_is_named() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("driver-mismatch", &sandbox);
    let what = "driver/library version mismatch: kernel module 550.54.15, libraries 550.90.07; CUDA fails until the module is \
                loaded again";
    assert_eq!(launch.run(&[], &[]), warning(&format!("{what} (reboot the node)")));
    let text = format!("--gpus all: the GPUs cannot be used: {what}");
    assert_eq!(launch.run(&["--gpus", "all"], &[]), error(&text, "reboot the node"));
    sandbox.assert_nothing_left();
}

#[test]
fn a_missing_driver_is_named_where_gpus_were_promised() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("no-driver", &sandbox);
    let what = "no NVIDIA driver is loaded (neither /sys/module/nvidia nor /proc/driver/nvidia nor /dev/nvidiactl exists); no AMD GPU (/sys/class/kfd); no discrete Intel GPU; no Gaudi";
    assert_eq!(launch.run(&[], &[]), silent());
    let remedy =
        "leave out --gpus to run the same command on nodes with and without GPUs, or start it on a GPU node";
    assert_eq!(
        launch.run(&[], &STEP),
        warning(&format!(
            "no GPU is inside: SLURM_STEP_GPUS=0 gives it some, but {what} (ask an administrator to load the driver (`modprobe \
             nvidia`), or start it on another node)"
        ))
    );
    let text = format!("--gpus all: this node has no GPU that can be used: {what}");
    assert_eq!(launch.run(&["--gpus", "all"], &[]), error(&text, remedy));
    sandbox.assert_nothing_left();
}

#[test]
fn a_driver_without_nvml_is_named() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("uvm-missing", &sandbox);
    let directory = launch.host.host.library_directory();
    for entry in fs::read_dir(launch.host.host.path(&directory.to_str().unwrap()[1..])).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("libnvidia-ml.so") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    assert_eq!(
        launch.run(&["--gpus", "all,capabilities=utility"], &[]),
        warning(
            "libnvidia-ml.so.1 is missing among the driver's libraries, so `nvidia-smi` and NVML fail (install the driver's \
             libraries whole)"
        )
    );
    let libraries = launch.host.host.path(&directory.to_str().unwrap()[1..]);
    fs::remove_dir_all(libraries).unwrap();
    let text = "the driver's libraries were not found: there is no libcuda.so.1 for this machine";
    let remedy = "install those of the driver's version, or name their directory in LD_LIBRARY_PATH";
    let flags = ["--gpus", "all,capabilities=utility"];
    assert_eq!(
        launch.run(&flags, &[]),
        error(&format!("--gpus all: the GPUs cannot be used: {text}"), remedy)
    );
    sandbox.assert_nothing_left();
}

#[test]
fn an_image_with_musl_is_named_to_who_asks_for_gpus() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = Sandbox::new();
    let mut image = TestImage::busybox();
    let loader = format!("lib/ld-musl-{}.so.1", std::env::consts::ARCH);
    image.layers.push(Tar::new().file(&loader, 0o755, "a loader").finish());
    image.convert(&sandbox, "gpu.sif");
    let launch = on("dgx-h100", &sandbox);
    let text = "the image has musl, which cannot load the driver's libraries: they are made for glibc (use an image with glibc, \
                such as one of Debian, Ubuntu or Rocky Linux)";
    assert_eq!(launch.run(&[], &[]), silent());
    assert_eq!(launch.run(&["--gpus", "all"], &[]), warning(text));
    let (_, explained, _) = launch.output(&["--explain"], &[]);
    assert!(explained.contains(&format!("\n  {text}\n")), "{explained}");
    sandbox.assert_nothing_left();
}

#[test]
fn an_outer_container_that_hides_the_nodes_is_named() {
    let find = |sign: &str, content: &str| {
        let host = Host::build("dgx-h100");
        for gpu in &host.scenario.gpu {
            fs::remove_file(host.path(&format!("dev/nvidia{}", gpu.minor))).unwrap();
        }
        host.write(sign, content);
        let (root, inventory) = (host.root(), read_inventory(&host.root(), &Hints::default()));
        let access = read_access(&root, &inventory);
        let mut owned = gpu::granted(&inventory, &Default::default(), &access);
        gpu::explain_lack(&mut owned, &inventory, &access, &root, Asked::InWords);
        (owned.reason, owned.remedy.unwrap())
    };
    let missing = "`/dev/nvidia0` does not exist";
    for (sign, content, whose, remedy) in [
        (".dockerenv", "", "docker", "start the outer container with the GPUs: `docker run --gpus all …`"),
        (
            "run/.containerenv",
            "",
            "podman",
            "start the outer container with the GPUs: `podman run --gpus all …`",
        ),
        (".singularity.d/env", "", "Apptainer", "start the outer container with `--nv`"),
        (".slipway/run", "", "slipway", "start the outer container with the GPUs"),
        (
            "proc/version",
            "Linux version 4.19.0-gvisor #1 SMP\n",
            "gVisor",
            "start the sandbox with `--nvproxy` and with the GPUs",
        ),
    ] {
        let what = format!("{missing}, and this is inside of a container ({whose}) that may hide it");
        assert_eq!(find(sign, content), (what, remedy.to_owned()));
    }
    let bare = find("etc/hostname", "");
    assert_eq!(bare, (missing.to_owned(), "ask an administrator to run `nvidia-modprobe -c 0`".to_owned()));
}

#[test]
fn nvml_that_hangs_delays_no_start() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("nvml-hang", &sandbox);
    // A start that had asked would say after the deadline that nothing was answered.
    assert_eq!(launch.run(&["--gpus", "all"], &[]), silent());
    assert_eq!(launch.run(&[], &STEP), silent());
    sandbox.assert_nothing_left();
}

#[test]
fn explain_lists_all_of_the_driver_with_its_rule() {
    need!(root, userns, fuse, tool "busybox");
    let sandbox = sandbox();
    let launch = on("dgx-h100", &sandbox);
    let step = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_GPUS", "2"), ("CUDA_VISIBLE_DEVICES", "2")];
    let (code, text, _) = launch.output(&["--explain"], &step);
    assert_eq!(code, 0, "{text}");
    let version = "550.54.15";
    for line in [
        "  CUDA_VISIBLE_DEVICES    granted  the step's choice, in numbers of the inside".to_owned(),
        "  NVIDIA_VISIBLE_DEVICES  granted  the GPUs are inside already, and no hook must add them again"
            .into(),
        "  /dev/nvidia3 (rw)  granted  GPU 2: the notes say by which rule".into(),
        "  /dev/nvidiactl (rw)  granted  every GPU needs it".into(),
        "  /etc/ld.so.cache  granted  the image's with the driver's libraries in it".into(),
        "  /usr/bin/nvidia-smi (ro)  granted  a program of the driver, for utility".into(),
        "  GPU 2 (/dev/nvidia3) is inside: SLURM_STEP_GPUS=2".into(),
        "  GPU 7 (/dev/nvidia6) is not inside: SLURM_STEP_GPUS=2".into(),
        "  /dev/nvidia-modeset is not inside: graphics and display alone need it, and are not asked for"
            .into(),
        "  /dev/nvidia-nvswitchctl is not inside: it is the fabric manager's".into(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let directory = launch.host.host.library_directory();
    for (name, purpose) in [("libcuda", "compute"), ("libnvidia-ml", "utility"), ("libnvcuvid", "video")] {
        let file = format!("{name}.so.{version}");
        let line = format!(
            "  /.slipway/run/lib/{file} <- {}/{file} (ro)  granted  a library of the driver, for {purpose}",
            directory.display()
        );
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let left_out = "graphics libraries of `";
    assert!(
        text.contains(left_out) && text.contains("` are not inside: libGLX_nvidia.so.550.54.15"),
        "{text}"
    );
    sandbox.assert_nothing_left();
}

/// What a start with eight GPUs does in its own process, by strace: one process and no more (`strace -f` would stop the
/// file server too). The first start of a boot finds the driver's files, and later ones know them.
#[test]
fn a_start_asks_no_nvml_and_opens_no_node() {
    need!(root, userns, fuse, tool "busybox", tool "strace");
    let sandbox = sandbox();
    sandbox.make_directory("state");
    fs::set_permissions(sandbox.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let host = RealHost::build("dgx-h100");
    let trace = sandbox.path("home/trace");
    let run = |gpus: &str| {
        let (program, image) = (sandbox.program(), sandbox.path("home/gpu.sif"));
        let argv = ["strace", "-qq", "-s", "256", "-o", trace.to_str().unwrap(), program.to_str().unwrap()];
        let argv =
            [&argv[..], &["run", "--no-join", "--gpus", gpus, image.to_str().unwrap(), "true"]].concat();
        let output = host
            .command(&argv)
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("HOME", sandbox.path("home").to_str().unwrap())])
            .env("SLIPWAY_RUNTIME_DIR", sandbox.path("state"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read_to_string(&trace).unwrap()
    };
    let count = |text: &str, call: &str| text.lines().filter(|line| line.starts_with(call)).count();
    let processes = |text: &str| count(text, "clone") + count(text, "fork") + count(text, "vfork");
    let (first, warm, without) = (run("all"), run("all"), run("none"));
    for (kind, text) in [("first", &first), ("warm", &warm)] {
        let opens = |what: &str| {
            // Neither what is only taken hold of to be mounted nor a mount point that is made (O_EXCL) is opened, and a
            // directory is no node.
            let is_open = |line: &&str| {
                line.starts_with("openat")
                    && !["O_PATH", "O_EXCL", "O_DIRECTORY"].iter().any(|flag| line.contains(flag))
            };
            let lines = text.lines().filter(is_open).filter(|line| line.contains(what));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(text.contains("/proc/driver/nvidia/gpus"), "the driver is not looked at: {text}");
        assert_eq!(opens("/dev/nvidia"), Vec::<String>::new(), "{kind}");
        assert_eq!(processes(text), processes(&without), "{kind}");
        // The first start reads the heads of the libraries for their names; nothing maps one.
        let mapped = text.lines().any(|line| line.contains("libnvidia-ml") && line.contains("PROT_EXEC"));
        assert!(!mapped, "{kind}");
        if kind == "warm" {
            assert_eq!(opens("libnvidia-ml"), Vec::<String>::new());
            assert_eq!(opens("libcuda"), Vec::<String>::new());
        }
        println!("{kind}: {} calls, without GPUs {}", text.lines().count(), without.lines().count());
    }
    sandbox.assert_nothing_left();
}

/// Prints what eight GPUs add to a warm start, in milliseconds: medians of turns, with the program that SLIPWAY names.
const TURNS: &str = r#"
import os, statistics, subprocess, sys, time
program, image, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
times = {"none": [], "all": []}
for turn in range(rounds + 5):
    for gpus, found in times.items():
        start = time.perf_counter()
        subprocess.run([program, "run", "--no-join", "--gpus", gpus, image, "true"], check=True)
        if turn >= 5:
            found.append((time.perf_counter() - start) * 1000)
none, all = (statistics.median(times[gpus]) for gpus in ("none", "all"))
print(f"without GPUs {none:.2f} ms, with 8 GPUs {all:.2f} ms, added {all - none:.2f} ms (medians of {rounds})")
"#;

#[test]
fn eight_gpus_cost_a_warm_start_little() {
    need!(long, root, userns, fuse, tool "busybox", tool "python3");
    let sandbox = sandbox();
    sandbox.make_directory("state");
    fs::set_permissions(sandbox.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let host = RealHost::build("dgx-h100");
    let program = match std::env::var_os("SLIPWAY") {
        Some(program) => place(Path::new(&program), &sandbox.make_directory("named")),
        None => sandbox.program(),
    };
    let image = sandbox.path("home/gpu.sif");
    let argv = ["python3", "-c", TURNS, program.to_str().unwrap(), image.to_str().unwrap(), "100"];
    let output = host
        .command(&argv)
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("HOME", sandbox.path("home").to_str().unwrap())])
        .env("SLIPWAY_RUNTIME_DIR", sandbox.path("state"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A figure to be read, and no limit: it is the machine's as much as ours.
    println!("{}", String::from_utf8_lossy(&output.stdout));
}
