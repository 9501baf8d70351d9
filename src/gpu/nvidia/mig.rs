//! MIG as the kernel driver shows it: live instances in procfs, and the numbers of their capability nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::grants::{BindGrant, Grants, NodeGrant};

use super::super::mig::capability_node;
use super::super::{Gpu, GpuError, HostRoot, MigInstance, NodeAccess};

/// What the driver says of its capabilities; a container sees those of its own instances alone.
pub(super) const CAPABILITIES: &str = "/proc/driver/nvidia/capabilities";
/// Lists the node of each capability that there can be.
const MINORS: &str = "/proc/driver/nvidia-caps/mig-minors";
/// Most numbered GPUs and instances: a bound for what a directory can make us hold.
const MAX_INSTANCES: usize = 1024;

/// The numbers of all capability nodes of MIG, as `/proc/driver/nvidia-caps/mig-minors` lists them.
///
/// They are read and never computed: NVIDIA may number them otherwise in another driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigMinors {
    /// Of the node that may divide GPUs.
    pub config: Option<u32>,
    /// Of the node that may watch all instances.
    pub monitor: Option<u32>,
    /// By the GPU's device minor, the GPU instance, and the compute instance in it if it is one's.
    pub instances: BTreeMap<(u32, u32, Option<u32>), u32>,
}

impl MigMinors {
    /// Reads the lines `config M`, `monitor M`, `gpuG/giI/access M` and `gpuG/giI/ciC/access M`; others are left.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut minors = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(name), Some(minor), None) = (words.next(), words.next().and_then(number), words.next())
            else {
                continue;
            };
            match name {
                "config" => minors.config = Some(minor),
                "monitor" => minors.monitor = Some(minor),
                _ => {
                    if let Some(key) = capability(name) {
                        minors.instances.insert(key, minor);
                    }
                }
            }
        }
        minors
    }
}

/// A number as the driver writes it: without a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn numbered(text: &str, prefix: &str) -> Option<u32> {
    number(text.strip_prefix(prefix)?)
}

fn capability(name: &str) -> Option<(u32, u32, Option<u32>)> {
    let parts: Vec<&str> = name.splitn(5, '/').collect();
    match parts[..] {
        [gpu, instance, "access"] => Some((numbered(gpu, "gpu")?, numbered(instance, "gi")?, None)),
        [gpu, instance, compute, "access"] => {
            Some((numbered(gpu, "gpu")?, numbered(instance, "gi")?, Some(numbered(compute, "ci")?)))
        }
        _ => None,
    }
}

/// Finds the live instances of each GPU. A node without MIG pays for one listing a GPU.
pub(super) fn read_instances(root: &HostRoot, gpus: &mut [Gpu]) {
    let mut minors = None;
    for gpu in gpus {
        let directory = PathBuf::from(format!("{CAPABILITIES}/gpu{}/mig", gpu.minor));
        let mut found = Vec::new();
        for outer in root.list(&directory) {
            let Some(gpu_instance) = numbered(&outer, "gi") else { continue };
            let inner = root.list(&directory.join(&outer));
            found.extend(inner.iter().filter_map(|name| numbered(name, "ci")).map(|ci| (gpu_instance, ci)));
        }
        found.sort_unstable();
        found.truncate(MAX_INSTANCES);
        if found.is_empty() {
            continue;
        }
        let minors = minors.get_or_insert_with(|| MigMinors::parse(&root.read(MINORS).unwrap_or_default()));
        let minor = |gi, ci| minors.instances.get(&(gpu.minor, gi, ci)).copied();
        let instance = |(index, (gpu_instance, compute_instance))| MigInstance {
            index,
            gpu_instance,
            compute_instance,
            gpu_instance_minor: minor(gpu_instance, None),
            compute_instance_minor: minor(gpu_instance, Some(compute_instance)),
            ..MigInstance::default()
        };
        gpu.instances = (0..).zip(found).map(instance).collect();
        gpu.mig_enabled = Some(true);
    }
}

/// What is wrong with the capability nodes of live instances.
pub(super) fn find_faults(root: &HostRoot, gpus: &[Gpu]) -> Vec<String> {
    let mut findings = Vec::new();
    for (gpu, instance) in gpus.iter().flat_map(|gpu| gpu.instances.iter().map(move |one| (gpu, one))) {
        let nodes = [instance.gpu_instance_minor, instance.compute_instance_minor];
        let missing =
            nodes.iter().find(|minor| minor.is_none_or(|minor| !root.exists(&capability_node(minor))));
        let name = format!("MIG {}:{} of {}", gpu.index, instance.index, gpu.node.display());
        match missing {
            Some(Some(minor)) => findings.push(format!(
                "{name} cannot be used: {} does not exist (root runs `nvidia-modprobe -f` on its access files)",
                capability_node(*minor).display()
            )),
            Some(None) => findings.push(format!("{name} cannot be used: {MINORS} does not list it")),
            None => {}
        }
    }
    findings
}

