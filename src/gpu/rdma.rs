//! Nodes by which GPUs and network cards, disks or the GPUs of other nodes reach each other's memory: GPUDirect Storage,
//! GDRCopy, InfiniBand verbs, and the channels of a multi-node NVLink.
//!
//! They come with GPUs, as far as the caller may open them. The administration's own (`issm`, `umad`) never do.

use std::path::{Path, PathBuf};

use crate::grants::{BindGrant, Grants, NodeGrant};

use super::{GpuError, HostRoot, NodeAccess};

const GDRCOPY: &str = "/dev/gdrdrv";
const INFINIBAND: &str = "/dev/infiniband";
/// Nodes of GPUDirect Storage are numbered from 0; nvidia-fs makes 16.
const MAX_STORAGE_NODES: u32 = 64;
/// What its library reads: the disks as udev knows them, and its configuration.
const STORAGE_FILES: [(&str, bool); 2] = [("/run/udev", true), ("/etc/cufile.json", false)];
const CHANNELS: &str = "/dev/nvidia-caps-imex-channels";
/// Most channels that are given without being named: a job has one, while a node can have 2048.
const MAX_CHANNELS: usize = 16;

/// Adds the nodes of RDMA that are present and may be opened.
pub fn grant_rdma(grants: &mut Grants, root: &HostRoot) {
    add_node(grants, root, GDRCOPY.into(), "GDRCopy");
    for name in root.list(Path::new(INFINIBAND)) {
        if name == "rdma_cm" || name.starts_with("uverbs") {
            add_node(grants, root, Path::new(INFINIBAND).join(name), "InfiniBand verbs");
        }
    }
    let mut has_storage = false;
    for number in 0..MAX_STORAGE_NODES {
        let node = PathBuf::from(format!("/dev/nvidia-fs{number}"));
        if !root.exists(&node) {
            break;
        }
        has_storage |= add_node(grants, root, node, "GPUDirect Storage");
    }
    for (path, directory) in STORAGE_FILES.iter().filter(|_| has_storage) {
        let target = PathBuf::from(path);
        if !root.exists(&target) {
            continue;
        }
        grants.notes.push(format!("`{path}` is inside: GPUDirect Storage reads it"));
        grants.reasons.insert((*path).to_owned(), "GPUDirect Storage reads it".into());
        let (source, directory) = (root.place(&target), *directory);
        grants.binds.push(BindGrant { source, target, read_only: true, directory });
    }
}

/// Adds channels of a multi-node NVLink: those that `NVIDIA_IMEX_CHANNELS` names (`asked`), else all that may be opened.
pub fn grant_channels(grants: &mut Grants, asked: Option<&str>, root: &HostRoot) -> Result<(), GpuError> {
    let named = asked.map(str::trim).filter(|value| !value.is_empty() && *value != "all");
    let Some(named) = named else {
        let mut present: Vec<u32> = root
            .list(Path::new(CHANNELS))
            .iter()
            .filter_map(|name| name.strip_prefix("channel")?.parse().ok())
            .collect();
        present.sort_unstable();
        if present.len() > MAX_CHANNELS {
            grants.notes.push(format!(
                "of {} channels in `{CHANNELS}` the first {MAX_CHANNELS} are looked at; NVIDIA_IMEX_CHANNELS names others",
                present.len()
            ));
            present.truncate(MAX_CHANNELS);
        }
        for number in present {
            add_node(grants, root, channel(number), "a channel of the job");
        }
        return Ok(());
    };
    let refuse = |channel: &str, reason: &str| GpuError::Channel {
        value: named.to_owned(),
        channel: channel.to_owned(),
        reason: reason.to_owned(),
    };
    for word in named.split(',').map(str::trim) {
        let number: u32 = word.parse().map_err(|_| refuse(word, "it is no number"))?;
        match root.node_access(&channel(number)) {
            NodeAccess::Open => drop(add_node(grants, root, channel(number), "NVIDIA_IMEX_CHANNELS")),
            answer => return Err(refuse(word, answer.reason())),
        }
    }
    Ok(())
}

fn channel(number: u32) -> PathBuf {
    format!("{CHANNELS}/channel{number}").into()
}

/// Adds a node that may be opened; one that is there and may not is told.
fn add_node(grants: &mut Grants, root: &HostRoot, node: PathBuf, rule: &str) -> bool {
    match root.node_access(&node) {
        NodeAccess::Open => {}
        NodeAccess::Missing => return false,
        answer => {
            grants.notes.push(format!("{} ({rule}) is not inside: {}", node.display(), answer.reason()));
            return false;
        }
    }
    grants.notes.push(format!("{} is inside: {rule}", node.display()));
    grants.reasons.insert(node.to_string_lossy().into_owned(), rule.to_owned());
    grants.nodes.push(NodeGrant { source: root.place(&node), target: node });
    true
}
