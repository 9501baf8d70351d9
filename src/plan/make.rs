//! From a bundle and facts to the list of steps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::RelPath;
use crate::base::sizes::parse_size;
use crate::bundle::{
    Bundle, CapabilityChoice, CapabilitySet, HOST_DIRECTORY, IdMapping, Mount, NamespaceType, RUN_DIRECTORY,
    Seccomp, Why, WritableRoot,
};
use crate::grants::LIBRARY_DIRECTORY;

use super::control;
use super::places::{Place, Places, bind_source, inside, leads_away, mounts};
use super::seccomp::Filter;
use super::{
    Facts, HostPath, ImagePath, ImageSource, LaunchPlan, MountPoint, Op, PathKind, PlanError, Upper,
};

/// The paths that must be looked up before a plan can be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needed {
    /// Paths of the host.
    pub host: BTreeSet<PathBuf>,
    /// Paths of the image.
    pub image: BTreeSet<RelPath>,
}

/// Lists the paths whose facts [`make`] will ask for; [`needed_below`] lists the rest.
pub fn needed(bundle: &Bundle) -> Result<Needed, PlanError> {
    let mut needed = Needed::default();
    for place in [HOST_DIRECTORY, RUN_DIRECTORY].map(Path::new) {
        needed.image.insert(inside(place)?);
    }
    for mount in mounts(bundle) {
        needed.image.insert(inside(mount.destination())?);
        needed.host.extend(bind_source(mount).map(Path::to_path_buf));
    }
    needed.host.extend(bundle.libraries.iter().map(|library| library.source.clone()));
    for file in &bundle.files {
        needed.image.insert(inside(&file.target)?);
    }
    if let Some(cwd) = made_cwd(bundle) {
        needed.image.insert(inside(cwd)?);
    }
    Ok(needed)
}

/// Lists the host paths that mount points inside of binds are: which they are is known only when the image's links are.
pub fn needed_below(bundle: &Bundle, facts: &Facts) -> Result<BTreeSet<PathBuf>, PlanError> {
    let places = Places::resolve(bundle, facts, &mut Vec::new())?;
    let files = bundle.files.iter().map(|file| places.place_of(&file.target, facts));
    let all = places.iter().map(|place| Ok(place.at.clone())).chain(files);
    all.filter_map(|at| at.map(|at| places.host_path(&at)).transpose()).collect()
}

/// Makes the plan. Fails where the facts say that a step would.
pub fn make(bundle: &Bundle, image: &ImageSource, facts: &Facts) -> Result<LaunchPlan, PlanError> {
    let mut notes = bundle.notes.clone();
    let places = Places::resolve(bundle, facts, &mut notes)?;
    let mut maker = Maker {
        bundle,
        facts,
        places: &places,
        ops: Vec::new(),
        mount_points: BTreeMap::new(),
        made: BTreeSet::new(),
        notes,
    };
    for place in [HOST_DIRECTORY, RUN_DIRECTORY].map(Path::new) {
        maker.own_place(place)?;
    }
    for place in places.iter() {
        maker.mount(place)?;
    }
    maker.libraries();
    maker.files()?;
    maker.links()?;
    maker.cwd()?;
    maker.finish(image)
}

struct Maker<'a> {
    bundle: &'a Bundle,
    facts: &'a Facts,
    places: &'a Places<'a>,
    ops: Vec<Op>,
    mount_points: BTreeMap<RelPath, PathKind>,
    /// Directories already made in our tmpfs mounts.
    made: BTreeSet<PathBuf>,
    notes: Vec<String>,
}

