//! Layer tars: bytes to entries, whiteouts, and the one-pass merge into one tree. Pure.
//!
//! [`TarReader`] turns a byte stream into [`Entry`]s. [`Merger`] takes the layers of an image newest first, hands file
//! content on as it comes by, and makes one [`crate::base::tree::Tree`] that equals applying them oldest first.

mod encoding;
mod merge;
mod reader;
#[cfg(test)]
pub(crate) mod testing;
mod write;

pub use encoding::{Encoding, GzipWriter};
pub use merge::{FileSink, LayerRest, Limits, MergeError, Merger, NameError};
pub use reader::{Entry, EntryData, EntryKind, TarError, TarReader};
pub use write::TarWriter;
