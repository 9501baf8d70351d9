//! All tests that need more than one module or a real kernel, in one binary.

#![expect(clippy::disallowed_methods, reason = "tests touch the world")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a panic fails the test, and a skip is told")]

#[macro_use]
mod support;

mod errors_cli;
mod floors;
mod quickstart_parts;
mod run_cli;
mod slurm;
mod convert;
mod floors;
mod sif;
mod squashfs_read;
mod squashfs_write;
