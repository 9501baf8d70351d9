//! What tests share.

#[macro_use]
pub(crate) mod need;

pub(crate) mod image;
pub(crate) mod sandbox;
pub(crate) mod slurm;
pub(crate) mod user;
pub(crate) mod layers;
pub(crate) mod tree;
