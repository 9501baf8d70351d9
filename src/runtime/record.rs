//! What is kept of a container, as files in its directory.
//!
//! ```text
//! state.json   the Record: written before anything runs, and again at each change (a new file that takes the name)
//! exit         empty; one JSON object once the container has ended
//! env          the workload's variables, exact bytes, each with a NUL behind it
//! words        the words of `slipway run` that made it, in the same form: `start` runs them again
//! caller-env   the caller's variables at that time
//! filter       the filter of system calls that a further command gets, if there is one
//! log, log.1   what it printed (see the log module)
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bundle::CapabilitySet;
use crate::plan::{LaunchPlan, Op, Upper};
use crate::sys::pidfd::ProcessId;
use crate::sys::seccomp::Instruction;

use super::health::HealthCheck;

/// The version of `state.json` that this program writes. A reader takes later versions too: fields are only ever added.
pub(super) const VERSION: u32 = 1;
/// Seconds between the stop signal and SIGKILL, as Docker has it.
const DEFAULT_STOP_SECONDS: i64 = 10;

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Form of this file.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// The image as the user named it.
    pub image: String,
    /// The image's file.
    pub image_path: PathBuf,
    /// Digest of the image config, if the file carries one.
    #[serde(default)]
    pub image_id: Option<String>,
    /// The argument list.
    pub command: Vec<String>,
    /// The working directory inside.
    pub cwd: PathBuf,
    /// The caller's directory, in which `start` runs the words again.
    #[serde(default)]
    pub caller_cwd: Option<PathBuf>,
    /// When it was made.
    pub created: Timestamp,
    /// When the workload was started last.
    #[serde(default)]
    pub started: Option<Timestamp>,
    /// Labels of the image and the user's.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Host paths shown inside, as inspect tells them.
    #[serde(default)]
    pub mounts: Vec<MountRecord>,
    /// The directory in which the changes of its writable root are kept.
    #[serde(default)]
    pub changes: Option<PathBuf>,
    /// The signal that asks it to end, in the words of the image or the user.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Seconds between that signal and SIGKILL; negative waits for ever.
    #[serde(default)]
    pub stop_seconds: Option<i64>,
    /// How its health is looked after.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// Remove it when it ends.
    #[serde(default)]
    pub auto_remove: bool,
    /// It stays when it has ended although no monitor keeps it.
    #[serde(default)]
    pub stays: bool,
    /// Names of the volumes that were made for it alone.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Their directories.
    #[serde(default)]
    pub volume_paths: Vec<PathBuf>,
    /// The capabilities that a further command in it may have, a bit for each number.
    #[serde(default = "usual_capabilities")]
    pub capabilities: u64,
    /// Those of them that it has although it is not root.
    #[serde(default)]
    pub added_capabilities: u64,
    /// What it has of its own beside its files.
    #[serde(default)]
    pub isolation: IsolationRecord,
    /// A monitor keeps it; else the process of the caller has become the workload, and the record goes when it ends.
    pub detached: bool,
    /// Standard input stays open.
    #[serde(default)]
    pub open_stdin: bool,
    /// The end of the first attached command's input is the end of standard input.
    #[serde(default)]
    pub stdin_once: bool,
    /// It has a terminal of its own.
    #[serde(default)]
    pub tty: bool,
    /// The job, if it was started in one.
    #[serde(default)]
    pub job_id: Option<String>,
    /// The job's step.
    #[serde(default)]
    pub step_id: Option<String>,
    /// This node's name.
    pub node: String,
    /// The kernel's name for this boot: process numbers mean nothing in another.
    #[serde(default)]
    pub boot_id: Option<String>,
    /// Who takes care of this record: first the command that makes it, then the monitor.
    #[serde(default)]
    pub monitor: Option<ProcessId>,
    /// The workload.
    #[serde(default)]
    pub process: Option<ProcessId>,
}

/// One mount of a record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountRecord {
    /// The host path.
    pub source: PathBuf,
    /// Where inside.
    pub target: PathBuf,
    /// Not writable.
    pub read_only: bool,
}

