//! What tests share.

#[macro_use]
pub(crate) mod need;

pub(crate) mod host;
pub(crate) mod tiny_elf;
