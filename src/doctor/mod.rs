//! The health of a node, and what is sent along with a report about it.
//!
//! Checks judge facts that other modules read ([`crate::gpu::GpuReadings`], [`crate::gpu::topology`]); nothing here asks a
//! driver by itself. Today there is the record.

mod record;
mod scrub;

pub use record::{Facts, RecordError, record};