/// What a container does not share with the host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IsolationRecord {
    /// It has a loopback and no other network.
    pub network: bool,
    /// Process numbers.
    pub pid: bool,
    /// Shared memory, semaphores and message queues.
    pub ipc: bool,
    /// Its host name, where it has one.
    pub host_name: Option<String>,
    /// Its root can be written to.
    pub writable: bool,
}

/// The object in `exit`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, or 128 + the signal.
    pub code: i32,
    /// When it was noticed.
    pub finished: Timestamp,
    /// Why the code is not the workload's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a container does now.
#[derive(Debug, Clone)]
pub enum Status {
    /// Made, and never started.
    Created,
    /// Runs, or is about to.
    Running,
    /// Has ended.
    Exited(Exit),
}

/// What a new container is made from.
#[derive(Debug)]
pub struct Draft {
    /// Everything but the id, the name and the processes, which are filled in.
    pub record: Record,
    /// The name that was asked for; else one is made up.
    pub name: Option<String>,
    /// An id that is known already; else one is drawn.
    pub id: Option<String>,
    /// The filter of system calls.
    pub filter: Vec<u8>,
    /// The workload's variables.
    pub env: Vec<OsString>,
    /// The words of `slipway run`.
    pub words: Vec<OsString>,
    /// The caller's variables.
    pub caller_env: Vec<OsString>,
}

impl Record {
    /// What a plan says about the container that it starts.
    #[must_use]
    pub fn of_plan(plan: &LaunchPlan, image: String, image_path: PathBuf, now: Timestamp) -> Self {
        let mut record = Self {
            version: VERSION,
            id: String::new(),
            name: String::new(),
            image,
            image_path,
            image_id: None,
            command: Vec::new(),
            cwd: "/".into(),
            caller_cwd: None,
            created: now,
            started: None,
            labels: BTreeMap::new(),
            mounts: Vec::new(),
            changes: None,
            stop_signal: None,
            stop_seconds: None,
            health: None,
            auto_remove: false,
            stays: false,
            volumes: Vec::new(),
            volume_paths: Vec::new(),
            capabilities: usual_capabilities(),
            added_capabilities: 0,
            isolation: IsolationRecord::default(),
            detached: true,
            open_stdin: false,
            stdin_once: false,
            tty: false,
            job_id: None,
            step_id: None,
            node: String::new(),
            boot_id: None,
            monitor: None,
            process: None,
        };
        record.take_plan(plan);
        record
    }

    /// Takes over what a plan decides: command, working directory, mounts.
    pub fn take_plan(&mut self, plan: &LaunchPlan) {
        self.mounts.clear();
        (self.capabilities, self.added_capabilities) = (usual_capabilities(), 0);
        (self.changes, self.isolation) = (None, IsolationRecord::default());
        for op in &plan.ops {
            match op {
                Op::Bind { source, target, read_only, asked: Some(_), .. } => self.mounts.push(MountRecord {
                    source: source.clone(),
                    target: target.clone(),
                    read_only: *read_only,
                }),
                Op::LimitCapabilities { keep, add } => {
                    (self.capabilities, self.added_capabilities) = (keep.bits(), add.bits());
                }
                Op::MountImage { upper: Some(upper), .. } | Op::MountDirectory { upper: Some(upper), .. } => {
                    self.isolation.writable = true;
                    if let Upper::Directory { path } = upper {
                        self.changes = Some(path.clone());
                    }
                }
                Op::NewNamespaces { network, ipc, pid, .. } => {
                    (self.isolation.network, self.isolation.ipc, self.isolation.pid) = (*network, *ipc, *pid);
                }
                Op::HostName { name, .. } => self.isolation.host_name = Some(name.clone()),
                Op::ChangeDirectory { path, .. } => self.cwd.clone_from(path),
                Op::Exec { argv, .. } => {
                    self.command = argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
                }
                _ => {}
            }
        }
    }

