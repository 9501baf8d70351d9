//! Registries: a client that pulls and pushes over one blocking HTTP transport (distribution-spec, Docker's token protocol).
//!
//! ```text
//! pull ── resolve ── manifest or index ── platform ── manifest
//!   │                                                   ├─ config
//!   └── layers, several at once ── blob (resume) ───────┴─ layers ──▶ store
//! push ── manifest from the store ── HEAD, mount or upload of each blob (resume) ── manifest
//! every request: client (scheme, token, redirects, refusals) ── transport (the HTTP library's only door)
//! ```
//!
//! Nothing is believed: documents are taken as raw bytes and hashed, blobs go through the store's verifying writer,
//! and the manifest is stored last. Plain http is spoken with this machine itself and with hosts that the
//! configuration lists. Tokens go to the registry that asked for one and are never shown, and addresses are shown
//! without their query, which may hold a signature.

#![expect(clippy::disallowed_methods, reason = "reads certificates")]

mod arriving;
mod auth;
mod blob;
mod challenge;
mod client;
mod credentials;
mod error;
mod exchange;
mod login;
mod manifest;
mod mirror;
mod parts;
mod proxy;
mod pull;
mod push;
mod tags;
mod transport;
mod trust;
mod upload;
mod url;

pub use arriving::Arriving;
pub use client::{Client, ClientOptions};
pub use credentials::{
    CredentialError, CredentialSources, Kept, Login, Secret, erase_login, keep_login, server_key,
};
pub use error::RegistryError;
pub use mirror::{pull, pull_while};
pub use proxy::Proxies;
pub use pull::{LayerState, Pinned, PullEvent};
pub use push::{PushEvent, PushState, Pushed, push};
pub use transport::Reach;
pub use trust::TrustSources;
