//! The containers of one user on this node: making, finding, listing, removing.
//!
//! ```text
//! ROOT/                    $XDG_RUNTIME_DIR/slipway or /tmp/slipway-UID: mode 0700, the owner is checked
//!   containers/ID/         one container (see the record module)
//!   containers/.new-PID-…  a container that the process PID is making
//!   names/NAME -> ID       who has a name; a link whose container is gone holds nothing
//! ```
//!
//! Nothing waits for a lock. A directory appears complete, by rename; a name is taken by symlink(2), which one process alone
//! can win; what a killed process leaves is put right by the next command that looks (`settle`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::{is_own_directory, own_directory};
use crate::launch::stop_for_test;
use crate::sys::pidfd::ProcessId;
use crate::sys::tree::remove_tree;

use super::container::Container;
use super::error::RuntimeError;
use super::names;
use super::record::{Draft, join_with_nul};

/// Made-up names are tried so often; the last gets the id behind it.
const NAME_TRIES: u32 = 4;

/// A fresh id, for a container that needs one before it is made, or for a volume.
pub fn new_id() -> Result<String, RuntimeError> {
    Ok(names::from_random(&random_bytes()?).0)
}

/// Where a user's containers are kept.
#[derive(Debug, Clone)]
pub struct Shelf {
    /// Where new containers go; made when the first comes.
    first: PathBuf,
    /// Those that exist and are the caller's alone: nothing in another's directory is believed.
    roots: Vec<PathBuf>,
}

impl Shelf {
    /// The shelf below these directories, the best first (see [`crate::host::private_directories`]). Nothing is made
    /// yet.
    #[must_use]
    pub fn new(mut roots: Vec<PathBuf>) -> Self {
        let first = roots.first().cloned().unwrap_or_default();
        roots.retain(|root| is_own_directory(root));
        Self { first, roots }
    }

    /// Makes a container's directory. Nothing runs yet; the calling process takes care of it.
    pub fn create(&mut self, draft: Draft) -> Result<Container, RuntimeError> {
        let wanted = draft.name.as_deref().map(|name| {
            names::parse_name(name).ok_or_else(|| RuntimeError::BadName { name: name.to_owned() })
        });
        let wanted = wanted.transpose()?.map(str::to_owned);
        let root = self.make_root()?;
        let random = random_bytes()?;
        let (drawn, made_up) = names::from_random(&random);
        let id = draft.id.unwrap_or(drawn);
        let mut record = draft.record;
        record.id = id;
        record.name = wanted.clone().unwrap_or(made_up);
        record.boot_id = boot_id();
        record.monitor = ProcessId::own();

        let containers = root.join("containers");
        let own = record.monitor.map_or(0, |own| own.pid);
        let unfinished = containers.join(format!(".new-{own}-{}", record.short_id()));
        let failed = |source| RuntimeError::State { act: "make", path: unfinished.clone(), source };
        fs::create_dir(&unfinished).map_err(failed)?;
        for (file, bytes) in [
            ("exit", Vec::new()),
            ("env", join_with_nul(&draft.env)),
            ("filter", draft.filter),
            ("words", join_with_nul(&draft.words)),
            ("caller-env", join_with_nul(&draft.caller_env)),
        ] {
            fs::write(unfinished.join(file), bytes).map_err(failed)?;
        }
        super::container::write_record(&unfinished, &record)?;
        // Before the name, so that it is never seen without somebody who takes care of it.
        let lock = super::container::lock(&unfinished)?;
        let directory = containers.join(&record.id);
        stop_for_test("made");
        fs::rename(&unfinished, &directory).map_err(failed)?;
        let mut container = Container { directory, root, record, lock };
        stop_for_test("nameless");
        let mut tries = if wanted.is_some() { 0 } else { NAME_TRIES };
        let named = loop {
            let taken = self.take_name(&container, &container.record.name);
            if tries == 0 || !matches!(taken, Err(RuntimeError::NameInUse { .. })) {
                break taken;
            }
            tries -= 1;
            let (_, other) = names::from_random(&random_bytes()?);
            // The last one is unique as the id is.
            container.record.name = match tries {
                0 => format!("{other}_{}", container.record.short_id()),
                _ => other,
            };
            container.write()?;
        };
        if let Err(error) = named {
            // What could not get its name is nobody's; the next command that looks removes what this cannot.
            let _ = remove_tree(&container.directory);
            return Err(error);
        }
        Ok(container)
    }

