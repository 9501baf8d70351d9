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

/// The devices that were asked for by CDI, and the GPUs of the job unless those are GPUs.
pub(super) fn for_run(
    args: &RunArgs,
    session: &Session,
    image: &Image,
    reader: &Reader,
    name: &str,
) -> Result<Grants, Failure> {
    let devices = &args.isolation.device;
    let names: Vec<DeviceName> = devices
        .iter()
        .filter(|text| DeviceName::is_meant(text))
        .map(|text| DeviceName::parse(text))
        .collect::<Result<_, _>>()?;
    if names.is_empty() {
        return gpus_for_run(args, session, image, reader, name);
    }
    let cdi = cdi::for_run(&names, session)?;
    let libc = || libc_of(image, reader, name);
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
        gpus_for_run(args, session, image, reader, name)?
    };
    let has_libraries = !cdi.grants.libraries.is_empty();
    grants.append(cdi.grants);
    if has_libraries {
        gpu::cdi::add_loader_facts(&mut grants, &libc()?);
    }
    if cdi.has_gpus {
        add_compat(&mut grants, &cdi.inventory, args, session, image, reader)?;
    }
    Ok(grants)
}

/// The GPUs that were asked for (by default those of the job), as grants. Without a driver: nothing, and no error unless
/// the user insisted.
fn gpus_for_run(
    args: &RunArgs,
    session: &Session,
    image: &Image,
    reader: &Reader,
    name: &str,
) -> Result<Grants, Failure> {
    let root = gpus::root(session);
    let hints = gpus::hints(session);
    let job = gpus::job(session);
    let mut inventory = gpu::read_inventory(&root, &hints);
    let by_runtime = runtime(args, session)?;
    let by_variable = if args.nv || args.no_nv || !gpu::has_nvml(&inventory) {
        None
    } else {
        visible_devices(args, session, image)
    };
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
    let mut wanted = GpuRequest { other_nodes: other_nodes(args), ..GpuRequest::parse(asked)? };
    take_capabilities(&mut wanted, args, session, image)?;
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
        if by_variable.is_some() && args.gpus.is_none() && by_runtime.is_none() {
            grants.notes.push(format!(
                "{VISIBLE_DEVICES}, of `-e` or the image, asks for none; `--gpus` goes over it"
            ));
        }
        return Ok(grants);
    }
    if !args.ignore_require {
        gpu::check_image(&inventory, &chosen, &image.config.config.env)?;
    }
    let libc = libc_of(image, reader, name)?;
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
    add_compat(&mut grants, &inventory, args, session, image, reader)?;
    gpu::grant_mig_administration(&mut grants, &administration(args, session, image), &root)?;
    if matches!(libc, ImageLibc::Glibc { .. }) {
        add_baked(
            &mut grants,
            args,
            session,
            &Inside { image, reader, name },
            inventory.files.version.as_deref(),
        )?;
    }
    if gpu::has_nvml(&inventory) && chosen.capabilities.include(Capability::Compute) {
        let mps = mps_directory(args, session);
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
    let channels = variable(args, session, image, "NVIDIA_IMEX_CHANNELS");
    gpu::grant_channels(&mut grants, channels.as_deref(), &root)?;
    weigh(&mut grants, how, &wanted.selection)?;
    Ok(grants)
}

/// Where the loader of an image looks without a cache, and where drivers are installed.
const USUAL_DIRECTORIES: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];

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

/// An image, and how it is read and called.
#[derive(Debug, Clone, Copy)]
struct Inside<'a> {
    image: &'a Image,
    reader: &'a Reader,
    name: &'a str,
}