impl Maker<'_> {
    /// Our own directories must be where we say, or the image could lead the launch astray.
    fn own_place(&mut self, place: &Path) -> Result<(), PlanError> {
        let path = inside(place)?;
        if let Some(fact) = self.facts.image.get(&path)
            && (fact.lands_at != path
                || fact.blocked_by.is_some()
                || fact.kind.is_some_and(|kind| kind != PathKind::Directory))
        {
            return Err(PlanError::Reserved { path: place.to_path_buf() });
        }
        self.mount_points.insert(path, PathKind::Directory);
        Ok(())
    }

    fn mount(&mut self, place: &Place<'_>) -> Result<(), PlanError> {
        let words = place.words();
        let leave_out = |maker: &mut Self, error: PlanError| {
            if place.is_asked() {
                return Err(error);
            }
            maker.notes.push(format!("left out: {error}"));
            Ok(())
        };
        let Some(source) = place.source() else {
            self.prepare(&place.at, PathKind::Directory, &words)?;
            let (mode, size_bytes) = tmpfs_options(place.mount);
            let target = place.at.clone();
            self.ops.push(match place.mount.typ().as_deref() {
                Some("devpts") => Op::Terminals { target },
                Some("mqueue") => Op::MessageQueues { target },
                Some("proc") => Op::ProcessFiles { target },
                _ => Op::Tmpfs { target, mode, size_bytes },
            });
            return Ok(());
        };
        let Some(HostPath { canonical, kind }) = self.facts.host.get(source) else {
            let source_path = source.to_path_buf();
            let error = match self.facts.unreachable.get(source) {
                Some(reason) => {
                    PlanError::SourceUnreachable { asked: words, source_path, reason: reason.clone() }
                }
                None => PlanError::SourceMissing { asked: words, source_path },
            };
            return leave_out(self, error);
        };
        if let Err(error) = self.prepare(&place.at, *kind, &words) {
            return leave_out(self, error);
        }
        let options = place.mount.options().as_deref().unwrap_or_default();
        self.ops.push(Op::Bind {
            source: canonical.clone(),
            target: place.at.clone(),
            kind: *kind,
            read_only: options.iter().any(|option| option == "ro"),
            from_run: false,
            optional: matches!(place.why, Why::Default),
            asked: place.is_asked().then_some(words),
        });
        Ok(())
    }

    /// Sees to it that a mount point is there when its mount comes.
    fn prepare(&mut self, at: &Path, kind: PathKind, words: &str) -> Result<(), PlanError> {
        let mismatch = |target_kind: PathKind| PlanError::MountPointType {
            asked: words.to_owned(),
            target: at.to_path_buf(),
            source_kind: kind.word(),
            target_kind: target_kind.word(),
        };
        if let Some(above) = self.places.above(at) {
            let Some(host_path) = self.places.host_path(at) else {
                self.make_mount_point(at, kind);
                return Ok(());
            };
            return match self.facts.host.get(&host_path) {
                Some(HostPath { kind: found, .. }) if *found == kind => Ok(()),
                Some(HostPath { kind: found, .. }) => Err(mismatch(*found)),
                None => Err(PlanError::MountPointMissing {
                    asked: words.to_owned(),
                    target: at.to_path_buf(),
                    inside: above.at.clone(),
                }),
            };
        }
        let path = inside(at)?;
        // The facts are listed by the path that was asked for; all that lead to one place say the same of it.
        let fact = self.facts.image.values().find(|fact| fact.lands_at == path);
        let missing = ImagePath { lands_at: path.clone(), kind: None, blocked_by: None };
        let ImagePath { kind: found, blocked_by, .. } = fact.unwrap_or(&missing);
        if let Some(file) = blocked_by {
            return Err(PlanError::MountPointBlocked {
                asked: words.to_owned(),
                target: at.to_path_buf(),
                file: file.to_absolute(),
            });
        }
        match found {
            Some(found) if *found == kind => {}
            Some(found) => return Err(mismatch(*found)),
            None => drop(self.mount_points.insert(path, kind)),
        }
        Ok(())
    }

    /// A mount point in a tmpfs of ours.
    fn make_mount_point(&mut self, at: &Path, kind: PathKind) {
        self.make_parents(at);
        match kind {
            PathKind::Directory if !self.made.insert(at.to_path_buf()) => {}
            PathKind::Directory => self.ops.push(Op::MakeDirectory { target: at.to_path_buf() }),
            PathKind::File => {
                self.ops.push(Op::MakeFile { target: at.to_path_buf(), mode: 0o644, content: Vec::new() });
            }
        }
    }

    /// The directories between a tmpfs and `target`.
    fn make_parents(&mut self, target: &Path) {
        let mut missing = Vec::new();
        let mut at = target.parent();
        while let Some(directory) = at {
            if self.places.at(directory).is_some() || !self.made.insert(directory.to_path_buf()) {
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
            self.make_mount_point(&target, PathKind::File);
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
                let up = "../".repeat(link.matches('/').count());
                let (target, to) = (directory.join(link), PathBuf::from(up + &library.name));
                self.make_parents(&target);
                self.ops.push(Op::MakeLink { target, to });
            }
        }
    }

    /// Files of ours: written to the run directory, then bound over the image's. A place where a mount lies stays that
    /// mount's, and what the user mounts stays the user's.
    fn files(&mut self) -> Result<(), PlanError> {
        for file in &self.bundle.files {
            let at = self.places.place_of(&file.target, self.facts)?;
            if leads_away(&at) {
                let asked = file.target.display().to_string();
                self.notes.push(format!("left out: {}", PlanError::LeadsAway { asked, place: at }));
                continue;
            }
            let asked_above = || self.places.above(&at).filter(|place| place.is_asked());
            if let Some(place) = self.places.at(&at).or_else(asked_above) {
                let (file, at, words) = (file.target.display(), at.display(), place.words());
                self.notes.push(if place.is_asked() {
                    format!("`{at}` is the one of `{words}`")
                } else {
                    format!("`{file}` is not made: in this image it is `{at}`, where `{words}` is")
                });
                continue;
            }
            if let Err(error) = self.prepare(&at, PathKind::File, &file.target.display().to_string()) {
                self.notes.push(format!("left out: {error}"));
                continue;
            }
            let name: String = file.target.to_string_lossy().trim_start_matches('/').replace('/', "-");
            let made = Path::new(RUN_DIRECTORY).join("files").join(name);
            self.make_parents(&made);
            self.ops.push(Op::MakeFile {
                target: made.clone(),
                mode: file.mode,
                content: file.content.clone(),
            });
            self.ops.push(Op::Bind {
                source: made,
                target: at,
                kind: PathKind::File,
                read_only: false,
                from_run: true,
                optional: false,
                asked: None,
            });
        }
        Ok(())
    }

    /// Links where the directory is a tmpfs of ours and nothing else has the place.
    fn links(&mut self) -> Result<(), PlanError> {
        for (place, to) in &self.bundle.links {
            let at = self.places.place_of(place, self.facts)?;
            let in_memory = self.places.above(&at).is_some_and(|above| above.source().is_none());
            if in_memory && self.places.at(&at).is_none() {
                self.make_parents(&at);
                self.ops.push(Op::MakeLink { target: at, to: to.clone() });
            }
        }
        Ok(())
    }

    /// A working directory that the image lacks, where it is to be made.
    fn cwd(&mut self) -> Result<(), PlanError> {
        let Some(cwd) = made_cwd(self.bundle) else { return Ok(()) };
        let at = self.places.place_of(cwd, self.facts)?;
        // In a directory of the host it is the host's to make, and the step that enters it says so.
        if at == Path::new("/") || self.places.at(&at).is_some() || self.places.host_path(&at).is_some() {
            return Ok(());
        }
        self.prepare(&at, PathKind::Directory, &format!("working directory {}", cwd.display()))
    }

    fn finish(self, image: &ImageSource) -> Result<LaunchPlan, PlanError> {
        let spec = &self.bundle.spec;
        let linux = spec.linux().as_ref();
        let id_of = |maps: Option<&Vec<IdMapping>>| {
            maps.and_then(|maps| maps.first()).map_or((0, 0), |map| (map.host_id(), map.container_id()))
        };
        let (uid, uid_inside) = id_of(linux.and_then(|linux| linux.uid_mappings().as_ref()));
        let (gid, gid_inside) = id_of(linux.and_then(|linux| linux.gid_mappings().as_ref()));
        let has = |kind: NamespaceType| {
            linux
                .and_then(|linux| linux.namespaces().as_ref())
                .is_some_and(|all| all.iter().any(|namespace| namespace.typ() == kind))
        };
        let (network, host_name, ipc, pid) = (
            has(NamespaceType::Network),
            has(NamespaceType::Uts),
            has(NamespaceType::Ipc),
            has(NamespaceType::Pid),
        );
        let mount_points =
            self.mount_points.into_iter().map(|(path, kind)| MountPoint { path, kind }).collect();
        let upper = self.bundle.writable.as_ref().map(|writable| match writable {
            WritableRoot::Memory { size_bytes } => Upper::Memory { size_bytes: *size_bytes },
            WritableRoot::Directory(path) => Upper::Directory { path: path.clone() },
        });
        let mut ops = vec![
            Op::NewNamespaces { uid, gid, uid_inside, gid_inside, network, host_name, ipc, pid },
            Op::SlavePropagation,
            Op::MountImage { image: image.clone(), mount_points, upper },
        ];
        if let Some(parent) = &self.bundle.control_group {
            ops.push(Op::ControlGroup {
                parent: parent.clone(),
                limits: control::files(&self.bundle.resources),
            });
        }
        ops.push(Op::PivotRoot);
        if network {
            ops.push(Op::LoopbackUp);
        }
        if let Some(name) = spec.hostname().as_ref().filter(|name| host_name && !name.is_empty()) {
            ops.push(Op::HostName { name: name.clone(), domain: self.bundle.domain_name.clone() });
        }
        ops.extend(self.ops);
        ops.push(Op::DetachHost);
        // Only root keeps capabilities over exec: any other id loses them there, but for those that were asked for.
        let CapabilityChoice { keep, added } = self.bundle.capabilities;
        let add = if uid_inside == 0 { CapabilitySet::NONE } else { added };
        if uid_inside == 0 || add != CapabilitySet::NONE {
            ops.push(Op::LimitCapabilities { keep, add });
        }
        ops.extend(self.bundle.umask.map(|mask| Op::Umask { mask }));
        ops.extend(self.bundle.oom_score.map(|score| Op::OomScore { score }));
        ops.extend(self.bundle.limits.iter().map(|limit| Op::Limit {
            name: limit.name.clone(),
            soft: limit.soft,
            hard: limit.hard,
        }));
        if self.bundle.init {
            ops.push(Op::Init);
        }
        let cwd = spec.process().as_ref().map_or_else(|| "/".into(), |process| process.cwd().clone());
        ops.push(Op::NoNewPrivileges);
        ops.extend(calls(self.bundle)?);
        ops.extend([
            Op::ChangeDirectory { path: cwd, asked: self.bundle.cwd_is_asked },
            Op::Exec { argv: self.bundle.argv.clone(), env: self.bundle.env.clone() },
        ]);
        Ok(LaunchPlan { ops, notes: self.notes, warnings: self.bundle.warnings.clone() })
    }
}

/// The working directory, where it is made if the image lacks it.
fn made_cwd(bundle: &Bundle) -> Option<&Path> {
    let process = bundle.spec.process().as_ref().filter(|_| bundle.makes_cwd)?;
    Some(process.cwd())
}

/// The filter of system calls, if there is to be one.
fn calls(bundle: &Bundle) -> Result<Option<Op>, PlanError> {
    let filter = match &bundle.seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Docker => Filter::docker(bundle.capabilities.keep),
        Seccomp::Profile { file, text } => Filter::parse(file, text, bundle.capabilities.keep)?,
    };
    Ok(Some(Op::FilterCalls { filter: filter.compile()? }))
}

fn tmpfs_options(mount: &Mount) -> (u32, Option<u64>) {
    let options = mount.options().as_deref().unwrap_or_default();
    let value = |name: &str| options.iter().find_map(|option| option.strip_prefix(name));
    let mode = value("mode=").and_then(|text| u32::from_str_radix(text, 8).ok()).unwrap_or(0o1777);
    (mode, value("size=").and_then(parse_size))
}
