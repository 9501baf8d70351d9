//! Binds, volumes and memory: `-v`, `-B`, `--mount`, `--tmpfs`, `--volumes-from` and the site's own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::RelPath;
use crate::bundle::{
    Asked, MemoryMount, Request, Volume, VolumeKind, WritableRoot, image_volume, parse_apptainer_binds,
    parse_docker_mount, parse_docker_tmpfs, parse_docker_volume,
};
use crate::config::Profile;
use crate::runtime;
use crate::squashfs::read::Reader;
use crate::store::VolumeFacts;

use super::super::{Session, containers};
use super::{Ground, NoMount, memory};
use crate::cli::args::RunArgs;
use crate::cli::failure::Failure;

/// What the flags and the settings ask for.
pub(super) fn mounts(
    args: &RunArgs,
    ground: &Ground<'_>,
) -> Result<(Vec<Volume>, Vec<MemoryMount>), Failure> {
    let settings = &ground.session.settings.run;
    let (mut volumes, mut memory_mounts) = (Vec::new(), Vec::new());
    let site = if NoMount::parse(&args.files.no_mount)?.binds { &[][..] } else { &settings.binds.value };
    for text in site {
        let binds = parse_apptainer_binds(text, Path::new("/"))?;
        let with_origin = |bind: Volume| {
            let asked =
                format!("{} (run.binds, {})", bind.asked.trim_start_matches("-B "), settings.binds.origin);
            Volume { asked, ..bind }
        };
        volumes.extend(binds.into_iter().map(with_origin));
    }
    for word in &args.files.volumes_from {
        volumes.extend(of_container(word, ground.session)?);
    }
    for text in &args.bind {
        volumes.extend(parse_apptainer_binds(as_text("-B", text)?, Path::new(""))?);
    }
    for text in &args.volume {
        let volume = parse_docker_volume(as_text("-v", text)?, Path::new(""))?;
        make_as_docker(&volume, ground);
        volumes.push(volume);
    }
    for text in &args.mount {
        match parse_docker_mount(text)? {
            Asked::Volume(volume) => volumes.push(volume),
            Asked::Memory(mount) => memory_mounts.push(mount),
        }
    }
    for text in &args.tmpfs {
        memory_mounts.push(parse_docker_tmpfs(text)?);
    }
    for text in &args.files.scratch {
        let place = RelPath::parse(text.as_bytes()).ok().filter(|place| !place.is_root());
        let place = place.ok_or_else(|| {
            Failure::new(format!("`--scratch {text}` is no directory inside"), "write `--scratch /scratch`")
        })?;
        memory_mounts.push(memory(place.to_absolute(), 0o755, &format!("--scratch {text}")));
    }
    if args.contain {
        let is_free = |target: &&str| {
            let places = volumes.iter().map(|volume: &Volume| &volume.target);
            !places
                .chain(memory_mounts.iter().map(|mount| &mount.target))
                .any(|place| place == Path::new(target))
        };
        let private: Vec<_> = ["/tmp", "/var/tmp"]
            .into_iter()
            .filter(is_free)
            .map(|target| memory(target, 0o1777, "--contain"))
            .collect();
        memory_mounts.extend(private);
    }
    for volume in volumes.iter_mut().filter(|volume| volume.source.is_relative()) {
        // The directory may be gone, and then no other place may be taken for it.
        volume.source = absolute(&volume.source, ground.cwd).ok_or_else(|| {
            Failure::new(
                format!("cannot bind `{}`: the current directory does not exist any more", volume.asked),
                "change to another directory, or give an absolute path",
            )
        })?;
    }
    Ok((volumes, memory_mounts))
}

/// A path as seen from the caller's directory.
pub(super) fn absolute(path: impl AsRef<Path>, cwd: Option<&Path>) -> Option<PathBuf> {
    let path = path.as_ref();
    if path.is_absolute() { Some(path.to_owned()) } else { cwd.map(|cwd| cwd.join(path)) }
}

/// docker makes a directory that `-v` names and the host lacks.
fn make_as_docker(volume: &Volume, ground: &Ground<'_>) {
    if ground.profile == Profile::Docker && volume.kind == VolumeKind::Path {
        let Some(source) = absolute(&volume.source, ground.cwd) else { return };
        if fs::symlink_metadata(&source).is_err() {
            // Where it cannot be made, the plan says that it is missing.
            let _ = fs::create_dir_all(source);
        }
    }
}

