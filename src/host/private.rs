//! Directories of the caller's own on this node: for what must be local, outlives a process, and concerns nobody else.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::base::Hint;
use crate::sys::process;

/// Why a directory cannot be the caller's own.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// It cannot be made or looked at.
    #[error("cannot make the directory `{}`: {source}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Somebody else could change what lies in it.
    #[error("`{}` cannot be trusted: {why}", path.display())]
    Shared {
        /// The directory.
        path: PathBuf,
        /// Whose it is, or who may enter it.
        why: String,
    },
}

impl Hint for PrivateError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Make { .. } => {
                Some("set SLIPWAY_RUNTIME_DIR to a directory of your own on this node".into())
            }
            Self::Shared { path, .. } => Some(format!(
                "remove `{}`, or set SLIPWAY_RUNTIME_DIR to a directory of your own on this node",
                path.display()
            )),
        }
    }
}

/// The places where the caller's own directory may be, best first: the login session's, and one in `/tmp`.
///
/// In a job the session's comes last: the system removes it when the last login ends, which a job outlives. Where
/// `SLIPWAY_RUNTIME_DIR` names one, it is the only place.
#[must_use]
pub fn private_directories(env: &BTreeMap<OsString, OsString>, in_job: bool) -> Vec<PathBuf> {
    let absolute =
        |name: &str| env.get(OsStr::new(name)).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(named) = absolute("SLIPWAY_RUNTIME_DIR") {
        return vec![named];
    }
    let (uid, _) = process::own_ids();
    let in_tmp = PathBuf::from(format!("/tmp/slipway-{uid}"));
    let session = absolute("XDG_RUNTIME_DIR").filter(|directory| directory.is_dir());
    let Some(session) = session.map(|directory| directory.join("slipway")) else { return vec![in_tmp] };
    if in_job { vec![in_tmp, session] } else { vec![session, in_tmp] }
}

/// Makes a directory that only the caller may enter, or makes sure that it is one.
pub fn own_directory(path: &Path) -> Result<(), PrivateError> {
    let fail = |source| PrivateError::Make { path: path.to_path_buf(), source };
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
        _ => {}
    }
    // A link is not followed: in `/tmp` anybody may have put one there.
    let facts = fs::symlink_metadata(path).map_err(fail)?;
    match why_not_own(&facts) {
        Some(why) => Err(PrivateError::Shared { path: path.to_path_buf(), why }),
        None => Ok(()),
    }
}

/// Whether there is a directory that only the caller may enter.
#[must_use]
pub fn is_own_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|facts| why_not_own(&facts).is_none())
}

fn why_not_own(facts: &fs::Metadata) -> Option<String> {
    let (uid, _) = process::own_ids();
    if !facts.is_dir() {
        Some("it is no directory".to_owned())
    } else if facts.uid() != uid {
        Some(format!("it belongs to the user {}", facts.uid()))
    } else {
        let open = facts.mode() & 0o077 != 0;
        open.then(|| format!("others may enter it (mode {:o})", facts.mode() & 0o7777))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_job_does_not_use_the_sessions_directory_first() {
        let session = tempfile::tempdir().unwrap();
        let mut env = BTreeMap::new();
        env.insert(OsString::from("XDG_RUNTIME_DIR"), session.path().as_os_str().to_owned());
        let outside = private_directories(&env, false);
        assert_eq!(outside[0], session.path().join("slipway"));
        assert!(outside[1].starts_with("/tmp"));
        let inside = private_directories(&env, true);
        assert_eq!(inside, [outside[1].clone(), outside[0].clone()]);
        assert_eq!(private_directories(&BTreeMap::new(), false), [outside[1].clone()]);
        env.insert("SLIPWAY_RUNTIME_DIR".into(), "/scratch/mine".into());
        assert_eq!(private_directories(&env, true), [PathBuf::from("/scratch/mine")]);
    }

    #[test]
    fn only_a_directory_of_ones_own_is_trusted() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("own");
        own_directory(&path).unwrap();
        own_directory(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let error = own_directory(&path).unwrap_err();
        assert!(error.to_string().ends_with("cannot be trusted: others may enter it (mode 750)"), "{error}");
        let link = base.path().join("link");
        std::os::unix::fs::symlink(base.path(), &link).unwrap();
        assert!(own_directory(&link).unwrap_err().to_string().ends_with("it is no directory"));
        let error = own_directory(&base.path().join("no/such")).unwrap_err();
        assert!(matches!(error, PrivateError::Make { .. }));
    }
}
