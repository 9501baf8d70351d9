//! The topology of the compute driver in sysfs: a directory for each processor, of which a GPU's has a `gpu_id` that is not
//! 0. A partition of a GPU is a processor of its own, with a render node of its own.
//!
//! ```text
//! /sys/class/kfd/kfd/topology/nodes/4/gpu_id        51234
//!                                     properties    drm_render_minor 128
//!                                                   location_id 7424        bus, device and function of PCI
//!                                                   domain 0
//!                                                   unique_id 8103312837561231123
//!                                                   gfx_target_version 90402
//! ```
//!
//! The kernel refuses to show (EPERM) a GPU that the device cgroup denies. It still counts, so that indices are those of
//! the node; what it is, is then known by its render node.

use std::path::Path;

use super::super::{HostRoot, uevent};

const NODES: &str = "/sys/class/kfd/kfd/topology/nodes";
/// Numbers of render nodes begin here (drm_drv.c).
const FIRST_RENDER_MINOR: u64 = 128;
/// Most memory banks of a GPU that are read; a real one has one or two.
const MAX_BANKS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Topology {
    /// In the order of the topology.
    pub(super) gpus: Vec<KfdGpu>,
    pub(super) findings: Vec<String>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct KfdGpu {
    /// Its directory.
    pub(super) node: u32,
    pub(super) render_minor: u32,
    pub(super) pci_address: Option<String>,
    pub(super) unique_id: Option<u64>,
    /// The compiler's name of the architecture (`gfx942`).
    pub(super) target: Option<String>,
}

pub(super) fn read(root: &HostRoot) -> Topology {
    let mut topology = Topology::default();
    let mut hidden = Vec::new();
    let mut nodes: Vec<u32> =
        root.list(Path::new(NODES)).iter().filter_map(|name| name.parse().ok()).collect();
    nodes.sort_unstable();
    for node in nodes {
        let id = root.read(&format!("{NODES}/{node}/gpu_id"));
        if id.as_deref().map(str::trim) == Some("0") {
            continue;
        }
        match id.and_then(|_| root.read(&format!("{NODES}/{node}/properties"))) {
            None => hidden.push(node),
            Some(text) => match parse_properties(&text) {
                Some(gpu) => topology.gpus.push(KfdGpu { node, ..gpu }),
                None => topology
                    .findings
                    .push(format!("{NODES}/{node} has no render node, so that ROCm cannot use it")),
            },
        }
    }
    if !hidden.is_empty() {
        add_hidden(root, &mut topology.gpus, hidden);
    }
    topology
}

/// Both orders, of directories and of render nodes, are the one in which the driver has found the GPUs.
fn add_hidden(root: &HostRoot, gpus: &mut Vec<KfdGpu>, hidden: Vec<u32>) {
    let is_ours = |device: &uevent::Uevent| {
        device.driver.as_deref() == Some("amdgpu") || device.alias.starts_with("platform:amdgpu_xcp")
    };
    let mut left = uevent::nodes(root, "drm", "renderD");
    left.retain(|(minor, device)| is_ours(device) && gpus.iter().all(|gpu| gpu.render_minor != *minor));
    for (node, (render_minor, device)) in hidden.into_iter().zip(left) {
        gpus.push(KfdGpu { node, render_minor, pci_address: device.pci_address, ..KfdGpu::default() });
    }
    gpus.sort_by_key(|gpu| gpu.node);
}

/// The `properties` of a GPU's directory; `None` without a render node.
fn parse_properties(text: &str) -> Option<KfdGpu> {
    let value = |key: &str| -> Option<u64> {
        let mut pairs = text.lines().filter_map(|line| line.trim().split_once(' '));
        pairs.find(|(name, _)| *name == key)?.1.trim().parse().ok()
    };
    let minor = value("drm_render_minor").filter(|minor| *minor >= FIRST_RENDER_MINOR)?;
    let address = |location: u64| {
        // Bits above say which partition it is.
        let (bus, device, function) = (location >> 8 & 0xff, location >> 3 & 0x1f, location & 7);
        let domain = u32::try_from(value("domain").unwrap_or(0)).ok()?;
        Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
    };
    // 90402 is 9.4.2, and 90010 is 9.0.10, which is written gfx90a.
    let target = |version: u64| {
        let (major, minor, stepping) = (version / 10_000, version / 100 % 100, version % 100);
        format!("gfx{major}{minor:x}{stepping:x}")
    };
    Some(KfdGpu {
        node: 0,
        render_minor: u32::try_from(minor).ok()?,
        pci_address: value("location_id").and_then(address),
        unique_id: value("unique_id"),
        target: value("gfx_target_version").filter(|version| *version != 0).map(target),
    })
}

/// The memory of a GPU: the sum of its banks.
pub(super) fn memory_bytes(root: &HostRoot, node: u32) -> Option<u64> {
    let banks = format!("{NODES}/{node}/mem_banks");
    let names = root.list(Path::new(&banks));
    let sizes = names.iter().take(MAX_BANKS).filter_map(|bank| {
        let text = root.read(&format!("{banks}/{bank}/properties"))?;
        let mut sizes = text.lines().filter_map(|line| line.trim().strip_prefix("size_in_bytes "));
        sizes.next()?.trim().parse::<u64>().ok()
    });
    sizes.reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::inventory::canonical_address;
    use super::*;

    /// Lines of a kernel of 2025, those that are read and some of the others.
    fn text(pairs: &[(&str, u64)]) -> String {
        let usual = [("cpu_cores_count", 0), ("simd_count", 304), ("local_mem_size", 0)];
        let lines = usual.iter().chain(pairs).map(|(key, value)| format!("{key} {value}\n"));
        lines.chain(["num_cp_queues 24\n".into()]).collect()
    }

    #[test]
    fn properties_of_a_gpu_and_of_a_partition() {
        let whole = text(&[
            ("gfx_target_version", 90_402),
            ("location_id", 0x1d00),
            ("domain", 0),
            ("drm_render_minor", 128),
            ("unique_id", 0x7074_0b1f_33c8_9153),
        ]);
        let expected = KfdGpu {
            node: 0,
            render_minor: 128,
            pci_address: Some("0000:1d:00.0".into()),
            unique_id: Some(0x7074_0b1f_33c8_9153),
            target: Some("gfx942".into()),
        };
        assert_eq!(parse_properties(&whole), Some(expected));
        let part = text(&[("location_id", 0x3000_e131), ("domain", 0x10000), ("drm_render_minor", 131)]);
        let part = parse_properties(&part).unwrap();
        assert_eq!((part.render_minor, part.pci_address.as_deref()), (131, Some("10000:e1:06.1")));
        for (version, name) in [(90_010, "gfx90a"), (100_300, "gfx1030"), (110_501, "gfx1151")] {
            let found =
                parse_properties(&text(&[("drm_render_minor", 128), ("gfx_target_version", version)]));
            assert_eq!(found.unwrap().target.as_deref(), Some(name));
        }
        for none in [
            text(&[]),
            text(&[("drm_render_minor", 0)]),
            "drm_render_minor -1\n".into(),
            "drm_render_minor\n".into(),
            format!("drm_render_minor {}\n", u64::MAX),
        ] {
            assert_eq!(parse_properties(&none), None, "{none}");
        }
    }

    proptest! {
        /// Whatever the kernel writes: a GPU or none; the address that is told is one.
        #[test]
        fn any_properties_are_a_gpu_or_none(text in any_properties()) {
            if let Some(gpu) = parse_properties(&text) {
                prop_assert!(gpu.render_minor >= 128);
                if let Some(address) = gpu.pci_address {
                    prop_assert_eq!(canonical_address(&address), Some(address));
                }
            }
        }

        /// Each fact is found wherever its line stands.
        #[test]
        fn order_of_lines_does_not_matter(
            (lines, shuffled) in any_lines().prop_flat_map(|lines| (Just(lines.clone()), Just(lines).prop_shuffle())),
        ) {
            prop_assert_eq!(parse_properties(&lines.concat()), parse_properties(&shuffled.concat()));
        }
    }

    const KEYS: [&str; 6] =
        ["drm_render_minor", "location_id", "domain", "unique_id", "gfx_target_version", "simd_count"];

    fn any_properties() -> impl Strategy<Value = String> {
        let line = (prop::sample::select(&KEYS[..]), "[ \t]{0,2}", "(-?[0-9]{1,20}|[ -~]{0,5})", "\n{0,2}");
        let line = line.prop_map(|(key, space, value, end)| format!("{key}{space}{value}{end}"));
        prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
    }

    fn any_lines() -> impl Strategy<Value = Vec<String>> {
        any::<[u64; 6]>().prop_map(|values| {
            KEYS.iter().zip(values).map(|(key, value)| format!("{key} {}\n", value % 0x1_0000_0000)).collect()
        })
    }
}
