//! CDI on built hosts: devices of JSON and YAML files on the real launch path, files that are out of date, and the file
//! that slipway writes, as podman takes it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::gpu_cli::{home, sif_of, slipway, stderr, stdout};
use crate::support::host::Host;

const VERSION: &str = "550.54.15";

fn libraries() -> String {
    format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH)
}

/// A file as NVIDIA's tool writes it, for GPUs by their indices, which are not all their minors.
fn nvidia_spec() -> Value {
    let lib = libraries();
    let mount = |path: String| json!({"hostPath": path, "containerPath": path, "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"]});
    let hook = |args: &[&str]| {
        let args = [&["nvidia-cdi-hook"], args].concat();
        json!({"hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook",
               "args": args, "env": ["NVIDIA_CTK_DEBUG=false"]})
    };
    let device = |name: &str, nodes: &[&str]| {
        let nodes: Vec<_> = nodes.iter().map(|path| json!({ "path": path })).collect();
        json!({"name": name, "containerEdits": {"deviceNodes": nodes}})
    };
    json!({
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [
            device("0", &["/dev/nvidia0"]),
            device("2", &["/dev/nvidia3"]),
            device("all", &["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2", "/dev/nvidia3"]),
        ],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void", format!("NVIDIA_CTK_LIBCUDA_DIR={lib}")],
            "deviceNodes": [{"path": "/dev/nvidiactl"}, {"path": "/dev/nvidia-uvm"}],
            "mounts": [
                mount(format!("{lib}/libcuda.so.{VERSION}")),
                mount(format!("{lib}/libnvidia-ml.so.{VERSION}")),
                mount("/usr/bin/nvidia-smi".into()),
            ],
            "hooks": [
                hook(&["create-symlinks", "--link", &format!("libcuda.so.1::{lib}/libcuda.so")]),
                hook(&["enable-cuda-compat", &format!("--host-driver-version={VERSION}")]),
                hook(&["update-ldcache", "--folder", &lib]),
                hook(&["disable-device-node-modification"]),
            ],
        },
    })
}

fn image(home: &Path) -> PathBuf {
    // The fake driver libraries are made by rustc and need this one; an image for CUDA has it.
    let unwinder = format!("/lib/{}-linux-gnu/libgcc_s.so.1", std::env::consts::ARCH);
    sif_of(&["/bin/sh", "/bin/ls", "/bin/true", "/bin/cat", &unwinder], home)
}

const LOOK: &str = "ls -d /dev/nvidia*; echo $CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES $NVIDIA_CTK_LIBCUDA_DIR; nvidia-smi; \
                    cat /proc/driver/nvidia/params; LD_PRELOAD='libcuda.so libnvidia-ml.so.1' /bin/true && echo loaded";

fn run(host: &Host, home: &Path, flags: &[&str], step: &str) -> Output {
    let sif = home.join("gpu.sif");
    let args = [&["run"], flags, &[sif.to_str().unwrap(), "/bin/sh", "-c", LOOK]].concat();
    let mut command = slipway(host, home, &args);
    command.env("SLIPWAY_LAUNCH_LINGER", "0").env("SLURM_JOB_ID", "1").env("SLURM_STEP_GPUS", step);
    command.output().unwrap()
}

#[test]
fn devices_of_json_and_yaml_are_inside() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("dgx-h100"), home());
    image(home.path());
    let json = nvidia_spec().to_string();
    let yaml = slipway::cdi::Spec::parse(json.as_bytes()).unwrap().to_yaml();
    let inside = |nodes: &str| {
        format!(
            "/dev/nvidia-uvm\n{nodes}/dev/nvidiactl\nvoid /.slipway/run/lib\nfake nvidia-smi\nModifyDeviceFiles: 0\n\
             DeviceFileMode: 438\nloaded\n"
        )
    };
    for (name, text) in [("nvidia.json", &json), ("nvidia.yaml", &yaml)] {
        let _ = fs::remove_dir_all(host.path("etc/cdi"));
        host.write(&format!("etc/cdi/{name}"), text);
        let output = run(&host, home.path(), &["--device", "nvidia.com/gpu=2"], "0-7");
        assert_eq!(stdout(&output), inside("/dev/nvidia3\n"), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
        // All are all of the job's.
        let output = run(&host, home.path(), &["--device", "nvidia.com/gpu=all"], "0,2");
        assert_eq!(stdout(&output), inside("/dev/nvidia0\n/dev/nvidia3\n"), "{}", stderr(&output));
    }
    let devices = ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=2"];
    let output = run(&host, home.path(), &devices, "0,2");
    assert_eq!(stdout(&output), inside("/dev/nvidia0\n/dev/nvidia3\n"), "{}", stderr(&output));
    let output = run(&host, home.path(), &["--device", "nvidia.com/gpu=2", "--explain"], "0,2");
    let explained = stdout(&output);
    assert!(explained.contains("--device nvidia.com/gpu=2, `/etc/cdi/nvidia.yaml`"), "{explained}");
    assert!(explained.contains("the image has no CUDA compatibility libraries"), "{explained}");
}

