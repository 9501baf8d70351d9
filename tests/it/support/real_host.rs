//! A built host with real device nodes, for what plain files cannot show: groups and modes, nodev mounts, device cgroups.
//!
//! Root makes the nodes in a mount namespace of the test's own, of a major that no driver has, and then becomes an
//! ordinary user for good.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::Host;
use super::sandbox::wait_until;
use super::user::User;

/// For local and experimental use (kernel: Documentation/admin-guide/devices.txt).
const MAJOR: u32 = 240;
const CGROUPS: &str = "/sys/fs/cgroup/devices";

/// A host, and the control group of what runs there.
pub(crate) struct RealHost {
    pub(crate) host: Host,
    group: Option<PathBuf>,
}

impl RealHost {
    /// Needs `root`; with a fenced GPU also the devices controller of cgroup v1.
    pub(crate) fn build(scenario: &str) -> Self {
        let host = Host::build(scenario);
        let mut nodes = String::new();
        for name in fs::read_dir(host.path("dev")).unwrap().flatten().map(|entry| entry.file_name()) {
            let name = name.into_string().unwrap();
            let minor: Option<u32> = name.strip_prefix("nvidia").and_then(|number| number.parse().ok());
            let gpu = host.scenario.gpu.iter().find(|gpu| Some(gpu.minor) == minor);
            let (mode, group) =
                gpu.and_then(|gpu| gpu.mode.clone()).unwrap_or_else(|| (0o666, "root".to_owned()));
            let nodev = if gpu.is_some_and(|gpu| gpu.nodev) { "nodev" } else { "dev" };
            if host.path(&format!("dev/{name}")).is_file() {
                writeln!(nodes, "{name} {} {mode:o} {group} {nodev}", minor.unwrap_or(255)).unwrap();
            }
        }
        host.write("nodes", &nodes);
        let fenced: Vec<u32> =
            host.scenario.gpu.iter().filter(|gpu| gpu.fenced).map(|gpu| gpu.minor).collect();
        let group = (!fenced.is_empty()).then(|| {
            let name = host.path("").file_name().unwrap().to_string_lossy().replace('.', "");
            let group = Path::new(CGROUPS).join(format!("slipway-test-{}{name}", std::process::id()));
            fs::create_dir(&group).unwrap();
            for minor in fenced {
                fs::write(group.join("devices.deny"), format!("c {MAJOR}:{minor} rwm")).unwrap();
            }
            group
        });
        Self { host, group }
    }

    /// True where a device cgroup can be made.
    pub(crate) fn has_fences() -> bool {
        Path::new(CGROUPS).join("devices.deny").exists()
    }

    /// A program there as an ordinary user.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, argv: &[A]) -> Command {
        let user = User::ordinary();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation=private", "sh", "-ec", DRESS_UP, "sh"])
            .arg(self.host.path(""))
            .arg(self.group.as_deref().unwrap_or(Path::new("")))
            .args([
                "setpriv",
                &format!("--reuid={}", user.uid),
                &format!("--regid={}", user.gid),
                "--clear-groups",
                "--",
            ])
            .args(argv)
            .current_dir("/");
        command
    }
}

impl Drop for RealHost {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            // The file server of a container ends a moment after it.
            wait_until("the control group is empty", || fs::remove_dir(group).is_ok());
        }
    }
}

/// Lays the tree ($1) over the host in this mount namespace, enters the control group ($2) and executes the rest.
const DRESS_UP: &str = r#"
tree=${1%/} group=$2; shift 2
for place in proc/driver sys/module; do
    mount -t tmpfs none "/$place"
    cp -R "$tree/$place/." "/$place/"
done
mount --bind "$tree/proc/devices" /proc/devices
mount -t tmpfs -o mode=755 none "$tree/stage"
for name in null zero full random urandom tty fuse; do
    [ ! -e "/dev/$name" ] || cp -a "/dev/$name" "$tree/stage/$name"
done
for name in pts shm mqueue; do
    [ -d "/dev/$name" ] || continue
    mkdir "$tree/stage/$name"
    mount --rbind "/dev/$name" "$tree/stage/$name"
done
for place in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    ln -s "${place#*:}" "$tree/stage/${place%%:*}"
done
while read -r name minor mode owners nodev; do
    mknod -m "$mode" "$tree/stage/$name" c 240 "$minor"
    chgrp "$owners" "$tree/stage/$name"
    [ "$nodev" = dev ] || {
        mount --bind "$tree/stage/$name" "$tree/stage/$name"
        mount -o remount,bind,nodev "$tree/stage/$name"
    }
done <"$tree/nodes"
mount --rbind "$tree/stage" /dev
[ ! -d "$tree/run" ] || mount -t overlay overlay -o "ro,lowerdir=$tree/run:/run" /run
find "$tree/usr" ! -type d -printf '%h\n' | sort -u | while read -r place; do
    inside=${place#"$tree"}
    mount -t overlay overlay -o "ro,lowerdir=$place:$inside" "$inside"
done
[ -z "$group" ] || echo $$ >"$group/tasks"
exec "$@"
"#;
