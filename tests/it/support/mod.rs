//! What tests share.

#[macro_use]
pub(crate) mod need;

pub(crate) mod driver_files;
pub(crate) mod fake_sysfs;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod layers;
pub(crate) mod other_gpus;
pub(crate) mod real_host;
pub(crate) mod registry;
pub(crate) mod sandbox;
pub(crate) mod slurm;
pub(crate) mod terminal;
pub(crate) mod tiny_elf;
pub(crate) mod tree;
pub(crate) mod user;
pub(crate) mod yard;
