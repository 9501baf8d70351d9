//! From a bundle and facts to the list of steps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::RelPath;
use crate::base::sizes::parse_size;
use crate::bundle::{Bundle, Mount, RUN_DIRECTORY, Why};
use crate::grants::LIBRARY_DIRECTORY;

use super::{Facts, HostPath, ImagePath, ImageSource, LaunchPlan, MountPoint, Op, PathKind, PlanError};

/// The paths that must be looked up before a plan can be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needed {
    /// Paths of the host.
    pub host: BTreeSet<PathBuf>,
    /// Paths of the image.
    pub image: BTreeSet<RelPath>,
}

/// Lists the paths whose facts [`make`] will ask for.
pub fn needed(bundle: &Bundle) -> Result<Needed, PlanError> {
    let mut needed = Needed::default();
    let mounts = mounts(bundle);
    for mount in mounts {
        needed.image.insert(inside(mount.destination())?);
        if let Some(source) = bind_source(mount) {
            needed.host.insert(source.to_path_buf());
        }
        if let Some((_, below)) = host_parent(mounts, mount.destination()) {
            needed.host.insert(below);
        }
    }
    for library in &bundle.libraries {
        needed.host.insert(library.source.clone());
    }
    for file in &bundle.files {
        needed.image.insert(inside(&file.target)?);
    }
    Ok(needed)
}

/// Makes the plan. Fails where the facts say that a step would.
pub fn make(bundle: &Bundle, image: &ImageSource, facts: &Facts) -> Result<LaunchPlan, PlanError> {
    let mut maker = Maker {
        bundle,
        facts,
        ops: Vec::new(),
        mount_points: BTreeMap::new(),
        tmpfs: BTreeSet::new(),
        made: BTreeSet::new(),
        notes: bundle.notes.clone(),
    };
    for place in [crate::bundle::HOST_DIRECTORY, RUN_DIRECTORY] {
        maker.mount_points.insert(inside(Path::new(place))?, PathKind::Directory);
    }
    for mount in mounts(bundle) {
        maker.mount(mount)?;
    }
    maker.libraries();
    maker.files()?;
    maker.links();
    Ok(maker.finish(image))
}

struct Maker<'a> {
    bundle: &'a Bundle,
    facts: &'a Facts,
    ops: Vec<Op>,
    mount_points: BTreeMap<RelPath, PathKind>,
    /// Places of our tmpfs mounts.
    tmpfs: BTreeSet<PathBuf>,
    /// Directories already made in them.
    made: BTreeSet<PathBuf>,
    notes: Vec<String>,
}

