//! Which version has which field.

use super::Spec;
use super::spec::ContainerEdits;

/// All that were released and can be read.
const VERSIONS: [&str; 8] = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// Fails if the version is none, or older than something that the file has.
pub(super) fn check(spec: &Spec) -> Result<(), String> {
    let text = spec.cdi_version.strip_prefix('v').unwrap_or(&spec.cdi_version);
    let rank = |text: &str| VERSIONS.iter().position(|version| *version == text);
    let Some(own) = rank(text) else {
        return Err(format!(
            "cdiVersion `{}` is not known; those from 0.3.0 to 1.1.0 are",
            text.escape_debug()
        ));
    };
    let newer = needs(spec).into_iter().find(|(is_used, version, _)| *is_used && rank(version) > Some(own));
    match newer {
        Some((_, version, what)) => {
            Err(format!("cdiVersion {text} has no {what}, which came with {version}"))
        }
        None => Ok(()),
    }
}

/// What is used, since when there is such a thing, and its name.
fn needs(spec: &Spec) -> [(bool, &'static str, &'static str); 9] {
    let any = |has: fn(&ContainerEdits) -> bool| {
        has(&spec.container_edits) || spec.devices.iter().any(|device| has(&device.container_edits))
    };
    let class = spec.kind.split_once('/').map_or("", |(_, class)| class);
    [
        (any(|edits| !edits.net_devices.is_empty()), "1.1.0", "netDevices"),
        (
            any(|edits| {
                edits.intel_rdt.as_ref().is_some_and(|rdt| rdt.enable_monitoring || !rdt.schemata.is_empty())
            }),
            "1.1.0",
            "intelRdt.schemata and intelRdt.enableMonitoring",
        ),
        (any(|edits| edits.intel_rdt.is_some()), "0.7.0", "intelRdt"),
        (any(|edits| !edits.additional_gids.is_empty()), "0.7.0", "additionalGids"),
        (
            !spec.annotations.is_empty() || spec.devices.iter().any(|device| !device.annotations.is_empty()),
            "0.6.0",
            "annotations",
        ),
        (class.contains('.'), "0.6.0", "dots in the class"),
        (
            spec.devices.iter().any(|device| device.name.starts_with(|c: char| c.is_ascii_digit())),
            "0.5.0",
            "names of devices that begin with a digit",
        ),
        (
            any(|edits| edits.device_nodes.iter().any(|node| node.host_path.is_some())),
            "0.5.0",
            "deviceNodes.hostPath",
        ),
        (any(|edits| edits.mounts.iter().any(|mount| mount.kind.is_some())), "0.4.0", "mounts.type"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Spec;

    #[test]
    fn fields_need_their_version() {
        let check = |version: &str, edits: &str, expected: Option<&str>| {
            let text = format!(
                "{{\"cdiVersion\":\"{version}\",\"kind\":\"a/b\",\"devices\":[{{\"name\":\"d\",\"containerEdits\":{{{edits}}}}}]}}"
            );
            let error = Spec::parse(text.as_bytes()).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), expected, "{version} {edits}");
        };
        let mount = "\"mounts\":[{\"hostPath\":\"/a\",\"containerPath\":\"/b\",\"type\":\"bind\"}]";
        check("0.3.0", mount, Some("cdiVersion 0.3.0 has no mounts.type, which came with 0.4.0"));
        check("v0.4.0", mount, None);
        let node = "\"deviceNodes\":[{\"path\":\"/dev/a\",\"hostPath\":\"/dev/b\"}]";
        check("0.4.0", node, Some("cdiVersion 0.4.0 has no deviceNodes.hostPath, which came with 0.5.0"));
        let groups = "\"additionalGids\":[4]";
        check("0.6.0", groups, Some("cdiVersion 0.6.0 has no additionalGids, which came with 0.7.0"));
        check("0.7.0", groups, None);
        let net = "\"netDevices\":[{\"hostInterfaceName\":\"a\",\"name\":\"b\"}]";
        check("1.0.0", net, Some("cdiVersion 1.0.0 has no netDevices, which came with 1.1.0"));
        check("1.1.0", net, None);
        check(
            "0.2.0",
            "\"env\":[\"A=1\"]",
            Some("cdiVersion `0.2.0` is not known; those from 0.3.0 to 1.1.0 are"),
        );
    }
}
