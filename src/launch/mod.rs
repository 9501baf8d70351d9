//! launch: see src/ARCHITECTURE.md.
