//! `slipway info`: what a bug report should say of the machine.

use std::path::Path;

use crate::base::sizes::human_size;
use crate::host::HostFacts;

use super::Session;
use crate::cli::args::InfoArgs;
use crate::cli::failure::Failure;
use crate::cli::term;

pub(in crate::cli) fn run(args: &InfoArgs, session: &Session) -> Result<(), Failure> {
    let facts = HostFacts::read(Path::new("/"));
    let (containers, running) = super::containers::count(session)?;
    if args.json {
        let mut value = serde_json::to_value(&facts).unwrap_or_default();
        value["containers"] =
            serde_json::json!({ "all": containers, "running": running, "stopped": containers - running });
        let text = serde_json::to_string_pretty(&value)
            .map_err(|error| Failure::new(format!("the facts cannot be shown as JSON: {error}"), None))?;
        return term::print(&format_args!("{text}\n"));
    }
    let limit = |number: Option<u64>| number.map_or_else(|| "no such setting".into(), |n| n.to_string());
    term::print(&format_args!(
        "Version:          {}\n\
         Containers:       {containers} ({running} running, {} stopped)\n\
         Kernel:           {}\n\
         Architecture:     {}\n\
         CPUs:             {}\n\
         Memory:           {}, {} available\n\
         User namespaces:  {} at most\n\
         /dev/fuse:        {}\n\
         Store:            {}\n",
        env!("CARGO_PKG_VERSION"),
        containers - running,
        facts.kernel,
        facts.architecture,
        facts.cpus.allowed(),
        human_size(facts.memory.total_bytes),
        human_size(facts.memory.available_bytes),
        limit(facts.userns.max_user_namespaces),
        facts.fuse,
        session.settings.store.dir.value.display(),
    ))
}
