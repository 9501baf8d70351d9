//! CDI, the Container Device Interface: files in which vendors say what a container needs for their devices.
//!
//! ```text
//! bytes ─ Spec::parse ─▶ Spec ─ Index::add ─▶ Index ─ resolve(names) ─▶ [Part] ─ grants(host) ─▶ Grants
//! ```
//!
//! Versions 0.3 to 1.1 of the specification (github.com/cncf-tags/container-device-interface, `SPEC.md`). Pure: the caller
//! reads the files and answers what the host has. No hook is ever executed: those of NVIDIA's toolkit are done by other
//! means ([`hooks`]), and any other is refused.

mod hooks;
mod index;
mod inside;
mod names;
mod spec;
mod version;
mod yaml;

use std::path::PathBuf;

use crate::base::Hint;

pub use index::{Broken, Index, Listed, Part};
pub use inside::{DRIVER_PARAMS, Host, HostFile, grants, nodes_of, params_without_making_nodes};
pub use names::DeviceName;
pub use spec::{ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec, SpecError};

/// Most bytes of a specification; those of a node with 16 GPUs have 60 KiB.
pub const MAX_SPEC_BYTES: u64 = 4 << 20;
/// Most specifications in one directory that are read.
pub const MAX_SPECS: usize = 1024;
/// The directories of the specification, that of lower weight first.
pub const SPEC_DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Why a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CdiError {
    /// Not `vendor/class=name`.
    #[error("`{text}` is no name of a CDI device: {reason}")]
    Name {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No specification has it.
    #[error("there is no CDI device `{name}`: {searched}{}", broken.as_ref().map(|text| format!("; {text}")).unwrap_or_default())]
    Unknown {
        /// The name.
        name: String,
        /// What the specifications have instead.
        searched: String,
        /// A file that cannot be read, and why.
        broken: Option<String>,
    },
    /// Several files of the same weight have it.
    #[error("the CDI device `{name}` is described twice: in `{}` and `{}`", first.display(), second.display())]
    Conflict {
        /// The name.
        name: String,
        /// One file.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// What the specification names is gone.
    #[error("the CDI device {device} wants the {what} `{}`, which this node does not have: `{}` is out of date", path.display(), file.display())]
    Stale {
        /// The device, or the part for all devices.
        device: String,
        /// `device node` or `file`.
        what: &'static str,
        /// The missing path.
        path: PathBuf,
        /// The specification.
        file: PathBuf,
    },
    /// A program that the specification wants to be run.
    #[error("the CDI device {device} wants the hook `{hook}` to be run, and hooks are not: `{}`", file.display())]
    Hook {
        /// The device, or the part for all devices.
        device: String,
        /// The program and its first words.
        hook: String,
        /// The specification.
        file: PathBuf,
    },
    /// Something that cannot be had without root.
    #[error("the CDI device {device} wants {what}: {why} (`{}`)", file.display())]
    Unsupported {
        /// The device, or the part for all devices.
        device: String,
        /// The thing.
        what: String,
        /// Why not.
        why: &'static str,
        /// The specification.
        file: PathBuf,
    },
}

impl Hint for CdiError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name { .. } => "write it as `slipway cdi list` shows it, such as nvidia.com/gpu=0".into(),
            Self::Unknown { broken: None, .. } => "`slipway cdi list` shows the devices of this node".into(),
            Self::Unknown { .. } | Self::Conflict { .. } => {
                "`slipway cdi check` says what is wrong with each file".into()
            }
            Self::Stale { file, .. } => format!(
                "write it anew with `nvidia-ctk cdi generate --output={0}` or `slipway cdi generate --output {0}`",
                file.display()
            ),
            Self::Hook { hook, .. } => format!(
                "if the device works without it, set cdi.ignore_hooks = [\"{}\"]",
                hook.split(' ').next().unwrap_or_default()
            ),
            Self::Unsupported { .. } => "use another device, or have the specification changed".into(),
        })
    }
}
