//! One container's directory: reading, writing, and what state it tells.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::plan::LaunchPlan;
use crate::sys::file::try_lock;
use crate::sys::pidfd::{ProcessHandle, ProcessId};
use crate::sys::seccomp::Instruction;
use crate::sys::tree::remove_tree;

use super::error::RuntimeError;
use super::record::{
    Exit, Record, Status, filter_of, join_with_nul, split_at_nul, workload_env, workload_filter,
};
use super::sweep;

/// Exit code of a workload whose monitor was killed: it was killed with it.
const KILLED: i32 = 137;
/// Exit code of a workload that ended while nobody looked, as Docker tells it after a crash.
const UNKNOWN: i32 = 255;

/// A command that looks holds the lock for some file operations: so often, and so long between, it is tried.
const LOCK_TRIES: u32 = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// A container, as its directory tells it.
#[derive(Debug, Clone)]
pub struct Container {
    pub(super) directory: PathBuf,
    pub(super) root: PathBuf,
    /// What is kept of it.
    pub record: Record,
    /// Held by who makes or starts it and by its monitor, which gets a copy by fork: who cannot have it leaves the rest to
    /// them. `None` while this process does neither.
    pub(super) lock: Option<Arc<File>>,
}

impl Container {
    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What it does now. [`Shelf`](super::Shelf) has looked whether its processes live.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.exit() {
            Some(exit) => Status::Exited(exit),
            None if self.record.monitor.is_none() && self.record.process.is_none() => Status::Created,
            None => Status::Running,
        }
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        parse_exit(&fs::read(self.directory.join("exit")).ok()?)
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.status(), Status::Running)
    }

    /// The workload, held on to; `None` if it does not run.
    #[must_use]
    pub fn process(&self) -> Option<ProcessHandle> {
        self.record.process?.open()
    }

    /// The variables that the workload was started with.
    pub fn env(&self) -> Result<Vec<OsString>, RuntimeError> {
        self.texts("env")
    }

    /// The filter of system calls that every command in it gets.
    #[must_use]
    pub fn filter(&self) -> Vec<Instruction> {
        // Containers of earlier programs have none.
        filter_of(&fs::read(self.directory.join("filter")).unwrap_or_default())
    }

    /// The words of `slipway run` that made it, without `slipway run`.
    pub fn words(&self) -> Result<Vec<OsString>, RuntimeError> {
        self.texts("words")
    }

    /// The variables of whoever made it.
    pub fn caller_env(&self) -> Result<Vec<OsString>, RuntimeError> {
        self.texts("caller-env")
    }

    fn texts(&self, name: &str) -> Result<Vec<OsString>, RuntimeError> {
        let path = self.directory.join(name);
        fs::read(&path).map(|bytes| split_at_nul(&bytes)).map_err(RuntimeError::state("read", path))
    }

    /// Writes the record anew.
    pub(super) fn write(&self) -> Result<(), RuntimeError> {
        write_record(&self.directory, &self.record)
    }

    /// Writes how it ended, in one write, so that a reader sees all of it or nothing.
    pub(super) fn write_exit(&self, code: i32, error: Option<String>) -> Result<(), RuntimeError> {
        let exit = Exit { code, finished: Timestamp::now(), error };
        let path = self.directory.join("exit");
        let text = serde_json::to_vec(&exit).map_err(io::Error::from);
        text.and_then(|text| fs::write(&path, text)).map_err(RuntimeError::state("write", path))
    }

    /// Refuses where a command of the job `own` would run outside of the container's job.
    pub fn check_job(&self, own: Option<&str>) -> Result<(), RuntimeError> {
        match (&self.record.job_id, own) {
            (Some(job), Some(own)) if job != own => Err(RuntimeError::OtherJob {
                name: self.record.name.clone(),
                job: job.clone(),
                node: self.record.node.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Holds it while its files are looked at: nobody can start it meanwhile.
    pub fn hold(&self) -> Result<Held, RuntimeError> {
        self.wait_for_lock().map(|lock| Held { _lock: lock })
    }

    /// Has the plan keep the changes of a writable root in the container's own directory, until that is removed.
    pub fn keep_changes(&mut self, plan: &mut LaunchPlan) -> Result<(), RuntimeError> {
        let place = self.directory.join("root");
        plan.keep_changes(&place);
        self.record.take_plan(plan);
        if self.record.changes.as_ref() == Some(&place) {
            match fs::create_dir(&place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(RuntimeError::state("make", &place))?,
            }
        }
        self.write()
    }

    /// Makes it ready for a start: this process takes care of it, and it has not ended.
    pub(super) fn prepare_start(&mut self) -> Result<(), RuntimeError> {
        if self.lock.is_none() {
            self.lock = Some(self.wait_for_lock()?);
        }
        self.record.monitor = ProcessId::own();
        self.record.process = None;
        self.record.detached = true;
        self.write()?;
        let path = self.directory.join("exit");
        fs::write(&path, b"").map_err(RuntimeError::state("write", path))
    }

    /// The lock, from another command that only looks and lets go at once. Who starts the container keeps it.
    fn wait_for_lock(&self) -> Result<Arc<File>, RuntimeError> {
        for _ in 0..LOCK_TRIES {
            if let Some(lock) = lock(&self.directory)? {
                return Ok(lock);
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Err(RuntimeError::Running { name: self.record.name.clone() })
    }

    /// Takes over a new plan for the next start.
    pub fn renew(&mut self, plan: &LaunchPlan) -> Result<(), RuntimeError> {
        self.record.take_plan(plan);
        for (name, bytes) in [("env", join_with_nul(&workload_env(plan))), ("filter", workload_filter(plan))]
        {
            let path = self.directory.join(name);
            fs::write(&path, bytes).map_err(RuntimeError::state("write", path))?;
        }
        Ok(())
    }

    /// The processes inside that the caller may look at, by their numbers.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        let Some(id) = self.record.process else { return Vec::new() };
        let namespace = sweep::mount_namespace(id.pid);
        // Only now is it certain whose it is.
        namespace
            .filter(|_| id.is_alive())
            .map(|namespace| sweep::processes_in(&namespace))
            .unwrap_or_default()
    }

    /// Takes over what the monitor has written. One that is gone already has nobody to wait for.
    pub(super) fn reload(&mut self) {
        match read_record(&self.directory) {
            Ok(Some(record)) => self.record = record,
            _ => (self.record.monitor, self.record.process) = (None, None),
        }
    }

    /// Leaves it made and not started: nobody takes care of it.
    pub fn set_aside(&mut self) -> Result<(), RuntimeError> {
        self.record.monitor = None;
        self.write()
    }

    /// Gives it another name.
    pub(super) fn take_over_name(&mut self, name: &str) -> Result<(), RuntimeError> {
        let old = std::mem::replace(&mut self.record.name, name.to_owned());
        self.write()?;
        self.free_name(&old);
        Ok(())
    }

    fn free_name(&self, name: &str) {
        let link = self.root.join("names").join(name);
        if fs::read_link(&link).is_ok_and(|target| target.as_os_str() == self.record.id.as_str()) {
            // A link that stays is stale as soon as the directory is gone.
            let _ = fs::remove_file(link);
        }
    }

    /// Removes what is kept of it.
    pub(super) fn forget(&self) -> Result<(), RuntimeError> {
        // By the newest name: it may have been renamed meanwhile.
        let name = read_record(&self.directory)?.map_or_else(|| self.record.name.clone(), |now| now.name);
        self.free_name(&name);
        remove_tree(&self.directory).map_err(RuntimeError::state("remove", &self.directory))
    }

    /// Removes the volumes that were made for it alone.
    pub fn remove_own_volumes(&self) -> Result<(), RuntimeError> {
        for path in &self.record.volume_paths {
            remove_tree(path).map_err(RuntimeError::state("remove", path))?;
        }
        Ok(())
    }

    /// Puts right what a killed process has left. `None` if nothing of the container remains.
    pub(super) fn settle(mut self, boot_id: Option<&str>) -> Result<Option<Self>, RuntimeError> {
        let mut tries = 0;
        let held = loop {
            if self.has_keeper(boot_id) && self.record.process.is_some() {
                return Ok(Some(self));
            }
            // Once it is held, nobody else starts the container or puts it right.
            if let Some(held) = lock(&self.directory)? {
                break held;
            }
            // Somebody is starting it: what the workload's process is will be known in a moment, and without that nobody
            // could end it.
            tries += 1;
            if tries > LOCK_TRIES {
                return Ok(Some(self));
            }
            std::thread::sleep(LOCK_PAUSE);
            let Some(record) = read_record(&self.directory)? else { return Ok(None) };
            self.record = record;
        };
        let Some(record) = read_record(&self.directory)? else { return Ok(None) };
        self.record = record;
        if self.has_keeper(boot_id) && self.record.process.is_some() {
            return Ok(Some(self));
        }
        let record = &self.record;
        let has_ended = self.exit().is_some();
        let is_aside = record.detached && record.monitor.is_none() && record.process.is_none();
        let code = match self.is_of(boot_id) && record.detached && !has_ended && self.end_orphan() {
            true => KILLED,
            false => UNKNOWN,
        };
        let is_half_made = record.started.is_none() && !is_aside;
        let stays = record.detached || record.stays && record.started.is_some();
        if !stays || is_half_made || record.auto_remove && !is_aside {
            if record.auto_remove || is_half_made {
                self.remove_own_volumes()?;
            }
            self.forget()?;
            return Ok(None);
        }
        if !has_ended && !is_aside {
            let why = if record.detached { "its monitor was killed" } else { "nobody watched it" };
            self.write_exit(code, Some(why.into()))?;
        }
        drop(held);
        Ok(Some(self))
    }

    /// Whether a live process takes care of it: the command that makes it, its monitor, or the workload itself where it
    /// has none.
    fn has_keeper(&self, boot_id: Option<&str>) -> bool {
        let keeper = if self.record.detached { self.record.monitor } else { self.record.process };
        self.is_of(boot_id) && [keeper, self.record.monitor].into_iter().flatten().any(ProcessId::is_alive)
    }

    /// Whether its process numbers are of this boot.
    fn is_of(&self, boot_id: Option<&str>) -> bool {
        let then = self.record.boot_id.as_deref();
        then.is_none() || boot_id.is_none() || then == boot_id
    }

    /// Kills a workload that has lost its monitor; never the calling process, which may be about to become one.
    pub(super) fn end_own_orphan(&self) {
        if self.record.process.is_some() && self.record.process != ProcessId::own() {
            self.end_orphan();
        }
    }

    /// Kills a workload that has lost its monitor, and what it has started. True if it was there.
    fn end_orphan(&self) -> bool {
        let Some(process) = self.process() else { return false };
        let namespace = self.record.process.and_then(|id| sweep::mount_namespace(id.pid));
        // ESRCH: it has just ended by itself.
        let _ = process.signal(sweep::SIGKILL);
        if let Some(namespace) = namespace {
            sweep::kill_all_in(&namespace);
        }
        process.wait(Some(Duration::from_secs(1))).unwrap_or(false)
    }
}

/// A container's lock, let go when it is dropped.
#[derive(Debug)]
pub struct Held {
    _lock: Arc<File>,
}

/// Takes a container's lock; `None` if somebody else has it, or the container is gone.
pub(super) fn lock(directory: &Path) -> Result<Option<Arc<File>>, RuntimeError> {
    let file = match File::open(directory) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RuntimeError::State { act: "open", path: directory.into(), source }),
    };
    let taken = try_lock(file.as_fd()).map_err(|errno| RuntimeError::State {
        act: "lock",
        path: directory.into(),
        source: errno.into(),
    })?;
    Ok(taken.then(|| Arc::new(file)))
}

/// The object in an `exit` file; `None` while it is empty.
pub(super) fn parse_exit(bytes: &[u8]) -> Option<Exit> {
    serde_json::from_slice(bytes).ok()
}

/// Reads `state.json`; `None` if there is none.
pub(super) fn read_record(directory: &Path) -> Result<Option<Record>, RuntimeError> {
    let path = directory.join("state.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RuntimeError::State { act: "read", path, source }),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| RuntimeError::Damaged { path, source })
}

/// Writes `state.json`: a new file takes the name, so that a reader sees the old one or the new one.
pub(super) fn write_record(directory: &Path, record: &Record) -> Result<(), RuntimeError> {
    let path = directory.join("state.json");
    let new = directory.join(format!("state.json.{}", std::process::id()));
    let text = serde_json::to_vec(record).map_err(io::Error::from);
    text.and_then(|text| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, &path))
        .map_err(RuntimeError::state("write", path))
}
