//! The program on built hosts: `slipway gpus`, and GPUs in a container on the real launch path.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest as _, Sha256};

use crate::support::host::Host;
use crate::support::sandbox::place;

const SLIPWAY: &str = env!("CARGO_BIN_EXE_slipway");

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory that the ordinary user of [`Host::run`] may write, as its home.
pub(crate) fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    home
}

pub(crate) fn slipway(host: &Host, home: &Path, args: &[&str]) -> Command {
    let program = place(Path::new(SLIPWAY), home);
    let mut command = host.command(&[&[program.to_str().unwrap()], args].concat());
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", home);
    command
}

/// A docker archive of programs of this machine with the libraries that `ldd` names, and no loader cache.
fn archive_of(programs: &[&str], env: &[&str], home: &Path) -> PathBuf {
    let root = home.join("root");
    let mut files: BTreeSet<PathBuf> = programs.iter().map(PathBuf::from).collect();
    for program in programs {
        let output = Command::new("ldd").arg(program).output().unwrap();
        files.extend(
            stdout(&output).split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from),
        );
    }
    for file in files {
        let inside = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(fs::canonicalize(&file).unwrap(), &inside).unwrap();
    }
    let tar = |archive: &Path, directory: &Path| {
        let status =
            Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(directory).arg(".").status().unwrap();
        assert!(status.success());
    };
    let image = home.join("image");
    fs::create_dir_all(&image).unwrap();
    tar(&image.join("layer.tar"), &root);
    let diff = Sha256::digest(fs::read(image.join("layer.tar")).unwrap());
    let diff: String = diff.iter().map(|byte| format!("{byte:02x}")).collect();
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let env = serde_json::to_string(&[&["PATH=/usr/bin:/bin"], env].concat()).unwrap();
    let config = format!(
        "{{\"architecture\":\"{architecture}\",\"os\":\"linux\",\"config\":{{\"Env\":{env},\"Cmd\":[\"/bin/true\"]}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:{diff}\"]}}}}"
    );
    fs::write(image.join("config.json"), config).unwrap();
    let manifest = "[{\"Config\":\"config.json\",\"RepoTags\":[\"gpu:test\"],\"Layers\":[\"layer.tar\"]}]";
    fs::write(image.join("manifest.json"), manifest).unwrap();
    let archive = home.join("image.tar");
    tar(&archive, &image);
    archive
}

/// The archive as a SIF that the ordinary user may read.
pub(crate) fn sif_of(programs: &[&str], home: &Path) -> PathBuf {
    sif_with(programs, &[], home)
}

/// The same with variables.
fn sif_with(programs: &[&str], env: &[&str], home: &Path) -> PathBuf {
    let sif = home.join("gpu.sif");
    convert(&archive_of(programs, env, home), &sif, home);
    sif
}

