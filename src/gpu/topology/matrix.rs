//! The topology as the matrix that `nvidia-smi topo -m` made known.

use super::super::listing::align_rows;
use super::Topology;

const LEGEND: &str = "
Legend:

  X     the device itself
  SYS   over the link between NUMA nodes
  NODE  over host bridges of one NUMA node
  PHB   over one PCIe host bridge, a CPU in most machines
  PXB   over several PCIe bridges, none of them a host bridge
  PIX   over one PCIe bridge at most
  NV#   over # NVLinks
  -     not known
";

impl Topology {
    /// The matrix with its legend; each line ends with a line end.
    #[must_use]
    pub fn to_matrix(&self) -> String {
        if self.devices.is_empty() {
            return "no GPU and no InfiniBand adapter was found on this node\n".into();
        }
        let mut head = vec![String::new()];
        head.extend(self.devices.iter().map(|device| device.label.clone()));
        head.extend(["CPU Affinity", "NUMA Affinity", "GPU NUMA ID"].map(str::to_owned));
        let mut rows = vec![head];
        for (place, device) in self.devices.iter().enumerate() {
            let mut row = vec![device.label.clone()];
            row.extend((0..self.devices.len()).map(|other| self.relation(place, other).to_string()));
            if place < self.gpus {
                let number = |id: Option<u32>| id.map_or_else(|| "N/A".to_owned(), |id| id.to_string());
                row.push(device.cpus.clone().unwrap_or_else(|| "N/A".into()));
                row.push(number(device.numa_node));
                row.push(number(device.own_numa_node));
            } else {
                row.extend([const { String::new() }; 3]);
            }
            rows.push(row);
        }
        let mut lines = align_rows(&rows);
        lines.push(LEGEND.trim_end().to_owned());
        let adapters = self.devices.get(self.gpus..).unwrap_or_default();
        if !adapters.is_empty() {
            lines.push("\nNIC Legend:\n".into());
            lines.extend(
                adapters
                    .iter()
                    .map(|device| format!("  {}: {}", device.label, device.name.as_deref().unwrap_or("-"))),
            );
        }
        lines.push(String::new());
        lines.join("\n")
    }
}
