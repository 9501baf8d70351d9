//! OCI and Docker image documents: index, manifest, image config, platform choice, layout. Pure.
//!
//! Raw bytes are kept beside the parsed form everywhere, since types of any crate lose fields (facts: docker §0.3).

pub mod amend;
mod choose;
mod config;
pub mod layout;
mod manifest;
pub mod media;
mod platform;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Deserializer};

pub use choose::{ChooseError, candidates, choose};
pub use config::{ImageConfig, RootFs, RootFsError, RunConfig};
pub use manifest::{Descriptor, Document, DocumentError, Index, Manifest};
pub use platform::{Platform, PlatformError};

/// Go programs write `null` for what is empty.
fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(de: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(de)?.unwrap_or_default())
}

/// Some editors put a byte order mark before JSON.
fn without_bom(raw: &[u8]) -> &[u8] {
    raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw)
}
