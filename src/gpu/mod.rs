//! The GPUs of this host, which of them a job owns, and what a container needs to use them.
//!
//! ```text
//! read_inventory ──▶ Inventory ──┐
//! read_access    ──▶ Access ─────┼─ granted ──▶ Owned ─ select(GpuRequest) ──▶ Chosen ─ grants ──▶ Grants
//! sched          ──▶ JobGpus ────┘
//! query_nvml     ──▶ NvmlReport ─ merge_nvml ─▶ Inventory   (`gpus` and `doctor` only)
//! ```
//!
//! A launch reads procfs and sysfs alone: NVML takes seconds on a sleeping GPU and for ever on a sick one, so it is
//! only asked in a child process with a deadline. No function here opens a GPU's node, since that wakes it.
//! All host files are read below a [`HostRoot`]. What is one vendor's lies behind [`Vendor`].

mod amd;
mod by_nodes;
mod causes;
pub mod cdi;
mod fit;
mod host_root;
mod intel;
mod inventory;
mod listing;
mod mig;
mod nvidia;
mod rdma;
pub mod readings;
mod request;
mod select;
pub mod topology;
mod uevent;
mod visible;

use std::fmt::Debug;
use std::path::PathBuf;

use crate::base::Hint;
use crate::cdi::Spec;
use crate::elf::versions::GlibcVersion;
use crate::grants::Grants;

pub use causes::{Asked, explain_lack};
pub use fit::{ImageOffer, fit_to_image, needs_glibc_known};
pub use host_root::{HostRoot, NodeAccess};
pub use inventory::{Access, Capability, DriverConfig, DriverFiles, DriverLibrary, Gpu, Hints, Inventory};
pub use inventory::{read_access, read_inventory, remember};
pub use listing::{GpuListing, GpuRow, MigRow, align_rows, listing};
pub use mig::{Device, MigInstance};
pub use nvidia::compat::{CUDA_COMPAT_SWITCHES, is_cuda_compat_disabled};
pub use nvidia::compat::{CudaCompat, ForwardCompat, find_cuda_compat, grant_cuda_compat};
pub use nvidia::mig::{MigMinors, grant_mig_administration};
pub use nvidia::modprobe::make_missing_nodes;
pub use nvidia::mps::{grant_mps, mps_trouble};
pub use nvidia::nvml::{NVML_CHILD, NvmlError, NvmlGpu, NvmlReport, nvml_child_main, query_nvml};
pub use nvidia::nvml::{NVML_READINGS_CHILD, NvmlReadings, NvmlSession, Scope, readings_child_main};
pub use rdma::{grant_channels, grant_rdma};
pub use readings::{GpuReadings, Reading, ReadingError};
pub use request::{Capabilities, GpuRequest, Selection, variable_of_runtime, words_of_variable};
pub use select::{Chosen, Owned, granted, needs_nvml, select};
pub use visible::{Names, Visible, VisibleItem, VisibleVariables};

/// A maker of GPUs. New ones are a module beside `nvidia` and a line in [`VENDORS`].
pub trait Vendor: Sync + Debug {
    /// Short name (`nvidia`), as [`Inventory::vendor`] has it.
    fn name(&self) -> &'static str;

    /// What the host has by its file systems alone; `None` without this vendor's driver.
    fn read_inventory(&self, root: &HostRoot, hints: &Hints) -> Option<Inventory>;

    /// Adds what only people ask for, such as names, where it is another file or more to read.
    fn add_details(&self, _root: &HostRoot, _inventory: &mut Inventory) {}

    /// Keeps the facts that are slow to get for the next start on this boot.
    fn remember(&self, _root: &HostRoot, _hints: &Hints, _inventory: &Inventory) {}

    /// Why [`Vendor::read_inventory`] finds nothing, as a fragment (`no NVIDIA driver is loaded: …`).
    fn why_absent(&self) -> &'static str;

