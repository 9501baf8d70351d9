//! `slipway doctor`: today the record of a node for a bug report.

use std::path::Path;

use crate::doctor::{self, Facts};
use crate::gpu::{self, Scope};

use super::{Session, gpus};
use crate::cli::args::DoctorArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

pub(in crate::cli) fn run(args: &DoctorArgs, session: &Session) -> Result<(), Failure> {
    let node = gpus::read_node(session, Scope::All);
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = doctor::record(&Facts {
        inventory: &node.inventory,
        access: &gpu::read_access(&node.root, &node.inventory),
        readings: &node.readings,
        report: node.report.as_ref(),
        topology: &node.topology(),
        nvswitch: node.root.place(Path::new("/dev/nvidia-nvswitchctl")).exists(),
        host_name: host_name.trim(),
    })?;
    gpus::write_output(&args.record, &text)?;
    if let Some(words) = &node.unanswered {
        term::warn(&format!("the record has no reading of NVML: {words}"));
    }
    if args.record != Path::new("-") {
        term::note(&format_args!(
            "wrote `{}`; serial numbers, UUIDs and the host's name are replaced, look it over before you send it",
            args.record.display()
        ));
    }
    Ok(())
}