    /// Gives `name` to a container, if no other has it, in any root.
    pub(super) fn take_name(&self, container: &Container, name: &str) -> Result<(), RuntimeError> {
        if let Some(other) = self.id_of_name(name).filter(|other| *other != container.record.id) {
            // A container that ended for good may still hold it.
            if self.load(&other)?.is_some() {
                let id = other.get(..names::SHORT_LENGTH).unwrap_or(&other).to_owned();
                return Err(RuntimeError::NameInUse { name: name.to_owned(), id });
            }
        }
        let link = container.root.join("names").join(name);
        let failed = |source| RuntimeError::State { act: "make", path: link.clone(), source };
        match std::os::unix::fs::symlink(&container.record.id, &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(failed),
        }
        let holder = fs::read_link(&link).unwrap_or_default().to_string_lossy().into_owned();
        if holder != container.record.id && self.load(&holder)?.is_some() {
            let id = holder.get(..names::SHORT_LENGTH).unwrap_or(&holder).to_owned();
            return Err(RuntimeError::NameInUse { name: name.to_owned(), id });
        }
        // The link is stale. Of two that find it so, the later rename wins, and the other sees that below.
        let fresh = container.root.join("names").join(format!(".{}", container.record.id));
        std::os::unix::fs::symlink(&container.record.id, &fresh).map_err(failed)?;
        fs::rename(&fresh, &link).map_err(failed)
    }

    /// The container that a word names: whole id, then name, then the beginning of one id.
    pub fn find(&self, word: &str) -> Result<Container, RuntimeError> {
        let missing = || RuntimeError::NoSuchContainer { word: word.to_owned() };
        if word.len() == names::ID_LENGTH && names::may_be_id(word) {
            return self.load(word)?.ok_or_else(missing);
        }
        let by_name = names::parse_name(word).and_then(|name| self.id_of_name(name));
        if let Some(container) = by_name.map(|id| self.load(&id)).transpose()?.flatten() {
            return Ok(container);
        }
        if !names::may_be_id(word) {
            return Err(missing());
        }
        let mut fitting = self.ids()?.into_iter().filter(|id| id.starts_with(word));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => self.load(&id)?.ok_or_else(missing),
            (Some(_), Some(_)) => Err(RuntimeError::Ambiguous { word: word.to_owned() }),
            (None, _) => Err(missing()),
        }
    }

    /// Every container, the newest first.
    pub fn list(&self) -> Result<Vec<Container>, RuntimeError> {
        let mut found = Vec::new();
        for id in self.ids()? {
            found.extend(self.load(&id)?);
        }
        found.sort_by(|a, b| (b.record.created, &b.record.id).cmp(&(a.record.created, &a.record.id)));
        Ok(found)
    }

    /// Reads a container and puts right what a killed process has left of it. `None` if that leaves nothing.
    fn load(&self, id: &str) -> Result<Option<Container>, RuntimeError> {
        if !names::may_be_id(id) {
            return Ok(None);
        }
        for root in &self.roots {
            let directory = root.join("containers").join(id);
            let Some(record) = super::container::read_record(&directory)? else { continue };
            let container = Container { directory, root: root.clone(), record, lock: None };
            return container.settle(boot_id().as_deref());
        }
        Ok(None)
    }

    fn id_of_name(&self, name: &str) -> Option<String> {
        self.roots.iter().find_map(|root| {
            let target = fs::read_link(root.join("names").join(name)).ok()?;
            target.to_str().map(str::to_owned)
        })
    }

    /// Every id there is. What a killed process was making is removed on the way.
    fn ids(&self) -> Result<Vec<String>, RuntimeError> {
        let mut ids = Vec::new();
        for root in &self.roots {
            let containers = root.join("containers");
            let entries = match fs::read_dir(&containers) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(RuntimeError::State { act: "read", path: containers, source }),
            };
            for entry in entries.flatten() {
                let Ok(name) = entry.file_name().into_string() else { continue };
                match name.strip_prefix(".new-") {
                    Some(rest) => remove_unfinished(&entry.path(), rest),
                    None if name.len() == names::ID_LENGTH && names::may_be_id(&name) => ids.push(name),
                    None => {}
                }
            }
        }
        Ok(ids)
    }

    fn make_root(&mut self) -> Result<PathBuf, RuntimeError> {
        let root = self.first.clone();
        own_directory(&root)?;
        own_directory(&root.join("containers"))?;
        own_directory(&root.join("names"))?;
        if !self.roots.contains(&root) {
            self.roots.insert(0, root.clone());
        }
        Ok(root)
    }
}

/// A directory that was being made: if the maker is gone, so is the reason for it.
fn remove_unfinished(path: &Path, rest: &str) {
    let maker = rest.split('-').next().and_then(|pid| pid.parse().ok());
    if maker.and_then(ProcessId::of).is_none() {
        // Another command may be removing it too.
        let _ = remove_tree(path);
    }
}

/// The kernel's name for this boot; `None` where procfs hides it.
pub(super) fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned())
}

fn random_bytes() -> Result<[u8; 34], RuntimeError> {
    use std::io::Read as _;
    let mut bytes = [0; 34];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(RuntimeError::state("read", "/dev/urandom"))?;
    Ok(bytes)
}
