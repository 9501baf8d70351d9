//! sys: see src/ARCHITECTURE.md.
