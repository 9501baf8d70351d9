//! gpu: see src/ARCHITECTURE.md.
