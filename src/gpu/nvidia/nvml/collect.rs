//! The asking side of the readings: a child, its answers as they come, and another child where one hangs or dies.
//!
//! ```text
//! parent                         child
//!   orders (arguments) ────────▶ init
//!   ◀──────────────────── Start, Asking, Gpu, Asking, Answer, …, End
//!   a line on stdin ───────────▶ the next round (`--watch`)
//!   no line for the deadline: kill it; the next child begins behind the step that hung
//! ```
//!
//! A hanging function costs the other readings one deadline: what has been answered is kept, and what was not asked is
//! asked by the next child. A GPU that hangs twice is left, and so is a step that hangs on two GPUs.
#![expect(clippy::disallowed_methods, reason = "starts the NVML child")]

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::sys::access;

use super::super::super::readings::{GpuReadings, Reading, ReadingError};
use super::ask::{Line, Orders, Place, READINGS};
use super::{MAX_ANSWER_BYTES, NvmlError, NvmlGpu, NvmlReport, kill, reap};

/// First argument of the child process for readings.
pub const NVML_READINGS_CHILD: &str = "__nvml-readings";

/// So many times may children hang or die in one round before the rest is left unasked.
const MOST_FAILURES: usize = 6;
/// More GPUs than a node has.
const MOST_GPUS: u32 = 256;

/// How much to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// What the GPUs are, and no reading.
    Identity,
    /// Everything, once.
    All,
    /// What changes from second to second, again and again.
    Live,
}

/// What NVML says: the report, and the readings of the GPU at the same place of [`NvmlReport::gpus`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NvmlReadings {
    /// What the GPUs are.
    pub report: NvmlReport,
    /// What they read.
    pub gpus: Vec<GpuReadings>,
}

/// Readings of NVML, for one round or many.
#[derive(Debug)]
pub struct NvmlSession {
    program: PathBuf,
    library: Option<PathBuf>,
    deadline: Duration,
    scope: Scope,
    child: Option<Running>,
}

/// A child and what it has said beyond the last whole line.
#[derive(Debug)]
struct Running {
    child: Child,
    output: ChildStdout,
    pending: Vec<u8>,
}

/// How a child's part of a round ended.
enum Ending {
    /// All was asked.
    Done,
    /// NVML refused, in these words.
    Refused(String),
    /// It hung or died.
    Failed(NvmlError),
}

/// A round as far as it has come.
#[derive(Debug, Default)]
struct Round {
    report: NvmlReport,
    count: Option<u32>,
    readings: Vec<Map<String, Value>>,
    asking: Option<Place>,
}

impl NvmlSession {
    /// Nothing is started yet. `program` and `library` are those of [`super::query_nvml`]; the deadline is that of one
    /// answer.
    #[must_use]
    pub fn new(program: &Path, library: Option<&Path>, deadline: Duration, scope: Scope) -> Self {
        Self {
            program: program.to_path_buf(),
            library: library.map(Path::to_path_buf),
            deadline,
            scope,
            child: None,
        }
    }

    /// Takes all readings of the scope. An error means that NVML does not answer at all; what fails for one GPU or one
    /// reading is told there.
    pub fn round(&mut self) -> Result<NvmlReadings, NvmlError> {
        let mut round = Round::default();
        let mut orders =
            Orders { from: (0, 0), without_gpus: Vec::new(), without: Vec::new(), scope: self.scope };
        let mut failures: Vec<Place> = Vec::new();
        loop {
            let mut child = match self.child.take().map(Running::go_on) {
                Some(Ok(child)) => child,
                _ => self.start(&orders)?,
            };
            round.asking = None;
            let error = match child.listen(&mut round, self.deadline)? {
                Ending::Done => {
                    if self.scope == Scope::Live {
                        self.child = Some(child);
                    }
                    return Ok(round.finish());
                }
                Ending::Refused(words) if round.count.is_none() => return Err(NvmlError::Refused { words }),
                Ending::Refused(words) => NvmlError::Refused { words },
                Ending::Failed(error) => error,
            };
            let (Some(count), Some(place)) = (round.count, round.asking) else { return Err(error) };
            let is_first = failures.iter().all(|failed| failed.0 != place.0);
            round.fail(place, &error);
            failures.push(place);
            if failures.iter().filter(|failed| failed.1 == place.1 && place.1 > 0).count() > 1 {
                orders.without.push(place.1);
                round.leave(place);
            }
            orders.from = match place {
                (gpu, 0) => {
                    orders.without_gpus.push(gpu);
                    if gpu + 1 < count { (gpu + 1, 0) } else { (0, 1) }
                }
                (gpu, step) if is_first => (gpu, step + 1),
                (gpu, _) => (gpu + 1, 1),
            };
            if orders.from.0 >= count || failures.len() >= MOST_FAILURES {
                return Ok(round.finish());
            }
        }
    }

