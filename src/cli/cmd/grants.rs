//! What a run gets from the providers: today the GPUs.

use crate::config::GpuDefault;
use crate::gpu::{self, GpuRequest, HostRoot, ImageLibc};
use crate::grants::Grants;
use crate::image::Image;
use crate::launch;
use crate::squashfs::read::Reader;

use super::{Session, gpus};
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;

/// The GPUs that were asked for (by default those of the job), as grants. Without a driver: nothing, and no error unless
/// the user insisted.
pub(super) fn for_run(
    args: &RunArgs,
    session: &Session,
    image: &Image,
    reader: &Reader,
    name: &str,
) -> Result<Grants, Failure> {
    let root = HostRoot::default();
    let hints = gpus::hints(session);
    let (inventory, owned) = gpus::read(session, &root, &hints);
    let asked = match (&args.gpus, args.nv, session.settings.gpu.default.value) {
        (Some(text), _, _) => text.as_str(),
        (None, true, _) => "job",
        // A site's default must not fail on its nodes without GPUs; only a user's own words insist.
        (None, false, GpuDefault::All) if !inventory.gpus.is_empty() => "all",
        (None, false, GpuDefault::All | GpuDefault::Job) => "job",
        (None, false, GpuDefault::None) => "none",
    };
    let request = GpuRequest::parse(asked)?;
    let chosen = gpu::select(&inventory, &owned, &request)?;
    if chosen.gpus.is_empty() {
        return Ok(gpu::grants(&inventory, &chosen, &ImageLibc::Unknown { library_path: None }, &root));
    }
    if !args.ignore_require {
        gpu::check_image(&inventory, &chosen, &image.config.config.env)?;
    }
    let libc = libc_of(image, reader, name)?;
    Ok(gpu::grants(&inventory, &chosen, &libc, &root))
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
