//! sched: see src/ARCHITECTURE.md.