    /// The variables that tell this vendor's runtime which GPUs a program sees.
    fn visible_variables(&self) -> &'static VisibleVariables;

    /// Whether the driver and the chosen GPUs are what the image says it needs. `image_env` is its `NAME=value` lines.
    fn check_image(
        &self,
        _inventory: &Inventory,
        _chosen: &Chosen,
        _image_env: &[String],
    ) -> Result<(), GpuError> {
        Ok(())
    }

    /// Whether nothing works on this vendor's GPUs without a library, by its file name.
    fn is_essential(&self, _library: &str) -> bool {
        false
    }

    /// What a container needs for the chosen GPUs, with the reasons as notes.
    fn grants(&self, inventory: &Inventory, chosen: &Chosen, image: &ImageLibc, root: &HostRoot) -> Grants;

    /// All devices of the host as a CDI specification; `None` where slipway writes none for this vendor.
    fn cdi_spec(&self, _inventory: &Inventory, _root: &HostRoot) -> Option<Spec> {
        None
    }
}

/// Every vendor, in the order in which they are asked: the first that has a GPU is the host's. The GPU beside it that
/// draws the console, or that a CPU has built in, is so never in the way.
pub static VENDORS: &[&dyn Vendor] = &[&nvidia::Nvidia, &amd::Amd, &intel::Intel, &intel::Gaudi];

/// The vendor whose driver an inventory is of.
fn vendor_of(inventory: &Inventory) -> Option<&'static dyn Vendor> {
    VENDORS.iter().find(|vendor| Some(vendor.name()) == inventory.vendor.as_deref()).copied()
}

/// Why the host has no vendor's driver.
fn why_no_vendor() -> String {
    VENDORS.iter().map(|vendor| vendor.why_absent()).collect::<Vec<_>>().join("; ")
}

/// A vendor's driver without GPUs, by the vendor's name.
fn without_gpus(vendor: &str) -> String {
    format!("the {vendor} driver is loaded and shows no GPU")
}

/// Adds what `slipway gpus` shows and no start needs, as far as files tell it.
pub fn add_details(root: &HostRoot, inventory: &mut Inventory) {
    if let Some(vendor) = vendor_of(inventory) {
        vendor.add_details(root, inventory);
    }
}

/// Whether NVML knows more of this inventory's GPUs.
#[must_use]
pub fn has_nvml(inventory: &Inventory) -> bool {
    inventory.vendor.as_deref() == Some(nvidia::Nvidia.name())
}

/// The C library of an image, which decides how its loader can find the driver's libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageLibc {
    /// glibc: a merged cache is bound over `/etc/ld.so.cache`.
    Glibc {
        /// The image's `/etc/ld.so.cache`, if it has one.
        loader_cache: Option<Vec<u8>>,
    },
    /// musl, whose loader has no cache, and for which the driver's libraries are not made.
    Musl {
        /// The image's `LD_LIBRARY_PATH`, which is kept behind ours.
        library_path: Option<String>,
    },
    /// Neither was found.
    Unknown {
        /// The image's `LD_LIBRARY_PATH`, which is kept behind ours.
        library_path: Option<String>,
    },
}

/// Everything that the chosen GPUs need inside. Nothing, with a note that says why, where no GPU was chosen.
#[must_use]
pub fn grants(inventory: &Inventory, chosen: &Chosen, image: &ImageLibc, root: &HostRoot) -> Grants {
    match vendor_of(inventory) {
        Some(vendor) if !chosen.is_empty() => {
            let mut grants = vendor.grants(inventory, chosen, image, root);
            grants.notes.splice(0..0, chosen.notes.iter().cloned());
            grants.troubles.splice(0..0, chosen.troubles.iter().cloned());
            grants
        }
        _ => Grants { notes: chosen.notes.clone(), troubles: chosen.troubles.clone(), ..Grants::default() },
    }
}

