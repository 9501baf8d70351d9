//! All tests that need more than one module or a real kernel, in one binary.

#![expect(clippy::disallowed_methods, reason = "tests touch the world")]

#[macro_use]
mod support;

mod merge;
mod tar_oracle;
