//! `--gpus`, in docker's grammar: fields between commas, quoted as in CSV, each a count or `key=value`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::{Capability, DriverLibrary, GpuError, VENDORS};

/// Which GPUs are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Selection {
    /// Exactly those that the job owns; none, without an error, where there are none.
    #[default]
    Job,
    /// No GPU and nothing of the driver.
    None,
    /// All that the job owns, and at least one.
    All,
    /// This many of those that the job owns, in the order of `slipway gpus`.
    Count(u32),
    /// These, by index of `slipway gpus` (`0`, or `0:1` for a MIG instance), or by UUID or the beginning of one.
    Devices(Vec<String>),
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job => f.write_str("job"),
            Self::None => f.write_str("none"),
            Self::All => f.write_str("all"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Devices(devices) => write!(f, "device={}", devices.join(",")),
        }
    }
}

/// Which parts of the driver are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    wanted: BTreeSet<Capability>,
}

impl Default for Capabilities {
    /// What a job needs that draws nothing.
    fn default() -> Self {
        Self { wanted: [Capability::Compute, Capability::Utility, Capability::Video].into() }
    }
}

impl Capabilities {
    /// Reads docker's and NVIDIA_DRIVER_CAPABILITIES' words, such as `compute,utility`; says which word is unknown.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut wanted = BTreeSet::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "compute" => drop(wanted.insert(Capability::Compute)),
                "utility" => drop(wanted.insert(Capability::Utility)),
                "video" => wanted.extend([Capability::Video, Capability::Compute]),
                "graphics" => drop(wanted.insert(Capability::Graphics)),
                "display" => wanted.extend([Capability::Display, Capability::Graphics]),
                "compat32" => drop(wanted.insert(Capability::Compat32)),
                "ngx" => drop(wanted.insert(Capability::Ngx)),
                "all" => {
                    wanted.extend([Capability::Compute, Capability::Utility, Capability::Video]);
                    wanted.extend([Capability::Graphics, Capability::Ngx, Capability::Display]);
                    wanted.insert(Capability::Compat32);
                }
                // docker's words for a GPU at all.
                "gpu" | "nvidia" => {}
                _ => return Err(format!("unknown capability `{word}`")),
            }
        }
        Ok(if wanted.is_empty() { Self::default() } else { Self { wanted } })
    }

    /// True if parts for this purpose are wanted.
    #[must_use]
    pub fn include(&self, capability: Capability) -> bool {
        self.wanted.contains(&capability)
    }

    /// True if a library is wanted for its own purpose or for another that needs it as well.
    pub(super) fn include_library(&self, library: &DriverLibrary) -> bool {
        const OF_GRAPHICS_TOO: [&str; 2] = ["libnvidia-gpucomp.so.", "libnvidia-allocator.so."];
        let is_shared = || OF_GRAPHICS_TOO.iter().any(|name| library.name.starts_with(name));
        self.include(library.capability) || (self.include(Capability::Graphics) && is_shared())
    }

    /// NVIDIA's words for all that are wanted.
    #[must_use]
    pub fn words(&self) -> String {
        let words: Vec<&str> = self.wanted.iter().map(|capability| capability.word()).collect();
        words.join(",")
    }
}

/// A whole `--gpus` value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuRequest {
    /// Which GPUs.
    pub selection: Selection,
    /// Which parts of the driver.
    pub capabilities: Capabilities,
    /// Whose GPUs (`driver=amd`); `None` for any.
    pub vendor: Option<String>,
    /// Nodes, and directories of nodes, that the container has by other words (`--device /dev/dri`): runtimes count
    /// their GPUs as well.
    pub other_nodes: Vec<PathBuf>,
    /// Whether the request names them.
    pub names_capabilities: bool,
}

impl GpuRequest {
    /// Reads a value of `--gpus`: `all`, `none`, `job`, `2`, `device=0,2`, `"device=0,2",capabilities=utility`, …
    pub fn parse(value: &str) -> Result<Self, GpuError> {
        parse(value).map_err(|reason| GpuError::BadRequest { value: value.to_owned(), reason })
    }

