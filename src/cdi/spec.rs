//! A specification: what a file says. A [`Spec`] that was parsed is valid.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::names::{check_device, check_kind};
use super::{MAX_SPEC_BYTES, version, yaml};

/// Most devices of one file.
const MAX_DEVICES: usize = 4096;
/// When a hook may be run (OCI runtime specification).
const HOOK_NAMES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Version of the specification that it follows.
    pub cdi_version: String,
    /// `vendor/class` of its devices.
    pub kind: String,
    /// Notes of its writer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The devices.
    pub devices: Vec<Device>,
    /// What every device needs, once.
    #[serde(default, skip_serializing_if = "ContainerEdits::is_empty")]
    pub container_edits: ContainerEdits,
}

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Name within the kind.
    #[serde(deserialize_with = "word")]
    pub name: String,
    /// Notes of its writer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What it needs.
    pub container_edits: ContainerEdits,
}

/// What a container needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ContainerEdits {
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Device nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_nodes: Vec<DeviceNode>,
    /// Network interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net_devices: Vec<NetDevice>,
    /// Programs that are to be run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// Mounts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Shares of the CPU's cache and of memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// Further groups of the process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// One device node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceNode {
    /// Absolute path inside.
    pub path: String,
    /// The host's node; that of the same path if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// `c`, `b`, `u` or `p`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Device number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// Device number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// What the device cgroup is to allow, of `rwm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    /// Owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetDevice {
    /// Its name on the host.
    pub host_interface_name: String,
    /// Its name inside.
    pub name: String,
}

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// Absolute path on the host.
    pub host_path: String,
    /// Absolute path inside.
    pub container_path: String,
    /// Options of mount(8).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// File system; a bind if not given.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// One program that is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// When it is run.
    pub hook_name: String,
    /// The program.
    pub path: String,
    /// Its arguments, the program's name first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds after which it is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// Shares of the CPU's cache and of memory bandwidth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IntelRdt {
    /// The class.
    #[serde(rename = "closID", skip_serializing_if = "Option::is_none")]
    pub clos_id: Option<String>,
    /// Of the third cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    /// Of memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    /// Lines for the class's own file (1.1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// A monitoring group of its own (1.1).
    #[serde(skip_serializing_if = "is_false")]
    pub enable_monitoring: bool,
    /// Cache monitoring, in versions before 1.1.
    #[serde(rename = "enableCMT", skip_serializing_if = "is_false")]
    pub enable_cmt: bool,
    /// Memory monitoring, in versions before 1.1.
    #[serde(rename = "enableMBM", skip_serializing_if = "is_false")]
    pub enable_mbm: bool,
}

/// What is wrong with a file, as a fragment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(pub(super) String);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A name that YAML takes for a number where nobody has put quotes around it.
fn word<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match serde_json::Value::deserialize(from)? {
        serde_json::Value::String(text) => Ok(text),
        serde_json::Value::Number(number) => Ok(number.to_string()),
        _ => Err(serde::de::Error::custom("a name is a string")),
    }
}

