//! How the image becomes the root: served, or unpacked on this node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{NodeDirectory, RootFs, Settings};
use crate::host::{FuseDevice, LaunchFacts};
use crate::image::Image;
use crate::plan::LaunchPlan;
use crate::store::ImageKey;
use crate::sys::ns::SingleThreaded;
use crate::unpack::{self, Lease, Roots, Unpacking};

use super::{Session, threads};
use crate::cli::args::{RootFsChoice, RunArgs};
use crate::cli::failure::Failure;
use crate::cli::term;

/// What was chosen for a start.
#[derive(Debug)]
pub(super) enum RootChoice {
    /// Our file server.
    Served,
    /// A directory of this node.
    Unpacked { base: PathBuf, key: String, threads: usize, keep: Duration },
}

impl RootChoice {
    /// Looks at the flag, the settings, and in doubt at `/dev/fuse`; says so where that decides against serving.
    pub(super) fn of(args: &RunArgs, session: &Session, image: &Image) -> Result<Self, Failure> {
        let settings = &session.settings;
        let wanted = match args.rootfs {
            None => settings.launch.rootfs.value,
            Some(RootFsChoice::Auto) => RootFs::Auto,
            Some(RootFsChoice::Fuse) => RootFs::Fuse,
            Some(RootFsChoice::Unpack) => RootFs::Unpack,
        };
        let base = base(session);
        match wanted {
            RootFs::Fuse => return Ok(Self::Served),
            RootFs::Unpack => {}
            RootFs::Auto => match FuseDevice::of_this_machine() {
                FuseDevice::Opens => return Ok(Self::Served),
                device => term::warn(&without_fuse(device, &base)),
            },
        }
        let key = match key_in_store(&image.path, settings) {
            Some(key) => key.to_string(),
            None => unpack::key_of_file(image).map_err(|error| {
                Failure::new(format!("cannot look at `{}`: {error}", image.path.display()), None)
            })?,
        };
        Ok(Self::Unpacked {
            base,
            key,
            threads: threads(0, &LaunchFacts::read(Path::new("/"))),
            keep: Duration::from_secs(3600 * u64::from(settings.launch.unpack_keep_hours.value)),
        })
    }

    /// The plan with this root.
    pub(super) fn applied_to(&self, plan: LaunchPlan) -> LaunchPlan {
        match self {
            Self::Served => plan,
            Self::Unpacked { base, key, .. } => plan.from_directory(&unpack::place(base, key)),
        }
    }

    /// Holds the unpacked tree, which is made where it is missing.
    pub(super) fn take(&self, image: &Image, name: &str) -> Result<Option<Lease>, Failure> {
        let Self::Unpacked { base, key, threads, keep } = self else { return Ok(None) };
        let witness =
            SingleThreaded::witness().ok_or_else(|| Failure::from(crate::launch::LaunchError::Threads))?;
        let lease = Roots::open(base)?.take(
            &Unpacking {
                image: Path::new(name),
                partition: image.partition(),
                key,
                threads: *threads,
                keep: *keep,
            },
            &witness,
        )?;
        if let Some(count) = lease.written.map(|written| written.without_xattrs).filter(|count| *count > 0) {
            term::warn(&format!(
                "the extended attributes of {count} files are left out: the file system of `{}` does not take them",
                lease.path.display()
            ));
        }
        Ok(Some(lease))
    }
}

/// Where images are unpacked.
pub(super) fn base(session: &Session) -> PathBuf {
    match &session.settings.launch.unpack_dir.value {
        NodeDirectory::Auto => unpack::default_base(&session.env),
        NodeDirectory::Path(path) => path.clone(),
    }
}

fn without_fuse(device: FuseDevice, base: &Path) -> String {
    let (why, cure) = match device {
        FuseDevice::Missing => ("this node has no `/dev/fuse`", "`modprobe fuse`"),
        FuseDevice::Denied | FuseDevice::Opens => {
            ("`/dev/fuse` may not be opened by this user", "`chmod 0666 /dev/fuse`")
        }
    };
    format!(
        "{why}, so images are unpacked to `{}`; an administrator can change that by {cure}, `--rootfs unpack` silences this",
        base.display()
    )
}

/// The key of an image of the store: equal keys mean equal bytes.
fn key_in_store(image: &Path, settings: &Settings) -> Option<ImageKey> {
    let images = std::fs::canonicalize(settings.store.dir.value.join("images")).ok()?;
    let name = image.file_name()?.to_str()?.strip_suffix(".sif")?;
    (image.parent() == Some(&images)).then(|| ImageKey::try_from(name.to_owned()).ok()).flatten()
}
