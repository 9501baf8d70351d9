//! Registries: an anonymous pull client over one blocking HTTP transport (distribution-spec, Docker's token protocol).
//!
//! ```text
//! pull ── resolve ── manifest or index ── platform ── manifest
//!   │                                                   ├─ config
//!   └── layers, several at once ── blob (resume) ───────┴─ layers ──▶ store
//! every request: client (scheme, token, redirects, refusals) ── transport (the HTTP library's only door)
//! ```
//!
//! Nothing is believed: documents are taken as raw bytes and hashed, blobs go through the store's verifying writer,
//! and the manifest is stored last. Plain http is spoken with this machine itself and with hosts that the
//! configuration lists. Tokens go to the registry that asked for one and are never shown, and addresses are shown
//! without their query, which may hold a signature.

mod arriving;
mod auth;
mod blob;
mod challenge;
mod client;
mod error;
mod manifest;
mod parts;
mod pull;
mod transport;
mod url;

pub use arriving::Arriving;
pub use client::{Client, ClientOptions};
pub use error::RegistryError;
pub use pull::{LayerState, Pinned, PullEvent, pull, pull_while};
pub use transport::Reach;
