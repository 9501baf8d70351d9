//! What a container needs for its GPUs.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use crate::elf::cache;
use crate::grants::{BindGrant, FileGrant, Grants, LIBRARY_DIRECTORY, LibraryGrant, NodeGrant};

use super::super::{Capability, Chosen, HostRoot, ImageLibc, Inventory, NodeAccess};
use super::libs::LOADER_CACHE;
use super::mig;

pub(super) fn grants(inventory: &Inventory, chosen: &Chosen, image: &ImageLibc, root: &HostRoot) -> Grants {
    let mut grants = Grants::default();
    add_nodes(&mut grants, inventory, chosen, root);
    add_libraries(&mut grants, inventory, chosen, root);
    add_programs_and_sockets(&mut grants, inventory, chosen, root);
    if !grants.libraries.is_empty() {
        add_loader_facts(&mut grants, image);
    }
    add_environment(&mut grants, chosen);
    grants
}

fn add_nodes(grants: &mut Grants, inventory: &Inventory, chosen: &Chosen, root: &HostRoot) {
    let gpus = chosen.all_gpus().into_iter().filter_map(|place| inventory.gpus.get(place));
    let gpus = gpus.map(|gpu| (&gpu.node, format!("GPU {}: the notes say by which rule", gpu.index)));
    let control = inventory.control_nodes.iter().map(|node| (node, "every GPU needs it".to_owned()));
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
    for node in &inventory.control_nodes {
        grants.notes.push(match root.node_access(node) {
            NodeAccess::Open => format!("{} is inside: every GPU needs it", node.display()),
            answer => format!("{} is inside, but cannot be used: {}", node.display(), answer.reason()),
        });
    }
}

fn add_libraries(grants: &mut Grants, inventory: &Inventory, chosen: &Chosen, root: &HostRoot) {
    let (mut inside, mut outside) = (BTreeMap::new(), BTreeMap::new());
    for library in &inventory.files.libraries {
        let is_wanted = chosen.capabilities.include(library.capability);
        let names: &mut BTreeMap<Capability, Vec<&str>> = if is_wanted { &mut inside } else { &mut outside };
        names.entry(library.capability).or_default().push(&library.name);
        if is_wanted {
            grants.libraries.push(LibraryGrant {
                source: root.place(&library.source),
                name: library.name.clone(),
                links: library.links.clone(),
            });
        }
    }
    let from = inventory.files.directory.as_deref().unwrap_or(Path::new("nowhere")).display();
    for (names, verdict) in [(inside, "are inside"), (outside, "are not inside")] {
        for (capability, names) in names {
            let capability = format!("{capability:?}").to_lowercase();
            grants.notes.push(format!("{capability} libraries of `{from}` {verdict}: {}", names.join(", ")));
        }
    }
    grants.notes.extend(inventory.findings.iter().map(|finding| format!("warning: {finding}")));
}

fn add_programs_and_sockets(grants: &mut Grants, inventory: &Inventory, chosen: &Chosen, root: &HostRoot) {
    for (program, capability) in &inventory.files.programs {
        let (Some(name), true) = (program.file_name(), chosen.capabilities.include(*capability)) else {
            continue;
        };
        let target = Path::new("/usr/bin").join(name);
        grants.notes.push(format!("`{}` is inside: from `{}`", target.display(), program.display()));
        grants.reasons.insert(target.to_string_lossy().into_owned(), "a program of the driver".into());
        grants.binds.push(BindGrant {
            source: root.place(program),
            target,
            read_only: true,
            directory: false,
        });
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
            let content = cache::merge(loader_cache.as_deref(), &loader_entries(&grants.libraries), ARCH);
            grants.files.push(FileGrant { target: PathBuf::from(LOADER_CACHE), content, mode: 0o644 });
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
        for name in library.links.iter().chain([&library.name]) {
            entries.insert(name.clone(), format!("{LIBRARY_DIRECTORY}/{name}"));
        }
    }
    entries.into_iter().collect()
}

fn add_environment(grants: &mut Grants, chosen: &Chosen) {
    // A runtime with NVIDIA's hook inside the container would otherwise inject a second time.
    let why = "the GPUs are inside already, and no hook must add them again";
    grants.reasons.insert("NVIDIA_VISIBLE_DEVICES".into(), why.into());
    grants.env.push(("NVIDIA_VISIBLE_DEVICES".into(), "void".into()));
    if let Some(visible) = &chosen.visible_devices {
        grants
            .reasons
            .insert("CUDA_VISIBLE_DEVICES".into(), "the step's choice, in numbers of the inside".into());
        grants.env.push(("CUDA_VISIBLE_DEVICES".into(), visible.clone()));
    }
}
