//! What tests share.

#[macro_use]
pub(crate) mod need;