    fn start(&self, orders: &Orders) -> Result<Running, NvmlError> {
        let orders = serde_json::to_string(orders).map_err(|source| NvmlError::BadAnswer { source })?;
        let mut child = Command::new(&self.program)
            .arg(NVML_READINGS_CHILD)
            .arg(self.library.as_deref().unwrap_or(Path::new("")))
            .arg(orders)
            .env_clear()
            .current_dir("/")
            .stdin(if self.scope == Scope::Live { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| NvmlError::Start { program: self.program.clone(), source })?;
        let output = child.stdout.take().expect("stdout was asked to be a pipe");
        Ok(Running { child, output, pending: Vec::new() })
    }
}

impl Drop for NvmlSession {
    fn drop(&mut self) {
        if let Some(mut running) = self.child.take() {
            end(&mut running.child);
        }
    }
}

/// Ends a child that is of no more use, however it ends.
fn end(child: &mut Child) {
    // The status would tell nothing: it was our own signal, or the driver holds the process and nobody can help.
    let _ = kill(child);
}

impl Running {
    /// Asks for another round.
    fn go_on(mut self) -> io::Result<Self> {
        match self.child.stdin.as_mut().map(|input| input.write_all(b"\n")) {
            Some(Ok(())) => Ok(self),
            _ => {
                end(&mut self.child);
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    /// Takes lines until the round is at its end, or nothing comes for the deadline.
    fn listen(&mut self, round: &mut Round, deadline: Duration) -> Result<Ending, NvmlError> {
        loop {
            let line = match self.next_line(deadline) {
                Ok(Some(line)) => line,
                Ok(None) => {
                    end(&mut self.child);
                    return Ok(Ending::Failed(NvmlError::Hung { deadline }));
                }
                Err(source) => {
                    end(&mut self.child);
                    return Err(NvmlError::Read { source });
                }
            };
            if line.is_empty() {
                let status = reap(&mut self.child).or_else(|| kill(&mut self.child));
                let status = status.map_or_else(|| "it does not end".into(), |status| status.to_string());
                return Ok(Ending::Failed(NvmlError::NoAnswer { status }));
            }
            match serde_json::from_slice(&line).map_err(|source| NvmlError::BadAnswer { source }) {
                Ok(Line::End) => return Ok(Ending::Done),
                Ok(Line::Refused(words)) => return Ok(Ending::Refused(words)),
                Ok(line) => round.take(line),
                Err(error) => {
                    end(&mut self.child);
                    return Err(error);
                }
            }
        }
    }

    /// The next line; empty at the end of the output, `None` after the deadline.
    fn next_line(&mut self, deadline: Duration) -> io::Result<Option<Vec<u8>>> {
        let start = Instant::now();
        let mut chunk = [0; 4096];
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.pending, rest)));
            }
            if self.pending.len() > MAX_ANSWER_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let left = deadline.saturating_sub(start.elapsed());
            if !access::wait_readable(self.output.as_fd(), left).map_err(io::Error::from)? {
                if left.is_zero() {
                    return Ok(None);
                }
                continue;
            }
            let count = self.output.read(&mut chunk)?;
            if count == 0 {
                return Ok(Some(Vec::new()));
            }
            self.pending.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }
}

impl Round {
    fn take(&mut self, line: Line) {
        match line {
            Line::Start { driver_version, cuda_version, gpus } if self.count.is_none() => {
                let count = gpus.min(MOST_GPUS);
                self.count = Some(count);
                self.report = NvmlReport { driver_version, cuda_version, gpus: Vec::new() };
                for index in 0..count {
                    let words = "not asked: NVML hung or ended on other GPUs before".to_owned();
                    self.report.gpus.push(NvmlGpu { index, error: Some(words), ..NvmlGpu::default() });
                    self.readings.push(Map::new());
                }
            }
            Line::Asking(place) => self.asking = Some(place),
            Line::Gpu(gpu) => {
                let place = usize::try_from(gpu.index).ok();
                if let Some(known) = place.and_then(|place| self.report.gpus.get_mut(place)) {
                    *known = gpu;
                }
            }
            Line::Answer(place, reading) => self.keep(place, &reading),
            Line::Start { .. } | Line::Refused(_) | Line::End => {}
        }
    }

    /// Writes down what became of a step that gave no answer.
    fn fail(&mut self, place: Place, error: &NvmlError) {
        if place.1 == 0 {
            let gpu = usize::try_from(place.0).ok().and_then(|index| self.report.gpus.get_mut(index));
            if let Some(gpu) = gpu {
                gpu.error = Some(error.to_string());
            }
            return;
        }
        self.keep(place, &Reading::Error(ReadingError { words: error.to_string(), code: None }));
    }

    /// Writes down that a step is not asked of the GPUs behind a place, where they are asked anything.
    fn leave(&mut self, (gpu, step): Place) {
        let words = "not asked: it gave no answer on two other GPUs".to_owned();
        let reading = Reading::Error(ReadingError { words, code: None });
        let behind: Vec<u32> = self
            .report
            .gpus
            .iter()
            .filter(|other| other.index > gpu && other.error.is_none())
            .map(|other| other.index)
            .collect();
        behind.into_iter().for_each(|index| self.keep((index, step), &reading));
    }

    fn keep(&mut self, (gpu, step): Place, reading: &Reading<Value>) {
        let readings = usize::try_from(gpu).ok().and_then(|index| self.readings.get_mut(index));
        let name = step.checked_sub(1).and_then(|step| READINGS.get(step)).map(|(name, ..)| *name);
        if let (Some(readings), Some(name), Ok(reading)) = (readings, name, serde_json::to_value(reading)) {
            readings.insert(name.to_owned(), reading);
        }
    }

    fn finish(self) -> NvmlReadings {
        // Each reading was written by this program from the type that it is read into.
        let typed = |map| serde_json::from_value(Value::Object(map)).unwrap_or_default();
        NvmlReadings { report: self.report, gpus: self.readings.into_iter().map(typed).collect() }
    }
}
