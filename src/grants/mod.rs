//! What a provider (GPU, fabric, MPI) wants inside a container, in one neutral form.
//!
//! `bundle` and `plan` read [`Grants`] and know no vendor. Pure: the providers on floor 2 fill it from facts.

mod job;
mod trouble;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use job::JobGpus;
pub use trouble::{Trouble, Weight};

/// Everything that one or more providers want inside, in the order of decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Device nodes, bound from the host's node of the same path.
    pub nodes: Vec<NodeGrant>,
    /// Files, directories and sockets of the host.
    pub binds: Vec<BindGrant>,
    /// Directories below which nothing is seen but what [`Grants::binds`] puts there.
    pub hidden: Vec<PathBuf>,
    /// Driver libraries, bound into the one private library directory of the container.
    pub libraries: Vec<LibraryGrant>,
    /// Links below `/dev`: where, and to what.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Small files made by us, such as the merged `ld.so.cache`.
    pub files: Vec<FileGrant>,
    /// Variables set in the container, over the image's and under the user's `-e`.
    pub env: Vec<(String, String)>,
    /// Why each thing is, or is not, inside; `--explain` and `--plan` print them.
    pub notes: Vec<String>,
    /// What will keep some of it from working.
    pub troubles: Vec<Trouble>,
    /// Why a variable, by its name, or a file, by its place inside, is there.
    pub reasons: BTreeMap<String, String>,
}

impl Grants {
    /// Adds what another provider wants. Of a variable the other's value counts.
    pub fn append(&mut self, other: Self) {
        let Self { nodes, binds, hidden, libraries, files, env, notes, reasons, troubles, links } = other;
        self.nodes.extend(nodes);
        self.binds.extend(binds);
        self.hidden.extend(hidden);
        self.libraries.extend(libraries);
        self.files.extend(files);
        self.env.retain(|(name, _)| env.iter().all(|(new, _)| new != name));
        self.env.extend(env);
        self.notes.extend(notes);
        self.reasons.extend(reasons);
        self.troubles.extend(troubles);
        self.links.extend(links);
    }

    /// Why a variable or a place inside is there.
    #[must_use]
    pub fn reason(&self, name: &str) -> String {
        self.reasons.get(name).cloned().unwrap_or_else(|| "a provider asks for it".into())
    }
}

/// One device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeGrant {
    /// The host's node.
    pub source: PathBuf,
    /// Absolute path inside the container (below `/dev`).
    pub target: PathBuf,
}

/// One host file, directory or socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindGrant {
    /// Absolute host path.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Bound read-only.
    pub read_only: bool,
    /// A directory (else a file, socket or node).
    pub directory: bool,
}

/// One shared library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryGrant {
    /// The real file on the host (links resolved), absolute.
    pub source: PathBuf,
    /// Name inside the private library directory (`libcuda.so.550.54.15`, `32/libcuda.so.550.54.15`).
    pub name: String,
    /// Symlinks in that directory that point to `name` (`libcuda.so.1`, `libcuda.so`, `gbm/nvidia-drm_gbm.so`).
    pub links: Vec<String>,
}

/// One small file made by us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileGrant {
    /// Absolute path inside, bound over what the image has.
    pub target: PathBuf,
    /// The bytes.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// The directory inside a container that holds the driver libraries ([`LibraryGrant`]).
pub const LIBRARY_DIRECTORY: &str = "/.slipway/run/lib";
