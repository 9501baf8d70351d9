//! How the GPUs and network adapters of a node reach each other and its memory.
//!
//! sysfs knows the PCIe tree and the NUMA nodes, for GPUs of every maker; NVML knows NVLinks, and is believed about the
//! path between two GPUs where it speaks of it, since a virtual machine shows another tree than the one that there is.

mod matrix;
mod read;
mod svg;

use std::fmt;

pub use read::read_topology;

/// The devices of a node and what lies between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// NUMA nodes that have CPUs.
    pub numa_nodes: Vec<NumaNode>,
    /// The GPUs in the order of their indices, and behind them the network adapters by name.
    pub devices: Vec<Device>,
    /// How many of the devices are GPUs.
    pub gpus: usize,
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaNode {
    /// Its number.
    pub id: u32,
    /// Its CPUs (`0-47`).
    pub cpus: String,
}

/// A GPU or a network adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// `GPU0`, `NIC0`.
    pub label: String,
    /// Model, or the kernel's name (`mlx5_0`).
    pub name: Option<String>,
    /// In the form of procfs.
    pub pci_address: Option<String>,
    /// The host bridge that it hangs below (`pci0000:16`).
    pub root: Option<String>,
    /// The addresses of the bridges from there to the device.
    pub bridges: Vec<String>,
    /// The NUMA node that it is near to.
    pub numa_node: Option<u32>,
    /// The CPUs that it is near to.
    pub cpus: Option<String>,
    /// The NUMA node that its own memory is.
    pub own_numa_node: Option<u32>,
    /// Ends of NVLinks: a device's place in [`Topology::devices`], and how many links lead there.
    pub direct_links: Vec<(usize, u32)>,
    /// NVLinks to switches, through which all GPUs with such links reach each other.
    pub switch_links: u32,
    /// What NVML says of the path to other GPUs.
    pub told: Vec<(usize, Relation)>,
}

/// What lies between two devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Nothing: it is the same.
    Itself,
    /// So many NVLinks.
    NvLink(u32),
    /// At most one PCIe bridge.
    Pix,
    /// Several PCIe bridges.
    Pxb,
    /// A host bridge.
    Phb,
    /// Host bridges of one NUMA node.
    Node,
    /// The link between NUMA nodes.
    Sys,
    /// Nobody knows.
    Unknown,
}

impl Relation {
    /// A word of the matrix.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        match word {
            "PIX" => Self::Pix,
            "PXB" => Self::Pxb,
            "PHB" => Self::Phb,
            "NODE" => Self::Node,
            "SYS" => Self::Sys,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself => f.write_str("X"),
            Self::NvLink(count) => write!(f, "NV{count}"),
            Self::Pix => f.write_str("PIX"),
            Self::Pxb => f.write_str("PXB"),
            Self::Phb => f.write_str("PHB"),
            Self::Node => f.write_str("NODE"),
            Self::Sys => f.write_str("SYS"),
            Self::Unknown => f.write_str("-"),
        }
    }
}

impl Topology {
    /// The best way between two devices, by their places.
    #[must_use]
    pub fn relation(&self, from: usize, to: usize) -> Relation {
        let (Some(one), Some(other)) = (self.devices.get(from), self.devices.get(to)) else {
            return Relation::Unknown;
        };
        if from == to {
            return Relation::Itself;
        }
        match self.links(from, to) {
            0 => {}
            count => return Relation::NvLink(count),
        }
        match one.told.iter().find(|(place, _)| *place == to) {
            Some((_, told)) if *told != Relation::Unknown => *told,
            _ => self.by_path(one, other),
        }
    }

    /// NVLinks between two devices, directly or by switches.
    fn links(&self, from: usize, to: usize) -> u32 {
        let (Some(one), Some(other)) = (self.devices.get(from), self.devices.get(to)) else { return 0 };
        match one.direct_links.iter().find(|(place, _)| *place == to) {
            Some((_, count)) => *count,
            None => one.switch_links.min(other.switch_links),
        }
    }

    /// By the places in the PCIe tree. A switch is one bridge towards the CPU and one towards each device.
    fn by_path(&self, one: &Device, other: &Device) -> Relation {
        let (Some(root), Some(other_root)) = (&one.root, &other.root) else { return Relation::Unknown };
        if root == other_root {
            let pairs = one.bridges.iter().zip(&other.bridges);
            let common = pairs.take_while(|(bridge, other)| bridge == other).count();
            let below = (one.bridges.len() - common).max(other.bridges.len() - common);
            return match (common, below) {
                (0, _) => Relation::Phb,
                (_, 0 | 1) => Relation::Pix,
                _ => Relation::Pxb,
            };
        }
        match (one.numa_node, other.numa_node) {
            (Some(node), Some(other)) if node != other => Relation::Sys,
            (Some(_), Some(_)) => Relation::Node,
            _ if self.numa_nodes.len() < 2 => Relation::Node,
            _ => Relation::Sys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_the_tree() {
        let device = |root: &str, bridges: &str, node: u32| Device {
            root: Some(root.into()),
            bridges: bridges.split_whitespace().map(str::to_owned).collect(),
            numa_node: Some(node),
            ..Device::default()
        };
        let check = |one: Device, other: Device, expected: &str| {
            let both = Topology { devices: vec![one, other], gpus: 2, ..Topology::default() };
            let words = [both.relation(0, 1), both.relation(1, 0)].map(|relation| relation.to_string());
            assert_eq!(words, [expected, expected]);
        };
        let first = || device("pci0000:16", "port up down0", 0);
        check(first(), device("pci0000:16", "port up down1", 0), "PIX");
        check(device("pci0000:16", "port", 0), device("pci0000:16", "port", 0), "PIX");
        check(first(), device("pci0000:16", "port up down1 up2 down2", 0), "PXB");
        check(first(), device("pci0000:16", "port2", 0), "PHB");
        check(first(), device("pci0000:4a", "port", 0), "NODE");
        check(first(), device("pci0000:4a", "port", 1), "SYS");
        check(first(), Device::default(), "-");
        let linked = |place, count| Device { direct_links: vec![(place, count)], ..first() };
        check(linked(1, 4), linked(0, 4), "NV4");
        let switched = |count| Device { switch_links: count, ..first() };
        check(switched(18), switched(17), "NV17");
        check(switched(18), first(), "PIX");
        let told = |place| Device { told: vec![(place, Relation::Sys)], ..first() };
        check(told(1), told(0), "SYS");
    }
}
