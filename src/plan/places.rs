//! Where the mounts of a bundle really lie once the image's links are followed, which of them win, and in what order
//! they come.

use std::path::{Path, PathBuf};

use crate::base::{RelPath, is_below};
use crate::bundle::{Bundle, Mount, OWN_DIRECTORY, RUN_DIRECTORY, Why};

use super::{Facts, PlanError};

/// A mount and its place in the container.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    /// The mount as the bundle has it.
    pub(super) mount: &'a Mount,
    /// Why it is there.
    pub(super) why: &'a Why,
    /// Where it lies, links of the image followed.
    pub(super) at: PathBuf,
}

impl Place<'_> {
    /// The words that asked for it, else the place that was meant.
    pub(super) fn words(&self) -> String {
        match self.why {
            Why::Asked(words) => words.clone(),
            Why::Default | Why::Granted => self.mount.destination().display().to_string(),
        }
    }

    /// True if a user or a site named it, so that leaving it out is an error.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.why, Why::Asked(_))
    }

    /// The host path that it shows; `None` for a file system in memory.
    pub(super) fn source(&self) -> Option<&Path> {
        bind_source(self.mount)
    }

    fn rank(&self) -> u8 {
        match self.why {
            Why::Default => 0,
            Why::Granted => 1,
            Why::Asked(_) => 2,
        }
    }
}

/// All places, parents before children, one mount at each: what was asked wins over what was granted, and that over a
/// default; among equals the later one, but a default that only a link of the image leads here gives way.
#[derive(Debug)]
pub(super) struct Places<'a> {
    rows: Vec<Place<'a>>,
}

impl<'a> Places<'a> {
    /// Follows the image's links by `facts`. What cannot be mounted where it leads is an error if it was asked for, and
    /// a note otherwise; so is a mount that gives way.
    pub(super) fn resolve(
        bundle: &'a Bundle,
        facts: &Facts,
        notes: &mut Vec<String>,
    ) -> Result<Self, PlanError> {
        static DEFAULT: Why = Why::Default;
        let mut places = Self { rows: Vec::new() };
        for mount in mounts(bundle) {
            let why = bundle.why.get(mount.destination()).unwrap_or(&DEFAULT);
            let at = places.place_of(mount.destination(), facts)?;
            let place = Place { mount, why, at };
            if leads_away(&place.at) && !is_run_directory(mount) {
                let error = PlanError::LeadsAway { asked: place.words(), place: place.at.clone() };
                if place.is_asked() {
                    return Err(error);
                }
                notes.push(format!("left out: {error}"));
                continue;
            }
            places.add(place, notes);
        }
        places.rows.sort_by_key(|place| place.at.components().count());
        Ok(places)
    }

    fn add(&mut self, new: Place<'a>, notes: &mut Vec<String>) {
        if let Some(old) = self.rows.iter_mut().find(|old| is_below(&new.at, &old.at) && old.at == new.at) {
            let is_direct = new.mount.destination() == &new.at;
            let new_wins =
                new.rank() > old.rank() || (new.rank() == old.rank() && (is_direct || new.is_asked()));
            let loser = if new_wins { std::mem::replace(old, new) } else { new };
            if loser.mount.destination() != old.mount.destination() {
                notes.push(format!(
                    "`{}` is not mounted: in this image it is `{}`, where `{}` is",
                    loser.mount.destination().display(),
                    old.at.display(),
                    old.words()
                ));
            }
            return;
        }
        self.rows.push(new);
    }

    /// Where a path that a bundle names lies: below the nearest mount that the bundle names above it, else where the
    /// image's links lead.
    pub(super) fn place_of(&self, path: &Path, facts: &Facts) -> Result<PathBuf, PlanError> {
        let inside = inside(path)?;
        // Without `..`, which leads out of a mount.
        let path = &inside.to_absolute();
        let above = self
            .rows
            .iter()
            .filter(|place| is_below(path, place.mount.destination()) && path != place.mount.destination())
            .max_by_key(|place| place.mount.destination().components().count());
        if let Some(above) = above {
            let rest = path.strip_prefix(above.mount.destination()).unwrap_or(path);
            return Ok(above.at.join(rest));
        }
        Ok(facts.image.get(&inside).map_or(inside, |fact| fact.lands_at.clone()).to_absolute())
    }

    /// The nearest mount above a place.
    pub(super) fn above(&self, at: &Path) -> Option<&Place<'a>> {
        self.rows
            .iter()
            .filter(|place| is_below(at, &place.at) && at != place.at)
            .max_by_key(|place| place.at.components().count())
    }

    /// The mount at a place itself.
    pub(super) fn at(&self, at: &Path) -> Option<&Place<'a>> {
        self.rows.iter().find(|place| is_below(at, &place.at) && place.at == at)
    }

    /// All of them, in the order of mounting.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Place<'a>> {
        self.rows.iter()
    }

    /// The host path that a place is by the bind above it.
    pub(super) fn host_path(&self, at: &Path) -> Option<PathBuf> {
        let above = self.above(at)?;
        // A procfs of the container's own shows the same drivers as the host's.
        let is_proc = above.mount.typ().as_deref() == Some("proc");
        let source = above.source().or(is_proc.then_some(Path::new("/proc")));
        Some(source?.join(at.strip_prefix(&above.at).ok()?))
    }
}

/// Whether nothing can be mounted at a place where an image's links lead: the root itself, or Slipway's own places.
pub(super) fn leads_away(at: &Path) -> bool {
    at == Path::new("/") || is_below(at, Path::new(OWN_DIRECTORY))
}

/// The tmpfs of ours that is the run directory.
fn is_run_directory(mount: &Mount) -> bool {
    mount.destination() == Path::new(RUN_DIRECTORY) && bind_source(mount).is_none()
}

/// The mounts of the bundle's spec.
pub(super) fn mounts(bundle: &Bundle) -> &[Mount] {
    bundle.spec.mounts().as_deref().unwrap_or_default()
}

/// The host path that a mount shows; `None` for a file system in memory.
pub(super) fn bind_source(mount: &Mount) -> Option<&Path> {
    if mount.typ().as_deref() == Some("bind") { mount.source().as_deref() } else { None }
}

/// A path of the container as one of the image.
pub(super) fn inside(path: &Path) -> Result<RelPath, PlanError> {
    use std::os::unix::ffi::OsStrExt as _;
    RelPath::parse(path.as_os_str().as_bytes())
        .map_err(|source| PlanError::BadPath { path: path.to_path_buf(), source })
}
