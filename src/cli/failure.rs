//! Errors to words and exit codes. Nothing else makes an exit code.

use std::error::Error;
use std::fmt;

use crate::base::Hint;

/// Exit code of our own failure where a workload has exit codes too, as Docker has it.
const BEFORE_WORKLOAD: u8 = 125;
/// Exit code of a failed verb that starts no workload.
const FAILED: u8 = 1;

/// Why a command ended without success.
#[derive(Debug)]
pub(super) struct Failure {
    /// What was attempted on which object, and why it failed. Empty: nothing is printed.
    message: String,
    hint: Option<String>,
    /// A code that is settled; else it depends on the verb.
    code: Option<u8>,
    is_mended: bool,
}

impl Failure {
    /// A failure in the words of the command line itself.
    pub(super) fn new(message: impl Into<String>, hint: impl Into<Option<&'static str>>) -> Self {
        Self { message: message.into(), hint: hint.into().map(String::from), code: None, is_mended: false }
    }

    /// The same, where the cause was removed since: a second try may succeed.
    pub(super) fn mended(self) -> Self {
        Self { is_mended: true, ..self }
    }

    /// Whether a second try may succeed.
    pub(super) fn is_mended(&self) -> bool {
        self.is_mended
    }

    /// Ends without a word: whoever read our output has gone, or the message has been printed by a child.
    pub(super) fn quiet(code: u8) -> Self {
        Self { message: String::new(), hint: None, code: Some(code), is_mended: false }
    }

    /// Ends without a word with the code of our own failure: the words have been printed.
    pub(super) fn quiet_own() -> Self {
        Self { message: String::new(), hint: None, code: None, is_mended: false }
    }

    /// The same with another exit code.
    pub(super) fn with_code(self, code: u8) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The same with another hint.
    pub(super) fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// The same with what was attempted before it.
    pub(super) fn about(self, attempt: &str) -> Self {
        Self { message: format!("{attempt}: {}", self.message), ..self }
    }

    /// The exit code; `run` keeps 1 free for the workload.
    pub(super) fn code(&self, is_run: bool) -> u8 {
        self.code.unwrap_or(if is_run { BEFORE_WORKLOAD } else { FAILED })
    }
}

impl<E: Error + Hint> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { message: error.to_string(), hint: error.hint(), code: None, is_mended: false }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            return Ok(());
        }
        writeln!(f, "error: {}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| writeln!(f, "  hint: {hint}"))
    }
}
