//! Hosts with GPUs, built from a scenario (`tests/fixtures/scenarios/*.toml`).
//!
//! [`Host::build`] makes a tree: procfs and sysfs files, device nodes as plain files, the driver's libraries as tiny ELF
//! files, a fake NVML. Unit-like tests read it through `HostRoot`. [`Host::run`] lays the tree over the real host in a
//! user and mount namespace and runs a program there as an ordinary user, on the real paths.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde::Deserialize;
use slipway::gpu::HostRoot;

use super::fake_sysfs;
use super::other_gpus::{self, Device};
use super::tiny_elf::{Function, shared_library};

/// What a scenario says about the host. The fake NVML reads the same file.
#[derive(Debug, Deserialize)]
pub(crate) struct Scenario {
    /// Version of the kernel module; without it there is no driver.
    pub(crate) driver_version: Option<String>,
    /// Version of the libraries, where it differs.
    pub(crate) library_version: Option<String>,
    /// Where the libraries are; the distribution's directory if not said.
    pub(crate) library_directory: Option<PathBuf>,
    /// The tree of a driver that is installed in one of its own; libraries and programs lie below it.
    pub(crate) driver_root: Option<PathBuf>,
    /// Where the host has links to the libraries, as NixOS does: absolute ones, in another directory.
    pub(crate) linked_from: Option<PathBuf>,
    /// It is WSL, with this directory of the driver below `/usr/lib/wsl/drivers`.
    pub(crate) wsl_store: Option<String>,
    /// Has the nodes of NVSwitches.
    #[serde(default)]
    pub(crate) nvswitch: bool,
    /// With NVSwitches: no fabric manager has started.
    #[serde(default)]
    pub(crate) no_fabric_manager: bool,
    /// Names in `/dev` that are missing; without `nvidia-uvm` its module is not loaded either.
    #[serde(default)]
    pub(crate) missing_nodes: Vec<String>,
    /// An MPS daemon has ended and left its folder.
    #[serde(default)]
    pub(crate) stale_mps: bool,
    /// Libraries of a driver in the image: place, and the file beside it that it is a link to; an empty file if that is empty.
    #[serde(default)]
    pub(crate) baked: Vec<(PathBuf, String)>,
    /// Channels of IMEX that have a node.
    #[serde(default)]
    pub(crate) imex_channels: u32,
    #[serde(default)]
    pub(crate) numa: Vec<fake_sysfs::Numa>,
    #[serde(default)]
    pub(crate) nic: Vec<fake_sysfs::Adapter>,
    #[serde(default)]
    pub(crate) gpu: Vec<Gpu>,
    /// GPUs of other vendors.
    #[serde(default)]
    pub(crate) device: Vec<Device>,
    /// Versions of their modules.
    #[serde(default)]
    pub(crate) modules: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) pci_address: String,
    pub(crate) minor: u32,
    /// Mode and owner deny its node to everybody.
    #[serde(default)]
    pub(crate) denied: bool,
    /// The driver's configuration leaves it out.
    #[serde(default)]
    pub(crate) excluded: bool,
    /// Mode, and group, of its node where [`super::real_host::RealHost`] makes it.
    #[serde(default)]
    pub(crate) mode: Option<(u32, String)>,
    /// There its node is on a mount with nodev, or `/dev` is.
    #[serde(default)]
    pub(crate) nodev: bool,
    /// There a device cgroup denies it.
    #[serde(default)]
    pub(crate) fenced: bool,
    /// Where it is in sysfs.
    #[serde(flatten)]
    pub(crate) place: fake_sysfs::Place,
    /// MIG devices.
    #[serde(default)]
    pub(crate) mig: Vec<Mig>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Mig {
    pub(crate) gpu_instance: u32,
    pub(crate) compute_instance: u32,
    /// Mode and owner deny the compute instance's node to everybody.
    #[serde(default)]
    pub(crate) denied: bool,
}

/// How today's kernel module numbers capability nodes (open-gpu-kernel-modules, `nv-caps.c`): 32 GPUs with 15 GPU
/// instances of 8 compute instances, behind one node of the fabric and two for all of MIG.
fn capability_minor(gpu: u32, instance: u32, compute: Option<u32>) -> u32 {
    3 + 135 * gpu + 9 * instance + compute.map_or(0, |compute| 1 + compute)
}

