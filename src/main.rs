//! The `slipway` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == slipway::gpu::NVML_CHILD) {
        return ExitCode::from(slipway::gpu::nvml_child_main(args.next().as_deref()));
    }
    slipway::cli::main()
}
