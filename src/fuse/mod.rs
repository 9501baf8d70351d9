//! fuse: see src/ARCHITECTURE.md.
