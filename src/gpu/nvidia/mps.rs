//! MPS: a daemon of the user or of the job through which several processes share a GPU. It listens in a directory.

use std::path::{Path, PathBuf};

use crate::grants::{BindGrant, Grants, Trouble, Weight};
use crate::sys::{Errno, pidfd};

use super::super::HostRoot;

const VARIABLE: &str = "CUDA_MPS_PIPE_DIRECTORY";
/// Where it is without a word.
const USUAL: &str = "/tmp/nvidia-mps";
/// What the daemon is called in procfs, which keeps 15 bytes of a name.
const DAEMON: &str = "nvidia-cuda-mps";

/// Adds the daemon's directory: the one that `CUDA_MPS_PIPE_DIRECTORY` names (`asked`), else the usual one if its
/// daemon is alive. A daemon that ended leaves its directory behind.
pub fn grant_mps(grants: &mut Grants, asked: Option<&str>, root: &HostRoot) {
    let (directory, rule) = match asked.filter(|value| !value.is_empty()) {
        Some(value) => {
            let directory = PathBuf::from(value);
            if !directory.is_absolute() || !root.is_directory(&directory) {
                grants.notes.push(format!("MPS is not inside: {VARIABLE}={value} is no directory"));
                return;
            }
            (directory, format!("{VARIABLE}={value}"))
        }
        None if !root.is_directory(Path::new(USUAL)) => return,
        None => match daemon(root) {
            Ok(pid) => (USUAL.into(), format!("the daemon of MPS listens there (process {pid})")),
            Err(reason) => {
                grants.notes.push(format!("MPS is not inside: `{USUAL}` was left behind: {reason}"));
                return;
            }
        },
    };
    let place = directory.to_string_lossy().into_owned();
    grants.notes.push(format!("`{place}` is inside: {rule}"));
    grants.reasons.insert(place.clone(), rule.clone());
    grants.reasons.insert(VARIABLE.into(), rule);
    grants.env.push((VARIABLE.into(), place));
    let source = root.place(&directory);
    grants.binds.push(BindGrant { source, target: directory, read_only: false, directory: true });
}

/// What will keep the GPUs from working because of an MPS daemon that has ended, for CUDA programs that look in `directory`,
/// or else where CUDA does. They find the socket, and wait for a daemon or fail: a daemon takes its pid file with it, and
/// leaves the socket.
#[must_use]
pub fn mps_trouble(root: &HostRoot, directory: Option<&Path>) -> Option<Trouble> {
    let directory = directory.unwrap_or(Path::new(USUAL));
    if !root.exists(&directory.join("control")) {
        return None;
    }
    let pid = read_pid(root, directory).and_then(|pid| i32::try_from(pid).ok());
    let is_alive = pid.is_some_and(|pid| {
        // By signal 0, since /proc may hide the processes of others.
        pid > 0 && !matches!(pidfd::send_signal(pid, 0), Err(Errno::ESRCH))
    });
    (!is_alive).then(|| Trouble {
        what: format!(
            "`{}` was left by an MPS daemon that has ended: CUDA may hang or fail with error 805",
            directory.display()
        ),
        remedy: format!(
            "remove it (`rm -r {}`), or give `-e CUDA_MPS_PIPE_DIRECTORY=/none`",
            directory.display()
        ),
        weight: Weight::Possible,
    })
}

/// The process that serves the usual directory, or why there is none.
fn daemon(root: &HostRoot) -> Result<u32, String> {
    let pid = read_pid(root, Path::new(USUAL)).ok_or("it has no file with its daemon's number")?;
    let name = root.read(&format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim_end() == DAEMON { Ok(pid) } else { Err(format!("its daemon, process {pid}, has ended")) }
}

/// The number that the daemon of a directory wrote there, which may be any.
fn read_pid(root: &HostRoot, directory: &Path) -> Option<u32> {
    root.read(&directory.join("nvidia-cuda-mps-control.pid").to_string_lossy())?.trim().parse().ok()
}
