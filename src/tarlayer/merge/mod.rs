//! The one-pass merge: layers are read newest first, and the result equals applying them oldest first.

use std::io::Read;

use crate::base::tree::{FileId, Tree};

use super::{TarError, TarReader};

/// Takes the content of regular files as the merge meets them.
pub trait FileSink {
    /// Stores `size_bytes` bytes of `content`.
    fn add_file(&mut self, size_bytes: u64, content: &mut dyn Read) -> std::io::Result<FileId>;
}

/// Bounds on what a hostile image may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most entries of all layers together.
    pub max_entries: u64,
}

/// Why layers cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The tar is not readable.
    #[error(transparent)]
    Tar(#[from] TarError),
}

/// The state between layers.
#[derive(Debug)]
pub struct Merger {
    _limits: Limits,
}

impl Merger {
    /// An empty tree.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { _limits: limits }
    }

    /// Merges the next older layer below what is known.
    pub fn add_layer<R: Read>(
        &mut self,
        _tar: &mut TarReader<R>,
        _sink: &mut dyn FileSink,
    ) -> Result<(), MergeError> {
        Ok(())
    }

    /// The finished tree, with real owners and modes as the image has them.
    pub fn finish(self) -> Result<Tree, MergeError> {
        Ok(Tree { nodes: Vec::new(), root: 0 })
    }
}