/// Makes a SIF, which the ordinary user may read, of an archive.
pub(crate) fn convert(archive: &Path, sif: &Path, home: &Path) {
    let output = Command::new(SLIPWAY)
        .arg("convert")
        .arg(format!("docker-archive:{}", archive.display()))
        .arg(sif)
        .env("HOME", home)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    fs::set_permissions(sif, fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn gpus_lists_what_the_node_has() {
    need!(userns, tool "unshare", tool "setpriv");
    let (host, home) = (Host::build("dgx-h100"), home());
    let output = slipway(&host, home.path(), &["gpus", "--json"])
        .env("SLURM_JOB_ID", "1")
        .env("SLIPWAY_LAUNCH_LINGER", "0")
        .env("SLURM_STEP_GPUS", "2")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["driver_version"], "550.54.15");
    assert_eq!(json["cuda_version"], "12.4");
    let gpus = json["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), 8);
    assert_eq!((&gpus[2]["minor"], &gpus[2]["owned"]), (&3.into(), &true.into()));
    assert_eq!((&gpus[3]["minor"], &gpus[3]["owned"]), (&2.into(), &false.into()));
    assert_eq!(gpus[0]["memory_bytes"], 81_559_u64 << 20);

    let table = stdout(&slipway(&host, home.path(), &["gpus"]).output().unwrap());
    assert!(table.starts_with("nvidia driver 550.54.15, CUDA 12.4\nINDEX   NAME"), "{table}");
}

#[test]
fn gpus_answers_though_nvml_hangs() {
    need!(userns, tool "unshare", tool "setpriv");
    let (host, home) = (Host::build("nvml-hang"), home());
    let output = slipway(&host, home.path(), &["gpus", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["gpus"].as_array().unwrap().len(), 2);
    assert!(json["findings"].to_string().contains("NVML hung: no answer after"), "{json}");
}

#[test]
fn node_without_driver_is_an_empty_list() {
    need!(userns, tool "unshare", tool "setpriv");
    let (host, home) = (Host::build("no-driver"), home());
    let output = slipway(&host, home.path(), &["gpus", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["gpus"], serde_json::json!([]));
}

#[test]
fn container_has_exactly_the_gpus_of_the_job() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("dgx-h100"), home());
    // The fake driver libraries are made by rustc and need this one; an image for CUDA has it.
    let unwinder = format!("/lib/{}-linux-gnu/libgcc_s.so.1", std::env::consts::ARCH);
    let sif = sif_of(&["/bin/sh", "/bin/ls", "/bin/true", &unwinder], home.path());
    let script = "ls -d /dev/nvidia*; echo $CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES; nvidia-smi; \
                  LD_PRELOAD='libcuda.so libnvidia-ml.so.1' /bin/true && echo loaded";
    let output = slipway(&host, home.path(), &["run", sif.to_str().unwrap(), "/bin/sh", "-c", script])
        .env("SLURM_JOB_ID", "1")
        .env("SLIPWAY_LAUNCH_LINGER", "0")
        .env("SLURM_STEP_GPUS", "2,5")
        .env("CUDA_VISIBLE_DEVICES", "5")
        .output()
        .unwrap();
    let expected = "/dev/nvidia-uvm\n/dev/nvidia-uvm-tools\n/dev/nvidia3\n/dev/nvidia5\n/dev/nvidiactl\n\
                    GPU-00000005-1b1b-4343-5252-000000000005 void\nfake nvidia-smi\nloaded\n";
    assert_eq!(stdout(&output), expected, "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[test]
fn an_image_for_a_newer_driver_is_refused_before_the_start() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("dgx-h100"), home());
    let needs = "NVIDIA_REQUIRE_CUDA=cuda>=12.6 brand=geforce,driver>=550,driver<551 brand=tesla,driver>=535,driver<536";
    let sif = sif_with(&["/bin/true"], &[needs], home.path());
    let run = |flags: &[&str]| {
        let args = [&["run"], flags, &[sif.to_str().unwrap(), "/bin/true"]].concat();
        let output = slipway(&host, home.path(), &args).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let refusal = "error: the image needs cuda>=12.6 or one of 2 other combinations (NVIDIA_REQUIRE_CUDA), and this node has \
                   CUDA 12.4, driver 550.54.15, NVIDIA H100 80GB HBM3\n  hint: use an image for this driver's CUDA or an \
                   older one, or try all the same with --ignore-require\n";
    assert_eq!(run(&[]), (Some(125), refusal.to_owned()));
    assert_eq!(run(&["--ignore-require"]), (Some(0), String::new()));
    assert_eq!(run(&["--gpus", "none"]), (Some(0), String::new()));
}

#[test]
fn container_without_gpus_has_nothing_of_the_driver() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let home = home();
    let sif = sif_of(&["/bin/sh", "/bin/ls"], home.path());
    let script =
        "for f in /dev/nvidia* /.slipway/run/lib/* /etc/ld.so.cache; do [ -e $f ] && echo $f; done; true";
    for (scenario, flags) in [("dgx-h100", &["--gpus", "none"][..]), ("no-driver", &[])] {
        let host = Host::build(scenario);
        let args = [&["run"], flags, &[sif.to_str().unwrap(), "/bin/sh", "-c", script]].concat();
        let output = slipway(&host, home.path(), &args).output().unwrap();
        assert_eq!((stdout(&output).as_str(), output.status.code()), ("", Some(0)), "{}", stderr(&output));
    }
    let host = Host::build("no-driver");
    let args = ["run", "--gpus", "all", sif.to_str().unwrap(), "/bin/true"];
    let output = slipway(&host, home.path(), &args).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("no NVIDIA driver is loaded"), "{}", stderr(&output));
}

/// The lines that NVIDIA's and AMD's own documents have people copy, unchanged but for the program's name.
#[test]
fn the_vendors_idioms_run_unchanged() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    let (host, home) = (Host::build("dgx-h100"), home());
    for node in ["dev/kfd", "dev/dri/renderD128", "dev/dri/card0", "dev/infiniband/uverbs0"] {
        host.write(node, "");
        fs::set_permissions(host.path(node), fs::Permissions::from_mode(0o666)).unwrap();
    }
    let sif = sif_of(&["/bin/sh", "/bin/ls"], home.path());
    let sif = sif.to_str().unwrap();
    // Each line is a step of a job of its own: what containers of one job share is held in a namespace that the next built
    // host is not in.
    let jobs = std::cell::Cell::new(0_u32);
    let run = |line: &str, script: &str| {
        jobs.set(jobs.get() + 1);
        let words: Vec<&str> = line.split_whitespace().chain([sif, "/bin/sh", "-c", script]).collect();
        slipway(&host, home.path(), &words)
            .env("SLURM_JOB_ID", format!("{}{}", std::process::id(), jobs.get()))
            .env("SLURM_STEP_ID", "0")
            .env("SLURM_STEP_GPUS", "2,5")
            .output()
            .unwrap()
    };
    let nvidia = "ls -d /dev/nvidia[0-9]*";
    for line in [
        "run --gpus all -it --rm --ipc=host --ulimit memlock=-1 --ulimit stack=67108864",
        "run --runtime=nvidia --rm --net=host --shm-size=1g --ulimit memlock=-1",
        "run --runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=all --privileged --uts=host",
        "run --profile docker --gpus all -i --rm --ipc=host --ulimit memlock=-1 --ulimit stack=67108864 -w /workspace -v /tmp:/data",
        "run --gpus all --security-opt seccomp=unconfined --security-opt=label=disable --cap-add=SYS_ADMIN --cap-add IPC_LOCK",
    ] {
        let output = run(line, nvidia);
        let out = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        assert!(out.contains("/dev/nvidia3\n/dev/nvidia5\n"), "{line}: {out}{}", stderr(&output));
        assert!(line.contains("--privileged") || !out.contains("/dev/nvidia0\n"), "{line}: {out}");
    }
    let output =
        run("run --runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=none", "ls -d /dev/nvidia* 2>/dev/null; true");
    assert_eq!(stdout(&output), "", "{}", stderr(&output));
    let amd = "run -it --device=/dev/kfd --device=/dev/dri --group-add video --ipc=host --shm-size 16G \
               --cap-add=SYS_PTRACE --security-opt seccomp=unconfined --gpus none";
    for line in [amd.to_owned(), format!("{amd} --profile docker --device=/dev/infiniband --network=host")] {
        let output = run(&line, "ls -d /dev/kfd /dev/dri/*");
        assert_eq!(
            stdout(&output),
            "/dev/dri/card0\n/dev/dri/renderD128\n/dev/kfd\n",
            "{line}: {}",
            stderr(&output)
        );
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
    }
    // On a node without such a device the line says so, as docker's does.
    let host = Host::build("no-driver");
    let words: Vec<&str> = amd.split_whitespace().chain([sif, "/bin/true"]).collect();
    let output = slipway(&host, home.path(), &words).env("SLURM_JOB_ID", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("cannot give the device `/dev/kfd`"), "{}", stderr(&output));
}

