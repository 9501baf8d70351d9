//! One file on its way to its name: run files of a store, and what a conversion writes for a user. It appears when it is
//! whole and on disk, and a process that is killed leaves nothing.
//!
//! Where the file system can, the file has no name until then. Elsewhere (NFS, Lustre) it has a temporary one, and whoever
//! comes next removes those of the dead.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::sys::{file, nameless};

use super::tmp::{TmpPath, remove_stale_partials};

/// Run files can be started like programs.
const MODE: u32 = 0o755;
/// Temporary names tried before giving up; each is taken only by a dead process of the same number.
const MAX_NAMES: u32 = 1000;

/// Where a new file is to be, and what to do with one that is there by then.
#[derive(Debug, Clone)]
pub struct Target {
    path: PathBuf,
    /// The store's directory for temporary names. `None`: they are made beside the target, and it is replaced.
    tmp: Option<PathBuf>,
}

impl Target {
    /// A file of the user's, which takes the place of another.
    #[must_use]
    pub fn replacing(path: &Path) -> Self {
        Self { path: path.into(), tmp: None }
    }

    /// A file of a store, where whoever comes second leaves the first in its place.
    pub(super) fn in_store(path: PathBuf, tmp: PathBuf) -> Self {
        Self { path, tmp: Some(tmp) }
    }

    /// Where the file is to be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file; it goes its own way and comes back in [`Fresh::publish`].
    pub fn create(&self) -> io::Result<(Fresh, File)> {
        if self.path.file_name().is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        if self.tmp.is_none() {
            remove_stale_partials(directory);
        }
        let (file, tmp) = match nameless::create(directory, MODE) {
            Ok(file) => (file, None),
            Err(_) => self.create_named().map(|(file, tmp)| (file, Some(tmp)))?,
        };
        Ok((Fresh { target: self.clone(), tmp }, file))
    }

    fn create_named(&self) -> io::Result<(File, TmpPath)> {
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(MODE);
        let mut taken = io::ErrorKind::AlreadyExists.into();
        for _ in 0..MAX_NAMES {
            let tmp = self.temporary();
            match options.open(tmp.path()) {
                Ok(file) => return Ok((file, tmp)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // It is not ours to remove.
                    std::mem::forget(tmp);
                    taken = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(taken)
    }

    fn temporary(&self) -> TmpPath {
        match &self.tmp {
            Some(directory) => TmpPath::new(directory),
            None => TmpPath::beside(&self.path),
        }
    }
}

/// A file on its way. Dropping it leaves nothing, unless it was published.
#[derive(Debug)]
pub struct Fresh {
    target: Target,
    /// Its name until it is published, where it must have one.
    tmp: Option<TmpPath>,
}

impl Fresh {
    /// Makes the finished file durable and gives it its name.
    pub fn publish(self, mut file: File) -> io::Result<()> {
        file.sync_all()?;
        let target = &self.target;
        match self.tmp {
            Some(tmp) => target.rename(tmp)?,
            None => match nameless::name(&file, &target.path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if target.tmp.is_none() {
                        let tmp = target.temporary();
                        nameless::name(&file, tmp.path())?;
                        target.rename(tmp)?;
                    }
                }
                Err(_) => {
                    // No procfs, or a file system that makes such files and cannot name them.
                    let (mut named, tmp) = target.create_named()?;
                    file.seek(SeekFrom::Start(0))?;
                    io::copy(&mut file, &mut named)?;
                    named.sync_all()?;
                    target.rename(tmp)?;
                }
            },
        }
        file::sync_parent(&target.path)
    }
}

impl Target {
    fn rename(&self, tmp: TmpPath) -> io::Result<()> {
        if self.tmp.is_some() { tmp.name_once(&self.path) } else { tmp.name_over(&self.path) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_when_it_is_published() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.sif");
        let target = Target::replacing(&path);
        for content in ["1", "2"] {
            for is_named in [false, true] {
                let (mut fresh, mut file) = target.create().unwrap();
                if is_named {
                    let (named, tmp) = target.create_named().unwrap();
                    (fresh.tmp, file) = (Some(tmp), named);
                }
                file.write_all(content.as_bytes()).unwrap();
                fresh.publish(file).unwrap();
                assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
                drop(target.create().unwrap());
                drop(target.create_named().unwrap());
                assert_eq!(names(root.path()), ["a.sif"]);
            }
        }
        assert!(Target::replacing(Path::new("/")).create().is_err());
        assert!(Target::replacing(Path::new("/nonexistent/a.sif")).create().is_err());
    }

    #[test]
    fn the_first_file_of_a_store_stays() {
        let root = tempfile::tempdir().unwrap();
        let tmp = root.path().join("tmp");
        std::fs::create_dir(&tmp).unwrap();
        let target = Target::in_store(root.path().join("x"), tmp.clone());
        for (content, is_named) in [("1", false), ("2", true), ("3", false)] {
            let (mut fresh, mut file) = target.create().unwrap();
            if is_named {
                let (named, tmp) = target.create_named().unwrap();
                (fresh.tmp, file) = (Some(tmp), named);
            }
            file.write_all(content.as_bytes()).unwrap();
            fresh.publish(file).unwrap();
        }
        assert_eq!(std::fs::read_to_string(target.path()).unwrap(), "1");
        assert!(names(&tmp).is_empty());
    }

    #[test]
    fn the_temporary_name_of_a_killed_process_goes_with_the_next() {
        let root = tempfile::tempdir().unwrap();
        let target = Target::replacing(&root.path().join("a.sif"));
        let (_file, killed) = target.create_named().unwrap();
        let own = format!(".{}.", std::process::id());
        let of_dead = killed.path().to_str().unwrap().replace(&own, &format!(".{}.", u32::MAX));
        std::fs::rename(killed.path(), &of_dead).unwrap();
        drop(target.create().unwrap());
        assert!(names(root.path()).is_empty());
    }
}
