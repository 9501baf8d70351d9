//! Fuzz targets for everything that reads bytes which others have made. `scripts/fuzz` builds and runs them.
//!
//! One program holds all targets, so that the house is compiled and linked once; `SLIPWAY_FUZZ_TARGET` chooses. What must
//! hold stands at the head of each target. For all of them: no panic (overflow checks and debug assertions are on), no
//! input takes longer than the time limit of the script, and no input makes a target hold more memory than its row says.

#![no_main]

mod documents;
mod fuse;
mod gpus;
mod host;
mod layers;
mod memory;
mod plan;
mod scratch;
mod squashfs;
mod words;

use std::sync::OnceLock;

/// A target's function. An input of no use to it is just left.
type Run = fn(&[u8]);

/// Every target: name, function, and most memory that one input may make it hold, in MiB.
const TARGETS: &[(&str, Run, usize)] = &[
    ("archive", documents::archive, 64),
    ("cdi", host::cdi, 64),
    ("config", host::config, 16),
    ("elf", host::elf, 16),
    ("encoding", layers::encoding, 16),
    ("fuse", fuse::requests, 64),
    ("fuse_image", fuse::image, 128),
    ("gpu_job", gpus::job, 16),
    ("gpu_require", gpus::require, 16),
    ("gres", host::gres, 64),
    ("hot_list", fuse::hot_list, 16),
    ("image", documents::image, 64),
    ("ld_cache", host::ld_cache, 16),
    ("mig_minors", host::mig_minors, 16),
    ("oci", documents::oci, 16),
    ("plan", plan::plan, 16),
    ("reference", words::reference, 1),
    ("sif", documents::sif, 16),
    ("squashfs", squashfs::image, 128),
    ("squashfs_block", squashfs::block, 16),
    ("squashfs_round_trip", squashfs::round_trip, 64),
    ("sums", squashfs::sums, 16),
    ("tar", layers::tar, 16),
    ("tar_merge", layers::merge, 32),
    ("tar_model", layers::model, 64),
    ("words", words::words, 16),
];

static CHOSEN: OnceLock<(Run, usize)> = OnceLock::new();

fn choose() -> (Run, usize) {
    let name = std::env::var("SLIPWAY_FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.iter().find(|(known, ..)| *known == name);
    let Some((_, run, mebibytes)) = target else {
        let names: Vec<_> = TARGETS.iter().map(|(name, ..)| *name).collect();
        panic!("SLIPWAY_FUZZ_TARGET is `{name}`, and the targets are: {}", names.join(" "));
    };
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        memory::lift();
        tell(info);
    }));
    (*run, mebibytes << 20)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (run, limit_bytes) = *CHOSEN.get_or_init(choose);
    memory::bounded(limit_bytes, || run(data));
});