/// A built host; its tree is removed with it.
pub(crate) struct Host {
    tree: tempfile::TempDir,
    pub(crate) scenario: Scenario,
}

/// Libraries of a driver: stem and SONAME's version, or `None` for a SONAME that is the file's name.
const LIBRARIES: [(&str, Option<&str>); 12] = [
    ("libcuda", Some("1")),
    ("libcudadebugger", Some("1")),
    ("libnvidia-cfg", Some("1")),
    ("libnvidia-nvvm", Some("4")),
    ("libnvidia-opencl", Some("1")),
    ("libnvidia-ptxjitcompiler", Some("1")),
    ("libnvidia-gpucomp", None),
    ("libnvcuvid", Some("1")),
    ("libnvidia-encode", Some("1")),
    ("libGLX_nvidia", Some("0")),
    ("libnvidia-glcore", None),
    ("libnvidia-ngx", Some("1")),
];

impl Host {
    /// The host of `tests/fixtures/scenarios/<name>.toml`.
    pub(crate) fn build(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/scenarios/{name}.toml"));
        Self::build_from(&fs::read_to_string(path).unwrap())
    }

    /// The host of a scenario's text.
    pub(crate) fn build_from(text: &str) -> Self {
        let scenario: Scenario = toml::from_str(text).unwrap();
        let tree = tempfile::tempdir().unwrap();
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let host = Self { tree, scenario };
        for directory in ["proc/driver", "sys/module", "sys/class", "dev", "stage", "etc", "usr/bin"] {
            fs::create_dir_all(host.path(directory)).unwrap();
        }
        host.write("proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555\n");
        host.write("proc/devices", &host.devices());
        let places: Vec<_> = host.scenario.gpu.iter().map(|gpu| &gpu.place).collect();
        // Most scenarios say nothing of it, and keep the sysfs of this machine.
        if places.iter().any(|place| place.is_known()) || !host.scenario.nic.is_empty() {
            fake_sysfs::write(host.tree.path(), &host.scenario.numa, &host.scenario.nic, &places);
        }
        other_gpus::write(&host);
        if host.scenario.driver_version.is_some() {
            host.write_procfs();
            host.write_nodes();
            host.write_capabilities();
            host.write_libraries(text);
        }
        if let Some(store) = host.scenario.wsl_store.as_deref() {
            host.write_wsl(store, text);
        }
        host
    }