    /// Takes the parts of the driver that a variable names (`NVIDIA_DRIVER_CAPABILITIES`), where the request names none.
    pub fn take_capabilities(&mut self, variable: &str, value: &str) -> Result<(), GpuError> {
        if self.names_capabilities || value.trim().is_empty() {
            return Ok(());
        }
        let refuse = |reason| {
            let (variable, value) = (variable.to_owned(), value.to_owned());
            GpuError::BadCapabilities { variable, value, reason }
        };
        self.capabilities = Capabilities::parse(value).map_err(refuse)?;
        self.names_capabilities = true;
        Ok(())
    }
}

/// The variable that a vendor's container runtime reads the wanted GPUs from, if it is one.
#[must_use]
pub fn variable_of_runtime(runtime: &str) -> Option<&'static str> {
    match runtime {
        "nvidia" | "nvidia-container-runtime" => Some("NVIDIA_VISIBLE_DEVICES"),
        "amd" | "amd-container-runtime" => Some("AMD_VISIBLE_DEVICES"),
        _ => None,
    }
}

/// The value of such a variable in the words of `--gpus`.
#[must_use]
pub fn words_of_variable(value: &str) -> String {
    match value.trim() {
        "all" => "all".into(),
        "" | "none" | "void" => "none".into(),
        list => format!("device={list}"),
    }
}

fn parse(value: &str) -> Result<GpuRequest, String> {
    let (mut selection, mut devices, mut capabilities) = (None, None::<Vec<String>>, None);
    let mut vendor = None;
    let mut last_key = String::new();
    for field in split_csv(value)? {
        let (key, text) = match field.split_once('=') {
            Some((key, text)) => (key.trim(), text.trim()),
            // docker wants quotes around a list; without them its further items come as fields of their own.
            None if last_key == "device" || last_key == "capabilities" => (last_key.as_str(), field.trim()),
            None => ("count", field.trim()),
        };
        let key = key.to_owned();
        if text.is_empty() {
            return Err(if field.trim().is_empty() {
                "a field is empty".into()
            } else {
                format!("`{key}` has no value")
            });
        }
        let again = key != last_key || field.contains('=');
        match key.as_str() {
            "device" if devices.is_some() && again => return Err("`device` is given twice".into()),
            "device" => {
                let items = text.split(',').map(|item| item.trim().to_owned());
                devices.get_or_insert_default().extend(items.filter(|item| !item.is_empty()));
            }
            "count" if selection.is_some() => return Err("the number of GPUs is given twice".into()),
            "count" => selection = Some(parse_count(text)?),
            "capabilities" => {
                let list: &mut String = capabilities.get_or_insert_default();
                list.push(',');
                list.push_str(text);
            }
            "driver" if VENDORS.iter().any(|vendor| vendor.name() == text) => vendor = Some(text.to_owned()),
            "driver" => return Err(format!("there is no driver `{text}` here")),
            _ => return Err(format!("unknown key `{key}`")),
        }
        last_key = key;
    }
    let selection = match (selection, devices) {
        (Some(_), Some(_)) => return Err("a number and `device` cannot be given together".into()),
        (Some(selection), None) => selection,
        (None, Some(devices)) if devices.is_empty() => return Err("`device` has no value".into()),
        (None, Some(devices)) => Selection::Devices(devices),
        (None, None) => Selection::Job,
    };
    let names_capabilities = capabilities.is_some();
    let capabilities = Capabilities::parse(&capabilities.unwrap_or_default())?;
    Ok(GpuRequest { selection, capabilities, vendor, other_nodes: Vec::new(), names_capabilities })
}

fn parse_count(text: &str) -> Result<Selection, String> {
    Ok(match text {
        "all" | "-1" => Selection::All,
        "none" | "0" => Selection::None,
        "job" => Selection::Job,
        _ => match text.parse().map_err(|_| format!("`{text}` is no number of GPUs"))? {
            0 => Selection::None,
            count => Selection::Count(count),
        },
    })
}

