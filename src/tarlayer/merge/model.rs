//! The naive model: layers applied oldest first to a map of full paths.
//!
//! It shares no code with the merge. It is slow and says everything with strings. The fuzz targets use it too.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An entry of a layer in few words.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) mode: u32,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    File(String),
    Directory,
    Symlink(String),
    Hard(String),
    Whiteout,
    Opaque,
}

/// The state: full path (`a/b`) to inode. The root is the path ``.
#[derive(Debug, Clone, Default)]
struct Model {
    names: BTreeMap<String, usize>,
    inodes: Vec<(Kind, u32)>,
}

/// An entry that cannot be applied: its layer (oldest is 0) and index.
type Failure = (usize, usize);

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// For every path that a layer lists, whether its last entry is a directory.
type Listed = HashMap<String, bool>;

impl Model {
    fn is_directory(&self, path: &str) -> bool {
        matches!(self.inodes[self.names[path]].0, Kind::Directory)
    }

    fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.names.retain(|name, _| name != path && !name.starts_with(&below));
    }

    fn put(&mut self, path: &str, inode: usize) {
        self.remove(path);
        self.names.insert(path.to_owned(), inode);
    }

    fn create(&mut self, path: &str, kind: Kind, mode: u32) {
        self.inodes.push((kind, mode));
        self.put(path, self.inodes.len() - 1);
    }

    /// The real path of the directory `written`; `Ok(None)` if it is missing and not to be made.
    fn real(&mut self, written: &str, listed: &Listed, make: bool) -> Result<Option<String>, ()> {
        // Each step with the path as written, where it is one.
        let mut todo: Vec<(String, Option<String>)> = Vec::new();
        let mut prefix = String::new();
        for name in written.split('/').filter(|name| !name.is_empty()) {
            prefix = join(&prefix, name);
            todo.push((name.to_owned(), Some(prefix.clone())));
        }
        let mut here = String::new();
        let mut hops = 0;
        while !todo.is_empty() {
            let (name, as_written) = todo.remove(0);
            if name == ".." {
                here = parent_of(&here).to_owned();
                continue;
            }
            let next = join(&here, &name);
            let is_listed = as_written.as_ref().and_then(|path| listed.get(path)).copied();
            let found = self.names.get(&next).map(|&inode| self.inodes[inode].0.clone());
            match found {
                Some(Kind::Directory) => {}
                Some(Kind::Symlink(target)) if is_listed != Some(true) => {
                    hops += 1;
                    if hops > 40 {
                        return Err(());
                    }
                    if target.starts_with('/') {
                        here = String::new();
                    }
                    let steps = target.split('/').filter(|step| !step.is_empty() && *step != ".");
                    todo.splice(0..0, steps.map(|step| (step.to_owned(), None)));
                    continue;
                }
                _ if !make => return Ok(None),
                Some(Kind::Symlink(_)) | None => self.create(&next, Kind::Directory, 0o755),
                Some(_) if as_written.is_some() && is_listed != Some(false) => {
                    self.create(&next, Kind::Directory, 0o755);
                }
                Some(_) => return Err(()),
            }
            here = next;
        }
        Ok(Some(here))
    }

    fn apply_layer(&mut self, items: &[Item]) -> Result<(), usize> {
        let mut listed = Listed::new();
        for item in items {
            if !matches!(item.kind, Kind::Whiteout | Kind::Opaque) {
                listed.insert(item.path.clone(), matches!(item.kind, Kind::Directory));
            }
        }
        let mut hidden = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            match item.kind {
                Kind::Whiteout => {
                    let name = item.path.rsplit('/').next().unwrap();
                    if let Some(real) =
                        self.real(parent_of(&item.path), &listed, false).map_err(|()| index)?
                    {
                        hidden.insert(join(&real, name));
                    }
                }
                Kind::Opaque => {
                    if let Some(real) = self.real(&item.path, &listed, false).map_err(|()| index)? {
                        hidden.extend(
                            self.names
                                .keys()
                                .filter(|name| !name.is_empty() && parent_of(name) == real)
                                .cloned(),
                        );
                    }
                }
                _ => {}
            }
        }
        let mut below = self.clone();
        for path in hidden {
            self.remove(&path);
        }
        let mut late: Vec<usize> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if !self.apply(item, &listed).map_err(|()| index)? {
                late.push(index);
            }
        }
        late.retain(|&index| {
            !items[index + 1..].iter().any(|later| {
                later.path == items[index].path && !matches!(later.kind, Kind::Whiteout | Kind::Opaque)
            })
        });
        self.apply_late(items, &mut late, &listed)?;
        // Last, what the layer itself hides or replaces.
        for index in std::mem::take(&mut late) {
            let Kind::Hard(target) = &items[index].kind else { unreachable!() };
            let real = below.real(parent_of(target), &listed, false).unwrap_or(None);
            let real = real.map(|real| join(&real, target.rsplit('/').next().unwrap()));
            match real.and_then(|real| below.names.get(&real).copied()) {
                None => late.push(index),
                Some(inode) if matches!(self.inodes[inode].0, Kind::Directory) => return Err(index),
                Some(inode) => {
                    let path = &items[index].path;
                    let directory = self.real(parent_of(path), &listed, true).map_err(|()| index)?.unwrap();
                    self.put(&join(&directory, path.rsplit('/').next().unwrap()), inode);
                }
            }
        }
        self.apply_late(items, &mut late, &listed)?;
        late.first().map_or(Ok(()), |&index| Err(index))
    }

    /// Applies links whose target came after them, as long as there are any.
    fn apply_late(&mut self, items: &[Item], late: &mut Vec<usize>, listed: &Listed) -> Result<(), usize> {
        loop {
            let before = late.len();
            for index in std::mem::take(late).into_iter().rev() {
                if !self.apply(&items[index], listed).map_err(|()| index)? {
                    late.insert(0, index);
                }
            }
            if late.len() == before {
                return Ok(());
            }
        }
    }

    /// Applies an entry; false if the target of a hard link is missing.
    fn apply(&mut self, item: &Item, listed: &Listed) -> Result<bool, ()> {
        let name = item.path.rsplit('/').next().unwrap();
        match &item.kind {
            Kind::Whiteout | Kind::Opaque => {}
            Kind::Hard(target) => {
                let target_name = target.rsplit('/').next().unwrap();
                let Some(real) = self.real(parent_of(target), listed, false)? else { return Ok(false) };
                let real = join(&real, target_name);
                let Some(&inode) = self.names.get(&real) else { return Ok(false) };
                if self.is_directory(&real) {
                    return Err(());
                }
                let directory = self.real(parent_of(&item.path), listed, true)?.unwrap();
                self.put(&join(&directory, name), inode);
            }
            Kind::Directory => {
                let directory = self.real(parent_of(&item.path), listed, true)?.unwrap();
                let path = join(&directory, name);
                if self.names.contains_key(&path) && self.is_directory(&path) {
                    let inode = self.names[&path];
                    self.inodes[inode].1 = item.mode;
                } else {
                    self.create(&path, Kind::Directory, item.mode);
                }
            }
            kind => {
                let directory = self.real(parent_of(&item.path), listed, true)?.unwrap();
                self.create(&join(&directory, name), kind.clone(), item.mode);
            }
        }
        Ok(true)
    }

    /// One line for each path, as `tests::dump` makes it.
    fn dump(&self) -> Vec<String> {
        let mut first_names: HashMap<usize, &str> = HashMap::new();
        let mut lines = Vec::new();
        // Sorted as a walk sorts: by components.
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_by_key(|(path, _)| path.split('/').map(str::to_owned).collect::<Vec<_>>());
        for (path, &inode) in names {
            if path.is_empty() {
                continue;
            }
            let (kind, mode) = &self.inodes[inode];
            let what = match kind {
                Kind::Directory => format!("dir {mode:o}"),
                Kind::File(content) => format!("file {mode:o} {content}"),
                Kind::Symlink(target) => format!("link {target}"),
                other => panic!("{other:?} is no inode"),
            };
            let same = first_names.get(&inode).map(|first| format!(" = {first}")).unwrap_or_default();
            first_names.entry(inode).or_insert(path);
            lines.push(format!("{path}: {what}{same}"));
        }
        lines
    }
}

pub(super) fn apply_all(stack: &[Vec<Item>]) -> Result<Vec<String>, Failure> {
    let mut model = Model::default();
    model.inodes.push((Kind::Directory, 0o755));
    model.names.insert(String::new(), 0);
    for (layer, items) in stack.iter().enumerate() {
        model.apply_layer(items).map_err(|index| (layer, index))?;
    }
    Ok(model.dump())
}
