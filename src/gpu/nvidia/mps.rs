//! MPS: a daemon of the user or of the job through which several processes share a GPU. It listens in a directory.

use std::path::{Path, PathBuf};

use crate::grants::{BindGrant, Grants};

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

/// The process that serves the usual directory, or why there is none.
fn daemon(root: &HostRoot) -> Result<u32, String> {
    let text = root.read(&format!("{USUAL}/nvidia-cuda-mps-control.pid")).unwrap_or_default();
    let pid: u32 = text.trim().parse().map_err(|_| "it has no file with its daemon's number".to_owned())?;
    let name = root.read(&format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim_end() == DAEMON { Ok(pid) } else { Err(format!("its daemon, process {pid}, has ended")) }
}
