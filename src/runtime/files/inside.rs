//! A child process inside a container: its root is the container's, whether that runs or not.

use std::io::{PipeReader, PipeWriter};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::launch::{self, Context};
use crate::plan::LaunchPlan;
use crate::sys::ns::SingleThreaded;
use crate::sys::process::Child;
use crate::sys::{Errno, process, socket};

use super::super::container::Container;
use super::super::enter;
use super::super::error::RuntimeError;
use super::CopyError;
use super::unpack::Head;

/// Longest word of the child, in bytes.
const WORD_BYTES: usize = 64 << 10;

/// Which container, and how its root is reached.
#[derive(Debug)]
pub struct Place<'a> {
    /// The container.
    pub container: &'a Container,
    /// How its root is built where it does not run.
    pub anew: Option<(&'a LaunchPlan, Context<'a>)>,
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// The source is there.
    Head(Head),
    /// Everything is done.
    Done,
    Failed(CopyError),
}

/// A child inside, seen from outside.
#[derive(Debug)]
pub(super) struct Inside {
    child: Child,
    words: OwnedFd,
}

/// The child's line to the outside.
#[derive(Debug)]
pub(super) struct Outside<'a> {
    words: &'a OwnedFd,
}

impl Outside<'_> {
    pub(super) fn say(&self, word: &Word) {
        let text = serde_json::to_vec(word).unwrap_or_default();
        // The other side may be gone, and then nobody wants to know.
        let _ = socket::send(self.words, &text, &[]);
    }
}

impl Place<'_> {
    /// Starts a child inside that does `work` and says how it went.
    pub(super) fn enter(
        &self,
        work: impl FnOnce(&Outside<'_>) -> Result<(), CopyError>,
    ) -> Result<Inside, RuntimeError> {
        let name = self.container.record.name.clone();
        let failed = |act, errno| RuntimeError::Enter { name: name.clone(), act, errno };
        let (ours, theirs) = socket::pair().map_err(|errno| failed("making sockets", errno))?;
        let mut ours = Some(ours);
        let in_child = |ours: &mut Option<OwnedFd>, theirs: &OwnedFd| {
            drop(ours.take());
            process::set_name(c"slipway-files");
            process::set_umask(0);
            let outside = Outside { words: theirs };
            match work(&outside) {
                Ok(()) => outside.say(&Word::Done),
                Err(error) => outside.say(&Word::Failed(error)),
            }
            0
        };
        let child = match &self.anew {
            None => enter::visit(self.container, || in_child(&mut ours, &theirs))?,
            Some((plan, context)) => {
                let witness = SingleThreaded::witness()
                    .ok_or_else(|| failed("this process has threads", Errno::EINVAL))?;
                process::fork_child(&witness, || match launch::visit(plan, context) {
                    Ok(()) => in_child(&mut ours, &theirs),
                    Err(error) => {
                        let words = error.to_string();
                        let act = "reach the root of".into();
                        let error = CopyError::Step { act, path: (&name).into(), words };
                        Outside { words: &theirs }.say(&Word::Failed(error));
                        1
                    }
                })
                .map_err(|errno| failed("starting a process", errno))?
            }
        };
        drop(theirs);
        let words = ours.ok_or_else(|| failed("keeping a socket", Errno::EINVAL))?;
        Ok(Inside { child, words })
    }
}

impl Inside {
    /// Waits for the child's next word.
    pub(super) fn hear(&self) -> Result<Word, CopyError> {
        match socket::receive(&self.words, WORD_BYTES) {
            Ok(Some((text, _))) => match serde_json::from_slice(&text) {
                Ok(Word::Failed(error)) => Err(error),
                Ok(word) => Ok(word),
                Err(_) => Err(CopyError::Killed),
            },
            _ => Err(CopyError::Killed),
        }
    }

    /// Waits for the child to end its work well.
    pub(super) fn finish(self) -> Result<(), CopyError> {
        let heard = loop {
            match self.hear() {
                Ok(Word::Done) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        // It has said how it went.
        let _ = process::wait(self.child);
        heard
    }
}

/// A pipe of which each side is given away once.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) reader: Option<PipeReader>,
    pub(super) writer: Option<PipeWriter>,
}

impl Pipe {
    pub(super) fn new() -> Result<Self, CopyError> {
        let (reader, writer) = std::io::pipe().map_err(|error| CopyError::stream(&error))?;
        Ok(Self { reader: Some(reader), writer: Some(writer) })
    }
}