/// The volumes of another container, `CONTAINER[:ro]`.
fn of_container(word: &str, session: &Session) -> Result<Vec<Volume>, Failure> {
    let (name, options) = word.split_once(':').unwrap_or((word, ""));
    let is_read_only = match options {
        "" | "rw" | "z" => false,
        "ro" => true,
        other => {
            return Err(Failure::new(
                format!("`--volumes-from {word}`: unknown option `{other}`"),
                "the options are ro and rw",
            ));
        }
    };
    let container = containers::shelf(session).find(name)?;
    let volume = |mount: &runtime::MountRecord| Volume {
        kind: VolumeKind::Path,
        source: mount.source.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only || is_read_only,
        asked: format!("--volumes-from {word}"),
    };
    Ok(container.record.mounts.iter().map(volume).collect())
}

/// A bind as text: its parts are separated by characters, and the plan shows it.
fn as_text<'a>(flag: &str, text: &'a OsStr) -> Result<&'a str, Failure> {
    text.to_str().ok_or_else(|| {
        Failure::new(
            format!("`{flag} {}` is not UTF-8", text.to_string_lossy()),
            "bind a directory above it whose name is UTF-8",
        )
    })
}

/// Whether a container is kept, so that volumes without a name can be removed with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::cmd) enum Kept {
    /// It is, and has this id.
    Yes,
    /// It goes with its process, and nobody is left to remove anything.
    No,
}

/// Finds or makes the volumes of a request, with those that the image wants (VOLUME) in the docker profile, and fills new
/// ones. Gives the names of those that were made for this container alone.
///
/// Without a kept container one without a name is memory; in a writable root, which is memory then too, there is
/// nothing to do where the image has the directory.
pub(in crate::cli::cmd) fn keep_volumes(
    request: &mut Request,
    ground: &Ground<'_>,
    reader: &Reader,
    kept: Kept,
) -> Result<Vec<String>, Failure> {
    add_image_volumes(request, ground);
    let mut made = Vec::new();
    let mut volumes = Vec::with_capacity(request.volumes.len());
    for mut volume in std::mem::take(&mut request.volumes) {
        let VolumeKind::Kept { name, copies } = &volume.kind else {
            volumes.push(volume);
            continue;
        };
        let place = RelPath::parse(volume.target.as_os_str().as_encoded_bytes()).ok();
        let has_files = || {
            let inode = place.as_ref().and_then(|place| reader.resolve(place, true).ok().flatten());
            inode.is_some_and(|inode| inode.is_directory())
        };
        let name = match (name, kept) {
            (Some(name), _) => name.clone(),
            (None, Kept::Yes) => runtime::new_id()?,
            (None, Kept::No) => {
                let is_in_memory = matches!(request.writable, Some(WritableRoot::Memory { .. }));
                if !(is_in_memory && has_files()) {
                    request.memory_mounts.push(memory(volume.target.clone(), 0o755, &volume.asked));
                }
                continue;
            }
        };
        let store = ground.session.store()?;
        let facts = VolumeFacts {
            created: jiff::Timestamp::now().to_string(),
            anonymous: volume_is_anonymous(&volume.kind),
            ..VolumeFacts::default()
        };
        let found = store.create_volume(&name, &facts)?;
        if *copies && let Some(place) = &place {
            found.fill(&store, reader, place)?;
        }
        if volume_is_anonymous(&volume.kind) {
            made.push(name);
        }
        volume.source = found.data;
        volumes.push(volume);
    }
    request.volumes = volumes;
    Ok(made)
}

/// A volume for each place where the image wants one (VOLUME) and nothing else was asked for.
fn add_image_volumes(request: &mut Request, ground: &Ground<'_>) {
    if request.profile != Profile::Docker {
        return;
    }
    for target in ground.image.volumes.keys() {
        // What the image says badly is the image's affair.
        let Ok(volume) = image_volume(target) else { continue };
        let taken = request.volumes.iter().map(|volume| &volume.target);
        let mut taken = taken.chain(request.memory_mounts.iter().map(|mount| &mount.target));
        if !taken.any(|place| *place == volume.target) {
            request.volumes.push(volume);
        }
    }
}

/// The volumes of a container that is started again: those without a name are the ones that were made with it, in the same
/// order.
pub(in crate::cli::cmd) fn keep_again(
    request: &mut Request,
    ground: &Ground<'_>,
    made: &[String],
) -> Result<Vec<String>, Failure> {
    add_image_volumes(request, ground);
    let mut unnamed = made.iter();
    for volume in &mut request.volumes {
        let VolumeKind::Kept { name, .. } = &volume.kind else { continue };
        let Some(name) = name.as_ref().or_else(|| unnamed.next()) else { continue };
        volume.source = ground.session.store()?.volume(name)?.data;
    }
    request.volumes.retain(|volume| !volume_is_anonymous(&volume.kind) || !made.is_empty());
    Ok(made.to_vec())
}

fn volume_is_anonymous(kind: &VolumeKind) -> bool {
    matches!(kind, VolumeKind::Kept { name: None, .. })
}