/// Tells of libraries of a driver in the image: those that `LD_LIBRARY_PATH` leads to as troubles, others, which the merged
/// cache passes by, as notes where somebody reads them.
fn add_baked(
    grants: &mut Grants,
    args: &RunArgs,
    session: &Session,
    inside: &Inside<'_>,
    version: Option<&str>,
) -> Result<(), Failure> {
    let value = variable(args, session, inside.image, "LD_LIBRARY_PATH").unwrap_or_default();
    let find =
        |directories: &[PathBuf]| launch::baked_libraries(inside.reader, inside.name, directories, version);
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

/// The parts of the driver that `NVIDIA_DRIVER_CAPABILITIES` names, where `--gpus` names none. A word of the image that
/// is unknown is not the user's to mend.
fn take_capabilities(
    request: &mut GpuRequest,
    args: &RunArgs,
    session: &Session,
    image: &Image,
) -> Result<(), Failure> {
    const VARIABLE: &str = "NVIDIA_DRIVER_CAPABILITIES";
    if let Some(value) = asked_variable(args, session, VARIABLE) {
        return Ok(request.take_capabilities(VARIABLE, &value.to_string_lossy())?);
    }
    if let Some(value) = variable(args, session, image, VARIABLE)
        && let Err(error) = request.take_capabilities(VARIABLE, &value)
    {
        term::warn(&format!("the image's setting is ignored: {error}"));
    }
    Ok(())
}

/// Where the user's, or the job's, daemon of MPS listens, by the variable that its clients read.
fn mps_directory(args: &RunArgs, session: &Session) -> Option<String> {
    const VARIABLE: &str = "CUDA_MPS_PIPE_DIRECTORY";
    let asked = asked_variable(args, session, VARIABLE);
    let value = asked.or_else(|| session.env.get(OsStr::new(VARIABLE)).cloned())?;
    Some(value.to_string_lossy().into_owned())
}

/// By this variable users of NVIDIA's runtime, and images, choose GPUs.
const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";

/// What it says, in the words of `--gpus`. `all` says no more than what a start does by itself; of an image only the
/// word that there be none counts, since an image does not know a node's GPUs.
fn visible_devices(args: &RunArgs, session: &Session, image: &Image) -> Option<String> {
    let asked = asked_variable(args, session, VISIBLE_DEVICES);
    let of_image = asked.is_none();
    let value = match asked {
        Some(value) => value.to_string_lossy().into_owned(),
        None => variable(args, session, image, VISIBLE_DEVICES)?,
    };
    let words = gpu::words_of_variable(&value);
    match words.as_str() {
        "none" => Some(words),
        "all" => None,
        _ => (!of_image).then_some(words),
    }
}

/// Puts CUDA's compatibility libraries of the image before the driver's, where they are to be used.
fn add_compat(
    grants: &mut Grants,
    inventory: &Inventory,
    args: &RunArgs,
    session: &Session,
    image: &Image,
    reader: &Reader,
) -> Result<(), Failure> {
    let wish = forward_compat(args, session, image);
    let compat = if wish == ForwardCompat::Off { None } else { gpu::find_cuda_compat(reader)? };
    gpu::grant_cuda_compat(grants, inventory, compat.as_ref(), wish);
    Ok(())
}

/// What the settings say, unless a variable of NVIDIA's switches it off; the user's word goes over the image's.
fn forward_compat(args: &RunArgs, session: &Session, image: &Image) -> ForwardCompat {
    let mut env = image.config.config.env.clone();
    for name in gpu::CUDA_COMPAT_SWITCHES {
        if let Some(value) = asked_variable(args, session, name) {
            env.retain(|line| line.split_once('=').is_none_or(|(other, _)| other != name));
            env.push(format!("{name}={}", value.to_string_lossy()));
        }
    }
    match session.settings.gpu.forward_compat.value {
        _ if gpu::is_cuda_compat_disabled(&env) => ForwardCompat::Off,
        config::ForwardCompat::Auto => ForwardCompat::Auto,
        config::ForwardCompat::Off => ForwardCompat::Off,
        config::ForwardCompat::Always => ForwardCompat::Always,
    }
}

/// The variables that ask for the administration of MIG.
fn administration(args: &RunArgs, session: &Session, image: &Image) -> Vec<(String, String)> {
    let find = |name: &str| Some((name.to_owned(), variable(args, session, image, name)?));
    ["NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES"].into_iter().filter_map(find).collect()
}

/// The nodes that flags give beside `--gpus`.
fn other_nodes(args: &RunArgs) -> Vec<PathBuf> {
    let named = args.isolation.device.iter().filter_map(|text| text.split(':').next());
    named.chain(args.isolation.privileged.then_some("/dev")).map(PathBuf::from).collect()
}

/// What `-e` says of a variable, else the image.
fn variable(args: &RunArgs, session: &Session, image: &Image, name: &str) -> Option<String> {
    let own = asked_variable(args, session, name).map(|value| value.to_string_lossy().into_owned());
    let of_image = || {
        let mut lines = image.config.config.env.iter().filter_map(|line| line.split_once('='));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    own.or_else(of_image)
}

/// What `-e` says of a variable.
fn asked_variable(args: &RunArgs, session: &Session, variable: &str) -> Option<OsString> {
    args.env.iter().rev().find_map(|text| match request::env_request(text) {
        EnvRequest::Set(name, value) if name == variable => Some(value),
        EnvRequest::Inherit(name) if name == variable => session.env.get(&name).cloned(),
        _ => None,
    })
}

/// What `--runtime` means for GPUs: those of the vendors mean all, or what a variable for them says.
fn runtime(args: &RunArgs, session: &Session) -> Result<Option<String>, Failure> {
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
    let words = asked_variable(args, session, variable)
        .map_or_else(|| "all".to_owned(), |value| value.to_string_lossy().into_owned());
    Ok(Some(gpu::words_of_variable(&words)))
}

fn libc_of(image: &Image, reader: &Reader, name: &str) -> Result<ImageLibc, Failure> {
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
