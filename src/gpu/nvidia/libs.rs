//! Where the driver's libraries and programs are.
//!
//! Every file `*.so.<driver version>` in the driver's directories is the driver's; a fixed list would miss what the next
//! release adds. What a library is for comes from its name, and an unknown one counts as compute.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use crate::elf;

use super::super::{Capability, DriverFiles, DriverLibrary, Hints, HostRoot};

/// The loader's cache of the host.
pub(in super::super) const LOADER_CACHE: &str = "/etc/ld.so.cache";
/// Most bytes of the host's loader cache; big hosts have some hundred KiB.
const MAX_CACHE_BYTES: u64 = 16 << 20;
/// The libraries by which the driver's directory is found.
const MAIN_LIBRARIES: [&str; 2] = ["libcuda.so", "libnvidia-ml.so"];
/// A library of the driver whose name carries a version of its own.
const OTHER_VERSION: [&str; 1] = ["libnvidia-nvvm70.so."];

const PROGRAMS: [(&str, Capability); 4] = [
    ("nvidia-smi", Capability::Utility),
    ("nvidia-debugdump", Capability::Utility),
    ("nvidia-cuda-mps-control", Capability::Compute),
    ("nvidia-cuda-mps-server", Capability::Compute),
];
const PROGRAM_DIRECTORIES: [&str; 7] = [
    "/usr/bin",
    "/usr/local/nvidia/bin",
    "/home/kubernetes/bin/nvidia/bin",
    "/run/current-system/sw/bin",
    "/run/nvidia/driver/usr/bin",
    "/opt/bin",
    "/usr/local/bin",
];
const SOCKETS: [&str; 2] = ["/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket"];

/// Finds the driver's files. Where several versions are installed, the one of the loaded module wins.
pub(super) fn find_files(root: &HostRoot, hints: &Hints, module_version: Option<&str>) -> DriverFiles {
    let mut candidates = loader_directories(root);
    candidates.extend(usual_directories(module_version));
    // Last: an LD_LIBRARY_PATH often holds CUDA's own compatibility libraries, which are not the host's driver.
    candidates.extend(hints.library_path.iter().cloned());
    let sockets = SOCKETS.iter().map(PathBuf::from).filter(|path| root.is_socket(path)).collect();
    let Some((directory, version)) = find_main(root, &candidates, module_version) else {
        return DriverFiles { sockets, ..DriverFiles::default() };
    };
    let mut directories = vec![directory.clone()];
    for candidate in candidates.iter().filter_map(|candidate| root.real(candidate)) {
        if !directories.contains(&candidate) {
            directories.push(candidate);
        }
    }
    let mut libraries: Vec<DriverLibrary> = Vec::new();
    for place in &directories {
        for library in list_libraries(root, place, &version) {
            if !libraries.iter().any(|other| other.name == library.name) {
                libraries.push(library);
            }
        }
    }
    libraries.sort_by(|a, b| a.name.cmp(&b.name));
    let programs = find_programs(root, &directory);
    DriverFiles { version: Some(version), directory: Some(directory), libraries, programs, sockets }
}

/// The directories in which the host's loader finds the driver.
fn loader_directories(root: &HostRoot) -> Vec<PathBuf> {
    let cache = root.read_bytes(LOADER_CACHE, MAX_CACHE_BYTES);
    let Some(cache) = cache.and_then(|bytes| elf::cache::Cache::parse(&bytes).ok()) else {
        return Vec::new();
    };
    let is_ours = |entry: &&elf::cache::Entry| {
        Some(entry.flags) == elf::cache::flags_for(ARCH)
            && MAIN_LIBRARIES.iter().any(|name| entry.soname.starts_with(name.as_bytes()))
    };
    let paths =
        cache.entries.iter().filter(is_ours).filter_map(|entry| std::str::from_utf8(&entry.path).ok());
    paths.filter_map(|path| Some(Path::new(path).parent()?.to_path_buf())).collect()
}

/// Where packages, Fedora, NixOS, driver containers and Kubernetes nodes have the driver.
fn usual_directories(module_version: Option<&str>) -> Vec<PathBuf> {
    let triple = format!("{ARCH}-linux-gnu");
    let major = module_version.and_then(|version| version.split('.').next()).unwrap_or_default();
    [
        "/usr/lib64".to_owned(),
        format!("/usr/lib/{triple}"),
        format!("/usr/lib/{triple}/nvidia/current"),
        "/usr/lib64/nvidia".into(),
        format!("/usr/lib/nvidia-{major}"),
        "/usr/lib".into(),
        "/usr/local/nvidia/lib64".into(),
        "/usr/local/nvidia/lib".into(),
        "/run/opengl-driver/lib".into(),
        "/home/kubernetes/bin/nvidia/lib64".into(),
        "/home/kubernetes/bin/nvidia".into(),
        "/opt/nvidia/lib64".into(),
        format!("/run/nvidia/driver/usr/lib/{triple}"),
        "/run/nvidia/driver/usr/lib64".into(),
    ]
    .map(PathBuf::from)
    .into()
}

/// The real directory of a main library and the version in its name.
fn find_main(root: &HostRoot, candidates: &[PathBuf], module: Option<&str>) -> Option<(PathBuf, String)> {
    let mut first = None;
    for stem in MAIN_LIBRARIES {
        for directory in candidates {
            // Beside the link, the version of the module by name: several may lie in one directory.
            let names = [module.map(|version| format!("{stem}.{version}")), Some(format!("{stem}.1"))];
            for name in names.into_iter().flatten() {
                let Some(found) = main_library(root, &directory.join(name), stem) else { continue };
                if module.is_none() || module == Some(&found.1) {
                    return Some(found);
                }
                first.get_or_insert(found);
            }
        }
    }
    first
}