#[test]
fn gpus_of_others_and_gpus_asked_for_twice_are_refused() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("dgx-h100"), home());
    image(home.path());
    host.write("etc/cdi/nvidia.json", &nvidia_spec().to_string());
    let check = |flags: &[&str], expected: &str| {
        let output = run(&host, home.path(), flags, "0");
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(125), expected), "{flags:?}");
    };
    check(
        &["--device", "nvidia.com/gpu=2"],
        "error: --device nvidia.com/gpu=2: asked for GPU 2, but the job owns GPU 0 (SLURM_STEP_GPUS=0)\n  \
         hint: `slipway gpus` shows which GPUs are the job's\n",
    );
    check(
        &["--device", "nvidia.com/gpu=0", "--gpus", "all"],
        "error: GPUs are asked for twice: by `--device nvidia.com/gpu=0` and by `--gpus`\n  hint: leave one of them out\n",
    );
    check(
        &["--device", "nvidia.com/gpu=7"],
        "error: there is no CDI device `nvidia.com/gpu=7`: of `nvidia.com/gpu` there are 0, 2, all\n  \
         hint: `slipway cdi list` shows the devices of this node\n",
    );
    check(
        &["--device", "nvidia.com/gpu="],
        "error: `nvidia.com/gpu=` is no name of a CDI device: the device is empty\n  \
         hint: write it as `slipway cdi list` shows it, such as nvidia.com/gpu=0\n",
    );
}

#[test]
fn other_devices_come_beside_the_gpus_and_from_configured_directories() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("dgx-h100"), home());
    image(home.path());
    let specs = home.path().join("specs");
    fs::create_dir(&specs).unwrap();
    let device = json!({"name": "x", "containerEdits": {
        "env": ["FABRIC=1"], "deviceNodes": [{"path": "/dev/nvidia-fabric", "hostPath": "/dev/zero"}]}});
    let spec = json!({"cdiVersion": "0.6.0", "kind": "site.example/fabric", "devices": [device]});
    fs::write(specs.join("fabric.json"), spec.to_string()).unwrap();
    let sif = home.path().join("gpu.sif");
    let script = "ls -d /dev/nvidia*; echo $FABRIC";
    let args = ["run", "--device", "site.example/fabric=x", sif.to_str().unwrap(), "/bin/sh", "-c", script];
    let mut command = slipway(&host, home.path(), &args);
    command.env("SLIPWAY_LAUNCH_LINGER", "0").env("SLURM_JOB_ID", "1").env("SLURM_STEP_GPUS", "0");
    let output = command.env("SLIPWAY_CDI_SPEC_DIRS", &specs).output().unwrap();
    assert_eq!(
        stdout(&output),
        "/dev/nvidia-fabric\n/dev/nvidia-uvm\n/dev/nvidia-uvm-tools\n/dev/nvidia0\n/dev/nvidiactl\n1\n",
        "{}",
        stderr(&output)
    );
}

