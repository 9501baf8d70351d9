//! Slipway takes a Docker image to a running job on a cluster node, without root, daemon or setuid.
//!
//! The map of the code, its floors and its invariants are in `src/ARCHITECTURE.md`. A module may import modules of
//! lower floors and the same-floor edges that are listed there; `tests/it/floors.rs` holds it to that.

// floor 0: words, and the only unsafe code
pub mod base;
pub mod sys;

// floor 1: formats, pure
pub mod cdi;
pub mod elf;
pub mod grants;
pub mod oci;
pub mod reference;
pub mod sif;
pub mod squashfs;
pub mod tarlayer;

// floor 2: the world, read once
pub mod config;
pub mod gpu;
pub mod host;
pub mod mpi;
pub mod registry;
pub mod sched;
pub mod store;

// floor 3: images and plans
pub mod bundle;
pub mod convert;
pub mod image;
pub mod plan;

// floor 4: effects
pub mod fuse;
pub mod launch;
pub mod runtime;
pub mod unpack;

// floor 5: judgements
pub mod doctor;

// floor 6: the command line
pub mod cli;
