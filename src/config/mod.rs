//! config: see src/ARCHITECTURE.md.
