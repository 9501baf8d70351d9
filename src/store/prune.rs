//! Space: what images take, and what no image needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use crate::oci::layout::BLOBS_DIRECTORY;

use super::tmp::{ABANDONED, server_time};
use super::{RefRecord, Store, StoreError};

/// What a store takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All layers, documents and run files, in bytes.
    pub bytes: u64,
    /// Those that belong to the images asked about, in bytes.
    pub needed_bytes: u64,
}

impl Store {
    /// How much there is, and how much of it these images need.
    pub fn usage<'a>(&self, needed: impl IntoIterator<Item = &'a RefRecord>) -> Result<Usage, StoreError> {
        let kept = self.names_of(needed)?;
        let mut usage = Usage::default();
        for (name, (_, bytes)) in self.stored() {
            usage.bytes = usage.bytes.saturating_add(bytes);
            if kept.contains(&name) {
                usage.needed_bytes = usage.needed_bytes.saturating_add(bytes);
            }
        }
        Ok(usage)
    }

    /// Removes layers, documents, run files and hot lists of no image, as killed pulls and removals leave them; gives how
    /// many bytes they took. Young ones stay: an image that is just being pulled gets its name last.
    pub fn remove_orphans(&self) -> Result<u64, StoreError> {
        let refs = self.list_refs()?;
        let kept = self.names_of(refs.iter().map(|(_, record)| record))?;
        let orphans: Vec<_> = self.stored().into_iter().filter(|(name, _)| !kept.contains(name)).collect();
        let mut removed_bytes = 0_u64;
        if orphans.is_empty() {
            return Ok(removed_bytes);
        }
        let now = server_time(&self.tmp_directory())?;
        for (_, (path, bytes)) in orphans {
            let written = fs::metadata(&path).and_then(|facts| facts.modified());
            let is_old =
                written.is_ok_and(|written| now.duration_since(written).is_ok_and(|age| age > ABANDONED));
            // Somebody else may have been faster.
            if is_old && fs::remove_file(&path).is_ok() {
                removed_bytes = removed_bytes.saturating_add(bytes);
            }
        }
        Ok(removed_bytes)
    }

    /// Names of the files that images are made of: of blobs the digest, of run files the key.
    fn names_of<'a>(
        &self,
        records: impl IntoIterator<Item = &'a RefRecord>,
    ) -> Result<BTreeSet<OsString>, StoreError> {
        let mut names = BTreeSet::new();
        for record in records {
            names.extend(self.parts_of(record)?.iter().map(|digest| OsString::from(digest.hex())));
            names.extend(record.image.iter().map(|key| OsString::from(format!("{key}.sif"))));
        }
        Ok(names)
    }

    /// Every blob and run file, by name, with its place and size.
    fn stored(&self) -> BTreeMap<OsString, (PathBuf, u64)> {
        let directories = [self.root.join(BLOBS_DIRECTORY), self.root.join("images")];
        let entries = directories.into_iter().filter_map(|path| fs::read_dir(path).ok()).flatten().flatten();
        entries
            .filter_map(|entry| {
                let facts = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((entry.file_name(), (entry.path(), facts.len())))
            })
            .collect()
    }
}
