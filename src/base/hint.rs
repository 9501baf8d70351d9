//! Hints: one sentence that tells a user the one thing to do about an error.

/// An error that may know what its reader should do next.
///
/// The text is one sentence in lower case without a final period, with the exact command or configuration key.
pub trait Hint {
    /// What to do, if the error knows it.
    fn hint(&self) -> Option<String>;
}
