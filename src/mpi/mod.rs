//! What the ranks of an MPI program need inside to find each other.
//!
//! PMI-1 and PMI-2 speak over an inherited descriptor (`PMI_FD`), which nobody closes. PMIx speaks TCP on the loopback, which the
//! host's network gives, and reads what it knows of its neighbours from files of two directories, which images lack.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::grants::{BindGrant, Grants};
use crate::sched;

/// Where the server of PMIx keeps its files for this step.
const SERVER_DIRECTORY: &str = "PMIX_SERVER_TMPDIR";
/// Which ways of proving who one is the server takes.
const SERVER_SECURITY: &str = "PMIX_SECURITY_MODE";
/// Which of them the client tries.
const CLIENT_SECURITY: &str = "PMIX_MCA_psec";
/// The one that the kernel answers for. The other, munge, needs a socket and a library that images lack, and is tried first
/// where it is offered (NVIDIA/pyxis issue 139).
const NATIVE: &str = "native";

/// What a task needs that a PMIx server has started, by its environment; nothing for others.
#[must_use]
pub fn grants(env: &BTreeMap<OsString, OsString>) -> Grants {
    let mut grants = Grants::default();
    let Some(directory) = env.get(OsStr::new(SERVER_DIRECTORY)) else { return grants };
    // A slash at its end would be another place.
    let directory: PathBuf = PathBuf::from(directory).components().collect();
    if !directory.is_absolute() || !directory.is_dir() {
        grants.notes.push(format!("PMIx: `{}` is no directory of this node", directory.display()));
        return grants;
    }
    bind(&mut grants, directory, format!("{SERVER_DIRECTORY}: what PMIx tells the ranks of this step"));
    if let Some(directory) = sched::pmix_directory(env, Path::new("/")).filter(|place| place.is_dir()) {
        bind(&mut grants, directory, "Slurm's PMIx: what the ranks of this step have on this node".into());
    }
    let offers = |name: &OsString| name.to_string_lossy().split(',').any(|mode| mode.trim() == NATIVE);
    let is_offered = env.get(OsStr::new(SERVER_SECURITY)).is_none_or(offers);
    if is_offered && !env.contains_key(OsStr::new(CLIENT_SECURITY)) {
        grants.env.push((CLIENT_SECURITY.into(), NATIVE.into()));
        let why = "PMIx: the image need not have munge".into();
        grants.reasons.insert(CLIENT_SECURITY.into(), why);
    }
    grants
}

fn bind(grants: &mut Grants, directory: PathBuf, why: String) {
    grants.reasons.insert(directory.to_string_lossy().into_owned(), why);
    let (source, target) = (directory.clone(), directory);
    grants.binds.push(BindGrant { source, target, read_only: false, directory: true });
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test makes the files that are looked for")]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Grants {
        grants(&variables.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    #[test]
    fn a_task_of_pmix_sees_its_servers_directory() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().display().to_string();
        assert_eq!(of(&[("PMI_FD", "11")]), Grants::default());
        let found = of(&[("PMIX_SERVER_TMPDIR", &format!("{path}/"))]);
        let bind = BindGrant {
            source: place.path().into(),
            target: place.path().into(),
            read_only: false,
            directory: true,
        };
        assert_eq!(found.binds, [bind]);
        assert_eq!(found.env, [("PMIX_MCA_psec".to_owned(), "native".to_owned())]);
        assert_eq!(found.reason(&path), "PMIX_SERVER_TMPDIR: what PMIx tells the ranks of this step");
        // The other one is in SLURM_PMIX_TMPDIR, else in TmpFS of slurm.conf.
        let other = place.path().join("spmix_appdir_7_1.2");
        std::fs::create_dir(&other).unwrap();
        let job = [("SLURM_JOB_ID", "1"), ("SLURM_STEP_ID", "2"), ("SLURM_JOB_UID", "7")];
        let server = ("PMIX_SERVER_TMPDIR", path.as_str());
        let found = of(&[&job[..], &[server, ("SLURM_PMIX_TMPDIR", &path)]].concat());
        assert_eq!(found.binds[1].target, other);
        let config = place.path().join("slurm.conf");
        std::fs::write(&config, format!("tmpfs = {path} # here\n")).unwrap();
        let found = of(&[&job[..], &[server, ("SLURM_CONF", &config.to_string_lossy())]].concat());
        assert_eq!(found.binds[1].target, other);
        // What the user or the server say goes before.
        for (name, value) in [("PMIX_MCA_psec", "munge"), ("PMIX_SECURITY_MODE", "munge")] {
            assert_eq!(of(&[("PMIX_SERVER_TMPDIR", &path), (name, value)]).env, []);
        }
        let found = of(&[("PMIX_SERVER_TMPDIR", &path), ("PMIX_SECURITY_MODE", "munge,native")]);
        assert_eq!(found.env.len(), 1);
        for bad in ["relative", "/no/such/place"] {
            let found = of(&[("PMIX_SERVER_TMPDIR", bad)]);
            assert!(found.binds.is_empty() && found.env.is_empty());
            assert_eq!(found.notes, [format!("PMIx: `{bad}` is no directory of this node")]);
        }
    }
}
