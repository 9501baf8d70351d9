//! NVML, always in a child process: a call can take seconds on a sleeping GPU and for ever on a sick one, where the
//! process cannot even be killed (uninterruptible sleep). This is the one door to `nvml-wrapper`.
//!
//! The child is this program again with [`NVML_CHILD`] as its first argument and the library as its second. It prints
//! one line of JSON, a [`NvmlReport`] or the words of an error.
//!
//! [`query_nvml`] takes what a launch may need, in one answer. [`NvmlSession`] takes all readings, each by itself.
#![expect(clippy::disallowed_methods, reason = "starts the NVML child")]

mod ask;
mod collect;

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nvml_wrapper::error::NvmlError as Code;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};

use crate::base::Hint;
use crate::sys::{access, nvml as raw};

use super::super::inventory::canonical_address;
use super::super::mig::{MigInstance, profile_words};

pub use ask::readings_child_main;
pub use collect::{NVML_READINGS_CHILD, NvmlReadings, NvmlSession, Scope};

/// First argument of the child process.
pub const NVML_CHILD: &str = "__nvml";

/// Most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// How long a killed child has to disappear before it is left alone.
const GRACE: Duration = Duration::from_millis(200);

/// What NVML knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NvmlReport {
    /// Driver version.
    pub driver_version: Option<String>,
    /// Newest CUDA that the driver serves (`13.0`).
    pub cuda_version: Option<String>,
    /// The GPUs, in NVML's order.
    pub gpus: Vec<NvmlGpu>,
}

/// One GPU as NVML knows it; what it does not tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NvmlGpu {
    /// NVML's index.
    pub index: u32,
    /// Model.
    pub name: Option<String>,
    /// `GPU-…`.
    pub uuid: Option<String>,
    /// In the form of procfs.
    pub pci_address: Option<String>,
    /// Number of the device node.
    pub minor: Option<u32>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Whether MIG is enabled; unknown where the GPU has no MIG.
    pub mig_enabled: Option<bool>,
    /// Its MIG instances, without their nodes.
    pub instances: Vec<MigInstance>,
    /// Why the GPU cannot be asked at all.
    pub error: Option<String>,
    /// NVML's code of that, where it gave one.
    pub error_code: Option<u32>,
}

/// Why NVML has no answer.
#[derive(Debug, thiserror::Error)]
pub enum NvmlError {
    /// The child process cannot be started.
    #[error("the NVML child `{}` cannot be started", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No answer before the deadline. The child was killed, and left alone if even that had no effect.
    #[error("NVML hung: no answer after {} s", deadline.as_secs_f64())]
    Hung {
        /// How long it had.
        deadline: Duration,
    },
    /// The child ended without an answer.
    #[error("NVML gave no answer: its process ended ({status})")]
    NoAnswer {
        /// How it ended.
        status: String,
    },
    /// The child's answer is not what this program writes.
    #[error("the answer of the NVML child cannot be read")]
    BadAnswer {
        /// The cause.
        source: serde_json::Error,
    },
    /// The pipe to the child broke.
    #[error("cannot read from the NVML child")]
    Read {
        /// The cause.
        source: io::Error,
    },
    /// NVML itself says why.
    #[error("NVML: {words}")]
    Refused {
        /// Its reason.
        words: String,
    },
}

impl Hint for NvmlError {
    fn hint(&self) -> Option<String> {
        matches!(self, Self::Hung { .. })
            .then(|| "a GPU of this node does not answer: look for `NVRM: Xid` in the kernel's log".into())
    }
}

/// The child's line.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    #[serde(rename = "report")]
    Report(NvmlReport),
    #[serde(rename = "error")]
    Error(String),
}

/// Asks NVML in a child process: `program` is this program's own file (absolute), `library` a `libnvidia-ml.so.1` where the loader
/// would not find it.
pub fn query_nvml(
    program: &Path,
    library: Option<&Path>,
    deadline: Duration,
) -> Result<NvmlReport, NvmlError> {
    let mut child = Command::new(program)
        .arg(NVML_CHILD)
        .args(library)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| NvmlError::Start { program: program.to_path_buf(), source })?;
    let mut output = child.stdout.take().expect("stdout was asked to be a pipe");
    let line = read_line(&mut output, deadline);
    let status = match &line {
        Ok(Some(_)) => reap(&mut child).or_else(|| kill(&mut child)),
        _ => kill(&mut child),
    };
    let line = line.map_err(|source| NvmlError::Read { source })?.ok_or(NvmlError::Hung { deadline })?;
    if line.is_empty() {
        let status = status.map_or_else(|| "it does not end".into(), |status| status.to_string());
        return Err(NvmlError::NoAnswer { status });
    }
    match serde_json::from_slice(&line).map_err(|source| NvmlError::BadAnswer { source })? {
        Answer::Report(report) => Ok(report),
        Answer::Error(words) => Err(NvmlError::Refused { words }),
    }
}

/// What the child wrote up to its first line end or its death; `None` if the deadline passed first.
fn read_line(output: &mut ChildStdout, deadline: Duration) -> io::Result<Option<Vec<u8>>> {
    let start = Instant::now();
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_sub(start.elapsed());
        if !access::wait_readable(output.as_fd(), left).map_err(io::Error::from)? {
            if left.is_zero() {
                return Ok(None);
            }
            continue;
        }
        let count = output.read(&mut chunk)?;
        line.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if count == 0 || line.ends_with(b"\n") || line.len() > MAX_ANSWER_BYTES {
            return Ok(Some(line));
        }
    }
}

/// Waits for a child that has answered, but never for long: closing a sick GPU's node can hang as well.
fn reap(child: &mut Child) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if start.elapsed() < GRACE => std::thread::sleep(Duration::from_millis(1)),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
}

