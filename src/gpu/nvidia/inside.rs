//! What a container needs for its GPUs.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use crate::elf::cache;
use crate::grants::{BindGrant, FileGrant, Grants, LIBRARY_DIRECTORY, LibraryGrant, NodeGrant};

use super::super::{Capability, Chosen, HostRoot, ImageLibc, Inventory, NodeAccess, visible};
use super::libs::LOADER_CACHE;
use super::{graphics, mig, nodes, troubles, view, wsl};

/// Where 32-bit libraries lie in the library directory.
const DIRECTORY_32: &str = "32/";

pub(super) fn grants(inventory: &Inventory, chosen: &Chosen, image: &ImageLibc, root: &HostRoot) -> Grants {
    let mut grants = Grants::default();
    add_nodes(&mut grants, inventory, chosen, root);
    add_libraries(&mut grants, inventory, chosen, root);
    add_programs_and_sockets(&mut grants, inventory, chosen, root);
    graphics::add(&mut grants, inventory, chosen, root);
    view::reduce(&mut grants, inventory, chosen, root);
    if !grants.libraries.is_empty() {
        add_loader_facts(&mut grants, image);
    }
    add_environment(&mut grants, chosen);
    grants.notes.extend(nodes::explain_others(root));
    grants.troubles = troubles::of_container(root, inventory, chosen, image);
    let told: Vec<String> = grants.troubles.iter().map(ToString::to_string).collect();
    grants.notes.extend(inventory.findings.iter().filter(|finding| !told.contains(finding)).cloned());
    grants
}

fn add_nodes(grants: &mut Grants, inventory: &Inventory, chosen: &Chosen, root: &HostRoot) {
    let gpus = chosen.all_gpus().into_iter().filter_map(|place| inventory.gpus.get(place));
    let gpus = gpus.map(|gpu| (&gpu.node, format!("GPU {}: the notes say by which rule", gpu.index)));
    let control = inventory.control_nodes.iter().filter_map(|node| {
        let rule = nodes::rule_of(node, &chosen.capabilities).ok()?;
        Some((node, rule.to_owned()))
    });
    for (node, why) in gpus.chain(control) {
        grants.nodes.push(NodeGrant { source: root.place(node), target: node.clone() });
        grants.reasons.insert(node.to_string_lossy().into_owned(), why);
    }
    if chosen.devices.iter().any(|device| device.instance.is_some()) {
        mig::hide_others(grants);
    }
    for device in &chosen.devices {
        if let (Some(gpu), Some(instance)) = (inventory.gpus.get(device.gpu), inventory.instance(*device)) {
            mig::add_instance(grants, gpu, instance, root);
        }
    }
    if let Some(place) = root.device_root() {
        grants.notes.push(format!("device nodes are those of `{}`", place.join("dev").display()));
    }
    for node in &inventory.control_nodes {
        let place = node.display();
        grants.notes.push(match (nodes::rule_of(node, &chosen.capabilities), root.node_access(node)) {
            (Err(rule), _) => format!("{place} is not inside: {rule}"),
            (Ok(rule), NodeAccess::Open) => format!("{place} is inside: {rule}"),
            (Ok(_), answer) => format!("{place} is inside, but cannot be used: {}", answer.reason()),
        });
    }
}

fn add_libraries(grants: &mut Grants, inventory: &Inventory, chosen: &Chosen, root: &HostRoot) {
    let (mut inside, mut outside) = (BTreeMap::new(), BTreeMap::new());
    for library in &inventory.files.libraries {
        let is_wanted = chosen.capabilities.include_library(library) || library.name == wsl::BASE_LIBRARY;
        let names: &mut BTreeMap<Capability, Vec<&str>> = if is_wanted { &mut inside } else { &mut outside };
        names.entry(library.capability).or_default().push(&library.name);
        if is_wanted {
            let place = format!("{LIBRARY_DIRECTORY}/{}", library.name);
            let reason = format!("a library of the driver, for {}", library.capability.word());
            grants.reasons.insert(place, reason);
            grants.libraries.push(LibraryGrant {
                source: root.place(&library.source),
                name: library.name.clone(),
                links: library.links.clone(),
            });
        }
    }
    add_libraries_32(grants, inventory, chosen, root);
    let from = inventory.files.directory.as_deref().unwrap_or(Path::new("nowhere")).display();
    for (names, verdict) in [(inside, "are inside"), (outside, "are not inside")] {
        for (capability, names) in names {
            let capability = capability.word();
            grants.notes.push(format!("{capability} libraries of `{from}` {verdict}: {}", names.join(", ")));
        }
    }
    if let Some(how) = &inventory.files.found_by {
        grants.notes.push(format!("the driver's libraries were found through {how}"));
    }
}

/// The 32-bit libraries, whose names are those of the others, in a directory of their own.
fn add_libraries_32(grants: &mut Grants, inventory: &Inventory, chosen: &Chosen, root: &HostRoot) {
    let mut names = Vec::new();
    if !chosen.capabilities.include(Capability::Compat32) {
        return;
    }
    let libraries = inventory.files.libraries_32.iter();
    for library in libraries.filter(|library| chosen.capabilities.include_library(library)) {
        let inside = |name: &String| format!("{DIRECTORY_32}{name}");
        let reason = format!("a 32-bit library of the driver, for {}", library.capability.word());
        grants.reasons.insert(format!("{LIBRARY_DIRECTORY}/{}", inside(&library.name)), reason);
        names.push(library.name.as_str());
        grants.libraries.push(LibraryGrant {
            source: root.place(&library.source),
            name: inside(&library.name),
            links: library.links.iter().filter(|link| !link.contains('/')).map(inside).collect(),
        });
    }
    if !names.is_empty() {
        grants.notes.push(format!("32-bit libraries are inside: {}", names.join(", ")));
    }
}

