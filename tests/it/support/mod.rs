//! What tests share.

#[macro_use]
mod need;
