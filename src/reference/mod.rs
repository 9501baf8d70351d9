//! reference: see src/ARCHITECTURE.md.
