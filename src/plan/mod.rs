//! plan: see src/ARCHITECTURE.md.