fn add_programs_and_sockets(grants: &mut Grants, inventory: &Inventory, chosen: &Chosen, root: &HostRoot) {
    for (program, capability) in &inventory.files.programs {
        let Some(name) = program.file_name() else { continue };
        if !chosen.capabilities.include(*capability) {
            let (program, word) = (program.display(), capability.word());
            grants.notes.push(format!("`{program}` is not inside: it is for {word}"));
            continue;
        }
        let target = Path::new("/usr/bin").join(name);
        grants.notes.push(format!("`{}` is inside: from `{}`", target.display(), program.display()));
        grants.reasons.insert(
            target.to_string_lossy().into_owned(),
            format!("a program of the driver, for {}", capability.word()),
        );
        grants.binds.push(BindGrant {
            source: root.place(program),
            target,
            read_only: true,
            directory: false,
        });
    }
    for directory in &inventory.files.whole_directories {
        let place = directory.to_string_lossy().into_owned();
        grants.notes.push(format!("`{place}` is inside: the driver's libraries read files there"));
        grants.reasons.insert(place, "the driver's libraries read files there".into());
        let (source, target) = (root.place(directory), directory.clone());
        grants.binds.push(BindGrant { source, target, read_only: true, directory: true });
    }
    for socket in inventory.files.sockets.iter().filter(|_| chosen.capabilities.include(Capability::Utility))
    {
        grants.notes.push(format!("`{}` is inside: the driver's daemon listens there", socket.display()));
        grants
            .reasons
            .insert(socket.to_string_lossy().into_owned(), "the driver's daemon listens there".into());
        let (source, target) = (root.place(socket), socket.clone());
        grants.binds.push(BindGrant { source, target, read_only: false, directory: false });
    }
}

/// How the image's loader finds the libraries: by a cache where it is glibc's, else by a variable.
pub(in super::super) fn add_loader_facts(grants: &mut Grants, image: &ImageLibc) {
    let directory = LIBRARY_DIRECTORY;
    let (library_path, why) = match image {
        ImageLibc::Glibc { loader_cache } => {
            let (of_32, of_64): (Vec<_>, Vec<_>) =
                loader_entries(&grants.libraries).into_iter().partition(|(_, path)| is_32(path));
            let mut content = cache::merge(loader_cache.as_deref(), &of_64, ARCH);
            if !of_32.is_empty() {
                content = cache::merge(Some(&content), &of_32, "x86");
            }
            grants.files.push(FileGrant { target: PathBuf::from(LOADER_CACHE), content, mode: 0o644 });
            grants
                .reasons
                .insert(LOADER_CACHE.into(), "the image's with the driver's libraries in it".into());
            grants.notes.push(format!(
                "`{LOADER_CACHE}` is the image's with the driver's libraries in `{directory}`"
            ));
            return;
        }
        ImageLibc::Musl { library_path } => {
            (library_path, "the image has musl, for which the driver's libraries are not made: they may fail")
        }
        ImageLibc::Unknown { library_path } => (library_path, "the image has no glibc that reads a cache"),
    };
    let value = match library_path.as_deref().filter(|path| !path.is_empty()) {
        Some(path) => format!("{directory}:{path}"),
        None => directory.to_owned(),
    };
    grants.notes.push(format!("LD_LIBRARY_PATH is `{value}`: {why}"));
    grants.reasons.insert("LD_LIBRARY_PATH".into(), why.into());
    grants.env.push(("LD_LIBRARY_PATH".into(), value));
}

/// Every name by which a library can be asked for, with its place in the container.
fn loader_entries(libraries: &[LibraryGrant]) -> Vec<(String, String)> {
    let mut entries = BTreeMap::new();
    for library in libraries {
        let names = library.links.iter().chain([&library.name]).filter(|name| *name != graphics::GBM_BACKEND);
        for name in names {
            let is_32 = name.starts_with(DIRECTORY_32);
            let asked = name.strip_prefix(DIRECTORY_32).unwrap_or(name).to_owned();
            entries.insert((asked, is_32), format!("{LIBRARY_DIRECTORY}/{name}"));
        }
    }
    entries.into_iter().map(|((asked, _), path)| (asked, path)).collect()
}

fn is_32(path: &str) -> bool {
    path.strip_prefix(LIBRARY_DIRECTORY)
        .and_then(|path| path.strip_prefix('/'))
        .is_some_and(|name| name.starts_with(DIRECTORY_32))
}

fn add_environment(grants: &mut Grants, chosen: &Chosen) {
    // A runtime with NVIDIA's hook inside the container would otherwise inject a second time.
    let why = "the GPUs are inside already, and no hook must add them again";
    grants.reasons.insert("NVIDIA_VISIBLE_DEVICES".into(), why.into());
    grants.env.push(("NVIDIA_VISIBLE_DEVICES".into(), "void".into()));
    visible::grant(grants, &chosen.visible_devices);
}
