//! `slipway gpus`, and the GPU facts that `run` and `gpus` share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::NodeDirectory;
use crate::gpu::{self, GpuListing, Hints, HostRoot, Inventory, Owned};
use crate::grants::JobGpus;
use crate::host;
use crate::sched;

use super::Session;
use crate::cli::args::GpusArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

pub(in crate::cli) fn run(args: &GpusArgs, session: &Session) -> Result<(), Failure> {
    let root = root(session);
    let hints = hints(session);
    let mut inventory = gpu::read_inventory(&root, &hints);
    let mut unanswered = None;
    if inventory.vendor.is_some() {
        unanswered = ask_nvml(session, &root, &hints, &mut inventory);
    }
    let owned = owned(&job(session), &root, &inventory);
    let mut listing = gpu::listing(&inventory, &owned);
    listing.findings.extend(unanswered);
    show(&listing, args.json)
}

/// Adds what NVML knows, for this start and the next. Without an answer, what procfs says holds all the same, and the
/// words say why.
pub(super) fn ask_nvml(
    session: &Session,
    root: &HostRoot,
    hints: &Hints,
    inventory: &mut Inventory,
) -> Option<String> {
    let library = gpu::nvml_library(inventory, root);
    let deadline = Duration::from_secs(session.settings.gpu.nvml_timeout_seconds.value.into());
    match gpu::query_nvml(Path::new("/proc/self/exe"), library.as_deref(), deadline) {
        Ok(report) => {
            let access = gpu::read_access(root, inventory);
            gpu::merge_nvml(inventory, &report, &access);
            gpu::remember(root, hints, inventory);
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

fn show(listing: &GpuListing, json: bool) -> Result<(), Failure> {
    if json { term::print(&listing.to_json()) } else { term::print(&listing.to_table()) }
}

/// What the scheduler says of the job's GPUs.
pub(super) fn job(session: &Session) -> JobGpus {
    sched::read_job(&session.env, Path::new("/")).gpus
}

/// What of an inventory is the job's.
pub(super) fn owned(job: &JobGpus, root: &HostRoot, inventory: &Inventory) -> Owned {
    gpu::granted(inventory, job, &gpu::read_access(root, inventory))
}

/// The host's tree, with the device nodes of a driver that has its own.
pub(super) fn root(session: &Session) -> HostRoot {
    let gpu = &session.settings.gpu;
    HostRoot::default().with_devices(path_of(&gpu.device_root.value), path_of(&gpu.driver_root.value))
}

fn path_of(setting: &NodeDirectory) -> Option<&Path> {
    match setting {
        NodeDirectory::Auto => None,
        NodeDirectory::Path(path) => Some(path),
    }
}

/// Where to look beside the usual places, and where this boot's slow facts are kept.
pub(super) fn hints(session: &Session) -> Hints {
    let library_path = session.env.get(std::ffi::OsStr::new("LD_LIBRARY_PATH"));
    let gpu = &session.settings.gpu;
    Hints {
        search: gpu.library_path.value.iter().map(PathBuf::from).collect(),
        driver_root: path_of(&gpu.driver_root.value).map(Path::to_path_buf),
        library_path: library_path.map(std::env::split_paths).into_iter().flatten().collect(),
        cache_file: cache_directory(session).map(|directory| directory.join("gpu.json")),
    }
}

/// The caller's own directory on this node, if it can be had: a cache is no reason to fail. It is made only where there
/// is a driver, whose facts it is for.
fn cache_directory(session: &Session) -> Option<PathBuf> {
    if !Path::new("/proc/driver/nvidia").exists() {
        return None;
    }
    let directory = host::private_directories(&session.env, false).into_iter().next()?;
    host::own_directory(&directory).ok()?;
    Some(directory)
}