fn main_library(root: &HostRoot, path: &Path, stem: &str) -> Option<(PathBuf, String)> {
    let real = root.real(path)?;
    // CUDA's stubs directory has a libcuda that only a linker may use.
    if real.components().any(|part| part.as_os_str() == "stubs") {
        return None;
    }
    let version = real.file_name()?.to_str()?.strip_prefix(stem)?.strip_prefix('.')?.to_owned();
    if !version.contains('.') || !is_for_this_machine(root, &real) {
        return None;
    }
    Some((real.parent()?.to_path_buf(), version))
}

fn is_for_this_machine(root: &HostRoot, path: &Path) -> bool {
    shared_object(root, path).is_some()
}

/// Only what this machine's loader takes: a 32-bit driver has files of the same names.
pub(in super::super) fn shared_object(root: &HostRoot, path: &Path) -> Option<elf::SharedObject> {
    let object = elf::shared_object(&root.open(path)?).ok()?;
    (object.machine == ARCH).then_some(object)
}

fn list_libraries(root: &HostRoot, directory: &Path, version: &str) -> Vec<DriverLibrary> {
    let suffix = format!(".so.{version}");
    let is_driver = |name: &String| {
        name.ends_with(&suffix) || OTHER_VERSION.iter().any(|prefix| name.starts_with(prefix))
    };
    let read = |name: String| {
        let source = directory.join(&name);
        // An empty file is left behind by container tools, in images that were made on a GPU node.
        root.regular_file_bytes(&source).filter(|bytes| *bytes > 0)?;
        let object = shared_object(root, &source)?;
        let links = links_for(&name, object.soname.as_deref());
        Some(DriverLibrary { source, capability: capability_of(&name), name, links })
    };
    root.list(directory).into_iter().filter(is_driver).filter_map(read).collect()
}

/// The names by which programs ask: the SONAME, and for two libraries the name without a version, which CUDA and
/// video programs pass to dlopen.
fn links_for(name: &str, soname: Option<&str>) -> Vec<String> {
    let mut links: Vec<String> =
        soname.filter(|soname| *soname != name).map(str::to_owned).into_iter().collect();
    for plain in ["libcuda.so", "libnvidia-opticalflow.so"] {
        if name.strip_prefix(plain).is_some_and(|rest| rest.starts_with('.')) {
            links.push(plain.to_owned());
        }
    }
    links
}

/// By the lists of libnvidia-container (`src/nvc_info.c`).
fn capability_of(name: &str) -> Capability {
    let stem = name.split(".so").next().unwrap_or_default();
    match stem {
        "libnvidia-ml" | "libnvidia-cfg" | "libnvidia-nscq" => Capability::Utility,
        "libvdpau_nvidia" | "libnvidia-encode" | "libnvidia-opticalflow" | "libnvcuvid" => Capability::Video,
        "libnvidia-ngx" => Capability::Ngx,
        "libnvidia-eglcore"
        | "libnvidia-glcore"
        | "libnvidia-tls"
        | "libnvidia-glsi"
        | "libnvidia-fbc"
        | "libnvidia-ifr"
        | "libnvidia-rtcore"
        | "libnvoptix"
        | "libGLX_nvidia"
        | "libEGL_nvidia"
        | "libGLESv2_nvidia"
        | "libGLESv1_CM_nvidia"
        | "libnvidia-glvkspirv"
        | "libnvidia-cbl"
        | "libnvidia-present"
        | "libnvidia-vksc-core"
        | "libnvidia-vulkan-producer"
        | "libnvidia-wayland-client" => Capability::Graphics,
        _ if stem.starts_with("libnvidia-egl-") || stem.starts_with("libnvidia-gtk") => Capability::Graphics,
        _ => Capability::Compute,
    }
}

fn find_programs(root: &HostRoot, library_directory: &Path) -> Vec<(PathBuf, Capability)> {
    let beside = library_directory.parent().map(|parent| parent.join("bin"));
    let directories: Vec<PathBuf> =
        beside.into_iter().chain(PROGRAM_DIRECTORIES.map(PathBuf::from)).collect();
    PROGRAMS
        .into_iter()
        .filter_map(|(name, capability)| {
            let found = directories.iter().find_map(|directory| root.real(&directory.join(name)))?;
            Some((found, capability))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purpose_comes_from_the_name() {
        let check = |name: &str, expected: Capability| assert_eq!(capability_of(name), expected, "{name}");
        check("libcuda.so.550.54.15", Capability::Compute);
        check("libnvidia-ml.so.550.54.15", Capability::Utility);
        check("libnvcuvid.so.550.54.15", Capability::Video);
        check("libnvidia-egl-gbm.so.1.1.1", Capability::Graphics);
        check("libnvidia-something-new.so.600.1", Capability::Compute);
    }

    #[test]
    fn links_are_soname_and_plain_name() {
        let check = |name: &str, soname: Option<&str>, expected: &[&str]| {
            assert_eq!(links_for(name, soname), expected, "{name}");
        };
        check("libcuda.so.550.54.15", Some("libcuda.so.1"), &["libcuda.so.1", "libcuda.so"]);
        check("libcudadebugger.so.550.54.15", Some("libcudadebugger.so.1"), &["libcudadebugger.so.1"]);
        check("libnvidia-glcore.so.550.54.15", Some("libnvidia-glcore.so.550.54.15"), &[]);
        check("libx.so.550.54.15", None, &[]);
    }
}