/// Checks what the image says of the GPUs that it needs (`NVIDIA_REQUIRE_CUDA`). Without a chosen GPU nothing is needed.
pub fn check_image(inventory: &Inventory, chosen: &Chosen, image_env: &[String]) -> Result<(), GpuError> {
    match vendor_of(inventory) {
        Some(vendor) if !chosen.is_empty() => vendor.check_image(inventory, chosen, image_env),
        _ => Ok(()),
    }
}

/// Why the GPUs that were asked for cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// `--gpus` with a value that has no meaning.
    #[error("invalid value `{value}` for --gpus: {reason}")]
    BadRequest {
        /// The value as given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable that names parts of the driver, with a word that has no meaning.
    #[error("invalid value `{value}` of {variable}: {reason}")]
    BadCapabilities {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The image's C library is older than the driver's main library can use.
    #[error("the driver's `{library}` needs glibc {needs}, and the image has {has}")]
    GlibcTooOld {
        /// The library's file name.
        library: String,
        /// The oldest that would do.
        needs: GlibcVersion,
        /// The image's.
        has: GlibcVersion,
    },
    /// A channel of a multi-node NVLink that cannot be had.
    #[error("NVIDIA_IMEX_CHANNELS={value}: channel `{channel}` cannot be given: {reason}")]
    Channel {
        /// The variable's value.
        value: String,
        /// The channel as named.
        channel: String,
        /// What is in the way.
        reason: String,
    },
    /// GPUs were asked for on a node without a driver.
    #[error("--gpus {asked}: this node has no GPU that can be used: {reason}")]
    NoDriver {
        /// The request in the words of `--gpus`.
        asked: String,
        /// What is missing.
        reason: String,
        /// What to do about it, if that is known.
        remedy: Option<String>,
    },
    /// The driver is there, but no GPU is the caller's.
    #[error("--gpus {asked}: no GPU of this node is yours: {reason}")]
    NoneOwned {
        /// The request in the words of `--gpus`.
        asked: String,
        /// Which rule decided that.
        reason: String,
        /// What to do about it, if that is known.
        remedy: Option<String>,
    },
    /// The GPUs are the caller's, and no program can use them.
    #[error("--gpus {asked}: the GPUs cannot be used: {what}")]
    Unusable {
        /// The request in the words of `--gpus`.
        asked: String,
        /// Why.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// CDI devices that are GPUs of others.
    #[error("{asked}: asked for {wanted}, but the job owns {owned} ({reason})")]
    DeviceNotOwned {
        /// The words that asked for it.
        asked: String,
        /// The devices that it stands for.
        wanted: String,
        /// The devices that are the job's.
        owned: String,
        /// Which rule decided that.
        reason: String,
    },
    /// More GPUs, or others, than the job owns.
    #[error("--gpus {asked}: asked for {wanted}, but the job owns {owned} ({reason})")]
    NotOwned {
        /// The request in the words of `--gpus`.
        asked: String,
        /// The set that was asked for (`GPU 0, 3`).
        wanted: String,
        /// The set that is the job's (`GPU 0, 1`).
        owned: String,
        /// Which rule decided that.
        reason: String,
    },
    /// The image says that it needs another driver or GPU.
    #[error("the image needs {wanted}{} ({variable}), and this node has {has}", further(*others))]
    Requirement {
        /// The image's variable.
        variable: String,
        /// Its first alternative.
        wanted: String,
        /// How many alternatives there are besides.
        others: usize,
        /// What the node has.
        has: String,
    },
    /// A GPU that is to be divided and is not.
    #[error("--gpus {asked}: GPU {index} cannot be used: {}", mig::WITHOUT_INSTANCES)]
    WithoutInstances {
        /// The request in the words of `--gpus`.
        asked: String,
        /// The GPU's index.
        index: u32,
    },
    /// The right to divide GPUs, or to watch the instances of all, cannot be given.
    #[error("{variable}={value} cannot be met: {reason}")]
    MigAdministration {
        /// The variable that asked.
        variable: String,
        /// Its value.
        value: String,
        /// What is in the way.
        reason: String,
    },
    /// GPUs were named where one node stands for all.
    #[error("--gpus {asked}: WSL has one device for all GPUs of Windows, so that none can be chosen")]
    Undivided {
        /// The request in the words of `--gpus`.
        asked: String,
    },
    /// A device that this node does not have.
    #[error("--gpus {asked}: there is no GPU `{device}` on this node, which has {present}")]
    NoSuchGpu {
        /// The request in the words of `--gpus`.
        asked: String,
        /// The device as named.
        device: String,
        /// The GPUs that there are.
        present: String,
    },
}

fn further(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " or one other combination".into(),
        more => format!(" or one of {more} other combinations"),
    }
}

impl Hint for GpuError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::BadRequest { .. } => {
                "use `--gpus all`, `none`, `job`, a number, or `device=` with indices or UUIDs, as in `--gpus device=0,2`"
                    .into()
            }
            Self::NoDriver { remedy: Some(remedy), .. }
            | Self::NoneOwned { remedy: Some(remedy), .. }
            | Self::Unusable { remedy, .. } => remedy.clone(),
            Self::BadCapabilities { .. } => {
                "use `all`, or a list of compute, utility, video, graphics, display, ngx, compat32".into()
            }
            Self::GlibcTooOld { .. } => {
                "use an image of a newer distribution, or start it without GPUs with `--gpus none`".into()
            }
            Self::Channel { .. } => {
                "leave out NVIDIA_IMEX_CHANNELS, with which the container gets the channels that the job may open".into()
            }
            Self::NoDriver { .. } => causes::NO_DRIVER_REMEDY.into(),
            Self::NoneOwned { .. } => {
                "ask the scheduler for GPUs (Slurm: `--gpus=1`); where it does not manage them, set CUDA_VISIBLE_DEVICES"
                    .into()
            }
            Self::NotOwned { .. } | Self::DeviceNotOwned { .. } => "`slipway gpus` shows which GPUs are the job's".into(),
            Self::Requirement { .. } => {
                "use an image for this driver's CUDA or an older one, or try all the same with --ignore-require".into()
            }
            Self::Undivided { .. } => {
                "use `--gpus all`, and CUDA_VISIBLE_DEVICES for what the program shall see".into()
            }
            Self::WithoutInstances { .. } => {
                "ask an administrator to make instances (`nvidia-smi mig -cgi PROFILE -C`) or to disable MIG on it".into()
            }
            Self::MigAdministration { variable, .. } => format!(
                "leave out {variable}, which no program needs that only computes; its nodes are root's unless a site opens them"
            ),
            Self::NoSuchGpu { .. } => "`slipway gpus` lists the GPUs of this node".into(),
        })
    }
}

/// Adds what NVML says to what procfs said: names, memory and versions. GPUs are matched by PCI address, else by UUID,
/// else by minor. A GPU that only one of both knows is told as a finding, unless `access` says that it is not ours.
pub fn merge_nvml(inventory: &mut Inventory, report: &NvmlReport, access: &Access) {
    inventory::merge_nvml(inventory, report, access);
}

/// The readings of each GPU of a merged inventory, in its order; `None` for a GPU that NVML did not show. Other GPUs are
/// named by the inventory's indices.
#[must_use]
pub fn readings_of(inventory: &Inventory, nvml: &NvmlReadings) -> Vec<Option<GpuReadings>> {
    inventory::readings_of(inventory, nvml)
}

/// The library that [`query_nvml`] should load: NVML beside the driver's other libraries, wherever the host keeps them.
#[must_use]
pub fn nvml_library(inventory: &Inventory, root: &HostRoot) -> Option<PathBuf> {
    let found =
        inventory.files.libraries.iter().find(|library| library.name.starts_with("libnvidia-ml.so."))?;
    Some(root.place(&found.source))
}
