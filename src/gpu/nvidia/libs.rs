//! Where the driver's libraries and programs are.
//!
//! Every file `*.so.<driver version>` in the driver's directories is the driver's; a fixed list would miss what the next
//! release adds. What a library is for comes from its name, and an unknown one counts as compute.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use crate::elf;

use super::super::host_root::DRIVER_CONTAINER;
use super::super::{Capability, DriverFiles, DriverLibrary, Hints, HostRoot};
use super::graphics;

/// The loader's cache of the host.
pub(in super::super) const LOADER_CACHE: &str = "/etc/ld.so.cache";
/// Most bytes of the host's loader cache; big hosts have some hundred KiB.
const MAX_CACHE_BYTES: u64 = 16 << 20;
/// The libraries by which the driver's directory is found.
const MAIN_LIBRARIES: [&str; 2] = ["libcuda.so", "libnvidia-ml.so"];
/// Libraries of the driver whose names carry versions of their own.
const OTHER_VERSION: [&str; 8] = [
    "libnvidia-nvvm70.so.",
    "libnvidia-egl-gbm.so.",
    "libnvidia-egl-wayland.so.",
    "libnvidia-egl-wayland2.so.",
    "libnvidia-egl-xcb.so.",
    "libnvidia-egl-xlib.so.",
    "libnvidia-vulkan-producer.so.",
    "libnvidia-api.so.",
];
/// Libraries that choose among drivers. They are the image's even where an old driver brings its own: over the image's
/// they would be of another glibc, and of no other vendor.
const DISPATCH: [&str; 9] = [
    "libGL",
    "libEGL",
    "libGLX",
    "libGLdispatch",
    "libOpenGL",
    "libGLESv1_CM",
    "libGLESv2",
    "libOpenCL",
    "libvulkan",
];
/// Where in a library directory further libraries lie; the image's own look for them by name alone, too.
const WITHIN: &str = "vdpau";

const PROGRAMS: [(&str, Capability); 8] = [
    ("nvidia-smi", Capability::Utility),
    ("nvidia-debugdump", Capability::Utility),
    ("nvidia-persistenced", Capability::Utility),
    ("nv-fabricmanager", Capability::Utility),
    ("nvidia-imex", Capability::Compute),
    ("nvidia-imex-ctl", Capability::Compute),
    ("nvidia-cuda-mps-control", Capability::Compute),
    ("nvidia-cuda-mps-server", Capability::Compute),
];
const PROGRAM_DIRECTORIES: [&str; 7] = [
    "/usr/bin",
    "/usr/local/nvidia/bin",
    "/home/kubernetes/bin/nvidia/bin",
    "/run/current-system/sw/bin",
    "/bin",
    "/opt/bin",
    "/usr/local/bin",
];
/// Where 32-bit libraries lie: Debian, Arch, Fedora and its kin.
const DIRECTORIES_32: [&str; 4] =
    ["/usr/lib/i386-linux-gnu", "/usr/lib/i386-linux-gnu/nvidia/current", "/usr/lib32", "/usr/lib"];
const SOCKETS: [&str; 2] = ["/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket"];

/// A directory in which the driver may be.
struct Candidate {
    /// The tree that it belongs to, in which its links lead: `/`, or a driver root.
    top: PathBuf,
    /// As that tree names it.
    directory: PathBuf,
    /// How it came to be looked at, as a fragment.
    found_by: String,
}

