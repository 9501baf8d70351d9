//! host: see src/ARCHITECTURE.md.
