//! convert: see src/ARCHITECTURE.md.
