//! Windows' subsystem for Linux: no kernel driver of NVIDIA's, but one node for all GPUs of Windows, and libraries that
//! Windows lends to Linux.
//!
//! The loader of such a library asks Windows for the directory of the driver (D3DKMT) and reads further files there, so
//! that it lies at the same place inside. We do not ask: the directory is the newest below `/usr/lib/wsl/drivers` that
//! has a libcuda.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use super::super::{Capability, DriverFiles, DriverLibrary, Gpu, HostRoot, Inventory};
use super::libs;

/// The one node.
pub(in crate::gpu) const NODE: &str = "/dev/dxg";
/// The library through which all others reach the node.
pub(super) const BASE_LIBRARY: &str = "libdxcore.so";
const LIBRARIES: &str = "/usr/lib/wsl/lib";
const STORES: &str = "/usr/lib/wsl/drivers";
const CUDA: &str = "libcuda.so.1.1";
const SMI: &str = "nvidia-smi";

/// `None` on any other host.
pub(super) fn read_inventory(root: &HostRoot) -> Option<Inventory> {
    if !root.exists(Path::new(NODE)) {
        return None;
    }
    let gpu = Gpu { name: Some("all GPUs of Windows".into()), node: NODE.into(), ..Gpu::default() };
    let files = find_files(root);
    let finding = if files.directory.is_none() {
        Some(format!("no directory below {STORES} has a {CUDA}: Windows has no NVIDIA driver for WSL"))
    } else if !files.libraries.iter().any(|library| library.name == BASE_LIBRARY) {
        Some(format!("there is no {BASE_LIBRARY} in {LIBRARIES}, without which CUDA cannot reach {NODE}"))
    } else {
        None
    };
    Some(Inventory {
        vendor: Some("nvidia".into()),
        gpus: vec![gpu],
        files,
        findings: finding.into_iter().collect(),
        ..Inventory::default()
    })
}

fn find_files(root: &HostRoot) -> DriverFiles {
    let stores = root.list(Path::new(STORES)).into_iter().map(|name| Path::new(STORES).join(name));
    let with_cuda = stores.filter(|store| root.exists(&store.join(CUDA)));
    let newest = with_cuda.max_by_key(|store| root.stamp(store).map(|stamp| stamp.time()));
    let Some(store) = newest else { return DriverFiles::default() };
    let mut libraries: Vec<DriverLibrary> = root
        .list(&store)
        .into_iter()
        .filter(|name| name.contains(".so"))
        .filter_map(|name| library(root, &store, name))
        .collect();
    libraries.extend(library(root, Path::new(LIBRARIES), BASE_LIBRARY.to_owned()));
    let programs = [&store, Path::new(LIBRARIES)].map(|directory| directory.join(SMI));
    let program = programs.iter().find_map(|place| root.real(place));
    DriverFiles {
        directory: Some(store.clone()),
        found_by: Some("the driver's directory of WSL".into()),
        libraries,
        programs: program.into_iter().map(|program| (program, Capability::Utility)).collect(),
        whole_directories: vec![store],
        ..DriverFiles::default()
    }
}

fn library(root: &HostRoot, directory: &Path, name: String) -> Option<DriverLibrary> {
    let source: PathBuf = directory.join(&name);
    root.regular_file_bytes(&source).filter(|bytes| *bytes > 0)?;
    let object = crate::elf::shared_object(&root.open(&source)?).ok()?;
    if object.machine != ARCH {
        return None;
    }
    let links = libs::links_for(&name, object.soname.as_deref());
    let capability = match name.as_str() {
        BASE_LIBRARY => Capability::Utility,
        name => libs::capability_of(&name.replacen("_loader.so", ".so", 1)),
    };
    Some(DriverLibrary { source, name, links, capability })
}
