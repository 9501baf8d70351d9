//! Layer tars: bytes to entries, whiteouts, and the one-pass merge into one tree. Pure.

mod merge;
mod reader;

pub use merge::{FileSink, Limits, MergeError, Merger};
pub use reader::{Entry, EntryKind, TarError, TarReader};
