//! What a container needs of a vendor whose libraries are the image's own: device nodes and variables.

use std::path::{Path, PathBuf};

use crate::grants::{Grants, NodeGrant};

use super::{Chosen, Gpu, HostRoot, Inventory, NodeAccess, visible};

/// The nodes of the chosen GPUs, those beside them that `beside` names, and those that all need.
///
/// A node that stands beside a GPU's own (its card, its control node) is for programs that draw or administrate: it is
/// inside where it may be used, and its absence is no fault.
pub(super) fn grants(
    inventory: &Inventory,
    chosen: &Chosen,
    root: &HostRoot,
    beside: impl Fn(&Gpu) -> Option<PathBuf>,
) -> Grants {
    let mut grants = Grants::default();
    for gpu in chosen.all_gpus().into_iter().filter_map(|place| inventory.gpus.get(place)) {
        let why = format!("GPU {}: the notes say by which rule", gpu.index);
        add(&mut grants, &gpu.node, &why, root);
        let Some(node) = beside(gpu) else { continue };
        match root.node_access(&node) {
            NodeAccess::Open => add(&mut grants, &node, &why, root),
            answer => grants.notes.push(format!(
                "{} is not inside: {}; it is not needed to compute",
                node.display(),
                answer.reason()
            )),
        }
    }
    for node in &inventory.control_nodes {
        add(&mut grants, node, "every GPU needs it", root);
        grants.notes.push(match root.node_access(node) {
            NodeAccess::Open => format!("{} is inside: every GPU needs it", node.display()),
            answer => format!("{} is inside, but cannot be used: {}", node.display(), answer.reason()),
        });
    }
    grants.notes.extend(inventory.findings.iter().map(|finding| format!("warning: {finding}")));
    visible::grant(&mut grants, &chosen.visible_devices);
    grants
}

/// Partitions of one GPU may share a node, which is bound once.
fn add(grants: &mut Grants, node: &Path, why: &str, root: &HostRoot) {
    if grants.nodes.iter().any(|grant| grant.target == node) {
        return;
    }
    grants.nodes.push(NodeGrant { source: root.place(node), target: node.to_path_buf() });
    grants.reasons.insert(node.to_string_lossy().into_owned(), why.to_owned());
}
