//! What a run gets from the providers: the GPUs, and devices of CDI.

use std::ffi::OsString;

use crate::bundle::EnvRequest;
use crate::cdi::DeviceName;
use crate::config::GpuDefault;
use crate::gpu::{self, GpuRequest, HostRoot, ImageLibc};
use crate::grants::Grants;
use crate::image::Image;
use crate::launch;
use crate::squashfs::read::Reader;

use super::{Session, cdi, gpus};
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
    grants.extend(cdi.grants);
    if has_libraries {
        gpu::cdi::add_loader_facts(&mut grants, &libc()?);
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
    let root = HostRoot::default();
    let hints = gpus::hints(session);
    let job = gpus::job(session);
    let mut inventory = gpu::read_inventory(&root, &hints);
    let by_runtime = runtime(args, session)?;
    let asked =
        match (args.gpus.as_ref().or(by_runtime.as_ref()), args.nv, session.settings.gpu.default.value) {
            (Some(text), _, _) => text.as_str(),
            (None, false, _) if args.no_nv => "none",
            (None, true, _) => "job",
            // A site's default must not fail on its nodes without GPUs; only a user's own words insist.
            (None, false, GpuDefault::All) if !inventory.gpus.is_empty() => "all",
            (None, false, GpuDefault::All | GpuDefault::Job) => "job",
            (None, false, GpuDefault::None) => "none",
        };
    let request = GpuRequest::parse(asked)?;
    if gpu::needs_nvml(&inventory, &job, &request)
        && let Some(words) = gpus::ask_nvml(session, &root, &hints, &mut inventory)
    {
        term::warn(&format!("MIG is known by the driver's files alone: {words}"));
    }
    let owned = gpus::owned(&job, &root, &inventory);
    let chosen = gpu::select(&inventory, &owned, &request)?;
    if chosen.is_empty() {
        return Ok(gpu::grants(&inventory, &chosen, &ImageLibc::Unknown { library_path: None }, &root));
    }
    if !args.ignore_require {
        gpu::check_image(&inventory, &chosen, &image.config.config.env)?;
    }
    let libc = libc_of(image, reader, name)?;
    let mut grants = gpu::grants(&inventory, &chosen, &libc, &root);
    gpu::grant_mig_administration(&mut grants, &administration(args, session, image), &root)?;
    Ok(grants)
}

/// The variables that ask for the administration of MIG; the user's word goes over the image's.
fn administration(args: &RunArgs, session: &Session, image: &Image) -> Vec<(String, String)> {
    let find = |name: &str| {
        let own = asked_variable(args, session, name).map(|value| value.to_string_lossy().into_owned());
        let of_image = || {
            let lines = image.config.config.env.iter();
            lines.filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name)
        };
        own.or_else(|| of_image().map(|(_, value)| value.to_owned())).map(|value| (name.to_owned(), value))
    };
    ["NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES"].into_iter().filter_map(find).collect()
}

/// What `-e` says of a variable.
fn asked_variable(args: &RunArgs, session: &Session, variable: &str) -> Option<OsString> {
    args.env.iter().rev().find_map(|text| match super::request::env_request(text) {
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
