//! All tests that need more than one module or a real kernel, in one binary.

#![expect(clippy::disallowed_methods, reason = "tests touch the world")]
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

#[macro_use]
mod support;

mod config;
mod floors;
mod registry;
mod squashfs_read;