/// Finds the driver's files. Where several versions are installed, the one of the loaded module wins.
pub(super) fn find_files(root: &HostRoot, hints: &Hints, module_version: Option<&str>) -> DriverFiles {
    let candidates = candidates(root, hints, module_version);
    let Some((found, directory, version)) = find_main(root, &candidates, module_version) else {
        let searched = match &hints.driver_root {
            _ if !hints.search.is_empty() => Some("in gpu.library_path".to_owned()),
            Some(root) => Some(format!("below gpu.driver_root (`{}`)", root.display())),
            None => None,
        };
        return DriverFiles { searched, ..DriverFiles::default() };
    };
    let mut directories = vec![directory.clone()];
    // A driver in a tree of its own is whole there.
    for candidate in candidates.iter().filter(|candidate| candidate.top == found.top) {
        let Some(real) = root.real_below(&candidate.top, &candidate.directory) else { continue };
        if !directories.contains(&real) {
            directories.push(real);
        }
    }
    let mut libraries: Vec<DriverLibrary> = Vec::new();
    for place in directories.iter().flat_map(|place| [place.clone(), place.join(WITHIN)]) {
        for library in list_libraries(root, &place, &version, shared_object) {
            if !libraries.iter().any(|other| other.name == library.name) {
                libraries.push(library);
            }
        }
    }
    one_library_for_each_link(&mut libraries);
    let need = |library: &DriverLibrary| {
        let need = elf::versions::glibc_needed(&root.open(&library.source)?).ok().flatten()?;
        Some((library.name.clone(), need))
    };
    DriverFiles {
        glibc_needs: libraries.iter().filter_map(need).collect(),
        libraries_32: find_libraries_32(root, &version),
        configs: graphics::find_configs(root),
        programs: find_programs(root, &found.top, &directory),
        found_by: Some(found.found_by.clone()),
        version: Some(version),
        directory: Some(directory),
        libraries,
        ..DriverFiles::default()
    }
}

/// Those that there are now: daemons come and go, and no file that is kept says so.
pub(super) fn find_sockets(root: &HostRoot) -> Vec<PathBuf> {
    SOCKETS.iter().map(PathBuf::from).filter(|path| root.is_socket(path)).collect()
}

/// The libraries of a driver for 32-bit programs, which there are on x86 alone.
fn find_libraries_32(root: &HostRoot, version: &str) -> Vec<DriverLibrary> {
    let read = |root: &HostRoot, path: &Path| {
        let object = elf::shared_object_32(&root.open(path)?).ok()?;
        (object.machine == "x86").then_some(object)
    };
    let mut libraries: Vec<DriverLibrary> = Vec::new();
    let directories = DIRECTORIES_32.iter().filter(|_| ARCH == "x86_64").map(Path::new);
    for directory in directories.flat_map(|place| [place.to_path_buf(), place.join(WITHIN)]) {
        for library in list_libraries(root, &directory, version, read) {
            if !libraries.iter().any(|other| other.name == library.name) {
                libraries.push(library);
            }
        }
    }
    one_library_for_each_link(&mut libraries);
    libraries
}