#[test]
fn file_that_is_out_of_date_is_named_with_the_remedy() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("dgx-h100"), home());
    image(home.path());
    let check = |from: &str, to: &str, expected: &str| {
        host.write("etc/cdi/nvidia.json", &nvidia_spec().to_string().replace(from, to));
        let output = run(&host, home.path(), &["--device", "nvidia.com/gpu=0"], "0");
        let remedy = "  hint: write it anew with `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.json` or `slipway cdi \
                      generate --output /etc/cdi/nvidia.json`\n";
        let expected =
            format!("error: the CDI device {expected}: `/etc/cdi/nvidia.json` is out of date\n{remedy}");
        assert_eq!((output.status.code(), stderr(&output)), (Some(125), expected));
        let output = slipway(&host, home.path(), &["cdi", "check"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    };
    let lib = libraries();
    check(
        VERSION,
        "535.1.1",
        &format!(
            "file's part for all devices wants the file `{lib}/libcuda.so.535.1.1`, which this node does not have"
        ),
    );
    check(
        "/dev/nvidia0",
        "/dev/nvidia9",
        "`nvidia.com/gpu=0` wants the device node `/dev/nvidia9`, which this node does not have",
    );
}

#[test]
fn generated_file_has_all_devices_and_runs() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("dgx-a100"), home());
    image(home.path());
    let file = home.path().join("nvidia.json");
    let args = ["cdi", "generate", "--output", file.to_str().unwrap()];
    let output = slipway(&host, home.path(), &args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let devices = spec["devices"].as_array().unwrap();
    let names: Vec<&str> = devices.iter().map(|device| device["name"].as_str().unwrap()).collect();
    for name in ["0", "GPU-00000000-a100-4040-8080-000000000000", "2:0", "2:1", "2:2", "5:1", "all"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(!names.contains(&"2") && names.iter().any(|name| name.starts_with("MIG-")), "{names:?}");
    host.write("etc/cdi/nvidia.json", &fs::read_to_string(&file).unwrap());
    let listed = stdout(&slipway(&host, home.path(), &["cdi", "list"]).output().unwrap());
    assert!(listed.contains("nvidia.com/gpu=2:1"), "{listed}");
    let output = slipway(&host, home.path(), &["cdi", "check"]).output().unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    // One instance, and the capability files of that alone.
    let sif = home.path().join("gpu.sif");
    let script = "ls -d /dev/nvidia? /dev/nvidia-caps/*; cd /proc/driver/nvidia/capabilities && ls -d */mig/*/access */mig/*/*/access";
    let args = ["run", "--device", "nvidia.com/gpu=2:1", sif.to_str().unwrap(), "/bin/sh", "-c", script];
    let output = slipway(&host, home.path(), &args).env("SLIPWAY_LAUNCH_LINGER", "0").output().unwrap();
    let text = stdout(&output);
    assert!(
        text.starts_with("/dev/nvidia-caps/nvidia-cap") && text.contains("/dev/nvidia0\n"),
        "{text}{}",
        stderr(&output)
    );
    assert_eq!(text.lines().count(), 5, "{text}{}", stderr(&output));
}

#[test]
fn bundle_has_the_devices_as_mounts() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("dgx-h100"), home());
    let sif = image(home.path());
    host.write("etc/cdi/nvidia.json", &nvidia_spec().to_string());
    let bundle = home.path().join("bundle");
    let target = format!("bundle:{}", bundle.display());
    let args = ["convert", "--device", "nvidia.com/gpu=2", sif.to_str().unwrap(), &target];
    let output = slipway(&host, home.path(), &args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let spec: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    let source_of = |target: &str| {
        let mounts = spec["mounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["destination"] == target).map(|mount| mount["source"].clone())
    };
    assert_eq!(source_of("/dev/nvidia3"), Some("/dev/nvidia3".into()));
    let cuda = format!("{}/libcuda.so.{VERSION}", libraries());
    assert_eq!(source_of("/.slipway/run/lib/libcuda.so"), Some(cuda.into()));
    assert!(spec["process"]["env"].as_array().unwrap().contains(&"NVIDIA_VISIBLE_DEVICES=void".into()));
}

#[test]
fn what_is_wrong_with_files_is_told() {
    need!(userns, tool "unshare", tool "setpriv");
    let (host, home) = (Host::build("no-driver"), home());
    let output = slipway(&host, home.path(), &["cdi", "generate"]).output().unwrap();
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (
            Some(1),
            "error: there is no GPU on this node for which a CDI specification can be written\n  \
             hint: `slipway gpus` shows what the node has\n"
        )
    );
    let hook = json!({"hookName": "prestart", "path": "/opt/hook"});
    let device = json!({"name": "x", "containerEdits": {"hooks": [hook]}});
    let spec = json!({"cdiVersion": "0.3.0", "kind": "v/c", "devices": [device]}).to_string();
    host.write("etc/cdi/a.json", &spec);
    host.write("etc/cdi/b.yaml", "cdiVersion: 0.3.0\nkinds: v/c\n");
    let output = slipway(&host, home.path(), &["cdi", "check"]).output().unwrap();
    assert_eq!(
        stdout(&output),
        "`/etc/cdi/b.yaml`: it is no CDI specification: unknown field `kinds`, expected one of `cdiVersion`, `kind`, \
         `annotations`, `devices`, `containerEdits`\nthe CDI device `v/c=x` wants the hook `/opt/hook` to be run, and hooks \
         are not: `/etc/cdi/a.json`\n"
    );
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(1), "error: 2 of 2 things are wrong\n")
    );
    let file = host.path("etc/cdi/a.json");
    let args = ["cdi", "check", file.to_str().unwrap()];
    let output =
        slipway(&host, home.path(), &args).env("SLIPWAY_CDI_IGNORE_HOOKS", "/opt/hook").output().unwrap();
    assert_eq!(stdout(&output), format!("v/c=x: can be used, by `{}`\n", file.display()));
    host.write("etc/cdi/b.yaml", &spec);
    let listed = stdout(&slipway(&host, home.path(), &["cdi", "ls"]).output().unwrap());
    assert_eq!(listed, "DEVICE    FILE\nv/c=x     /etc/cdi/a.json and /etc/cdi/b.yaml: it cannot be used\n");
}

