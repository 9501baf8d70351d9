//! registry: see src/ARCHITECTURE.md.
