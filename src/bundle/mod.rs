//! bundle: see src/ARCHITECTURE.md.
