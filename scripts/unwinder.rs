//! Build script: links the unwinder into the program, so that it needs no shared library but the C library.
//!
//! Rust asks the linker for `libgcc_s`, a shared library that each start would have to find, map and initialise (0.2 ms of
//! 3). A linker script of that name, found first, gives the static archives that every gcc brings along.

#![expect(clippy::disallowed_methods, reason = "a build script reads its environment and writes files")]
#![expect(clippy::print_stdout, reason = "it talks to cargo")]

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=scripts/unwinder.rs");
    let is_glibc = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux")
        && env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu");
    if !is_glibc {
        return;
    }
    let directory = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(directory.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n").expect("OUT_DIR can be written to");
    println!("cargo::rustc-link-search=native={}", directory.display());
}
