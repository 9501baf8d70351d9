//! What OpenGL, Vulkan, EGL, OpenCL and OptiX need beside libraries: files by which they find the driver, the nodes of
//! the kernel's graphics, and a word to EGL about which GPUs there are.
//!
//! All lies at the places where the dispatchers of the image look; mount points that the image lacks are made.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use crate::grants::{BindGrant, FileGrant, Grants, LIBRARY_DIRECTORY, NodeGrant};

use super::super::inventory::DriverConfig;
use super::super::{Capability, Chosen, Gpu, HostRoot, Inventory, NodeAccess};

/// The name by which GBM loads NVIDIA's allocator, from its own directory.
pub(super) const GBM_BACKEND: &str = "gbm/nvidia-drm_gbm.so";
/// Files of data directories, with the place in the container, and what they are for.
const CONFIGS: [(&str, &str, Capability); 15] = [
    ("OpenCL/vendors/nvidia.icd", "/etc", Capability::Compute),
    ("glvnd/egl_vendor.d/10_nvidia.json", "/usr/share", Capability::Graphics),
    ("egl/egl_external_platform.d/09_nvidia_wayland2.json", "/usr/share", Capability::Graphics),
    ("egl/egl_external_platform.d/10_nvidia_wayland.json", "/usr/share", Capability::Graphics),
    ("egl/egl_external_platform.d/15_nvidia_gbm.json", "/usr/share", Capability::Graphics),
    ("egl/egl_external_platform.d/20_nvidia_xcb.json", "/usr/share", Capability::Graphics),
    ("egl/egl_external_platform.d/20_nvidia_xlib.json", "/usr/share", Capability::Graphics),
    ("nvidia/nvoptix.bin", "/usr/share", Capability::Graphics),
    ("X11/xorg.conf.d/10-nvidia.conf", "/usr/share", Capability::Display),
    ("X11/xorg.conf.d/nvidia-drm-outputclass.conf", "/usr/share", Capability::Display),
    ("vulkan/icd.d/nvidia_icd.json", "/etc", Capability::Graphics),
    ("vulkan/icd.d/nvidia_icd.x86_64.json", "/etc", Capability::Graphics),
    ("vulkan/icd.d/nvidia_icd.aarch64.json", "/etc", Capability::Graphics),
    ("vulkan/icd.d/nvidia_layers.json", "/etc", Capability::Graphics),
    ("vulkan/implicit_layer.d/nvidia_layers.json", "/etc", Capability::Graphics),
];
/// Where such files lie on a host, in the order of search.
const DATA_DIRECTORIES: [&str; 3] = ["/etc", "/usr/local/share", "/usr/share"];
/// Tells EGL's driver, which counts all GPUs of the node, which of them it may use.
const PROFILE: &str = "/etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf";

/// Finds the files of the host.
pub(super) fn find_configs(root: &HostRoot) -> Vec<DriverConfig> {
    let find = |(name, target, capability): &(&str, &str, Capability)| {
        let found = DATA_DIRECTORIES.iter().find_map(|top| root.real(&Path::new(top).join(name)))?;
        root.regular_file_bytes(&found)?;
        let target = Path::new(target).join(name);
        Some(DriverConfig { source: found, target, capability: *capability })
    };
    CONFIGS.iter().filter_map(find).collect()
}

/// Adds all of it, as far as it is asked for.
pub(super) fn add(grants: &mut Grants, inventory: &Inventory, chosen: &Chosen, root: &HostRoot) {
    let mut left_out = Vec::new();
    for config in &inventory.files.configs {
        let word = config.capability.word();
        if !chosen.capabilities.include(config.capability) {
            left_out.push(format!("{} ({word})", config.target.display()));
            continue;
        }
        let reason = format!("a file of the driver, for {word}");
        grants.reasons.insert(config.target.to_string_lossy().into_owned(), reason);
        grants.binds.push(BindGrant {
            source: root.place(&config.source),
            target: config.target.clone(),
            read_only: true,
            directory: false,
        });
    }
    if !left_out.is_empty() {
        grants
            .notes
            .push(format!("files of the driver that are not inside, by capability: {}", left_out.join(", ")));
    }
    if !chosen.capabilities.include(Capability::Graphics) {
        return;
    }
    add_dri_nodes(grants, inventory, chosen, root);
    add_gbm(grants);
    let gpus = chosen.all_gpus().into_iter().filter_map(|place| inventory.gpus.get(place));
    let profile = profile(gpus.map(|gpu| gpu.minor));
    grants.reasons.insert(PROFILE.into(), "EGL must not choose a GPU that is not inside".into());
    grants.notes.push(format!("`{PROFILE}` tells EGL which GPUs are inside"));
    grants.files.push(FileGrant { target: PROFILE.into(), content: profile.into_bytes(), mode: 0o444 });
}

