//! OCI and Docker image documents: index, manifest, image config, platform choice, layout. Pure.
//!
//! Raw bytes are kept beside the parsed form everywhere, since types of any crate lose fields (facts: docker §0.3).

mod config;
mod manifest;
mod platform;

pub use config::{ImageConfig, RunConfig};
pub use manifest::{Descriptor, Document, DocumentError, Index, Manifest};
pub use platform::Platform;
