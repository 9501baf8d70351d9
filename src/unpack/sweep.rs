//! Which trees are in use, and the removal of those that are not.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use crate::sys::at;
use crate::sys::file::try_lock;
use crate::sys::process;

use super::error::UnpackError;
use super::roots::{LINKS, LOCK, NEW, OLD, Roots};

/// A tree on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFacts {
    /// Its name below the directory of all trees.
    pub name: String,
    /// Somebody unpacks, starts from or runs in it.
    pub is_used: bool,
    /// Since the last start.
    pub unused_for: Duration,
    /// What its files take, in bytes.
    pub bytes: u64,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Trees, and parts of trees that killed processes left, by name.
    pub names: Vec<String>,
    /// What they took, in bytes.
    pub bytes: u64,
}

/// What lies in the directory under one name.
#[derive(Debug, Default, Clone, Copy)]
struct Parts {
    tree: bool,
    others: bool,
}

impl Roots {
    /// Removes trees that nobody uses and that were not used for so long, those of earlier boots, and what killed processes
    /// have left. A tree that somebody is just taking is let alone.
    pub fn remove_unused(&self, unused_for: Duration) -> Result<Swept, UnpackError> {
        let mut candidates: Vec<(String, File, Parts)> = Vec::new();
        for (name, parts) in self.parts()? {
            let Ok(lock) = self.open_lock(&name) else { continue };
            if !matches!(try_lock(lock.as_fd()), Ok(true)) || !self.is_current(&lock, &name) {
                continue;
            }
            let is_old = !name.starts_with(&self.boot) || age(&lock) >= unused_for;
            if !parts.tree || is_old {
                candidates.push((name, lock, parts));
            }
        }
        // Looked at after all locks are held: whoever starts from one of them now waits.
        let used = if candidates.iter().any(|(_, _, parts)| parts.tree) { mounted() } else { String::new() };
        let mut swept = Swept::default();
        for (name, lock, parts) in candidates {
            if parts.tree && used.contains(&format!("/{name}")) {
                continue;
            }
            let bytes = [name.clone(), format!("{name}{NEW}"), format!("{name}{OLD}")];
            let bytes: u64 = bytes.iter().map(|part| self.bytes_of(part)).sum();
            if parts.tree {
                // First out of its place: half a tree must never be taken for one.
                let old = format!("{name}{OLD}");
                self.remove(&old)?;
                at::rename(self.fd.as_fd(), name.as_bytes(), old.as_bytes())
                    .map_err(UnpackError::place("rename", &self.path.join(&name)))?;
            }
            self.clear(&name)?;
            self.remove(&format!("{name}{LOCK}"))?;
            drop(lock);
            if parts.tree || parts.others {
                swept.bytes = swept.bytes.saturating_add(bytes);
                swept.names.push(name);
            }
        }
        Ok(swept)
    }

    /// All trees, with their sizes.
    pub fn list(&self) -> Result<Vec<RootFacts>, UnpackError> {
        let mut found = Vec::new();
        let used = mounted();
        for (name, _) in self.parts()?.into_iter().filter(|(_, parts)| parts.tree) {
            let Ok(lock) = self.open_lock(&name) else { continue };
            let is_used = !matches!(try_lock(lock.as_fd()), Ok(true)) || used.contains(&format!("/{name}"));
            let bytes = self.bytes_of(&name);
            found.push(RootFacts { is_used, unused_for: age(&lock), bytes, name });
        }
        Ok(found)
    }

    /// What there is, by name; what is not ours by its form is left out.
    fn parts(&self) -> Result<BTreeMap<String, Parts>, UnpackError> {
        let names = at::list(&self.fd).map_err(UnpackError::place("list", &self.path))?;
        let mut found: BTreeMap<String, Parts> = BTreeMap::new();
        for name in names.into_iter().filter_map(|name| String::from_utf8(name).ok()) {
            let suffix = [LOCK, NEW, LINKS, OLD].into_iter().find(|suffix| name.ends_with(suffix));
            let stem = name.trim_end_matches(suffix.unwrap_or_default());
            if !is_name(stem) {
                continue;
            }
            let parts = found.entry(stem.to_owned()).or_default();
            match suffix {
                None => parts.tree = true,
                Some(suffix) => parts.others |= suffix != LOCK,
            }
        }
        Ok(found)
    }

    /// What the files of a tree take; a file with several names counts once.
    fn bytes_of(&self, name: &str) -> u64 {
        let mut bytes = 0_u64;
        let mut seen = HashSet::new();
        let mut open = vec![self.path.join(name)];
        while let Some(path) = open.pop() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                let Ok(facts) = entry.metadata() else { continue };
                if facts.is_dir() {
                    open.push(entry.path());
                } else if facts.nlink() <= 1 || seen.insert(facts.ino()) {
                    bytes = bytes.saturating_add(facts.blocks().saturating_mul(512));
                }
            }
        }
        bytes
    }
}

/// `<boot>.<key>`.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.split_once('.').is_some_and(|(boot, key)| {
        boot.len() == 8
            && boot.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !key.is_empty()
            && key.bytes().all(plain)
    })
}

/// Since the last start from a tree, by its lock.
fn age(lock: &File) -> Duration {
    let used = lock.metadata().and_then(|facts| facts.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    SystemTime::now().duration_since(used).unwrap_or_default()
}

/// The mount tables of all processes that may be the user's, one after the other. A tree that a container has as its root
/// stands there, as a bind's root or as a layer of an overlay.
fn mounted() -> String {
    let (uid, _) = process::own_ids();
    let mut namespaces = HashSet::new();
    let mut text = String::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        // A process that may not be looked into counts as root's.
        let may_be_ours = || entry.metadata().is_ok_and(|facts| facts.uid() == uid || facts.uid() == 0);
        if !is_process || !may_be_ours() {
            continue;
        }
        if let Ok(namespace) = fs::read_link(entry.path().join("ns/mnt"))
            && !namespaces.insert(namespace)
        {
            continue;
        }
        // It may have ended meanwhile.
        let table = fs::read(entry.path().join("mountinfo")).unwrap_or_default();
        text.push_str(&String::from_utf8_lossy(&table));
    }
    text
}