impl ContainerEdits {
    /// True if nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Spec {
    /// Reads a file's bytes, which are JSON if they begin with `{` and YAML otherwise, as in the name's ending they are
    /// often not what it says.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        if bytes.len() as u64 > MAX_SPEC_BYTES {
            return Err(SpecError(format!("it is larger than {MAX_SPEC_BYTES} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| SpecError("it is no text".into()))?;
        let spec: Self = if text.trim_start().starts_with('{') {
            serde_json::from_str(text)
                .map_err(|error| SpecError(format!("it is no CDI specification: {error}")))?
        } else {
            let value = yaml::parse(text).map_err(|error| SpecError(format!("it is no YAML: {error}")))?;
            serde_json::from_value(value)
                .map_err(|error| SpecError(format!("it is no CDI specification: {error}")))?
        };
        spec.check().map_err(SpecError)?;
        Ok(spec)
    }

    /// The file as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The file as YAML.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        yaml::write(&serde_json::to_value(self).unwrap_or_default())
    }

    fn check(&self) -> Result<(), String> {
        version::check(self)?;
        check_kind(&self.kind)?;
        if self.devices.is_empty() {
            return Err("it has no devices".into());
        }
        if self.devices.len() > MAX_DEVICES {
            return Err(format!("it has more than {MAX_DEVICES} devices"));
        }
        let mut names = std::collections::BTreeSet::new();
        for device in &self.devices {
            check_device(&device.name)?;
            let about = |error: String| format!("device `{}`: {error}", device.name);
            if !names.insert(&device.name) {
                return Err(about("it is there twice".into()));
            }
            if device.container_edits.is_empty() {
                return Err(about("it needs nothing".into()));
            }
            check_edits(&device.container_edits).map_err(about)?;
        }
        check_edits(&self.container_edits)
    }
}

fn check_edits(edits: &ContainerEdits) -> Result<(), String> {
    for line in &edits.env {
        check_variable(line)?;
    }
    for node in &edits.device_nodes {
        check_path("deviceNodes.path", &node.path)?;
        node.host_path.iter().try_for_each(|path| check_path("deviceNodes.hostPath", path))?;
        if let Some(kind) = node.kind.as_deref().filter(|kind| !["", "b", "c", "u", "p"].contains(kind)) {
            return Err(format!("node `{}`: there is no type `{kind}`", node.path));
        }
        if let Some(text) = node.permissions.as_deref().filter(|text| text.contains(|c| !"rwm".contains(c))) {
            return Err(format!("node `{}`: there are no permissions `{text}`", node.path));
        }
    }
    for mount in &edits.mounts {
        check_path("mounts.containerPath", &mount.container_path)?;
        check_path("mounts.hostPath", &mount.host_path)?;
    }
    for hook in &edits.hooks {
        if !HOOK_NAMES.contains(&hook.hook_name.as_str()) {
            return Err(format!("hook `{}`: there is no time `{}`", hook.path, hook.hook_name));
        }
        check_path("hooks.path", &hook.path)?;
        for line in &hook.env {
            check_variable(line)?;
        }
    }
    for device in &edits.net_devices {
        if device.host_interface_name.is_empty() || device.name.is_empty() {
            return Err("a network interface has no name".into());
        }
    }
    let class = edits.intel_rdt.as_ref().and_then(|rdt| rdt.clos_id.as_deref());
    match class {
        Some(class) if [".", ".."].contains(&class) || class.contains(['/', '\n']) || class.len() >= 4096 => {
            Err("intelRdt.closID is no name of a class".into())
        }
        _ => Ok(()),
    }
}

fn check_variable(line: &str) -> Result<(), String> {
    match line.split_once('=') {
        Some((name, _)) if !name.is_empty() && !line.contains('\0') => Ok(()),
        _ => Err(format!("`{}` is no variable of the form NAME=value", line.escape_debug())),
    }
}

fn check_path(field: &str, path: &str) -> Result<(), String> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(format!("{field} `{}` is no absolute path", path.escape_debug()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Spec, String> {
        Spec::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    const YAML: &str = "\
---
cdiVersion: 0.5.0
kind: vendor.com/net
devices:
- name: 0
  containerEdits:
    deviceNodes:
    - path: /dev/a
      hostPath: \"/dev/b\"
      fileMode: 0644
      permissions: rw
containerEdits:
  env: [A=1, 'B=x: y']
  mounts:
    - {hostPath: /x, containerPath: /y, options: [ro, nosuid]}
";

    #[test]
    fn yaml_and_json_are_the_same() {
        let spec = parse(YAML).unwrap();
        assert_eq!(spec.devices[0].name, "0");
        assert_eq!(spec.devices[0].container_edits.device_nodes[0].file_mode, Some(0o644));
        assert_eq!(spec.container_edits.env, ["A=1", "B=x: y"]);
        assert_eq!(parse(&spec.to_json()), Ok(spec.clone()));
        assert_eq!(parse(&spec.to_yaml()), Ok(spec));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(YAML.contains(from));
            assert_eq!(parse(&YAML.replacen(from, to, 1)).unwrap_err(), expected, "{to}");
        };
        check(
            "kind:",
            "sort:",
            "it is no CDI specification: unknown field `sort`, expected one of `cdiVersion`, `kind`, `annotations`, `devices`, `containerEdits`",
        );
        check("vendor.com/net", "vendor", "the kind `vendor` is not of the form vendor/class");
        check("name: 0", "name: a/b", "the device `a/b` has the character `/`");
        check("/dev/a", "dev/a", "device `0`: deviceNodes.path `dev/a` is no absolute path");
        check(
            "permissions: rw",
            "permissions: rx",
            "device `0`: node `/dev/a`: there are no permissions `rx`",
        );
        check("A=1", "=1", "`=1` is no variable of the form NAME=value");
        check("0.5.0", "9.0.0", "cdiVersion `9.0.0` is not known; those from 0.3.0 to 1.1.0 are");
        check(
            "0.5.0",
            "0.4.0",
            "cdiVersion 0.4.0 has no names of devices that begin with a digit, which came with 0.5.0",
        );
        assert_eq!(parse("cdiVersion: 0.3.0\nkind: a/b\ndevices: []").unwrap_err(), "it has no devices");
        let text = "cdiVersion: 0.3.0\nkind: a/b\ndevices: [{name: a, containerEdits: {}}]";
        assert_eq!(parse(text).unwrap_err(), "device `a`: it needs nothing");
        assert_eq!(Spec::parse(&[0xff]).unwrap_err().to_string(), "it is no text");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read_again(values in proptest::collection::vec("\\PC{0,12}", 1..5), name in "[a-z0-9]{1,5}") {
            let edits = ContainerEdits {
                env: values.iter().map(|value| format!("A={value}")).collect(),
                ..ContainerEdits::default()
            };
            let device = Device { name, container_edits: edits, ..Device::default() };
            let spec = Spec { cdi_version: "0.5.0".into(), kind: "v/c".into(), devices: vec![device], ..Spec::default() };
            prop_assert_eq!(parse(&spec.to_json()), Ok(spec.clone()));
            prop_assert_eq!(parse(&spec.to_yaml()), Ok(spec));
        }
    }
}
