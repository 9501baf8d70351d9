//! Layer tars: bytes to entries, whiteouts, and the one-pass merge into one tree. Pure.

mod reader;

pub use reader::{Entry, EntryKind, TarError, TarReader};