/// What an instance needs beside its GPU's node: two capability nodes, and the files that say which they are.
pub(in super::super) fn add_instance(
    grants: &mut Grants,
    gpu: &Gpu,
    instance: &MigInstance,
    root: &HostRoot,
) {
    let why = format!("MIG {}:{}: the notes say by which rule", gpu.index, instance.index);
    for node in instance.capability_nodes() {
        add_node(grants, node, &why, root);
    }
    let outer = format!("{CAPABILITIES}/gpu{}/mig/gi{}", gpu.minor, instance.gpu_instance);
    let inner = format!("{outer}/ci{}", instance.compute_instance);
    for directory in [outer, inner] {
        add_access_file(grants, format!("{directory}/access").into(), &why, root);
    }
}

/// Hides what the driver says of the instances of others.
pub(in super::super) fn hide_others(grants: &mut Grants) {
    let why = "the capabilities of the container's own MIG instances alone";
    grants.reasons.insert(CAPABILITIES.into(), why.into());
    grants.hidden.push(CAPABILITIES.into());
}

fn add_node(grants: &mut Grants, target: PathBuf, why: &str, root: &HostRoot) {
    // Compute instances of one GPU instance share its node.
    if grants.nodes.iter().all(|node| node.target != target) {
        grants.reasons.insert(target.to_string_lossy().into_owned(), why.to_owned());
        grants.nodes.push(NodeGrant { source: root.place(&target), target });
    }
}

fn add_access_file(grants: &mut Grants, target: PathBuf, why: &str, root: &HostRoot) {
    if grants.binds.iter().all(|bind| bind.target != target) {
        grants.reasons.insert(target.to_string_lossy().into_owned(), why.to_owned());
        let source = root.place(&target);
        grants.binds.push(BindGrant { source, target, read_only: true, directory: false });
    }
}

/// Gives what `NVIDIA_MIG_CONFIG_DEVICES` and `NVIDIA_MIG_MONITOR_DEVICES` ask for: the node with which instances are
/// made, or watched. They are root's, so that this works only where a site has opened them.
pub fn grant_mig_administration(
    grants: &mut Grants,
    variables: &[(String, String)],
    root: &HostRoot,
) -> Result<(), GpuError> {
    for (variable, value) in variables {
        let word = match variable.as_str() {
            "NVIDIA_MIG_CONFIG_DEVICES" => "config",
            "NVIDIA_MIG_MONITOR_DEVICES" => "monitor",
            _ => continue,
        };
        let refuse = |reason: String| {
            Err(GpuError::MigAdministration { variable: variable.clone(), value: value.clone(), reason })
        };
        match value.as_str() {
            "" => continue,
            "all" => {}
            _ => return refuse("the only value is `all`".into()),
        }
        let minors = MigMinors::parse(&root.read(MINORS).unwrap_or_default());
        let minor = if word == "config" { minors.config } else { minors.monitor };
        let Some(minor) = minor else {
            return refuse(format!("the driver has no such node ({MINORS} does not list it)"));
        };
        let target = capability_node(minor);
        match root.node_readable(&target) {
            NodeAccess::Open => {}
            answer => return refuse(format!("`{}`: {}", target.display(), answer.reason())),
        }
        grants.notes.push(format!("{} is inside: {variable}={value}", target.display()));
        add_node(grants, target, &format!("{variable}={value}"), root);
        if grants.hidden.iter().any(|place| place == Path::new(CAPABILITIES)) {
            add_access_file(grants, format!("{CAPABILITIES}/mig/{word}").into(), variable, root);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn minors_are_read_by_the_names_of_capabilities() {
        let text =
            "config 1\nmonitor 2\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\ngpu11/gi14/ci7/access 4000\n";
        let minors = MigMinors::parse(text);
        assert_eq!((minors.config, minors.monitor), (Some(1), Some(2)));
        let instances: Vec<_> = minors.instances.into_iter().collect();
        assert_eq!(instances, [((0, 1, None), 12), ((0, 1, Some(0)), 13), ((11, 14, Some(7)), 4000)]);
        for text in [
            "",
            "config",
            "config +1",
            "config 1 2",
            "gpu0/gi1 3",
            "gpu0/gi/access 3",
            "gpu0/gi1/ci0/x/access 1",
        ] {
            assert_eq!(MigMinors::parse(text), MigMinors::default(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_written_is_read_again(
            config in proptest::option::of(any::<u32>()),
            monitor in proptest::option::of(any::<u32>()),
            instances in proptest::collection::btree_map(
                (any::<u32>(), any::<u32>(), proptest::option::of(any::<u32>())), any::<u32>(), 0..20),
        ) {
            let mut lines: Vec<String> = config.iter().map(|minor| format!("config {minor}")).collect();
            lines.extend(monitor.iter().map(|minor| format!("monitor {minor}")));
            lines.extend(instances.iter().map(|((gpu, outer, inner), minor)| match inner {
                None => format!("gpu{gpu}/gi{outer}/access {minor}"),
                Some(inner) => format!("gpu{gpu}/gi{outer}/ci{inner}/access {minor}"),
            }));
            prop_assert_eq!(MigMinors::parse(&lines.join("\n")), MigMinors { config, monitor, instances });
        }

        #[test]
        fn any_text_is_read(text in "\\PC*") {
            let _ = MigMinors::parse(&text);
        }
    }
}
