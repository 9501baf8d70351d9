//! Device nodes of DRM and of accelerators by what sysfs says of the device behind: `/sys/class/CLASS/NODE/device/uevent`.
//!
//! ```text
//! DRIVER=xe
//! PCI_ID=8086:0BD5
//! PCI_SLOT_NAME=0000:4d:00.0
//! ```

use std::path::{Path, PathBuf};

use super::HostRoot;
use super::inventory::canonical_address;

/// The device behind a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Uevent {
    pub(super) driver: Option<String>,
    /// Vendor and device of PCI.
    pub(super) pci_id: Option<(u32, u32)>,
    pub(super) pci_address: Option<String>,
    /// What the module loader goes by (`platform:amdgpu_xcp`).
    pub(super) alias: String,
}

impl Uevent {
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "DRIVER" => found.driver = Some(value.to_owned()),
                "MODALIAS" => value.clone_into(&mut found.alias),
                "PCI_SLOT_NAME" => found.pci_address = canonical_address(value),
                "PCI_ID" => {
                    let number = |text: &str| u32::from_str_radix(text, 16).ok();
                    let (vendor, device) = value.split_once(':').unwrap_or_default();
                    found.pci_id = number(vendor).zip(number(device));
                }
                _ => {}
            }
        }
        found
    }
}

/// The nodes `<prefix><number>` of a class, in the order of their numbers, with what is behind.
pub(super) fn nodes(root: &HostRoot, class: &str, prefix: &str) -> Vec<(u32, Uevent)> {
    let directory = format!("/sys/class/{class}");
    let names = root.list(Path::new(&directory));
    let mut numbers: Vec<u32> =
        names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
    numbers.sort_unstable();
    let read = |number| root.read(&format!("{directory}/{prefix}{number}/device/uevent"));
    numbers.into_iter().filter_map(|number| Some((number, Uevent::parse(&read(number)?)))).collect()
}

/// The version that a module tells; those of the kernel's own tree have none.
pub(super) fn module_version(root: &HostRoot, module: &str) -> Option<String> {
    let text = root.read(&format!("/sys/module/{module}/version"))?;
    let version = text.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

/// The render node of a minor.
pub(super) fn render_node(minor: u32) -> PathBuf {
    format!("/dev/dri/renderD{minor}").into()
}

/// The card node beside a render node, if the device has one.
pub(super) fn card_node(root: &HostRoot, render_minor: u32) -> Option<PathBuf> {
    let directory = format!("/sys/class/drm/renderD{render_minor}/device/drm");
    let is_card =
        |name: &String| name.strip_prefix("card").is_some_and(|number| number.parse::<u32>().is_ok());
    let name = root.list(Path::new(&directory)).into_iter().find(is_card)?;
    Some(Path::new("/dev/dri").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_behind_a_node() {
        let text = "DRIVER=xe\nPCI_CLASS=38000\nPCI_ID=8086:0BD5\nPCI_SUBSYS_ID=8086:2F23\nPCI_SLOT_NAME=0000:4D:00.0\n\
                    MODALIAS=pci:v00008086d00000BD5sv\n";
        let expected = Uevent {
            driver: Some("xe".into()),
            pci_id: Some((0x8086, 0x0bd5)),
            pci_address: Some("0000:4d:00.0".into()),
            alias: "pci:v00008086d00000BD5sv".into(),
        };
        assert_eq!(Uevent::parse(text), expected);
        for text in ["", "DRIVER", "PCI_ID=8086\nPCI_ID=x:y\nPCI_SLOT_NAME=z"] {
            assert_eq!(Uevent::parse(text), Uevent::default(), "{text}");
        }
    }
}
