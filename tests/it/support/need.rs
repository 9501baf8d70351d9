//! Needs of a test: `need!(root, tool "unsquashfs")` at its head leaves the test with a printed reason where the need
//! is not met, or fails it where `SLIPWAY_REQUIRE` lists the need (`SLIPWAY_REQUIRE=root,fuse,…`; any value requires tools).

use std::path::Path;

/// Returns from the test unless every need is met.
#[macro_export]
macro_rules! need {
    ($($name:ident $($argument:literal)?),+ $(,)?) => {
        $(
            if let Some(reason) = $crate::support::need::missing(stringify!($name), &[$($argument)?]) {
                if $crate::support::need::is_required(stringify!($name)) {
                    panic!("SLIPWAY_REQUIRE lists `{}`, but {reason}", stringify!($name));
                }
                $crate::support::need::tell_skipped(&reason);
                return;
            }
        )+
    };
}

/// Says that this test is skipped: to its own output, and where `scripts/test` listens, past the runner that keeps the
/// output of tests that pass.
pub(crate) fn tell_skipped(reason: &str) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or_default());
    print!("{line}");
    if let Some(fd) = std::env::var_os("SLIPWAY_SKIPS_FD") {
        // A shell inherits that fd and can write to it; to open it anew by its name may be forbidden.
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "printf '%s' \"$1\" >&\"$2\"", "sh", &line]).arg(fd);
        // A listener that is gone misses nothing.
        let _ = shell.status();
    }
}

/// Why a need is not met; `None` if it is.
pub(crate) fn missing(name: &str, arguments: &[&str]) -> Option<String> {
    let argument = arguments.first().copied().unwrap_or_default();
    match name {
        "root" => (!nix::unistd::geteuid().is_root()).then(|| "this test needs root".to_owned()),
        "long" => std::env::var_os("SLIPWAY_LONG_TESTS")
            .is_none()
            .then(|| "this test is long: `scripts/test --all` runs it".to_owned()),
        "tool" => (!has_tool(argument)).then(|| format!("`{argument}` is not installed")),
        "userns" => std::fs::read_to_string("/proc/sys/user/max_user_namespaces")
            .is_ok_and(|text| text.trim() == "0")
            .then(|| "user namespaces are off".to_owned()),
        "fuse" => std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .err()
            .map(|error| format!("/dev/fuse cannot be opened: {error}")),
        "slurm" => ["slurmctld", "slurmd", "munged", "sbatch"]
            .into_iter()
            .find(|tool| !has_tool(tool))
            .map(|tool| format!("`{tool}` of Slurm is not installed")),
        "registry" => (!has_tool("docker-registry")).then(|| "`docker-registry` is not installed".to_owned()),
        "loop" => {
            (!Path::new("/dev/loop-control").exists()).then(|| "there is no /dev/loop-control".to_owned())
        }
        "cgroup" => (!Path::new("/sys/fs/cgroup/devices").exists()
            && !Path::new("/sys/fs/cgroup/cgroup.controllers").exists())
        .then(|| "there is no cgroup file system".to_owned()),
        other => panic!("`{other}` is no need that this harness knows"),
    }
}

/// Whether `SLIPWAY_REQUIRE` turns a missing need into a failure.
pub(crate) fn is_required(name: &str) -> bool {
    let Ok(list) = std::env::var("SLIPWAY_REQUIRE") else { return false };
    if name == "tool" { !list.is_empty() } else { list.split(',').any(|item| item.trim() == name) }
}

/// Whether a program is on the PATH or in the system's sbin directories.
pub(crate) fn has_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(Into::into))
        .any(|directory| directory.join(name).is_file())
}

/// What it takes to start a container of this machine's programs on a built host.
macro_rules! need_launch {
    () => {
        need!(userns, fuse, tool "unshare", tool "setpriv", tool "ldd", tool "tar");
    };
}
