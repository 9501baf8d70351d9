//! Who makes the keeper: whoever holds the directory's lock and finds nobody listening.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::host::{is_own_directory, own_directory};
use crate::sys::{Errno, Result, file, socket};

use super::DIRECTORY;

/// End of the names of places where keepers listen.
const SUFFIX: &str = ".sock";

/// The directory of places, opened.
#[derive(Debug)]
pub(super) struct Places {
    directory: File,
}

/// Opens the directory; `None` if it is not there, or not the caller's own.
pub(super) fn open(path: &Path) -> Option<Places> {
    let directory = File::options().read(true).custom_flags(file::DIRECTORY_ONLY).open(path).ok()?;
    // The opened one, so that it cannot be another by then.
    is_own_directory(&Path::new("/proc/self/fd").join(fd_number(&directory)).join("."))
        .then_some(Places { directory })
}

/// As [`open`], and makes it.
pub(super) fn make(root: &Path) -> Option<Places> {
    let path = root.join(DIRECTORY);
    // Where there can be none, containers start alone; who needs the directory for more says why.
    own_directory(root).and_then(|()| own_directory(&path)).ok()?;
    open(&path)
}

fn fd_number(fd: &File) -> String {
    use std::os::fd::AsRawFd as _;
    fd.as_raw_fd().to_string()
}

/// What comes of an election.
#[derive(Debug)]
pub(super) enum Elected {
    /// Somebody listens.
    Follow(OwnedFd),
    /// This process listens, and has a keeper to make. With it a line to a keeper of the same scope, if there is one.
    Lead { listener: OwnedFd, sibling: Option<OwnedFd> },
}

impl Places {
    /// The directory.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Connects to the keeper that listens at a place.
    pub(super) fn connect(&self, name: &str) -> Result<OwnedFd> {
        socket::connect_in(self.fd(), name)
    }

    /// Decides who makes the keeper for a place. The lock is held for the few calls below only: the winner listens before
    /// there is a keeper, and the others wait for its answer.
    pub(super) fn elect(&self, name: &str) -> Result<Elected> {
        file::lock(self.fd(), file::Sharing::Alone)?;
        let elected = self.elect_locked(name);
        file::unlock(self.fd())?;
        elected
    }

    fn elect_locked(&self, name: &str) -> Result<Elected> {
        if let Ok(line) = self.connect(name) {
            return Ok(Elected::Follow(line));
        }
        let scope = name.split('-').next().unwrap_or_default();
        let sibling = self.sweep(scope);
        Ok(Elected::Lead { listener: socket::listen_in(self.fd(), name)?, sibling })
    }

    /// Removes the places of killed keepers. Gives a line to a living one of `scope`.
    fn sweep(&self, scope: &str) -> Option<OwnedFd> {
        let mut living = None;
        for name in self.names().unwrap_or_default() {
            match self.connect(&name) {
                Ok(line) if name.starts_with(scope) => living = Some(line),
                // Nobody can listen there again: this process has the lock.
                Err(Errno::ECONNREFUSED) => drop(file::remove_from(self.fd(), &name)),
                _ => {}
            }
        }
        living
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(Path::new("/proc/self/fd").join(fd_number(&self.directory)))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| name.ends_with(SUFFIX)).collect())
    }
}

/// Removes what killed keepers have left below the caller's own directory.
pub fn sweep(root: &Path) {
    if let Some(places) = open(&root.join(DIRECTORY))
        && file::lock(places.fd(), file::Sharing::Alone).is_ok()
    {
        // The line to a living keeper is closed at once.
        drop(places.sweep(SUFFIX));
    }
}
