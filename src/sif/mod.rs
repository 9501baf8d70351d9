//! sif: see src/ARCHITECTURE.md.