/// Fields of one CSV line: a quote begins only at the start of a field, and `""` in it stands for one quote.
fn split_csv(line: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            '"' => return Err("a quote stands inside a field".into()),
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(char),
        }
    }
    if quoted {
        return Err("a quote is not closed".into());
    }
    fields.push(field);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_is_read(text in "(all|device=|count|[0-9]{1,3}|[,=\"]|\\PC){0,12}") {
            let _ = GpuRequest::parse(&text);
        }

        #[test]
        fn devices_come_as_they_are_named(
            devices in proptest::collection::vec("[A-Za-z0-9:/-]{1,9}", 1..9),
            quote in proptest::option::of(Just("\"")),
        ) {
            let quote = quote.unwrap_or_default();
            let text = format!("{quote}device={}{quote},capabilities=utility", devices.join(","));
            let request = GpuRequest::parse(&text);
            prop_assert_eq!(request.map(|request| request.selection), Ok(Selection::Devices(devices)));
        }
    }

    #[test]
    fn runtimes_of_vendors_have_variables() {
        assert_eq!(variable_of_runtime("nvidia"), Some("NVIDIA_VISIBLE_DEVICES"));
        assert_eq!(variable_of_runtime("runc"), None);
        for (value, expected) in [("all", "all"), ("", "none"), ("void", "none"), ("0,1", "device=0,1")] {
            assert_eq!(words_of_variable(value), expected);
        }
    }

    #[test]
    fn reads_docker_and_our_own_words() {
        let check = |value: &str, expected: &str| {
            let shown = match GpuRequest::parse(value) {
                Ok(request) => request.selection.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expected, "{value}");
        };
        check("all", "all");
        check("none", "none");
        check("job", "job");
        check("2", "2");
        check("0", "none");
        check("00", "none");
        check("count=2", "2");
        check("count=all", "all");
        check("device=1", "device=1");
        check("device=0,2", "device=0,2");
        check("\"device=0,2\"", "device=0,2");
        check("\"device=GPU-3faa8a,1\",\"capabilities=compute,utility\"", "device=GPU-3faa8a,1");
        check("all,capabilities=utility", "all");
        check("capabilities=utility", "job");
        check("driver=nvidia,count=1", "1");
        check("device=0,1,capabilities=utility,video", "device=0,1");

        let bad = |value: &str, reason: &str| {
            check(value, &format!("invalid value `{value}` for --gpus: {reason}"));
        };
        bad("", "a field is empty");
        bad("1,", "a field is empty");
        bad("two", "`two` is no number of GPUs");
        bad("-2", "`-2` is no number of GPUs");
        bad("device=", "`device` has no value");
        bad("\"device=,\"", "`device` has no value");
        bad("1,device=0", "a number and `device` cannot be given together");
        bad("1,2", "the number of GPUs is given twice");
        bad("device=0,device=1", "`device` is given twice");
        bad("gpu=1", "unknown key `gpu`");
        check("driver=amd", "job");
        bad("driver=nouveau", "there is no driver `nouveau` here");
        bad("all,capabilities=flight", "unknown capability `flight`");
        bad("\"device=0", "a quote is not closed");
        bad("device=\"0\"", "a quote stands inside a field");
    }

    #[test]
    fn capabilities_filter_parts_of_the_driver() {
        let check = |text: &str, expected: [bool; 4]| {
            let wanted = Capabilities::parse(text).unwrap();
            let found = [Capability::Compute, Capability::Utility, Capability::Video, Capability::Graphics]
                .map(|capability| wanted.include(capability));
            assert_eq!(found, expected, "{text}");
        };
        check("", [true, true, true, false]);
        check("gpu", [true, true, true, false]);
        check("utility", [false, true, false, false]);
        check("compute,utility", [true, true, false, false]);
        check("video", [true, false, true, false]);
        check("display", [false, false, false, true]);
        check("all", [true, true, true, true]);
        assert_eq!(Capabilities::parse("display,compat32").unwrap().words(), "graphics,display,compat32");
        let mut request = GpuRequest::parse("all").unwrap();
        let error = request.take_capabilities("X", "flight").unwrap_err().to_string();
        assert_eq!(error, "invalid value `flight` of X: unknown capability `flight`");
        request.take_capabilities("X", "utility").unwrap();
        request.take_capabilities("X", "graphics").unwrap();
        assert_eq!(request.capabilities.words(), "utility");
    }
}
