//! `slipway gpus`, and the GPU facts that `run` and `gpus` share.

mod users;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::NodeDirectory;
use crate::gpu::topology::Topology;
use crate::gpu::{
    self, Asked, GpuListing, GpuReadings, Hints, HostRoot, Inventory, NvmlReport, NvmlSession, Owned, Scope,
};
use crate::grants::JobGpus;
use crate::host;
use crate::sched;

use super::Session;
use crate::cli::args::GpusArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

pub(in crate::cli) fn run(args: &GpusArgs, session: &Session) -> Result<(), Failure> {
    if let Some(seconds) = args.watch {
        return watch::run(Duration::from_secs(seconds.into()), session);
    }
    let scope = if args.json || args.topology || args.svg.is_some() { Scope::All } else { Scope::Identity };
    let node = read_node(session, scope);
    if let Some(file) = &args.svg {
        write_output(file, &node.topology().to_svg())?;
    }
    if args.topology {
        return term::print(&node.topology().to_matrix());
    }
    if args.svg.is_some() && !args.json {
        return Ok(());
    }
    let owned = owned(&job(session), &node.root, &node.inventory, Asked::Softly);
    let mut listing = gpu::listing(&node.inventory, &owned);
    listing.add_readings(&node.topology(), &node.readings, args.serial);
    listing.findings.extend(owned.troubles.iter().map(ToString::to_string));
    listing.findings.extend(node.unanswered);
    show(&listing, args.json)
}

/// The node's GPUs with what NVML says of them.
pub(super) struct Node {
    pub(super) root: HostRoot,
    pub(super) inventory: Inventory,
    /// Of the inventory's GPUs, in its order.
    pub(super) readings: Vec<Option<GpuReadings>>,
    /// What NVML says the GPUs are, failures included.
    pub(super) report: Option<NvmlReport>,
    /// Why NVML did not answer at all.
    pub(super) unanswered: Option<String>,
}

impl Node {
    pub(super) fn topology(&self) -> Topology {
        gpu::topology::read_topology(&self.root, &self.inventory, &self.readings)
    }
}

/// Reads what the node has, and asks NVML where there is NVIDIA's driver.
pub(super) fn read_node(session: &Session, scope: Scope) -> Node {
    let (root, hints) = (root(session), hints(session));
    let mut node = Node {
        inventory: gpu::read_inventory(&root, &hints),
        root,
        readings: Vec::new(),
        report: None,
        unanswered: None,
    };
    gpu::add_details(&node.root, &mut node.inventory);
    if !gpu::has_nvml(&node.inventory) {
        return node;
    }
    match nvml_session(session, &node.root, &node.inventory, scope).round() {
        Ok(nvml) => {
            let access = gpu::read_access(&node.root, &node.inventory);
            gpu::merge_nvml(&mut node.inventory, &nvml.report, &access);
            gpu::remember(&node.root, &hints, &node.inventory);
            node.readings = gpu::readings_of(&node.inventory, &nvml);
            node.report = Some(nvml.report);
        }
        Err(error) => node.unanswered = Some(error.to_string()),
    }
    node
}

/// Readings of NVML with the deadline of the settings.
fn nvml_session(session: &Session, root: &HostRoot, inventory: &Inventory, scope: Scope) -> NvmlSession {
    let library = gpu::nvml_library(inventory, root);
    NvmlSession::new(Path::new("/proc/self/exe"), library.as_deref(), nvml_deadline(session), scope)
}

fn nvml_deadline(session: &Session) -> Duration {
    Duration::from_secs(session.settings.gpu.nvml_timeout_seconds.value.into())
}

/// Writes a text to a file, or to standard output for `-`.
pub(super) fn write_output(file: &Path, text: &str) -> Result<(), Failure> {
    if file == Path::new("-") {
        return term::print(&text);
    }
    std::fs::write(file, text)
        .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", file.display()), None))
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
    match gpu::query_nvml(Path::new("/proc/self/exe"), library.as_deref(), nvml_deadline(session)) {
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

/// What of an inventory is the job's, and why not more.
pub(super) fn owned(job: &JobGpus, root: &HostRoot, inventory: &Inventory, asked: Asked) -> Owned {
    let access = gpu::read_access(root, inventory);
    let mut owned = gpu::granted(inventory, job, &access);
    if owned.devices.is_empty() || !owned.broken.is_empty() {
        gpu::explain_lack(&mut owned, inventory, &access, root, asked);
    }
    owned
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
