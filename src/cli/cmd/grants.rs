//! What a run gets from the providers: the GPUs, and devices of CDI.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::bundle::EnvRequest;
use crate::cdi::DeviceName;
use crate::config::{self, GpuDefault, Profile};
use crate::gpu::{
    self, Asked, Capability, ForwardCompat, GpuError, GpuRequest, ImageLibc, ImageOffer, Inventory, Selection,
};
use crate::grants::{Grants, Trouble, Weight};
use crate::image::Image;
use crate::launch;
use crate::squashfs::read::Reader;

use super::{Session, cdi, glibc, gpus, request};
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

/// A run, and the image that it is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) session: &'a Session,
    pub(super) image: &'a Image,
    pub(super) reader: &'a Reader,
    /// What the image is called.
    pub(super) name: &'a str,
}

/// Where the loader of an image looks without a cache, and where drivers are installed.
const USUAL_DIRECTORIES: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
/// By this variable users of NVIDIA's runtime, and images, choose GPUs.
const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";

impl Ask<'_> {
    /// The devices that were asked for by CDI, and the GPUs of the job unless those are GPUs.
    pub(super) fn for_run(&self) -> Result<Grants, Failure> {
        let Self { args, session, image, .. } = *self;
        let devices = &args.isolation.device;
        let names: Vec<DeviceName> = devices
            .iter()
            .filter(|text| DeviceName::is_meant(text))
            .map(|text| DeviceName::parse(text))
            .collect::<Result<_, _>>()?;
        if names.is_empty() {
            return self.gpus();
        }
        let cdi = cdi::for_run(&names, session)?;
        let mut grants = if cdi.has_gpus {
            if args.nv || args.gpus.as_ref().is_some_and(|gpus| gpus != "none") {
                return Err(Failure::new(
                    format!("GPUs are asked for twice: by `--device {}` and by `--gpus`", cdi.asked),
                    "leave one of them out",
                ));
            }
            if !args.ignore_require {
                gpu::check_image(&cdi.inventory, &cdi.chosen, &image.config.config.env)?;
            }
            Grants::default()
        } else {
            self.gpus()?
        };
        let has_libraries = !cdi.grants.libraries.is_empty();
        grants.append(cdi.grants);
        if has_libraries {
            gpu::cdi::add_loader_facts(&mut grants, &self.libc()?);
        }
        if cdi.has_gpus {
            self.add_compat(&mut grants, &cdi.inventory)?;
        }
        Ok(grants)
    }

    /// The GPUs that were asked for (by default those of the job), as grants. Without a driver: nothing, and no error unless
    /// the user insisted.
    fn gpus(&self) -> Result<Grants, Failure> {
        let Self { args, session, image, reader, .. } = *self;
        let root = gpus::root(session);
        let hints = gpus::hints(session);
        let job = gpus::job(session);
        let mut inventory = gpu::read_inventory(&root, &hints);
        let by_runtime = self.runtime()?;
        // It counts where nothing else was said.
        let is_said = args.gpus.is_some() || by_runtime.is_some() || args.nv || args.no_nv;
        let by_variable = if is_said || !gpu::has_nvml(&inventory) { None } else { self.visible_devices() };
        let in_words = args.gpus.as_ref().or(by_runtime.as_ref()).or(by_variable.as_ref());
        let asked = match (in_words, args.nv, session.settings.gpu.default.value) {
            (Some(text), _, _) => text.as_str(),
            (None, false, _) if args.no_nv => "none",
            (None, true, _) => "job",
            // A site's default must not fail on its nodes without GPUs; only a user's own words insist.
            (None, false, GpuDefault::All) if !inventory.gpus.is_empty() => "all",
            (None, false, GpuDefault::All | GpuDefault::Job) => "job",
            (None, false, GpuDefault::None) => "none",
        };
        let mut wanted = GpuRequest { other_nodes: self.other_nodes(), ..GpuRequest::parse(asked)? };
        self.take_capabilities(&mut wanted)?;
        let made = match wanted.selection {
            Selection::None => None,
            _ if inventory.gpus.is_empty() => None,
            _ => gpu::make_missing_nodes(&root, &mut inventory),
        };
        if gpu::needs_nvml(&inventory, &job, &wanted)
            && let Some(words) = gpus::ask_nvml(session, &root, &hints, &mut inventory)
        {
            term::warn(&format!("MIG is known by the driver's files alone: {words}"));
        }
        let is_soft = in_words.is_none() || matches!(wanted.selection, Selection::Job | Selection::None);
        let how = if is_soft { Asked::Softly } else { Asked::InWords };
        let owned = gpus::owned(&job, &root, &inventory, how);
        let mut chosen = gpu::select(&inventory, &owned, &wanted)?;
        if chosen.is_empty() {
            let libc = ImageLibc::Unknown { library_path: None };
            let mut grants = gpu::grants(&inventory, &chosen, &libc, &root);
            if by_variable.is_some() {
                grants.notes.push(format!(
                    "{VISIBLE_DEVICES}, of `-e` or the image, asks for none; `--gpus` goes over it"
                ));
            }
            return Ok(grants);
        }
        if !args.ignore_require {
            gpu::check_image(&inventory, &chosen, &image.config.config.env)?;
        }
        let libc = self.libc()?;
        let is_glibc = matches!(libc, ImageLibc::Glibc { .. });
        let offer = ImageOffer {
            glibc: match is_glibc && gpu::needs_glibc_known(&inventory, &chosen) {
                true => glibc::version_of(reader)?,
                false => None,
            },
            has_loader_32: chosen.capabilities.include(Capability::Compat32) && glibc::has_loader_32(reader)?,
        };
        gpu::fit_to_image(&mut inventory, &mut chosen, &offer)?;
        let mut grants = gpu::grants(&inventory, &chosen, &libc, &root);
        grants.notes.extend(made);
        self.add_compat(&mut grants, &inventory)?;
        gpu::grant_mig_administration(&mut grants, &self.administration(), &root)?;
        if matches!(libc, ImageLibc::Glibc { .. }) {
            self.add_baked(&mut grants, inventory.files.version.as_deref())?;
        }
        if gpu::has_nvml(&inventory) && chosen.capabilities.include(Capability::Compute) {
            let mps = self.mps_directory();
            gpu::grant_mps(&mut grants, mps.as_deref(), &root);
            // Elsewhere no program sees what lies in the host's /tmp.
            if request::profile(args, session) == Profile::Hpc && request::shows_tmp(args, session)? {
                grants.troubles.extend(gpu::mps_trouble(&root, mps.as_deref().map(Path::new)));
            }
        }
        if args.no_rdma {
            grants.notes.push("nodes of RDMA are not inside: --no-rdma".into());
        } else if !session.settings.gpu.rdma.value {
            let origin = &session.settings.gpu.rdma.origin;
            grants.notes.push(format!("nodes of RDMA are not inside: gpu.rdma = false ({origin})"));
        } else {
            gpu::grant_rdma(&mut grants, &root);
        }
        let channels = self.variable("NVIDIA_IMEX_CHANNELS");
        gpu::grant_channels(&mut grants, channels.as_deref(), &root)?;
        weigh(&mut grants, how, &wanted.selection)?;
        Ok(grants)
    }

    /// Tells of libraries of a driver in the image: those that `LD_LIBRARY_PATH` leads to as troubles, others, which the merged
    /// cache passes by, as notes where somebody reads them.
    fn add_baked(&self, grants: &mut Grants, version: Option<&str>) -> Result<(), Failure> {
        let Self { args, .. } = *self;
        let value = self.variable("LD_LIBRARY_PATH").unwrap_or_default();
        let find =
            |directories: &[PathBuf]| launch::baked_libraries(self.reader, self.name, directories, version);
        let first: Vec<PathBuf> = std::env::split_paths(&value).collect();
        grants.troubles.extend(find(&first)?.iter().map(launch::BakedLibrary::trouble));
        if args.plan || args.files.explain {
            let usual: Vec<PathBuf> = USUAL_DIRECTORIES.map(PathBuf::from).into();
            let usual: Vec<PathBuf> = usual.into_iter().filter(|path| !first.contains(path)).collect();
            let passed = find(&usual)?;
            grants
                .notes
                .extend(passed.iter().map(|library| format!("{library}; the loader's cache passes it by")));
        }
        Ok(())
    }

    /// Puts CUDA's compatibility libraries of the image before the driver's, where they are to be used.
    fn add_compat(&self, grants: &mut Grants, inventory: &Inventory) -> Result<(), Failure> {
        let wish = self.forward_compat();
        let compat = if wish == ForwardCompat::Off { None } else { gpu::find_cuda_compat(self.reader)? };
        gpu::grant_cuda_compat(grants, inventory, compat.as_ref(), wish);
        Ok(())
    }

    /// What the settings say, unless a variable of NVIDIA's switches it off; the user's word goes over the image's.
    fn forward_compat(&self) -> ForwardCompat {
        let set = |name: &&str| Some(format!("{name}={}", self.variable(name)?));
        let switches: Vec<String> = gpu::CUDA_COMPAT_SWITCHES.iter().filter_map(set).collect();
        match self.session.settings.gpu.forward_compat.value {
            _ if gpu::is_cuda_compat_disabled(&switches) => ForwardCompat::Off,
            config::ForwardCompat::Auto => ForwardCompat::Auto,
            config::ForwardCompat::Off => ForwardCompat::Off,
            config::ForwardCompat::Always => ForwardCompat::Always,
        }
    }

    /// The parts of the driver that `NVIDIA_DRIVER_CAPABILITIES` names, where `--gpus` names none. A word of the image that
    /// is unknown is not the user's to mend.
    fn take_capabilities(&self, request: &mut GpuRequest) -> Result<(), Failure> {
        const VARIABLE: &str = "NVIDIA_DRIVER_CAPABILITIES";
        if let Some(value) = self.asked_variable(VARIABLE) {
            return Ok(request.take_capabilities(VARIABLE, &value.to_string_lossy())?);
        }
        if let Some(value) = self.variable(VARIABLE)
            && let Err(error) = request.take_capabilities(VARIABLE, &value)
        {
            term::warn(&format!("the image's setting is ignored: {error}"));
        }
        Ok(())
    }

    /// What `--runtime` means for GPUs: those of the vendors mean all, or what a variable for them says.
    fn runtime(&self) -> Result<Option<String>, Failure> {
        let Self { args, .. } = *self;
        /// Runtimes that only run containers, as this one does.
        const PLAIN: [&str; 6] = ["runc", "crun", "youki", "io.containerd.runc.v2", "slipway", ""];
        let Some(name) = &args.isolation.runtime else { return Ok(None) };
        if PLAIN.contains(&name.as_str()) {
            return Ok(None);
        }
        let Some(variable) = gpu::variable_of_runtime(name) else {
            return Err(Failure::new(
                format!("cannot have `--runtime {name}`: containers are started by slipway itself"),
                "leave it out; `--runtime nvidia` and `--runtime amd` mean `--gpus all`",
            ));
        };
        let words = self
            .asked_variable(variable)
            .map_or_else(|| "all".to_owned(), |value| value.to_string_lossy().into_owned());
        Ok(Some(gpu::words_of_variable(&words)))
    }

    /// What it says, in the words of `--gpus`. `all` says no more than what a start does by itself; of an image only the
    /// word that there be none counts, since an image does not know a node's GPUs.
    fn visible_devices(&self) -> Option<String> {
        let is_asked = self.asked_variable(VISIBLE_DEVICES).is_some();
        let words = gpu::words_of_variable(&self.variable(VISIBLE_DEVICES)?);
        match words.as_str() {
            "none" => Some(words),
            "all" => None,
            _ => is_asked.then_some(words),
        }
    }

    /// Where the user's, or the job's, daemon of MPS listens, by the variable that its clients read.
    fn mps_directory(&self) -> Option<String> {
        const VARIABLE: &str = "CUDA_MPS_PIPE_DIRECTORY";
        let asked = self.asked_variable(VARIABLE);
        let value = asked.or_else(|| self.session.env.get(OsStr::new(VARIABLE)).cloned())?;
        Some(value.to_string_lossy().into_owned())
    }

    /// The variables that ask for the administration of MIG.
    fn administration(&self) -> Vec<(String, String)> {
        let find = |name: &str| Some((name.to_owned(), self.variable(name)?));
        ["NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES"].into_iter().filter_map(find).collect()
    }

    /// The nodes that flags give beside `--gpus`.
    fn other_nodes(&self) -> Vec<PathBuf> {
        let Self { args, .. } = *self;
        let named = args.isolation.device.iter().filter_map(|text| text.split(':').next());
        named.chain(args.isolation.privileged.then_some("/dev")).map(PathBuf::from).collect()
    }

    /// What `-e` says of a variable, else the image.
    fn variable(&self, name: &str) -> Option<String> {
        let own = self.asked_variable(name).map(|value| value.to_string_lossy().into_owned());
        let of_image = || {
            let mut lines = self.image.config.config.env.iter().filter_map(|line| line.split_once('='));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        own.or_else(of_image)
    }

    /// What `-e` says of a variable.
    fn asked_variable(&self, variable: &str) -> Option<OsString> {
        self.args.env.iter().rev().find_map(|text| match request::env_request(text) {
            EnvRequest::Set(name, value) if name == variable => Some(value),
            EnvRequest::Inherit(name) if name == variable => self.session.env.get(&name).cloned(),
            _ => None,
        })
    }

    /// The C library of the image.
    fn libc(&self) -> Result<ImageLibc, Failure> {
        let Self { image, reader, name, .. } = *self;
        let has = |path: &str| -> Result<bool, Failure> {
            let path = crate::base::RelPath::parse(path.as_bytes()).ok();
            Ok(match path {
                Some(path) => reader.resolve_path(&path)?.inode.is_some(),
                None => false,
            })
        };
        // One that was prepared stands in for a missing or stale one; almost no image carries it.
        let cache = match image.loader_cache(reader)? {
            Some(cache) => Some(cache),
            None => launch::small_file(reader, name, "etc/ld.so.cache")?,
        };
        let arch = std::env::consts::ARCH;
        let glibc = cache.is_some()
            || has("lib64/ld-linux-x86-64.so.2")?
            || has("lib/ld-linux-aarch64.so.1")?
            || has(&format!("lib/{arch}-linux-gnu/libc.so.6"))?;
        if glibc {
            return Ok(ImageLibc::Glibc { loader_cache: cache });
        }
        let library_path = image
            .config
            .config
            .env
            .iter()
            .find_map(|line| line.strip_prefix("LD_LIBRARY_PATH=").map(String::from));
        if has(&format!("lib/ld-musl-{arch}.so.1"))? {
            return Ok(ImageLibc::Musl { library_path });
        }
        Ok(ImageLibc::Unknown { library_path })
    }
}

/// What certainly fails is an error for who asked in so many words, and else a warning: a job's command is the same on
/// every node, and may have other work to do. What only may fail, or is not much, is told as its weight says.
fn weigh(grants: &mut Grants, how: Asked, asked: &Selection) -> Result<(), GpuError> {
    let certain = |trouble: &&Trouble| how == Asked::InWords && trouble.weight == Weight::Certain;
    if let Some(Trouble { what, remedy, .. }) = grants.troubles.iter().find(certain) {
        let (asked, what, remedy) = (asked.to_string(), what.clone(), remedy.clone());
        return Err(GpuError::Unusable { asked, what, remedy });
    }
    let is_slight = |trouble: &mut Trouble| how == Asked::Softly && trouble.weight == Weight::Slight;
    let slight = grants.troubles.extract_if(.., is_slight).map(|trouble| trouble.to_string());
    grants.notes.extend(slight);
    Ok(())
}
