//! An image's tree as a directory of this node, for nodes without `/dev/fuse`: unpacked once, shared by all jobs of the
//! user, removed when nobody has used it for a while.
//!
//! ```text
//! BASE/slipway-UID/roots/<boot>.<key>        the tree; it appears by a rename, whole
//!                       /<boot>.<key>.lock   who unpacks or removes has it alone; starts share it
//!                       /<boot>.<key>.new    the tree while it is made (beside it `.links`, for hard links)
//!                       /<boot>.<key>.old    the tree while it is removed
//! ```
//!
//! A start holds the lock until the workload is executed. From then on the kernel's own mount tables say who uses a tree,
//! whatever becomes of our processes, so that nothing is left to clean up after a kill. A tree counts only in the boot in
//! which it was made: its bytes are never synced, and a crash may have lost some.
//!
//! The tree is written by a child process with threads; the launcher has none.

#![expect(clippy::disallowed_methods, reason = "makes and removes directories on this node")]

mod error;
mod measure;
mod roots;
mod sweep;
#[cfg(test)]
mod tests;
mod tree;

pub use error::UnpackError;
pub use measure::{Needs, measure};
pub use roots::{Lease, Roots, Unpacking, default_base, key_of_file, place};
pub use sweep::{RootFacts, Swept};
pub use tree::Written;
