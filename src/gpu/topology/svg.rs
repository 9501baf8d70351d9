//! The topology as a drawing: NUMA nodes side by side, in them PCIe switches with adapters above and GPUs below, and the
//! NVLinks under all. One file without anything outside of it; its colours follow the reader's light or dark theme.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Device, Topology};

// All in the drawing's own units, which are pixels at its natural size.
const CELL: u32 = 156;
const CELL_HEIGHT: u32 = 58;
const GAP: u32 = 14;
const TITLE: u32 = 30;
const MARGIN: u32 = 24;
const SWITCH_HEIGHT: u32 = 40;
/// From the GPUs to what joins their NVLinks.
const LINK_DEPTH: u32 = 64;
/// Letters of a cell that fit in its width.
const CELL_CHARS: usize = 22;

// Plain colours and no variables, which not every viewer of SVG knows.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.s{font-size:11px;fill:#59636e}.b{font-weight:600}.m{text-anchor:middle}\
.ground{fill:#fff}.node{fill:#f3f5f8}.switch{fill:#e4e9f0}.gpu{fill:#d9efd6}.nic{fill:#d8e6fb}\
.node,.switch,.gpu,.nic,.wire{stroke:#8c96a3}.link{stroke:#3f8f3a;stroke-width:2;fill:none}\
@media (prefers-color-scheme:dark){text{fill:#e6ebf0}.s{fill:#9aa5b1}\
.ground{fill:#14181d}.node{fill:#1d232a}.switch{fill:#29313a}.gpu{fill:#21452a}.nic{fill:#1f3a5f}\
.node,.switch,.gpu,.nic,.wire{stroke:#6b7683}.link{stroke:#6fc46a}}";

/// Devices below one switch or host bridge.
struct Group<'a> {
    title: String,
    adapters: Vec<&'a Device>,
    gpus: Vec<(usize, &'a Device)>,
}

impl Group<'_> {
    fn columns(&self) -> u32 {
        count(self.adapters.len().max(self.gpus.len()).max(1))
    }

    fn width(&self) -> u32 {
        self.columns() * (CELL + GAP) + GAP
    }
}

/// Numbers of devices are small; a drawing of more would be of no use.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX).min(1024)
}

impl Topology {
    /// The drawing, a whole SVG file.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let nodes = self.groups();
        let mut body = String::new();
        let mut gpu_feet: BTreeMap<usize, u32> = BTreeMap::new();
        let has_adapters = self.devices.len() > self.gpus;
        let adapters_top = MARGIN + 2 * TITLE;
        let gpus_top = adapters_top + if has_adapters { CELL_HEIGHT + 2 * GAP } else { 0 };
        let node_bottom = gpus_top + CELL_HEIGHT + 2 * GAP;
        let feet = gpus_top + CELL_HEIGHT;
        let mut left = MARGIN;
        for (place, (title, groups)) in nodes.iter().enumerate() {
            let width = groups.iter().map(|group| group.width() + GAP).sum::<u32>() + GAP;
            if place > 0 {
                line(&mut body, "wire", (left - MARGIN, MARGIN + TITLE / 2), (left, MARGIN + TITLE / 2));
            }
            rect(&mut body, "node", (left, MARGIN), (width, node_bottom - MARGIN));
            text(&mut body, "b", (left + GAP, MARGIN + 20), title);
            let mut group_left = left + GAP;
            for group in groups {
                let top = MARGIN + TITLE;
                rect(&mut body, "switch", (group_left, top), (group.width(), node_bottom - top - GAP));
                text(&mut body, "s", (group_left + GAP, top + 18), &group.title);
                let cell_left = |column: usize| group_left + GAP + count(column) * (CELL + GAP);
                for (column, device) in group.adapters.iter().enumerate() {
                    cell(&mut body, "nic", (cell_left(column), adapters_top), device);
                }
                for (column, (number, device)) in group.gpus.iter().enumerate() {
                    cell(&mut body, "gpu", (cell_left(column), gpus_top), device);
                    gpu_feet.insert(*number, cell_left(column) + CELL / 2);
                }
                group_left += group.width() + GAP;
            }
            left += width + MARGIN;
        }
        let bottom = self.draw_links(&mut body, &gpu_feet, feet, node_bottom);
        let (width, height) = (left.max(2 * MARGIN + CELL), bottom + MARGIN);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             role=\"img\">\n<title>Topology of this node</title>\n<style>{STYLE}</style>\n\
             <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n{body}</svg>\n"
        )
    }

    /// Devices by NUMA node and by what they hang below.
    fn groups(&self) -> Vec<(String, Vec<Group<'_>>)> {
        let mut nodes: BTreeMap<Option<u32>, BTreeMap<String, Group<'_>>> = BTreeMap::new();
        for node in &self.numa_nodes {
            nodes.entry(Some(node.id)).or_default();
        }
        for (place, device) in self.devices.iter().enumerate() {
            let title = switch_of(device);
            let groups = nodes.entry(device.numa_node).or_default();
            let group = groups.entry(title.clone()).or_insert_with(|| Group {
                title,
                adapters: Vec::new(),
                gpus: Vec::new(),
            });
            if place < self.gpus {
                group.gpus.push((place, device));
            } else {
                group.adapters.push(device);
            }
        }
        let title = |id: Option<u32>| match id {
            None => "NUMA node not known".to_owned(),
            Some(id) => match self.numa_nodes.iter().find(|node| node.id == id) {
                Some(node) => format!("NUMA node {id}: CPUs {}", node.cpus),
                None => format!("NUMA node {id}"),
            },
        };
        nodes
            .into_iter()
            .map(|(id, groups)| {
                let mut groups: Vec<Group<'_>> = groups.into_values().collect();
                if groups.is_empty() {
                    groups.push(Group { title: "no GPU".into(), adapters: Vec::new(), gpus: Vec::new() });
                }
                (title(id), groups)
            })
            .collect()
    }

    /// Draws the NVLinks below the GPUs and says where the drawing ends.
    fn draw_links(&self, body: &mut String, columns: &BTreeMap<usize, u32>, feet: u32, below: u32) -> u32 {
        let mut bottom = below;
        let column = |place: usize| columns.get(&place).copied();
        let gpus = self.devices.get(..self.gpus).unwrap_or_default();
        let switched: Vec<(u32, u32)> = gpus
            .iter()
            .enumerate()
            .filter(|(_, gpu)| gpu.switch_links > 0)
            .filter_map(|(place, gpu)| Some((column(place)?, gpu.switch_links)))
            .collect();
        if let (Some(first), Some(last)) = (switched.iter().min(), switched.iter().max()) {
            let top = below + LINK_DEPTH;
            for (x, links) in &switched {
                line(body, "link", (*x, feet), (*x, top));
                text(body, "s", (x + 6, top - 10), &format!("{links} NVLinks"));
            }
            rect(body, "switch", (first.0 - CELL / 2, top), (last.0 - first.0 + CELL, SWITCH_HEIGHT));
            text(body, "b m", (u32::midpoint(first.0, last.0), top + 25), "NVLink switches");
            bottom = top + SWITCH_HEIGHT;
        }
        for (from, gpu) in gpus.iter().enumerate() {
            for (to, links) in gpu.direct_links.iter().filter(|(to, _)| *to > from) {
                let (Some(start), Some(end)) = (column(from), column(*to)) else { continue };
                let depth = below + LINK_DEPTH / 2 + 26 * count(to - from);
                let middle = u32::midpoint(start, end);
                let _ = writeln!(
                    body,
                    "<path class=\"link\" d=\"M{start} {feet}C{start} {depth} {end} {depth} {end} {feet}\"/>"
                );
                // A cubic curve reaches three quarters of the way to its control points.
                let low = feet + (depth - feet) * 3 / 4;
                text(body, "s m", (middle, low + 14), &format!("{links} NVLinks"));
                bottom = bottom.max(low + 20);
            }
        }
        bottom
    }
}

/// The switch that a device hangs below: below a root port, one port up and one down. Else the host bridge.
fn switch_of(device: &Device) -> String {
    let above = device.bridges.len().checked_sub(2).and_then(|place| device.bridges.get(place));
    match (&device.root, above) {
        (_, Some(upstream)) if device.bridges.len() > 2 => format!("PCIe switch {upstream}"),
        (Some(root), _) => format!("PCIe host bridge {}", root.trim_start_matches("pci")),
        (None, _) => "place in the PCIe tree not known".into(),
    }
}

fn cell(body: &mut String, class: &str, (left, top): (u32, u32), device: &Device) {
    rect(body, class, (left, top), (CELL, CELL_HEIGHT));
    let name = device.name.as_deref().unwrap_or_default();
    let name: String = name.trim_start_matches("NVIDIA ").chars().take(CELL_CHARS).collect();
    text(body, "b", (left + 9, top + 18), &device.label);
    text(body, "", (left + 9, top + 34), &name);
    text(body, "s", (left + 9, top + 50), device.pci_address.as_deref().unwrap_or_default());
}

// Writing to a string cannot fail.

fn rect(body: &mut String, class: &str, (x, y): (u32, u32), (width, height): (u32, u32)) {
    let _ = writeln!(
        body,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>"
    );
}

fn line(body: &mut String, class: &str, (x1, y1): (u32, u32), (x2, y2): (u32, u32)) {
    let _ = writeln!(body, "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
}

fn text(body: &mut String, class: &str, (x, y): (u32, u32), words: &str) {
    let _ = writeln!(body, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escape(words));
}

/// Names come from drivers; in a drawing they are text and nothing else.
fn escape(words: &str) -> String {
    let mut text = String::new();
    for character in words.chars().filter(|character| !character.is_control()) {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            other => text.push(other),
        }
    }
    text
}
