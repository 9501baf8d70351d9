//! image: see src/ARCHITECTURE.md.