    /// The first digits of the id, as lists show it.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.id.get(..super::names::SHORT_LENGTH).unwrap_or(&self.id)
    }

    /// Seconds between the stop signal and SIGKILL; negative waits for ever.
    #[must_use]
    pub fn grace_seconds(&self) -> i64 {
        self.stop_seconds.unwrap_or(DEFAULT_STOP_SECONDS)
    }
}

/// The set that a record of an earlier program means.
fn usual_capabilities() -> u64 {
    CapabilitySet::DOCKER.bits()
}

/// The filter of system calls that a plan loads, as the kernel takes it: 8 bytes for each instruction.
#[must_use]
pub fn workload_filter(plan: &LaunchPlan) -> Vec<u8> {
    let filter = plan.ops.iter().find_map(|op| match op {
        Op::FilterCalls { filter } => Some(filter.as_slice()),
        _ => None,
    });
    let bytes = |one: &Instruction| {
        let [code, next] = one.code.to_le_bytes();
        let [a, b, c, d] = one.value.to_le_bytes();
        [code, next, one.jump_true, one.jump_false, a, b, c, d]
    };
    filter.unwrap_or_default().iter().flat_map(bytes).collect()
}

/// The instructions of [`workload_filter`].
pub(super) fn filter_of(bytes: &[u8]) -> Vec<Instruction> {
    let instruction = |eight: &[u8]| {
        let [code, next, jump_true, jump_false, a, b, c, d] = *<&[u8; 8]>::try_from(eight).ok()?;
        let (code, value) = (u16::from_le_bytes([code, next]), u32::from_le_bytes([a, b, c, d]));
        Some(Instruction { code, jump_true, jump_false, value })
    };
    bytes.chunks_exact(8).filter_map(instruction).collect()
}

/// The variables that a plan gives the workload.
#[must_use]
pub fn workload_env(plan: &LaunchPlan) -> Vec<OsString> {
    plan.ops
        .iter()
        .find_map(|op| match op {
            Op::Exec { env, .. } => Some(env.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

/// Texts in the form of `/proc/PID/environ`: a NUL behind each.
pub(super) fn join_with_nul(texts: &[OsString]) -> Vec<u8> {
    texts.iter().flat_map(|text| text.as_bytes().iter().copied().chain([0])).collect()
}

/// The texts of [`join_with_nul`].
pub(super) fn split_at_nul(bytes: &[u8]) -> Vec<OsString> {
    let mut texts: Vec<OsString> =
        bytes.split(|byte| *byte == 0).map(|text| OsString::from_vec(text.to_vec())).collect();
    // Behind the last NUL there is nothing.
    texts.pop();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_come_back() {
        let one = Instruction { code: 0x15, jump_true: 1, jump_false: 2, value: 0xc000_003e };
        let plan = LaunchPlan {
            ops: vec![Op::FilterCalls { filter: vec![one, one] }],
            notes: Vec::new(),
            warnings: Vec::new(),
        };
        assert_eq!(filter_of(&workload_filter(&plan)), [one, one]);
    }

    #[test]
    fn texts_come_back_byte_for_byte() {
        let texts: Vec<OsString> =
            vec!["A=b".into(), OsString::new(), OsString::from_vec(vec![0xff, b'\n']), "last".into()];
        assert_eq!(split_at_nul(&join_with_nul(&texts)), texts);
        assert!(split_at_nul(&join_with_nul(&[])).is_empty());
    }

    /// A state of version 1, byte for byte: later programs must read it.
    const VERSION_1: &str = r#"{"version":1,"id":"ab","name":"n","image":"i","image_path":"/i.sif","command":["sleep"],
        "cwd":"/","created":"2026-01-01T00:00:00Z","detached":true,"node":"n1","process":{"pid":7,"start_ticks":9},
        "of_a_later_version":true}"#;

    #[test]
    fn reads_the_first_version() {
        let record: Record = serde_json::from_str(VERSION_1).unwrap();
        assert_eq!(record.process, Some(ProcessId { pid: 7, start_ticks: 9 }));
        assert_eq!((record.short_id(), record.grace_seconds()), ("ab", 10));
        let again: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(again.created, record.created);
    }
}