/// Debian's podman runs a container from our file, its hooks included, as root of the fake host's namespace.
#[test]
fn podman_takes_the_generated_file() {
    need!(userns, root, tool "unshare", tool "setpriv", tool "podman", tool "crun", tool "busybox");
    let (host, home) = (Host::build("dgx-h100"), home());
    let log = home.path().join("hooks.log");
    host.write("usr/bin/nvidia-cdi-hook", &format!("#!/bin/sh\necho \"$@\" >>{}\n", log.display()));
    fs::set_permissions(host.path("usr/bin/nvidia-cdi-hook"), fs::Permissions::from_mode(0o755)).unwrap();
    let output = slipway(&host, home.path(), &["cdi", "generate"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    host.write("etc/cdi/nvidia.yaml", &stdout(&output));
    let root = home.path().join("root");
    for directory in ["bin", "dev", "proc", "sys", "tmp", "etc", "run", "usr/bin", "usr/lib"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let storage = home.path().join("storage");
    fs::create_dir(&storage).unwrap();
    for path in [&root, &storage] {
        let owned =
            std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(path).status().unwrap();
        assert!(owned.success());
    }
    let at = |name: &str| storage.join(name).to_str().unwrap().to_owned();
    let (graph, run, temporary) = (at("graph"), at("run"), at("tmp"));
    let runtime = format!("root={}", at("crun"));
    let script = "for node in /dev/nvidia*; do echo $node; done; echo $NVIDIA_VISIBLE_DEVICES; cd $NVIDIA_CTK_LIBCUDA_DIR; \
                  for file in libcuda*; do echo $file; done";
    let argv = [
        "podman",
        "--root",
        &graph,
        "--runroot",
        &run,
        "--tmpdir",
        &temporary,
        "--storage-driver",
        "vfs",
        "--runtime",
        "crun",
        "--runtime-flag",
        &runtime,
        "--cgroup-manager",
        "cgroupfs",
        "--events-backend",
        "none",
        "run",
        "--rm",
        "--cgroups",
        "disabled",
        "--network",
        "host",
        "--security-opt",
        "seccomp=unconfined",
        "--ulimit",
        "nofile=512:512",
        "--ulimit",
        "nproc=512:512",
        "--volume",
        "/dev/pts:/dev/pts",
        "--device",
        "nvidia.com/gpu=2",
        "--rootfs",
        root.to_str().unwrap(),
        "/bin/busybox",
        "sh",
        "-c",
        script,
    ];
    // Where version 2 of the control groups is mounted beside version 1, crun does not start; without it, it does.
    let hide = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    let inner = host.command_as_root(&argv);
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", hide, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", &storage)
        .output()
        .unwrap();
    assert_eq!(
        stdout(&output),
        format!(
            "/dev/nvidia-modeset\n/dev/nvidia-uvm\n/dev/nvidia-uvm-tools\n/dev/nvidia3\n/dev/nvidiactl\nvoid\n\
             libcuda.so.{VERSION}\nlibcudadebugger.so.{VERSION}\n"
        ),
        "{}",
        stderr(&output)
    );
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains(&format!("update-ldcache --folder {}\n", libraries())), "{log}");
    assert!(log.contains(&format!("libcuda.so.1::{}/libcuda.so", libraries())), "{log}");
}