#[test]
fn nvidias_variable_chooses_gpus() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd");
    let (host, home) = (Host::build("dgx-h100"), home());
    let look = "for node in /dev/nvidia[0-9]; do [ ! -e $node ] || echo ${node#/dev/nvidia}; done";
    let inside = |sif: &Path, flags: &[&str]| {
        let words = [&["run"], flags, &[sif.to_str().unwrap(), "/bin/sh", "-c", look]].concat();
        let output = slipway(&host, home.path(), &words).output().unwrap();
        (
            output.status.code(),
            stdout(&output).split_whitespace().collect::<Vec<_>>().join(" "),
            stderr(&output),
        )
    };
    let plain = sif_of(&["/bin/sh"], home.path());
    let all = "0 1 2 3 4 5 6 7";
    for (value, expected) in
        [("2,3", "2 3"), ("0000:1b:00.0", "0"), ("none", ""), ("void", ""), ("", ""), ("all", all)]
    {
        let flag = format!("NVIDIA_VISIBLE_DEVICES={value}");
        assert_eq!(inside(&plain, &["-e", &flag]), (Some(0), expected.to_owned(), String::new()), "{flag}");
        // What is asked for in other words goes before.
        assert_eq!(inside(&plain, &["-e", &flag, "--gpus", "device=5"]).1, "5", "{flag}");
    }
    let (code, _, text) = inside(&plain, &["-e", "NVIDIA_VISIBLE_DEVICES=9"]);
    assert_eq!(code, Some(125), "{text}");
    assert!(text.contains("--gpus device=9: there is no GPU `9` on this node"), "{text}");
    for (value, expected) in [("void", ""), ("all", all), ("3", all)] {
        fs::remove_file(home.path().join("gpu.sif")).unwrap();
        let sif = sif_with(&["/bin/sh"], &[&format!("NVIDIA_VISIBLE_DEVICES={value}")], home.path());
        assert_eq!(inside(&sif, &[]), (Some(0), expected.to_owned(), String::new()), "{value}");
        assert_eq!(inside(&sif, &["--gpus", "all"]).1, all, "{value}");
    }
}

#[test]
fn gpu_check_script_passes_on_a_built_host() {
    need!(userns, fuse, tool "unshare", tool "setpriv", tool "python3", tool "ldd");
    let (host, home) = (Host::build("dgx-h100"), home());
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (directory, file) in [("scripts", "gpu-check"), ("tests/fixtures", "cuinit.py")] {
        let target = home.path().join(directory);
        fs::create_dir_all(&target).unwrap();
        place(&top.join(directory).join(file), &target);
    }
    let program = place(Path::new(SLIPWAY), home.path());
    let output = host
        .command(&[home.path().join("scripts/gpu-check")])
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"), ("SLIPWAY", program.to_str().unwrap())])
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .output()
        .unwrap();
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for title in ["cuInit on the host", "cuInit in a container", "cuInit in a container, all GPUs"] {
        let expected = format!("== {title}\n   cuInit: 0\n   cuDeviceGetCount: 0 GPUs: 8\n   ok\n");
        assert!(text.contains(&expected), "{text}");
    }
}
