//! The `slipway` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let first = args.next();
    if first.as_ref().is_some_and(|first| first == slipway::gpu::NVML_CHILD) {
        return ExitCode::from(slipway::gpu::nvml_child_main(args.next().as_deref()));
    }
    if first.is_some_and(|first| first == slipway::gpu::NVML_READINGS_CHILD) {
        return ExitCode::from(slipway::gpu::readings_child_main(&args.collect::<Vec<_>>()));
    }
    slipway::cli::main()
}