/// A child that is stuck in the driver dies when the driver lets it go, and init collects it.
fn kill(child: &mut Child) -> Option<ExitStatus> {
    // The only error is that it has ended already.
    let _ = child.kill();
    reap(child)
}

/// The whole life of the child: asks NVML, prints the answer, and returns the exit status.
#[must_use]
pub fn nvml_child_main(library: Option<&OsStr>) -> u8 {
    let mut builder = Nvml::builder();
    if let Some(library) = library {
        builder.lib_path(library);
    }
    // The handle stays open past the printing, so that the answer is out before anything is closed.
    let nvml = builder.init();
    let answer = match &nvml {
        Ok(nvml) => report(nvml).map_or_else(|code| Answer::Error(words(&code)), Answer::Report),
        Err(code) => Answer::Error(words(code)),
    };
    let Ok(mut line) = serde_json::to_vec(&answer) else { return 1 };
    line.push(b'\n');
    u8::from(io::stdout().write_all(&line).is_err())
}

fn report(nvml: &Nvml) -> Result<NvmlReport, Code> {
    let gpus = (0..nvml.device_count()?).map(|index| match nvml.device_by_index(index) {
        Ok(device) => gpu(index, &device),
        Err(code) => failed_gpu(index, code),
    });
    Ok(NvmlReport {
        driver_version: nvml.sys_driver_version().ok(),
        cuda_version: nvml.sys_cuda_driver_version().ok().map(cuda_words),
        gpus: gpus.collect(),
    })
}

fn failed_gpu(index: u32, code: Code) -> NvmlGpu {
    let error = Some(words(&code));
    NvmlGpu { index, error, error_code: Some(code.into()), ..NvmlGpu::default() }
}

fn gpu(index: u32, device: &Device<'_>) -> NvmlGpu {
    let memory_bytes = device.memory_info().ok().map(|memory| memory.total);
    let mig_enabled = device.mig_mode().ok().map(|mode| mode.current == 1);
    let instances = match mig_enabled {
        Some(true) => instances(device, memory_bytes.unwrap_or(0)),
        _ => Vec::new(),
    };
    NvmlGpu {
        index,
        name: device.name().ok(),
        uuid: device.uuid().ok(),
        pci_address: device.pci_info().ok().and_then(|info| canonical_address(&info.bus_id)),
        minor: device.minor_number().ok(),
        memory_bytes,
        mig_enabled,
        instances,
        error: None,
        error_code: None,
    }
}

/// NVML counts as many as there can be, and not each of these numbers is one.
fn instances(device: &Device<'_>, gpu_bytes: u64) -> Vec<MigInstance> {
    /// More than any GPU has.
    const MOST: u32 = 128;
    let most = device.mig_device_count().unwrap_or(0).min(MOST);
    let instance = |index| {
        let part = device.mig_device_by_index(index).ok()?;
        let (gpu_instance, compute_instance) = raw::mig_ids(&part)?;
        let attributes = part.attributes().ok();
        // Newer drivers end the name with the profile, which then has its additions as well (`1g.10gb+me`).
        let named = part.name().ok().and_then(|name| Some(name.rsplit_once(" MIG ")?.1.to_owned()));
        let profile = named.or_else(|| {
            let of = attributes.as_ref()?;
            let (gpu, compute) = (of.gpu_instance_slice_count, of.compute_instance_slice_count);
            profile_words(gpu, compute, of.memory_size_mb, gpu_bytes)
        });
        Some(MigInstance {
            index,
            uuid: part.uuid().ok(),
            profile,
            memory_bytes: attributes.and_then(|of| of.memory_size_mb.checked_mul(1 << 20)),
            gpu_instance,
            compute_instance,
            ..MigInstance::default()
        })
    };
    (0..most).filter_map(instance).collect()
}

/// NVML counts 1000 for a major and 10 for a minor version.
fn cuda_words(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// What a code of NVML means for the reader. Not all of nvml-wrapper's own words say what to think.
fn words(code: &Code) -> String {
    match code {
        Code::DriverNotLoaded => "the NVIDIA driver is not loaded (code 9)".into(),
        Code::LibRmVersionMismatch => {
            "driver/library version mismatch (code 18): the driver was updated and its module not loaded again".into()
        }
        Code::NoPermission => "permission denied (code 4): mode or group of the device nodes".into(),
        Code::OperatingSystem => "the operating system blocks it (code 17): the device cgroup".into(),
        Code::GpuLost => "the GPU has fallen off the bus (code 15)".into(),
        Code::ResetRequired => "the GPU must be reset (code 16)".into(),
        Code::LibloadingError(error) => format!("its library cannot be loaded: {error}"),
        Code::UnexpectedVariant(number) => format!("code {number}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_versions_in_words() {
        let check = |version: i32, expected: &str| assert_eq!(cuda_words(version), expected);
        check(12_040, "12.4");
        check(13_000, "13.0");
        check(11_080, "11.8");
    }

    #[test]
    fn child_that_says_nothing_is_told_apart_from_one_that_hangs() {
        let ask = |program: &str, library: &str, deadline: Duration| {
            query_nvml(Path::new(program), Some(Path::new(library)), deadline).unwrap_err().to_string()
        };
        let long = Duration::from_secs(60);
        assert_eq!(ask("/bin/false", "", long), "NVML gave no answer: its process ended (exit status: 1)");
        assert_eq!(ask("/bin/echo", "", long), "the answer of the NVML child cannot be read");
        assert_eq!(ask("/nonexistent", "", long), "the NVML child `/nonexistent` cannot be started");
    }
}