/// Sorts by name. Where several versions of a library have one SONAME, the newest has the link.
fn one_library_for_each_link(libraries: &mut [DriverLibrary]) {
    let version = |library: &DriverLibrary| -> Vec<u32> {
        let (_, version) = library.name.split_once(".so.").unwrap_or_default();
        version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    libraries.sort_by_key(|library| std::cmp::Reverse(version(library)));
    let mut taken = std::collections::BTreeSet::new();
    for library in &mut *libraries {
        library.links.retain(|link| taken.insert(link.clone()));
    }
    libraries.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Where to look, the best place first. What a site says is all that is looked at.
fn candidates(root: &HostRoot, hints: &Hints, module: Option<&str>) -> Vec<Candidate> {
    let host = Path::new("/");
    let named = |directories: Vec<PathBuf>, top: &Path, found_by: &str| -> Vec<Candidate> {
        let candidate = |directory| Candidate { top: top.into(), directory, found_by: found_by.into() };
        directories.into_iter().map(candidate).collect()
    };
    let of_tree = |top: &Path, found_by: &str| {
        let mut all =
            named(loader_directories(root, top), top, &format!("{found_by}, by its loader's cache"));
        all.extend(named(usual_directories(module), top, found_by));
        all
    };
    if !hints.search.is_empty() {
        return named(hints.search.clone(), host, "gpu.library_path");
    }
    if let Some(top) = &hints.driver_root {
        return of_tree(top, &format!("gpu.driver_root `{}`", top.display()));
    }
    let mut all = named(loader_directories(root, host), host, "the loader's cache");
    all.extend(named(usual_directories(module), host, "a usual place"));
    let container = Path::new(DRIVER_CONTAINER);
    if root.exists(container) {
        all.extend(of_tree(container, &format!("the driver container `{DRIVER_CONTAINER}`")));
    }
    // Last: an LD_LIBRARY_PATH often holds CUDA's own compatibility libraries, which are not the host's driver.
    all.extend(named(hints.library_path.clone(), host, "LD_LIBRARY_PATH"));
    all
}

/// The directories in which the loader of a tree finds the driver.
fn loader_directories(root: &HostRoot, top: &Path) -> Vec<PathBuf> {
    let cache = root.real_below(top, Path::new(LOADER_CACHE));
    let cache = cache.and_then(|cache| root.read_bytes(cache.to_str()?, MAX_CACHE_BYTES));
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

/// Where packages, Fedora, Debian, NixOS and Kubernetes nodes have the driver.
fn usual_directories(module_version: Option<&str>) -> Vec<PathBuf> {
    let triple = format!("{ARCH}-linux-gnu");
    let major = module_version.and_then(|version| version.split('.').next()).unwrap_or_default();
    [
        "/usr/lib64".to_owned(),
        format!("/usr/lib/{triple}"),
        format!("/usr/lib/{triple}/nvidia/current"),
        "/lib64".into(),
        format!("/lib/{triple}"),
        "/usr/lib64/nvidia".into(),
        format!("/usr/lib/nvidia-{major}"),
        "/usr/lib".into(),
        "/usr/local/nvidia/lib64".into(),
        "/usr/local/nvidia/lib".into(),
        "/run/opengl-driver/lib".into(),
        "/home/kubernetes/bin/nvidia/lib64".into(),
        "/home/kubernetes/bin/nvidia".into(),
        "/opt/nvidia/lib64".into(),
        "/opt/nvidia/lib".into(),
        "/opt/nvidia".into(),
    ]
    .map(PathBuf::from)
    .into()
}

/// The candidate that has a main library, that one's real directory, and the version in its name.
fn find_main<'a>(
    root: &HostRoot,
    candidates: &'a [Candidate],
    module: Option<&str>,
) -> Option<(&'a Candidate, PathBuf, String)> {
    let mut first = None;
    for stem in MAIN_LIBRARIES {
        for candidate in candidates {
            // Beside the link, the version of the module by name: several may lie in one directory.
            let names = [module.map(|version| format!("{stem}.{version}")), Some(format!("{stem}.1"))];
            for name in names.into_iter().flatten() {
                let real = root.real_below(&candidate.top, &candidate.directory.join(name));
                let Some((directory, version)) = real.and_then(|real| main_library(root, &real, stem)) else {
                    continue;
                };
                if module.is_none() || module == Some(&version) {
                    return Some((candidate, directory, version));
                }
                first.get_or_insert((candidate, directory, version));
            }
        }
    }
    first
}

fn main_library(root: &HostRoot, real: &Path, stem: &str) -> Option<(PathBuf, String)> {
    // CUDA's stubs directory has a libcuda that only a linker may use.
    if real.components().any(|part| part.as_os_str() == "stubs") {
        return None;
    }
    let version = real.file_name()?.to_str()?.strip_prefix(stem)?.strip_prefix('.')?.to_owned();
    if !version.contains('.') || !is_for_this_machine(root, real) {
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

type ReadObject = fn(&HostRoot, &Path) -> Option<elf::SharedObject>;

fn list_libraries(
    root: &HostRoot,
    directory: &Path,
    version: &str,
    read_object: ReadObject,
) -> Vec<DriverLibrary> {
    let suffix = format!(".so.{version}");
    let is_driver = |name: &String| {
        (name.ends_with(&suffix) || OTHER_VERSION.iter().any(|prefix| name.starts_with(prefix)))
            && !DISPATCH.contains(&stem_of(name))
    };
    let read = |name: String| {
        let source = directory.join(&name);
        // An empty file is left behind by container tools, in images that were made on a GPU node.
        root.regular_file_bytes(&source).filter(|bytes| *bytes > 0)?;
        let object = read_object(root, &source)?;
        let links = links_for(&name, object.soname.as_deref());
        Some(DriverLibrary { source, capability: capability_of(&name), name, links })
    };
    root.list(directory).into_iter().filter(is_driver).filter_map(read).collect()
}

/// `libcuda` of `libcuda.so.550.54.15`.
pub(super) fn stem_of(name: &str) -> &str {
    name.split(".so").next().unwrap_or_default()
}

/// The names by which programs ask: the SONAME, for some libraries the name without a version, which CUDA and video
/// programs pass to dlopen, and two names that the dispatchers of GLX and GBM look for.
pub(super) fn links_for(name: &str, soname: Option<&str>) -> Vec<String> {
    let mut links: Vec<String> =
        soname.filter(|soname| *soname != name).map(str::to_owned).into_iter().collect();
    let further = match stem_of(name) {
        "libcuda" => "libcuda.so",
        "libnvidia-opticalflow" => "libnvidia-opticalflow.so",
        "libvdpau_nvidia" => "libvdpau_nvidia.so",
        "libGLX_nvidia" => "libGLX_indirect.so.0",
        "libnvidia-allocator" => graphics::GBM_BACKEND,
        _ => return links,
    };
    links.push(further.to_owned());
    links
}

/// By the lists of libnvidia-container (`src/nvc_info.c`).
pub(super) fn capability_of(name: &str) -> Capability {
    let stem = stem_of(name);
    match stem {
        "libnvidia-ml" | "libnvidia-cfg" | "libnvidia-nscq" | "libnvidia-sandboxutils" => Capability::Utility,
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
        | "libnvidia-api"
        | "libnvidia-vulkan-producer"
        | "libnvidia-wayland-client" => Capability::Graphics,
        _ if stem.starts_with("libnvidia-egl-") || stem.starts_with("libnvidia-gtk") => Capability::Graphics,
        _ => Capability::Compute,
    }
}

fn find_programs(root: &HostRoot, top: &Path, library_directory: &Path) -> Vec<(PathBuf, Capability)> {
    let beside = library_directory.parent().map(|parent| (Path::new("/"), parent.join("bin")));
    let in_tree = PROGRAM_DIRECTORIES.map(|directory| (top, PathBuf::from(directory)));
    let directories: Vec<(&Path, PathBuf)> = beside.into_iter().chain(in_tree).collect();
    PROGRAMS
        .into_iter()
        .filter_map(|(name, capability)| {
            let mut places = directories.iter();
            let found = places.find_map(|(top, directory)| root.real_below(top, &directory.join(name)))?;
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
        check("libvdpau_nvidia.so.550.54.15", Capability::Video);
        check("libnvidia-api.so.1", Capability::Graphics);
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
        let indirect = &["libGLX_nvidia.so.0", "libGLX_indirect.so.0"];
        check("libGLX_nvidia.so.550.54.15", Some("libGLX_nvidia.so.0"), indirect);
    }

    #[test]
    fn the_newest_of_one_soname_has_the_link() {
        let library = |version: &str| DriverLibrary {
            source: "/".into(),
            name: format!("libnvidia-egl-gbm.so.{version}"),
            links: vec!["libnvidia-egl-gbm.so.1".into()],
            capability: Capability::Graphics,
        };
        let mut libraries = ["1.1.10", "1.1.9"].map(library);
        one_library_for_each_link(&mut libraries);
        let links = libraries.map(|library| (library.name, library.links.len()));
        assert_eq!(
            links,
            [("libnvidia-egl-gbm.so.1.1.10".into(), 1), ("libnvidia-egl-gbm.so.1.1.9".into(), 0)]
        );
    }
}