/// The DRI nodes of each GPU, by its PCI address: their numbers follow no other.
fn add_dri_nodes(grants: &mut Grants, inventory: &Inventory, chosen: &Chosen, root: &HostRoot) {
    for device in &chosen.devices {
        let Some(gpu) = inventory.gpus.get(device.gpu) else { continue };
        // Only instances with graphics may draw; their profiles say so (`1g.10gb+gfx`).
        if let Some(instance) = inventory.instance(*device)
            && !instance.profile.as_deref().is_some_and(|profile| profile.contains("gfx"))
        {
            let name = format!("MIG {}:{}", gpu.index, instance.index);
            grants.notes.push(format!("no DRI node is inside for {name}: its profile has no graphics"));
            continue;
        }
        add_dri_nodes_of(grants, gpu, root);
    }
}

fn add_dri_nodes_of(grants: &mut Grants, gpu: &Gpu, root: &HostRoot) {
    let Some(address) = &gpu.pci_address else { return };
    let names = root.list(Path::new(&format!("/sys/bus/pci/devices/{address}/drm")));
    for name in names {
        let kind = match (name.strip_prefix("card"), name.strip_prefix("renderD")) {
            (Some(number), _) if is_number(number) => "card",
            (_, Some(number)) if is_number(number) => "render",
            _ => continue,
        };
        let node = Path::new("/dev/dri").join(&name);
        if grants.nodes.iter().any(|other| other.target == node) {
            continue;
        }
        match root.node_access(&node) {
            NodeAccess::Open => {}
            answer => {
                let (node, index) = (node.display(), gpu.index);
                grants.notes.push(format!("{node} of GPU {index} is not inside: {}", answer.reason()));
                continue;
            }
        }
        grants.notes.push(format!("{} is inside: graphics, on GPU {}", node.display(), gpu.index));
        let reason = format!("graphics on GPU {}", gpu.index);
        grants.reasons.insert(node.to_string_lossy().into_owned(), reason);
        grants.nodes.push(NodeGrant { source: root.place(&node), target: node });
        let link = PathBuf::from(format!("/dev/dri/by-path/pci-{address}-{kind}"));
        grants.links.push((link, Path::new("..").join(name)));
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// GBM looks for its backends in one directory of its own, or in those of a variable.
fn add_gbm(grants: &mut Grants) {
    if !grants.libraries.iter().any(|library| library.links.iter().any(|link| link == GBM_BACKEND)) {
        return;
    }
    let value = format!("{LIBRARY_DIRECTORY}/gbm:/usr/lib/{ARCH}-linux-gnu/gbm:/usr/lib64/gbm");
    grants.reasons.insert("GBM_BACKENDS_PATH".into(), "GBM finds NVIDIA's backend there".into());
    grants.env.push(("GBM_BACKENDS_PATH".into(), value));
}

/// In the driver's form: one rule for all programs, with a mask of device minors.
fn profile(minors: impl Iterator<Item = u32>) -> String {
    let mask = minors.filter_map(|minor| 1_u64.checked_shl(minor)).fold(0, |mask, bit| mask | bit);
    let name = "slipway";
    let profile = format!("{{\"name\": \"{name}\", \"settings\": [\"EGLVisibleDGPUDevices\", {mask}]}}");
    format!("{{\"profiles\": [{profile}], \"rules\": [{{\"pattern\": [], \"profile\": \"{name}\"}}]}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_json_with_a_mask_of_minors() {
        let check = |minors: &[u32], mask: u64| {
            let json: serde_json::Value = serde_json::from_str(&profile(minors.iter().copied())).unwrap();
            let settings = serde_json::json!(["EGLVisibleDGPUDevices", mask]);
            assert_eq!(
                (&json["profiles"][0]["settings"], &json["rules"][0]["profile"]),
                (&settings, &json["profiles"][0]["name"])
            );
        };
        check(&[0], 1);
        check(&[2, 5], 0b10_0100);
        check(&[63, 64], 1 << 63);
    }
}
