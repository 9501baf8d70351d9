//! All specifications of a node, and which file a device is taken from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{CdiError, ContainerEdits, DeviceName, Spec};

/// Specifications with their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    files: Vec<File>,
    /// Files that are no specifications.
    pub broken: Vec<Broken>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    path: PathBuf,
    weight: usize,
    spec: Spec,
}

/// A file that is no specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// One device of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Full name.
    pub name: String,
    /// The file that it is taken from.
    pub file: PathBuf,
    /// Another file of the same weight that has it too, so that it cannot be used.
    pub conflict: Option<PathBuf>,
}

/// What one device needs, or what all of its file need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// The device; `None` for what all devices of the file need.
    pub device: Option<DeviceName>,
    /// The file.
    pub file: &'a Path,
    /// What is needed.
    pub edits: &'a ContainerEdits,
}

impl Index {
    /// Adds a file's bytes. Where several have a device, that of the greater weight counts.
    pub fn add(&mut self, path: PathBuf, weight: usize, bytes: &[u8]) {
        match Spec::parse(bytes) {
            Ok(spec) => self.files.push(File { path, weight, spec }),
            Err(error) => self.broken.push(Broken { path, reason: error.to_string() }),
        }
    }

    /// All devices by name.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let mut found: BTreeMap<String, Vec<&File>> = BTreeMap::new();
        for file in &self.files {
            for device in &file.spec.devices {
                found.entry(format!("{}={}", file.spec.kind, device.name)).or_default().push(file);
            }
        }
        let listed = |(name, files): (String, Vec<&File>)| {
            let (first, second) = heaviest(&files);
            Some(Listed { name, file: first?.path.clone(), conflict: second.map(|file| file.path.clone()) })
        };
        found.into_iter().filter_map(listed).collect()
    }

    /// What the devices need, in their order: each file's part for all of its devices once, before the first of them.
    pub fn resolve(&self, names: &[DeviceName]) -> Result<Vec<Part<'_>>, CdiError> {
        let mut parts: Vec<Part<'_>> = Vec::new();
        for name in names {
            if parts.iter().any(|part| part.device.as_ref() == Some(name)) {
                continue;
            }
            let (file, edits) = self.find(name)?;
            let is_there = parts.iter().any(|part| part.device.is_none() && part.file == file.path);
            if !is_there && !file.spec.container_edits.is_empty() {
                parts.push(Part { device: None, file: &file.path, edits: &file.spec.container_edits });
            }
            parts.push(Part { device: Some(name.clone()), file: &file.path, edits });
        }
        Ok(parts)
    }

    fn find(&self, name: &DeviceName) -> Result<(&File, &ContainerEdits), CdiError> {
        let device_of = |file: &'_ File| {
            let devices = file.spec.devices.iter();
            (file.spec.kind == name.kind())
                .then(|| devices.clone().position(|device| device.name == name.device()))
                .flatten()
        };
        let files: Vec<&File> = self.files.iter().filter(|file| device_of(file).is_some()).collect();
        match heaviest(&files) {
            (Some(first), Some(second)) => Err(CdiError::Conflict {
                name: name.to_string(),
                first: first.path.clone(),
                second: second.path.clone(),
            }),
            (Some(file), None) => {
                let device = device_of(file).and_then(|place| file.spec.devices.get(place));
                device.map(|device| (file, &device.container_edits)).ok_or_else(|| self.unknown(name))
            }
            (None, _) => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &DeviceName) -> CdiError {
        let of_kind = self.files.iter().filter(|file| file.spec.kind == name.kind());
        let mut known: Vec<&str> =
            of_kind.flat_map(|file| &file.spec.devices).map(|device| device.name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        let searched = if self.files.is_empty() {
            "no file of this node describes any".to_owned()
        } else if known.is_empty() {
            format!("no file of this node is for `{}`", name.kind())
        } else {
            format!("of `{}` there are {}", name.kind(), known.join(", "))
        };
        let broken = self
            .broken
            .first()
            .map(|file| format!("`{}` cannot be used: {}", file.path.display(), file.reason));
        CdiError::Unknown { name: name.to_string(), searched, broken }
    }
}

/// The file of the greatest weight, and another of that weight.
fn heaviest<'a>(files: &[&'a File]) -> (Option<&'a File>, Option<&'a File>) {
    let weight = files.iter().map(|file| file.weight).max();
    let mut best = files.iter().filter(|file| Some(file.weight) == weight);
    (best.next().copied(), best.next().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(names: &[&str], env: &str) -> String {
        let devices: Vec<String> = names
            .iter()
            .map(|name| format!("{{\"name\":\"{name}\",\"containerEdits\":{{\"env\":[\"D={name}\"]}}}}"))
            .collect();
        format!(
            "{{\"cdiVersion\":\"0.5.0\",\"kind\":\"v/c\",\"containerEdits\":{{\"env\":[\"A={env}\"]}},\"devices\":[{}]}}",
            devices.join(",")
        )
    }

    fn resolve(index: &Index, names: &[&str]) -> Result<String, String> {
        let names: Vec<_> = names.iter().map(|name| DeviceName::parse(name).unwrap()).collect();
        let parts = index.resolve(&names).map_err(|error| error.to_string())?;
        Ok(parts.iter().flat_map(|part| &part.edits.env).cloned().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn greater_weight_wins_and_conflicts_count_only_when_asked_for() {
        let mut index = Index::default();
        index.add("/etc/cdi/a.json".into(), 0, text(&["0", "1"], "low").as_bytes());
        index.add("/run/cdi/b.json".into(), 1, text(&["1", "2", "3"], "high").as_bytes());
        index.add("/run/cdi/c.json".into(), 1, text(&["3"], "other").as_bytes());
        index.add("/run/cdi/d.json".into(), 1, b"{}");
        assert_eq!(
            resolve(&index, &["v/c=0", "v/c=1", "v/c=2", "v/c=1"]).unwrap(),
            "A=low D=0 A=high D=1 D=2"
        );
        assert_eq!(
            resolve(&index, &["v/c=3"]).unwrap_err(),
            "the CDI device `v/c=3` is described twice: in `/run/cdi/b.json` and `/run/cdi/c.json`"
        );
        assert_eq!(
            resolve(&index, &["v/c=9"]).unwrap_err(),
            "there is no CDI device `v/c=9`: of `v/c` there are 0, 1, 2, 3; `/run/cdi/d.json` cannot be used: it is no CDI \
             specification: missing field `cdiVersion` at line 1 column 2"
        );
        let listed = index.list();
        assert_eq!(listed.len(), 4);
        assert_eq!(listed[3].conflict, Some("/run/cdi/c.json".into()));
    }
}