    /// The tree.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.tree.path().join(inside)
    }

    /// The tree as the GPU module reads it.
    pub(crate) fn root(&self) -> HostRoot {
        HostRoot::new(self.tree.path())
    }

    /// Where the libraries are, as an absolute path of the host.
    pub(crate) fn library_directory(&self) -> PathBuf {
        let usual = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let inside = self.scenario.library_directory.clone().unwrap_or_else(|| usual.into());
        self.driver_root().join(inside.strip_prefix("/").unwrap())
    }

    fn driver_root(&self) -> PathBuf {
        self.scenario.driver_root.clone().unwrap_or_else(|| "/".into())
    }

    /// The place in the tree of an absolute path of the host.
    pub(crate) fn of(&self, path: &Path) -> PathBuf {
        self.path(path.strip_prefix("/").unwrap().to_str().unwrap())
    }

    /// Version of the libraries.
    pub(crate) fn library_version(&self) -> &str {
        let scenario = &self.scenario;
        scenario.library_version.as_deref().or(scenario.driver_version.as_deref()).unwrap_or_default()
    }

    pub(crate) fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Majors other than NVIDIA's own 195: nothing may count on that.
    fn devices(&self) -> String {
        let nvidia = match self.scenario.driver_version {
            Some(_) if self.scenario.missing_nodes.iter().any(|name| name == "nvidia-uvm") => {
                "240 nvidia\n242 nvidia-caps\n243 nvidia-nvswitch\n"
            }
            Some(_) => "240 nvidia\n241 nvidia-uvm\n242 nvidia-caps\n243 nvidia-nvswitch\n",
            None => "",
        };
        format!("Character devices:\n  1 mem\n  5 /dev/tty\n{nvidia}\nBlock devices:\n  8 sd\n")
    }

    fn write_procfs(&self) {
        let version = self.scenario.driver_version.as_deref().unwrap();
        self.write("sys/module/nvidia/version", &format!("{version}\n"));
        self.write("sys/module/nvidia/srcversion", "0123456789ABCDEF\n");
        self.write(
            "proc/driver/nvidia/version",
            &format!(
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Mar  5 22:23:56 UTC 2024\n"
            ),
        );
        self.write("proc/driver/nvidia/params", "ModifyDeviceFiles: 1\nDeviceFileMode: 438\n");
        for gpu in &self.scenario.gpu {
            let address = &gpu.pci_address;
            self.write(
                &format!("proc/driver/nvidia/gpus/{address}/information"),
                &format!(
                    "Model: \t\t {}\nIRQ:   \t\t 210\nGPU UUID: \t {}\nVideo BIOS: \t 96.00.74.00.1c\nBus Type: \t PCIe\n\
                     Bus Location: \t {address}\nDevice Minor: \t {}\nGPU Firmware: \t {version}\nGPU Excluded:\t {}\n",
                    gpu.name,
                    gpu.uuid,
                    gpu.minor,
                    if gpu.excluded { "Yes" } else { "No" }
                ),
            );
        }
    }

    fn write_nodes(&self) {
        let mut names = vec!["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];
        if self.scenario.nvswitch {
            names.extend(["nvidia-nvswitchctl", "nvidia-nvswitch0"]);
            if !self.scenario.no_fabric_manager {
                self.write("run/nvidia-fabricmanager/nv-fabricmanager.pid", "1\n");
            }
        }
        if self.scenario.stale_mps {
            self.write("tmp/nvidia-mps/control", "");
            self.write("tmp/nvidia-mps/log", "");
        }
        names.retain(|name| !self.scenario.missing_nodes.iter().any(|missing| missing == name));
        for name in names {
            self.write(&format!("dev/{name}"), "");
        }
        for channel in 0..self.scenario.imex_channels {
            self.write(&format!("dev/nvidia-caps-imex-channels/channel{channel}"), "");
        }
        for gpu in self.scenario.gpu.iter().filter(|gpu| !gpu.excluded) {
            let name = format!("dev/nvidia{}", gpu.minor);
            self.write(&name, "");
            let mode = if gpu.denied { 0 } else { 0o666 };
            fs::set_permissions(self.path(&name), fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    /// All capabilities that there can be in one list; files and nodes of those that there are.
    fn write_capabilities(&self) {
        use std::fmt::Write as _;
        let mut list = String::from("config 1\nmonitor 2\n");
        for gpu in 0..32 {
            for instance in 0..15 {
                let minor = capability_minor(gpu, instance, None);
                writeln!(list, "gpu{gpu}/gi{instance}/access {minor}").unwrap();
                for compute in 0..8 {
                    let minor = capability_minor(gpu, instance, Some(compute));
                    writeln!(list, "gpu{gpu}/gi{instance}/ci{compute}/access {minor}").unwrap();
                }
            }
        }
        self.write("proc/driver/nvidia-caps/mig-minors", &list);
        let give = |name: &str, minor: u32, mode: u32| {
            self.write(
                &format!("proc/driver/nvidia/capabilities/{name}"),
                &format!("DeviceFileMinor: {minor}\nDeviceFileMode: 292\nDeviceFileModify: 1\n"),
            );
            let node = format!("dev/nvidia-caps/nvidia-cap{minor}");
            self.write(&node, "");
            fs::set_permissions(self.path(&node), fs::Permissions::from_mode(mode)).unwrap();
        };
        // Root's alone: mode 0400 of root.
        give("mig/config", 1, 0);
        give("mig/monitor", 2, 0);
        for gpu in &self.scenario.gpu {
            let directory = format!("gpu{}/mig", gpu.minor);
            fs::create_dir_all(self.path(&format!("proc/driver/nvidia/capabilities/{directory}"))).unwrap();
            for mig in &gpu.mig {
                let (instance, compute) = (mig.gpu_instance, mig.compute_instance);
                let minor = capability_minor(gpu.minor, instance, None);
                give(&format!("{directory}/gi{instance}/access"), minor, 0o444);
                let minor = capability_minor(gpu.minor, instance, Some(compute));
                let mode = if mig.denied { 0 } else { 0o444 };
                give(&format!("{directory}/gi{instance}/ci{compute}/access"), minor, mode);
            }
        }
    }

    fn write_libraries(&self, scenario: &str) {
        let directory = self.of(&self.library_directory());
        fs::create_dir_all(&directory).unwrap();
        let version = self.library_version();
        for (stem, number) in LIBRARIES {
            let name = format!("{stem}.so.{version}");
            let soname = number.map_or_else(|| name.clone(), |number| format!("{stem}.so.{number}"));
            let gpus = u8::try_from(self.scenario.gpu.len()).unwrap();
            let functions = match stem {
                "libcuda" => vec![Function::Succeed("cuInit"), Function::Give("cuDeviceGetCount", gpus)],
                _ => Vec::new(),
            };
            fs::write(directory.join(&name), shared_library(&soname, &functions)).unwrap();
            if soname != name {
                symlink(&name, directory.join(&soname)).unwrap();
            }
            if let Some(from) = self.scenario.linked_from.as_deref() {
                fs::create_dir_all(self.of(from)).unwrap();
                symlink(self.library_directory().join(&name), self.of(from).join(&soname)).unwrap();
            }
        }
        fs::copy(fake_nvml(), directory.join(format!("libnvidia-ml.so.{version}"))).unwrap();
        symlink(format!("libnvidia-ml.so.{version}"), directory.join("libnvidia-ml.so.1")).unwrap();
        fs::write(directory.join("libnvidia-ml.scenario.toml"), scenario).unwrap();
        // What must be left out: an empty file, and a library of the distribution.
        fs::write(directory.join(format!("libnvidia-empty.so.{version}")), "").unwrap();
        fs::write(directory.join("libdistribution.so.1.2.13"), shared_library("libdistribution.so.1", &[]))
            .unwrap();
        let programs = self.driver_root().join("usr/bin");
        self.write_smi(&programs);
    }

    fn write_smi(&self, directory: &Path) {
        let program = self.of(&directory.join("nvidia-smi"));
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "#!/bin/sh\necho fake nvidia-smi\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What Windows lends: the node, the base library, and the driver's directory beside an older one.
    fn write_wsl(&self, store: &str, scenario: &str) {
        self.write("dev/dxg", "");
        fs::set_permissions(self.path("dev/dxg"), fs::Permissions::from_mode(0o666)).unwrap();
        let library = |path: &str, soname: &str, functions: &[Function]| {
            self.write(path, "");
            fs::write(self.path(path), shared_library(soname, functions)).unwrap();
        };
        library("usr/lib/wsl/lib/libdxcore.so", "libdxcore.so", &[]);
        // What Microsoft has there besides is not the driver's.
        library("usr/lib/wsl/lib/libd3d12.so", "libd3d12.so", &[]);
        let top = format!("usr/lib/wsl/drivers/{store}");
        let cuda = [Function::Succeed("cuInit"), Function::Give("cuDeviceGetCount", 2)];
        library(&format!("{top}/libcuda.so.1.1"), "libcuda.so.1", &cuda);
        library(&format!("{top}/libcuda_loader.so"), "libcuda_loader.so", &[]);
        library(&format!("{top}/libnvidia-ml_loader.so"), "libnvidia-ml_loader.so", &[]);
        let jit = "libnvidia-ptxjitcompiler.so.1";
        library(&format!("{top}/{jit}"), jit, &[]);
        fs::copy(fake_nvml(), self.path(&format!("{top}/libnvidia-ml.so.1"))).unwrap();
        self.write(&format!("{top}/libnvidia-ml.scenario.toml"), scenario);
        self.write(&format!("{top}/nvcubins.bin"), "code of the driver\n");
        self.write_smi(Path::new(&format!("/{top}")));
        library("usr/lib/wsl/drivers/nv_old.inf_amd64_0/libcuda.so.1.1", "libcuda.so.1", &[]);
        // The newer directory is the one that was changed last.
        let old = fs::File::open(self.path("usr/lib/wsl/drivers/nv_old.inf_amd64_0")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
    }

    /// Runs a program as an ordinary user on the real host with this tree laid over it.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, argv: &[A]) -> Output {
        self.command(argv).output().unwrap()
    }

    /// As [`Host::run`], to be changed before it starts (variables, standard input).
    ///
    /// Needs `userns` and the tools `unshare` and `setpriv`.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, argv: &[A]) -> Command {
        let (uid, gid) = match nix::unistd::geteuid() {
            uid if uid.is_root() => (65_534, 65_534),
            uid => (uid.as_raw(), nix::unistd::getegid().as_raw()),
        };
        let mut command = self.command_as_root(&[
            "unshare",
            "--user",
            &format!("--map-user={uid}"),
            &format!("--map-group={gid}"),
            "--",
        ]);
        command.args(argv);
        command
    }

    /// As [`Host::command`], as root of the namespace in which the tree is laid over the host.
    pub(crate) fn command_as_root<A: AsRef<OsStr>>(&self, argv: &[A]) -> Command {
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare"]);
            command
        } else {
            Command::new("unshare")
        };
        command
            .args(["-Urm", "--propagation=private", "sh", "-ec", OVERLAY, "sh"])
            .arg(self.tree.path())
            .args(argv)
            .current_dir("/");
        command
    }
}

/// Lays the tree ($1) over the host and executes the rest. Only mounts that an ordinary user may make in a namespace.
const OVERLAY: &str = r#"
tree=$1; shift
for place in proc/driver sys/module; do
    mount -t tmpfs none "/$place"
    cp -R "$tree/$place/." "/$place/"
done
mount --bind "$tree/proc/devices" /proc/devices
if [ -d "$tree/sys/fs" ]; then
    for name in fs kernel devices/system/cpu; do
        mount --rbind "/sys/$name" "$tree/sys/$name"
    done
    mount --rbind "$tree/sys" /sys
else
    # Nothing of the real host's GPUs is seen: a place that the tree lacks is empty.
    mount -t tmpfs none /sys/class
    cp -R "$tree/sys/class/." /sys/class/
fi
# Not sticky: in a sticky directory `>/dev/null` is refused to anybody but the owner.
mount -t tmpfs -o mode=755 none "$tree/stage"
for name in null zero full random urandom tty fuse; do
    [ -e "/dev/$name" ] || continue
    : >"$tree/stage/$name"
    mount --bind "/dev/$name" "$tree/stage/$name"
done
for name in pts shm mqueue; do
    [ -d "/dev/$name" ] || continue
    mkdir "$tree/stage/$name"
    mount --rbind "/dev/$name" "$tree/stage/$name"
done
for place in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    ln -s "${place#*:}" "$tree/stage/${place%%:*}"
done
(cd "$tree/dev" && find . -type f) | while read -r name; do
    mkdir -p "$tree/stage/${name%/*}"
    : >"$tree/stage/$name"
    # A node that may be used is /dev/null; one that may not is the file itself, with its mode.
    if [ -n "$(find "$tree/dev/$name" -perm -006)" ]; then source=/dev/null
    elif [ -n "$(find "$tree/dev/$name" -perm 000)" ]; then source="$tree/dev/$name"
    else source=/dev/null; fi
    mount --bind "$source" "$tree/stage/$name"
done
mount --rbind "$tree/stage" /dev
if [ -d "$tree/sys/bus/pci" ]; then mount --bind "$tree/sys/bus/pci" /sys/bus/pci; fi
# A directory that the machine lacks comes with the nearest that it has; overlays cannot lie three deep.
covered() { for top in $done; do case "$1/" in "$top"/*) return 0 ;; esac; done; return 1; }
(cd "$tree/usr" && find . -type d) | while read -r place; do
    [ -n "$(find "$tree/usr/$place" -maxdepth 1 ! -type d)" ] || continue
    ! covered "$place" || continue
    while [ ! -d "/usr/$place" ]; do place=${place%/*}; done
    ! covered "$place" || continue
    done="$done $place"
    mount -t overlay overlay -o "ro,lowerdir=$tree/usr/$place:/usr/$place" "/usr/$place"
done
if [ -d "$tree/run" ]; then mount --rbind "$tree/run" /run; fi
if [ -d "$tree/etc/cdi" ]; then
    mount -t overlay overlay -o "ro,lowerdir=$tree/etc:/etc" /etc
fi
exec "$@"
"#;

/// The fake NVML, built once.
fn fake_nvml() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // …/target/debug/deps/it-…: the same target directory, so that a second build of the tests finds it made.
        let own = std::env::current_exe().unwrap();
        let target = own.ancestors().nth(3).unwrap();
        let library = target.join("debug/libnvidia_ml.so");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--package", "fake-nvml", "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        // Where the tests run as another user than the one who built them, cargo is out of reach and its work is done.
        assert!(
            built.is_ok_and(|status| status.success()) || library.exists(),
            "the fake NVML cannot be built"
        );
        library
    })
}
