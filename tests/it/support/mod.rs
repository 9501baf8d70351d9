//! What tests share.

#[macro_use]
pub(crate) mod need;
pub(crate) mod layers;
pub(crate) mod registry;
pub(crate) mod tree;