impl Maker<'_> {
    fn mount(&mut self, mount: &Mount) -> Result<(), PlanError> {
        let target = mount.destination();
        let why = self.bundle.why.get(target).unwrap_or(&Why::Default);
        let asked = match why {
            Why::Asked(words) => Some(words.clone()),
            Why::Default | Why::Granted => None,
        };
        let words = asked.clone().unwrap_or_else(|| target.display().to_string());
        let Some(source) = bind_source(mount) else {
            let (mode, size_bytes) = tmpfs_options(mount);
            let target = self.place(target, PathKind::Directory, &words)?;
            self.tmpfs.insert(target.clone());
            self.ops.push(Op::Tmpfs { target, mode, size_bytes });
            return Ok(());
        };
        let Some(HostPath { canonical, kind }) = self.facts.host.get(source) else {
            if asked.is_none() {
                self.notes.push(format!("`{}` is not bound: this host does not have it", source.display()));
                return Ok(());
            }
            return Err(PlanError::SourceMissing { asked: words, source_path: source.to_path_buf() });
        };
        let target = match self.place(target, *kind, &words) {
            Err(error) if asked.is_none() => {
                self.notes.push(format!("left out: {error}"));
                return Ok(());
            }
            other => other?,
        };
        let options = mount.options().as_deref().unwrap_or_default();
        self.ops.push(Op::Bind {
            source: canonical.clone(),
            target,
            kind: *kind,
            read_only: options.iter().any(|option| option == "ro"),
            from_run: false,
            optional: matches!(why, Why::Default),
            asked,
        });
        Ok(())
    }

    /// Sees to it that `target` exists when its mount comes, and says where it really lies.
    fn place(&mut self, target: &Path, kind: PathKind, words: &str) -> Result<PathBuf, PlanError> {
        if self.tmpfs.iter().any(|tmpfs| target.starts_with(tmpfs) && target != tmpfs) {
            self.make_parents(target);
            self.ops.push(match kind {
                PathKind::Directory => {
                    self.made.insert(target.to_path_buf());
                    Op::MakeDirectory { target: target.to_path_buf() }
                }
                PathKind::File => {
                    Op::MakeFile { target: target.to_path_buf(), mode: 0o644, content: Vec::new() }
                }
            });
            return Ok(target.to_path_buf());
        }
        let mismatch = |target_kind: PathKind| PlanError::MountPointType {
            asked: words.to_owned(),
            target: target.to_path_buf(),
            source_kind: kind.word(),
            target_kind: target_kind.word(),
        };
        if let Some((parent, below)) = host_parent(mounts(self.bundle), target) {
            return match self.facts.host.get(&below) {
                Some(HostPath { kind: found, .. }) if *found == kind => Ok(target.to_path_buf()),
                Some(HostPath { kind: found, .. }) => Err(mismatch(*found)),
                None => Err(PlanError::MountPointMissing {
                    asked: words.to_owned(),
                    target: target.to_path_buf(),
                    inside: parent,
                }),
            };
        }
        let path = inside(target)?;
        let fact = self.facts.image.get(&path);
        let missing = ImagePath { lands_at: path, kind: None };
        let ImagePath { lands_at, kind: found } = fact.unwrap_or(&missing);
        match found {
            Some(found) if *found == kind => {}
            Some(found) => return Err(mismatch(*found)),
            None => drop(self.mount_points.insert(lands_at.clone(), kind)),
        }
        Ok(lands_at.to_absolute())
    }

    /// The directories between a tmpfs and `target`.
    fn make_parents(&mut self, target: &Path) {
        let mut missing = Vec::new();
        let mut at = target.parent();
        while let Some(directory) = at {
            if self.tmpfs.contains(directory) || !self.made.insert(directory.to_path_buf()) {
                break;
            }
            missing.push(directory.to_path_buf());
            at = directory.parent();
        }
        self.ops.extend(missing.into_iter().rev().map(|target| Op::MakeDirectory { target }));
    }

    /// Each driver library as a bind of its own in the private directory: the loader finds it by the cache alone, and
    /// nothing else of the host's library directory comes with it.
    fn libraries(&mut self) {
        let directory = Path::new(LIBRARY_DIRECTORY);
        for library in &self.bundle.libraries {
            let Some(HostPath { canonical, kind: PathKind::File }) = self.facts.host.get(&library.source)
            else {
                self.notes.push(format!("library `{}` is gone from the host", library.source.display()));
                continue;
            };
            let target = directory.join(&library.name);
            self.make_parents(&target);
            self.ops.push(Op::MakeFile { target: target.clone(), mode: 0o644, content: Vec::new() });
            self.ops.push(Op::Bind {
                source: canonical.clone(),
                target,
                kind: PathKind::File,
                read_only: true,
                from_run: false,
                optional: false,
                asked: None,
            });
            for link in library.links.iter().filter(|link| **link != library.name) {
                let (target, to) = (directory.join(link), PathBuf::from(&library.name));
                self.ops.push(Op::MakeLink { target, to });
            }
        }
    }

    /// Files of ours: written to the run directory, then bound over the image's.
    fn files(&mut self) -> Result<(), PlanError> {
        for file in &self.bundle.files {
            let name: String = file.target.to_string_lossy().trim_start_matches('/').replace('/', "-");
            let made = Path::new(RUN_DIRECTORY).join("files").join(name);
            let target = match self.place(&file.target, PathKind::File, &file.target.display().to_string()) {
                Ok(target) => target,
                Err(error @ PlanError::BadPath { .. }) => return Err(error),
                Err(error) => {
                    self.notes.push(format!("left out: {error}"));
                    continue;
                }
            };
            self.make_parents(&made);
            self.ops.push(Op::MakeFile {
                target: made.clone(),
                mode: file.mode,
                content: file.content.clone(),
            });
            self.ops.push(Op::Bind {
                source: made,
                target,
                kind: PathKind::File,
                read_only: false,
                from_run: true,
                optional: false,
                asked: None,
            });
        }
        Ok(())
    }

    fn links(&mut self) {
        for (place, to) in &self.bundle.links {
            self.make_parents(place);
            self.ops.push(Op::MakeLink { target: place.clone(), to: to.clone() });
        }
    }

    fn finish(self, image: &ImageSource) -> LaunchPlan {
        let (uid, gid, cwd) = match self.bundle.spec.process() {
            Some(process) => (process.user().uid(), process.user().gid(), process.cwd().clone()),
            None => (0, 0, "/".into()),
        };
        let mount_points =
            self.mount_points.into_iter().map(|(path, kind)| MountPoint { path, kind }).collect();
        let mut ops = vec![
            Op::NewNamespaces { uid, gid },
            Op::SlavePropagation,
            Op::MountImage { image: image.clone(), mount_points },
            Op::PivotRoot,
        ];
        ops.extend(self.ops);
        ops.extend([
            Op::DetachHost,
            Op::NoNewPrivileges,
            Op::ChangeDirectory { path: cwd, asked: self.bundle.cwd_is_asked },
            Op::Exec { argv: self.bundle.argv.clone(), env: self.bundle.env.clone() },
        ]);
        LaunchPlan { ops, notes: self.notes }
    }
}

fn mounts(bundle: &Bundle) -> &[Mount] {
    bundle.spec.mounts().as_deref().unwrap_or_default()
}

fn bind_source(mount: &Mount) -> Option<&Path> {
    if mount.typ().as_deref() == Some("tmpfs") { None } else { mount.source().as_deref() }
}

/// The nearest bind above `target`, and the host path that `target` is by it. `None` below a tmpfs or the image.
fn host_parent(mounts: &[Mount], target: &Path) -> Option<(PathBuf, PathBuf)> {
    let above = mounts
        .iter()
        .filter(|mount| target != mount.destination() && target.starts_with(mount.destination()))
        .max_by_key(|mount| mount.destination().components().count())?;
    let rest = target.strip_prefix(above.destination()).ok()?;
    bind_source(above).map(|source| (above.destination().clone(), source.join(rest)))
}

fn inside(path: &Path) -> Result<RelPath, PlanError> {
    use std::os::unix::ffi::OsStrExt as _;
    RelPath::parse(path.as_os_str().as_bytes())
        .map_err(|source| PlanError::BadPath { path: path.to_path_buf(), source })
}

fn tmpfs_options(mount: &Mount) -> (u32, Option<u64>) {
    let options = mount.options().as_deref().unwrap_or_default();
    let value = |name: &str| options.iter().find_map(|option| option.strip_prefix(name));
    let mode = value("mode=").and_then(|text| u32::from_str_radix(text, 8).ok()).unwrap_or(0o1777);
    (mode, value("size=").and_then(parse_size))
}
