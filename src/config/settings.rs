//! The settings themselves, with the built-in defaults. Every key is described in `configs/slipway.toml`.

use std::path::PathBuf;

use crate::base::Sourced;
use crate::squashfs::compress::Compressor;

use super::value::{ForwardCompat, GpuDefault, Linger, NoOpen, NodeDirectory, Profile, RootFs, Size};

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Where images are kept.
    pub store: StoreSettings,
    /// How images are converted.
    pub convert: ConvertSettings,
    /// How images are served.
    pub fuse: FuseSettings,
    /// How containers are started, and what starts share.
    pub launch: LaunchSettings,
    /// How registries are spoken to.
    pub registry: RegistrySettings,
    /// What a container gets.
    pub run: RunSettings,
    /// Which GPUs a container gets.
    pub gpu: GpuSettings,
    /// Devices that are described by files.
    pub cdi: CdiSettings,
}

/// Table `store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Directory of the store.
    pub dir: Sourced<PathBuf>,
    /// Keep the layers as they came, for push and for other images.
    pub keep_blobs: Sourced<bool>,
}

/// Table `convert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertSettings {
    /// Compressor of run files.
    pub compression: Sourced<Compressor>,
    /// Compressing threads; 0 means one for each CPU that the process may use.
    pub threads: Sourced<u32>,
    /// Most entries of all layers together.
    pub max_entries: Sourced<u64>,
    /// Most bytes of all their files together, holes counted.
    pub max_bytes: Sourced<Size>,
}

/// Table `fuse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FuseSettings {
    /// Serving threads; 0 means one for each CPU that the process may use.
    pub threads: Sourced<u32>,
    /// Memory for decompressed blocks.
    pub cache: Sourced<Size>,
    /// Whether the kernel opens files without asking the server.
    pub no_open: Sourced<NoOpen>,
    /// Whether content is given before it is asked for.
    pub push: Sourced<bool>,
}

/// Table `launch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSettings {
    /// How long a keeper stays when the last container has ended.
    pub linger: Sourced<Linger>,
    /// How an image becomes the root.
    pub rootfs: Sourced<RootFs>,
    /// Where images are unpacked.
    pub unpack_dir: Sourced<NodeDirectory>,
    /// How long an unpacked image is kept that nobody uses, in hours.
    pub unpack_keep_hours: Sourced<u32>,
}

/// Table `registry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Hosts that are spoken to by plain http.
    pub insecure: Sourced<Vec<String>>,
    /// Places that are asked before a registry, `REGISTRY=HOST[/PATH]`.
    pub mirrors: Sourced<Vec<String>>,
    /// To find and reach a host.
    pub connect_timeout_seconds: Sourced<u32>,
    /// For the next bytes of an answer.
    pub read_timeout_seconds: Sourced<u32>,
    /// Further tries after a failure that may pass.
    pub retries: Sourced<u32>,
    /// Layers fetched at once.
    pub parallel_layers: Sourced<u32>,
    /// Connections for one large layer; 1 means that none is cut into parts.
    pub connections_per_layer: Sourced<u32>,
}

/// Table `run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSettings {
    /// Which set of defaults.
    pub profile: Sourced<Profile>,
    /// The home directory is inside.
    pub mount_home: Sourced<bool>,
    /// `/tmp` and `/var/tmp` are inside.
    pub mount_tmp: Sourced<bool>,
    /// Further binds, `SOURCE[:TARGET[:ro]]`.
    pub binds: Sourced<Vec<String>>,
}

/// Table `gpu`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSettings {
    /// Which GPUs a container gets where no flag says.
    pub default: Sourced<GpuDefault>,
    /// How long NVML may take in its child process.
    pub nvml_timeout_seconds: Sourced<u32>,
    /// Nodes of RDMA come with GPUs.
    pub rdma: Sourced<bool>,
    /// Whether CUDA's compatibility libraries of an image go before the host's driver.
    pub forward_compat: Sourced<ForwardCompat>,
    /// The tree in which the driver is installed.
    pub driver_root: Sourced<NodeDirectory>,
    /// The directory that has the driver's `dev`.
    pub device_root: Sourced<NodeDirectory>,
    /// The directories of the driver's libraries; empty to look for them.
    pub library_path: Sourced<Vec<String>>,
}

/// Table `cdi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiSettings {
    /// Further directories of specifications; a later one has more weight.
    pub spec_dirs: Sourced<Vec<String>>,
    /// Programs of hooks that are left out.
    pub ignore_hooks: Sourced<Vec<String>>,
}

impl Default for CdiSettings {
    fn default() -> Self {
        Self {
            spec_dirs: Sourced::default_value(Vec::new()),
            ignore_hooks: Sourced::default_value(Vec::new()),
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            dir: Sourced::default_value("$XDG_DATA_HOME/slipway".into()),
            keep_blobs: Sourced::default_value(true),
        }
    }
}

impl Default for ConvertSettings {
    fn default() -> Self {
        Self {
            compression: Sourced::default_value(Compressor::DEFAULT),
            threads: Sourced::default_value(0),
            max_entries: Sourced::default_value(4_000_000),
            max_bytes: Sourced::default_value(Size(1 << 40)),
        }
    }
}

impl Default for FuseSettings {
    fn default() -> Self {
        Self {
            threads: Sourced::default_value(0),
            cache: Sourced::default_value(Size(256 << 20)),
            no_open: Sourced::default_value(NoOpen::Auto),
            push: Sourced::default_value(false),
        }
    }
}

impl Default for LaunchSettings {
    fn default() -> Self {
        Self {
            linger: Sourced::default_value(Linger::Auto),
            rootfs: Sourced::default_value(RootFs::Auto),
            unpack_dir: Sourced::default_value(NodeDirectory::Auto),
            unpack_keep_hours: Sourced::default_value(24),
        }
    }
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            insecure: Sourced::default_value(Vec::new()),
            mirrors: Sourced::default_value(Vec::new()),
            connect_timeout_seconds: Sourced::default_value(10),
            read_timeout_seconds: Sourced::default_value(60),
            retries: Sourced::default_value(4),
            parallel_layers: Sourced::default_value(3),
            connections_per_layer: Sourced::default_value(4),
        }
    }
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            profile: Sourced::default_value(Profile::Hpc),
            mount_home: Sourced::default_value(true),
            mount_tmp: Sourced::default_value(true),
            binds: Sourced::default_value(Vec::new()),
        }
    }
}

impl Default for GpuSettings {
    fn default() -> Self {
        Self {
            default: Sourced::default_value(GpuDefault::Job),
            nvml_timeout_seconds: Sourced::default_value(5),
            rdma: Sourced::default_value(true),
            forward_compat: Sourced::default_value(ForwardCompat::Auto),
            driver_root: Sourced::default_value(NodeDirectory::Auto),
            device_root: Sourced::default_value(NodeDirectory::Auto),
            library_path: Sourced::default_value(Vec::new()),
        }
    }
}
