//! Floor 0, pure: the words that every other floor uses.
//!
//! Nothing here touches files, network, environment, processes or the clock.

pub mod below;
pub mod digest;
pub mod hint;
pub mod hostlist;
pub mod idset;
pub mod limits;
pub mod origin;
pub mod read_at;
pub mod relpath;
pub mod sizes;
pub mod tree;

pub use below::is_below;
pub use digest::{Digest, Hasher};
pub use hint::Hint;
pub use hostlist::{Hostlist, HostlistError};
pub use origin::{Origin, Sourced};
pub use read_at::ReadAt;
pub use relpath::RelPath;
