//! What will keep a granted thing from working, known before the workload starts.

use std::fmt;

/// One cause, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong, as a fragment.
    pub what: String,
    /// One thing to do, as an imperative (`reboot the node`).
    pub remedy: String,
    /// Whether a program can work all the same.
    pub weight: Weight,
}

/// How much a [`Trouble`] weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// No program can use what was granted: who asked for it in so many words gets an error, anybody else a warning.
    Certain,
    /// Some programs fail, or all may: a warning.
    Possible,
    /// A warning for who asked in so many words; anybody else finds it among the notes.
    Slight,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.remedy)
    }
}
